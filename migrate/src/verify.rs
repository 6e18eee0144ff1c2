//! Compares a provider with what the store recorded of it, and changes nothing. Recorded objects are asked
//! for by HEAD: ETag, length, headers, tags; with `--deep` every byte is read. The listing's keys, ETags and
//! lengths are compared as a whole, in any order and without keeping them; what has neither headers nor tags
//! needs no HEAD besides, as long as the listing agrees.
use std::cmp::Ordering as Order;
use std::sync::atomic::Ordering;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use hawser_api::ObjectKey;
use hawser_api::binding::{Conflicts, Provider};
use hawser_api::v1;

use crate::cloud::{Cloud, Fault, Place, headers};
use crate::failure::{Exit, Failure};
use crate::progress::{Progress, Report};
use crate::replicate::{compare, round};
use crate::run::Run;
use crate::store::refusal;

/// Instead of a tick: what is current when it is asked for.
const NOW: u64 = 0;

/// HEADs under way for each object that could be sent at the same time.
const HEADS_PER_SLOT: usize = 2;

/// What verifying found.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Objects that are as they should be.
    pub verified: u64,
    /// Objects that are not.
    pub differences: u64,
    /// Objects that the provider lists and the store does not know.
    pub extra: u64,
    /// Recorded objects that HEAD finds and the listing shows otherwise or not.
    pub aliases: u64,
    /// Whether an object that the store does not know is a difference.
    extra_differs: bool,
}

impl Verdict {
    /// Whether everything recorded is there.
    pub fn holds(&self) -> bool {
        self.differences == 0 && !(self.extra_differs && self.extra > 0)
    }

    /// Adds what a person should know.
    pub fn tell(&self, report: &mut Report) {
        if self.extra > 0 {
            report.notes.push(format!("{} objects are listed that the store has no record of", self.extra));
        }
        if self.aliases > 0 {
            report.notes.push(format!("{} objects are found by HEAD and listed under other keys", self.aliases));
        }
    }
}

/// The command.
pub async fn run(run: &Run, progress: &Progress, provider: &Provider) -> Result<(Exit, Report), Failure> {
    let in_force = run.source()?.id().to_string();
    let cloud = run.cloud(provider)?;
    progress.phase("Verifying", &format!("comparing {} with the store", provider.name));
    let names = ("", provider.name.as_str());
    let verdict = tokio::select! {
        verdict = target(run, progress, &in_force, &cloud, NOW) => verdict,
        () = progress.keep_showing(&run.store, None, names) => Err(Failure::Stopped),
    }?;
    let mut report = Report {
        command: "verify",
        target: provider.name.clone(),
        counts: vec![
            ("objects verified", verdict.verified),
            ("differences", verdict.differences),
            ("listed, not recorded", verdict.extra),
        ],
        ..Report::default()
    };
    verdict.tell(&mut report);
    Ok((if verdict.holds() { Exit::Done } else { Exit::Differences }, report))
}

/// Compares `cloud` with its records, and these with what was current at the provider `source` at the tick
/// `through`: what was recorded there later, and may have been carried already, is no difference.
pub async fn target(
    run: &Run,
    progress: &Progress,
    source: &str,
    cloud: &Cloud,
    through: u64,
) -> Result<Verdict, Failure> {
    let mut verdict = Verdict { extra_differs: source == cloud.identity, ..Verdict::default() };
    for bucket in buckets(run).await? {
        let checked = check_bucket(run, progress, (source, through), cloud, &bucket).await?;
        verdict.verified += checked.verified;
        verdict.differences += checked.differences;
        verdict.extra += checked.extra;
        verdict.aliases += checked.aliases;
    }
    Ok(verdict)
}

/// The store's names of the bound buckets.
async fn buckets(run: &Run) -> Result<Vec<String>, Failure> {
    let bound = &run.binding.spec.buckets;
    if !bound.iter().any(|bucket| bucket.is_every()) {
        return Ok(bound.iter().map(|bucket| bucket.name.clone()).collect());
    }
    let request = v1::ListBucketsRequest { binding: run.binding.name().to_owned() };
    let reply = run.store.catalog.clone().list_buckets(request).await.map_err(refusal("list the store's buckets"))?;
    Ok(reply.into_inner().buckets.into_iter().map(|bucket| bucket.name).collect())
}

