"""Real S3 services on loopback with TLS, each under a name of its own, in a folder and on ports of its own.
Their data outlives `kill` and `stop`, so a story can switch a cloud off and on again."""

import socket
import ssl
import time

import boto3
from botocore.config import Config

from lib import authority, machine, names, running


class Cloud:
    """What every service here has in common: where it is, who may write to it, whether it lives.

    `provider` is what the binding calls it; the endpoint is `https://s3.PROVIDER.test:PORT` unless a `host` is given.
    """

    region = "us-east-1"
    address = "127.0.0.1"

    def __init__(self, provider, folder, ca, host=None):
        self.provider, self.folder, self.ca = provider, folder / provider, ca
        self.host, self.port = host or f"s3.{provider}.test", machine.free_port()
        self.endpoint = f"https://{self.host}:{self.port}"
        # Made up for this run; a tool that asks for a well-formed pair gets one.
        self.access = f"{provider.replace('-', '').upper()}TESTKEY"
        self.secret = f"{provider}-secret-for-tests-only"
        self.folder.mkdir(parents=True)
        if not host:
            names.add(self.host, address=self.address)
        self.certificate, self.key = ca.issue(self.host, *([] if host else [f"*.{self.host}"]))
        self.process = None

    def start(self):
        """Starts the service and waits until it answers a request."""
        self.process = running.Process(self.provider, self._argv(), self.folder.parent / f"{self.provider}.log",
                                       machine.environment(**self._variables()), cwd=self.folder)
        self.process.ready(self._answers, 60)
        return self

    def kill(self):
        """Switches the cloud off, as a failing provider does."""
        self.process.kill()
        self.process = None

    def client(self, **config):
        """A boto3 client that goes straight to this cloud, past every proxy."""
        return boto3.client(
            "s3", endpoint_url=self.endpoint, region_name=self.region, aws_access_key_id=self.access,
            aws_secret_access_key=self.secret, verify=str(self.ca.pem),
            config=Config(s3={"addressing_style": "path"}, proxies={}, max_pool_connections=16,
                          retries={"total_max_attempts": 5}, **config))

    def credentials(self):
        """What an application needs to use this cloud, as the variables every SDK reads."""
        return {"AWS_ACCESS_KEY_ID": self.access, "AWS_SECRET_ACCESS_KEY": self.secret, "AWS_REGION": self.region,
                "AWS_DEFAULT_REGION": self.region, "AWS_ENDPOINT_URL": self.endpoint}

    def _variables(self):
        return {}

    def _answers(self):
        try:
            context = ssl.create_default_context(cafile=str(self.ca.pem))
            with socket.create_connection((self.address, self.port), 5) as plain, \
                    context.wrap_socket(plain, server_hostname=self.host) as wire:
                wire.settimeout(5)
                wire.sendall(f"GET / HTTP/1.1\r\nHost: {self.host}:{self.port}\r\nConnection: close\r\n\r\n".encode())
                return wire.recv(12) [:9] in (b"HTTP/1.1 ", b"HTTP/1.0 ") and self._works()
        except OSError:
            return False

    def _works(self):
        return True


class SeaweedFS(Cloud):
    """SeaweedFS in one process: master, volume, filer and S3."""

    def _argv(self):
        import json
        (self.folder / "data").mkdir(exist_ok=True)
        identities = self.folder / "identities.json"
        identities.write_text(json.dumps({"identities": [{
            "name": "app", "credentials": [{"accessKey": self.access, "secretKey": self.secret}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]}))
        if not hasattr(self, "_ports"):
            parts = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port",
                     "filer.port.grpc", "s3.port", "s3.port.grpc")
            self._ports = [f"-{part}={machine.free_port()}" for part in parts]
        return [machine.tool("weed"), "-v=0", "server", f"-dir={self.folder / 'data'}", f"-ip={self.address}", f"-ip.bind={self.address}",
                "-filer", "-s3", *self._ports, f"-s3.port.https={self.port}", "-s3.port.iceberg=0", "-s3.port.lance=0",
                f"-s3.cert.file={self.certificate}", f"-s3.key.file={self.key}", f"-s3.config={identities}",
                f"-s3.localSocket={self.folder / 's3.sock'}", f"-filer.localSocket={self.folder / 'filer.sock'}",
                f"-s3.domainName={self.host}", "-master.volumeSizeLimitMB=512", "-volume.max=100",
                "-master.telemetry=false"]

    def _variables(self):
        # Its TLS port offers h2 to whoever asks, and Hawser's stories of one exchange want HTTP/1.1.
        return {"GODEBUG": "http2server=0", "TMPDIR": self.folder}

    def _works(self):
        """It listens before its volume server has joined: only a stored object proves that it works."""
        try:
            client = self.client(connect_timeout=2, read_timeout=10)
            client.create_bucket(Bucket="ready")
            client.put_object(Bucket="ready", Key="probe", Body=b"x" * 100_000)
            client.delete_object(Bucket="ready", Key="probe")
            client.delete_bucket(Bucket="ready")
            return True
        except Exception:  # noqa: BLE001: whatever it says while starting, it is not ready
            return False


class Versitygw(Cloud):
    """Versity's S3 gateway over a folder of this machine; object headers and tags live beside the files, so
    that no filesystem with extended attributes is needed. It closes each connection after its answer: with
    `--keep-alive` it takes the trailer of one upload for the head of the next request."""

    versioning = False

    def _argv(self):
        for name in ("data", "meta", "iam", "versions"):
            (self.folder / name).mkdir(exist_ok=True)
        more = ["--versioning-dir", self.folder / "versions"] if self.versioning else []
        return [machine.tool("versitygw"), "--port", f"{self.address}:{self.port}", "--access", self.access,
                "--secret", self.secret, "--region", self.region, "--cert", self.certificate, "--key", self.key,
                "--iam-dir", self.folder / "iam", "--quiet", "posix", *more,
                "--sidecar", self.folder / "meta", self.folder / "data"]


class Moto(Cloud):
    """moto's server: keeps keys exactly as they are, holds everything in memory, checks no signature."""

    def _argv(self):
        return [machine.tool("moto_server"), "-H", "127.0.0.1", "-p", self.port, "-c", self.certificate, "-k", self.key]

    def _variables(self):
        return {"S3_IGNORE_SUBDOMAIN_BUCKETNAME": "1"}  # else it takes our host's first label for a bucket

    def kill(self):
        raise NotImplementedError("moto forgets its objects when it ends")


def empty(client, bucket):
    """Deletes every object of a bucket, current versions only."""
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for item in page.get("Contents", []):
            client.delete_object(Bucket=bucket, Key=item["Key"])


def wait_for_clock():
    """Waits until the second on the wall has changed: Last-Modified of S3 has no finer grain."""
    now = int(time.time())
    running.until(lambda: int(time.time()) != now, "the next second comes", 2)
