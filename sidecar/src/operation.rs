//! What an observed connection tells about the objects of a cloud, in words that every adapter shares.
//!
//! For one exchange that may change something the order is [`Event::WriteBegan`], any number of
//! [`Event::Body`] (at most one [`Event::BodyLost`] ends them), [`Event::Finished`]. For one that reads an
//! object's content: [`Event::ReadBegan`], [`Event::Body`]s, [`Event::Finished`] with [`Outcome::Read`].
//! Every exchange that began is finished, whatever becomes of the connection. Sightings stand alone.
//! Exchanges that neither change nor show an object are not told at all.

use bytes::Bytes;
use hawser_api::{GapReason, GapScope, ObjectKey, Stamp};

use crate::http::ExchangeId;

/// One thing that a connection told, in the order in which it became known.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The head of a request that may change something went by: an intent can leave now.
    WriteBegan(WriteBegan),
    /// A successful answer carries content of an object, which follows as [`Event::Body`].
    ReadBegan(ReadBegan),
    /// The next bytes of the content, transfer codings and `aws-chunked` off. The bytes own their part of
    /// the pod's budget: it is given back when the last slice of them is dropped.
    Body {
        /// The exchange that carries it.
        exchange: ExchangeId,
        /// Never empty.
        bytes: Bytes,
    },
    /// The content cannot be known any more; no [`Event::Body`] follows, what came is of no use.
    /// The outcome follows when the cloud has answered: a refused write loses nothing.
    BodyLost {
        /// The exchange whose content it was.
        exchange: ExchangeId,
        /// Why.
        reason: GapReason,
    },
    /// The body of a write named the objects that it is about, where its head named only their bucket.
    Keys {
        /// The exchange.
        exchange: ExchangeId,
        /// Each once; never empty.
        keys: Vec<ObjectKey>,
    },
    /// The exchange is over.
    Finished(Finished),
    /// The cloud said what it holds, or does not hold, under a key.
    Sighting(Sighting),
    /// Nothing more of this connection will be understood: a gap of the binding until it closes. What was in
    /// flight has been finished before this.
    Unparsed {
        /// Why.
        reason: GapReason,
    },
}

/// An object, wherever it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Object {
    /// The provider's name of the bucket.
    pub bucket: String,
    /// The key in it.
    pub key: ObjectKey,
}

/// A version id of the cloud; opaque. S3's `null` is one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VersionId(pub String);

/// The name of content at the cloud, without its quotes. It compares and prints, and says nothing of MD5,
/// which it often is not.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ETag(pub String);

/// The id of a multipart upload; opaque.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UploadId(pub String);

/// The number of one part of a multipart upload: 1 to 10 000, holes allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartNumber(std::num::NonZeroU16);

impl PartNumber {
    /// The largest one (S3 `UploadPart`).
    pub const MAX: u16 = 10_000;

    /// Reads it as it stands in a query or a document; `None` when it is none.
    pub fn parse(text: &str) -> Option<PartNumber> {
        let number: std::num::NonZeroU16 = text.trim().parse().ok()?;
        (number.get() <= PartNumber::MAX).then_some(PartNumber(number))
    }

    /// The number.
    pub fn get(self) -> u16 {
        self.0.get()
    }
}

/// One header of an object: the name in lower case, the value as it was on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    /// In lower case.
    pub name: String,
    /// Without surrounding white space.
    pub value: Bytes,
}

/// One tag of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tag {
    /// The tag's key.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// What an object has besides its content.
///
/// `headers` are those that the cloud keeps with the object, whether it shows them in a GET
/// (`content-type`, `cache-control`, `content-disposition`, `content-encoding` without `aws-chunked`,
/// `content-language`, `expires`, `x-amz-meta-*`, `x-amz-website-redirect-location`,
/// `x-amz-storage-class`, `x-amz-checksum-*`, the kind of server-side encryption) or not (`x-amz-acl`,
/// `x-amz-grant-*`, `x-amz-object-lock-*`). Never a key, a credential or a signature.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// In the order of the wire, the cloud's answer after the request.
    pub headers: Vec<Header>,
    /// The object's tags: all that it has; `None` where the exchange tells nothing of them (a read, a Complete, a
    /// copy that takes them from its source).
    pub tags: Option<Vec<Tag>>,
}

