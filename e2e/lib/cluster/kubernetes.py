"""Asking a cluster: kubectl and helm with one kubeconfig, never the environment's."""

import json
import os

from lib import machine, running

PROGRAMS = machine.CACHE / "kube" / "bin"
NODE = "10.99.0.1"


class Kubernetes:
    """A cluster, by its kubeconfig."""

    def __init__(self, config):
        self.config = str(config)
        self.env = machine.environment(PATH=f"{PROGRAMS}:{os.environ['PATH']}", HOME=str(machine.CACHE / "kube"))
        self.env.pop("KUBECONFIG", None)

    def argv(self, *args):
        """The command line of one kubectl."""
        return [str(PROGRAMS / "kubectl"), "--kubeconfig", self.config, *map(str, args)]

    def kubectl(self, *args, stdin=None, seconds=120):
        """Runs kubectl to its end, whatever that is."""
        return running.run(self.argv(*args), self.env, seconds, stdin=stdin.encode() if stdin is not None else None)

    def helm(self, *args, seconds=300):
        """Runs helm to its end, which must be a good one; gives what it printed."""
        return running.run([PROGRAMS / "helm", "--kubeconfig", self.config, *args], self.env, seconds).ok().out

    def apply(self, *objects, namespace=None):
        """Applies objects, as a person does with a file."""
        where = ["--namespace", namespace] if namespace else []
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        return self.kubectl("apply", *where, "-f", "-", stdin=text).ok()

    def get(self, kind, name=None, namespace=None, labels=None):
        """An object, or the items of a list; None where there is no such object."""
        where = ["--namespace", namespace] if namespace else []
        which = ([name] if name else []) + (["-l", labels] if labels else [])
        done = self.kubectl("get", kind, *which, *where, "-o", "json", "--ignore-not-found")
        running.expect(done.code == 0, f"kubectl get {kind}: {done.said()[-500:]}")
        found = json.loads(done.out) if done.out.strip() else None
        if name:
            return found
        return found["items"] if found is not None else []

    def events(self, namespace):
        """What the Events of a namespace say: (kind/name, reason, message)."""
        return [(f"{event['involvedObject']['kind']}/{event['involvedObject'].get('name', '')}", event.get("reason", ""),
                 event.get("message", "")) for event in self.get("events", namespace=namespace)]

    def logs(self, namespace, pod, container=None, previous=False):
        """What a container has printed so far; nothing while it has not started."""
        which = ["-c", container] if container else []
        return self.kubectl("logs", "--namespace", namespace, pod, *which, *(["--previous"] if previous else [])).out

    def exec(self, namespace, pod, *argv, container=None, stdin=None, seconds=120):
        """Runs a command in a pod to its end."""
        which = ["-c", container] if container else []
        return self.kubectl("exec", *(["-i"] if stdin is not None else []), "--namespace", namespace, pod, *which, "--", *argv,
                            stdin=stdin, seconds=seconds)

    def remembers(self, folder, namespace):
        """Writes down what a person would look at after a failure: objects, events, logs of every container."""
        folder.mkdir(parents=True, exist_ok=True)
        for kind in ("pods,jobs,cronjobs,deployments,statefulsets,cloudbindings,configmaps", "events"):
            done = self.kubectl("get", kind, "--namespace", namespace, "-o", "yaml")
            (folder / f"{namespace}-{kind.split(',')[0]}.yaml").write_text(done.said())
        for pod in self.get("pods", namespace=namespace):
            spec, name = pod["spec"], pod["metadata"]["name"]
            for container in spec.get("initContainers", []) + spec["containers"]:
                for previous in (False, True):
                    text = self.logs(namespace, name, container["name"], previous)
                    if text:
                        (folder / f"{namespace}-{name}-{container['name']}{'-previous' if previous else ''}.log").write_text(text)


def condition(binding, kind):
    """A condition of an object, or an empty one."""
    found = [one for one in (binding or {}).get("status", {}).get("conditions", []) if one["type"] == kind]
    return found[0] if found else {"status": None, "reason": None, "message": None}
