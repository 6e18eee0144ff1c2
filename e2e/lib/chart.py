"""The chart, rendered: what must hold of its manifests without a cluster."""

import pathlib
import re

import yaml

from lib import machine, running

CHART = machine.REPO / "charts" / "hawser"
HELM = machine.CACHE / "kube" / "bin" / "helm"
_CLUSTER_WIDE = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"}
_TESTED = ("test.endpoint=https://s3.example.com", "test.bucket=b", "test.secretName=keys")


def _helm(*args):
    return running.run([HELM, *args], machine.environment(HOME=machine.CACHE / "kube"), 60)


def rendered(*values):
    """The manifests with these values, in order."""
    sets = [word for value in values for word in ("--set", value)]
    text = _helm("template", "hawser", CHART, "--namespace", "release-ns", "--kube-version", "1.36.3", *sets).ok().out
    return [one for one in yaml.safe_load_all(text) if one]


def _named(manifests, kind, name):
    found = [one for one in manifests if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    running.expect(len(found) == 1, f"{kind} {name} is there {len(found)} times")
    return found[0]


def _templates(manifests):
    return [(one["metadata"]["name"], one["spec"]["template"]) for one in manifests if "template" in one.get("spec", {})]


def lints():
    """helm has nothing to say about it."""
    done = _helm("lint", "--strict", CHART)
    running.expect(done.code == 0 and "WARN" not in done.said(), done.said())


def crd_is_kept_and_optional():
    """The CRD is the generated one, outlives the release, and can be left out."""
    generated = sorted((machine.REPO / "crds").glob("*.yaml"))
    copies = sorted((CHART / "files" / "crds").glob("*.yaml"))
    running.expect(generated and [one.name for one in generated] == [one.name for one in copies],
                   "charts/hawser/files/crds has other files than crds/: cp crds/*.yaml charts/hawser/files/crds/")
    for one, copy in zip(generated, copies, strict=True):
        running.expect(one.read_bytes() == copy.read_bytes(), f"{copy} differs: cp crds/*.yaml charts/hawser/files/crds/")
    crds = [one for one in rendered() if one["kind"] == "CustomResourceDefinition"]
    running.expect(len(crds) == len(generated), "the CRD is not rendered")
    for crd, file in zip(crds, generated, strict=True):
        running.expect(crd["metadata"]["annotations"].get("helm.sh/resource-policy") == "keep", "the CRD would go with the release")
        running.expect(crd["spec"] == yaml.safe_load(file.read_text())["spec"], "the chart renders another CRD")
    running.expect(not [one for one in rendered("crds.enabled=false") if one["kind"] == "CustomResourceDefinition"],
                   "crds.enabled=false has no effect")


def pods_are_restricted():
    """Every pod of ours keeps to the Pod Security Standard `restricted` and says what it needs."""
    manifests = rendered(*_TESTED)
    running.expect(len(_templates(manifests)) == 3, "operator, store and test are the pods")
    for name, template in _templates(manifests):
        spec, pod = template["spec"], template["spec"]["securityContext"]
        running.expect(pod.get("runAsNonRoot") and pod.get("runAsUser", 0) > 0 and
                       pod.get("seccompProfile") == {"type": "RuntimeDefault"}, f"{name}: {pod}")
        running.expect(not any(spec.get(word) for word in ("hostNetwork", "hostPID", "hostIPC")), f"{name} uses the host's")
        for container in spec["containers"]:
            own = container["securityContext"]
            running.expect(own == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                                   "capabilities": {"drop": ["ALL"]}}, f"{name}: {own}")
            running.expect({"requests", "limits"} <= set(container["resources"]), f"{name} has no requests or limits")
        allowed = {"configMap", "emptyDir", "projected", "secret", "downwardAPI", "persistentVolumeClaim"}
        for volume in spec.get("volumes", []):
            running.expect(set(volume) - {"name"} <= allowed, f"{name}: volume {volume}")


def disruptions_and_replicas():
    """A drain waits for the operator's second replica and is never blocked by the store."""
    manifests = rendered()
    running.expect(_named(manifests, "Deployment", "hawser-operator")["spec"]["replicas"] == 2, "the operator's replicas")
    operator, store = (_named(manifests, "PodDisruptionBudget", name)["spec"] for name in ("hawser-operator", "hawser-store"))
    running.expect(operator.get("minAvailable") == 1 and store.get("maxUnavailable") == 1 and "minAvailable" not in store,
                   f"{operator} {store}")
    single = _named(rendered("operator.replicas=1"), "PodDisruptionBudget", "hawser-operator")["spec"]
    running.expect("minAvailable" not in single, "one replica with minAvailable blocks every drain")


