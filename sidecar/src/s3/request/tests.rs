#![allow(clippy::unwrap_used)]
use bytes::Bytes;
use hawser_api::ObjectKey;

use super::*;

fn object() -> Object {
    Object { bucket: "b".into(), key: ObjectKey::from_bytes("k") }
}

fn ask(line: &str, fields: &str) -> Request {
    let head = RequestHead::parse(&Bytes::from(format!("{line} HTTP/1.1\r\n{fields}\r\n"))).unwrap();
    let (path, query) = std::str::from_utf8(&head.target)
        .unwrap()
        .split_once('?')
        .map_or((line.split_once(' ').unwrap().1, ""), |halves| halves);
    let name = match path {
        "/" => Name::Service,
        "/b" => Name::Bucket("b".into()),
        "/?" => Name::Unknown,
        _ => Name::Object("b".into(), ObjectKey::from_bytes("k")),
    };
    request(&head, &Target { name, query: Query::parse(query.as_bytes()) })
}

fn written(line: &str, fields: &str) -> String {
    match ask(line, fields) {
        Request::Write(place, ask) => format!("{ask:?} {:?}", place.scope()),
        Request::Other => "-".into(),
        Request::List(_) => "List".into(),
        Request::Get(_, asked) => format!("Get {}{}", asked.version.is_some(), asked.part.is_some()),
        Request::Head(_, asked) => format!("Head {}{}", asked.version.is_some(), asked.part.is_some()),
    }
}

#[test]
fn every_request_is_one_operation() {
    let form = "Content-Type: multipart/form-data; boundary=x\r\n";
    let rows = [
        ("GET /", "", "-"),
        ("POST /", "", "-"),
        ("GET /b", "", "List"),
        ("GET /b?list-type=2&prefix=a&encoding-type=url&x-id=ListObjectsV2", "", "List"),
        ("GET /b?versions", "", "List"),
        ("GET /b?uploads", "", "-"),
        ("GET /b?session", "", "-"),
        ("GET /b?location", "", "-"),
        ("HEAD /b", "", "-"),
        ("PUT /b", "", "CreateBucket Bucket"),
        ("PUT /b?versioning", "", "-"),
        ("PUT /b?inventory&id=1", "", "-"),
        ("PUT /b?frobnicate", "", "Unsupported Bucket"),
        ("DELETE /b", "", "DeleteBucket Bucket"),
        ("DELETE /b?policy", "", "-"),
        ("POST /b?delete", "", "DeleteMany Bucket"),
        ("POST /b?delete=", "", "DeleteMany Bucket"),
        ("POST /b", form, "Form Bucket"),
        ("POST /b", "", "Unsupported Bucket"),
        ("GET /b/k", "", "Get falsefalse"),
        ("GET /b/k?versionId=1&partNumber=2", "", "Get truetrue"),
        ("GET /b/k?X-Amz-Signature=0&X-Amz-Algorithm=0", "", "Get falsefalse"),
        ("GET /b/k?tagging", "", "-"),
        ("GET /b/k?uploadId=u", "", "-"),
        ("GET /b/k?x-oss-process=image", "", "-"),
        ("HEAD /b/k", "", "Head falsefalse"),
        ("OPTIONS /b/k", "", "-"),
        ("PUT /b/k", "", "Put Key"),
        ("PUT /b/k?x-id=PutObject", "", "Put Key"),
        ("PUT /b/k?AWSAccessKeyId=a&Signature=b&Expires=1", "", "Put Key"),
        (
            "PUT /b/k?X-Amz-Credential=0&x-amz-sdk-checksum-algorithm=CRC32&x-amz-checksum-crc32=AAAAAA%3D%3D",
            "",
            "Put Key",
        ),
        ("PUT /b/k?x-amz-acl=public-read", "", "Unsupported Key"),
        ("PUT /b/k?x-amz-meta-a=1", "", "Unsupported Key"),
        ("PUT /b/k?partNumber=2&uploadId=u", "", "PutPart(UploadId(\"u\"), PartNumber(2)) Key"),
        ("PUT /b/k?uploadId=u&x-id=UploadPart&partNumber=10000", "", "PutPart(UploadId(\"u\"), PartNumber(10000)) Key"),
        ("PUT /b/k?partNumber=0&uploadId=u", "", "Unsupported Key"),
        ("PUT /b/k?partNumber=10001&uploadId=u", "", "Unsupported Key"),
        ("PUT /b/k?tagging", "", "PutTags(None) Key"),
        ("PUT /b/k?tagging&versionId=1", "", "PutTags(Some(VersionId(\"1\"))) Version"),
        ("DELETE /b/k?tagging", "", "DeleteTags(None) Key"),
        ("PUT /b/k?acl", "", "PutAcl(None) Key"),
        ("PUT /b/k?retention", "", "PutRetention(None) Key"),
        ("PUT /b/k?legal-hold", "", "PutLegalHold(None) Key"),
        ("PUT /b/k?renameObject", "x-amz-rename-source: a\r\n", "Unsupported Bucket"),
        ("PUT /b/k?frobnicate", "", "Unsupported Key"),
        ("PUT /b/k", "x-amz-write-offset-bytes: 5\r\n", "Unsupported Key"),
        ("PUT /b/k", "x-amz-meta-snowball-auto-extract: true\r\n", "Unsupported Bucket"),
        ("POST /b/k?uploads", "", "CreateMultipart Key"),
        ("POST /b/k?uploads=", "", "CreateMultipart Key"),
        ("POST /b/k?uploadId=u", "", "CompleteMultipart(UploadId(\"u\")) Key"),
        ("POST /b/k?restore", "", "-"),
        ("POST /b/k?select&select-type=2", "", "-"),
        ("DELETE /b/k", "", "Delete(None) Key"),
        ("DELETE /b/k?versionId=null", "", "Delete(Some(VersionId(\"null\"))) Version"),
        ("DELETE /b/k?uploadId=u", "", "AbortMultipart(UploadId(\"u\")) Key"),
        ("DELETE /b/k", "x-minio-force-delete: true\r\n", "Unsupported Bucket"),
        ("PATCH /b/k", "", "Unsupported Key"),
    ];
    for (line, fields, wanted) in rows {
        assert_eq!(written(line, fields), wanted, "{line} {fields}");
    }
}

