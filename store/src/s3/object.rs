//! One object as S3 shows it: its headers, its version id, conditions and ranges.

use std::time::{Duration, SystemTime};

use hawser_api::v1::ObjectEntry;
use s3s::dto::{ETag, ETagCondition, Timestamp, TimestampFormat};
use s3s::{S3Error, S3ErrorCode, S3Result};

/// The version id of an entry: the cloud's own, else one made of the record's tick, so that every
/// kept version of an unversioned bucket can be named.
pub fn version_id(entry: &ObjectEntry) -> String {
    if entry.version_id.is_empty() { format!("{TICK}{}", entry.tick) } else { entry.version_id.clone() }
}

/// What a client's version id names.
#[derive(Debug, PartialEq, Eq)]
pub enum Version {
    /// None: the current version.
    Current,
    /// The cloud's version id.
    Cloud(String),
    /// The record of this tick.
    Tick(u64),
}

impl Version {
    /// Reads the `versionId` of a request.
    pub fn parse(id: Option<&str>) -> Version {
        match id {
            None | Some("") => Version::Current,
            Some(id) => match id.strip_prefix(TICK).and_then(|tick| tick.parse().ok()) {
                Some(tick) => Version::Tick(tick),
                None => Version::Cloud(id.to_owned()),
            },
        }
    }
}

const TICK: &str = "tick-";

/// The object's ETag as the cloud gave it; a weak one stays weak.
pub fn etag(entry: &ObjectEntry) -> Option<ETag> {
    match entry.etag.strip_prefix("W/") {
        Some(weak) => Some(ETag::Weak(weak.trim_matches('"').to_owned())),
        None => (!entry.etag.is_empty()).then(|| ETag::Strong(entry.etag.trim_matches('"').to_owned())),
    }
}

/// When the cloud said the object was last changed, else when its record was made.
pub fn last_modified(entry: &ObjectEntry) -> Timestamp {
    let said = [TimestampFormat::HttpDate, TimestampFormat::DateTime]
        .into_iter()
        .find_map(|format| Timestamp::parse(format, &entry.last_modified).ok());
    said.unwrap_or_else(|| unix(entry.recorded_unix))
}

