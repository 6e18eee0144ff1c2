import java.net.URI;
import java.security.MessageDigest;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Random;
import java.io.ByteArrayInputStream;
import software.amazon.awssdk.core.sync.RequestBody;
import software.amazon.awssdk.http.ContentStreamProvider;
import software.amazon.awssdk.services.s3.S3Client;
import software.amazon.awssdk.services.s3.model.CompletedPart;
import software.amazon.awssdk.services.s3.model.Tag;

/** A Java application: the AWS SDK as it comes, told an endpoint and nothing else. Prints what it leaves behind. */
class Client {
    private static final Map<String, String> LEFT = new LinkedHashMap<>();

    public static void main(String[] args) throws Exception {
        String bucket = args[0], prefix = args[1];
        try (S3Client s3 = S3Client.builder().endpointOverride(URI.create(System.getenv("AWS_ENDPOINT_URL")))
                .forcePathStyle(true).build()) {
            byte[] bytes = random(300_000, 1);
            s3.putObject(r -> r.bucket(bucket).key(prefix + "/bytes").metadata(Map.of("from", "java")), RequestBody.fromBytes(bytes));
            wrote(prefix + "/bytes", bytes, "\"from\": \"java\"", "");

            byte[] streamed = random(2_000_003, 2);
            s3.putObject(r -> r.bucket(bucket).key(prefix + "/stream"), RequestBody.fromContentProvider(
                    ContentStreamProvider.fromInputStreamSupplier(() -> new ByteArrayInputStream(streamed)), "application/octet-stream"));
            wrote(prefix + "/stream", streamed, "", "");

            byte[] first = random(5 << 20, 3), second = random(77_777, 4);
            String upload = s3.createMultipartUpload(r -> r.bucket(bucket).key(prefix + "/parts")).uploadId();
            String one = s3.uploadPart(r -> r.bucket(bucket).key(prefix + "/parts").uploadId(upload).partNumber(1), RequestBody.fromBytes(first)).eTag();
            String two = s3.uploadPart(r -> r.bucket(bucket).key(prefix + "/parts").uploadId(upload).partNumber(2), RequestBody.fromBytes(second)).eTag();
            s3.completeMultipartUpload(r -> r.bucket(bucket).key(prefix + "/parts").uploadId(upload).multipartUpload(m -> m.parts(
                    CompletedPart.builder().partNumber(1).eTag(one).build(), CompletedPart.builder().partNumber(2).eTag(two).build())));
            byte[] whole = Arrays.copyOf(first, first.length + second.length);
            System.arraycopy(second, 0, whole, first.length, second.length);
            wrote(prefix + "/parts", whole, "", "");

            s3.copyObject(r -> r.sourceBucket(bucket).sourceKey(prefix + "/bytes").destinationBucket(bucket).destinationKey(prefix + "/copy"));
            s3.putObjectTagging(r -> r.bucket(bucket).key(prefix + "/copy")
                    .tagging(t -> t.tagSet(Tag.builder().key("language").value("java").build())));
            wrote(prefix + "/copy", bytes, "\"from\": \"java\"", "\"language\": \"java\"");

            s3.putObject(r -> r.bucket(bucket).key(prefix + "/gone"), RequestBody.fromString("x"));
            s3.deleteObject(r -> r.bucket(bucket).key(prefix + "/gone"));

            same(s3.getObjectAsBytes(r -> r.bucket(bucket).key(prefix + "/stream")).asByteArray(), streamed);
            same(s3.getObjectAsBytes(r -> r.bucket(bucket).key(prefix + "/parts").range("bytes=5000000-5300000")).asByteArray(),
                    Arrays.copyOfRange(whole, 5_000_000, Math.min(5_300_001, whole.length)));
        }
        StringBuilder out = new StringBuilder("{");
        LEFT.forEach((key, entry) -> out.append(out.length() > 1 ? ", " : "").append('"').append(key).append("\": ").append(entry));
        System.out.println(out.append('}'));
    }

    private static byte[] random(int size, int seed) {
        byte[] bytes = new byte[size];
        new Random(seed).nextBytes(bytes);
        return bytes;
    }

    private static void same(byte[] have, byte[] want) {
        if (!Arrays.equals(have, want)) {
            throw new IllegalStateException("an object reads otherwise than written");
        }
    }

    private static void wrote(String key, byte[] body, String metadata, String tags) throws Exception {
        String hash = HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(body));
        LEFT.put(key, "{\"sha256\": \"" + hash + "\", \"size\": " + body.length + ", \"headers\": {}, \"metadata\": {" + metadata
                + "}, \"tags\": {" + tags + "}}");
    }
}
