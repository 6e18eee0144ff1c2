//! Lists a bucket page by page, each with a begin of its own, and hands the store's wishes to the fetchers.
//! The next page is asked for while the store looks at the last one and objects are fetched.
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::{StreamExt, stream};
use hawser_api::{ObjectKey, Stamp, v1};
use tokio::sync::mpsc;

use super::Backfill;
use super::fetch::Wish;
use crate::cloud::listing::Page;
use crate::cloud::{Fault, Place};
use crate::failure::Failure;
use crate::limits::PARALLELISM_MAX;
use crate::store::refusal;

/// Pages between the listing and the store, and wishes between the store and the fetchers.
const PAGES_WAITING: usize = 2;
const WISHES_WAITING: usize = 2_000;

/// A page and what was heard before it was asked for.
struct Stamped {
    page: Page,
    begin: Stamp,
}

impl Backfill<'_> {
    /// Lists `bucket`, of which the store holds `recorded` objects, and fetches what the store wishes.
    pub(super) async fn list(&self, bucket: &str, recorded: u64) -> Result<(), Failure> {
        let (pages_in, pages) = mpsc::channel(PAGES_WAITING);
        let (wishes_in, wishes) = mpsc::channel::<Wish>(WISHES_WAITING);
        let (_, _, ()) = tokio::try_join!(
            self.ask(bucket, recorded, pages_in),
            self.reconcile(bucket, pages, wishes_in),
            self.fetch_all(bucket, wishes),
        )?;
        Ok(())
    }

    /// Asks for page after page.
    async fn ask(&self, bucket: &str, recorded: u64, pages: mpsc::Sender<Stamped>) -> Result<(), Failure> {
        let mut next: Option<String> = None;
        let mut first = true;
        loop {
            let begin = self.session.stamp();
            let page = match self.cloud.list_page(bucket, &self.run.prefix, next.as_deref()).await {
                Ok(page) => page,
                Err(Fault::NoBucket | Fault::NotFound) if self.run.allow_deletes => {
                    Page { objects: Vec::new(), next: None }
                }
                Err(fault) => return Err(self.unlisted(bucket, fault)),
            };
            let empty = first && page.objects.is_empty() && page.next.is_none();
            if empty && recorded > 0 && !self.run.is_partial() && !self.run.allow_deletes {
                return Err(Failure::ListingRefused(format!(
                    "provider {} lists nothing in {bucket}, where the store holds {recorded} objects: \
                     if they are gone on purpose, say --allow-deletes",
                    self.cloud.name
                )));
            }
            first = false;
            next = page.next.clone();
            let last = next.is_none();
            if pages.send(Stamped { page, begin }).await.is_err() || last {
                return Ok(()); // the other half failed and says why, or this was the end
            }
        }
    }

    fn unlisted(&self, bucket: &str, fault: Fault) -> Failure {
        match fault {
            Fault::NoBucket | Fault::NotFound => Fault::NoBucket.failure(&self.cloud.name, &format!("list {bucket}")),
            Fault::Denied { .. } => Failure::ListingRefused(format!(
                "provider {}: the credentials may not list {bucket}: {fault}",
                self.cloud.name
            )),
            fault => fault.failure(&self.cloud.name, &format!("list {bucket}")),
        }
    }

    /// Shows each page to the store and passes on what it wishes.
    async fn reconcile(
        &self,
        bucket: &str,
        mut pages: mpsc::Receiver<Stamped>,
        wishes: mpsc::Sender<Wish>,
    ) -> Result<(), Failure> {
        let mut migration = self.run.store.migration.clone();
        let mut after = Bytes::new();
        while let Some(Stamped { page, begin }) = pages.recv().await {
            let last = page.next.is_none();
            // Some services list folder by folder, so the greatest key need not be the last one.
            let greatest = page.objects.iter().map(|object| object.key.clone()).max().unwrap_or_default();
            let through = if last { Bytes::new() } else { greatest.max(after.clone()) };
            self.tally.listed.fetch_add(page.objects.len() as u64, Ordering::Relaxed);
            let request = v1::ReconcilePageRequest {
                lease: Some(self.lease.clone()),
                backfill: self.id,
                bucket: bucket.to_owned(),
                after: std::mem::replace(&mut after, through.clone()),
                through,
                last,
                begin_tick: begin.tick,
                incarnation: begin.incarnation,
                objects: page.objects.clone(),
                fetch_all: self.run.deep,
            };
            let reply = migration.reconcile_page(request).await.map_err(refusal("reconcile a page"))?.into_inner();
            self.tally.confirmed.fetch_add(reply.confirmed, Ordering::Relaxed);
            for key in reply.fetch {
                let listed = page.objects.iter().find(|object| object.key == key);
                let size = listed.map_or(0, |object| object.size);
                self.progress.counts.objects_total.fetch_add(1, Ordering::Relaxed);
                self.progress.counts.bytes_total.fetch_add(size, Ordering::Relaxed);
                let place = Place { bucket: bucket.to_owned(), key: ObjectKey::from_bytes(key) };
                let wish = Wish { place, etag: listed.map(|object| object.etag.clone()).unwrap_or_default(), size };
                if wishes.send(wish).await.is_err() {
                    return Ok(()); // the fetchers failed and say why
                }
            }
        }
        Ok(())
    }

    /// Fetches wishes, several at a time.
    async fn fetch_all(&self, bucket: &str, mut wishes: mpsc::Receiver<Wish>) -> Result<(), Failure> {
        let fetches = stream::poll_fn(|task| wishes.poll_recv(task)).map(|wish| async move {
            let outcome = self.fetch(&wish).await;
            self.progress.counts.objects_done.fetch_add(1, Ordering::Relaxed);
            (wish, outcome)
        });
        let mut fetches = std::pin::pin!(fetches.buffer_unordered(PARALLELISM_MAX));
        while let Some((wish, outcome)) = fetches.next().await {
            self.count(bucket, &wish, outcome)?;
        }
        Ok(())
    }
}
