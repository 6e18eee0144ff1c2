//! Deletes: DeleteObject and DeleteObjects.

use std::collections::BTreeSet;

use hawser_api::{GapReason, ObjectKey};

use super::attributes;
use super::proven::{self, Proven};
use super::xml::Element;
use crate::operation::{Deleted, Object, Operation, Place, VersionId};

/// Most keys in one DeleteObjects; S3 refuses more, and so does every service that is known.
pub const KEYS_MAX: usize = 1000;

/// DeleteObject. The answer's version is that of the marker, unless a version was asked for.
pub fn one(proven: &Proven<'_>, object: Object, version: Option<VersionId>) -> Operation {
    let is_marker = proven.answer.text("x-amz-delete-marker").is_some_and(|text| text.eq_ignore_ascii_case("true"));
    let answered = attributes::version(proven.answer);
    let marker = if is_marker { answered.or_else(|| version.clone()) } else { None };
    Operation::Delete(Deleted { object, version, marker })
}

/// DeleteObjects: what the request names, without what the answer has an error for. A quiet answer lists
/// nothing else, so its silence is a yes.
pub fn many(proven: &Proven<'_>, bucket: String) -> Result<Operation, GapReason> {
    let asked = asked(&proven.document)?;
    let result = proven.result("DeleteResult")?;
    let (mut deleted, mut unknown) = (Vec::new(), Vec::new());
    for (key, version) in &asked {
        let alone = asked.iter().filter(|(other, _)| other == key).count() == 1;
        let is_it = |element: &&Element| names(element, key, version.as_deref(), alone);
        let object = Object { bucket: bucket.clone(), key: ObjectKey::from_bytes(key.as_str()) };
        let version = version.clone().map(VersionId);
        match result.all("Error").find(is_it) {
            Some(error) if proven::is_servers_failure(error) => {
                unknown.push(version.map_or(Place::Object(object.clone()), |id| Place::Version(object, id)));
            }
            Some(_) => {}
            None => {
                let said = result.all("Deleted").find(is_it);
                let is_marker = said.and_then(|said| said.text_of("DeleteMarker")) == Some("true");
                let marker = said.filter(|_| is_marker).and_then(|said| said.text_of("DeleteMarkerVersionId"));
                deleted.push(Deleted { object, version, marker: marker.map(|id| VersionId(id.to_owned())) });
            }
        }
    }
    Ok(Operation::DeleteMany { bucket, deleted, unknown })
}

/// Keys that the document of a DeleteObjects names, each once; none when it is not understood.
pub fn keys(document: &[u8]) -> Vec<ObjectKey> {
    let names: BTreeSet<String> = asked(document).unwrap_or_default().into_iter().map(|(key, _)| key).collect();
    names.into_iter().map(ObjectKey::from_bytes).collect()
}

/// Whether an element of the answer is about that key and version. Some services leave the version out of it, so
/// a key that was asked for only once is enough.
fn names(element: &Element, key: &str, version: Option<&str>, alone: bool) -> bool {
    element.text_of("Key") == Some(key) && (alone || element.text_of("VersionId") == version)
}

/// Keys and versions that the request names.
fn asked(document: &[u8]) -> Result<Vec<(String, Option<String>)>, GapReason> {
    let root = Element::parse(document).map_err(|_| GapReason::Malformed)?;
    if root.name != "Delete" {
        return Err(GapReason::Malformed);
    }
    let object = |object: &Element| {
        let key = object.text_of("Key").ok_or(GapReason::Malformed)?.to_owned();
        Ok((key, object.text_of("VersionId").map(str::to_owned)))
    };
    let asked: Vec<_> = root.all("Object").map(object).collect::<Result<_, _>>()?;
    if asked.len() > KEYS_MAX { Err(GapReason::TooLarge) } else { Ok(asked) }
}
