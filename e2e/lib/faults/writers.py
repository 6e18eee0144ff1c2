"""Clients and sidecars that behave badly: killed, overlapping, unanswered, mistrusting, somewhere else."""

import concurrent.futures
import hashlib
import os
import socket
import ssl
import threading
import time

import boto3
import botocore.exceptions
from botocore.config import Config

from lib import hawser, running, stories
from lib.faults.outage import AWAY
from lib.faults.world import BUCKET, World

UPSTREAM = r"cloud: its TLS failed"


@stories.story("faults")
def sidecar_killed(folder):
    """A sidecar dies in the middle of a body: no phantom object, a gap by intent, then the truth."""
    world = World(folder, lease=3)
    world.store.start()
    sidecar = world.sidecar()
    world.put(sidecar.client(world.a), "whole")
    world.settled()
    body = os.urandom(4 << 20)
    wire = _half_a_put(world, sidecar, "half", body)
    running.until(lambda: world.status()["openIntents"] >= 1, "the store knows of the write under way")
    sidecar.kill()
    wire.close()
    running.until(lambda: [gap for gap in world.gaps() if gap.get("key") == "half"],
                  "the dead sidecar's intent becomes a gap of its key", 60)
    listed = [item["Key"] for item in world.store.client().list_objects_v2(Bucket=BUCKET).get("Contents", [])]
    running.expect(listed == ["whole"], f"a phantom: the store lists {listed}")
    world.note_whatever("half")
    world.expect_repaired()


