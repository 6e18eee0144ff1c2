"""The README's three gestures: helm install, the annotation, the edited word."""

from lib import running
from lib.cluster import kubernetes
from lib.cluster.shop import CLIENT
from lib.cluster.world import RELEASE, story


@story
def migrates(world, shop):
    """A bound pod is copied; with cloud A gone, editing one word brings everything to B, and back again."""
    shop.bind()
    running.expect(shop.pod("writer", "once", "first").code == 0, "the annotated pod was not admitted")
    shop.until_phase("writer", "Succeeded", 120)
    written = shop.ledger("writer")
    running.expect(len(written) == 7, f"the application wrote {len(written)} objects")
    shop.expect_at(world.a, written)
    shop.until_in_force("cloud-a")
    shop.expect_held(written)
    running.expect("cloud-a" in shop.row() and "InForce" in shop.row(), f"kubectl get cb tells otherwise:\n{shop.row()}")

    world.a.kill()
    shop.edit(provider="cloud-b")
    shop.until_in_force("cloud-b", 240)
    shop.expect_at(world.b, written)
    running.expect("cloud-b" in shop.row(), f"kubectl get cb tells otherwise:\n{shop.row()}")
    running.until(lambda: [job for job in shop.cluster.get("jobs", namespace=shop.namespace)
                           if "-migrate-" in job["metadata"]["name"] and job.get("status", {}).get("succeeded") == 1],
                  "the migration's Job has succeeded", 30)

    world.a.start()
    shop.cluster.kubectl("delete", "pod", "writer", "--namespace", shop.namespace).ok()
    running.expect(shop.pod("writer-b", "once", "second", provider=world.b).code == 0, "the second pod was not admitted")
    shop.until_phase("writer-b", "Succeeded", 120)
    written |= shop.ledger("writer-b")
    shop.expect_held(written)
    shop.edit(provider="cloud-a")
    shop.until_in_force("cloud-a", 240)
    shop.expect_at(world.a, written)


@story
def existing(world, shop):
    """What was in the bucket before Hawser is in the store after the first comparison, and `kubectl get cb` says so."""
    client = world.a.client()
    for number in range(20):
        client.put_object(Bucket=shop.bucket, Key=f"before/{number}", Body=str(number).encode() * 1000)
    shop.bind()
    shop.until_in_force("cloud-a", 180)
    coverage = shop.binding()["status"]["coverage"]
    running.expect((coverage["listedObjects"], coverage["heldObjects"]) == (20, 20), f"coverage is {coverage}")
    running.expect("100%" in shop.row(), f"kubectl get cb does not say 100%:\n{shop.row()}")


@story
def late_writes(world, shop):
    """What a pod writes to A after the switch arrives at B too."""
    shop.bind()
    shop.deployment("writer", "write", "steady")
    running.until(lambda: _pods_ready(shop), "the Deployment's pod runs", 90)
    name = shop.cluster.get("pods", namespace=shop.namespace, labels="app=client")[0]["metadata"]["name"]
    running.until(lambda: len(shop.ledger(name)) > 30, "the application writes", 60)
    shop.until_in_force("cloud-a")
    shop.edit(provider="cloud-b")
    shop.until_in_force("cloud-b", 300)
    before = len(shop.ledger(name))
    running.until(lambda: len(shop.ledger(name)) > before + 20, "the application goes on at A", 60)
    shop.cluster.kubectl("scale", "deployment", "writer", "--replicas=0", "--namespace", shop.namespace).ok()
    written = _last_words(shop, name)
    shop.expect_held(written, 60, provider="cloud-a")
    shop.compare("carry")
    shop.expect_at(world.b, written)
    shop.expect_held(written)


def _pods_ready(shop):
    found = shop.cluster.get("deployment", "writer", shop.namespace)
    return (found or {}).get("status", {}).get("readyReplicas") == 1


def _last_words(shop, name):
    """The ledger of a pod that is ending: its last log, read until the pod is gone."""
    written = shop.ledger(name)
    while shop.cluster.get("pod", name, shop.namespace) is not None:
        written |= shop.ledger(name)
    return written


@story
def wrong_keys(world, shop):
    """Refused credentials of the target stall the migration, say so in words, and heal when the Secret does."""
    shop.bind()
    running.expect(shop.pod("writer", "once", "only").code == 0, "the annotated pod was not admitted")
    shop.until_phase("writer", "Succeeded", 120)
    written = shop.ledger("writer")
    shop.until_in_force("cloud-a")
    shop.cluster.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys-cloud-b"}, "stringData": {
        "AWS_ACCESS_KEY_ID": world.b.access, "AWS_SECRET_ACCESS_KEY": "wrong"}}, namespace=shop.namespace)
    shop.edit(provider="cloud-b")
    stalled = lambda: kubernetes.condition(shop.binding(), "Stalled")  # noqa: E731
    running.until(lambda: stalled()["reason"] == "CredentialsRejected", "the binding is Stalled, CredentialsRejected", 120)
    running.expect("keys-cloud-b" in stalled()["message"] or "cloud-b" in stalled()["message"],
                   f"the message names neither Secret nor provider: {stalled()['message']}")
    shop.expect_at(world.a, written)
    shop.edit(provider="cloud-a")
    shop.until_in_force("cloud-a", 60)


@story
def helm_test(world, shop):
    """`helm test` shows one object protected, and removes what it made."""
    shop.cluster.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "test-keys"}, "stringData": {
        "AWS_ACCESS_KEY_ID": world.a.access, "AWS_SECRET_ACCESS_KEY": world.a.secret}}, {
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "test-roots"},
        "data": {"ca.pem": world.ca.pem.read_text()}}, namespace=RELEASE)
    world.upgrade(f"test.endpoint={world.a.endpoint}", f"test.bucket={shop.bucket}", "test.secretName=test-keys",
                  "test.caConfigMapName=test-roots", f"test.image={CLIENT}")
    try:
        said = shop.cluster.helm("test", "hawser", "--namespace", RELEASE, "--timeout", "5m", seconds=330)
        running.expect("Succeeded" in said, said[-2000:])
        running.expect(shop.cluster.get("namespace", "hawser-test") is None, "the test left its namespace behind")
    finally:
        world.upgrade()