#[test]
fn a_copy_names_its_source_or_is_not_understood() {
    let source = |bucket: &str, key: &str, version: Option<&str>| {
        Some(Source {
            object: Object { bucket: bucket.into(), key: ObjectKey::from_bytes(key) },
            version: version.map(|id| VersionId(id.into())),
        })
    };
    let rows = [
        ("/src/a%20b", source("src", "a b", None)),
        ("src/a//b/", source("src", "a//b/", None)),
        ("src%2Fa%2Fb", source("src", "a/b", None)),
        ("src/a%3FversionId=1", source("src", "a?versionId=1", None)),
        ("src/a?versionId=V%2B1", source("src", "a", Some("V+1"))),
        ("src/a%2Bb", source("src", "a+b", None)),
        ("src/a+b", None),
        ("arn:aws:s3:eu-central-1:1:accesspoint/p/object/k", None),
        ("src", None),
        ("/src/", None),
    ];
    for (text, wanted) in rows {
        assert_eq!(copy_source(text, None).map(|copy| copy.source), wanted, "{text}");
    }
    assert_eq!(copy_source("s/k", Some("bytes=0-99")).and_then(|copy| copy.range), Some((0, 99)));
    assert_eq!(copy_source("s/k", Some("0-99")), None);
}

#[test]
fn directives_are_of_the_source_unless_replaced() {
    let Request::Write(_, Ask::Copy(Some(_), metadata, tagging)) =
        ask("PUT /b/k", "x-amz-copy-source: s/k\r\nx-amz-metadata-directive: replace\r\n")
    else {
        panic!("a copy")
    };
    assert_eq!((metadata, tagging), (Directive::FromRequest, Directive::FromSource));
    assert_eq!(object().bucket, "b");
}