/// Which objects are asked for by HEAD.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Heads {
    /// Those that the listing cannot vouch for: they carry headers or tags.
    WhereNeeded,
    /// Each.
    All,
}

/// How one object compares.
enum Compared {
    Equal {
        place: Place,
        etag: String,
        size: u64,
    },
    Differs {
        place: Place,
        why: String,
    },
    /// Nothing to compare: a foreign object that is kept, or content that nobody knows.
    Passed,
}

async fn check_bucket(
    run: &Run,
    progress: &Progress,
    (source, through): (&str, u64),
    cloud: &Cloud,
    stored: &str,
) -> Result<Verdict, Failure> {
    let bound = run.binding.spec.buckets.iter().find(|bucket| bucket.name == stored);
    let bucket = bound.map_or(stored, |bucket| bucket.name_at(&cloud.name));
    let check = Check { run, progress, source, through, cloud, stored, bucket };
    if !run.deep {
        let listed = check.listing().await?;
        let (verdict, recorded) = check.records(Heads::WhereNeeded).await?;
        if listed == recorded && verdict.differences == 0 {
            return Ok(verdict);
        }
    }
    let (mut verdict, recorded) = check.records(Heads::All).await?;
    if check.listing().await? != recorded {
        check.listed_keys(&mut verdict).await?;
    }
    Ok(verdict)
}

/// One bucket at a provider, and what it is compared with.
struct Check<'a> {
    run: &'a Run,
    progress: &'a Progress,
    /// The provider whose current objects should be there.
    source: &'a str,
    through: u64,
    cloud: &'a Cloud,
    /// The store's name of the bucket, and the provider's.
    stored: &'a str,
    bucket: &'a str,
}

impl Check<'_> {
    /// Compares every recorded object; the fingerprint is of those that are as they should be.
    async fn records(&self, heads: Heads) -> Result<(Verdict, Fingerprint), Failure> {
        let Check { run, progress, source, through, cloud, stored, bucket } = *self;
        let alone = source == cloud.identity;
        let there = records(run, &cloud.identity, stored, NOW).await?;
        let meant = if alone { stream::empty().boxed() } else { records(run, source, stored, through).await? };
        let compared = joined(meant, there)
            .map_ok(|pair| compare_pair(run, cloud, bucket, pair, (alone, through), heads))
            .try_buffer_unordered(run.limits.parallelism() * HEADS_PER_SLOT);
        let mut compared = std::pin::pin!(compared);
        let mut verdict = Verdict::default();
        let mut recorded = Fingerprint::default();
        progress.counts.verified.store(0, Ordering::Relaxed);
        while let Some(one) = compared.try_next().await? {
            match one {
                Compared::Equal { place, etag, size } => {
                    recorded.add(place.key.as_bytes(), &etag, size);
                    verdict.verified += 1;
                    progress.counts.verified.fetch_add(1, Ordering::Relaxed);
                }
                Compared::Differs { place, why } => {
                    verdict.differences += 1;
                    if heads == Heads::All {
                        progress.trouble("differs", &place, &why); // before, it was only a first look
                    }
                }
                Compared::Passed => {}
            }
        }
        Ok((verdict, recorded))
    }

    async fn listing(&self) -> Result<Fingerprint, Failure> {
        let mut listed = Fingerprint::default();
        let mut pages = std::pin::pin!(pages(self.run, self.cloud, self.bucket));
        while let Some(page) = pages.try_next().await? {
            page.iter().for_each(|object| listed.add(&object.key, &object.etag, object.size));
        }
        Ok(listed)
    }

    /// Looks up every listed key, as the listing as a whole is not what HEAD found.
    async fn listed_keys(&self, verdict: &mut Verdict) -> Result<(), Failure> {
        let mut found = 0;
        let mut pages = std::pin::pin!(pages(self.run, self.cloud, self.bucket));
        while let Some(page) = pages.try_next().await? {
            let looked_up =
                stream::iter(page).map(|object| self.record_of(object)).buffer_unordered(self.run.limits.parallelism());
            let mut looked_up = std::pin::pin!(looked_up);
            while let Some((place, record, etag)) = looked_up.try_next().await? {
                match record {
                    None => {
                        verdict.extra += 1;
                        self.progress.trouble("extra", &place, "it is listed and the store has no record of it");
                    }
                    // What HEAD shows otherwise as well is counted already.
                    Some(record) if record != etag && self.shows(&place, &record).await? => {
                        let why = format!("ETag {etag} in the listing instead of {record}");
                        self.progress.trouble("differs", &place, &why);
                        verdict.differences += 1;
                        found += 1;
                    }
                    Some(_) => found += 1,
                }
            }
        }
        verdict.aliases += verdict.verified.saturating_sub(found);
        Ok(())
    }

    /// Whether HEAD shows this ETag.
    async fn shows(&self, place: &Place, etag: &str) -> Result<bool, Failure> {
        match self.cloud.head(place, None).await {
            Ok(head) => Ok(head.etag == etag),
            Err(Fault::NotFound) => Ok(false),
            Err(fault) => Err(fault.failure(&self.cloud.name, &place.to_string())),
        }
    }

    /// A listed object's place, the ETag that was recorded of it, and the one that is listed.
    async fn record_of(&self, object: v1::ListedObject) -> Result<(Place, Option<String>, String), Failure> {
        let place = Place { bucket: self.bucket.to_owned(), key: ObjectKey::from_bytes(object.key.clone()) };
        let request = v1::GetObjectRequest {
            object: Some(v1::ObjectRef {
                provider: self.cloud.identity.clone(),
                bucket: self.bucket.to_owned(),
                key: object.key,
            }),
            binding: self.run.binding.name().to_owned(),
            store_bucket: self.stored.to_owned(),
            ..v1::GetObjectRequest::default()
        };
        match self.run.store.catalog.clone().get_object(request).await {
            Ok(entry) => {
                let entry = entry.into_inner();
                Ok((place, (!entry.tombstone && !entry.delete_marker).then_some(entry.etag), object.etag))
            }
            Err(status) if status.code() == tonic::Code::NotFound => Ok((place, None, object.etag)),
            Err(status) => Err(refusal("look up a listed key")(status)),
        }
    }
}

