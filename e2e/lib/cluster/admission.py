"""Who is let in, and who is told why not."""

from lib import running
from lib.cluster.world import RELEASE, story


@story
def binding_late(world, shop):
    """A Deployment whose binding comes later: its FailedCreate names the binding; then it runs, protected."""
    shop.deployment("writer", "idle")
    told = lambda: [event for event in shop.cluster.events(shop.namespace) if event[1] == "FailedCreate"]  # noqa: E731
    running.until(lambda: any("archive" in event[2] and "BindingNotFound" in event[2] for event in told()),
                  "a FailedCreate event that names the binding", 30)
    shop.bind()
    running.until(lambda: [pod for pod in shop.cluster.get("pods", namespace=shop.namespace, labels="app=client")
                           if pod["status"].get("phase") == "Running"], "the Deployment's pod runs", 90)
    pod = shop.cluster.get("pods", namespace=shop.namespace, labels="app=client")[0]
    running.expect(pod["metadata"]["labels"].get("hawser.dev/protected") == "true", "it runs, and is not protected")


@story
def bare_pod(world, shop):
    """A bare pod with the annotation of a binding that is not there is refused in words; without it, it is left alone."""
    refused = shop.pod("writer", "idle")
    running.expect(refused.code != 0 and "has no CloudBinding archive" in refused.err,
                   f"the refusal does not say what to do: {refused.said()}")
    running.expect(shop.pod("plain", "idle", bound=False).code == 0, "a pod without the annotation was refused")
    plain = shop.cluster.get("pod", "plain", shop.namespace)
    running.expect(not plain["spec"].get("initContainers") and len(plain["spec"]["containers"]) == 1,
                   "a pod without the annotation was changed")


@story
def shapes(world, shop):
    """Shapes that cannot be protected are refused with their reason; a Job with a sidecar completes."""
    shop.bind()
    refused = shop.pod("host", "idle", hostNetwork=True)
    running.expect(refused.code != 0 and "hostNetwork" in refused.err, f"hostNetwork: {refused.said()}")
    template = shop.template("once", "job")
    shop.cluster.apply({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "batch"}, "spec": {
        "backoffLimit": 0, "template": template}}, namespace=shop.namespace)
    shop.cluster.kubectl("wait", "--for=condition=Complete", "job/batch", "--namespace", shop.namespace, "--timeout=120s",
                         seconds=150).ok()
    shop.cluster.kubectl("label", "namespace", shop.namespace, "pod-security.kubernetes.io/enforce=restricted").ok()
    refused = shop.pod("strict", "idle")
    running.expect(refused.code != 0 and "NET_ADMIN" in refused.err, f"restricted namespace: {refused.said()}")


@story
def own_pods_restricted(world, shop):
    """Hawser's own pods pass the Pod Security Standard `restricted`, and the least rights hold."""
    done = shop.cluster.kubectl("label", "--dry-run=server", "--overwrite", "namespace", RELEASE,
                                "pod-security.kubernetes.io/enforce=restricted").ok()
    running.expect("violate" not in done.said(), done.said())
    for account, verb, what in (
            (f"{RELEASE}:hawser-operator", "get", "secrets"), (f"{RELEASE}:hawser-operator", "delete", "pods"),
            (f"{RELEASE}:hawser-store", "get", "secrets"), (f"{RELEASE}:hawser-store", "list", "pods"),
            (f"{RELEASE}:hawser-store", "list", "namespaces")):
        answer = shop.cluster.kubectl("auth", "can-i", verb, what, "--namespace", shop.namespace,
                                      f"--as=system:serviceaccount:{account}").out.strip()
        running.expect(answer == "no", f"{account} may {verb} {what}")
