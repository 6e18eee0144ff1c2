"""Hawser's own programs, as their command lines promise them: the store, the sidecar, migrate and the CLI."""

import json
import os
import re
import shutil
import subprocess
import urllib.request

from lib import machine, running

NAMESPACE, NAME = "shop", "archive"
UID = 61_337


class Binding:
    """The CloudBinding of a story, a file: the one configuration of every part."""

    def __init__(self, folder, clouds, buckets=("archive",), block_size="128Ki", extra=""):
        self.path = folder / "binding.yaml"
        providers = "".join(
            f"  - name: {cloud.provider}\n"
            f"    s3: {{endpoint: '{cloud.endpoint}', region: {cloud.region}, addressing: Path}}\n" for cloud in clouds)
        names = "".join(f"  - {{name: {self._quoted(bucket)}, create: true}}\n" for bucket in buckets)
        self.path.write_text(
            "apiVersion: hawser.dev/v1alpha1\nkind: CloudBinding\n"
            f"metadata: {{name: {NAME}, namespace: {NAMESPACE}}}\n"
            f"spec:\n  provider: {clouds[0].provider}\n  providers:\n{providers}  buckets:\n{names}"
            f"  blockSize: {block_size}\n  interception: Proxy\n{extra}")

    @staticmethod
    def _quoted(bucket):
        return '"*"' if bucket == "*" else bucket

    def provider(self, name):
        """Edits the one word `spec.provider`, in place as a person with an editor does."""
        text = self.path.read_text()
        self.path.write_text(re.sub(r"^  provider: .*$", f"  provider: {name}", text, count=1, flags=re.M))


class Store:
    """`hawser-store serve` on a folder of the story."""

    secret = "store-secret-for-tests-only"

    def __init__(self, folder, settle=60, lease=30, flags=()):
        self.folder, self.data = folder, folder / "store"
        self.flags = ["--settle", f"{settle}s", "--session-lease", f"{lease}s", *flags]
        self.grpc, self.s3, self.admin = (f"127.0.0.1:{machine.free_port()}" for _ in range(3))
        self.url, self.log, self.process = f"http://{self.grpc}", folder / "store.log", None

    def start(self, **variables):
        """Starts it, on the same ports every time, and waits until it is ready."""
        self.folder.mkdir(exist_ok=True)
        self.process = running.Process(
            "hawser-store",
            [machine.binary("hawser-store"), "serve", "--data", self.data, "--listen", self.grpc, "--s3", self.s3,
             "--admin", self.admin, *self.flags],
            self.log, machine.environment(HAWSER_S3_SECRET=self.secret, **variables))
        self.process.ready(lambda: ready(self.admin))
        return self

    def kill(self):
        """kill −9."""
        self.process.kill()

    def stop(self):
        """SIGTERM, and its exit code."""
        return self.process.stop()

    def client(self):
        """A boto3 client of the store's read-only S3 face."""
        import boto3
        from botocore.config import Config
        return boto3.client("s3", endpoint_url=f"http://{self.s3}", region_name="us-east-1", aws_access_key_id=NAMESPACE,
                            aws_secret_access_key=self.secret,
                            config=Config(s3={"addressing_style": "path"}, proxies={}, retries={"total_max_attempts": 1},
                                          max_pool_connections=16))

    def stats(self):
        """What `hawser-store stats --json` says of the folder, while it is served."""
        done = running.run([machine.binary("hawser-store"), "stats", "--data", self.data, "--json"],
                           machine.environment()).ok()
        return json.loads(done.out)