/// One key: what is meant to be at the provider, and what was recorded there.
type Pair = (Option<v1::ObjectEntry>, Option<v1::ObjectEntry>);

async fn compare_pair(
    run: &Run,
    cloud: &Cloud,
    bucket: &str,
    pair: Pair,
    (alone, through): (bool, u64),
    heads: Heads,
) -> Result<Compared, Failure> {
    let key = pair.0.iter().chain(&pair.1).find_map(|entry| entry.object.as_ref()).map(|object| object.key.clone());
    let place = Place { bucket: bucket.to_owned(), key: ObjectKey::from_bytes(key.unwrap_or_default()) };
    let differs = |why: String| Ok(Compared::Differs { place: place.clone(), why });
    let (meant, there) = pair;
    let there = match (meant, there) {
        (Some(meant), _) if !meant.content_known => return Ok(Compared::Passed), // counted where it was to be sent
        (Some(_), None) if run.conflicts == Conflicts::KeepTarget => return Ok(Compared::Passed),
        (Some(_), None) => {
            // It may have been deleted at both since.
            let gone = known(run, cloud, &place, "").await?.current;
            return match gone.is_some_and(|gone| came_later(&gone, through)) {
                true => Ok(Compared::Passed),
                false => differs("it was never recorded there".to_owned()),
            };
        }
        (Some(meant), Some(there)) => {
            let newer = there.tick > meant.tick;
            let settled = newer && (came_later(&there, through) || !is_ours(run, &place, cloud).await?);
            if meant.content != there.content && !settled {
                return differs("another content was recorded there".to_owned());
            }
            there
        }
        (None, Some(there)) if alone || came_later(&there, through) => there,
        (None, Some(there)) => match is_ours(run, &place, cloud).await? {
            true => return differs("it was deleted at the source".to_owned()),
            false => there,
        },
        (None, None) => return Ok(Compared::Passed),
    };
    if alone && !there.gap.is_empty() {
        return differs(format!("a gap is open: {}", there.gap));
    }
    if heads == Heads::WhereNeeded && is_bare(&there) {
        return Ok(Compared::Equal { place, etag: there.etag, size: there.size }); // if the listing says so too
    }
    match compare_object(run, cloud, &place, &there).await {
        Ok(None) => Ok(Compared::Equal { place, etag: there.etag, size: there.size }),
        Ok(Some(_)) if run.conflicts == Conflicts::KeepTarget && !is_recorded(run, cloud, &place).await? => {
            Ok(Compared::Passed) // somebody's own, and kept
        }
        Ok(Some(why)) => differs(why),
        Err(fault @ (Fault::Credentials { .. } | Fault::Denied { .. } | Fault::NoBucket)) => {
            Err(fault.failure(&cloud.name, &place.to_string()))
        }
        Err(fault) if fault.is_unreachable() => Err(fault.failure(&cloud.name, &place.to_string())),
        Err(Fault::NotFound) => differs("it is not there".to_owned()),
        Err(fault) => differs(fault.to_string()),
    }
}

