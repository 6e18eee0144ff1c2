//! The Catalog service: how people and tools read the copy.

use std::sync::Arc;

use bytes::Bytes;
use hawser_api::block::PUT_FRAME_MAX;
use hawser_api::v1;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{Reading, Service, blocking, list_status};
use crate::catalog::{Catalog, ListError, PAGE_MAX};

/// Entries that wait for a slow reader.
pub(super) const ENTRIES_AHEAD: usize = 64;

type Stream<T> = ReceiverStream<Result<T, Status>>;

#[tonic::async_trait]
impl v1::catalog_server::Catalog for Reading {
    type ListObjectsStream = Stream<v1::ObjectEntry>;
    type ListVersionsStream = Stream<v1::ObjectEntry>;
    type ReadBodyStream = std::pin::Pin<Box<dyn futures::Stream<Item = Result<v1::BodyFrame, Status>> + Send>>;
    type ListGapsStream = Stream<v1::GapEntry>;

    async fn status(&self, request: Request<v1::StatusRequest>) -> Result<Response<v1::StatusReply>, Status> {
        let service = Arc::clone(&self.0);
        let domain = service.domain(request.metadata()).await?;
        let id = domain.id();
        let binding = request.into_inner().binding;
        let (incarnation, tick) = (service.catalog.store().incarnation(), service.durable_tick());
        let catalog = Arc::clone(&service.catalog);
        let (bindings, logical_bytes, usage) = blocking(move || {
            let bindings = catalog.status_of_bindings(id, &binding)?;
            Ok((bindings, catalog.logical_bytes(id)?, catalog.usage(id)?))
        })
        .await?;
        let mut reply = v1::StatusReply {
            incarnation,
            tick,
            bindings,
            logical_bytes,
            unique_bytes: usage.unique_bytes,
            stored_bytes: usage.stored_bytes,
            blocks: usage.blocks,
        };
        let progress = service.lock_progress();
        for status in &mut reply.bindings {
            status.sessions = service.sessions.count(id, &status.binding);
            status.progress = progress.get(&(id, status.binding.clone())).cloned();
        }
        drop(progress);
        Ok(Response::new(reply))
    }

    async fn list_objects(
        &self,
        request: Request<v1::ListObjectsRequest>,
    ) -> Result<Response<Self::ListObjectsStream>, Status> {
        self.0.list(request, |catalog, domain, request| catalog.list_objects(domain, request)).await
    }

    async fn list_versions(
        &self,
        request: Request<v1::ListObjectsRequest>,
    ) -> Result<Response<Self::ListVersionsStream>, Status> {
        self.0.list(request, |catalog, domain, request| catalog.list_versions(domain, request)).await
    }

    async fn get_object(&self, request: Request<v1::GetObjectRequest>) -> Result<Response<v1::ObjectEntry>, Status> {
        let domain = self.0.domain(request.metadata()).await?;
        let catalog = Arc::clone(&self.0.catalog);
        let request = request.into_inner();
        blocking(move || catalog.get_object(domain.name(), &request)).await.map(Response::new)
    }

    async fn read_body(&self, request: Request<v1::ReadBodyRequest>) -> Result<Response<Self::ReadBodyStream>, Status> {
        let domain = self.0.domain(request.metadata()).await?;
        let request = request.into_inner();
        let object = request.object.unwrap_or_default();
        let frames = self.0.catalog.read_body(domain.name(), &object, request.tick, request.offset, request.length);
        let frames = frames.map_err(list_status)?.map(|frame| match frame {
            Ok(data) => {
                debug_assert!(data.len() <= PUT_FRAME_MAX);
                Ok(v1::BodyFrame { data })
            }
            Err(error) => Err(Status::data_loss(error.to_string())),
        });
        Ok(Response::new(Box::pin(frames)))
    }