def _half_a_put(world, sidecar, key, body):
    """A PUT of which only half of the body is sent; the connection stays open and is returned."""
    signed = world.a.client(signature_version="s3v4").generate_presigned_url("put_object", Params={"Bucket": BUCKET, "Key": key})
    path = signed.split(f":{world.a.port}", 1)[1]
    wire = _tunnel(sidecar, world.a.host, world.a.port)
    wire.sendall(f"PUT {path} HTTP/1.1\r\nHost: {world.a.host}:{world.a.port}\r\nContent-Length: {len(body)}\r\n\r\n".encode())
    wire.sendall(body[:len(body) // 2])
    return wire


def _tunnel(sidecar, host, port):
    """A TLS connection to a cloud through the proxy."""
    plain = socket.create_connection(("127.0.0.1", int(sidecar.proxy.rsplit(":", 1)[1])), 10)
    plain.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        piece = plain.recv(1)
        running.expect(piece, f"the proxy closed instead of answering CONNECT: {answer!r}")
        answer += piece
    running.expect(b" 200 " in answer.split(b"\r\n")[0], f"CONNECT {host}:{port} was answered {answer!r}")
    context = ssl.create_default_context(cafile=str(sidecar.trust / "bundle.pem"))
    return context.wrap_socket(plain, server_hostname=host)


@stories.story("faults")
def overlapping_writers(folder):
    """Two pods write the same keys at the same time, over and over: whatever won at the cloud is what the copy
    says once a backfill has looked."""
    world = World(folder)
    world.store.start()
    clients = [world.sidecar(f"sidecar-{number}").client(world.a) for number in (1, 2)]

    def write(client, number):
        for turn in range(25):
            for key in ("one", "two", "three"):
                client.put_object(Bucket=BUCKET, Key=key, Body=f"{number} {turn} {key}".encode() * 3000)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(write, client, number) for number, client in enumerate(clients * 2)]:
            done.result()
    for key in ("one", "two", "three"):
        world.note(key, world.direct.get_object(Bucket=BUCKET, Key=key)["Body"].read())
    world.settled()
    world.expect_repaired()
    world.expect_moves()


@stories.story("faults")
def overlap_settled_by_a_read(folder):
    """Overlapping writes of one key are settled by the next read of it, without a backfill."""
    world = World(folder)
    world.store.start()
    one, two = (world.sidecar(f"sidecar-{number}").client(world.a) for number in (1, 2))
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for _ in range(10):
            both = [pool.submit(client.put_object, Bucket=BUCKET, Key="key", Body=os.urandom(200_000)) for client in (one, two)]
            for done in both:
                done.result()
    world.settled()

    def read_settled():
        body = one.get_object(Bucket=BUCKET, Key="key")["Body"].read()
        copy = _copy_of(world, "key")
        return not world.gaps() and copy == hashlib.sha256(body).hexdigest()

    running.until(read_settled, "a read begun after both writes decides between them")


def _copy_of(world, key):
    face = world.store.client()
    try:
        return hashlib.sha256(face.get_object(Bucket=BUCKET, Key=key)["Body"].read()).hexdigest()
    except botocore.exceptions.ClientError:
        return None


@stories.story("faults")
def lost_answer(folder):
    """The cloud took the whole body and its answer was lost on the way: a gap says that the outcome is unknown,
    and only the truth, after its time, closes it."""
    world = World(folder, gated=True)
    world.store.start()
    sidecar = world.sidecar()
    world.put(sidecar.client(world.a), "known")
    body = os.urandom(300_000)
    wire = _half_a_put(world, sidecar, "unanswered", body)
    running.until(lambda: world.status()["openIntents"] >= 1, "the store knows of the write under way")
    world.gate.swallow()
    wire.sendall(body[len(body) // 2:])
    running.until(lambda: _exists(world.direct, "unanswered"), "the cloud stored it all the same")
    world.gate.cut()
    wire.close()
    world.note("unanswered", body)
    running.until(lambda: [gap for gap in world.gaps() if gap["reason"] == "OutcomeUnknown" and gap["key"] == "unanswered"],
                  "a gap says that the outcome is unknown")
    running.expect(not _copy_of(world, "unanswered"), "the copy shows what nobody answered for")
    world.expect_repaired()


def _exists(client, key):
    try:
        client.head_object(Bucket=BUCKET, Key=key)
        return True
    except botocore.exceptions.ClientError:
        return False


@stories.story("faults")
def unbound_host(folder):
    """A host that no binding names is spliced: the client sees that host's own certificate."""
    world = World(folder)
    world.store.start()
    sidecar = world.sidecar()
    certificate, key = world.ca.issue("elsewhere.test")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        wire = context.wrap_socket(listener.accept()[0], server_side=True)
        wire.sendall(wire.recv(100)[::-1])
        wire.close()

    from lib import names
    names.add("elsewhere.test")
    threading.Thread(target=serve, daemon=True).start()
    plain = socket.create_connection(("127.0.0.1", int(sidecar.proxy.rsplit(":", 1)[1])), 10)
    port = listener.getsockname()[1]
    plain.sendall(f"CONNECT elsewhere.test:{port} HTTP/1.1\r\nHost: elsewhere.test:{port}\r\n\r\n".encode())
    running.expect(plain.recv(1000).startswith(b"HTTP/1.1 200"), "CONNECT to an unbound host is served")
    wire = ssl.create_default_context(cafile=str(world.ca.pem)).wrap_socket(plain, server_hostname="elsewhere.test")
    wire.sendall(b"hawser")
    running.expect(wire.recv(100) == b"reswah", "bytes pass both ways")
    issuer = dict(pair[0] for pair in wire.getpeercert()["issuer"])
    running.expect(issuer["commonName"] == "Test Clouds", f"the certificate is the host's own, not one of {issuer}")


@stories.story("faults", announced=[r"pod: a client does not trust the CA"])
def no_ca(folder):
    """A client that does not trust the CA fails once, is then passed through, and a gap of the binding says so."""
    world = World(folder, lease=3)
    world.store.start()
    sidecar = world.sidecar()
    client = boto3.client("s3", endpoint_url=world.a.endpoint, region_name="us-east-1", aws_access_key_id=world.a.access,
                          aws_secret_access_key=world.a.secret, verify=str(world.ca.pem),
                          config=Config(s3={"addressing_style": "path"}, proxies={"https": f"http://{sidecar.proxy}"},
                                        retries={"total_max_attempts": 4}))
    world.put(client, "unseen")
    running.until(lambda: any(gap["scope"].lower() == "binding" for gap in world.gaps()), "a gap of the binding tells of it")
    client.close()
    sidecar.stop()  # else this kind of client is passed through for ten minutes, and the gap is open as long
    running.until(lambda: all("endTick" in gap for gap in world.gaps()), "the gap ends with the sidecar")
    world.expect_repaired()


@stories.story("faults")
def closed_port(folder):
    """CONNECT to a port where nothing listens is refused as the network would: no 200, no hanging."""
    world = World(folder)
    world.store.start()
    sidecar = world.sidecar()
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    begun = time.monotonic()
    plain = socket.create_connection(("127.0.0.1", int(sidecar.proxy.rsplit(":", 1)[1])), 10)
    plain.sendall(f"CONNECT {world.a.host}:{port} HTTP/1.1\r\nHost: {world.a.host}:{port}\r\n\r\n".encode())
    answer = plain.recv(1000)
    running.expect(not answer.startswith(b"HTTP/1.1 200"), f"a closed port was answered {answer!r}")
    running.expect(time.monotonic() - begun < 10, "the refusal comes at once")
    running.expect(sidecar.process.running() and hawser.ready(sidecar.admin), "the sidecar lives on")
