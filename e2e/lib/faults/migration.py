"""Moving goes wrong: killed half-way, somebody else's object in the way, nothing to list, keys no filesystem
likes, credentials and bindings that are not right."""

from lib import authority, clouds, hawser, ledger, names, running, stories
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


@stories.story("faults")
def after_the_switch(folder):
    """Applications write on at cloud A after the move. What is newer there arrives at B; what was written or
    deleted at B since stays so, and nothing that A still lists comes back."""
    world = World(folder)
    world.store.start()
    sidecar = world.sidecar()
    old, new = sidecar.client(world.a), sidecar.client(world.b)
    for index in range(10):
        world.put(old, f"moved/{index}", seed=index)
    world.put(old, "moved/large", 12 << 20, Tagging="a=b")
    world.book["moved/large"]["tags"] = {"a": "b"}
    world.settled()
    world.migrate("backfill").ok()
    world.expect_moves()
    done = world.migrate("replicate").ok()
    running.expect("has nothing newer" in done.said(), f"with nothing newer there is nothing to do:\n{done.said()[-2000:]}")

    # At A, through the sidecar: seen. The book is of what must be at B.
    world.put(old, "moved/0", seed="overwritten at A")
    world.delete(old, "moved/1")
    world.put(old, "late/new", 300_000, Tagging="late=yes")
    world.book["late/new"]["tags"] = {"late": "yes"}
    old.put_object(Bucket=BUCKET, Key="moved/2", Body=b"at A, before B's")
    old.put_object(Bucket=BUCKET, Key="moved/3", Body=b"at A, before it was deleted at B")
    world.put(new, "moved/4", seed="at B, before A's")
    world.settled()
    # At B: newer, so it stays.
    world.put(new, "moved/2", seed="overwritten at B")
    for key in ("moved/3", "moved/5", "moved/6"):
        world.delete(new, key)
    world.settled()
    # At A again, after what was written at B.
    world.put(old, "moved/4", seed="at A, after B's")
    # Past every sidecar: the first arrives; the second would come back from the dead; the third was cleared away.
    world.put(world.direct, "moved/7", seed="unseen at A")
    world.direct.put_object(Bucket=BUCKET, Key="moved/6", Body=b"unseen at A, deleted at B")
    world.direct.delete_object(Bucket=BUCKET, Key="moved/8")
    world.settled()
    for turn in range(2):
        world.migrate("backfill", "--from", world.a.provider, "--allow-deletes").ok()
        done = world.migrate("replicate", "--from", world.a.provider).ok()
        ledger.expect_same(world.b.client(), BUCKET, world.book, "cloud B")
        running.expect(world.status()["providerInForce"] == world.b.provider, "B stays in force")
    running.expect("has nothing newer" in done.said(), f"the second time there is nothing to do:\n{done.said()[-2000:]}")
    world.expect_copy("the copy, which shows the provider in force")
    running.expect(not world.gaps(), f"gaps are left: {world.gaps()[:5]}")


@stories.story("faults", announced=[AWAY, r"what was not acknowledged is cut off the log", r"the index does not follow the log"])
def store_goes_meanwhile(folder):
    """The store is killed in the middle of a backfill and of a replication, and comes back: both wait for it and
    go on."""
    world = World(folder, lease=3)
    world.store.start()
    for index in range(60):
        world.put(world.direct, f"many/{index}", 200_000, index)
    world.put(world.direct, "large", 24 << 20)
    _through_a_kill(world, "backfill", lambda: world.status()["objects"] >= 10)
    world.expect_copy()
    world.binding.provider(world.b.provider)
    _through_a_kill(world, "replicate", lambda: _count(world.b.client()) >= 10)
    ledger.expect_same(world.b.client(), BUCKET, world.book, "cloud B")
    running.expect(world.status()["providerInForce"] == world.b.provider, "B is in force")