impl Attributes {
    /// The first header of that lower-case name.
    pub fn header(&self, name: &str) -> Option<&Bytes> {
        self.headers.iter().find(|header| header.name == name).map(|header| &header.value)
    }
}

/// A write whose request head went by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteBegan {
    /// Names the exchange within its connection.
    pub exchange: ExchangeId,
    /// What kind of write it is.
    pub kind: WriteKind,
    /// Where: the bucket, and the key when the head alone tells it.
    pub place: Place,
    /// The multipart upload that it belongs to.
    pub upload: Option<(UploadId, Option<PartNumber>)>,
    /// Length of the content that [`Event::Body`] will carry, when it carries any and the length is known.
    pub length: Option<u64>,
    /// The stamp of the head's first byte.
    pub begin: Stamp,
}

/// Where a write may change something.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// One version of one object.
    Version(Object, VersionId),
    /// One object.
    Object(Object),
    /// Objects of a bucket that the head does not name, or the bucket itself.
    Bucket(String),
    /// Nobody can tell: the bucket is not understood.
    Unknown,
}

impl Place {
    /// How much a gap at this place puts in doubt.
    pub fn scope(&self) -> GapScope {
        match self {
            Place::Version(..) => GapScope::Version,
            Place::Object(_) => GapScope::Key,
            Place::Bucket(_) => GapScope::Bucket,
            Place::Unknown => GapScope::Binding,
        }
    }

    /// The bucket, if it is known.
    pub fn bucket(&self) -> Option<&str> {
        match self {
            Place::Version(object, _) | Place::Object(object) => Some(&object.bucket),
            Place::Bucket(bucket) => Some(bucket),
            Place::Unknown => None,
        }
    }

    /// The object, if it is one.
    pub fn object(&self) -> Option<&Object> {
        match self {
            Place::Version(object, _) | Place::Object(object) => Some(object),
            Place::Bucket(_) | Place::Unknown => None,
        }
    }
}

/// The kinds of writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WriteKind {
    /// The whole content of an object.
    Put,
    /// The beginning of a multipart upload: changes no object.
    CreateMultipart,
    /// One part: changes no object before the upload is completed.
    PutPart,
    /// One part, copied by the cloud.
    CopyPart,
    /// The object made of parts.
    CompleteMultipart,
    /// The end of an upload without an object.
    AbortMultipart,
    /// An object, copied by the cloud.
    Copy,
    /// One object or version deleted.
    Delete,
    /// Many objects or versions of one bucket deleted.
    DeleteMany,
    /// Tags replaced or removed.
    SetTags,
    /// The access list replaced.
    SetAcl,
    /// Retention or legal hold changed.
    SetLock,
    /// A bucket made.
    CreateBucket,
    /// A bucket removed.
    DeleteBucket,
    /// A change that is not captured; its success is a gap.
    Unsupported,
}

impl WriteKind {
    /// Whether a lost one leaves every object as it was: a part counts only when a Complete names it, and
    /// the Complete then finds it missing. Such an exchange needs no gap of its own.
    pub fn changes_no_object(self) -> bool {
        matches!(
            self,
            WriteKind::CreateMultipart | WriteKind::PutPart | WriteKind::CopyPart | WriteKind::AbortMultipart
        )
    }
}

/// Content of an object, on its way to the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadBegan {
    /// Names the exchange within its connection.
    pub exchange: ExchangeId,
    /// Whose content.
    pub object: Object,
    /// The version, when the answer names one.
    pub version: Option<VersionId>,
    /// Whether the request named the version: then it need not be the current one.
    pub version_was_asked: bool,
    /// The content's name, never missing: without it ranges cannot be joined.
    pub etag: ETag,
    /// As the cloud writes it; identifies, never orders.
    pub last_modified: Option<Bytes>,
    /// What of the object the body is.
    pub extent: Extent,
    /// The part number that was asked for, and of how many parts, when the answer says.
    pub part: Option<(PartNumber, Option<u16>)>,
    /// The object's headers as the answer has them; `None` when the request overrides them.
    pub attributes: Option<Attributes>,
    /// The stamp of the request head's first byte.
    pub begin: Stamp,
    /// The stamp of the answer head's last byte.
    pub end: Stamp,
}

