//! Fetches one object: its bytes into blocks, its headers, tags and part sizes beside them. What overlapped
//! a write of a pod is thrown away by the store and read again.
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;
use futures::{StreamExt, TryStreamExt, stream};
use hawser_api::v1;
use hawser_api::v1::control_up::Message as Up;
use hawser_api::v1::receipt::Verdict;

use super::Backfill;
use crate::cloud::read::Head;
use crate::cloud::{Fault, Place};
use crate::failure::Failure;
use crate::store::cut::{Cutter, Ready};

/// Readings of one object before it is given up for this backfill.
const READINGS_MAX: u32 = 5;
const READ_AGAIN: Duration = Duration::from_millis(200);
/// Bytes that are gathered before they are offered.
const OFFER_BYTES: usize = 2 * 1024 * 1024;
/// HEADs of parts under way for one object.
const PART_HEADS: usize = 4;

/// An object that the store wishes to have.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Where it is.
    pub place: Place,
    /// The ETag that was listed; empty when nothing was.
    pub etag: String,
    /// The size that was listed.
    pub size: u64,
}

/// How fetching one object ended.
#[derive(Debug)]
pub enum Fetched {
    /// The store has it.
    Kept,
    /// It is gone from the cloud since it was listed.
    Gone,
    /// It could not be had; why.
    Not(String),
    /// The cloud as a whole refuses.
    Refused(Fault),
}

/// How one reading ended.
enum Reading {
    Kept,
    Gone,
    /// It changed while it was read, or its blocks were swept: the same again.
    Again(String),
    Fault(Fault),
}

impl Backfill<'_> {
    /// Fetches one object, again while writes overlap it.
    pub(super) async fn fetch(&self, wish: &Wish) -> Result<Fetched, Failure> {
        let _slot = self.run.limits.slot().await;
        let mut etag = wish.etag.clone();
        let mut last = String::new();
        for reading in 0..READINGS_MAX {
            if reading > 0 {
                tokio::time::sleep(READ_AGAIN * reading).await;
            }
            match self.read(&wish.place, &etag).await? {
                Reading::Kept => return Ok(Fetched::Kept),
                Reading::Gone => return Ok(Fetched::Gone),
                Reading::Again(why) => {
                    etag.clear(); // whatever it is by now
                    last = why;
                }
                Reading::Fault(fault @ (Fault::Credentials { .. } | Fault::NoBucket)) => {
                    return Ok(Fetched::Refused(fault));
                }
                Reading::Fault(fault) if reading + 1 == READINGS_MAX || !fault.is_unreachable() => {
                    return Ok(Fetched::Not(fault.to_string()));
                }
                Reading::Fault(_) => {}
            }
        }
        Ok(Fetched::Not(format!("read {READINGS_MAX} times, and each time {last}")))
    }

    /// Counts what became of a wish; a refusal of the whole cloud ends the run.
    pub(super) fn count(&self, bucket: &str, wish: &Wish, outcome: Result<Fetched, Failure>) -> Result<(), Failure> {
        match outcome? {
            Fetched::Kept => self.tally.fetched.fetch_add(1, Ordering::Relaxed),
            Fetched::Gone => return Ok(()), // counted where the store was told
            Fetched::Not(why) => {
                self.progress.trouble("failed", &wish.place, &why);
                self.progress.counts.failed.fetch_add(1, Ordering::Relaxed);
                self.tally.failed.fetch_add(1, Ordering::Relaxed)
            }
            Fetched::Refused(fault) => return Err(fault.failure(&self.cloud.name, &format!("read {bucket}"))),
        };
        Ok(())
    }

    /// Reads an object once and tells the store.
    async fn read(&self, place: &Place, etag: &str) -> Result<Reading, Failure> {
        let head_stamp = self.session.stamp();
        let (head, body) = match self.cloud.get(place, etag).await {
            Ok(answer) => answer,
            Err(Fault::NotFound) => {
                self.tell_absent(place, head_stamp).await?;
                return Ok(Reading::Gone);
            }
            Err(Fault::Precondition) => return Ok(changed()),
            Err(fault) => return Ok(Reading::Fault(fault)),
        };
        let (content, tags, parts) =
            tokio::join!(self.take(body), self.cloud.tags(place), self.part_sizes(place, &head));
        let content = match content? {
            Ok(content) => content,
            Err(fault) => return Ok(Reading::Fault(fault)),
        };
        let tags: Option<BTreeMap<String, String>> = match tags {
            Ok(tags) => tags,
            Err(Fault::NotFound | Fault::Precondition) => return Ok(changed()),
            Err(Fault::Denied { .. }) => None, // the keys may read objects and not their tags
            Err(fault) => return Ok(Reading::Fault(fault)),
        };
        let read = v1::ObservedRead {
            head: Some(head_stamp.into()),
            answer: Some(self.session.stamp().into()),
            object: Some(v1::ObjectRef {
                provider: self.cloud.identity.clone(),
                bucket: place.bucket.clone(),
                key: place.key.as_bytes().to_vec().into(),
            }),
            etag: head.etag,
            version_id: head.version_id,
            last_modified: head.last_modified,
            total_length: head.size,
            offset: 0,
            body: Some(content),
            metadata: Some(v1::Metadata {
                headers: head.headers,
                tags_known: tags.is_some(),
                tags: tags.unwrap_or_default(),
                acl: String::new(),
                headers_known: true,
            }),
            backfill: self.id,
            parts,
            ..v1::ObservedRead::default()
        };
        Ok(match self.session.tell(Up::Read(read)).await? {
            Verdict::Accepted(_) => Reading::Kept,
            Verdict::Missing(_) => Reading::Again("the store had swept its blocks".to_owned()),
            Verdict::Refused(refused) => Reading::Again(refused.why),
        })
    }

    /// Cuts a body, bringing blocks to the store while the next ones come.
    async fn take(&self, mut body: ByteStream) -> Result<Result<v1::Body, Fault>, Failure> {
        let mut cutter = Cutter::new(self.run.binding.spec.block_size);
        let mut batch = Ready::new();
        loop {
            let mut next = Ready::new();
            let gather = async {
                let mut gathered = 0;
                while gathered < OFFER_BYTES {
                    let Some(bytes) = body.next().await else { return Ok(true) };
                    let bytes = bytes.map_err(|error| Fault::Unreachable(error.to_string()))?;
                    self.run.limits.take(bytes.len() as u64).await;
                    self.progress.counts.bytes_done.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                    gathered += bytes.len();
                    cutter.take(&bytes, &mut next);
                }
                Ok(false)
            };
            let (gathered, brought) = tokio::join!(gather, self.blocks.bring(&batch));
            brought?;
            batch = next;
            match gathered {
                Ok(false) => {}
                Ok(true) => {
                    let content = cutter.end(&mut batch);
                    self.blocks.bring(&batch).await?;
                    return Ok(Ok(content));
                }
                Err(fault) => return Ok(Err(fault)),
            }
        }
    }

    /// How a multipart object was cut, as far as the service says: part numbers and lengths.
    async fn part_sizes(&self, place: &Place, whole: &Head) -> Vec<v1::PartLayout> {
        let Some(parts) = marked_parts(&whole.etag) else { return Vec::new() };
        let Ok(first) = self.cloud.head(place, Some(1)).await else { return Vec::new() };
        // Some services answer a part's own ETag; that they speak of the same object shows in its mark.
        let of_whole = |count: &u32| first.etag == whole.etag || *count == parts;
        let Some(count) = first.parts_count.filter(of_whole) else { return Vec::new() };
        let last = match count {
            0 | 1 => first.size,
            _ => match self.cloud.head(place, Some(count)).await {
                Ok(last) => last.size,
                Err(_) => return Vec::new(),
            },
        };
        if let Some(parts) = even(whole.size, count, first.size, last) {
            return parts;
        }
        let heads =
            stream::iter(1..=count)
                .map(|number| async move {
                    self.cloud.head(place, Some(number)).await.map(|part| layout(number, part.size))
                })
                .buffered(PART_HEADS);
        let parts: Vec<v1::PartLayout> = heads.try_collect().await.unwrap_or_default();
        if parts.iter().map(|part| part.length).sum::<u64>() == whole.size { parts } else { Vec::new() }
    }
}

