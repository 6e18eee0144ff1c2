"""Taking things away again: a binding, a namespace, the release."""

from lib import running
from lib.cluster.world import RELEASE, story


@story
def binding_deleted(world, shop):
    """A deleted binding takes its Jobs and its ConfigMap along and hangs on nothing; running pods write on."""
    shop.bind()
    shop.deployment("writer", "write", "on")
    running.until(lambda: (shop.cluster.get("deployment", "writer", shop.namespace) or {}).get("status", {}).get("readyReplicas"),
                  "the Deployment's pod runs", 90)
    name = shop.cluster.get("pods", namespace=shop.namespace, labels="app=client")[0]["metadata"]["name"]
    shop.cluster.kubectl("delete", "cloudbinding", "archive", "--namespace", shop.namespace, "--timeout=30s").ok()
    running.until(lambda: shop.cluster.get("configmap", "hawser-archive", shop.namespace) is None
                  and not shop.cluster.get("cronjobs", namespace=shop.namespace), "what belonged to it goes", 60)
    before = len(shop.ledger(name))
    running.until(lambda: len(shop.ledger(name)) > before + 20, "the application writes on", 60)


@story
def namespace_deleted(world, shop):
    """A namespace with a binding and protected pods goes at once."""
    shop.bind()
    running.expect(shop.pod("writer", "idle").code == 0, "the annotated pod was not admitted")
    shop.until_phase("writer", "Running")
    shop.cluster.kubectl("delete", "namespace", shop.namespace, "--wait", "--timeout=60s", seconds=90).ok()


@story
def release_deleted(world, shop):
    """Without its release Hawser blocks nobody: annotated pods come and go as any other; bindings stay. Then it is back."""
    shop.bind()
    shop.until_in_force("cloud-a", 120)
    shop.cluster.helm("uninstall", "hawser", "--namespace", RELEASE, "--wait", "--timeout", "2m")
    running.until(lambda: not [one for one in shop.cluster.get("mutatingwebhookconfigurations")
                               if one["metadata"]["name"] == "hawser"], "the webhook configuration goes", 30)
    running.expect(shop.pod("alone", "idle").code == 0, "an annotated pod is refused though Hawser is gone")
    running.expect(shop.binding() is not None, "the binding went with the release")
    shop.cluster.kubectl("delete", "pod", "alone", "--namespace", shop.namespace, "--wait").ok()
    world.install_again()
    shop.until_in_force("cloud-a", 120)