/// What of an object a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All of it; the length when the answer declares it.
    Whole {
        /// In bytes.
        length: Option<u64>,
    },
    /// A range of it.
    Range {
        /// Offset of the first byte.
        first: u64,
        /// Offset of the last byte, which is part of the range.
        last: u64,
        /// Length of the whole object.
        total: u64,
    },
}

/// What the cloud said of a key, in passing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// The exchange that told it.
    pub exchange: ExchangeId,
    /// Of whom.
    pub object: Object,
    /// The version, when the cloud names one.
    pub version: Option<VersionId>,
    /// Whether this is what is current under the key, not a version that was asked for or listed beside it.
    pub current: bool,
    /// What is there.
    pub seen: Sighted,
    /// Where it was seen: some gaps are closed by a HEAD or GET, not by a listing.
    pub by: SightedBy,
    /// What an answer to a HEAD or GET shows besides, unless the request overrides it.
    pub shown: Option<Shown>,
    /// The stamp of the request head's first byte.
    pub begin: Stamp,
    /// The stamp of the answer: its head's last byte, for a listing its last byte.
    pub end: Stamp,
}

/// The metadata that an answer shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The object's headers.
    pub attributes: Attributes,
    /// How many tags it has; which, no such answer tells.
    pub tag_count: u64,
}

/// What is under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sighted {
    /// Content of this name.
    Present {
        /// The content's name.
        etag: ETag,
        /// Length of the whole object, when the answer tells it.
        size: Option<u64>,
    },
    /// Nothing, or a delete marker.
    Absent,
}

/// The request that a sighting comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SightedBy {
    /// A HEAD of the object.
    Head,
    /// A GET of the object.
    Get,
    /// A page of a listing.
    Listing,
}

/// The end of an exchange that began.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// The exchange that ended.
    pub exchange: ExchangeId,
    /// How.
    pub outcome: Outcome,
    /// The stamp of the request head's first byte.
    pub begin: Stamp,
    /// The stamp of the final answer: of its head, or of its whole body where that decides; of the end of the
    /// connection when no answer came.
    pub end: Stamp,
}

/// What became of an exchange.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The cloud said yes to a whole request: this is true there now.
    Done(Box<Operation>),
    /// The cloud said no, or never had a whole request: nothing changed.
    Refused,
    /// Something may have changed and cannot be told: a gap.
    Lost {
        /// Why.
        reason: GapReason,
        /// What is in doubt; narrower or wider than the place that the head named, where the exchange told more.
        place: Place,
        /// The content's name, when the cloud told it all the same.
        etag: Option<ETag>,
        /// The version, when the cloud told it all the same.
        version: Option<VersionId>,
    },
    /// A read ended; `whole` when every announced byte was seen.
    Read {
        /// Whether the body is complete.
        whole: bool,
    },
}

