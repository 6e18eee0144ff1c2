//! What the log says of the catalog: one entry, one fact. Entries are kept for ever, so fields are only
//! added. Hashes of blocks stand in them veiled ([`veil`]), ticks of stamps are those of the store that
//! committed the entry, 0 where they were heard from another life of it.

use bytes::Bytes;
use hawser_api::Stamp;
use hawser_api::v1;

use crate::order::{Mark, Span};

/// The version of entries that this release writes and the highest that it reads.
pub(crate) const ENTRY_VERSION: u32 = 1;

/// One entry of the log.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Entry {
    #[prost(uint32, tag = "1")]
    pub(crate) version: u32,
    /// For people; orders nothing.
    #[prost(int64, tag = "2")]
    pub(crate) recorded_unix: i64,
    #[prost(string, tag = "3")]
    pub(crate) binding: String,
    /// Who told it; empty when the store itself did.
    #[prost(bytes = "bytes", tag = "4")]
    pub(crate) session: Bytes,
    /// Its number there; 0 when it has none.
    #[prost(uint64, tag = "5")]
    pub(crate) sequence: u64,
    #[prost(
        oneof = "Fact",
        tags = "10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34"
    )]
    pub(crate) fact: Option<Fact>,
}

/// What an entry says.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Fact {
    #[prost(message, tag = "10")]
    Bound(v1::Hello),
    #[prost(message, tag = "11")]
    Intent(v1::Intent),
    #[prost(message, tag = "12")]
    Recorded(v1::Recorded),
    #[prost(message, tag = "13")]
    Abandoned(v1::Abandoned),
    #[prost(message, tag = "14")]
    Gap(v1::GapFound),
    #[prost(message, tag = "15")]
    GapOpen(v1::GapOpen),
    #[prost(message, tag = "16")]
    GapClose(v1::GapClose),
    #[prost(message, tag = "17")]
    Sightings(v1::Sightings),
    #[prost(message, tag = "18")]
    Read(v1::ObservedRead),
    #[prost(message, tag = "19")]
    Journalled(v1::Journalled),
    #[prost(message, tag = "20")]
    Lost(Lost),
    #[prost(message, tag = "21")]
    Settled(Settled),
    #[prost(message, tag = "22")]
    Leased(Leased),
    #[prost(message, tag = "23")]
    BackfillBegun(BackfillBegun),
    #[prost(message, tag = "24")]
    Reconciled(Reconciled),
    #[prost(message, tag = "25")]
    Absent(v1::ConfirmAbsentRequest),
    #[prost(message, tag = "26")]
    BackfillEnded(BackfillEnded),
    #[prost(message, tag = "27")]
    Checkpointed(Checkpointed),
    #[prost(message, tag = "28")]
    Landed(v1::LandedRequest),
    #[prost(message, tag = "29")]
    Forced(v1::SetForceRequest),
    #[prost(message, tag = "30")]
    Trimmed(Trimmed),
    #[prost(message, tag = "31")]
    Damaged(Damaged),
    #[prost(message, tag = "32")]
    Registered(Registered),
    #[prost(message, tag = "33")]
    Forgotten(v1::BindingName),
    #[prost(message, tag = "34")]
    EpochRaised(v1::StartMigrationRequest),
}

/// A session, or some of its operations, will not be heard of again.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Lost {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) session: Bytes,
    /// Empty with `all`.
    #[prost(uint64, repeated, tag = "2")]
    pub(crate) operations: Vec<u64>,
    #[prost(bool, tag = "3")]
    pub(crate) all: bool,
}

/// The settling time of every gap that ended up to this tick is over: what has not reached the cloud by now
/// never will.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Settled {
    #[prost(uint64, tag = "1")]
    pub(crate) through_tick: u64,
}

/// A migration holds the binding, or let it go.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Leased {
    #[prost(uint64, tag = "1")]
    pub(crate) id: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) epoch: u64,
    #[prost(string, tag = "3")]
    pub(crate) holder: String,
    #[prost(bool, tag = "4")]
    pub(crate) released: bool,
    /// Of a Job in a cluster: the binding that it was made for, and for a migration its epoch.
    #[prost(string, tag = "5")]
    pub(crate) binding_uid: String,
    #[prost(uint64, tag = "6")]
    pub(crate) migration_epoch: u64,
}

/// A binding as a cluster's operator tells it.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Registered {
    #[prost(message, required, tag = "1")]
    pub(crate) hello: v1::Hello,
    #[prost(string, tag = "2")]
    pub(crate) uid: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct BackfillBegun {
    #[prost(string, tag = "1")]
    pub(crate) provider: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) prefix: Bytes,
    /// The highest tick that was durable when it was asked for.
    #[prost(uint64, tag = "3")]
    pub(crate) begin_tick: u64,
}

