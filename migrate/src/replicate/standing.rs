//! How a version at the source stands to what is recorded of its key at the target: a rule without I/O.
//!
//! On the way to a provider that is not in force yet, the source is the truth. On the way from one that is
//! not in force any more, a version counts only if it came after what the target has: after the very version
//! that was carried there, by the order of its own provider, or after a pod's write there, by the ticks that
//! were heard. In doubt the target's stays.
use hawser_api::v1;

use super::carry::Record;
use crate::cloud::headers;

/// Which way objects are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the provider in force to the one that will be.
    Forward,
    /// From a provider that is not in force to the one that is.
    Over,
}

/// Whether a version of a provider that is not in force says anything of its own: what a migration wrote
/// there is somebody else's, and what only vanished there may have been cleared away with the old cloud.
pub fn speaks(entry: &v1::ObjectEntry) -> bool {
    let gone = entry.tombstone || entry.delete_marker;
    entry.landed_from == 0 && (entry.observed || !gone)
}

/// What `known` is to `entry`.
pub fn record(way: Way, entry: &v1::ObjectEntry, known: v1::KnownReply) -> Record {
    let Some(there) = known.current else { return Record::Nothing };
    let deleted = entry.tombstone || entry.delete_marker;
    let gone = there.tombstone || there.delete_marker;
    let carried = way == Way::Over && there.landed_from == entry.tick && entry.tick != 0;
    if !gone && !deleted && (carried || is_same(entry, &there)) {
        return Record::Same { etag: there.etag };
    }
    let before = match way {
        Way::Forward => known.ours || there.tick < entry.tick,
        Way::Over => is_before(entry, &there, known.ours),
    };
    match (gone, before) {
        (_, false) => Record::Newer,
        (true, true) => Record::Gone,
        (false, true) => Record::Older { etag: there.etag },
    }
}

/// Whether what is at the target was over before `entry` began.
fn is_before(entry: &v1::ObjectEntry, there: &v1::ObjectEntry, ours: bool) -> bool {
    let source = entry.object.as_ref().map(|object| &*object.provider);
    if ours && source == Some(&*there.written_at) {
        return there.landed_from < entry.tick; // its own provider has put it behind this one
    }
    there.over_tick != 0 && there.over_tick <= entry.begun_tick
}

