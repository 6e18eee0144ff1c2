"""Moving goes wrong: killed half-way, somebody else's object in the way, nothing to list, keys no filesystem
likes, credentials and bindings that are not right."""

import signal

from lib import clouds, hawser, ledger, machine, running, stories
from lib.faults.outage import AWAY
from lib.faults.world import BUCKET, World


@stories.story("faults")
def migrator_killed(folder):
    """kill −9 in the middle of a replication, then again: it goes on where it was, and B is complete."""
    world = World(folder, lease=3)
    world.store.start()
    client = world.sidecar().client(world.a)
    for index in range(200):
        world.put(client, f"many/{index}", 20_000, index)
    world.put(client, "large", 40 << 20, Tagging="a=b")
    world.book["large"]["tags"] = {"a": "b"}
    world.settled()
    world.migrate("backfill").ok()
    world.binding.provider(world.b.provider)
    argv, env = hawser.migrate_command("replicate", world.binding, world.store, world.clouds, world.ca.pem,
                                       "--parallelism", "2")
    target = world.b.client()
    for enough in (30, 100):
        process = running.Process("hawser-migrate", argv, folder / "replicate.log", env)
        running.until(lambda: not process.running() or _count(target) >= enough, f"{enough} objects are at B", 60)
        running.expect(process.running(), f"replicate ended before it could be killed:\n{process.tail()}")
        process.kill()
    running.expect(_count(target) < len(world.book), "it was killed before the end")
    world.migrate("replicate").ok()
    ledger.expect_same(target, BUCKET, world.book, "cloud B")


def _count(client):
    try:
        return sum(len(page.get("Contents", [])) for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET))
    except client.exceptions.NoSuchBucket:
        return 0


@stories.story("faults")
def foreign_object(folder):
    """An object that somebody else wrote at B is reported and never overwritten; the provider stays in force."""
    world = World(folder)
    world.store.start()
    client = world.sidecar().client(world.a)
    for index in range(10):
        world.put(client, f"ours/{index}", seed=index)
    world.settled()
    world.migrate("backfill").ok()
    target = world.b.client()
    target.create_bucket(Bucket=BUCKET)
    target.put_object(Bucket=BUCKET, Key="ours/3", Body=b"somebody else's")
    world.binding.provider(world.b.provider)
    done = world.migrate("replicate")
    running.expect(done.code == 3, f"a conflict exits with 3, not {done.code}:\n{done.said()[-2000:]}")
    running.expect("ours/3" in done.said(), f"the conflict is named:\n{done.said()[-2000:]}")
    running.expect(target.get_object(Bucket=BUCKET, Key="ours/3")["Body"].read() == b"somebody else's",
                   "the foreign object was overwritten")
    running.expect(world.status()["providerInForce"] == world.a.provider, "a conflict must not move the provider in force")


@stories.story("faults")
def empty_listing(folder):
    """The provider lists nothing, as after a mistaken restore: backfill refuses to believe it."""
    world = World(folder)
    world.store.start()
    client = world.sidecar().client(world.a)
    for index in range(10):
        world.put(client, f"kept/{index}", seed=index)
    world.settled()
    world.migrate("backfill").ok()
    clouds.empty(world.direct, BUCKET)  # past the sidecar, as an accident would be
    done = world.migrate("backfill")
    running.expect(done.code == 7, f"an empty listing exits with 7, not {done.code}:\n{done.said()[-2000:]}")
    world.expect_copy("the copy after a refused listing")
    done = world.migrate("backfill", "--allow-deletes").ok()
    world.book.clear()
    world.expect_copy("the copy after an allowed one")


STRANGE = ["a//b", "a/b", "dir/", "dir/x", ".", "..", "./x", "x/../y", "%2F", "%252F", "/leading", "sp ace", "pl+us", "é/日本",
           "tail ", "q?a=b", "h#ash", "semi;colon", "amp&ersand", "quote\"'", "back\\slash", "tab\there", "*star*"]


@stories.story("faults")
def strange_keys(folder):
    """Keys like `a//b`, `dir/`, `.` and `%2F` survive every part, between clouds that keep them."""
    world = World(folder, kind=clouds.Moto)
    world.store.start()
    client = world.sidecar().client(world.a)
    for key in STRANGE:
        body = f"this is {key}".encode() * (1 if len(key) % 2 else 5000)
        client.put_object(Bucket=BUCKET, Key=key, Body=body, Metadata={"length": str(len(key))})
        world.note(key, body, metadata={"length": str(len(key))})
    world.settled()
    world.expect_repaired()
    world.expect_moves()


@stories.story("faults")
def wrong_credentials(folder):
    """Refused credentials exit with 5, name what was refused, and print no secret."""
    world = World(folder)
    world.store.start()
    client = world.sidecar().client(world.a)
    world.put(client, "key")
    world.settled()
    world.a.secret, right = "not-the-secret-of-cloud-a", world.a.secret
    done = world.migrate("backfill")
    world.a.secret = right
    running.expect(done.code == 5, f"refused credentials exit with 5, not {done.code}:\n{done.said()[-2000:]}")
    running.expect("cloud-a" in done.said(), f"the provider is named:\n{done.said()[-2000:]}")
    running.expect("not-the-secret" not in done.said(), "a secret was printed")
    world.migrate("backfill").ok()


@stories.story("faults", announced=[r"the bindings changed and cannot be used"])
def bad_binding(folder):
    """A bad manifest is refused with the field's name; a running sidecar keeps the last good one."""
    world = World(folder)
    world.store.start()
    sidecar = world.sidecar()
    client = sidecar.client(world.a)
    world.put(client, "before")
    good = world.binding.path.read_text()
    world.binding.path.write_text(good.replace("blockSize: 128Ki", "blockSize: 100Ki"))
    done = world.migrate("backfill")
    running.expect(done.code == 2 and "blockSize" in done.said(), f"exit 2 that names blockSize, not {done.code}:\n{done.said()}")
    running.until(lambda: "cannot be used" in sidecar.log.read_text(), "the sidecar says that the edit cannot be used")
    world.put(client, "while bad")
    world.binding.path.write_text(good)
    world.settled()
    world.expect_repaired()


@stories.story("faults")
def missing_bucket(folder):
    """A target without the bucket, and no leave to create it: exit 6, nothing moved."""
    world = World(folder)
    world.store.start()
    client = world.sidecar().client(world.a)
    world.put(client, "key")
    world.settled()
    world.migrate("backfill").ok()
    text = world.binding.path.read_text()
    world.binding.path.write_text(text.replace("create: true", "create: false"))
    world.binding.provider(world.b.provider)
    done = world.migrate("replicate")
    running.expect(done.code == 6, f"a missing bucket exits with 6, not {done.code}:\n{done.said()[-2000:]}")
    running.expect(world.status()["providerInForce"] == world.a.provider, "nothing moved")