class Sidecar:
    """`hawser-sidecar run` as an explicit proxy, with the folders that a pod's volumes would be."""

    def __init__(self, folder, binding, store_url, upstream_ca, name="sidecar", redirect=False,
                 flags=()):
        self.flags = flags
        self.name, self.binding, self.store_url, self.upstream_ca = name, binding, store_url, upstream_ca
        self.proxy, self.admin = (f"127.0.0.1:{machine.free_port()}" for _ in range(2))
        self.trust, self.state, self.log = folder / f"{name}-trust", folder / f"{name}-state", folder / f"{name}.log"
        self.process, self.redirect = None, f"127.0.0.1:{machine.free_port()}" if redirect else None

    def start(self, **variables):
        """Starts it and waits until it listens and its bundles are there."""
        for path in (self.trust, self.state):
            path.mkdir(exist_ok=True)
        program = [machine.binary("hawser-sidecar")]
        if self.redirect:
            program = self._as_its_own_user()
        self.process = running.Process(
            f"hawser-{self.name}",
            [*program, "run", "--binding", self.binding.path, "--store", self.store_url,
             "--trust-dir", self.trust, "--state-dir", self.state, "--proxy", self.proxy, "--admin", self.admin,
             "--upstream-ca", self.upstream_ca, *(["--redirect", self.redirect] if self.redirect else []), *self.flags],
            self.log, machine.environment(**variables))
        self.process.ready(lambda: ready(self.admin))
        return self

    def _as_its_own_user(self):
        """Packet rules know the sidecar by its user, as in a pod, so it runs as one, from where that one can read."""
        program = self.trust.parent / "hawser-sidecar"
        shutil.copy(machine.binary("hawser-sidecar"), program)
        for path in (self.trust, self.state):
            os.chown(path, UID, UID)
        self.trust.parent.chmod(0o755)
        return ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--pdeathsig", "SIGKILL", program]

    def redirected(self, *ports):
        """While the block runs, connections to `ports` that are not the sidecar's own land at the sidecar."""
        return _Redirect(self.redirect, ports)

    def kill(self):
        """kill −9, as the kernel's out-of-memory killer does."""
        self.process.kill()

    def stop(self):
        """SIGTERM, and its exit code."""
        return self.process.stop()

    def variables(self):
        """What a pod gets: a proxy and a bundle to trust, nothing else."""
        bundle = self.trust / "bundle.pem"
        return {"HTTPS_PROXY": f"http://{self.proxy}", "HTTP_PROXY": f"http://{self.proxy}",
                "AWS_CA_BUNDLE": bundle, "SSL_CERT_FILE": bundle}

    def client(self, cloud, **config):
        """A boto3 client whose way to `cloud` is this sidecar."""
        import boto3
        from botocore.config import Config
        return boto3.client("s3", endpoint_url=cloud.endpoint, region_name=cloud.region, aws_access_key_id=cloud.access,
                            aws_secret_access_key=cloud.secret, verify=str(self.trust / "bundle.pem"),
                            config=Config(**{"s3": {"addressing_style": "path"}, "max_pool_connections": 16,
                                             "proxies": {"https": f"http://{self.proxy}"},
                                             "retries": {"total_max_attempts": 1}} | config))

    def metrics(self):
        """The numbers of `/metrics`, by name with labels."""
        with urllib.request.urlopen(f"http://{self.admin}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return {name: float(value) for name, value in
                (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))}


class _Redirect:
    def __init__(self, to, ports):
        self._rules = (f"table inet hawser_e2e {{\n  chain output {{\n    type nat hook output priority -100;\n"
                       f"    meta skuid != {UID} tcp dport {{ {', '.join(map(str, ports))} }} redirect to :{to.rsplit(':', 1)[1]}\n"
                       "  }\n}\n")

    def __enter__(self):
        _nft(self._rules)

    def __exit__(self, *_):
        _nft("delete table inet hawser_e2e\n")


def _nft(rules):
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)


def ready(admin):
    """Whether `/readyz` of a part says yes."""
    try:
        with urllib.request.urlopen(f"http://{admin}/readyz", timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


def migrate(verb, binding, store, clouds, upstream_ca, *flags, seconds=600.0, **variables):
    """Runs `hawser-migrate VERB` to its end. Credentials of every cloud are in its environment."""
    argv, env = migrate_command(verb, binding, store, clouds, upstream_ca, *flags, **variables)
    return running.run(argv, env, seconds)


def migrate_command(verb, binding, store, clouds, upstream_ca, *flags, **variables):
    """The command line and environment of one `hawser-migrate`."""
    env = machine.environment()
    for cloud in clouds:
        prefix = f"HAWSER_{cloud.provider.upper().replace('-', '_')}_AWS"
        env |= {f"{prefix}_ACCESS_KEY_ID": cloud.access, f"{prefix}_SECRET_ACCESS_KEY": cloud.secret}
    argv = [machine.binary("hawser-migrate"), verb, "--binding", binding.path, "--store", store.url,
            "--upstream-ca", upstream_ca, *flags]
    return argv, env | {name: str(value) for name, value in variables.items()}


def cli(verb, binding, store, *flags):
    """Runs `hawser VERB --json` and returns its objects, one a line."""
    done = running.run([machine.binary("hawser"), verb, "--store", store.url, "--binding", binding.path, "--json", *flags],
                       machine.environment()).ok()
    return [json.loads(line) for line in done.out.splitlines() if line.strip()]