/// Whether a migration carried it from a record that came after `through`.
fn came_later(there: &v1::ObjectEntry, through: u64) -> bool {
    through != NOW && there.landed_from > through
}

/// Whether a record has nothing that a listing does not show.
fn is_bare(record: &v1::ObjectEntry) -> bool {
    record.metadata.as_ref().is_some_and(|metadata| {
        metadata.headers_known
            && metadata.tags_known
            && metadata.tags.is_empty()
            && headers::is_bare(&headers::carried(metadata))
    })
}

/// Whether what is at the provider now was ever recorded.
async fn is_recorded(run: &Run, cloud: &Cloud, place: &Place) -> Result<bool, Failure> {
    match cloud.head(place, None).await {
        Ok(head) => Ok(known(run, cloud, place, &head.etag).await?.recorded),
        Err(fault) => Err(fault.failure(&cloud.name, &place.to_string())),
    }
}

/// Whether a migration wrote what is current at the provider, and not a pod.
async fn is_ours(run: &Run, place: &Place, cloud: &Cloud) -> Result<bool, Failure> {
    Ok(known(run, cloud, place, "").await?.ours)
}

async fn known(run: &Run, cloud: &Cloud, place: &Place, etag: &str) -> Result<v1::KnownReply, Failure> {
    round::known(run, &cloud.identity, place, etag, "").await
}

/// What differs between a record and what HEAD, and with `--deep` GET, shows.
async fn compare_object(
    run: &Run,
    cloud: &Cloud,
    place: &Place,
    record: &v1::ObjectEntry,
) -> Result<Option<String>, Fault> {
    run.limits.going().await;
    let head = cloud.head(place, None).await?;
    if head.etag != record.etag {
        return Ok(Some(format!("ETag {} instead of {}", head.etag, record.etag)));
    }
    let meant = record.metadata.clone().unwrap_or_default();
    if let Some(why) = compare::metadata(cloud, place, &head, record.size, &meant).await? {
        return Ok(Some(why));
    }
    if run.deep && record.content_known {
        run.limits.take(head.size).await;
        let (_, body) = cloud.get(place, &head.etag).await?;
        let object = record.object.clone().unwrap_or_default();
        let content = crate::replicate::content::Content {
            store: run.store.clone(),
            object,
            tick: record.tick,
            offset: 0,
            len: head.size,
        };
        if !compare::same(body, content).await? {
            return Ok(Some("bytes".to_owned()));
        }
    }
    Ok(None)
}

/// The objects that the store holds of a bucket at a provider as current at a tick, in key order.
async fn records(
    run: &Run,
    provider: &str,
    bucket: &str,
    at_tick: u64,
) -> Result<BoxStream<'static, Result<v1::ObjectEntry, Failure>>, Failure> {
    let request = v1::ListObjectsRequest {
        bucket: bucket.to_owned(),
        provider: provider.to_owned(),
        prefix: run.prefix.clone().into_bytes().into(),
        binding: run.binding.name().to_owned(),
        at_tick,
        ..v1::ListObjectsRequest::default()
    };
    match run.store.catalog.clone().list_objects(request).await {
        Ok(entries) => {
            let current = |entry: &v1::ObjectEntry| !entry.tombstone && !entry.delete_marker;
            Ok(entries
                .into_inner()
                .map_err(refusal("list records"))
                .try_filter(move |entry| std::future::ready(current(entry)))
                .boxed())
        }
        Err(status) if status.code() == tonic::Code::NotFound => Ok(stream::empty().boxed()),
        Err(status) => Err(refusal("list records")(status)),
    }
}

