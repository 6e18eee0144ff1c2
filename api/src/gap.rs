//! Gaps: what the copy is known not to know, each with a reason and with what may close it.

use std::fmt;
use std::str::FromStr;

/// How much of a binding a gap puts in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GapScope {
    /// One version of one key.
    Version,
    /// One key.
    Key,
    /// Any key of one bucket.
    Bucket,
    /// Any key of any bucket of the binding.
    Binding,
}

impl GapScope {
    /// The word on the wire and in listings.
    pub fn as_str(self) -> &'static str {
        match self {
            GapScope::Version => "Version",
            GapScope::Key => "Key",
            GapScope::Bucket => "Bucket",
            GapScope::Binding => "Binding",
        }
    }
}

impl FromStr for GapScope {
    type Err = UnknownWord;
    fn from_str(word: &str) -> Result<GapScope, UnknownWord> {
        [GapScope::Version, GapScope::Key, GapScope::Bucket, GapScope::Binding]
            .into_iter()
            .find(|scope| scope.as_str() == word)
            .ok_or_else(|| UnknownWord(word.into()))
    }
}

/// Which reading of the cloud closes a gap of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClosedBySighting {
    /// A HEAD, GET or listing begun after the gap's end that names a recorded version, or absence.
    BegunAfter,
    /// A HEAD or GET begun at least the settling time (60 s) after the gap's end that names a
    /// recorded version, or a 404; the write may still be on its way until then.
    Settled,
    /// No sighting: the content was never seen, or the sighting cannot tell.
    Never,
}

/// Why the copy does not know something. One enum for sidecar, store, migrate, metrics and people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GapReason {
    /// Writes of one key that nothing orders, with different content or metadata.
    Concurrent,
    /// The whole body went out and no final answer was seen: it may be applied, now or later.
    OutcomeUnknown,
    /// A write was announced and its sidecar vanished before it told the outcome.
    IntentLost,
    /// The budget of captured bytes was used up: the live bytes went on, the copy did not.
    Overflow,
    /// The store was away while the operation ran, so its content was not kept.
    StoreAway,
    /// Blocks that the record names are not in the store.
    MissingBlocks,
    /// The store had no room for the content.
    StoreFull,
    /// The cloud said yes before it had the whole body.
    EarlyAnswer,
    /// Length, digest or checksum do not agree with the bytes that were seen.
    ChecksumMismatch,
    /// The request or answer breaks the protocol in a way that leaves its meaning open.
    Malformed,
    /// A bound of the observer was passed: a head, an XML document or a listing larger than it reads.
    TooLarge,
    /// The operation changes an object in a way that is not captured.
    Unsupported,
    /// Encrypted with a key that the client keeps (SSE-C).
    SseC,
    /// A part or a Complete of an upload whose beginning was not seen.
    UnknownUpload,
    /// A Complete names a part that was not recorded.
    UnknownPart,
    /// A copy whose source is not known in the version that was copied.
    UnknownSource,
    /// Bytes on a bound connection that are not understood.
    Unparsed,
    /// HTTP/2 that is passed through unobserved.
    Http2,
    /// A client that does not trust the pod's certificate authority is passed through.
    Distrust,
    /// The journal of the pod was full.
    JournalFull,
    /// Stored bytes are damaged: they do not hash to their name any more.
    Damaged,
    /// Too many gaps of one bucket were folded into one.
    Folded,
    /// A listing or HEAD shows a version that was never recorded.
    UnseenVersion,
    /// The sidecar's relay ended again and again, so everything is passed through.
    RelayCrashed,
    /// A reason of a newer release.
    Other,
}

impl GapReason {
    /// Every reason, in the order in which people read them.
    pub const ALL: [GapReason; 25] = [
        GapReason::Concurrent,
        GapReason::OutcomeUnknown,
        GapReason::IntentLost,
        GapReason::Overflow,
        GapReason::StoreAway,
        GapReason::MissingBlocks,
        GapReason::StoreFull,
        GapReason::EarlyAnswer,
        GapReason::ChecksumMismatch,
        GapReason::Malformed,
        GapReason::TooLarge,
        GapReason::Unsupported,
        GapReason::SseC,
        GapReason::UnknownUpload,
        GapReason::UnknownPart,
        GapReason::UnknownSource,
        GapReason::Unparsed,
        GapReason::Http2,
        GapReason::Distrust,
        GapReason::JournalFull,
        GapReason::Damaged,
        GapReason::Folded,
        GapReason::UnseenVersion,
        GapReason::RelayCrashed,
        GapReason::Other,
    ];

