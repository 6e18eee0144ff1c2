//! Pages of ListObjects, ListObjectsV2 and ListObjectVersions: what each entry says of its key. What a page
//! leaves out says nothing: who lists a bucket for that knows where the page begins and ends.

use hawser_api::ObjectKey;
use percent_encoding::percent_decode;

use super::attributes;
use super::xml::Element;
use crate::operation::{Object, Sighted, VersionId};

/// What the entries of a page say: object, version, whether it is current, what is there.
pub fn sightings(root: &Element, bucket: &str) -> Vec<(Object, Option<VersionId>, bool, Sighted)> {
    let encoded = root.text_of("EncodingType") == Some("url");
    let entry = |entry: &Element| {
        let key = key(entry.text_of("Key")?, encoded);
        let object = Object { bucket: bucket.to_owned(), key };
        let version = entry.text_of("VersionId").map(|id| VersionId(id.to_owned()));
        let latest = entry.text_of("IsLatest") == Some("true");
        match entry.name.as_str() {
            "Contents" => Some((object, None, true, present(entry)?)),
            "Version" => Some((object, version, latest, present(entry)?)),
            "DeleteMarker" => Some((object, version, latest, Sighted::Absent)),
            _ => None,
        }
    };
    match root.name.as_str() {
        "ListBucketResult" | "ListVersionsResult" => root.children.iter().filter_map(entry).collect(),
        _ => Vec::new(),
    }
}

fn present(entry: &Element) -> Option<Sighted> {
    let etag = entry.text_of("ETag").and_then(attributes::etag_of)?;
    Some(Sighted::Present { etag, size: entry.text_of("Size").and_then(|text| text.trim().parse().ok()) })
}

/// A listed key. With `encoding-type=url` it has form encoding, as S3 writes it: a `+` is a space.
fn key(text: &str, encoded: bool) -> ObjectKey {
    if encoded {
        ObjectKey::from_bytes(percent_decode(text.replace('+', " ").as_bytes()).collect::<Vec<u8>>())
    } else {
        ObjectKey::from_bytes(text)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn told(document: &str) -> Vec<String> {
        let root = Element::parse(document.as_bytes()).unwrap();
        let line = |(object, version, current, seen): (Object, Option<VersionId>, bool, Sighted)| {
            let what = match seen {
                Sighted::Present { etag, size } => format!("{} {}", etag.0, size.unwrap()),
                Sighted::Absent => "absent".into(),
            };
            format!(
                "{} {} {} {what}",
                object.key,
                version.map_or("-".into(), |id| id.0),
                if current { "current" } else { "old" }
            )
        };
        sightings(&root, "b").into_iter().map(line).collect()
    }

    #[test]
    fn a_page_tells_of_its_keys_whatever_they_are() {
        let page = "<ListBucketResult><Name>b</Name><EncodingType>url</EncodingType><CommonPrefixes><Prefix>p/</Prefix></CommonPrefixes>\
            <Contents><Key>a%2F+b%2B%0D</Key><ETag>&quot;e&quot;</ETag><Size>5</Size></Contents>\
            <Contents><Key>no-etag</Key><Size>5</Size></Contents></ListBucketResult>";
        assert_eq!(told(page), ["a/ b+\\r - current e 5"]);
        let plain =
            "<ListBucketResult><Contents><Key>a+b%20</Key><ETag>e-2</ETag><Size>0</Size></Contents></ListBucketResult>";
        assert_eq!(told(plain), ["a+b%20 - current e-2 0"]);
    }

    #[test]
    fn versions_and_markers_are_current_when_they_are_the_latest() {
        let page = "<ListVersionsResult><DeleteMarker><Key>k</Key><VersionId>3</VersionId><IsLatest>true</IsLatest></DeleteMarker>\
            <Version><Key>k</Key><VersionId>2</VersionId><IsLatest>false</IsLatest><ETag>e</ETag><Size>1</Size></Version></ListVersionsResult>";
        assert_eq!(told(page), ["k 3 current absent", "k 2 old e 1"]);
    }

    #[test]
    fn another_document_tells_nothing() {
        assert!(told("<Error><Code>NoSuchBucket</Code></Error>").is_empty());
        assert!(told("<ListAllMyBucketsResult><Contents><Key>k</Key></Contents></ListAllMyBucketsResult>").is_empty());
    }
}
