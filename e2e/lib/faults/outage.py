"""The store is away, killed, or out of room: no client notices, and nothing is lost for good."""

import concurrent.futures
import subprocess

from lib import hawser, running, stories
from lib.faults.world import BUCKET, World

AWAY = r"store: (away|a message was refused)"


@stories.story("faults", announced=[AWAY])
def store_down(folder):
    """The store is down while clients write more than a pod's whole budget of captured bytes: no client error,
    then gaps, then a backfill repairs them."""
    world = World(folder)
    world.store.start()
    sidecar = world.sidecar()
    client = sidecar.client(world.a)
    for index in range(10):
        world.put(client, f"before/{index}")
    world.settled()
    world.store.kill()
    for index in range(20):
        world.put(client, f"during/{index}", 3 << 20, index)
    for index in range(5):
        world.put(client, f"before/{index}", seed="again")
    for index in range(5, 8):
        world.delete(client, f"before/{index}")
    for key in ("before/8", "before/9"):  # the same bytes with other metadata: the ETag tells nothing
        body = world.direct.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        client.put_object(Bucket=BUCKET, Key=key, Body=body, Metadata={"only": "metadata changed"})
        world.note(key, body, metadata={"only": "metadata changed"})
    world.store.start()
    running.until(world.gaps, "the journal arrives and tells of gaps")
    client.get_object(Bucket=BUCKET, Key="before/9")["Body"].read()
    world.expect_repaired()
    world.expect_moves()


@stories.story("faults", announced=[AWAY, r"what was not acknowledged is cut off the log", r"the index does not follow the log"])
def store_killed(folder):
    """The store is killed again and again while clients write. What it shows is never half of anything, and a
    backfill makes it whole."""
    world = World(folder)
    world.store.start()
    client = world.sidecar().client(world.a)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for life in range(4):
            writes = [pool.submit(world.put, client, f"life-{life}/{index}", 300_000, f"{life}{index}") for index in range(40)]
            running.until(lambda: sum(write.done() for write in writes) > 5 + life * 6, "some writes are through")
            world.store.kill()
            for write in writes:
                write.result()
            world.store.start()
            _shows_only_what_was_written(world)
    world.expect_repaired()


def _shows_only_what_was_written(world):
    """Each object that the store's S3 face lists has the bytes of the book."""
    import hashlib
    face = world.store.client()
    try:
        pages = list(face.get_paginator("list_objects_v2").paginate(Bucket=BUCKET))
    except face.exceptions.NoSuchBucket:
        return
    for page in pages:
        for item in page.get("Contents", []):
            body = face.get_object(Bucket=BUCKET, Key=item["Key"])["Body"].read()
            running.expect(hashlib.sha256(body).hexdigest() == world.book[item["Key"]]["sha256"],
                           f"the store shows {item['Key']} with bytes that nobody wrote")


@stories.story("faults", announced=[AWAY, r"(?i)(disk|space|room|full)"])
def disk_full(folder):
    """The store's volume fills up: no client notices, readiness says why, and room alone repairs it."""
    volume = folder / "volume"
    volume.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=192m", "tmpfs", volume], check=True)
    try:
        world = World(folder, flags=["--free-floor", "32Mi"])
        world.store.data = volume / "store"
        world.store.start()
        ballast = volume / "ballast"
        client = world.sidecar().client(world.a)
        world.put(client, "first", 1 << 20)
        world.settled()
        subprocess.run(["fallocate", "-l", "176M", ballast], check=False)
        for index in range(30):
            world.put(client, f"while-full/{index}", 2 << 20, index)
        running.until(lambda: not hawser.ready(world.store.admin), "/readyz says that the disk is full")
        running.expect(world.store.client().head_object(Bucket=BUCKET, Key="first")["ContentLength"] == 1 << 20,
                       "reads go on while the disk is full")
        ballast.unlink()
        running.until(lambda: hawser.ready(world.store.admin), "with room, the store is ready again without a restart")
        world.expect_repaired()
    finally:
        running.stop_all()
        subprocess.run(["umount", "-l", volume], check=False)
