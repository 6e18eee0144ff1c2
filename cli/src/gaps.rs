//! `hawser gaps`: what the copy is known not to know, and what repairs it.

use std::collections::{BTreeMap, BTreeSet};

use hawser_api::v1::GapEntry;
use hawser_api::{GapReason, ObjectKey};
use serde::Serialize;

use crate::Found;
use crate::args::GapsArgs;
use crate::entry::{self, Key};
use crate::failure::Failure;
use crate::print::{Align, Out, Table};
use crate::reasons;
use crate::store::Store;
use crate::units;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    id: u64,
    binding: &'a str,
    scope: &'a str,
    reason: &'a str,
    detail: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    provider: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    bucket: &'a str,
    #[serde(flatten)]
    key: Option<Key>,
    #[serde(skip_serializing_if = "str::is_empty")]
    version_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    etag: &'a str,
    begin_tick: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_tick: Option<u64>,
    opened: Option<String>,
    closed: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    closed_by: &'a str,
}

pub(crate) async fn run(args: &GapsArgs, out: &mut Out) -> Result<Found, Failure> {
    let reason = args.reason.as_deref().map(known_reason).transpose()?;
    let mut store = Store::at(&args.store).await?;
    let meant = match &args.address {
        Some(address) => Some((names_of(&mut store, &address.bucket).await?, address.prefix.as_slice())),
        None => None,
    };
    let mut stream = store.gaps(args.all).await?;
    let mut columns = vec![
        ("OPENED", Align::Left),
        ("REASON", Align::Left),
        ("SCOPE", Align::Left),
        ("OF", Align::Left),
        ("DETAIL", Align::Left),
    ];
    if args.all {
        columns.insert(1, ("CLOSED BY", Align::Left));
    }
    let mut table = Table::new(&columns);
    let mut open: BTreeMap<GapReason, u64> = BTreeMap::new();
    while let Some(gap) = stream.message().await.map_err(|status| store.refused(status))? {
        let of_reason = reason.is_none_or(|reason| gap.reason == reason.as_str());
        if !of_reason || !meant.as_ref().is_none_or(|(names, prefix)| concerns(&gap, names, prefix)) {
            continue;
        }
        if !gap.closed {
            *open.entry(GapReason::from_wire(&gap.reason)).or_default() += 1;
        }
        if out.json() {
            out.object(&shown(&gap))?;
            continue;
        }
        let mut cells =
            vec![units::time(gap.opened_unix), gap.reason.clone(), gap.scope.clone(), place(&gap), gap.detail.clone()];
        if args.all {
            cells.insert(1, if gap.closed { entry::or_dash(&gap.closed_by) } else { "open".into() });
        }
        table.row(out, cells)?;
    }
    if !out.json() {
        table.print(out)?;
        hints(&open, out)?;
    }
    out.flush()?;
    Ok(Found::Fine)
}

fn known_reason(word: &str) -> Result<GapReason, Failure> {
    let same = |reason: &GapReason| reason.as_str().eq_ignore_ascii_case(word);
    GapReason::ALL.into_iter().find(same).ok_or_else(|| {
        let all: Vec<&str> = GapReason::ALL.iter().map(|reason| reason.as_str()).collect();
        Failure::Usage(format!("--reason {word}: must be one of {}", all.join(", ")))
    })
}

/// What the store and the providers call a bucket: a gap has the provider's name of it.
async fn names_of(store: &mut Store, bucket: &str) -> Result<BTreeSet<String>, Failure> {
    let bindings = store.status().await?.bindings;
    let bound = bindings.into_iter().flat_map(|binding| binding.buckets).filter(|bound| bound.name == bucket);
    Ok(bound.flat_map(|bound| bound.names.into_values()).chain([bucket.to_owned()]).collect())
}

/// Whether a gap puts keys below `prefix` in doubt, in a bucket of one of these `names`. One of a binding may be any key's.
fn concerns(gap: &GapEntry, names: &BTreeSet<String>, prefix: &[u8]) -> bool {
    let Some(object) = gap.object.as_ref().filter(|object| !object.bucket.is_empty()) else { return true };
    names.contains(&object.bucket) && (object.key.is_empty() || object.key.starts_with(prefix))
}

fn shown(gap: &GapEntry) -> Shown<'_> {
    let object = gap.object.as_ref();
    let key = object.filter(|object| !object.key.is_empty()).map(|object| ObjectKey::from_bytes(object.key.to_vec()));
    Shown {
        id: gap.id,
        binding: &gap.binding,
        scope: &gap.scope,
        reason: &gap.reason,
        detail: &gap.detail,
        provider: object.map_or("", |object| &object.provider),
        bucket: object.map_or("", |object| &object.bucket),
        key: key.as_ref().map(Key::from),
        version_id: &gap.version_id,
        etag: &gap.etag,
        begin_tick: gap.begin_tick,
        end_tick: (gap.end_tick > 0).then_some(gap.end_tick),
        opened: units::timestamp(gap.opened_unix),
        closed: gap.closed,
        closed_by: &gap.closed_by,
    }
}

/// What is in doubt: `bucket/key`, `bucket`, or the whole binding.
fn place(gap: &GapEntry) -> String {
    let Some(object) = gap.object.as_ref().filter(|object| !object.bucket.is_empty()) else {
        return format!("all of {}", gap.binding);
    };
    if object.key.is_empty() {
        return object.bucket.clone();
    }
    let version = if gap.version_id.is_empty() { String::new() } else { format!(" version {}", gap.version_id) };
    format!("{}/{}{version}", object.bucket, ObjectKey::from_bytes(object.key.to_vec()))
}

fn hints(open: &BTreeMap<GapReason, u64>, out: &mut Out) -> Result<(), Failure> {
    if open.is_empty() {
        return out.line("no gap is open");
    }
    out.line("")?;
    for (reason, number) in open {
        out.line(&format!("{}: {}: {}", units::counted(*number, "open gap", "open gaps"), reason, reason.meaning()))?;
        out.line(&format!("  {}", reasons::repair(*reason)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use hawser_api::v1::ObjectRef;

    use super::*;

    fn gap(bucket: &str, key: &str) -> GapEntry {
        let object =
            ObjectRef { provider: "s3+https://a.test".into(), bucket: bucket.into(), key: key.to_owned().into() };
        GapEntry { binding: "photos".into(), object: Some(object), ..GapEntry::default() }
    }

    #[test]
    fn a_gap_concerns_the_keys_that_it_may_be_about() {
        let names = ["b".to_owned(), "b-elsewhere".to_owned()].into();
        for (gap, wanted, place_wanted) in [
            (gap("b", "x/1"), true, "b/x/1"),
            (gap("b", "y"), false, "b/y"),
            (gap("b-elsewhere", "x/2"), true, "b-elsewhere/x/2"),
            (gap("b", ""), true, "b"),
            (gap("c", ""), false, "c"),
            (gap("", ""), true, "all of photos"),
            (GapEntry { binding: "photos".into(), ..GapEntry::default() }, true, "all of photos"),
        ] {
            assert_eq!(concerns(&gap, &names, b"x/"), wanted, "{gap:?}");
            assert_eq!(place(&gap), place_wanted);
        }
    }

    #[test]
    fn a_reason_is_known_in_any_case_and_a_wrong_one_is_told_the_right_ones() {
        assert_eq!(known_reason("overflow").unwrap(), GapReason::Overflow);
        let error = known_reason("Overfow").unwrap_err().to_string();
        assert!(error.contains("Concurrent, OutcomeUnknown"), "{error}");
    }
}