/// A timestamp of seconds since 1970.
pub fn unix(seconds: i64) -> Timestamp {
    Timestamp::from(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// What a client may put before a read.
#[derive(Debug, Default)]
pub struct Conditions {
    /// `If-Match`.
    pub if_match: Option<ETagCondition>,
    /// `If-None-Match`.
    pub if_none_match: Option<ETagCondition>,
    /// `If-Modified-Since`.
    pub if_modified_since: Option<Timestamp>,
    /// `If-Unmodified-Since`.
    pub if_unmodified_since: Option<Timestamp>,
}

impl Conditions {
    /// Checks them in the order of RFC 9110 §13.2.2.
    ///
    /// # Errors
    /// `PreconditionFailed` (412) or `NotModified` (304).
    pub fn check(&self, entry: &ObjectEntry) -> S3Result<()> {
        let etag = etag(entry);
        let seconds = |time: &Timestamp| time::OffsetDateTime::from(time.clone()).unix_timestamp();
        let modified = seconds(&last_modified(entry));
        if let Some(condition) = &self.if_match {
            if !matches(condition, etag.as_ref(), ETag::strong_cmp) {
                return Err(S3Error::new(S3ErrorCode::PreconditionFailed));
            }
        } else if let Some(since) = &self.if_unmodified_since
            && modified > seconds(since)
        {
            return Err(S3Error::new(S3ErrorCode::PreconditionFailed));
        }
        if let Some(condition) = &self.if_none_match {
            if matches(condition, etag.as_ref(), ETag::weak_cmp) {
                return Err(S3Error::new(S3ErrorCode::NotModified));
            }
        } else if let Some(since) = &self.if_modified_since
            && modified <= seconds(since)
        {
            return Err(S3Error::new(S3ErrorCode::NotModified));
        }
        Ok(())
    }
}

fn matches(condition: &ETagCondition, etag: Option<&ETag>, same: fn(&ETag, &ETag) -> bool) -> bool {
    match (condition, etag) {
        (ETagCondition::Any, _) => true,
        (ETagCondition::ETag(wanted), Some(etag)) => same(wanted, etag),
        (ETagCondition::ETag(_), None) => false,
    }
}

/// The bytes that part `number` covers, and how many parts there are.
///
/// # Errors
/// `InvalidPartNumber` (416) when the object has no such part.
pub fn part_range(entry: &ObjectEntry, number: i32) -> S3Result<(std::ops::Range<u64>, Option<i32>)> {
    if entry.parts.is_empty() {
        // An object that was put whole answers part 1 with all of it, as S3 does.
        return if number == 1 { Ok((0..entry.size, None)) } else { Err(no_such_part()) };
    }
    // S3 counts the parts that were completed, whatever numbers they were uploaded under.
    let index = usize::try_from(number - 1).unwrap_or(usize::MAX);
    let Some(part) = entry.parts.get(index) else {
        return Err(no_such_part());
    };
    let first: u64 = entry.parts[..index].iter().map(|part| part.length).sum();
    Ok((first..first + part.length, i32::try_from(entry.parts.len()).ok()))
}

fn no_such_part() -> S3Error {
    let mut error =
        S3Error::with_message(S3ErrorCode::Custom("InvalidPartNumber".into()), "the object has no such part");
    error.set_status_code(http::StatusCode::RANGE_NOT_SATISFIABLE);
    error
}

/// The object's own headers, verbatim. Checksums of the whole object are left out unless
/// `checksums`: a client would hold them against the range that it asked for.
pub fn headers(entry: &ObjectEntry, checksums: bool) -> http::HeaderMap {
    let mut map = http::HeaderMap::new();
    for header in entry.metadata.iter().flat_map(|metadata| &metadata.headers) {
        let answered_by_us =
            matches!(header.name.as_str(), "content-length" | "etag" | "last-modified" | "x-amz-version-id");
        if answered_by_us || (!checksums && header.name.starts_with("x-amz-checksum-")) {
            continue;
        }
        if let (Ok(name), Ok(value)) =
            (http::HeaderName::try_from(&header.name), http::HeaderValue::from_bytes(&header.value))
        {
            map.append(name, value);
        }
    }
    // What S3 says of an object that was sent without a type.
    map.entry("content-type").or_insert(http::HeaderValue::from_static("binary/octet-stream"));
    if let Some(metadata) = &entry.metadata
        && !metadata.tags.is_empty()
    {
        map.insert("x-amz-tagging-count", metadata.tags.len().into());
    }
    if !entry.gap.is_empty()
        && let Ok(reason) = http::HeaderValue::try_from(&entry.gap)
    {
        map.insert("x-hawser-gap", reason);
    }
    map
}

#[cfg(test)]
mod tests {
    use hawser_api::v1::{Header, Metadata, PartLayout};

    use super::*;

    fn entry() -> ObjectEntry {
        ObjectEntry {
            etag: "abc".into(),
            size: 10,
            tick: 7,
            last_modified: "Tue, 24 Nov 2026 10:00:00 GMT".into(),
            ..ObjectEntry::default()
        }
    }

    #[test]
    fn a_version_without_an_id_of_the_cloud_is_named_by_its_tick() {
        assert_eq!(version_id(&entry()), "tick-7");
        assert_eq!(Version::parse(Some("tick-7")), Version::Tick(7));
        assert_eq!(Version::parse(Some("tick-x")), Version::Cloud("tick-x".into()));
        assert_eq!(Version::parse(None), Version::Current);
    }

    #[test]
    fn conditions_answer_as_rfc_9110_orders_them() {
        let tag = |text: &str| Some(ETagCondition::ETag(ETag::Strong(text.into())));
        let at = |text: &str| Timestamp::parse(TimestampFormat::HttpDate, text).ok();
        let (before, after) = ("Tue, 24 Nov 2026 09:00:00 GMT", "Tue, 24 Nov 2026 11:00:00 GMT");
        let rows = [
            ("none", Conditions::default(), "ok"),
            ("if-match", Conditions { if_match: tag("abc"), ..Conditions::default() }, "ok"),
            ("if-match another", Conditions { if_match: tag("x"), ..Conditions::default() }, "PreconditionFailed"),
            ("if-none-match", Conditions { if_none_match: tag("abc"), ..Conditions::default() }, "NotModified"),
            (
                "if-none-match *",
                Conditions { if_none_match: Some(ETagCondition::Any), ..Conditions::default() },
                "NotModified",
            ),
            ("modified since before", Conditions { if_modified_since: at(before), ..Conditions::default() }, "ok"),
            (
                "modified since after",
                Conditions { if_modified_since: at(after), ..Conditions::default() },
                "NotModified",
            ),
            (
                "unmodified since before",
                Conditions { if_unmodified_since: at(before), ..Conditions::default() },
                "PreconditionFailed",
            ),
            (
                "if-match beats unmodified since",
                Conditions { if_match: tag("abc"), if_unmodified_since: at(before), ..Conditions::default() },
                "ok",
            ),
        ];
        for (name, conditions, answer) in rows {
            let got =
                conditions.check(&entry()).map_or_else(|error| error.code().as_str().to_owned(), |()| "ok".into());
            assert_eq!(got, answer, "{name}");
        }
    }

    #[test]
    fn a_part_is_the_range_that_it_was_uploaded_as() {
        let part = |length| PartLayout { length, ..PartLayout::default() };
        let object = ObjectEntry { parts: vec![part(5), part(3), part(2)], ..entry() };
        assert_eq!(part_range(&object, 2).ok(), Some((5..8, Some(3))));
        assert_eq!(part_range(&object, 4).ok(), None);
        assert_eq!(part_range(&entry(), 1).ok(), Some((0..10, None)));
        assert_eq!(part_range(&entry(), 2).ok(), None);
    }

    #[test]
    fn a_range_never_carries_the_checksum_of_the_whole() {
        let header = |name: &str| Header { name: name.into(), value: "v".into() };
        let object = ObjectEntry {
            gap: "Concurrent".into(),
            metadata: Some(Metadata {
                headers: vec![header("x-amz-checksum-crc32"), header("x-amz-meta-a"), header("etag")],
                ..Metadata::default()
            }),
            ..entry()
        };
        let names = |map: http::HeaderMap| map.keys().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names(headers(&object, false)), ["x-amz-meta-a", "content-type", "x-hawser-gap"]);
        assert_eq!(
            names(headers(&object, true)),
            ["x-amz-checksum-crc32", "x-amz-meta-a", "content-type", "x-hawser-gap"]
        );
    }
}
