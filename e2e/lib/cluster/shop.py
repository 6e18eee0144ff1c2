"""A story's namespace: its bucket at both clouds, its Secrets, its binding, its pods, and an eye on the store."""

import hashlib
import json

from lib import running
from lib.cluster import kubernetes

BINDING = "archive"
CLIENT, CLI = "docker.io/hawser/client:0.1.0", "docker.io/hawser/cli:0.1.0"


class Shop:
    """One namespace, one binding, one bucket."""

    def __init__(self, world, name):
        self.world, self.cluster, self.bucket = world, world.cluster, f"{name}-bucket"
        self.namespace = f"story-{name}"

    def open(self):
        """The namespace, with keys and roots of both clouds, and the bucket at A."""
        self.cluster.kubectl("delete", "namespace", self.namespace, "--ignore-not-found", "--wait", seconds=120).ok()
        self.cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}})
        secrets = [{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": f"keys-{cloud.provider}"}, "stringData": {
            "AWS_ACCESS_KEY_ID": cloud.access, "AWS_SECRET_ACCESS_KEY": cloud.secret}} for cloud in (self.world.a, self.world.b)]
        roots = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "roots"},
                 "data": {"ca.pem": self.world.ca.pem.read_text()}}
        self.cluster.apply(*secrets, roots, namespace=self.namespace)
        self.world.a.client().create_bucket(Bucket=self.bucket)

    def close(self):
        """Takes the namespace away."""
        self.cluster.kubectl("delete", "namespace", self.namespace, "--ignore-not-found", "--wait=false", seconds=60)

    # The binding.

    def bind(self, provider="cloud-a", name=BINDING, **spec):
        """The binding, as a person writes it."""
        providers = [{"name": cloud.provider, "s3": {
            "endpoint": cloud.endpoint, "region": cloud.region, "addressing": "Path",
            "credentials": {"secretName": f"keys-{cloud.provider}"}, "ca": {"configMapName": "roots", "key": "ca.pem"}}}
            for cloud in (self.world.a, self.world.b)]
        self.cluster.apply({"apiVersion": "hawser.dev/v1alpha1", "kind": "CloudBinding", "metadata": {"name": name}, "spec": {
            "provider": provider, "providers": providers, "buckets": [{"name": self.bucket, "create": True}], **spec}},
            namespace=self.namespace)

    def edit(self, **spec):
        """Edits words of the spec."""
        self.cluster.kubectl("patch", "cloudbinding", BINDING, "--namespace", self.namespace, "--type", "merge", "--patch",
                             json.dumps({"spec": spec})).ok()

    def binding(self):
        """The binding as it is."""
        return self.cluster.get("cloudbinding", BINDING, self.namespace)

    def row(self):
        """What `kubectl get cb` prints of it."""
        return self.cluster.kubectl("get", "cb", "--namespace", self.namespace).out

    def until_in_force(self, provider, seconds=120):
        """Waits until the status says that `provider` is in force and nothing is under way."""

        def look():
            binding = self.binding()
            status = binding.get("status", {})
            return (status.get("provider") == provider and status.get("phase") == "InForce"
                    and kubernetes.condition(binding, "Ready")["status"] == "True")

        try:
            running.until(look, f"{provider} comes into force", seconds)
        except running.Failed as failure:
            raise running.Failed(f"{failure}\n{self.row()}{json.dumps(self.binding().get('status'), indent=1)}\n"
                                 + "\n".join(" ".join(event) for event in self.cluster.events(self.namespace)[-15:])) from None

    # Pods.

    def template(self, *args, bound=True, restart="Never", provider=None, **spec):
        """A pod's template: the client image with the variables every SDK reads; `bound` adds the one annotation."""
        cloud = provider or self.world.a
        env = [{"name": name, "value": value} for name, value in {**cloud.credentials(), "BUCKET": self.bucket}.items()]
        return {"metadata": {"labels": {"app": "client"}, "annotations": {"hawser.dev/binding": BINDING} if bound else {}},
                "spec": {"restartPolicy": restart, "terminationGracePeriodSeconds": 5, "containers": [{
                    "name": "client", "image": CLIENT, "imagePullPolicy": "IfNotPresent", "args": list(args), "env": env}], **spec}}

    def pod(self, name, *args, **more):
        """A bare pod; gives the Ran of its creation, for stories that want it refused."""
        template = self.template(*args, **more)
        text = json.dumps({"apiVersion": "v1", "kind": "Pod", **template, "metadata": {**template["metadata"], "name": name}})
        return self.cluster.kubectl("create", "--namespace", self.namespace, "-f", "-", stdin=text)

    def deployment(self, name, *args, **more):
        """A Deployment of one such pod."""
        template = self.template(*args, restart="Always", **more)
        self.cluster.apply({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {
            "selector": {"matchLabels": {"app": "client"}}, "template": template}}, namespace=self.namespace)

    def until_phase(self, name, phase, seconds=60):
        """Waits until a pod is in `phase`; a pod that failed ends the wait at once, with what it said."""

        def look():
            pod = self.cluster.get("pod", name, self.namespace)
            now = (pod or {}).get("status", {}).get("phase")
            if now == "Failed" and phase != "Failed":
                raise running.Failed(f"pod {name} failed:\n{self.said(name)[-2000:]}")
            return now == phase and (phase != "Running" or all(
                one.get("ready") for one in pod["status"].get("containerStatuses", [{}])))

        running.until(look, f"pod {name} is {phase}", seconds)

    def said(self, name):
        """What the application of a pod printed."""
        return self.cluster.logs(self.namespace, name, "client")

    def ledger(self, name):
        """What the cloud confirmed to the application of a pod: key → (sha256, size)."""
        lines = [json.loads(line) for line in self.said(name).splitlines() if line.startswith("{")]
        failed = [line for line in lines if "failed" in line]
        running.expect(not failed, f"{len(failed)} requests of the application failed, the first: {failed[:1]}")
        return {line["key"]: (line["sha256"], line["size"]) for line in lines if "key" in line}

    # The store's copy, and the clouds.

    def look(self):
        """A pod with the command line of Hawser, as an account of this namespace."""
        if self.cluster.get("pod", "look", self.namespace) is None:
            self.cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "look"}, "spec": {
                "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "look", "image": CLI, "command": ["sleep", "86400"], "env": [
                    {"name": "HAWSER_STORE", "value": "https://hawser-store.hawser-system.svc:7070"},
                    {"name": "HAWSER_STORE_CA", "value": "/etc/hawser/store-ca.pem"},
                    {"name": "HAWSER_TOKEN_FILE", "value": "/var/run/secrets/hawser/token"}],
                    "volumeMounts": [{"name": "config", "mountPath": "/etc/hawser"},
                                     {"name": "token", "mountPath": "/var/run/secrets/hawser"}]}],
                "volumes": [{"name": "config", "configMap": {"name": f"hawser-{BINDING}"}},
                            {"name": "token", "projected": {"sources": [
                                {"serviceAccountToken": {"audience": "hawser-store", "path": "token"}}]}}]}},
                namespace=self.namespace)
            self.cluster.kubectl("wait", "--for=condition=Ready", "pod/look", "--namespace", self.namespace,
                                 "--timeout=60s").ok()

    def hawser(self, *args):
        """Runs the command line of Hawser in this namespace."""
        self.look()
        return self.cluster.exec(self.namespace, "look", "hawser", *args)

    def compare(self, name):
        """Compares now what the schedule would compare within the hour: a person's `kubectl create job --from`."""
        self.cluster.kubectl("create", "job", f"--from=cronjob/hawser-{BINDING}-reconcile", name, "--namespace",
                             self.namespace).ok()
        done = self.cluster.kubectl("wait", "--for=condition=Complete", f"job/{name}", "--namespace", self.namespace,
                                    "--timeout=180s", seconds=200)
        running.expect(done.code == 0, f"the comparison did not complete: {done.said()}\n"
                       + self.cluster.kubectl("logs", "--namespace", self.namespace, f"job/{name}", "--all-containers",
                                              "--tail=20").said()[-3000:])

    def expect_held(self, ledger, seconds=30, provider=None):
        """The store's copy is what the clouds confirmed, as soon as records have come in: every key, and the bytes of
        a hundred of them, spread evenly. Of the provider in force, or of another."""
        self.look()
        of = ["--provider", provider] if provider else []
        keys = sorted(ledger)
        read = keys[:: max(1, len(keys) // 100)]
        script = f'while IFS= read -r key; do hawser get {" ".join(of)} "$0/$key" 2>/dev/null | sha256sum; done'

        def missing():
            listed = [json.loads(line)["key"] for line in self.hawser("ls", "--json", *of, self.bucket).ok().out.splitlines()]
            absent = sorted(set(keys) - set(listed))
            if absent:
                return absent
            done = self.cluster.exec(self.namespace, "look", "sh", "-c", script, self.bucket,
                                     stdin="".join(f"{key}\n" for key in read), seconds=300).ok()
            found = [line.split()[0] for line in done.out.splitlines()]
            return [key for key, have in zip(read, found, strict=True) if have != ledger[key][0]]

        try:
            running.until(lambda: not missing(), "the store holds what the application wrote", seconds)
        except running.Failed as failure:
            lacks = missing()
            raise running.Failed(f"{failure}: {len(lacks)} of {len(ledger)} objects are missing or differ, as {lacks[:3]}\n"
                                 f"{self.hawser('gaps').said()[-1500:]}") from None

    def expect_at(self, cloud, ledger):
        """What a cloud has of the bucket is the ledger, byte for byte, nothing else."""
        client, found = cloud.client(), {}
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket):
            for item in page.get("Contents", []):
                body = client.get_object(Bucket=self.bucket, Key=item["Key"])["Body"].read()
                found[item["Key"]] = (hashlib.sha256(body).hexdigest(), len(body))
        lacks, more = sorted(set(ledger) - set(found)), sorted(set(found) - set(ledger))
        other = sorted(key for key in ledger if key in found and tuple(ledger[key]) != found[key])
        running.expect(not lacks and not more and not other,
                       f"{cloud.provider}: {len(lacks)} missing {lacks[:3]}, {len(other)} differ {other[:3]}, "
                       f"{len(more)} too many {more[:3]}; {len(ledger)} were expected")

    def expect_no_secrets(self):
        """No log of Hawser in this namespace has a key of a cloud in it."""
        secrets = [cloud.secret for cloud in (self.world.a, self.world.b)]
        for pod in self.cluster.get("pods", namespace=self.namespace):
            for container in pod["spec"].get("initContainers", []) + pod["spec"]["containers"]:
                text = self.cluster.logs(self.namespace, pod["metadata"]["name"], container["name"])
                running.expect(not any(secret in text for secret in secrets),
                               f"{pod['metadata']['name']}/{container['name']} logs a secret")
