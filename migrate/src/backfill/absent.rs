//! Keys that the store holds and the listing lacks: a HEAD decides each, and many deletes at once are not
//! believed. Keys with an open gap are read as well, wherever the listing stood.
use std::sync::atomic::Ordering;

use futures::TryStreamExt;
use hawser_api::{ObjectKey, Stamp, v1};
use tonic::Streaming;

use super::Backfill;
use super::fetch::Wish;
use crate::cloud::{Fault, Place};
use crate::failure::Failure;
use crate::store::refusal;

/// More deletes than one in so many are not believed without `--allow-deletes`.
const BELIEVED_ONE_IN: u64 = 5;

impl Backfill<'_> {
    /// Settles the keys of `bucket` that the listing lacked, of `recorded` that the store held.
    pub(super) async fn absent(&self, bucket: &str, recorded: u64) -> Result<(), Failure> {
        if !self.run.allow_deletes {
            let missing = self.absent_keys(bucket).await?.try_fold(0_u64, async |count, _| Ok(count + 1)).await;
            let missing = missing.map_err(refusal("list absent keys"))?;
            if !is_believed(missing, recorded) {
                self.refuse_if_gone(bucket, recorded).await?; // aliases are no deletes
            }
        }
        let keys = self.absent_keys(bucket).await?.map_err(refusal("list absent keys"));
        keys.try_for_each_concurrent(self.run.limits.parallelism(), async |entry| {
            let place = place(&entry);
            let begin = self.session.stamp();
            match self.cloud.head(&place, None).await {
                Ok(_) => match self.cloud.lists(&place).await {
                    Ok(true) => Ok(()), // only its page lacked it: some services list folder by folder
                    Ok(false) => self.confirm(&place, true, begin).await,
                    Err(fault) => self.unread(&place, &fault),
                },
                Err(Fault::NotFound | Fault::NoBucket) => self.tell_absent(&place, begin).await,
                Err(fault) => self.unread(&place, &fault),
            }
        })
        .await
    }

    fn unread(&self, place: &Place, fault: &Fault) -> Result<(), Failure> {
        self.progress.trouble("failed", place, &fault.to_string());
        self.tally.failed.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Counts which of the absent keys are gone for good, before any is deleted here.
    async fn refuse_if_gone(&self, bucket: &str, recorded: u64) -> Result<(), Failure> {
        let keys = self.absent_keys(bucket).await?.map_err(refusal("list absent keys"));
        let gone = keys
            .map_ok(|entry| async move { Ok(u64::from(self.cloud.head(&place(&entry), None).await.is_err())) })
            .try_buffer_unordered(self.run.limits.parallelism())
            .try_fold(0, async |gone, one| Ok(gone + one))
            .await?;
        if is_believed(gone, recorded) {
            return Ok(());
        }
        Err(Failure::ListingRefused(format!(
            "provider {} lacks {gone} of the {recorded} objects that the store holds of {bucket}: \
             if they were deleted on purpose, say --allow-deletes",
            self.cloud.name
        )))
    }

    async fn absent_keys(&self, bucket: &str) -> Result<Streaming<v1::ObjectEntry>, Failure> {
        let request =
            v1::ListAbsentRequest { lease: Some(self.lease.clone()), backfill: self.id, bucket: bucket.to_owned() };
        let mut migration = self.run.store.migration.clone();
        Ok(migration.list_absent(request).await.map_err(refusal("list absent keys"))?.into_inner())
    }

    /// Tells the store that a key is not at the cloud.
    pub(super) async fn tell_absent(&self, place: &Place, begin: Stamp) -> Result<(), Failure> {
        self.confirm(place, false, begin).await
    }

    async fn confirm(&self, place: &Place, found: bool, begin: Stamp) -> Result<(), Failure> {
        let request = v1::ConfirmAbsentRequest {
            lease: Some(self.lease.clone()),
            backfill: self.id,
            object: Some(v1::ObjectRef {
                provider: self.cloud.identity.clone(),
                bucket: place.bucket.clone(),
                key: place.key.as_bytes().to_vec().into(),
            }),
            found,
            begin_tick: begin.tick,
            incarnation: begin.incarnation,
        };
        let mut migration = self.run.store.migration.clone();
        let reply = migration.confirm_absent(request).await.map_err(refusal("confirm an absent key"))?.into_inner();
        let count = match (found, reply.tombstoned) {
            (true, _) => &self.tally.aliases,
            (false, true) => &self.tally.deleted,
            (false, false) => return Ok(()), // a newer record, an intent or a gap holds it up
        };
        count.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Reads every key of this provider that has a gap: what is there now may close it, and so may a 404.
    pub(super) async fn look_into_gaps(&self) -> Result<(), Failure> {
        let request = v1::ListGapsRequest { binding: self.run.binding.name().to_owned(), closed: false };
        let mut catalog = self.run.store.catalog.clone();
        let gaps = catalog.list_gaps(request).await.map_err(refusal("list gaps"))?.into_inner();
        let gaps = gaps.map_err(refusal("list gaps")).try_filter_map(async |gap| {
            let object = gap.object.filter(|object| object.provider == self.cloud.identity && !object.key.is_empty());
            Ok(object.map(|object| Place { bucket: object.bucket, key: ObjectKey::from_bytes(object.key) }))
        });
        gaps.try_for_each_concurrent(self.run.limits.parallelism(), async |place| {
            let wish = Wish { place, etag: String::new(), size: 0 };
            let outcome = self.fetch(&wish).await;
            self.count(&wish.place.bucket, &wish, outcome)
        })
        .await
    }
}

/// Whether `deletes` of `recorded` objects are taken for deletes: at most 20 %.
fn is_believed(deletes: u64, recorded: u64) -> bool {
    deletes.saturating_mul(BELIEVED_ONE_IN) <= recorded
}

fn place(entry: &v1::ObjectEntry) -> Place {
    let object = entry.object.clone().unwrap_or_default();
    Place { bucket: object.bucket, key: ObjectKey::from_bytes(object.key) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_a_fifth_is_not_believed() {
        for (deletes, recorded, believed) in
            [(0, 0, true), (0, 10, true), (2, 10, true), (3, 10, false), (1, 5, true), (1, 4, false), (10, 10, false)]
        {
            assert_eq!(is_believed(deletes, recorded), believed, "{deletes} of {recorded}");
        }
    }
}