def selectors_match():
    """Every selector selects a pod that the chart makes, and Services, policies and budgets name ports that it has."""
    manifests = rendered()
    pods = [template["metadata"]["labels"] for _, template in _templates(manifests)]
    ports = {port["name"] for _, template in _templates(manifests) for container in template["spec"]["containers"]
             for port in container["ports"]}
    for one in manifests:
        spec = one.get("spec", {})
        selector = spec.get("podSelector", spec.get("selector"))
        if one["kind"] == "CustomResourceDefinition" or selector is None:
            continue
        wanted = selector.get("matchLabels", selector)
        running.expect(sum(wanted.items() <= labels.items() for labels in pods) == 1, f"{one['kind']} {one['metadata']['name']}: {wanted}")
        if one["kind"] == "Service":
            running.expect({port["targetPort"] for port in spec["ports"]} <= ports, f"Service {one['metadata']['name']}")
        for rule in spec.get("ingress", []) if one["kind"] == "NetworkPolicy" else []:
            running.expect({port["port"] for port in rule["ports"]} <= ports, f"NetworkPolicy {one['metadata']['name']}")


def nothing_elsewhere():
    """Everything is in the release's namespace or known to be cluster-wide, and no rule has a wildcard."""
    for one in rendered(*_TESTED):
        kind, meta = one["kind"], one["metadata"]
        running.expect((kind in _CLUSTER_WIDE) != (meta.get("namespace") == "release-ns"), f"{kind} {meta['name']}: {meta.get('namespace')}")
        for rule in one.get("rules", []):
            running.expect("*" not in rule["verbs"] + rule.get("resources", []) + rule.get("apiGroups", []), f"{kind} {meta['name']}: {rule}")
        if kind == "NetworkPolicy":
            running.expect(one["spec"]["podSelector"].get("matchLabels"), "a policy for every pod")


def rights_are_least():
    """The store may review tokens and read namespaces; nobody reads Secrets across namespaces."""
    manifests = rendered()
    store = {(resource, verb) for rule in _named(manifests, "ClusterRole", "hawser-store")["rules"]
             for resource in rule["resources"] for verb in rule["verbs"]}
    running.expect(store == {("tokenreviews", "create"), ("namespaces", "get")}, f"the store may {sorted(store)}")
    operator = _named(manifests, "ClusterRole", "hawser-operator")["rules"]
    running.expect(operator and not [rule for rule in operator if "secrets" in rule.get("resources", [])],
                   "the operator's rules across namespaces")


def monitors_behind_flags():
    """Kinds of the Prometheus Operator appear only where they are asked for."""
    kinds = [one["kind"] for one in rendered()]
    running.expect(not {"ServiceMonitor", "PodMonitor"} & set(kinds), "monitors are there without being asked for")
    kinds = [one["kind"] for one in rendered("monitoring.serviceMonitor.enabled=true", "monitoring.podMonitor.enabled=true")]
    running.expect({"ServiceMonitor", "PodMonitor"} <= set(kinds), "monitors are not there")
    running.expect("NetworkPolicy" not in [one["kind"] for one in rendered("networkPolicy.enabled=false")], "networkPolicy.enabled")


def images_by_digest():
    """A digest wins over the tag, everywhere."""
    digest = "sha256:" + "a" * 64
    manifests = rendered(*(f"{part}.image.digest={digest}" for part in ("operator", "store", "sidecar", "migrate")))
    text = yaml.safe_dump(manifests)
    for part in ("operator", "store", "sidecar", "migrate"):
        running.expect(f"hawser/{part}@{digest}" in text and f"hawser/{part}:" not in text, part)


def values_are_checked_and_documented():
    """Every value has a word of explanation and a schema; what is not a value is refused, and so is a wrong one."""
    for wrong in ("store.bogus=1", "bogus=1", "operator.replicas=0", "store.image.digest=abc", "store.settle=soon",
                  "networkPolicy.apiServerPorts={}", "test.endpoint=ftp://x"):
        done = _helm("template", "hawser", CHART, "--set", wrong)
        running.expect(done.code != 0 and "schema" in done.said(), f"--set {wrong} is taken")
    lines = (CHART / "values.yaml").read_text().splitlines()
    explained = {"image", "repository", "tag", "digest", "pullPolicy", "resources", "requests", "limits", "nodeSelector", "tolerations",
                 "affinity", "podLabels", "podAnnotations", "priorityClassName", "labels", "interval", "commonAnnotations",
                 "annotations", "size", "storage", "enabled", "region", "monitoring", "networkPolicy", "crds", "replicas",
                 "terminationGracePeriodSeconds"}
    for number, line in enumerate(lines):
        key = re.match(r"^ *([A-Za-z0-9]+):", line)
        if key and key.group(1) not in explained:
            running.expect("#" in line or (number and lines[number - 1].lstrip().startswith("#")),
                           f"values.yaml line {number + 1}: {key.group(1)} has no explanation")


def check():
    """All of the above; gives their number."""
    running.run([pathlib.Path(machine.REPO) / "e2e" / "cluster" / "binaries", "helm"], _with_habits(), 1800).ok()
    checks = (lints, crd_is_kept_and_optional, pods_are_restricted, disruptions_and_replicas, selectors_match, nothing_elsewhere,
              rights_are_least, monitors_behind_flags, images_by_digest, values_are_checked_and_documented)
    wrong = []
    for one in checks:
        try:
            one()
        except running.Failed as failure:
            wrong.append(f"{one.__doc__}\n  {failure}")
    running.expect(not wrong, "\n".join(wrong))
    return len(checks)


def _with_habits():
    import os
    return dict(os.environ)  # the Go proxy may need this machine's certificates