/// Whether the target's record has the content and the carried metadata of the source's.
fn is_same(entry: &v1::ObjectEntry, there: &v1::ObjectEntry) -> bool {
    let carried = |entry: &v1::ObjectEntry| {
        let metadata = entry.metadata.clone().unwrap_or_default();
        (headers::carried(&metadata), metadata.tags)
    };
    !entry.content.is_empty() && entry.content == there.content && carried(entry) == carried(there)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "s3+https://old.test";
    const NEW: &str = "s3+https://new.test";
    const THIRD: &str = "s3+https://third.test";

    fn put(provider: &str, tick: u64, begun: u64, content: &'static [u8]) -> v1::ObjectEntry {
        v1::ObjectEntry {
            object: Some(v1::ObjectRef { provider: provider.into(), ..v1::ObjectRef::default() }),
            tick,
            begun_tick: begun,
            over_tick: tick,
            written_at: provider.into(),
            observed: true,
            content: content.into(),
            etag: "there".into(),
            ..v1::ObjectEntry::default()
        }
    }

    fn delete(provider: &str, tick: u64, begun: u64) -> v1::ObjectEntry {
        v1::ObjectEntry { tombstone: true, content: Default::default(), ..put(provider, tick, begun, b"") }
    }

    /// What a migration wrote at the new provider at `tick`.
    fn landed(source: &v1::ObjectEntry, tick: u64) -> v1::ObjectEntry {
        let behind = source.clone();
        v1::ObjectEntry { tick, begun_tick: 0, landed_from: source.tick, observed: false, ..behind }
    }

    #[test]
    fn what_was_written_at_the_old_provider_counts_only_after_what_the_new_one_has() {
        let older = || Record::Older { etag: "there".into() };
        let same = || Record::Same { etag: "there".into() };
        let first = put(OLD, 10, 9, b"first");
        let elsewhere = put(THIRD, 8, 7, b"third");
        let rows: Vec<(&str, v1::ObjectEntry, Option<v1::ObjectEntry>, Record)> = vec![
            ("a new key", put(OLD, 30, 29, b"x"), None, Record::Nothing),
            ("nothing new", first.clone(), Some(landed(&first, 20)), same()),
            ("overwritten", put(OLD, 30, 29, b"x"), Some(landed(&first, 20)), older()),
            ("overwritten, begun before anything was heard", put(OLD, 30, 0, b"x"), Some(landed(&first, 20)), older()),
            ("found by a listing", put(OLD, 30, 0, b"x"), Some(landed(&first, 20)), older()),
            ("deleted", delete(OLD, 30, 29), Some(landed(&first, 20)), older()),
            (
                "written again after a carried delete",
                put(OLD, 30, 29, b"x"),
                Some(landed(&delete(OLD, 9, 8), 20)),
                Record::Gone,
            ),
            (
                "a late word of what was carried long ago",
                first.clone(),
                Some(landed(&put(OLD, 15, 14, b"x"), 20)),
                Record::Newer,
            ),
            ("replaced at the new one since", put(OLD, 30, 29, b"x"), Some(put(NEW, 40, 39, b"y")), Record::Newer),
            ("written at both at the same time", put(OLD, 40, 29, b"x"), Some(put(NEW, 30, 25, b"y")), Record::Newer),
            ("written at the new one before", put(OLD, 40, 35, b"x"), Some(put(NEW, 30, 25, b"y")), older()),
            (
                "a listing's word against a pod's write",
                put(OLD, 40, 0, b"x"),
                Some(put(NEW, 30, 25, b"y")),
                Record::Newer,
            ),
            ("equal at both", put(OLD, 40, 29, b"y"), Some(put(NEW, 30, 25, b"y")), same()),
            ("deleted at the new one, listed late", put(OLD, 40, 0, b"x"), Some(delete(NEW, 30, 25)), Record::Newer),
            ("deleted at the new one, then written", put(OLD, 40, 31, b"x"), Some(delete(NEW, 30, 25)), Record::Gone),
            ("deleted after a write at the new one", delete(OLD, 40, 31), Some(put(NEW, 30, 25, b"y")), older()),
            ("deleted while written at the new one", delete(OLD, 40, 29), Some(put(NEW, 30, 25, b"y")), Record::Newer),
            ("after what came from a third", put(OLD, 40, 31, b"x"), Some(landed(&elsewhere, 20)), older()),
            ("before what came from a third", put(OLD, 40, 7, b"x"), Some(landed(&elsewhere, 20)), Record::Newer),
        ];
        for (what, entry, current, wanted) in rows {
            let ours = current.as_ref().is_some_and(|there| there.landed_from != 0);
            let known = v1::KnownReply { recorded: current.is_some(), current, ours };
            assert_eq!(record(Way::Over, &entry, known), wanted, "{what}");
        }
    }

    #[test]
    fn what_a_migration_wrote_and_what_was_cleared_away_is_not_carried_back() {
        let unseen = |entry: v1::ObjectEntry| v1::ObjectEntry { observed: false, begun_tick: 0, ..entry };
        let rows = [
            ("a pod's write", put(OLD, 30, 29, b"x"), true),
            ("a pod's delete", delete(OLD, 30, 29), true),
            ("an object that a listing shows", unseen(put(OLD, 30, 29, b"x")), true),
            ("an object that a listing lacks", unseen(delete(OLD, 30, 29)), false),
            ("a copy of ours", landed(&put(NEW, 10, 9, b"x"), 30), false),
            ("a delete of ours", landed(&delete(NEW, 10, 9), 30), false),
        ];
        for (what, entry, wanted) in rows {
            assert_eq!(speaks(&entry), wanted, "{what}");
        }
    }

    #[test]
    fn on_the_way_to_a_new_provider_ours_is_replaced_and_a_later_write_there_is_kept() {
        let older = || Record::Older { etag: "there".into() };
        let first = put(OLD, 10, 9, b"first");
        let rows = [
            ("ours", put(OLD, 30, 29, b"x"), landed(&first, 20), true, older()),
            ("a pod's, before", put(OLD, 30, 29, b"x"), put(NEW, 20, 19, b"y"), false, older()),
            ("a pod's, later", put(OLD, 30, 29, b"x"), put(NEW, 40, 39, b"y"), false, Record::Newer),
            ("a pod's delete, before", put(OLD, 30, 29, b"x"), delete(NEW, 20, 19), false, Record::Gone),
        ];
        for (what, entry, there, ours, wanted) in rows {
            let known = v1::KnownReply { recorded: true, current: Some(there), ours };
            assert_eq!(record(Way::Forward, &entry, known), wanted, "{what}");
        }
    }
}
