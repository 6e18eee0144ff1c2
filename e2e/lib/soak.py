"""Every process is killed at random moments under real clients; then the copy is the cloud, or a gap says why not.

The seed is printed: `HAWSER_SOAK_SEED=N e2e/test soak` draws the same work and the same pauses again. What the
machine does in between it does not repeat."""

import concurrent.futures
import hashlib
import io
import os
import random
import threading
import time

import botocore.exceptions
import urllib3.exceptions
from boto3.s3.transfer import TransferConfig

from lib import hawser, ledger, running, stories
from lib.faults.outage import AWAY
from lib.faults.world import BUCKET, World

SECONDS = 40
WRITERS = 6
PARTS = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20, max_concurrency=2)
BROKEN = (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError, urllib3.exceptions.HTTPError, OSError)

ANNOUNCED = [AWAY, r"what was not acknowledged is cut off the log", r"the index does not follow the log",
             r"cloud: its TLS failed", r"store: not everything that was captured"]


@stories.story("soak", announced=ANNOUNCED)
def random_kills(folder):
    """Sidecars, store and migrator die again and again while clients write, copy, tag, delete and read."""
    seed = int(os.environ.get("HAWSER_SOAK_SEED", random.SystemRandom().randrange(1 << 32)))
    print(f"  HAWSER_SOAK_SEED={seed}", flush=True)
    world = World(folder, lease=2)
    world.store.start()
    sidecars = [world.sidecar(f"sidecar-{number}") for number in (1, 2)]
    over = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(WRITERS) as pool:
        writers = [pool.submit(_work, world, sidecars[number % 2], random.Random(seed + number), number, over)
                   for number in range(WRITERS)]
        try:
            kills = _kill(world, sidecars, random.Random(seed))
        finally:
            over.set()
        done, broken = map(sum, zip(*(writer.result() for writer in writers), strict=True))
    running.expect(done > 100, f"only {done} operations got through: nothing was tried")
    running.until(lambda: world.status()["openIntents"] == 0, "every write has an outcome or is a gap", 60)
    _read_the_cloud(world)
    excused = _expect_same_or_a_gap(world)
    print(f"  {done} operations through, {broken} broken, killed {kills}; {len(world.book)} objects, "
          f"{excused} of them under a gap", flush=True)
    world.expect_repaired()
    world.expect_moves()


def _work(world, sidecar, chance, number, over):
    """Operations on keys of its own and on keys that all share, until it is `over`. Gives how many got through and
    how many broke."""
    # Kinds of writes have keys of their own: versitygw leaves tags, and metadata that a copy or an upload in parts
    # does not name, on the object that is overwritten; S3 does not, and the copy is as S3 would have it.
    client = sidecar.client(world.a, connect_timeout=5, read_timeout=20)
    done = broken = 0
    while not over.is_set():
        mine = f"writer-{number}/{chance.randrange(12)}"
        key = mine if chance.random() < 0.8 else f"shared/{chance.randrange(4)}"
        size = chance.choice((0, 10, 3_000, 200_000, 200_000, 1_500_000))
        body = chance.randbytes(size) if chance.random() < 0.7 else bytes(size)  # some of it is the same everywhere
        metadata = {"turn": str(chance.randrange(3))}
        what = chance.choices(("put", "get", "head", "delete", "copy", "tag", "parts", "many"), (8, 3, 2, 2, 2, 2, 1, 1))[0]
        try:
            if what == "put":
                client.put_object(Bucket=BUCKET, Key=key, Body=body, Metadata=metadata)
            elif what == "get":
                client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
            elif what == "head":
                client.head_object(Bucket=BUCKET, Key=key)
            elif what == "delete":
                client.delete_object(Bucket=BUCKET, Key=key)
            elif what == "copy":
                key = f"copies/{number}-{chance.randrange(6)}"
                client.copy_object(Bucket=BUCKET, Key=key, CopySource={"Bucket": BUCKET, "Key": mine})
            elif what == "tag":
                key = f"tagged/{number}-{done}"
                client.put_object(Bucket=BUCKET, Key=key, Body=body[:3_000], Metadata=metadata)
                client.put_object_tagging(Bucket=BUCKET, Key=key, Tagging={
                    "TagSet": [{"Key": "turn", "Value": metadata["turn"]}]})
            elif what == "parts":
                key = f"parts/{number}-{chance.randrange(3)}"
                client.upload_fileobj(io.BytesIO(chance.randbytes(6 << 20)), BUCKET, key, Config=PARTS)
            else:
                keys = [{"Key": f"writer-{number}/{index}"} for index in chance.sample(range(12), 3)]
                client.delete_objects(Bucket=BUCKET, Delete={"Objects": keys})
            done += 1
        except client.exceptions.NoSuchKey:
            done += 1
        except BROKEN as error:
            status = (getattr(error, "response", None) or {}).get("ResponseMetadata", {}).get("HTTPStatusCode")
            done, broken = (done + 1, broken) if status == 404 else (done, broken + 1)
            over.wait(0.02)  # nobody listens where a sidecar was killed
    return done, broken


def _kill(world, sidecars, chance):
    """Kills one process after the other and starts it again; from the main thread, to which they belong."""
    kills = {"sidecar": 0, "store": 0, "migrator": 0}
    migrator, deadline = None, time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if migrator is None or not migrator.running():
            argv, env = hawser.migrate_command("backfill", world.binding, world.store, world.clouds, world.ca.pem)
            migrator = running.Process("hawser-migrate", argv, world.folder / "migrate.log", env)
        time.sleep(chance.uniform(0.2, 2.0))
        whom = chance.choice(("sidecar", "sidecar", "store", "migrator"))
        kills[whom] += 1
        if whom == "migrator":
            migrator.kill()
        elif whom == "store":
            world.store.kill()
            time.sleep(chance.choice((0, 0, 1.0)))
            world.store.start()
        else:
            sidecar = chance.choice(sidecars)
            sidecar.process.kill()
            sidecar.start()
    if migrator.running():
        migrator.kill()
    return kills


def _read_the_cloud(world):
    """The book of what cloud A holds: with writes that broke, nobody else knows."""
    world.book = {}
    for page in world.direct.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        for key in [item["Key"] for item in page.get("Contents", [])]:
            got = world.direct.get_object(Bucket=BUCKET, Key=key)
            tags = {}
            if got.get("TagCount"):
                tags = {tag["Key"]: tag["Value"] for tag in
                        world.direct.get_object_tagging(Bucket=BUCKET, Key=key)["TagSet"]}
            body = got["Body"].read()
            world.book[key] = {"sha256": hashlib.sha256(body).hexdigest(), "size": len(body), "headers": {},
                               "metadata": got["Metadata"], "tags": tags}


def _expect_same_or_a_gap(world):
    """Each key whose copy differs has an open gap, or its bucket has. Gives how many keys need one."""
    gaps = world.gaps()
    wide = [gap for gap in gaps if gap["scope"].lower() not in ("key", "version")]
    doubted = {gap.get("key") for gap in gaps}
    found = ledger.differences(world.store.client(), BUCKET, world.book, limit=1_000_000)
    lies = [line for line in found if line.split(": ")[0] not in doubted]
    running.expect(not lies or wide, "the copy differs and no gap says so:\n  " + "\n  ".join(lies[:20]))
    return len({line.split(": ")[0] for line in found})