/// What the cloud did, and everything that the store must record of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// The object's content is what the exchange's body carried.
    Put {
        /// Of whom.
        object: Object,
        /// Length of the content.
        length: u64,
        /// Its name at the cloud.
        etag: ETag,
        /// Its version, where the bucket keeps versions.
        version: Option<VersionId>,
        /// Its headers and tags.
        attributes: Attributes,
    },
    /// An upload began; the attributes are those of the object it will make.
    CreateMultipart {
        /// Of whom.
        object: Object,
        /// The upload.
        upload: UploadId,
        /// The future object's headers and tags.
        attributes: Attributes,
    },
    /// A part's content is what the exchange's body carried; it replaces an earlier part of its number.
    PutPart {
        /// Of whom.
        object: Object,
        /// The upload.
        upload: UploadId,
        /// The part.
        number: PartNumber,
        /// Length of the content.
        length: u64,
        /// Its name at the cloud.
        etag: ETag,
    },
    /// A part was copied from another object.
    CopyPart {
        /// Of whom.
        object: Object,
        /// The upload.
        upload: UploadId,
        /// The part.
        number: PartNumber,
        /// The part's name at the cloud.
        etag: ETag,
        /// Where its content is from.
        source: Source,
        /// Offsets of the first and the last byte in the source; `None` is all of it.
        range: Option<(u64, u64)>,
    },
    /// The object is the listed parts, in the order of their numbers.
    CompleteMultipart {
        /// Of whom.
        object: Object,
        /// The upload.
        upload: UploadId,
        /// The parts that count, by number and name; ascending.
        parts: Vec<(PartNumber, ETag)>,
        /// The object's name at the cloud.
        etag: ETag,
        /// Its version, where the bucket keeps versions.
        version: Option<VersionId>,
        /// What the Complete adds to the attributes of its CreateMultipart: checksums, encryption.
        attributes: Attributes,
    },
    /// An upload ended without an object; its parts are void.
    AbortMultipart {
        /// Of whom.
        object: Object,
        /// The upload.
        upload: UploadId,
    },
    /// An object was copied by the cloud.
    Copy {
        /// The new object.
        object: Object,
        /// Where its content is from.
        source: Source,
        /// Its name at the cloud.
        etag: ETag,
        /// Its version, where the bucket keeps versions.
        version: Option<VersionId>,
        /// Whose metadata it has. With [`Directive::FromSource`], `content-*`, `cache-control`, `expires` and
        /// `x-amz-meta-*` are the source's; storage class, redirect, lock, access list and encryption never are.
        metadata: Directive,
        /// Whose tags it has.
        tagging: Directive,
        /// What the request and the answer set themselves.
        attributes: Attributes,
    },
    /// An object or version was deleted.
    Delete(Deleted),
    /// Objects or versions of one bucket were deleted: those that were asked for, without those that the
    /// cloud answered an error for.
    DeleteMany {
        /// Their bucket.
        bucket: String,
        /// They.
        deleted: Vec<Deleted>,
        /// Those of which the cloud's answer leaves open whether they are gone: gaps.
        unknown: Vec<Place>,
    },
    /// Tags were replaced; an empty list removes them.
    SetTags {
        /// Of whom.
        object: Object,
        /// The version that was asked for or answered; without one, the current one.
        version: Option<VersionId>,
        /// All tags that it has now.
        tags: Vec<Tag>,
    },
    /// The access list was replaced.
    SetAcl {
        /// Of whom.
        object: Object,
        /// The version that was asked for or answered; without one, the current one.
        version: Option<VersionId>,
        /// By headers, or by a document.
        acl: Acl,
    },
    /// Retention or legal hold changed: the object's `x-amz-object-lock-*` headers of these names are now these.
    SetLock {
        /// Of whom.
        object: Object,
        /// The version that was asked for or answered; without one, the current one.
        version: Option<VersionId>,
        /// The lock's headers, as a GET shows them; an empty value removes one.
        lock: Vec<Header>,
    },
    /// A bucket exists; where it existed before, nothing changed.
    CreateBucket {
        /// The provider's name of it.
        bucket: String,
    },
    /// A bucket is gone, and everything that was in it.
    DeleteBucket {
        /// The provider's name of it.
        bucket: String,
    },
}

/// One object or version that was deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deleted {
    /// Of whom.
    pub object: Object,
    /// The version that was asked for: that version is gone, another one may be current now.
    /// `None`: the key has nothing current any more.
    pub version: Option<VersionId>,
    /// The id of the delete marker that was made (without `version`) or removed (with it).
    pub marker: Option<VersionId>,
}

/// Where a copy's content is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The source; its bucket may be one that is not bound.
    pub object: Object,
    /// The version that the cloud says it copied, else the one that was asked for.
    pub version: Option<VersionId>,
}

/// Whose metadata or tags a copy has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Directive {
    /// Those of its source.
    FromSource,
    /// Those of the request.
    FromRequest,
}

/// An access list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acl {
    /// `x-amz-acl` or `x-amz-grant-*`.
    Headers(Vec<Header>),
    /// An `AccessControlPolicy` document.
    Policy(Bytes),
}