/// What a page of a provider's listing said, compared with the catalog.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Reconciled {
    #[prost(uint64, tag = "1")]
    pub(crate) backfill: u64,
    #[prost(string, tag = "2")]
    pub(crate) bucket: String,
    #[prost(uint64, tag = "3")]
    pub(crate) begin_tick: u64,
    #[prost(uint64, tag = "4")]
    pub(crate) listed_objects: u64,
    #[prost(uint64, tag = "5")]
    pub(crate) listed_bytes: u64,
    #[prost(uint64, tag = "6")]
    pub(crate) held_objects: u64,
    #[prost(uint64, tag = "7")]
    pub(crate) held_bytes: u64,
    /// Keys held as current that the page lacks.
    #[prost(bytes = "bytes", repeated, tag = "8")]
    pub(crate) absent: Vec<Bytes>,
    /// Listed versions that are not the recorded current one.
    #[prost(message, repeated, tag = "9")]
    pub(crate) differing: Vec<v1::ListedObject>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct BackfillEnded {
    #[prost(uint64, tag = "1")]
    pub(crate) backfill: u64,
    #[prost(bool, tag = "2")]
    pub(crate) complete: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Checkpointed {
    #[prost(message, repeated, tag = "1")]
    pub(crate) checkpoints: Vec<v1::Checkpoint>,
}

/// What retention let go, and uploads that expired.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Trimmed {
    #[prost(message, repeated, tag = "1")]
    pub(crate) versions: Vec<TrimmedVersion>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) uploads: Vec<TrimmedUpload>,
    /// Gaps that closed long ago, by id.
    #[prost(uint64, repeated, tag = "3")]
    pub(crate) gaps: Vec<u64>,
    /// Sessions that were not heard of for long.
    #[prost(bytes = "bytes", repeated, tag = "4")]
    pub(crate) sessions: Vec<Bytes>,
    /// Backfills that ended long ago, or never, by id.
    #[prost(uint64, repeated, tag = "5")]
    pub(crate) backfills: Vec<u64>,
    /// Deleted buckets of which more is to be emptied.
    #[prost(message, repeated, tag = "6")]
    pub(crate) emptied: Vec<EmptiedBucket>,
}
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct EmptiedBucket {
    #[prost(string, tag = "1")]
    pub(crate) provider: String,
    #[prost(string, tag = "2")]
    pub(crate) bucket: String,
}
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct TrimmedVersion {
    #[prost(message, required, tag = "1")]
    pub(crate) object: v1::ObjectRef,
    #[prost(uint64, tag = "2")]
    pub(crate) tick: u64,
}
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct TrimmedUpload {
    #[prost(string, tag = "1")]
    pub(crate) provider: String,
    #[prost(string, tag = "2")]
    pub(crate) bucket: String,
    #[prost(string, tag = "3")]
    pub(crate) upload_id: String,
}

/// Versions whose stored bytes are damaged.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Damaged {
    #[prost(message, repeated, tag = "1")]
    pub(crate) versions: Vec<TrimmedVersion>,
}

/// The span of an operation that `session` saw and that commits at `tick`.
pub(crate) fn span(session: &Bytes, head: Option<&v1::Stamp>, answer: Option<&v1::Stamp>, tick: u64) -> Span {
    let (head, answer) = (head.copied().unwrap_or_default(), answer.copied().unwrap_or_default());
    Span {
        begin: Mark { tick: head.tick, session: session.clone(), counter: head.counter },
        end: Mark { tick, session: session.clone(), counter: answer.counter },
    }
}

/// Rewrites a stamp for the log: a tick heard from another life of the store, or one that this life has not
/// reached, orders after nothing.
pub(crate) fn believe(stamp: &mut Option<v1::Stamp>, incarnation: u64, durable_tick: u64) {
    if let Some(stamp) = stamp {
        let tick = Stamp::from(*stamp).tick_in(incarnation);
        stamp.tick = if tick > durable_tick { 0 } else { tick };
        stamp.incarnation = 0;
    }
}

/// Puts `change` over each hash of a concatenated list.
pub(crate) fn map_hashes(hashes: &[u8], change: impl Fn(&[u8; 32]) -> [u8; 32]) -> Bytes {
    let (hashes, _) = hashes.as_chunks::<32>();
    hashes.iter().flat_map(change).collect::<Vec<u8>>().into()
}

/// Every run of blocks that a write names.
pub(crate) fn bodies(write: &mut v1::Write) -> Option<&mut v1::Body> {
    match write.change.as_mut()? {
        v1::write::Change::Put(put) => put.body.as_mut(),
        v1::write::Change::Part(part) => part.body.as_mut(),
        _ => None,
    }
}
