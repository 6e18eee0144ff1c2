//! Which headers an object has at the cloud: from the request that makes it, and from the answer.

use bytes::Bytes;
use percent_encoding::percent_decode;

use crate::http::head::Fields;
use crate::operation::{Attributes, ETag, Header, Tag, VersionId};

/// Headers that a request gives to its object, besides the families below.
const GIVEN: [&str; 12] = [
    "content-type",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "expires",
    "x-amz-website-redirect-location",
    "x-amz-storage-class",
    "x-amz-server-side-encryption",
    "x-amz-server-side-encryption-aws-kms-key-id",
    "x-amz-server-side-encryption-bucket-key-enabled",
    "x-amz-acl",
];

/// Families of such headers, by their beginnings.
const GIVEN_FAMILIES: [&str; 4] = ["x-amz-meta-", "x-amz-grant-", "x-amz-object-lock-", "x-amz-checksum-"];

/// Headers of an answer that say what the object has now, besides the checksums.
const ANSWERED: [&str; 3] = [
    "x-amz-server-side-encryption",
    "x-amz-server-side-encryption-aws-kms-key-id",
    "x-amz-server-side-encryption-bucket-key-enabled",
];

/// Metadata in the narrower sense: what a copy takes from its source unless it replaces it.
const COPIED: [&str; 6] =
    ["content-type", "cache-control", "content-disposition", "content-encoding", "content-language", "expires"];

/// What a request gives to the object that it makes. Without a word on tags the object has none.
pub fn given(fields: &Fields) -> Attributes {
    let headers = fields.iter().filter_map(|(name, value)| {
        let name = std::str::from_utf8(name).ok()?.to_ascii_lowercase();
        let value = if name == "content-encoding" { without_aws_chunked(value)? } else { value.clone() };
        is_given(&name).then_some(Header { name, value })
    });
    let headers = headers.collect();
    Attributes { headers, tags: Some(fields.text("x-amz-tagging").map(tags_of_query).unwrap_or_default()) }
}

/// What an answer adds: it wins over the request, as the cloud may have chosen.
pub fn answered(attributes: &mut Attributes, fields: &Fields) {
    for (name, value) in fields.iter() {
        let Ok(name) = std::str::from_utf8(name) else { continue };
        let name = name.to_ascii_lowercase();
        if ANSWERED.contains(&name.as_str()) || is_checksum(&name) {
            set(attributes, name, value.clone());
        }
    }
}

/// What a GET shows of an object.
pub fn shown(fields: &Fields) -> Attributes {
    let mut attributes = given(fields);
    attributes.headers.retain(|header| !header.name.starts_with("x-amz-grant-") && header.name != "x-amz-acl");
    attributes.tags = None;
    attributes
}

/// Puts a header in the place of one of its name.
pub fn set(attributes: &mut Attributes, name: String, value: Bytes) {
    match attributes.headers.iter_mut().find(|header| header.name == name) {
        Some(header) => header.value = value,
        None => attributes.headers.push(Header { name, value }),
    }
}

/// Takes off what a copy has from its source: the request's own is of no meaning then.
pub fn leave_out_copied(attributes: &mut Attributes) {
    attributes
        .headers
        .retain(|header| !COPIED.contains(&header.name.as_str()) && !header.name.starts_with("x-amz-meta-"));
}

/// Whether the request or answer speaks of a key that only the client has.
pub fn is_sse_c(fields: &Fields) -> bool {
    fields.iter().any(|(name, _)| starts_with(name, "x-amz-server-side-encryption-customer-"))
}

/// The ETag of an answer; a weak one (RFC 9110 §8.8.1) names other bytes than those that are sent.
pub fn etag(fields: &Fields) -> Option<ETag> {
    fields.text("etag").and_then(etag_of)
}

/// An ETag as it is written, with or without its quotes.
pub fn etag_of(text: &str) -> Option<ETag> {
    let text = text.trim();
    if text.starts_with("W/") {
        return None;
    }
    let bare = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
    (!bare.is_empty()).then(|| ETag(bare.to_owned()))
}

/// The version of an answer.
pub fn version(fields: &Fields) -> Option<VersionId> {
    fields.text("x-amz-version-id").filter(|id| !id.is_empty()).map(|id| VersionId(id.to_owned()))
}

/// Tags in a header: a query with form encoding, where `+` is a space.
pub fn tags_of_query(text: &str) -> Vec<Tag> {
    let decode = |part: &str| percent_decode(part.replace('+', " ").as_bytes()).decode_utf8_lossy().into_owned();
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| Tag { key: decode(key), value: decode(value) })
        .collect()
}

/// Whether a request gives this header, in lower case, to its object.
pub fn is_given(name: &str) -> bool {
    let family = GIVEN_FAMILIES.iter().any(|family| name.starts_with(family));
    GIVEN.contains(&name) || (family && !matches!(name, "x-amz-checksum-mode" | "x-amz-checksum-algorithm"))
}

