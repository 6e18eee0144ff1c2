//! What goes over the wire to a cloud: keys byte for byte, guards, tags and headers as they were recorded.
//! The origin is a script: it answers every request with one response and keeps what it was sent.
#![allow(clippy::unwrap_used, missing_docs)]
use std::collections::BTreeMap;

use aws_sdk_s3::config::Credentials;
use aws_sdk_s3::primitives::SdkBody;
use hawser_api::ObjectKey;
use hawser_api::binding::{Addressing, Provider, S3};
use hawser_migrate::cloud::write::{Carried, Guard};
use hawser_migrate::cloud::{Cloud, Fault, Place};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// More requests than any test here makes.
const REQUESTS_MAX: usize = 64;

/// Answers every request on every connection with `response`; gives the heads and bodies it was sent.
async fn origin(response: &'static str) -> (u16, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, requests) = mpsc::channel(REQUESTS_MAX);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(serve(client, response, sender.clone()));
        }
    });
    (port, requests)
}

async fn serve(mut client: TcpStream, response: &'static str, requests: mpsc::Sender<String>) {
    let mut seen: Vec<u8> = Vec::new();
    loop {
        let head = loop {
            if let Some(end) = seen.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            let mut more = [0; 4096];
            match client.read(&mut more).await {
                Ok(0) | Err(_) => return,
                Ok(len) => seen.extend_from_slice(&more[..len]),
            }
        };
        let text = String::from_utf8_lossy(&seen[..head]).into_owned();
        let len: usize = text
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:").map(|len| len.trim().parse()))
            .map_or(0, Result::unwrap);
        while seen.len() < head + len {
            let mut more = [0; 4096];
            let read = client.read(&mut more).await.unwrap();
            seen.extend_from_slice(&more[..read]);
        }
        requests.send(String::from_utf8_lossy(&seen[..head + len]).into_owned()).await.unwrap();
        seen.drain(..head + len);
        client.write_all(response.as_bytes()).await.unwrap();
    }
}

fn cloud(port: u16) -> Cloud {
    let s3 = S3 {
        endpoint: format!("http://127.0.0.1:{port}").parse().unwrap(),
        region: None,
        addressing: Addressing::Auto,
        credentials: None,
        ca: None,
    };
    let keys = Credentials::new("id", "secret", None, None, "test");
    Cloud::with_keys(&Provider { name: "a".into(), s3 }, keys, None).unwrap()
}

fn place(key: &str) -> Place {
    Place { bucket: "b".into(), key: ObjectKey::from_bytes(key) }
}

const OK: &str = "HTTP/1.1 200 OK\r\nETag: \"e\"\r\nContent-Length: 0\r\n\r\n";

#[tokio::test]
async fn a_key_reaches_the_cloud_byte_for_byte() {
    let (port, mut requests) = origin(OK).await;
    let cloud = cloud(port);
    for (key, path) in [
        ("plain", "/b/plain"),
        ("a//b", "/b/a//b"),
        ("dir/", "/b/dir/"),
        (".", "/b/."),
        ("..", "/b/.."),
        ("a/../b", "/b/a/../b"),
        ("%2F", "/b/%252F"),
        ("/lead", "/b//lead"),
        ("a b+c", "/b/a%20b%2Bc"),
        ("é?#&", "/b/%C3%A9%3F%23%26"),
    ] {
        let place = place(key);
        cloud.head(&place, None).await.unwrap();
        cloud.get(&place, "").await.unwrap();
        cloud.put(&place, SdkBody::from("x"), 1, &Carried::default(), &Guard::None).await.unwrap();
        cloud.delete(&place, &Guard::None).await.unwrap();
        for method in ["HEAD", "GET", "PUT", "DELETE"] {
            let request = requests.recv().await.unwrap();
            let target = request.split(' ').nth(1).unwrap().split('?').next().unwrap().to_owned();
            assert!(request.starts_with(method), "{key}: {request}");
            assert_eq!(target, path, "{method} {key}");
        }
    }
}

#[tokio::test]
async fn a_key_that_is_no_text_is_refused_here() {
    let (port, _requests) = origin(OK).await;
    let place = Place { bucket: "b".into(), key: ObjectKey::from_bytes(vec![0xff]) };
    assert!(matches!(cloud(port).head(&place, None).await, Err(Fault::KeyNotText)));
}

#[tokio::test]
async fn what_an_object_carries_is_sent_as_it_was_recorded() {
    let (port, mut requests) = origin(OK).await;
    let headers = [
        ("content-type", "text/x; charset=é"),
        ("expires", "no date"),
        ("x-amz-meta-name", "Zoë"),
        ("cache-control", "no-cache, max-age=0"),
    ];
    let carried = Carried {
        headers: headers.iter().map(|(name, value)| ((*name).into(), value.as_bytes().to_vec())).collect(),
        tags: BTreeMap::from([("team".into(), "a b".into())]),
    };
    let cloud = cloud(port);
    cloud.put(&place("k"), SdkBody::from("x"), 1, &carried, &Guard::Absent).await.unwrap();
    cloud.put(&place("k"), SdkBody::from("x"), 1, &carried, &Guard::Is("old".into())).await.unwrap();
    let (first, second) = (requests.recv().await.unwrap(), requests.recv().await.unwrap());
    for (name, value) in headers {
        assert!(first.contains(&format!("\r\n{name}: {value}\r\n")), "{name}: {first}");
    }
    assert!(first.contains("\r\nx-amz-tagging: team=a%20b\r\n"), "{first}");
    assert!(first.contains("\r\nif-none-match: *\r\n"), "{first}");
    assert!(second.contains("\r\nif-match: \"old\"\r\n"), "{second}");
    assert!(first.contains("\r\nx-amz-checksum-crc"), "the target verifies a checksum: {first}");
}

#[tokio::test]
async fn refusals_are_told_apart() {
    let answer = |status: &str, body: &str| -> &'static str {
        Box::leak(format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_boxed_str())
    };
    let error = |code: &str| format!("<Error><Code>{code}</Code><Message>m</Message></Error>");
    for (status, code, wanted) in [
        ("403 Forbidden", "SignatureDoesNotMatch", "Credentials"),
        ("403 Forbidden", "AccessDenied", "Denied"),
        ("404 Not Found", "NoSuchBucket", "NoBucket"),
        ("404 Not Found", "NoSuchKey", "NotFound"),
        ("412 Precondition Failed", "PreconditionFailed", "Precondition"),
        ("409 Conflict", "ConditionalRequestConflict", "Conflict"),
        ("501 Not Implemented", "NotImplemented", "Unsupported"),
    ] {
        let (port, _requests) = origin(answer(status, &error(code))).await;
        let fault = cloud(port).get(&place("k"), "e").await.map(|_| ()).unwrap_err();
        assert!(format!("{fault:?}").starts_with(wanted), "{code}: {fault:?}");
    }
}

#[tokio::test]
async fn a_listing_is_never_cut_short_unnoticed() {
    let body = "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>";
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let (port, _requests) = origin(Box::leak(answer.into_boxed_str())).await;
    assert!(cloud(port).list_page("b", "", None).await.is_err());
}
