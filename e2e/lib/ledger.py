"""Comparing a bucket with what the application wrote: every key, every byte, headers, metadata and tags, and
nothing that should not be there."""

import concurrent.futures
import hashlib

from lib import running

_HEADERS = ("ContentType", "ContentEncoding", "ContentLanguage", "CacheControl", "ContentDisposition")


def differences(client, bucket, ledger, bodies=True, limit=20):
    """What of `ledger` the bucket does not hold exactly; empty when all is as written. At most `limit` lines."""
    listed = {}
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for item in page.get("Contents", []):
            listed[item["Key"]] = item["Size"]
    found = [f"{key}: missing" for key in ledger if key not in listed]
    found += [f"{key}: should not be there" for key in listed if key not in ledger]

    def compare(key):
        want, lines = ledger[key], []
        if bodies:
            got = client.get_object(Bucket=bucket, Key=key)
            digest = hashlib.sha256()
            for piece in got["Body"].iter_chunks(1 << 20):
                digest.update(piece)
            if digest.hexdigest() != want["sha256"]:
                lines.append(f"{key}: other bytes ({got['ContentLength']} of {want['size']})")
        else:
            got = client.head_object(Bucket=bucket, Key=key)
            if got["ContentLength"] != want["size"]:
                lines.append(f"{key}: {got['ContentLength']} bytes instead of {want['size']}")
        for name in _HEADERS:
            have, wish = _plain(name, got.get(name)), want["headers"].get(name)
            # A client that names no type leaves it to the server, and servers choose differently.
            if have != wish and not (name == "ContentType" and wish is None):
                lines.append(f"{key}: {name} is {have!r} instead of {wish!r}")
        if want["metadata"] is not None and got["Metadata"] != want["metadata"]:
            lines.append(f"{key}: metadata is {got['Metadata']} instead of {want['metadata']}")
        if want["tags"] or got.get("TagCount"):
            tags = client.get_object_tagging(Bucket=bucket, Key=key)["TagSet"]
            have = {tag["Key"]: tag["Value"] for tag in tags}
            if have != want["tags"]:
                lines.append(f"{key}: tags are {have} instead of {want['tags']}")
        return lines

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        for lines in pool.map(compare, [key for key in ledger if key in listed]):
            found += lines
    return found[:limit] + ([f"… and {len(found) - limit} more"] if len(found) > limit else [])


def expect_same(client, bucket, ledger, where, bodies=True):
    """Fails with the differences, if there are any."""
    found = differences(client, bucket, ledger, bodies)
    running.expect(not found, f"{where} differs from what was written:\n  " + "\n  ".join(found))


def expect_same_hashes(listing, ledger, where):
    """Compares a `HASH  KEY` listing of some other client with the ledger."""
    have = dict(reversed(line.split(None, 1)) for line in listing.splitlines() if line.strip())
    want = {key: entry["sha256"] for key, entry in ledger.items()}
    wrong = sorted(key for key in have.keys() | want.keys() if have.get(key) != want.get(key))
    running.expect(not wrong, f"{where}: {len(wrong)} of {len(want)} objects differ, first {wrong[:5]}")


def size(ledger):
    """Bytes that the ledger's objects hold."""
    return sum(entry["size"] for entry in ledger.values())


def _plain(name, value):
    """`aws-chunked` is a framing that some servers keep as if it were an encoding of the object."""
    if name != "ContentEncoding" or value is None:
        return value
    return ",".join(token.strip() for token in value.split(",") if token.strip() not in ("aws-chunked", "")) or None