fn changed() -> Reading {
    Reading::Again("it had changed".to_owned())
}

/// Services mark a multipart ETag with the number of parts behind a dash. Only a hint to ask further.
fn marked_parts(etag: &str) -> Option<u32> {
    let (_, count) = etag.rsplit_once('-')?;
    count.bytes().all(|b| b.is_ascii_digit()).then(|| count.parse().ok())?
}

/// The layout of an object whose first and last part say that all but the last are of one length.
fn even(size: u64, count: u32, first: u64, last: u64) -> Option<Vec<v1::PartLayout>> {
    let before = u64::from(count.checked_sub(1)?).checked_mul(first)?;
    (before.checked_add(last)? == size)
        .then(|| (1..=count).map(|number| layout(number, if number == count { last } else { first })).collect())
}

fn layout(part_number: u32, length: u64) -> v1::PartLayout {
    v1::PartLayout { part_number, length, etag: String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_even_layout_is_told_by_its_first_and_last_part() {
        let lengths = |size, count, first, last| {
            even(size, count, first, last).map(|parts| parts.iter().map(|part| part.length).collect::<Vec<_>>())
        };
        assert_eq!(lengths(12, 3, 5, 2), Some(vec![5, 5, 2]));
        assert_eq!(lengths(5, 1, 5, 5), Some(vec![5]));
        assert_eq!(lengths(12, 3, 5, 3), None, "the middle part is of another length");
        assert_eq!(lengths(0, 0, 0, 0), None);
    }

    #[test]
    fn only_an_etag_with_a_count_is_asked_for_its_parts() {
        for (etag, parts) in [("d41d8cd9-3", Some(3)), ("d41d8cd9", None), ("a-b", None), ("", None), ("x-", None)] {
            assert_eq!(marked_parts(etag), parts, "{etag}");
        }
    }
}
