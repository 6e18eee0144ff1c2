"""The application: what a team might run against its bucket. Runs as a process of its own, with boto3 and
aws-cli as they come from their authors. It is told an endpoint and credentials by the variables every SDK
reads; that a proxy and a CA are among its variables it neither knows nor checks. What it wrote and expects
to find again goes into a ledger: key → content hash, size, headers, metadata, tags.

    app.py PHASE… --bucket B --data DIR --ledger FILE --aws PROGRAM
"""

import argparse
import concurrent.futures
import datetime
import gzip
import hashlib
import json
import mimetypes
import os
import pathlib
import random
import subprocess
import sys

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

PARALLEL = 8
PARTS = TransferConfig(multipart_threshold=8 << 20, multipart_chunksize=8 << 20, max_concurrency=4)
PHASES = {}


def phase(function):
    """Registers `function` under its name as a phase of the command line."""
    PHASES[function.__name__] = function
    return function


class App:
    """A bucket, the data to put there, and the ledger of what was put."""

    def __init__(self, bucket, data, ledger, aws):
        self.bucket, self.data, self.path, self._aws = bucket, data, ledger, aws
        self.s3 = boto3.client("s3", config=Config(max_pool_connections=PARALLEL + 4, retries={"total_max_attempts": 3},
                                                   s3={"addressing_style": "path"}))
        self.ledger = json.loads(ledger.read_text()) if ledger.exists() else {}
        self.counts = {"requests": 0, "written_bytes": 0, "read_bytes": 0}
        self.s3.meta.events.register("before-send.s3", self._count)

    def _count(self, **_):
        self.counts["requests"] += 1

    def save(self):
        """Writes the ledger down."""
        self.path.write_text(json.dumps(self.ledger))

    def wrote(self, key, body, tags=None, metadata=None, **headers):
        """Notes that `body` (bytes, or the path of a file) is now the object `key`."""
        if isinstance(body, (bytes, bytearray)):
            digest, size = hashlib.sha256(body).hexdigest(), len(body)
        else:
            with open(body, "rb") as file:
                digest, size = hashlib.file_digest(file, "sha256").hexdigest(), os.path.getsize(body)
        self.counts["written_bytes"] += size
        self.ledger[key] = {"sha256": digest, "size": size, "headers": headers, "metadata": metadata or {},
                            "tags": tags or {}}

    def put(self, key, body, tags=None, metadata=None, framing="bytes", **headers):
        """PutObject in one of the framings that SDKs use on the wire."""
        more = {name: value for name, value in headers.items()}
        if metadata:
            more["Metadata"] = metadata
        if tags:
            more["Tagging"] = "&".join(f"{name}={value}" for name, value in tags.items())
        if framing == "bytes":
            self.s3.put_object(Bucket=self.bucket, Key=key, Body=body, **more)
        elif framing == "sha256":
            self.s3.put_object(Bucket=self.bucket, Key=key, Body=body, ChecksumAlgorithm="SHA256", **more)
        elif framing == "file":
            import io
            self.s3.put_object(Bucket=self.bucket, Key=key, Body=io.BytesIO(body), **more)
        elif framing == "md5":
            import base64
            md5 = base64.b64encode(hashlib.md5(body).digest()).decode()
            self.s3.put_object(Bucket=self.bucket, Key=key, Body=body, ContentMD5=md5, **more)
        else:
            raise ValueError(framing)
        self.wrote(key, body, tags, metadata, **headers)

    def aws(self, *args):
        """One command of aws-cli; a failure is ours."""
        done = subprocess.run([self._aws, *map(str, args)], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise RuntimeError(f"aws {' '.join(map(str, args[:3]))}: {done.stderr[-2000:]}")
        return done.stdout

    def every(self, function, items):
        """Runs `function` on each item, several at a time; the first failure ends it."""
        with concurrent.futures.ThreadPoolExecutor(PARALLEL) as pool:
            for done in concurrent.futures.as_completed([pool.submit(function, item) for item in items]):
                done.result()

    def tree(self, number):
        """The files of one release of the source tree, as (relative path, file)."""
        root = self.data / f"release-{number}"
        return [(file.relative_to(root).as_posix(), file) for file in sorted(root.rglob("*"))
                if file.is_file() and not file.is_symlink()]


def content_type(key):
    """What a careful application says an object is."""
    return mimetypes.guess_type(key)[0] or "application/octet-stream"


@phase
def early(app):
    """What was in the bucket before anybody bound it to anything."""
    app.s3.create_bucket(Bucket=app.bucket)
    for index in range(20):
        app.put(f"early/report-{index}.csv", f"{index},early\n".encode() * 500 * (index + 1), ContentType="text/csv",
                metadata={"row-count": str(500 * (index + 1))}, tags={"age": "early"})
    app.s3.upload_file(str(app.data / "tuesday.img"), app.bucket, "early/disk.img", Config=PARTS,
                       ExtraArgs={"ContentType": "application/x-raw-disk-image"})
    app.wrote("early/disk.img", app.data / "tuesday.img", ContentType="application/x-raw-disk-image")


@phase
def first_release(app):
    """aws-cli brings the first release."""
    app.aws("s3", "cp", "--recursive", "--only-show-errors", app.data / "release-1", f"s3://{app.bucket}/source/")
    for path, file in app.tree(1):
        app.wrote(f"source/{path}", file)


@phase
def second_release(app):
    """boto3 overwrites it with the second, in every framing, and deletes what the second no longer has."""
    framings = ("bytes", "file", "sha256", "md5")
    files = app.tree(2)

    def put(numbered):
        index, (path, file) = numbered
        app.put(f"source/{path}", file.read_bytes(), framing=framings[index % len(framings)],
                metadata={"release": "2", "path-length": str(len(path))}, ContentType=content_type(path))

    app.every(put, enumerate(files))
    kept = {f"source/{path}" for path, _ in files}
    gone = sorted(key for key in app.ledger if key.startswith("source/") and key not in kept)
    for start in range(0, len(gone), 500):
        batch = gone[start:start + 500]
        answer = app.s3.delete_objects(Bucket=app.bucket, Delete={"Objects": [{"Key": key} for key in batch], "Quiet": True})
        assert not answer.get("Errors"), answer["Errors"]
        for key in batch:
            del app.ledger[key]


@phase
def backups(app):
    """Large files: a database and a disk image, each written on Monday and overwritten on Tuesday."""
    app.s3.upload_file(str(app.data / "monday.sqlite"), app.bucket, "backup/app.sqlite", Config=PARTS)
    app.s3.upload_file(str(app.data / "monday.sqlite"), app.bucket, "backup/monday/app.sqlite", Config=PARTS,
                       ExtraArgs={"Metadata": {"day": "monday"}, "Tagging": "keep=7d"})
    app.wrote("backup/monday/app.sqlite", app.data / "monday.sqlite", metadata={"day": "monday"}, tags={"keep": "7d"})
    app.aws("s3", "cp", "--only-show-errors", app.data / "monday.img", f"s3://{app.bucket}/backup/disk.img")
    app.wrote("backup/disk.img", app.data / "monday.img")
    app.s3.upload_file(str(app.data / "tuesday.sqlite"), app.bucket, "backup/app.sqlite", Config=PARTS,
                       ExtraArgs={"Metadata": {"day": "tuesday"}, "ContentType": "application/vnd.sqlite3"})
    app.wrote("backup/app.sqlite", app.data / "tuesday.sqlite", metadata={"day": "tuesday"},
              ContentType="application/vnd.sqlite3")
    app.aws("s3", "cp", "--only-show-errors", "--metadata", "day=tuesday", app.data / "tuesday.img",
            f"s3://{app.bucket}/backup/disk.img")
    app.wrote("backup/disk.img", app.data / "tuesday.img", metadata={"day": "tuesday"})


@phase
def everyday(app):
    """Headers of every kind, odd keys, copies, tags, parts out of order, an abandoned upload, deletes."""
    app.put("page/index.html.gz", gzip.compress(b"<h1>hawser</h1>" * 4000), ContentType="text/html",
            ContentEncoding="gzip", ContentLanguage="en", CacheControl="max-age=60, public",
            ContentDisposition='inline; filename="index.html"', tags={"site": "main"})
    app.put("page/index.br", os.urandom(70_000), framing="file", ContentEncoding="br", ContentType="text/html")
    for key in ("odd/a b+c%20d.txt", "odd/é à 日本.txt", "odd/q?x=1&y=2#z.txt", "odd/'single' \"double\".txt", "odd/tilde~star*.txt"):
        app.put(key, key.encode() * 50, metadata={"odd": "yes"})
    app.put("empty", b"", metadata={"size": "none"})
    for size in (1, 1000, 32 * 1024 - 1, 32 * 1024, 128 * 1024, 128 * 1024 + 1, 1 << 20, 5 * (1 << 20) + 17):
        app.put(f"sizes/{size}", random.Random(size).randbytes(size), framing="file")

    # Copies: as they are, and with other metadata. The source of one is then overwritten, the copy must not follow.
    for index in range(40):
        source = f"sizes/{1 << 20}" if index % 2 else "odd/a b+c%20d.txt"
        app.s3.copy_object(Bucket=app.bucket, Key=f"copies/{index}", CopySource={"Bucket": app.bucket, "Key": source})
        app.ledger[f"copies/{index}"] = dict(app.ledger[source])
    app.s3.copy_object(Bucket=app.bucket, Key="copies/renamed", CopySource={"Bucket": app.bucket, "Key": "sizes/1000"},
                       MetadataDirective="REPLACE", Metadata={"copied": "true"}, ContentType="text/plain")
    app.ledger["copies/renamed"] = dict(app.ledger["sizes/1000"], metadata={"copied": "true"},
                                        headers={"ContentType": "text/plain"})
    app.put("odd/a b+c%20d.txt", b"overwritten after its copies", metadata={"odd": "again"})

    # Tags come and go without the content.
    for index in range(0, 40, 4):
        tags = {"team": "storage", "number": str(index)}
        app.s3.put_object_tagging(Bucket=app.bucket, Key=f"copies/{index}", Tagging={
            "TagSet": [{"Key": name, "Value": value} for name, value in tags.items()]})
        app.ledger[f"copies/{index}"] = dict(app.ledger[f"copies/{index}"], tags=tags)
    app.s3.delete_object_tagging(Bucket=app.bucket, Key="copies/4")
    app.ledger["copies/4"] = dict(app.ledger["copies/4"], tags={})

    # A multipart upload by hand: parts out of order, one sent twice, one copied, numbers with holes.
    parts = {2: os.urandom(5 << 20), 7: os.urandom(5 << 20), 9: os.urandom(123_456)}
    upload = app.s3.create_multipart_upload(Bucket=app.bucket, Key="parts/by-hand", ContentType="application/x-parts",
                                            Metadata={"made": "by hand"})["UploadId"]
    etags = {}
    for number in (9, 2, 7, 2):
        body = parts[number] if number != 2 or etags.get(2) else os.urandom(5 << 20)
        etags[number] = app.s3.upload_part(Bucket=app.bucket, Key="parts/by-hand", UploadId=upload, PartNumber=number,
                                           Body=body)["ETag"]
    app.s3.complete_multipart_upload(Bucket=app.bucket, Key="parts/by-hand", UploadId=upload, MultipartUpload={
        "Parts": [{"PartNumber": number, "ETag": etags[number]} for number in sorted(etags)]})
    app.wrote("parts/by-hand", parts[2] + parts[7] + parts[9], metadata={"made": "by hand"},
              ContentType="application/x-parts")
    app.wrote_parts = parts

    upload = app.s3.create_multipart_upload(Bucket=app.bucket, Key="parts/from-copies")["UploadId"]
    large = f"sizes/{5 * (1 << 20) + 17}"
    copied = app.s3.upload_part_copy(Bucket=app.bucket, Key="parts/from-copies", UploadId=upload, PartNumber=1,
                                     CopySource={"Bucket": app.bucket, "Key": large},
                                     CopySourceRange=f"bytes=0-{(5 << 20) - 1}")["CopyPartResult"]["ETag"]
    tail = os.urandom(1000)
    written = app.s3.upload_part(Bucket=app.bucket, Key="parts/from-copies", UploadId=upload, PartNumber=2, Body=tail)["ETag"]
    app.s3.complete_multipart_upload(Bucket=app.bucket, Key="parts/from-copies", UploadId=upload, MultipartUpload={
        "Parts": [{"PartNumber": 1, "ETag": copied}, {"PartNumber": 2, "ETag": written}]})
    size = 5 * (1 << 20) + 17
    app.wrote("parts/from-copies", random.Random(size).randbytes(size)[:5 << 20] + tail)

    abandoned = app.s3.create_multipart_upload(Bucket=app.bucket, Key="parts/abandoned")["UploadId"]
    app.s3.upload_part(Bucket=app.bucket, Key="parts/abandoned", UploadId=abandoned, PartNumber=1, Body=b"never")
    app.s3.abort_multipart_upload(Bucket=app.bucket, Key="parts/abandoned", UploadId=abandoned)

    # Deletes, one by one and with aws-cli.
    for index in range(10, 20):
        app.s3.delete_object(Bucket=app.bucket, Key=f"copies/{index}")
        del app.ledger[f"copies/{index}"]
    app.aws("s3", "rm", "--only-show-errors", f"s3://{app.bucket}/copies/20")
    del app.ledger["copies/20"]


@phase
def reads(app):
    """Whole and ranged reads see what was written, however it was framed."""
    keys = sorted(key for key in app.ledger if not key.startswith("early/"))
    chosen = random.Random(1).sample(keys, min(300, len(keys)))

    def whole(key):
        body = app.s3.get_object(Bucket=app.bucket, Key=key)["Body"].read()
        assert hashlib.sha256(body).hexdigest() == app.ledger[key]["sha256"], f"{key} reads otherwise than written"
        app.counts["read_bytes"] += len(body)

    app.every(whole, (key for key in chosen if app.ledger[key]["size"] < 20 << 20))
    with open(app.data / "tuesday.sqlite", "rb") as file:
        local = file.read()

    def ranged(start):
        end = min(start + 300_000, len(local)) - 1
        body = app.s3.get_object(Bucket=app.bucket, Key="backup/app.sqlite", Range=f"bytes={start}-{end}")["Body"].read()
        assert body == local[start:end + 1], f"bytes {start}-{end} read otherwise than written"
        app.counts["read_bytes"] += len(body)

    app.every(ranged, range(0, len(local), len(local) // 20))
    copied = app.data / "read-back.sqlite"
    app.aws("s3", "cp", "--only-show-errors", f"s3://{app.bucket}/backup/monday/app.sqlite", copied)
    with open(copied, "rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == app.ledger["backup/monday/app.sqlite"]["sha256"]
    app.counts["read_bytes"] += os.path.getsize(copied)
    copied.unlink()


def main():
    """Runs the named phases and prints what they did as one JSON object."""
    parser = argparse.ArgumentParser()
    parser.add_argument("phases", nargs="+", choices=sorted(PHASES))
    for name in ("bucket", "data", "ledger", "aws"):
        parser.add_argument(f"--{name}", required=True)
    flags = parser.parse_args()
    app = App(flags.bucket, pathlib.Path(flags.data), pathlib.Path(flags.ledger), flags.aws)
    for name in flags.phases:
        PHASES[name](app)
    app.save()
    print(json.dumps(app.counts | {"objects": len(app.ledger), "when": datetime.datetime.now().isoformat()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