fn is_checksum(name: &str) -> bool {
    name.starts_with("x-amz-checksum-")
}

fn starts_with(name: &[u8], prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
}

/// The codings of the content: `aws-chunked` is one of the transfer, and the object does not have it.
fn without_aws_chunked(value: &Bytes) -> Option<Bytes> {
    let text = std::str::from_utf8(value).ok()?;
    if !text.to_ascii_lowercase().contains("aws-chunked") {
        return (!value.is_empty()).then(|| value.clone());
    }
    let rest: Vec<&str> = text
        .split(',')
        .map(str::trim)
        .filter(|coding| !coding.eq_ignore_ascii_case("aws-chunked") && !coding.is_empty())
        .collect();
    (!rest.is_empty()).then(|| rest.join(",").into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::http::head::RequestHead;

    fn fields(lines: &str) -> Fields {
        RequestHead::parse(&Bytes::from(format!("PUT / HTTP/1.1\r\n{lines}\r\n"))).unwrap().fields
    }

    fn told(attributes: &Attributes) -> String {
        let lines = attributes
            .headers
            .iter()
            .map(|header| format!("{}={}", header.name, String::from_utf8_lossy(&header.value)));
        lines.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn an_object_gets_every_header_that_the_cloud_keeps_and_no_secret() {
        let all = "Host: h\r\nContent-Type: a/b\r\nCache-Control: no\r\nContent-Disposition: x\r\nContent-Encoding: gzip,aws-chunked\r\n\
            Content-Language: de\r\nExpires: 0\r\nX-Amz-Meta-Owner: Müller\r\nx-amz-storage-class: STANDARD_IA\r\n\
            x-amz-website-redirect-location: /x\r\nx-amz-tagging: a=b+c&d=%26\r\nx-amz-acl: private\r\nx-amz-grant-read: id=1\r\n\
            x-amz-checksum-crc32: AA==\r\nx-amz-object-lock-mode: GOVERNANCE\r\nx-amz-server-side-encryption: AES256\r\n\
            Authorization: SECRET\r\nx-amz-security-token: SECRET\r\nx-amz-server-side-encryption-customer-key: SECRET\r\n\
            x-amz-content-sha256: 0\r\nx-amz-date: 0\r\nContent-Length: 0\r\nUser-Agent: u\r\n";
        let attributes = given(&fields(all));
        assert_eq!(
            told(&attributes),
            "content-type=a/b cache-control=no content-disposition=x content-encoding=gzip content-language=de expires=0 \
             x-amz-meta-owner=Müller x-amz-storage-class=STANDARD_IA x-amz-website-redirect-location=/x x-amz-acl=private \
             x-amz-grant-read=id=1 x-amz-checksum-crc32=AA== x-amz-object-lock-mode=GOVERNANCE x-amz-server-side-encryption=AES256"
        );
        let tags = attributes.tags.unwrap();
        assert_eq!(
            tags.iter().map(|tag| (tag.key.as_str(), tag.value.as_str())).collect::<Vec<_>>(),
            [("a", "b c"), ("d", "&")]
        );
        assert!(is_sse_c(&fields(all)));
    }

    #[test]
    fn only_the_aws_chunked_token_leaves_the_content_encoding() {
        for (wire, kept) in [
            ("aws-chunked", None),
            ("gzip, AWS-chunked", Some("gzip")),
            ("aws-chunked,gzip,br", Some("gzip,br")),
            ("gzip, br", Some("gzip, br")),
        ] {
            let seen = without_aws_chunked(&Bytes::from(wire));
            assert_eq!(seen.as_deref(), kept.map(str::as_bytes), "{wire}");
        }
    }

    #[test]
    fn an_etag_loses_its_quotes_and_a_weak_one_names_nothing() {
        for (wire, bare) in
            [("\"abc-3\"", Some("abc-3")), ("abc", Some("abc")), ("\"\"", None), ("W/\"abc\"", None), ("", None)]
        {
            assert_eq!(etag_of(wire), bare.map(|text| ETag(text.into())), "{wire}");
        }
    }

    #[test]
    fn a_new_object_without_a_word_on_tags_has_none_and_a_read_tells_nothing_of_them() {
        assert_eq!(given(&fields("")).tags, Some(Vec::new()));
        assert_eq!(shown(&fields("")).tags, None);
    }

    #[test]
    fn the_answer_wins_over_the_request() {
        let mut attributes = given(&fields("x-amz-checksum-crc32: AA==\r\n"));
        answered(
            &mut attributes,
            &fields(
                "x-amz-checksum-crc32: BB==\r\nx-amz-server-side-encryption: aws:kms\r\nContent-Type: no/no\r\nServer: s\r\n",
            ),
        );
        assert_eq!(told(&attributes), "x-amz-checksum-crc32=BB== x-amz-server-side-encryption=aws:kms");
    }
}