    /// The word on the wire, in metrics and in listings.
    pub fn as_str(self) -> &'static str {
        match self {
            GapReason::Concurrent => "Concurrent",
            GapReason::OutcomeUnknown => "OutcomeUnknown",
            GapReason::IntentLost => "IntentLost",
            GapReason::Overflow => "Overflow",
            GapReason::StoreAway => "StoreAway",
            GapReason::MissingBlocks => "MissingBlocks",
            GapReason::StoreFull => "StoreFull",
            GapReason::EarlyAnswer => "EarlyAnswer",
            GapReason::ChecksumMismatch => "ChecksumMismatch",
            GapReason::Malformed => "Malformed",
            GapReason::TooLarge => "TooLarge",
            GapReason::Unsupported => "Unsupported",
            GapReason::SseC => "SseC",
            GapReason::UnknownUpload => "UnknownUpload",
            GapReason::UnknownPart => "UnknownPart",
            GapReason::UnknownSource => "UnknownSource",
            GapReason::Unparsed => "Unparsed",
            GapReason::Http2 => "Http2",
            GapReason::Distrust => "Distrust",
            GapReason::JournalFull => "JournalFull",
            GapReason::Damaged => "Damaged",
            GapReason::Folded => "Folded",
            GapReason::UnseenVersion => "UnseenVersion",
            GapReason::RelayCrashed => "RelayCrashed",
            GapReason::Other => "Other",
        }
    }

    /// Reads a word of the wire; a word of a newer release is [`GapReason::Other`], which only a
    /// complete backfill closes.
    pub fn from_wire(word: &str) -> GapReason {
        GapReason::ALL.into_iter().find(|reason| reason.as_str() == word).unwrap_or(GapReason::Other)
    }

    /// Which sighting closes a gap of a key with this reason.
    pub fn closed_by_sighting(self) -> ClosedBySighting {
        match self {
            GapReason::Concurrent => ClosedBySighting::BegunAfter,
            GapReason::OutcomeUnknown | GapReason::IntentLost => ClosedBySighting::Settled,
            GapReason::Overflow
            | GapReason::StoreAway
            | GapReason::MissingBlocks
            | GapReason::StoreFull
            | GapReason::EarlyAnswer
            | GapReason::ChecksumMismatch
            | GapReason::Malformed
            | GapReason::TooLarge
            | GapReason::Unsupported
            | GapReason::UnknownUpload
            | GapReason::UnknownPart
            | GapReason::UnknownSource
            | GapReason::UnseenVersion => ClosedBySighting::BegunAfter,
            GapReason::SseC
            | GapReason::Unparsed
            | GapReason::Http2
            | GapReason::Distrust
            | GapReason::JournalFull
            | GapReason::Damaged
            | GapReason::Folded
            | GapReason::RelayCrashed
            | GapReason::Other => ClosedBySighting::Never,
        }
    }

    /// Whether a recorded write of the same key, begun at or after the gap's end, closes it: the
    /// final answer of what was lost is known, so nothing of it can be applied later.
    pub fn closed_by_later_write(self) -> bool {
        !matches!(
            self,
            GapReason::OutcomeUnknown
                | GapReason::IntentLost
                | GapReason::Unparsed
                | GapReason::Http2
                | GapReason::Distrust
                | GapReason::JournalFull
                | GapReason::Folded
                | GapReason::RelayCrashed
                | GapReason::Other
        )
    }

    /// One sentence for people: what happened.
    pub fn meaning(self) -> &'static str {
        match self {
            GapReason::Concurrent => "writes of one key overlapped and their order at the cloud is not known",
            GapReason::OutcomeUnknown => "a whole body went out and the cloud's answer was not seen",
            GapReason::IntentLost => "the sidecar vanished between a write and its outcome",
            GapReason::Overflow => "the pod's budget of captured bytes was used up",
            GapReason::StoreAway => "the store could not be reached",
            GapReason::MissingBlocks => "blocks that the record names are not in the store",
            GapReason::StoreFull => "the store had no room",
            GapReason::EarlyAnswer => "the cloud answered before it had the whole body",
            GapReason::ChecksumMismatch => "length or checksum disagree with the bytes that were seen",
            GapReason::Malformed => "the exchange breaks the protocol",
            GapReason::TooLarge => "the exchange passes a bound of the observer",
            GapReason::Unsupported => "this kind of write is not captured",
            GapReason::SseC => "the object is encrypted with a key that only the client has",
            GapReason::UnknownUpload => "the beginning of the multipart upload was not seen",
            GapReason::UnknownPart => "a part of the multipart upload was not recorded",
            GapReason::UnknownSource => "the source of the copy is not known in that version",
            GapReason::Unparsed => "bytes on a bound connection were not understood",
            GapReason::Http2 => "HTTP/2 was passed through unobserved",
            GapReason::Distrust => "a client does not trust the pod's certificate authority",
            GapReason::JournalFull => "the pod's journal was full",
            GapReason::Damaged => "stored bytes are damaged",
            GapReason::Folded => "many gaps of this bucket were folded into one",
            GapReason::UnseenVersion => "the cloud shows a version that was never recorded",
            GapReason::RelayCrashed => "the sidecar's relay ended again and again, and everything was passed through",
            GapReason::Other => "a reason of a newer release",
        }
    }
}

impl fmt::Display for GapReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word of the wire that this release does not know.
#[derive(Debug, thiserror::Error)]
#[error("unknown word \"{0}\"")]
pub struct UnknownWord(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_survives_the_wire() {
        for reason in GapReason::ALL {
            assert_eq!(GapReason::from_wire(reason.as_str()), reason);
        }
        assert_eq!(GapReason::from_wire("FromTheFuture"), GapReason::Other);
    }

    #[test]
    fn a_write_that_may_still_arrive_is_never_closed_by_a_later_write() {
        for reason in [GapReason::OutcomeUnknown, GapReason::IntentLost] {
            assert!(!reason.closed_by_later_write());
            assert_eq!(reason.closed_by_sighting(), ClosedBySighting::Settled);
        }
    }
}
