"""Transparency with real clients: what a client sees through the sidecar is what it sees without it. These
stories lead connections by packet rules, as in a pod, since some clients ignore every proxy variable."""

import json
import os
import re

from lib import authority, clouds, dataset, hawser, ledger, machine, running, stories

BUCKET = "archive"
CLIENTS = machine.REPO / "e2e" / "clients"


@stories.story("transparency", own_network=True)
def clients(folder):
    """Python, Go, Java, JavaScript and Rust, each with its own SDK, unmodified: the cloud holds what they wrote, and
    so does the copy, where it does not say why not."""
    ca = authority.Authority(folder / "ca")
    cloud = clouds.Versitygw("cloud-a", folder, ca).start()
    binding = hawser.Binding(folder, [cloud], [BUCKET])
    store = hawser.Store(folder).start()
    sidecar = hawser.Sidecar(folder, binding, store.url, ca.pem, redirect=True).start()
    book = {}
    with sidecar.redirected(cloud.port):
        for client in (_python, _go, _javascript, _java):
            book |= client(folder, cloud, _trust(sidecar))
            print(f"  {client.__name__[1:]}: {len(book)} objects so far", flush=True)
    running.expect(_passed(sidecar) > 0, "no connection passed through the sidecar")
    ledger.expect_same(cloud.client(), BUCKET, book, "the cloud")
    status = lambda: hawser.cli("status", binding, store)[0]  # noqa: E731
    running.until(lambda: status()["openIntents"] == 0, "every intent is followed by its outcome")
    gaps = hawser.cli("gaps", binding, store)
    found = ledger.differences(store.client(), BUCKET, {key: entry for key, entry in book.items()
                                                        if key not in {gap.get("key") for gap in gaps}})
    running.expect(not found or any(gap["scope"] != "Key" for gap in gaps),
                   "the copy differs and no gap says so:\n  " + "\n  ".join(found))
    running.expect(not gaps, f"well-known clients leave gaps: {gaps[:5]}")


def _trust(sidecar):
    """The variables that lead every kind of client to the sidecar's bundles."""
    bundle = sidecar.trust / "bundle.pem"
    return {"AWS_CA_BUNDLE": bundle, "SSL_CERT_FILE": bundle, "NODE_EXTRA_CA_CERTS": sidecar.trust / "ca.pem",
            "JAVA_TOOL_OPTIONS": f"-Djavax.net.ssl.trustStore={sidecar.trust / 'truststore.p12'} "
                                 "-Djavax.net.ssl.trustStoreType=PKCS12 -Djavax.net.ssl.trustStorePassword=changeit"}


def _passed(sidecar):
    return sum(value for name, value in sidecar.metrics().items() if "connections" in name)


def _python(folder, cloud, trust):
    book = folder / "python.json"
    running.run([machine.python(), machine.REPO / "e2e" / "lib" / "app.py", "early", "everyday", "--bucket", BUCKET, "--data",
                 dataset.prepare(), "--ledger", book, "--aws", machine.tool("aws")],
                machine.environment(**cloud.credentials(), **trust)).ok()
    return json.loads(book.read_text())


def _go(folder, cloud, trust):
    """rclone (SDK v2) and s5cmd (SDK v1), both with parts."""
    book, local = {}, folder / "go"
    local.mkdir()
    for name, size in (("small", 5_000), ("middle", 400_000), ("large", 25_000_000)):
        (local / name).write_bytes(os.urandom(size))
    env = machine.environment(**cloud.credentials(), **trust)
    running.run([machine.tool("s5cmd"), "--endpoint-url", cloud.endpoint, "cp", "--part-size", "6", f"{local}/*",
                 f"s3://{BUCKET}/s5cmd/"], env).ok()
    running.run([machine.tool("rclone"), "copy", local, f":s3,provider=Other,env_auth=true,region={cloud.region},"
                 f"endpoint='{cloud.endpoint}':{BUCKET}/rclone", "--s3-upload-cutoff", "10M", "--s3-chunk-size", "5M",
                 "--config", "/dev/null", "--ca-cert", trust["SSL_CERT_FILE"]], env).ok()
    for file in local.iterdir():
        for tool in ("s5cmd", "rclone"):
            _note(book, f"{tool}/{file.name}", file)
    for key in [key for key in book if key.startswith("rclone/")]:
        book[key]["metadata"] = None  # it keeps the time of the file in metadata, as digits of its own choosing
    back = folder / "back"
    running.run([machine.tool("s5cmd"), "--endpoint-url", cloud.endpoint, "cp", f"s3://{BUCKET}/rclone/large", back], env).ok()
    running.expect(back.read_bytes() == (local / "large").read_bytes(), "s5cmd reads otherwise than rclone wrote")
    return book


def _note(book, key, file):
    import hashlib
    body = file.read_bytes()
    book[key] = {"sha256": hashlib.sha256(body).hexdigest(), "size": len(body), "headers": {}, "metadata": {}, "tags": {}}


def _javascript(folder, cloud, trust):
    home = folder / "js"
    home.mkdir()
    (home / "client.mjs").write_text((CLIENTS / "client.mjs").read_text())
    (home / "node_modules").symlink_to(machine.CACHE / "js" / "node_modules")
    done = running.run(["node", home / "client.mjs", BUCKET, "js"], machine.environment(**cloud.credentials(), **trust)).ok()
    return json.loads(done.out)


def _java(_folder, cloud, trust):
    classes = f"{machine.CACHE / 'java' / 'classes'}:{machine.CACHE / 'java'}/*"
    done = running.run(["java", "-cp", classes, "Client", BUCKET, "java"], machine.environment(**cloud.credentials(), **trust)).ok()
    return json.loads(done.out)