    async fn list_gaps(&self, request: Request<v1::ListGapsRequest>) -> Result<Response<Self::ListGapsStream>, Status> {
        let domain = self.0.domain(request.metadata()).await?;
        let request = request.into_inner();
        let catalog = Arc::clone(&self.0.catalog);
        Ok(Response::new(paged(0_u64, move |after| {
            let gaps = catalog.list_gaps(domain.name(), &request, after)?;
            let next = (gaps.len() >= PAGE_MAX).then(|| gaps.last().map_or(after, |gap| gap.id));
            Ok((gaps, next))
        })))
    }

    async fn list_buckets(
        &self,
        request: Request<v1::ListBucketsRequest>,
    ) -> Result<Response<v1::ListBucketsReply>, Status> {
        let domain = self.0.domain(request.metadata()).await?;
        let catalog = Arc::clone(&self.0.catalog);
        let binding = request.into_inner().binding;
        let buckets = blocking(move || catalog.list_buckets(domain.name(), &binding)).await?;
        Ok(Response::new(v1::ListBucketsReply { buckets }))
    }

    async fn get_s3_key(&self, request: Request<v1::GetS3KeyRequest>) -> Result<Response<v1::S3Key>, Status> {
        let domain = self.0.domain(request.metadata()).await?;
        let secret = self.0.keys.secret(domain.name()).ok_or_else(|| {
            Status::not_found("no S3 key is set for this domain: start the store with --s3-master or --s3-keys")
        })?;
        Ok(Response::new(v1::S3Key { access_key: domain.name().to_owned(), secret: secret.expose().to_owned() }))
    }
}

impl Service {
    /// Streams a listing, page after page. A bucket that is not known is an error, not an empty stream.
    async fn list(
        &self,
        request: Request<v1::ListObjectsRequest>,
        page: fn(&Catalog, &str, &v1::ListObjectsRequest) -> Result<Vec<v1::ObjectEntry>, ListError>,
    ) -> Result<Response<Stream<v1::ObjectEntry>>, Status> {
        let domain = self.domain(request.metadata()).await?;
        let request = request.into_inner();
        let limit = if request.limit == 0 { u64::MAX } else { request.limit };
        let catalog = Arc::clone(&self.catalog);
        let first = {
            let (catalog, domain) = (Arc::clone(&catalog), domain.clone());
            let request = v1::ListObjectsRequest { limit: limit.min(PAGE_MAX as u64), ..request.clone() };
            blocking(move || page(&catalog, domain.name(), &request)).await?
        };
        let mut first = Some(first);
        Ok(Response::new(paged((request.start_after.clone(), limit), move |(after, left): (Bytes, u64)| {
            let asked = left.min(PAGE_MAX as u64);
            let mut entries = match first.take() {
                Some(entries) => entries,
                None => {
                    let request = v1::ListObjectsRequest { start_after: after, limit: asked, ..request.clone() };
                    page(&catalog, domain.name(), &request)?
                }
            };
            let full = entries.len() as u64 >= asked;
            let last = entries.last().and_then(|entry| entry.object.as_ref()).map(|object| object.key.clone());
            entries.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            let left = left - entries.len() as u64;
            let next = last.filter(|_| full && left > 0).map(|key| (key, left));
            Ok((entries, next))
        })))
    }
}

/// A stream of pages that `page` gives, each from where the one before ended, read on a thread that may wait.
pub(super) fn paged<T: Send + 'static, C: Send + 'static>(
    from: C,
    mut page: impl FnMut(C) -> Result<(Vec<T>, Option<C>), ListError> + Send + 'static,
) -> Stream<T> {
    let (entries, stream) = mpsc::channel(ENTRIES_AHEAD);
    tokio::task::spawn_blocking(move || {
        let mut next = Some(from);
        while let Some(from) = next.take() {
            match page(from) {
                Ok((found, following)) => {
                    for entry in found {
                        if entries.blocking_send(Ok(entry)).is_err() {
                            return; // nobody reads any more
                        }
                    }
                    next = following;
                }
                Err(error) => {
                    let _ = entries.blocking_send(Err(list_status(error)));
                    return;
                }
            }
        }
    });
    ReceiverStream::new(stream)
}
