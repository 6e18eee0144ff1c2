// A JavaScript application: the AWS SDK as it comes, told an endpoint and nothing else. Writes, reads back and
// prints one JSON line per object that it leaves behind.
import { createHash, randomBytes } from "node:crypto";
import { Readable } from "node:stream";
import {
  CopyObjectCommand, DeleteObjectCommand, GetObjectCommand, PutObjectCommand, PutObjectTaggingCommand, S3Client,
} from "@aws-sdk/client-s3";
import { Upload } from "@aws-sdk/lib-storage";

const [bucket, prefix] = process.argv.slice(2);
const s3 = new S3Client({ forcePathStyle: true });
const left = new Map();

function wrote(key, body, metadata = {}, tags = {}) {
  left.set(key, { sha256: createHash("sha256").update(body).digest("hex"), size: body.length, headers: {}, metadata, tags });
}

async function read(key, range) {
  const answer = await s3.send(new GetObjectCommand({ Bucket: bucket, Key: key, Range: range }));
  return Buffer.from(await answer.Body.transformToByteArray());
}

function same(have, want, what) {
  if (!have.equals(want)) throw new Error(`${what} reads otherwise than written`);
}

const bytes = randomBytes(300_000);
await s3.send(new PutObjectCommand({ Bucket: bucket, Key: `${prefix}/bytes`, Body: bytes, Metadata: { from: "javascript" } }));
wrote(`${prefix}/bytes`, bytes, { from: "javascript" });

const large = randomBytes(12_000_001);
await new Upload({ client: s3, params: { Bucket: bucket, Key: `${prefix}/stream`, Body: Readable.from([large]) } }).done();
wrote(`${prefix}/stream`, large);

await s3.send(new CopyObjectCommand({ Bucket: bucket, Key: `${prefix}/copy`, CopySource: `${bucket}/${prefix}/bytes` }));
wrote(`${prefix}/copy`, bytes, { from: "javascript" });

await s3.send(new PutObjectTaggingCommand({
  Bucket: bucket, Key: `${prefix}/copy`, Tagging: { TagSet: [{ Key: "language", Value: "javascript" }] },
}));
left.get(`${prefix}/copy`).tags = { language: "javascript" };

await s3.send(new PutObjectCommand({ Bucket: bucket, Key: `${prefix}/gone`, Body: "x" }));
await s3.send(new DeleteObjectCommand({ Bucket: bucket, Key: `${prefix}/gone` }));

same(await read(`${prefix}/bytes`), bytes, "bytes");
same(await read(`${prefix}/stream`, "bytes=5000000-6000000"), large.subarray(5_000_000, 6_000_001), "a range");
console.log(JSON.stringify(Object.fromEntries(left)));
