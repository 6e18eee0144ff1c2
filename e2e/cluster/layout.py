"""One folder becomes one OCI image in a tar, without an engine: `layout.py NAME FOLDER OUT ENTRYPOINT…`."""

import hashlib
import io
import json
import sys
import tarfile


def _blob(out, content):
    digest = hashlib.sha256(content).hexdigest()
    _file(out, f"blobs/sha256/{digest}", content)
    return {"digest": f"sha256:{digest}", "size": len(content)}


def _file(out, name, content):
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    out.addfile(entry, io.BytesIO(content))


def main(name, folder, target, *entrypoint):
    """Writes the image `name` with the one layer `folder`."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as files:
        files.add(folder, arcname=".")
    kind = "application/vnd.oci.image"
    with tarfile.open(target, "w") as out:
        layer_blob = _blob(out, layer.getvalue())
        config = _blob(out, json.dumps({
            "architecture": "amd64", "os": "linux", "config": {"Entrypoint": list(entrypoint)},
            "rootfs": {"type": "layers", "diff_ids": [layer_blob["digest"]]}}).encode())
        manifest = _blob(out, json.dumps({
            "schemaVersion": 2, "mediaType": f"{kind}.manifest.v1+json",
            "config": {"mediaType": f"{kind}.config.v1+json", **config},
            "layers": [{"mediaType": f"{kind}.layer.v1.tar", **layer_blob}]}).encode())
        _file(out, "index.json", json.dumps({"schemaVersion": 2, "manifests": [{
            "mediaType": f"{kind}.manifest.v1+json", **manifest,
            "annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}}]}).encode())
        _file(out, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')


if __name__ == "__main__":
    main(*sys.argv[1:])
