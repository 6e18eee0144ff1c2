"""What `helm test` runs: makes a namespace, a binding and an annotated pod that writes one object, shows that the
store has it, and removes all of them. Standard library only. The pod runs `put` of this same file."""

import datetime
import hashlib
import hmac
import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
KEY, BODY = "hawser-test/object", b"written by helm test\n"


def api(method, path, body=None, kind="application/json", missing_ok=False):
    """One request to the API server."""
    context = ssl.create_default_context(cafile=f"{ACCOUNT}/ca.crt")
    request = urllib.request.Request(
        f"https://kubernetes.default.svc{path}", json.dumps(body).encode() if body is not None else None,
        {"Authorization": "Bearer " + open(f"{ACCOUNT}/token").read(), "Content-Type": kind}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30, context=context) as answer:
            text = answer.read()
            return json.loads(text) if answer.headers.get_content_type() == "application/json" else text.decode()
    except urllib.error.HTTPError as error:
        if missing_ok and error.code == 404:
            return None
        sys.exit(f"{method} {path}: {error.code} {error.read().decode()[:2000]}")


def until(what, seconds, condition):
    """Waits for a condition, and says what did not come."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > end:
            sys.exit(f"{what}: not within {seconds} s")
        time.sleep(0.5)
    print(f"ok: {what}", flush=True)
    return found


def main():
    """The Job's side."""
    namespace, env = os.environ["TEST_NAMESPACE"], os.environ
    pods = f"/api/v1/namespaces/{namespace}/pods"
    # Remains of a run that was cut short go first.
    if api("GET", f"/api/v1/namespaces/{namespace}", missing_ok=True):
        remove(namespace)
    api("POST", "/api/v1/namespaces", {"metadata": {"name": namespace, "labels": {"hawser.dev/test": "true"}}})
    try:
        api("POST", f"/api/v1/namespaces/{namespace}/secrets", {"metadata": {"name": "keys"}, "stringData": {
            name: env[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}})
        data = {"test.py": open(__file__).read()}
        s3 = {"endpoint": env["TEST_ENDPOINT"], "region": env["TEST_REGION"], "addressing": "Path",
              "credentials": {"secretName": "keys"}}
        if env.get("TEST_CA"):
            data["ca.pem"] = open(env["TEST_CA"]).read()
            s3["ca"] = {"configMapName": "files", "key": "ca.pem"}
        api("POST", f"/api/v1/namespaces/{namespace}/configmaps", {"metadata": {"name": "files"}, "data": data})
        api("POST", f"/apis/hawser.dev/v1alpha1/namespaces/{namespace}/cloudbindings", {
            "apiVersion": "hawser.dev/v1alpha1", "kind": "CloudBinding", "metadata": {"name": "test"}, "spec": {
                "provider": "here", "providers": [{"name": "here", "s3": s3}], "buckets": [{"name": env["TEST_BUCKET"]}]}})
        variables = [{"name": name, "value": env[name]} for name in ("TEST_ENDPOINT", "TEST_REGION", "TEST_BUCKET")]
        secret = [{"name": name, "valueFrom": {"secretKeyRef": {"name": "keys", "key": name}}}
                  for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]
        api("POST", pods, {"metadata": {"name": "writer", "annotations": {"hawser.dev/binding": "test"}}, "spec": {
            "restartPolicy": "Never", "volumes": [{"name": "files", "configMap": {"name": "files"}}], "containers": [{
                "name": "writer", "image": env["TEST_IMAGE"], "command": ["python3", "-u", "/files/test.py", "put"],
                "env": variables + secret, "volumeMounts": [{"name": "files", "mountPath": "/files"}]}]}})
        print("ok: the annotated pod was admitted", flush=True)
        until("the pod wrote an object", 120, lambda: ended(f"{pods}/writer", "writer"))
        until("the binding's ConfigMap is there", 60, lambda: api(
            "GET", f"/api/v1/namespaces/{namespace}/configmaps/hawser-test", missing_ok=True))
        look = (f"for try in $(seq 60); do hawser get --json '{env['TEST_BUCKET']}/{KEY}' -o /tmp/object >/dev/null 2>&1 && "
                f"[ \"$(sha256sum </tmp/object | cut -d' ' -f1)\" = {hashlib.sha256(BODY).hexdigest()} ] && exit 0; "
                f"rm -f /tmp/object; sleep 1; done; hawser get '{env['TEST_BUCKET']}/{KEY}' -o /tmp/last; exit 1")
        api("POST", pods, {"metadata": {"name": "look"}, "spec": {
            "restartPolicy": "Never",
            "containers": [{"name": "look", "image": env["TEST_CLI_IMAGE"], "command": ["sh", "-c", look], "env": [
                {"name": "HAWSER_STORE", "value": env["TEST_STORE"]},
                {"name": "HAWSER_STORE_CA", "value": "/etc/hawser/store-ca.pem"},
                {"name": "HAWSER_TOKEN_FILE", "value": "/var/run/secrets/hawser/token"}],
                "volumeMounts": [{"name": "config", "mountPath": "/etc/hawser"},
                                 {"name": "token", "mountPath": "/var/run/secrets/hawser"}]}],
            "volumes": [{"name": "config", "configMap": {"name": "hawser-test"}},
                        {"name": "token", "projected": {"sources": [
                            {"serviceAccountToken": {"audience": "hawser-store", "path": "token"}}]}}]}})
        until("the store has it, byte for byte", 120, lambda: ended(f"{pods}/look", "look"))
    finally:
        remove(namespace)
    print("Hawser protects pods of this cluster.")


def ended(path, container):
    """Whether a pod succeeded; what it said, where it failed."""
    phase = api("GET", path).get("status", {}).get("phase")
    if phase == "Failed":
        sys.exit("it failed:\n" + str(api("GET", f"{path}/log?container={container}")))
    return phase == "Succeeded"


def remove(namespace):
    """Takes the test's namespace away: only one that carries the test's label."""
    found = api("GET", f"/api/v1/namespaces/{namespace}", missing_ok=True)
    if not found:
        return
    if found["metadata"].get("labels", {}).get("hawser.dev/test") != "true":
        sys.exit(f"namespace {namespace} is there and not the test's: remove it, or it stays in the way")
    api("DELETE", f"/api/v1/namespaces/{namespace}", missing_ok=True)
    until(f"namespace {namespace} is gone", 120, lambda: not api("GET", f"/api/v1/namespaces/{namespace}", missing_ok=True))


def put():
    """The application's side: writes one object, reads it back, deletes nothing."""
    for method, body in (("PUT", BODY), ("GET", b"")):
        answer = s3(method, f"/{os.environ['TEST_BUCKET']}/{KEY}", body)
    if answer != BODY:
        sys.exit(f"read back {answer!r}")


def s3(method, path, body):
    """One request, signed as S3 wants it (Signature Version 4)."""
    env = os.environ
    host = urllib.parse.urlsplit(env["TEST_ENDPOINT"]).netloc
    now = datetime.datetime.now(datetime.timezone.utc)
    stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    digest = hashlib.sha256(body).hexdigest()
    headers = {"host": host, "x-amz-content-sha256": digest, "x-amz-date": stamp}
    names = ";".join(sorted(headers))
    request = "\n".join([method, urllib.parse.quote(path), "", *(f"{name}:{headers[name]}" for name in sorted(headers)), "",
                         names, digest])
    scope = f"{day}/{env['TEST_REGION']}/s3/aws4_request"
    key = ("AWS4" + env["AWS_SECRET_ACCESS_KEY"]).encode()
    for word in (day, env["TEST_REGION"], "s3", "aws4_request"):
        key = hmac.digest(key, word.encode(), "sha256")
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(request.encode()).hexdigest()])
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    headers["authorization"] = (f"AWS4-HMAC-SHA256 Credential={env['AWS_ACCESS_KEY_ID']}/{scope}, "
                                f"SignedHeaders={names}, Signature={signature}")
    wire = urllib.request.Request(env["TEST_ENDPOINT"] + urllib.parse.quote(path), body if method == "PUT" else None,
                                  {**headers, "content-type": "text/plain"}, method=method)
    with urllib.request.urlopen(wire, timeout=30) as answer:
        return answer.read()


put() if sys.argv[1:] == ["put"] else main()
