//! Sends one object: checkpoint, bytes, and what makes them an object, in this order. Parts that an earlier
//! run brought over are not sent again.
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use hawser_api::v1;

use super::Route;
use super::carry::When;
use super::content::Content;
use super::layout::{Layout, Piece};
use crate::cloud::write::{Carried, Guard, Part, Written};
use crate::cloud::{Fault, Place, headers};
use crate::failure::Failure;

/// Parts of one object under way at the same time.
const PARTS_UNDER_WAY: usize = 8;

/// A version on its way to its place.
pub struct Shipment<'a> {
    /// The record at the source.
    pub entry: &'a v1::ObjectEntry,
    /// Where it goes.
    pub place: &'a Place,
    /// How it is cut.
    pub layout: &'a Layout,
}

impl Route {
    /// Sends an object under the condition; the outer error ends the run, the inner one is this object's.
    pub(super) async fn send(
        &self,
        shipment: &Shipment<'_>,
        when: &When,
        guarded: bool,
    ) -> Result<Result<Written, Fault>, Failure> {
        let guard = match when {
            _ if !guarded => Guard::None,
            When::Absent => Guard::Absent,
            When::Is(etag) => Guard::Is(etag.clone()),
        };
        match shipment.layout {
            Layout::Single => self.put(shipment, &guard).await,
            Layout::Parts(pieces) => self.put_parts(shipment, pieces, &guard).await,
        }
    }

    /// One PUT.
    async fn put(&self, shipment: &Shipment<'_>, guard: &Guard) -> Result<Result<Written, Fault>, Failure> {
        let entry = shipment.entry;
        let content = self.content(entry, 0, entry.size);
        let (durable, body) = tokio::join!(
            self.checkpoints.put(self.checkpoint(shipment, String::new())),
            content.body(&self.run.limits)
        );
        durable?;
        let carried = carried(entry);
        let written = match body {
            Ok(body) => {
                let _slot = self.run.limits.slot().await;
                self.target.put(shipment.place, body, entry.size, &carried, guard).await
            }
            Err(fault) => Err(fault),
        };
        if written.is_ok() {
            self.count(entry.size);
            if !self.ready.tags_with_put && !carried.tags.is_empty() {
                return Ok(self.tag(shipment.place, &carried, written).await);
            }
        }
        Ok(written)
    }

    /// An upload in parts: the one that an earlier run began, where it was of the same content.
    async fn put_parts(
        &self,
        shipment: &Shipment<'_>,
        pieces: &[Piece],
        guard: &Guard,
    ) -> Result<Result<Written, Fault>, Failure> {
        let carried = carried(shipment.entry);
        let (upload, arrived) = match self.begun(shipment).await {
            Some(begun) => begun,
            None => match self.target.create_upload(shipment.place, &carried).await {
                Ok(upload) => {
                    self.checkpoints.put(self.checkpoint(shipment, upload.clone())).await?;
                    (upload, Vec::new())
                }
                Err(fault) => return Ok(Err(fault)),
            },
        };
        let parts = stream::iter(pieces.to_vec())
            .map(|piece| self.send_part(shipment, &upload, piece, &arrived).boxed())
            .buffered(PARTS_UNDER_WAY)
            .try_collect::<Vec<Part>>()
            .await;
        let written = match parts {
            Ok(parts) => self.target.complete(shipment.place, &upload, &parts, shipment.entry.size, guard).await,
            Err(fault) => Err(fault),
        };
        match &written {
            Ok(_) if !self.ready.tags_with_upload && !carried.tags.is_empty() => {
                return Ok(self.tag(shipment.place, &carried, written).await);
            }
            // Its condition did not hold or it was busy: the next try begins a new upload.
            Err(Fault::Precondition | Fault::Conflict { .. } | Fault::NotFound) => {
                // Left behind it costs room, not truth.
                let _ = self.target.abort(shipment.place, &upload).await;
            }
            _ => {}
        }
        Ok(written)
    }

    /// Sends one part, unless it arrived before.
    async fn send_part(
        &self,
        shipment: &Shipment<'_>,
        upload: &str,
        piece: Piece,
        arrived: &[Part],
    ) -> Result<Part, Fault> {
        if let Some(part) = arrived.iter().find(|part| part.number == piece.number && part.size == piece.len) {
            self.progress.counts.bytes_done.fetch_add(piece.len, Ordering::Relaxed);
            return Ok(part.clone());
        }
        let _slot = self.run.limits.slot().await;
        let body = self.content(shipment.entry, piece.offset, piece.len).body(&self.run.limits).await?;
        let part = self.target.upload_part(shipment.place, upload, piece.number, body, piece.len).await?;
        self.count(piece.len);
        Ok(part)
    }

    /// The upload that an earlier run began here, and its parts that arrived: each was sent with a checksum,
    /// from the same content, cut in the same way. Another one's upload is given up.
    async fn begun(&self, shipment: &Shipment<'_>) -> Option<(String, Vec<Part>)> {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner).remove(shipment.place)?;
        if left.upload_id.is_empty() {
            self.left.lock().unwrap_or_else(PoisonError::into_inner).insert(shipment.place.clone(), left);
            return None;
        }
        let same = left.content == shipment.entry.content && left.part_lengths == shipment.layout.lengths();
        if same && let Ok(parts) = self.target.parts(shipment.place, &left.upload_id).await {
            return Some((left.upload_id, parts));
        }
        let _ = self.target.abort(shipment.place, &left.upload_id).await; // costs room, not truth
        None
    }

    /// Tags for a service that takes none with the bytes.
    async fn tag(&self, place: &Place, carried: &Carried, written: Result<Written, Fault>) -> Result<Written, Fault> {
        self.target.set_tags(place, &carried.tags).await?;
        written
    }

    fn count(&self, len: u64) {
        self.progress.counts.bytes_done.fetch_add(len, Ordering::Relaxed);
        self.tally.bytes_sent.fetch_add(len, Ordering::Relaxed);
    }

    fn content(&self, entry: &v1::ObjectEntry, offset: u64, len: u64) -> Content {
        let object = entry.object.clone().unwrap_or_default();
        Content { store: self.run.store.clone(), object, tick: entry.tick, offset, len }
    }

    fn checkpoint(&self, shipment: &Shipment<'_>, upload_id: String) -> v1::Checkpoint {
        v1::Checkpoint {
            lease: Some(self.lease.clone()),
            source: shipment.entry.object.clone(),
            source_tick: shipment.entry.tick,
            target: Some(self.object_ref(shipment.place)),
            content: shipment.entry.content.clone(),
            upload_id,
            part_lengths: shipment.layout.lengths(),
        }
    }

    /// A place at the target, as the store names it.
    pub(super) fn object_ref(&self, place: &Place) -> v1::ObjectRef {
        v1::ObjectRef {
            provider: self.target.identity.clone(),
            bucket: place.bucket.clone(),
            key: place.key.as_bytes().to_vec().into(),
        }
    }
}

/// What the object carries besides its bytes.
fn carried(entry: &v1::ObjectEntry) -> Carried {
    let metadata = entry.metadata.clone().unwrap_or_default();
    Carried { headers: headers::carried(&metadata), tags: metadata.tags }
}