/// Joins two lists in key order by key.
fn joined(
    left: BoxStream<'static, Result<v1::ObjectEntry, Failure>>,
    right: BoxStream<'static, Result<v1::ObjectEntry, Failure>>,
) -> impl Stream<Item = Result<Pair, Failure>> {
    let state = (left.peekable(), right.peekable());
    stream::try_unfold(state, async |(mut left, mut right)| {
        let order = {
            let key = |entry: Option<&Result<v1::ObjectEntry, Failure>>| match entry {
                Some(Ok(entry)) => Some(entry.object.as_ref().map(|object| object.key.clone()).unwrap_or_default()),
                Some(Err(_)) | None => None,
            };
            let lefts = std::pin::Pin::new(&mut left).peek().await;
            let left_failed = matches!(lefts, Some(Err(_)));
            let lefts = key(lefts);
            let rights = std::pin::Pin::new(&mut right).peek().await;
            let right_failed = matches!(rights, Some(Err(_)));
            match (left_failed, right_failed, lefts, key(rights)) {
                (true, _, _, _) => Order::Less, // taken next, and fails
                (_, true, _, _) => Order::Greater,
                (_, _, Some(left), Some(right)) => left.cmp(&right),
                (_, _, Some(_), None) => Order::Less,
                (_, _, None, Some(_)) => Order::Greater,
                (_, _, None, None) => return Ok(None),
            }
        };
        let left_entry = if order.is_le() { left.next().await.transpose()? } else { None };
        let right_entry = if order.is_ge() { right.next().await.transpose()? } else { None };
        Ok(Some(((left_entry, right_entry), (left, right))))
    })
}

/// A set of keys with ETags and lengths, in any order, in 16 bytes: equal sets are equal, others differ but for a
/// chance in 2^128.
#[derive(Default, Clone, Copy, PartialEq, Eq, Debug)]
struct Fingerprint(u128);

impl Fingerprint {
    fn add(&mut self, key: &[u8], etag: &str, size: u64) {
        let mut hash = blake3::Hasher::new();
        hash.update(&(key.len() as u64).to_le_bytes()).update(key).update(&size.to_le_bytes()).update(etag.as_bytes());
        let mut bytes = [0; 16];
        hash.finalize_xof().fill(&mut bytes);
        self.0 = self.0.wrapping_add(u128::from_le_bytes(bytes));
    }
}

/// The listing of a bucket, page by page.
fn pages<'a>(
    run: &'a Run,
    cloud: &'a Cloud,
    bucket: &'a str,
) -> impl Stream<Item = Result<Vec<v1::ListedObject>, Failure>> + 'a {
    stream::try_unfold(Some(None::<String>), move |at| async move {
        let Some(next) = at else { return Ok(None) };
        let page = cloud
            .list_page(bucket, &run.prefix, next.as_deref())
            .await
            .map_err(|fault| fault.failure(&cloud.name, &format!("list {bucket}")))?;
        Ok(Some((page.objects, page.next.map(Some))))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn entries(keys: &[&str]) -> BoxStream<'static, Result<v1::ObjectEntry, Failure>> {
        let entries: Vec<_> = keys
            .iter()
            .map(|key| {
                let object = v1::ObjectRef { key: key.as_bytes().to_vec().into(), ..v1::ObjectRef::default() };
                Ok(v1::ObjectEntry { object: Some(object), ..v1::ObjectEntry::default() })
            })
            .collect();
        stream::iter(entries).boxed()
    }

    #[tokio::test]
    async fn two_lists_are_joined_by_key() {
        let pairs = joined(entries(&["a", "c", "d"]), entries(&["b", "c"])).map_ok(|(left, right)| {
            let key = |entry: Option<v1::ObjectEntry>| {
                entry.map(|entry| String::from_utf8(entry.object.unwrap().key.to_vec()).unwrap())
            };
            (key(left), key(right))
        });
        let pairs: Vec<_> = pairs.try_collect().await.unwrap();
        let some = |key: &str| Some(key.to_owned());
        assert_eq!(pairs, [(some("a"), None), (None, some("b")), (some("c"), some("c")), (some("d"), None)]);
    }

    #[test]
    fn a_fingerprint_does_not_depend_on_order_and_tells_sets_apart() {
        let of = |rows: &[(&str, &str)]| {
            let mut print = Fingerprint::default();
            rows.iter().for_each(|(key, etag)| print.add(key.as_bytes(), etag, 1));
            print
        };
        assert_eq!(of(&[("a", "1"), ("b", "2")]), of(&[("b", "2"), ("a", "1")]));
        for other in [&[("a", "2"), ("b", "1")][..], &[("a", "1")], &[("a1", ""), ("b", "2")]] {
            assert_ne!(of(&[("a", "1"), ("b", "2")]), of(other), "{other:?}");
        }
    }
}