def _through_a_kill(world, verb, begun):
    argv, env = hawser.migrate_command(verb, world.binding, world.store, world.clouds, world.ca.pem,
                                       "--bandwidth", "8Mi", "--parallelism", "4")
    process = running.Process("hawser-migrate", argv, world.folder / f"{verb}.log", env)
    running.until(lambda: not process.running() or begun(), f"{verb} is under way", 60)
    running.expect(process.running(), f"{verb} ended before the store was killed:\n{process.tail()}")
    world.store.kill()
    running.until(lambda: "going on from there" in process.log.read_text(), f"{verb} says that it waits", 60)
    world.store.start()
    running.until(lambda: not process.running(), f"{verb} ends", 180)
    running.expect(process.stop() == 0, f"{verb} goes on:\n{process.tail()}")


@stories.story("faults")
def bounds_are_edited(folder):
    """A migration is paused, and let go at another speed, by an edit of the binding while it works."""
    world = World(folder, extra="  migration: {bandwidth: 1Mi, paused: true}\n")
    world.store.start()
    client = world.sidecar().client(world.a)
    world.put(client, "large", 48 << 20)
    world.settled()
    _edit(world, "paused: true", "paused: false")
    _edit(world, "bandwidth: 1Mi", "bandwidth: 500Mi")
    world.migrate("backfill").ok()
    _edit(world, "paused: false", "paused: true")
    world.binding.provider(world.b.provider)
    argv, env = hawser.migrate_command("replicate", world.binding, world.store, world.clouds, world.ca.pem)
    process = running.Process("hawser-migrate", argv, folder / "replicate.log", env)
    running.until(lambda: (world.status().get("migration") or {}).get("phase") == "Paused", "the store is told of the pause", 30)
    running.expect(process.running() and _count(world.b.client()) == 0, f"nothing is sent while paused:\n{process.tail()}")
    _edit(world, "paused: true", "paused: false")
    running.until(lambda: not process.running(), "it goes on at 500 MiB a second, when 1 MiB would take long", 40)
    running.expect(process.stop() == 0, f"it is done:\n{process.tail()}")
    ledger.expect_same(world.b.client(), BUCKET, world.book, "cloud B")


def _edit(world, old, new):
    world.binding.path.write_text(world.binding.path.read_text().replace(old, new))


@stories.story("faults")
def store_behind_tls(folder):
    """The store asks for tokens and shows a certificate: migrate works with `--token-file` and `--store-ca`, says
    what is wrong without them, and prints no token."""
    tokens, token, wrong = folder / "tokens", folder / "token", folder / "wrong"
    tokens.write_text(f"{hawser.NAMESPACE} a-token-for-tests-only\n")
    token.write_text("a-token-for-tests-only\n")
    wrong.write_text("another-token-for-tests-only\n")
    for path in (tokens, token, wrong):
        path.chmod(0o600)
    names.add("store.hawser.test")
    certificate, key = authority.Authority(folder / "store-ca").issue("store.hawser.test")
    world = World(folder, flags=("--tokens", tokens, "--tls-cert", certificate, "--tls-key", key))
    world.store.start()
    world.store.url = f"https://store.hawser.test:{world.store.grpc.rsplit(':', 1)[1]}"
    for index in range(10):
        world.put(world.direct, f"key/{index}", seed=index)
    roots, right = ("--store-ca", folder / "store-ca" / "ca.pem"), ("--token-file", token)
    for flags, code, word in ((right, 2, "--store-ca"), (("--store-ca", world.ca.pem, *right), 1, "certificate"),
                              (roots, 2, "refused"), ((*roots, "--token-file", wrong), 2, "refused")):
        done = world.migrate("backfill", *flags)
        running.expect(done.code == code and word in done.said(), f"exit {code} that says {word}, not {done.code}:\n{done.said()}")
        running.expect("for-tests-only" not in done.said(), f"a token was printed:\n{done.said()}")
    world.migrate("backfill", *roots, *right).ok()
    world.binding.provider(world.b.provider)
    world.migrate("replicate", *roots, *right).ok()
    ledger.expect_same(world.b.client(), BUCKET, world.book, "cloud B")
