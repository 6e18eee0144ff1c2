//! Whether what is at a cloud equals a recorded version: length, headers, tags, then every byte. ETags of
//! two clouds are never compared; an MD5 is computed here from the store's bytes where the ETag may be one.
use std::collections::BTreeMap;

use aws_sdk_s3::primitives::ByteStream;
use bytes::{Buf, Bytes};
use futures::StreamExt;
use hawser_api::v1;
use md5::{Digest, Md5};

use super::content::Content;
use crate::cloud::read::Head;
use crate::cloud::{Cloud, Fault, Place, headers};
use crate::store::Store;

/// The first thing that differs besides the bytes; `None` when nothing does.
pub async fn metadata(
    cloud: &Cloud,
    place: &Place,
    head: &Head,
    size: u64,
    meant: &v1::Metadata,
) -> Result<Option<String>, Fault> {
    if head.size != size {
        return Ok(Some(format!("length {} instead of {size}", head.size)));
    }
    if meant.headers_known
        && let Some(name) = headers::difference(&headers::carried(meant), &headers::carried_of(&head.headers))
    {
        return Ok(Some(format!("header {name}")));
    }
    // Services that count tags in a HEAD spare a request for every object without any.
    if meant.tags_known && !(meant.tags.is_empty() && head.tag_count.unwrap_or(0) == 0) {
        let there: BTreeMap<String, String> = cloud.tags(place).await?.unwrap_or_default();
        if there != meant.tags {
            return Ok(Some("tags".to_owned()));
        }
    }
    Ok(None)
}

/// Whether the bytes at the cloud, still under the ETag of `head`, are those of the record.
pub async fn bytes(
    cloud: &Cloud,
    place: &Place,
    head: &Head,
    store: &Store,
    object: &v1::ObjectRef,
    tick: u64,
) -> Result<bool, Fault> {
    let content = Content { store: store.clone(), object: object.clone(), tick, offset: 0, len: head.size };
    if is_md5(&head.etag) {
        let mut hash = Md5::new();
        let mut bytes = content.stream();
        while let Some(bytes) = bytes.next().await {
            hash.update(&bytes?);
        }
        let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        if hex == head.etag {
            return Ok(true);
        } // else it is no MD5, or they differ
    }
    let (_, there) = cloud.get(place, &head.etag).await?;
    same(there, content).await
}

/// Reads both to the first difference.
pub async fn same(mut there: ByteStream, content: Content) -> Result<bool, Fault> {
    let mut ours = content.stream();
    let (mut left, mut right) = (Bytes::new(), Bytes::new());
    loop {
        if left.is_empty() {
            left = match there.next().await {
                Some(bytes) => bytes.map_err(|error| Fault::Unreachable(error.to_string()))?,
                None => {
                    return Ok(right.is_empty() && ours.next().await.transpose()?.is_none_or(|rest| rest.is_empty()));
                }
            };
        }
        if right.is_empty() {
            right = match ours.next().await {
                Some(bytes) => bytes?,
                None => return Ok(left.is_empty()),
            };
        }
        let len = left.len().min(right.len());
        if left[..len] != right[..len] {
            return Ok(false);
        }
        left.advance(len);
        right.advance(len);
    }
}

fn is_md5(etag: &str) -> bool {
    etag.len() == 32 && etag.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}
