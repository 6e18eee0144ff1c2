//! One version of one object as it is shown.

use std::collections::BTreeMap;

use hawser_api::ObjectKey;
use hawser_api::v1::{Metadata, ObjectEntry, ObjectRef};
use serde::Serialize;

use crate::units;

/// A version in JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Shown {
    bucket: String,
    #[serde(flatten)]
    key: Key,
    provider: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    etag: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    version_id: String,
    tick: u64,
    recorded: Option<String>,
    current: bool,
    deleted: bool,
    content_known: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    gap: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tags: BTreeMap<String, String>,
}

/// A key in JSON, where it is text, and always as it stands in a URL: the one that loses nothing.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Key {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    key_path: String,
}

impl From<&ObjectKey> for Key {
    fn from(key: &ObjectKey) -> Key {
        Key { key: key.as_str().map(str::to_owned), key_path: key.to_path() }
    }
}

/// The key of an entry.
pub(crate) fn key(entry: &ObjectEntry) -> ObjectKey {
    ObjectKey::from_bytes(key_bytes(entry))
}

/// The same as bytes, to compare.
pub(crate) fn key_bytes(entry: &ObjectEntry) -> &[u8] {
    entry.object.as_ref().map_or(&[], |object: &ObjectRef| &object.key)
}

/// Whether the version is the absence of the object.
pub(crate) fn is_deleted(entry: &ObjectEntry) -> bool {
    entry.tombstone || entry.delete_marker
}

/// A version for programs.
pub(crate) fn shown(entry: &ObjectEntry) -> Shown {
    let metadata = entry.metadata.clone().unwrap_or_default();
    Shown {
        bucket: entry.bucket.clone(),
        key: Key::from(&key(entry)),
        provider: entry.object.as_ref().map(|object| object.provider.clone()).unwrap_or_default(),
        size: (!is_deleted(entry)).then_some(entry.size),
        etag: entry.etag.clone(),
        version_id: entry.version_id.clone(),
        tick: entry.tick,
        recorded: units::timestamp(entry.recorded_unix),
        current: entry.current,
        deleted: is_deleted(entry),
        content_known: entry.content_known,
        gap: entry.gap.clone(),
        headers: headers(&metadata),
        tags: metadata.tags.into_iter().collect(),
    }
}

/// The headers as text; a name that stands several times has its values joined, as HTTP allows.
pub(crate) fn headers(metadata: &Metadata) -> BTreeMap<String, String> {
    let mut headers = BTreeMap::new();
    for header in &metadata.headers {
        let value = String::from_utf8_lossy(&header.value);
        headers
            .entry(header.name.clone())
            .and_modify(|earlier: &mut String| {
                earlier.push_str(", ");
                earlier.push_str(&value);
            })
            .or_insert_with(|| value.into_owned());
    }
    headers
}

/// What is special about a version, in a word or two; empty when nothing is.
pub(crate) fn note(entry: &ObjectEntry) -> String {
    let mut words = Vec::new();
    match (entry.tombstone, entry.delete_marker) {
        (_, true) => words.push("delete marker".to_owned()),
        (true, false) => words.push("deleted".to_owned()),
        (false, false) if !entry.content_known => words.push("content missing".to_owned()),
        (false, false) => {}
    }
    if !entry.gap.is_empty() {
        words.push(format!("gap {}", entry.gap));
    }
    words.join(", ")
}

/// The size, or a dash where there is none.
pub(crate) fn size(entry: &ObjectEntry) -> String {
    if is_deleted(entry) { "-".into() } else { units::bytes(entry.size) }
}

/// A text, or a dash in its place.
pub(crate) fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".into() } else { text.to_owned() }
}
