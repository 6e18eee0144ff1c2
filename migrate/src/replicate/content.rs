//! The bytes of one recorded version, from the store, as the body of a request: small ones whole in memory,
//! so that the SDK can sign and repeat them; others streamed, and streamed anew when a request is repeated.
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use aws_sdk_s3::primitives::SdkBody;
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use hawser_api::v1;
use http_body::{Body, Frame, SizeHint};

use crate::cloud::Fault;
use crate::limits::Limits;
use crate::store::Store;

/// Bodies up to this are read into memory first.
pub const MEMORY_MAX: u64 = 1024 * 1024;

/// A range of one recorded version.
#[derive(Clone)]
pub struct Content {
    /// The store.
    pub store: Store,
    /// The record.
    pub object: v1::ObjectRef,
    /// Its tick.
    pub tick: u64,
    /// Where to begin.
    pub offset: u64,
    /// How many bytes.
    pub len: u64,
}

type Bodies = Pin<Box<dyn Stream<Item = Result<Bytes, Fault>> + Send>>;

impl Content {
    /// The bytes as they come.
    pub fn stream(&self) -> Bodies {
        if self.len == 0 {
            return Box::pin(stream::empty()); // a length of 0 would ask for everything
        }
        let request = v1::ReadBodyRequest {
            object: Some(self.object.clone()),
            tick: self.tick,
            offset: self.offset,
            length: self.len,
        };
        let mut catalog = self.store.catalog.clone();
        let lost = |status: tonic::Status| Fault::Source(format!("{:?}: {}", status.code(), status.message()));
        let frames = async move { catalog.read_body(request).await.map(|answer| answer.into_inner()).map_err(lost) };
        Box::pin(
            stream::once(frames).map_ok(move |frames| frames.map_err(lost).map_ok(|frame| frame.data)).try_flatten(),
        )
    }

    /// The body of a request that sends it.
    pub async fn body(self, line: &Arc<Limits>) -> Result<SdkBody, Fault> {
        if self.len > MEMORY_MAX {
            let line = line.clone();
            return Ok(SdkBody::retryable(move || {
                SdkBody::from_body_1_x(Sized { bytes: std::sync::Mutex::new(bounded(&self, &line)), left: self.len })
            }));
        }
        let mut whole = BytesMut::with_capacity(self.len as usize);
        let mut bytes = self.stream();
        while let Some(bytes) = bytes.next().await {
            whole.extend_from_slice(&bytes?);
        }
        if whole.len() as u64 != self.len {
            return Err(Fault::Source(format!("{} of {} bytes came", whole.len(), self.len)));
        }
        line.take(self.len).await;
        Ok(SdkBody::from(whole.freeze()))
    }
}

fn bounded(content: &Content, line: &Arc<Limits>) -> Bodies {
    let line = line.clone();
    Box::pin(content.stream().and_then(move |bytes| {
        let line = line.clone();
        async move {
            line.take(bytes.len() as u64).await;
            Ok(bytes)
        }
    }))
}

/// A body that says its length before it comes, and fails rather than be shorter or longer.
struct Sized {
    /// Never locked: the mutex makes it `Sync`, which a request's body has to be.
    bytes: std::sync::Mutex<Bodies>,
    left: u64,
}

impl Body for Sized {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let this = self.get_mut();
        if this.left == 0 {
            return Poll::Ready(None);
        }
        let bytes = this.bytes.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        Poll::Ready(match std::task::ready!(bytes.as_mut().poll_next(task)) {
            Some(Ok(bytes)) if bytes.len() as u64 <= this.left => {
                this.left -= bytes.len() as u64;
                Some(Ok(Frame::data(bytes)))
            }
            Some(Ok(_)) => Some(Err(Fault::Source("more bytes came than the record has".to_owned()))),
            Some(Err(fault)) => Some(Err(fault)),
            None => Some(Err(Fault::Source(format!("{} bytes are missing at the end", this.left)))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
