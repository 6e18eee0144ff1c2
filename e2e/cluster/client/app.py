"""What the stories' pods run: an application on boto3 or aws-cli that is told an endpoint, a Region and keys by
the variables every SDK reads, and nothing else. It says what the cloud confirmed, one JSON object a line.

    app.py idle                       lives until it is told to end; stories run commands in it
    app.py once PREFIX                every kind of write once, then reads them back
    app.py write PREFIX [SECONDS]     small objects, some in parts, one after the other, until told to end
"""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time

BUCKET = os.environ.get("BUCKET", "archive")
_end = threading.Event()


def _client():
    import boto3
    from botocore.config import Config
    return boto3.client("s3", config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1},
                                            connect_timeout=10, read_timeout=60))


def _say(**what):
    print(json.dumps(what), flush=True)


def _wrote(key, body, **more):
    _say(key=key, sha256=hashlib.sha256(body).hexdigest(), size=len(body), at=time.time(), **more)


def idle():
    """Lives."""
    _say(ready=True)
    _end.wait()


def once(prefix):
    """Puts, overwrites, copies, tags, deletes, uploads in parts and by aws-cli; reads all of it back."""
    s3, dice = _client(), random.Random(prefix)
    left = {}

    def put(key, body, **headers):
        s3.put_object(Bucket=BUCKET, Key=key, Body=body, **headers)
        left[key] = body

    put(f"{prefix}/empty", b"")
    put(f"{prefix}/small", dice.randbytes(1_000), ContentType="text/plain", Metadata={"from": "a pod"})
    put(f"{prefix}/replaced", b"first")
    put(f"{prefix}/replaced", dice.randbytes(300_000))
    put(f"{prefix}/ümlaut und + 100%", b"odd key")
    parts = [dice.randbytes(5 << 20), dice.randbytes(70_001)]
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key=f"{prefix}/parts")["UploadId"]
    done = [{"PartNumber": n, "ETag": s3.upload_part(Bucket=BUCKET, Key=f"{prefix}/parts", UploadId=upload,
                                                     PartNumber=n, Body=part)["ETag"]} for n, part in enumerate(parts, 1)]
    s3.complete_multipart_upload(Bucket=BUCKET, Key=f"{prefix}/parts", UploadId=upload, MultipartUpload={"Parts": done})
    left[f"{prefix}/parts"] = b"".join(parts)
    s3.copy_object(Bucket=BUCKET, Key=f"{prefix}/copy", CopySource={"Bucket": BUCKET, "Key": f"{prefix}/small"})
    left[f"{prefix}/copy"] = left[f"{prefix}/small"]
    put(f"{prefix}/gone", b"x")
    s3.delete_object(Bucket=BUCKET, Key=f"{prefix}/gone")
    del left[f"{prefix}/gone"]
    with tempfile.NamedTemporaryFile(dir="/tmp") as file:
        body = dice.randbytes(9 << 20)
        file.write(body)
        file.flush()
        subprocess.run([sys.executable, "-m", "awscli", "s3", "cp", "--only-show-errors", file.name,
                        f"s3://{BUCKET}/{prefix}/by-cli"], check=True)
        left[f"{prefix}/by-cli"] = body
    for key, body in left.items():
        read = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        assert read == body, f"{key} came back as {len(read)} other bytes"
        _wrote(key, body)
    _say(done=True)


def write(prefix, seconds="3600"):
    """Writes until told to end, and says of each request that failed why it did."""
    s3, dice, number = _client(), random.Random(prefix), 0
    end = time.monotonic() + float(seconds)
    while not _end.is_set() and time.monotonic() < end:
        key, body = f"{prefix}/{number:06}", dice.randbytes(dice.choice((0, 1_000, 40_000, 200_000)))
        number += 1
        begun = time.monotonic()
        try:
            s3.put_object(Bucket=BUCKET, Key=key, Body=body)
            _wrote(key, body, seconds=round(time.monotonic() - begun, 3))
        except Exception as error:  # noqa: BLE001: the story judges it
            _say(failed=key, error=str(error))
        _end.wait(0.02)
    _say(done=True)


for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *_: _end.set())
{"idle": idle, "once": once, "write": write}[sys.argv[1]](*sys.argv[2:])
