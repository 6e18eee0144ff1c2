"""What breaks while applications write: the store, the operator, a Job."""

from lib import running
from lib.cluster.gestures import _last_words, _pods_ready
from lib.cluster.world import RELEASE, story


@story
def store_restarts(world, shop):
    """The store's pod is killed under load: no application request fails, and a backfill closes what it missed."""
    shop.bind()
    shop.deployment("writer", "write", "load")
    running.until(lambda: _pods_ready(shop), "the Deployment's pod runs", 90)
    name = shop.cluster.get("pods", namespace=shop.namespace, labels="app=client")[0]["metadata"]["name"]
    shop.until_in_force("cloud-a")
    running.until(lambda: len(shop.ledger(name)) > 20, "the application writes", 60)
    shop.cluster.kubectl("delete", "pod", "hawser-store-0", "--namespace", RELEASE, "--grace-period=0", "--force").ok()
    before = len(shop.ledger(name))
    running.until(lambda: len(shop.ledger(name)) > before + 50, "the application writes on", 60)
    shop.cluster.kubectl("wait", "--for=condition=Ready", "pod/hawser-store-0", "--namespace", RELEASE, "--timeout=90s").ok()
    before = len(shop.ledger(name))
    running.until(lambda: len(shop.ledger(name)) > before + 20, "the application writes on with a store", 60)
    shop.cluster.kubectl("scale", "deployment", "writer", "--replicas=0", "--namespace", shop.namespace).ok()
    written = _last_words(shop, name)
    shop.compare("again")
    shop.expect_held(written, 60)
    shop.expect_at(world.a, written)


@story
def operator_dies(world, shop):
    """Every replica of the operator is killed in the middle of a migration: it ends all the same."""
    written = _many(world, shop)
    shop.edit(provider="cloud-b", migration={"bandwidth": "4Mi"})
    running.until(lambda: _migration_pods(shop), "a migration's pod", 90)
    for _ in range(3):
        shop.cluster.kubectl("delete", "pods", "--namespace", RELEASE, "-l", "app.kubernetes.io/component=operator",
                             "--grace-period=0", "--force").ok()
        shop.cluster.kubectl("rollout", "status", "deployment/hawser-operator", "--namespace", RELEASE, "--timeout=60s").ok()
    shop.until_in_force("cloud-b", 240)
    shop.expect_at(world.b, written)


@story
def job_dies(world, shop):
    """The migration's pod is killed twice: the next one goes on, and B has everything once."""
    written = _many(world, shop)
    shop.edit(provider="cloud-b", migration={"bandwidth": "4Mi"})
    for _ in range(2):
        alive = running.until(lambda: _migration_pods(shop), "a migration's pod", 90)
        shop.cluster.kubectl("delete", "pod", alive[0]["metadata"]["name"], "--namespace", shop.namespace,
                             "--grace-period=0", "--force").ok()
        gone = alive[0]["metadata"]["uid"]
        running.until(lambda gone=gone: all(one["metadata"]["uid"] != gone for one in _migration_pods(shop)), "it is gone", 30)
    shop.until_in_force("cloud-b", 240)
    shop.expect_at(world.b, written)


def _many(world, shop):
    """A bound pod has written a few hundred objects, and the binding is at rest."""
    shop.bind()
    running.expect(shop.pod("writer", "write", "many", "12").code == 0, "the annotated pod was not admitted")
    shop.until_phase("writer", "Succeeded", 120)
    shop.until_in_force("cloud-a", 180)
    written = shop.ledger("writer")
    shop.expect_held(written, 60)
    return written


def _migration_pods(shop):
    return [pod for pod in shop.cluster.get("pods", namespace=shop.namespace)
            if pod["metadata"].get("labels", {}).get("batch.kubernetes.io/job-name", "").startswith("hawser-archive-migrate-")
            and pod.get("status", {}).get("phase") == "Running"]
