//! From a manifest to bytes: the blocks of a version in order, each compared with its hash.

use std::sync::Arc;

use bytes::Bytes;
use hawser_api::block::{PAGE_HASHES, PUT_FRAME_MAX};
use hawser_api::{BlockHash, v1};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::Catalog;
use super::list::ListError;
use super::rows::{Address, Extent, MANIFESTS, ManifestRow, Rows, VERSIONS, VersionRow};
use crate::domain::{Domain, Piece};
use crate::segments::ReadError;

/// Frames read ahead of a slow reader.
const FRAMES_AHEAD: usize = 4;

/// Reads a range of one version's content, in order. Blocks the thread that asks it.
pub struct BodyReader {
    domain: Domain,
    extents: Vec<Extent>,
    /// The extent being read, and how much of the range is behind its beginning.
    extent: usize,
    at: u64,
    left: u64,
    page: Option<(BlockHash, Vec<BlockHash>)>,
}

impl Catalog {
    /// A reader over `length` bytes from `offset` of the version that was recorded at `tick`; 0 reads to
    /// the end.
    ///
    /// # Errors
    /// [`ListError::NotFound`] when there is no such version, [`ListError::ContentUnknown`] when its
    /// content was never seen.
    pub fn body(
        &self,
        domain: &str,
        object: &v1::ObjectRef,
        tick: u64,
        offset: u64,
        length: u64,
    ) -> Result<BodyReader, ListError> {
        let domain = self.store().existing_domain(domain).ok_or(ListError::NotFound)?;
        let view = self.store().view();
        let at = Address::of(domain.id(), object);
        let row: VersionRow = view.row(VERSIONS, &at.at(tick))?.ok_or(ListError::NotFound)?;
        if !row.content_known() {
            return Err(ListError::ContentUnknown);
        }
        if offset > row.size {
            return Err(ListError::Range { size: row.size });
        }
        let extents = view.row::<ManifestRow>(MANIFESTS, &at.at(tick))?.unwrap_or_default().extents;
        drop(view);
        Ok(BodyReader::new(domain, extents, offset, if length == 0 { u64::MAX } else { length }))
    }

    /// The same as a stream of frames of at most 1 MiB, read ahead by a few frames on a thread of its own.
    ///
    /// # Errors
    /// As [`Catalog::body`].
    pub fn read_body(
        self: &Arc<Self>,
        domain: &str,
        object: &v1::ObjectRef,
        tick: u64,
        offset: u64,
        length: u64,
    ) -> Result<ReceiverStream<Result<Bytes, ReadError>>, ListError> {
        let mut reader = self.body(domain, object, tick, offset, length)?;
        let (frames, receiver) = mpsc::channel(FRAMES_AHEAD);
        // Ends when the receiver is dropped: the send then fails.
        tokio::task::spawn_blocking(move || {
            while let Some(frame) = reader.frame().transpose() {
                let failed = frame.is_err();
                if frames.blocking_send(frame).is_err() || failed {
                    return;
                }
            }
        });
        Ok(ReceiverStream::new(receiver))
    }
}

impl BodyReader {
    pub(crate) fn new(domain: Domain, extents: Vec<Extent>, offset: u64, length: u64) -> BodyReader {
        let mut reader = BodyReader { domain, extents, extent: 0, at: offset, left: length, page: None };
        reader.skip();
        reader
    }

    /// The next frame; `None` at the end.
    ///
    /// # Errors
    /// [`ReadError`] when a block is gone or damaged.
    pub fn frame(&mut self) -> Result<Option<Bytes>, ReadError> {
        let Some(extent) = self.extents.get(self.extent).filter(|_| self.left > 0).cloned() else {
            return Ok(None);
        };
        let size = u64::from(extent.block_size.max(1));
        let (index, within) = (self.at / size, self.at % size);
        let end = extent.length.min((index + 1) * size);
        let len = (end - self.at).min(self.left).min(PUT_FRAME_MAX as u64);
        let Some(hash) = self.hash(&extent, index)? else {
            return Err(ReadError::Unknown { hash: BlockHash::from_bytes([0; 32]) });
        };
        let range = within as usize..(within + len) as usize;
        let pieces = self.domain.read_pieces(&[Piece { hash, range }])?;
        let piece = pieces.into_iter().next().unwrap_or_default();
        if piece.len() as u64 != len {
            return Err(ReadError::Unknown { hash }); // a block of another length is not this one
        }
        self.at += len;
        self.left -= len;
        self.skip();
        Ok(Some(piece))
    }

    /// Goes past extents that are behind.
    fn skip(&mut self) {
        while let Some(extent) = self.extents.get(self.extent)
            && self.at >= extent.length
        {
            self.at -= extent.length;
            self.extent += 1;
        }
    }

    fn hash(&mut self, extent: &Extent, index: u64) -> Result<Option<BlockHash>, ReadError> {
        let (hashes, _) = extent.hashes.as_chunks::<32>();
        if !extent.paged {
            return Ok(hashes.get(index as usize).map(|hash| self.domain.unveil(hash)));
        }
        let (page, within) = (index as usize / PAGE_HASHES, index as usize % PAGE_HASHES);
        let Some(name) = hashes.get(page).map(|hash| self.domain.unveil(hash)) else { return Ok(None) };
        if self.page.as_ref().is_none_or(|(cached, _)| *cached != name) {
            let content = self.domain.read(&name)?;
            self.page = Some((name, BlockHash::list(&content).unwrap_or_default()));
        }
        Ok(self.page.as_ref().and_then(|(_, hashes)| hashes.get(within).copied()))
    }
}
