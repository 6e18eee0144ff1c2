"""A small world for one unhappy story: two clouds, a binding, a store, as many sidecars as it needs."""

import hashlib
import random

from lib import authority, clouds, gate, hawser, ledger, running

BUCKET = "archive"


class World:
    """Everything is started but the sidecars; `kind` is the service that both clouds are."""

    def __init__(self, folder, kind=clouds.Versitygw, bucket=True, buckets=(BUCKET,), extra="", settle=2, lease=30, flags=(),
                 gated=False):
        self.folder, self.ca = folder, authority.Authority(folder / "ca")
        self.a = kind("cloud-a", folder, self.ca).start()
        self.b = kind("cloud-b", folder, self.ca).start()
        self.clouds = [self.a, self.b]
        if gated:  # the bound way to cloud A leads through a gate that can lose answers
            self.gate = gate.Gate(self.a.port)
            self.a.port = self.gate.port
            self.a.endpoint = f"https://{self.a.host}:{self.a.port}"
        self.binding = hawser.Binding(folder, self.clouds, buckets, extra=extra)
        self.store = hawser.Store(folder, settle, lease, flags)
        self.direct = self.a.client()
        if bucket:
            self.direct.create_bucket(Bucket=BUCKET)
        self.book = {}

    def sidecar(self, name="sidecar", **variables):
        """Starts a sidecar of its own on the world's binding."""
        return hawser.Sidecar(self.folder, self.binding, self.store.url, self.ca.pem, name).start(**variables)

    def put(self, client, key, size=50_000, seed=None, **more):
        """Writes pseudo-random bytes with metadata through `client` and notes them in the book."""
        body = random.Random(key if seed is None else seed).randbytes(size)
        metadata = {"seed": str(seed)}
        answer = client.put_object(Bucket=BUCKET, Key=key, Body=body, Metadata=metadata, **more)
        self.note(key, body, metadata=metadata)
        return answer

    def note(self, key, body, metadata=None, tags=None, headers=None):
        """Notes that `body` is now the object `key`."""
        self.book[key] = {"sha256": hashlib.sha256(body).hexdigest(), "size": len(body), "headers": headers or {},
                          "metadata": metadata or {}, "tags": tags or {}}

    def note_whatever(self, key):
        """Notes what cloud A holds under `key`, be it nothing: services differ in what they make of half a body."""
        self.book.pop(key, None)
        try:
            self.note(key, self.direct.get_object(Bucket=BUCKET, Key=key)["Body"].read())
        except self.direct.exceptions.NoSuchKey:
            pass

    def delete(self, client, key):
        """Deletes `key` through `client` and in the book."""
        client.delete_object(Bucket=BUCKET, Key=key)
        self.book.pop(key, None)

    def gaps(self, *flags):
        """The open gaps, as `hawser gaps --json` shows them."""
        return hawser.cli("gaps", self.binding, self.store, *flags)

    def status(self):
        """The binding's line of `hawser status --json`."""
        return hawser.cli("status", self.binding, self.store)[0]

    def migrate(self, verb, *flags, **more):
        """`hawser-migrate VERB` with both clouds' credentials."""
        return hawser.migrate(verb, self.binding, self.store, self.clouds, self.ca.pem, *flags, **more)

    def settled(self):
        """Waits until the store knows of no operation under way: what the sidecars saw has arrived."""
        running.until(lambda: self.status()["openIntents"] == 0, "every intent is followed by its outcome")

    def expect_copy(self, where="the copy in the store"):
        """The store's S3 face shows the book, byte for byte."""
        ledger.expect_same(self.store.client(), BUCKET, self.book, where)

    def expect_truth(self):
        """Cloud A holds the book: what the story believes was written."""
        ledger.expect_same(self.a.client(), BUCKET, self.book, "cloud A")

    def expect_repaired(self):
        """A backfill closes every gap, and then copy and cloud are the same."""
        self.expect_truth()
        self.migrate("backfill").ok()
        running.expect(not self.gaps(), f"gaps are left after a backfill: {self.gaps()[:5]}")
        self.expect_copy()

    def expect_moves(self):
        """The copy replicates to cloud B, which then holds the book."""
        self.binding.provider(self.b.provider)
        self.migrate("replicate").ok()
        ledger.expect_same(self.b.client(), BUCKET, self.book, "cloud B")
