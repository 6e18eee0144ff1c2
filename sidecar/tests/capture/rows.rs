//! The traps of the wire, one row each: what is said on the connection, and what must be told of it.

use super::{Act, observer, play, told};
use hawser_sidecar::tee::Side;

fn c(text: &str) -> Act {
    Act::Says(Side::Client, text.as_bytes().to_vec())
}

fn s(text: &str) -> Act {
    Act::Says(Side::Cloud, text.as_bytes().to_vec())
}

/// A request with that line's method and target, those fields, and a body with its length.
fn ask(line: &str, fields: &str, body: &str) -> Act {
    c(&format!("{line} HTTP/1.1\r\nHost: cloud.test\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len()))
}

fn answer(status: u16, fields: &str, body: &str) -> Act {
    s(&format!("HTTP/1.1 {status} X\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len()))
}

fn ok() -> Act {
    answer(200, "ETag: \"e\"\r\n", "")
}

fn drops(side: Side, len: usize) -> Act {
    Act::Drops(side, len)
}

fn ends() -> [Act; 2] {
    [Act::Ends(Side::Client, true), Act::Ends(Side::Cloud, true)]
}

fn check(rows: Vec<(&str, Vec<Act>, &str)>) {
    for (trap, acts, wanted) in rows {
        let seen = told(&play(observer("http://cloud.test", 80), &acts, |_| usize::MAX));
        assert_eq!(
            seen.lines().map(str::trim).collect::<Vec<_>>(),
            wanted.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>(),
            "{trap}"
        );
    }
}

const STREAMED: &str =
    "x-amz-content-sha256: STREAMING-AWS4-HMAC-SHA256-PAYLOAD\r\nx-amz-decoded-content-length: 9\r\n";
const TRAILED: &str = "x-amz-content-sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER\r\nx-amz-decoded-content-length: 9\r\nx-amz-trailer: x-amz-checksum-crc32\r\n";
const FRAMES: &str = "4;chunk-signature=0\r\n1234\r\n5;chunk-signature=0\r\n56789\r\n0;chunk-signature=0\r\n\r\n";
const TRAILER_FRAMES: &str = "9\r\n123456789\r\n0\r\nx-amz-checksum-crc32:y/Q5Jg==\r\n\r\n";

fn chunked(text: &str) -> String {
    let (one, two) = text.split_at(text.len() / 2);
    format!("{:x}\r\n{one}\r\n{:x}\r\n{two}\r\n0\r\n\r\n", one.len(), two.len())
}

#[test]
fn a_put_is_recorded_in_every_framing_of_its_body() {
    let put = "began0 Put b/k length 9\nbody0 123456789\ndone0 Put b/k length 9 \"e\"";
    check(vec![
        ("plain", vec![ask("PUT /b/k", "", "123456789"), ok()], put),
        (
            "chunked",
            vec![
                c(&format!(
                    "PUT /b/k HTTP/1.1\r\nHost: cloud.test\r\nTransfer-Encoding: chunked\r\n\r\n{}",
                    chunked("123456789")
                )),
                ok(),
            ],
            "began0 Put b/k\nbody0 123456789\ndone0 Put b/k length 9 \"e\"",
        ),
        ("aws-chunked, signed, with its length", vec![ask("PUT /b/k", STREAMED, FRAMES), ok()], put),
        (
            "aws-chunked, ECDSA",
            vec![ask("PUT /b/k", &STREAMED.replace("HMAC-SHA256", "ECDSA-P256-SHA256"), FRAMES), ok()],
            put,
        ),
        (
            "aws-chunked inside chunked",
            vec![
                c(&format!(
                    "PUT /b/k HTTP/1.1\r\nHost: cloud.test\r\n{STREAMED}Transfer-Encoding: chunked\r\n\r\n{}",
                    chunked(FRAMES)
                )),
                ok(),
            ],
            put,
        ),
        (
            "unsigned with a trailer, with its length",
            vec![ask("PUT /b/k", TRAILED, TRAILER_FRAMES), ok()],
            &format!("{put} x-amz-checksum-crc32=y/Q5Jg=="),
        ),
        (
            "unsigned with a trailer, inside chunked",
            vec![
                c(&format!(
                    "PUT /b/k HTTP/1.1\r\nHost: cloud.test\r\n{TRAILED}Transfer-Encoding: chunked\r\n\r\n{}",
                    chunked(TRAILER_FRAMES)
                )),
                ok(),
            ],
            &format!("{put} x-amz-checksum-crc32=y/Q5Jg=="),
        ),
        (
            "gzip,aws-chunked",
            vec![ask("PUT /b/k", &format!("{STREAMED}Content-Encoding: gzip,aws-chunked\r\n"), FRAMES), ok()],
            &format!("{put} content-encoding=gzip"),
        ),
        (
            "aws-chunked named, body plain",
            vec![
                ask(
                    "PUT /b/k",
                    "Content-Encoding: aws-chunked\r\nx-amz-content-sha256: UNSIGNED-PAYLOAD\r\n",
                    "123456789",
                ),
                ok(),
            ],
            put,
        ),
        ("empty", vec![ask("PUT /b/k/", "", ""), ok()], "began0 Put b/k/ length 0\ndone0 Put b/k/ length 0 \"e\""),
        (
            "100 and then the body",
            vec![
                c("PUT /b/k HTTP/1.1\r\nHost: cloud.test\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n"),
                s("HTTP/1.1 100 Continue\r\n\r\n"),
                c("123456789"),
                ok(),
            ],
            put,
        ),
        (
            "virtual-hosted",
            vec![c("PUT /k HTTP/1.1\r\nHost: b.cloud.test\r\nContent-Length: 9\r\n\r\n123456789"), ok()],
            put,
        ),
        (
            "absolute target",
            vec![c("PUT http://b.cloud.test/k HTTP/1.1\r\nHost: other\r\nContent-Length: 9\r\n\r\n123456789"), ok()],
            put,
        ),
        (
            "answer of HTTP/1.0, closing",
            vec![ask("PUT /b/k", "", "123456789"), s("HTTP/1.0 200 OK\r\nETag: \"e\"\r\n\r\n")],
            put,
        ),
    ]);
}

#[test]
fn nothing_is_recorded_before_a_yes_to_a_whole_body() {
    let began = "began0 Put b/k length 4\n";
    let expecting = c("PUT /b/k HTTP/1.1\r\nHost: cloud.test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    let open = |body: &str| c(&format!("PUT /b/k HTTP/1.1\r\nHost: cloud.test\r\nContent-Length: 4\r\n\r\n{body}"));
    let streaming =
        |body: &str| c(&format!("PUT /b/k HTTP/1.1\r\nHost: cloud.test\r\nTransfer-Encoding: chunked\r\n\r\n{body}"));
    // Without the end of the chunked coding.
    let trailed = |frames: &str| {
        c(&format!(
            "PUT /b/k HTTP/1.1\r\nHost: cloud.test\r\n{TRAILED}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{frames}\r\n",
            frames.len()
        ))
    };
    check(vec![
        ("412 instead of 100, next request", vec![expecting.clone(), answer(412, "", ""), ask("PUT /b/l", "", "x"), ok()], &format!("{began}refused0\nbegan1 Put b/l length 1\nbody1 x\ndone1 Put b/l length 1 \"e\"")),
        ("200 before the end", vec![open("ab"), ok(), c("cd")], &format!("{began}body0 ab\ngap0 EarlyAnswer b/k \"e\"")),
        ("200 before the end of the coding around a whole body", vec![trailed(TRAILER_FRAMES), ok(), c("0\r\n\r\n"), ask("DELETE /b/k", "", ""), answer(204, "", "")], "began0 Put b/k length 9\nbody0 123456789\ndone0 Put b/k length 9 \"e\" x-amz-checksum-crc32=y/Q5Jg==\nbegan1 Delete b/k\ndone1 Delete b/k"),
        ("200 before the trailer that was announced", vec![trailed("9\r\n123456789\r\n0\r\n"), ok()], "began0 Put b/k length 9\nbody0 123456789\ngap0 EarlyAnswer b/k \"e\""),
        ("500 before the end of the coding around a whole body", vec![trailed(TRAILER_FRAMES), answer(500, "", "")], "began0 Put b/k length 9\nbody0 123456789\ngap0 OutcomeUnknown b/k"),
        ("403 before the end", vec![open("ab"), answer(403, "", ""), c("cd")], &format!("{began}body0 ab\nrefused0")),
        ("412", vec![open("abcd"), answer(412, "", "")], &format!("{began}body0 abcd\nrefused0")),
        ("409", vec![open("abcd"), answer(409, "", "")], &format!("{began}body0 abcd\nrefused0")),
        ("307", vec![open("abcd"), answer(307, "Location: /\r\n", "")], &format!("{began}body0 abcd\nrefused0")),
        ("500", vec![open("abcd"), answer(500, "", "")], &format!("{began}body0 abcd\ngap0 OutcomeUnknown b/k")),
        ("500 before the end", vec![open("ab"), answer(500, "", "")], &format!("{began}body0 ab\nrefused0")),
        ("reset within the body", [vec![open("ab")], ends().to_vec()].concat(), &format!("{began}body0 ab\nrefused0")),
        ("reset within a chunked body", [vec![streaming("2\r\nab\r\n")], ends().to_vec()].concat(), "began0 Put b/k\nbody0 ab\ngap0 OutcomeUnknown b/k"),
        ("reset within a chunked body of known length", [vec![c("PUT /b/k HTTP/1.1\r\nHost: cloud.test\r\nx-amz-decoded-content-length: 4\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")], ends().to_vec()].concat(), &format!("{began}body0 ab\nrefused0")),
        ("no answer", [vec![open("abcd")], ends().to_vec()].concat(), &format!("{began}body0 abcd\ngap0 OutcomeUnknown b/k")),
        ("no answer to a delete", [vec![ask("DELETE /b/k", "", "")], ends().to_vec()].concat(), "began0 Delete b/k\ngap0 OutcomeUnknown b/k"),
        ("no answer, copy lost", vec![open("abcd"), Act::Gone], &format!("{began}body0 abcd\ngap0 OutcomeUnknown b/k\nunparsed Overflow")),
        ("no ETag", vec![open("abcd"), answer(200, "", "")], &format!("{began}body0 abcd\ngap0 Malformed b/k")),
        ("answered with garbage", vec![open("abcd"), s("GARBAGE\r\n\r\n")], &format!("{began}body0 abcd\ngap0 OutcomeUnknown b/k\nunparsed Unparsed")),
        ("upgraded instead", vec![open("abcd"), s("HTTP/1.1 101 X\r\nUpgrade: x\r\n\r\n")], &format!("{began}body0 abcd\ngap0 OutcomeUnknown b/k")),
        ("a retry is a write of its own", vec![open("abcd"), answer(503, "", ""), open("abcd"), ok()], &format!("{began}body0 abcd\ngap0 OutcomeUnknown b/k\nbegan1 Put b/k length 4\nbody1 abcd\ndone1 Put b/k length 4 \"e\"")),
    ]);
}

#[test]
fn content_that_is_not_what_was_announced_is_a_gap() {
    let aws = |frames: &str| ask("PUT /b/k", STREAMED, frames);
    check(vec![
        (
            "wrong checksum, yes",
            vec![ask("PUT /b/k", "x-amz-checksum-crc32: AAAAAA==\r\n", "x"), ok()],
            "began0 Put b/k length 1\nbody0 x\nbody lost0 ChecksumMismatch\ngap0 ChecksumMismatch b/k \"e\"",
        ),
        (
            "wrong checksum, no",
            vec![ask("PUT /b/k", "x-amz-checksum-crc32: AAAAAA==\r\n", "x"), answer(400, "", "")],
            "began0 Put b/k length 1\nbody0 x\nbody lost0 ChecksumMismatch\nrefused0",
        ),
        (
            "wrong checksum in the trailer",
            vec![ask("PUT /b/k", TRAILED, &TRAILER_FRAMES.replace("y/Q5Jg", "AAAAAA")), ok()],
            "began0 Put b/k length 9\nbody0 123456789\nbody lost0 ChecksumMismatch\ngap0 ChecksumMismatch b/k \"e\"",
        ),
        (
            "wrong MD5",
            vec![ask("PUT /b/k", "Content-MD5: AAAAAAAAAAAAAAAAAAAAAA==\r\n", "x"), ok()],
            "began0 Put b/k length 1\nbody0 x\nbody lost0 ChecksumMismatch\ngap0 ChecksumMismatch b/k \"e\"",
        ),
        (
            "shorter than decoded length",
            vec![aws("4\r\n1234\r\n0\r\n\r\n"), ok()],
            "began0 Put b/k length 9\nbody0 1234\nbody lost0 ChecksumMismatch\ngap0 ChecksumMismatch b/k \"e\"",
        ),
        (
            "no frames",
            vec![aws("123456789 no frames"), ok()],
            "began0 Put b/k length 9\nbody lost0 Malformed\ngap0 Malformed b/k \"e\"",
        ),
        (
            "no last frame",
            vec![aws("9\r\n123456789\r\n"), ok()],
            "began0 Put b/k length 9\nbody0 123456789\nbody lost0 Malformed\ngap0 Malformed b/k \"e\"",
        ),
        (
            "cloud kept another length",
            vec![ask("PUT /b/k", "", "x"), answer(200, "ETag: \"e\"\r\nx-amz-object-size: 5\r\n", "")],
            "began0 Put b/k length 1\nbody0 x\ngap0 ChecksumMismatch b/k \"e\"",
        ),
    ]);
}

#[test]
fn dropped_bytes_lose_their_exchange_and_no_other() {
    let put = |body: &str| c(&format!("PUT /b/k HTTP/1.1\r\nHost: cloud.test\r\nContent-Length: 9\r\n\r\n{body}"));
    let next = "began1 Delete b/k\ndone1 Delete b/k";
    check(vec![
        (
            "inside a body",
            vec![put("123"), drops(Side::Client, 3), c("789"), ok(), ask("DELETE /b/k", "", ""), answer(204, "", "")],
            &format!("began0 Put b/k length 9\nbody0 123\nbody lost0 Overflow\ngap0 Overflow b/k \"e\"\n{next}"),
        ),
        (
            "inside a body, refused",
            vec![put(""), drops(Side::Client, 9), answer(403, "", ""), ask("DELETE /b/k", "", ""), answer(204, "", "")],
            &format!("began0 Put b/k length 9\nbody lost0 Overflow\nrefused0\n{next}"),
        ),
        (
            "past a body",
            vec![put("123"), drops(Side::Client, 7)],
            "began0 Put b/k length 9\nbody0 123\nbody lost0 Overflow\ngap0 OutcomeUnknown b/k\nunparsed Overflow",
        ),
        (
            "inside aws-chunked",
            vec![
                c(&format!(
                    "PUT /b/k HTTP/1.1\r\nHost: cloud.test\r\n{STREAMED}Content-Length: {}\r\n\r\n",
                    FRAMES.len()
                )),
                drops(Side::Client, FRAMES.len()),
                ok(),
                ask("DELETE /b/k", "", ""),
                answer(204, "", ""),
            ],
            &format!("began0 Put b/k length 9\nbody lost0 Overflow\ngap0 Overflow b/k \"e\"\n{next}"),
        ),
        (
            "inside a read",
            vec![
                ask("GET /b/k", "", ""),
                s("HTTP/1.1 200 X\r\nETag: \"e\"\r\nContent-Length: 4\r\n\r\nab"),
                drops(Side::Cloud, 2),
                ask("DELETE /b/k", "", ""),
                answer(204, "", ""),
            ],
            &format!(
                "sighted0 Get b/k \"e\" size 4\nreads0 b/k all 4 \"e\"\nbody0 ab\nbody lost0 Overflow\nread0 cut\n{next}"
            ),
        ),
        (
            "inside a Complete's answer",
            vec![
                ask("POST /b/k?uploadId=u", "", COMPLETE),
                s("HTTP/1.1 200 X\r\nContent-Length: 40\r\n\r\n"),
                drops(Side::Cloud, 40),
                ask("DELETE /b/k", "", ""),
                answer(204, "", ""),
            ],
            &format!("began0 CompleteMultipart b/k of u\ngap0 Overflow b/k\n{next}"),
        ),
        (
            "inside a Complete",
            vec![
                c("POST /b/k?uploadId=u HTTP/1.1\r\nHost: cloud.test\r\nContent-Length: 40\r\n\r\n"),
                drops(Side::Client, 40),
                answer(200, "", "<CompleteMultipartUploadResult><ETag>e-1</ETag></CompleteMultipartUploadResult>"),
                ask("DELETE /b/k", "", ""),
                answer(204, "", ""),
            ],
            &format!("began0 CompleteMultipart b/k of u\ngap0 Overflow b/k\n{next}"),
        ),
    ]);
}

const COMPLETE: &str =
    "<CompleteMultipartUpload><Part><PartNumber>2</PartNumber><ETag>\"x\"</ETag></Part></CompleteMultipartUpload>";

#[test]
fn an_upload_is_followed_from_its_beginning_to_its_end() {
    let complete = |answers: Act| vec![ask("POST /b/k?uploadId=u", "", COMPLETE), answers];
    let streamed = |body: &str| s(&format!("HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n{}", chunked(body)));
    check(vec![
        (
            "create",
            vec![
                ask("POST /b/k?uploads", "Content-Type: a/b\r\nx-amz-meta-a: 1\r\n", ""),
                answer(
                    200,
                    "",
                    "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>",
                ),
            ],
            "began0 CreateMultipart b/k\ndone0 CreateMultipart b/k u content-type=a/b x-amz-meta-a=1",
        ),
        (
            "create, unreadable",
            vec![ask("POST /b/k?uploads", "", ""), answer(200, "", "<html>")],
            "began0 CreateMultipart b/k\ngap0 Malformed b/k",
        ),
        (
            "part",
            vec![ask("PUT /b/k?partNumber=2&uploadId=u", "", "abc"), ok()],
            "began0 PutPart b/k of u#2 length 3\nbody0 abc\ndone0 PutPart b/k u#2 length 3 \"e\"",
        ),
        (
            "part copy",
            vec![
                ask(
                    "PUT /b/k?partNumber=2&uploadId=u",
                    "x-amz-copy-source: /s/a%20b?versionId=1\r\nx-amz-copy-source-range: bytes=0-9\r\n",
                    "",
                ),
                answer(
                    200,
                    "x-amz-copy-source-version-id: 1\r\n",
                    "<CopyPartResult><ETag>&quot;p&quot;</ETag></CopyPartResult>",
                ),
            ],
            "began0 CopyPart b/k of u#2\ndone0 CopyPart b/k u#2 \"p\" from s/a b@1 Some((0, 9))",
        ),
        (
            "complete",
            complete(answer(
                200,
                "x-amz-version-id: v\r\n",
                "<CompleteMultipartUploadResult><ETag>\"e-1\"</ETag><ChecksumCRC32>AA==</ChecksumCRC32><ChecksumType>COMPOSITE</ChecksumType></CompleteMultipartUploadResult>",
            )),
            "began0 CompleteMultipart b/k of u\ndone0 Complete b/k u [2=x] \"e-1\"@v x-amz-checksum-crc32=AA== x-amz-checksum-type=COMPOSITE",
        ),
        (
            "complete, kept alive with white space",
            complete(streamed(
                "  \n \n<?xml version=\"1.0\"?><CompleteMultipartUploadResult><ETag>e-1</ETag></CompleteMultipartUploadResult>",
            )),
            "began0 CompleteMultipart b/k of u\ndone0 Complete b/k u [2=x] \"e-1\"",
        ),
        (
            "an error inside a 200",
            complete(streamed("   \n<?xml version=\"1.0\"?><Error><Code>InvalidPart</Code></Error>")),
            "began0 CompleteMultipart b/k of u\nrefused0",
        ),
        (
            "a failure inside a 200",
            complete(streamed("<Error><Code>InternalError</Code></Error>")),
            "began0 CompleteMultipart b/k of u\ngap0 OutcomeUnknown b/k",
        ),
        (
            "cut inside a 200",
            [complete(s("HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n   \r\n")), ends().to_vec()].concat(),
            "began0 CompleteMultipart b/k of u\ngap0 OutcomeUnknown b/k",
        ),
        (
            "white space alone",
            complete(answer(200, "", "   ")),
            "began0 CompleteMultipart b/k of u\ngap0 Malformed b/k",
        ),
        (
            "upload is gone",
            complete(answer(404, "", "<Error><Code>NoSuchUpload</Code></Error>")),
            "began0 CompleteMultipart b/k of u\nrefused0",
        ),
        (
            "abort",
            vec![ask("DELETE /b/k?uploadId=u", "", ""), answer(204, "", "")],
            "began0 AbortMultipart b/k of u\ndone0 Abort b/k u",
        ),
    ]);
}

#[test]
fn a_copy_names_its_source_and_whose_metadata_it_has() {
    let copied = answer(
        200,
        "x-amz-version-id: v\r\nx-amz-copy-source-version-id: s1\r\n",
        "<CopyObjectResult><ETag>\"c\"</ETag></CopyObjectResult>",
    );
    let fields = "x-amz-copy-source: s/k\r\nContent-Type: a/b\r\nx-amz-meta-a: 1\r\nx-amz-storage-class: GLACIER\r\nx-amz-tagging: t=1\r\n";
    check(vec![
        (
            "of its source",
            vec![ask("PUT /b/k", fields, ""), copied.clone()],
            "began0 Copy b/k\ndone0 Copy b/k from s/k@s1 \"c\"@v FromSource FromSource x-amz-storage-class=GLACIER",
        ),
        (
            "replaced",
            vec![
                ask(
                    "PUT /b/k",
                    &format!("{fields}x-amz-metadata-directive: REPLACE\r\nx-amz-tagging-directive: REPLACE\r\n"),
                    "",
                ),
                copied.clone(),
            ],
            "began0 Copy b/k\ndone0 Copy b/k from s/k@s1 \"c\"@v FromRequest FromRequest content-type=a/b x-amz-meta-a=1 x-amz-storage-class=GLACIER tags [t:1]",
        ),
        (
            "an error inside a 200",
            vec![ask("PUT /b/k", fields, ""), answer(200, "", "<Error><Code>AccessDenied</Code></Error>")],
            "began0 Copy b/k\nrefused0",
        ),
        (
            "a source that is not understood",
            vec![ask("PUT /b/k", "x-amz-copy-source: arn:aws:s3:::accesspoint/p/object/k\r\n", ""), copied],
            "began0 Copy b/k\ngap0 UnknownSource b/k@v",
        ),
    ]);
}

#[test]
fn deletes_are_of_a_key_or_of_a_version() {
    let many = "<Delete><Quiet>true</Quiet><Object><Key>a&amp;b</Key></Object><Object><Key>c</Key><VersionId>1</VersionId></Object><Object><Key>d</Key></Object><Object><Key>e</Key></Object></Delete>";
    let errors = "<DeleteResult><Error><Key>d</Key><Code>AccessDenied</Code></Error><Error><Key>e</Key><Code>InternalError</Code></Error></DeleteResult>";
    let loud = "<Delete><Object><Key>a</Key></Object><Object><Key>a</Key><VersionId>1</VersionId></Object></Delete>";
    let said = "<DeleteResult><Deleted><Key>a</Key><DeleteMarker>true</DeleteMarker><DeleteMarkerVersionId>m</DeleteMarkerVersionId></Deleted><Deleted><Key>a</Key><VersionId>1</VersionId></Deleted></DeleteResult>";
    check(vec![
        ("plain", vec![ask("DELETE /b/k", "", ""), answer(204, "", "")], "began0 Delete b/k\ndone0 Delete b/k"),
        (
            "a marker is made",
            vec![ask("DELETE /b/k", "", ""), answer(204, "x-amz-delete-marker: true\r\nx-amz-version-id: m\r\n", "")],
            "began0 Delete b/k\ndone0 Delete b/k marker m",
        ),
        (
            "a version",
            vec![ask("DELETE /b/k?versionId=1", "", ""), answer(204, "x-amz-version-id: 1\r\n", "")],
            "began0 Delete b/k@1\ndone0 Delete b/k@1",
        ),
        (
            "a marker is removed",
            vec![
                ask("DELETE /b/k?versionId=m", "", ""),
                answer(204, "x-amz-delete-marker: true\r\nx-amz-version-id: m\r\n", ""),
            ],
            "began0 Delete b/k@m\ndone0 Delete b/k@m marker m",
        ),
        ("refused", vec![ask("DELETE /b/k", "", ""), answer(403, "", "")], "began0 Delete b/k\nrefused0"),
        (
            "many, quietly",
            vec![ask("POST /b?delete", "", many), answer(200, "", errors)],
            "began0 DeleteMany b/*\ndone0 DeleteMany b [b/a&b, b/c@1] unknown [b/e]",
        ),
        (
            "many, aloud",
            vec![ask("POST /b?delete", "", loud), answer(200, "", said)],
            "began0 DeleteMany b/*\ndone0 DeleteMany b [b/a marker m, b/a@1] unknown []",
        ),
        (
            "many, unreadable",
            vec![ask("POST /b?delete", "", "<Delete>"), answer(200, "", "<DeleteResult/>")],
            "began0 DeleteMany b/*\ngap0 Malformed b/*",
        ),
        (
            "bucket",
            vec![ask("DELETE /b", "", ""), answer(204, "", "")],
            "began0 DeleteBucket b/*\ndone0 DeleteBucket b",
        ),
    ]);
}

#[test]
fn what_changes_without_content_is_told_or_is_a_gap() {
    check(vec![
        (
            "tags",
            vec![
                ask("PUT /b/k?tagging", "", "<Tagging><TagSet><Tag><Key>a</Key><Value/></Tag></TagSet></Tagging>"),
                answer(200, "x-amz-version-id: v\r\n", ""),
            ],
            "began0 SetTags b/k\ndone0 SetTags b/k@v [a:]",
        ),
        (
            "tags away",
            vec![ask("DELETE /b/k?tagging&versionId=1", "", ""), answer(204, "", "")],
            "began0 SetTags b/k@1\ndone0 SetTags b/k@1 []",
        ),
        (
            "tags, unreadable",
            vec![ask("PUT /b/k?tagging", "", "{}"), answer(200, "", "")],
            "began0 SetTags b/k\ngap0 Malformed b/k",
        ),
        (
            "acl by header",
            vec![ask("PUT /b/k?acl", "x-amz-acl: private\r\n", ""), answer(200, "", "")],
            "began0 SetAcl b/k\ndone0 SetAcl b/k x-amz-acl=private",
        ),
        (
            "acl by document",
            vec![ask("PUT /b/k?acl", "", "<AccessControlPolicy/>"), answer(200, "", "")],
            "began0 SetAcl b/k\ndone0 SetAcl b/k 22 bytes",
        ),
        (
            "retention",
            vec![
                ask(
                    "PUT /b/k?retention",
                    "",
                    "<Retention><Mode>GOVERNANCE</Mode><RetainUntilDate>2040</RetainUntilDate></Retention>",
                ),
                answer(200, "", ""),
            ],
            "began0 SetLock b/k\ndone0 SetLock b/k x-amz-object-lock-mode=GOVERNANCE x-amz-object-lock-retain-until-date=2040",
        ),
        (
            "legal hold",
            vec![ask("PUT /b/k?legal-hold", "", "<LegalHold><Status>ON</Status></LegalHold>"), answer(200, "", "")],
            "began0 SetLock b/k\ndone0 SetLock b/k x-amz-object-lock-legal-hold=ON",
        ),
        ("bucket", vec![ask("PUT /b", "", ""), answer(200, "", "")], "began0 CreateBucket b/*\ndone0 CreateBucket b"),
        (
            "SSE-C",
            vec![ask("PUT /b/k", "x-amz-server-side-encryption-customer-key: SECRET\r\n", "secret"), ok()],
            "began0 Put b/k length 6\nbody lost0 SseC\ngap0 SseC b/k \"e\"",
        ),
        (
            "SSE-C, refused",
            vec![
                ask("PUT /b/k", "x-amz-server-side-encryption-customer-key: SECRET\r\n", "secret"),
                answer(400, "", ""),
            ],
            "began0 Put b/k length 6\nbody lost0 SseC\nrefused0",
        ),
        (
            "append",
            vec![ask("PUT /b/k", "x-amz-write-offset-bytes: 5\r\n", "more"), ok()],
            "began0 Unsupported b/k\ngap0 Unsupported b/k \"e\"",
        ),
        (
            "rename",
            vec![ask("PUT /b/k?renameObject", "x-amz-rename-source: /b/a\r\n", ""), answer(200, "", "")],
            "began0 Unsupported b/*\ngap0 Unsupported b/*",
        ),
        (
            "unknown subresource",
            vec![ask("PUT /b/k?frobnicate", "", "x"), answer(200, "", "")],
            "began0 Unsupported b/k\ngap0 Unsupported b/k",
        ),
        (
            "unknown subresource, refused",
            vec![ask("PUT /b/k?frobnicate", "", "x"), answer(400, "", "")],
            "began0 Unsupported b/k\nrefused0",
        ),
        (
            "a host that is not understood",
            vec![c("PUT /k HTTP/1.1\r\nHost: cdn.test\r\nContent-Length: 1\r\n\r\nx"), ok()],
            "began0 Unsupported *\ngap0 Unsupported * \"e\"",
        ),
        ("settings of a bucket", vec![ask("PUT /b?lifecycle", "", "<x/>"), answer(200, "", "")], ""),
        (
            "credentials of S3 Express",
            vec![
                ask("GET /b?session", "", ""),
                answer(200, "", "<CreateSessionResult><Credentials>SECRET</Credentials></CreateSessionResult>"),
            ],
            "",
        ),
    ]);
}

#[test]
fn a_form_is_a_put_of_its_file() {
    let boundary = "Content-Type: multipart/form-data; boundary=x\r\n";
    let form = |extra: &str| {
        format!(
            "--x\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\nin/${{filename}}\r\n{extra}--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\nfile\r\n--x--\r\n"
        )
    };
    let redirect = "--x\r\nContent-Disposition: form-data; name=\"success_action_redirect\"\r\n\r\nhttp://a/\r\n";
    let put = "began0 Put b/*\nbody0 file\ndone0 Put b/in/f length 4 \"e\"";
    check(vec![
        ("204", vec![ask("POST /b", boundary, &form("")), answer(204, "ETag: \"e\"\r\n", "")], put),
        ("201", vec![ask("POST /b/", boundary, &form("")), answer(201, "ETag: \"e\"\r\n", "<PostResponse/>")], put),
        ("303 after success", vec![ask("POST /b", boundary, &form(redirect)), answer(303, "ETag: \"e\"\r\n", "")], put),
        (
            "303 that was not asked for",
            vec![ask("POST /b", boundary, &form("")), answer(303, "ETag: \"e\"\r\n", "")],
            "began0 Put b/*\nbody0 file\nrefused0",
        ),
        (
            "no ETag",
            vec![ask("POST /b", boundary, &form("")), answer(204, "", "")],
            "began0 Put b/*\nbody0 file\ngap0 Malformed b/in/f",
        ),
        (
            "no file",
            vec![ask("POST /b", boundary, "--x--\r\n"), answer(204, "", "")],
            "began0 Put b/*\nbody lost0 Malformed\ngap0 Malformed b/*",
        ),
        (
            "no boundary",
            vec![ask("POST /b", "Content-Type: multipart/form-data\r\n", "x"), answer(204, "", "")],
            "began0 Put b/*\ngap0 Malformed b/*",
        ),
    ]);
}

#[test]
fn reads_teach_content_and_sightings_and_make_no_gap() {
    let get = |target: &str| ask(&format!("GET {target}"), "", "");
    let range = "ETag: \"e\"\r\nContent-Range: bytes 2-3/9\r\nContent-Type: a/b\r\nx-amz-checksum-crc32: part\r\n";
    check(vec![
        (
            "whole",
            vec![
                get("/b/k"),
                answer(200, "ETag: \"e\"\r\nContent-Type: a/b\r\nx-amz-meta-a: 1\r\nx-amz-version-id: v\r\n", "abc"),
            ],
            "sighted0 Get b/k \"e\" size 3@v\nreads0 b/k all 3 \"e\"@v content-type=a/b x-amz-meta-a=1\nbody0 abc\nread0",
        ),
        (
            "chunked",
            vec![
                get("/b/k"),
                s("HTTP/1.1 200 X\r\nETag: \"e\"\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
            ],
            "sighted0 Get b/k \"e\"\nreads0 b/k all \"e\"\nbody0 abc\nread0",
        ),
        (
            "until close",
            [vec![get("/b/k"), s("HTTP/1.1 200 X\r\nETag: \"e\"\r\n\r\nabc")], ends().to_vec()].concat(),
            "sighted0 Get b/k \"e\"\nreads0 b/k all \"e\"\nbody0 abc\nread0",
        ),
        (
            "range",
            vec![get("/b/k"), answer(206, range, "cd")],
            "sighted0 Get b/k \"e\" size 9\nreads0 b/k 2-3/9 \"e\" content-type=a/b\nbody0 cd\nread0",
        ),
        (
            "part",
            vec![
                get("/b/k?partNumber=1&versionId=v"),
                answer(206, &format!("{range}x-amz-mp-parts-count: 5\r\n"), "cd"),
            ],
            "sighted0 Get b/k \"e\" size 9@v not current\nreads0 b/k 2-3/9 \"e\"@v asked part 1/Some(5) content-type=a/b\nbody0 cd\nread0",
        ),
        (
            "shorter than its range",
            vec![get("/b/k"), answer(206, range, "c")],
            "sighted0 Get b/k \"e\" size 9\nreads0 b/k 2-3/9 \"e\" content-type=a/b\nbody0 c\nread0 cut",
        ),
        (
            "several ranges",
            vec![get("/b/k"), answer(206, "ETag: \"e\"\r\nContent-Type: multipart/byteranges; boundary=x\r\n", "--x")],
            "",
        ),
        (
            "headers overridden",
            vec![get("/b/k?response-content-type=x%2Fy"), answer(200, "ETag: \"e\"\r\nContent-Type: x/y\r\n", "a")],
            "sighted0 Get b/k \"e\" size 1\nreads0 b/k all 1 \"e\" headers overridden\nbody0 a\nread0",
        ),
        ("not modified", vec![get("/b/k"), answer(304, "ETag: \"e\"\r\n", "")], ""),
        ("weak name", vec![get("/b/k"), answer(200, "ETag: W/\"e\"\r\n", "a")], ""),
        ("transformed on the way", vec![get("/b/k?x-oss-process=resize"), answer(200, "ETag: \"e\"\r\n", "a")], ""),
        (
            "cut",
            [vec![get("/b/k"), s("HTTP/1.1 200 X\r\nETag: \"e\"\r\nContent-Length: 3\r\n\r\nab")], ends().to_vec()]
                .concat(),
            "sighted0 Get b/k \"e\" size 3\nreads0 b/k all 3 \"e\"\nbody0 ab\nread0 cut",
        ),
        (
            "SSE-C",
            vec![
                ask("GET /b/k", "x-amz-server-side-encryption-customer-key: SECRET\r\n", ""),
                answer(200, "ETag: \"e\"\r\n", "a"),
            ],
            "sighted0 Get b/k \"e\" size 1",
        ),
        (
            "no such key",
            vec![get("/b/k"), answer(404, "", "<Error><Code>NoSuchKey</Code></Error>")],
            "sighted0 Get b/k absent",
        ),
        ("no such bucket", vec![get("/b/k"), answer(404, "", "<Error><Code>NoSuchBucket</Code></Error>")], ""),
        (
            "a marker",
            vec![get("/b/k"), answer(404, "x-amz-delete-marker: true\r\nx-amz-version-id: m\r\n", "")],
            "sighted0 Get b/k absent@m",
        ),
        (
            "HEAD",
            vec![
                ask("HEAD /b/k", "", ""),
                s("HTTP/1.1 200 X\r\nETag: \"e\"\r\nContent-Length: 5\r\n\r\n"),
                ask("HEAD /b/l", "", ""),
                s("HTTP/1.1 404 X\r\n\r\n"),
            ],
            "sighted0 Head b/k \"e\" size 5\nsighted1 Head b/l absent",
        ),
        (
            "HEAD of a part",
            vec![
                ask("HEAD /b/k?partNumber=1", "", ""),
                s(&format!("HTTP/1.1 206 X\r\n{range}Content-Length: 2\r\n\r\n")),
            ],
            "sighted0 Head b/k \"e\" size 9",
        ),
        (
            "a page",
            vec![
                get("/b?list-type=2"),
                answer(
                    200,
                    "",
                    "<ListBucketResult><Contents><Key>a</Key><ETag>\"e\"</ETag><Size>1</Size></Contents></ListBucketResult>",
                ),
            ],
            "sighted0 Listing b/a \"e\" size 1",
        ),
        (
            "an unfinished page",
            [vec![get("/b"), s("HTTP/1.1 200 X\r\nContent-Length: 99\r\n\r\n<ListBucketResult>")], ends().to_vec()]
                .concat(),
            "",
        ),
        ("no answer", [vec![get("/b/k")], ends().to_vec()].concat(), ""),
        (
            "HTTP/2 from here on",
            vec![ask("GET /b/k", "Upgrade: h2c\r\n", ""), s("HTTP/1.1 101 X\r\nUpgrade: h2c\r\n\r\n")],
            "unparsed Http2",
        ),
        (
            "another protocol from here on",
            vec![ask("GET /b/k", "Upgrade: x\r\n", ""), s("HTTP/1.1 101 X\r\nUpgrade: x\r\n\r\n")],
            "",
        ),
    ]);
}

#[test]
fn a_listing_past_its_bound_tells_nothing_and_a_long_body_stays_in_slices() {
    let entry = "<Contents><Key>a</Key><ETag>e</ETag><Size>1</Size></Contents>";
    let page = format!("<ListBucketResult>{}</ListBucketResult>", entry.repeat(5 * 1024 * 1024 / entry.len()));
    check(vec![("too long a page", vec![ask("GET /b", "", ""), answer(200, "", &page)], "")]);
}

#[test]
fn no_secret_is_told() {
    let fields = "Authorization: SECRET\r\nx-amz-security-token: SECRET\r\nx-amz-server-side-encryption-customer-key: SECRET\r\n\
        x-amz-copy-source-server-side-encryption-customer-key: SECRET\r\nCookie: SECRET\r\nx-amz-server-side-encryption-context: SECRET\r\n";
    let plain = fields.replace("x-amz-server-side-encryption-customer-key: SECRET\r\n", "");
    for line in [
        "PUT /b/k",
        "PUT /b/k?X-Amz-Signature=SECRET&X-Amz-Security-Token=SECRET",
        "POST /b/k?uploads",
        "GET /b/k",
        "PUT /b/k?acl",
    ] {
        for fields in [fields, &plain] {
            let acts = [ask(line, fields, ""), ok()];
            let events = play(observer("http://cloud.test", 80), &acts, |_| usize::MAX);
            assert!(!format!("{events:?}").contains("SECRET"), "{line}: {events:?}");
        }
    }
}
