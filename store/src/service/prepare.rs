//! A message of a session becomes an entry: checked, its stamps believed or not, its small bodies made into
//! blocks, its hashes veiled. What is refused here leaves nothing behind.

use std::sync::Arc;

use bytes::Bytes;
use hawser_api::block::PAGE_HASHES;
use hawser_api::v1::control_up::Message as Up;
use hawser_api::v1::receipt::Verdict;
use hawser_api::v1::write::Change;
use hawser_api::{BlockHash, BlockSize, GapReason, v1};
use tonic::Status;

use super::{Service, believe};
use crate::catalog::entry::{Fact, bodies, map_hashes, span};
use crate::catalog::{Address, BodyReader, MANIFESTS, ManifestRow, Rows, copied, is_news, store_bucket};
use crate::domain::{Domain, PutError};
use crate::segments::ReadError;

/// Blocks that one record may name: 1 TiB of the default size. Clouds take at most 5 GiB in one request.
const RECORD_BLOCKS_MAX: usize = 8 * 1024 * 1024;

/// Who speaks on a stream.
pub(super) struct Speaker {
    pub(super) service: Arc<Service>,
    pub(super) domain: Domain,
    pub(super) hello: v1::Hello,
}

/// What is to be done with a message.
pub(super) enum Prepared {
    /// Commit it; it needs these blocks.
    Commit { fact: Fact, blocks: Vec<BlockHash> },
    /// It is answered without a commit.
    Answer(Verdict),
    /// It teaches nothing.
    Nothing,
    /// Its content cannot be kept.
    Lost { fact: Fact, reason: GapReason },
}

/// Whether a message can be prepared only once all before it are applied.
pub(super) fn reads_the_state(message: &v1::ControlUp) -> bool {
    match &message.message {
        Some(Up::Recorded(recorded)) => {
            recorded.writes.iter().any(|write| matches!(&write.change, Some(Change::PartCopy(part)) if part.ranged))
        }
        _ => false,
    }
}

/// The object that a write changes, with its ETag and version; `None` where no object changes.
pub(super) fn named(write: &v1::Write) -> Option<(v1::ObjectRef, String, String)> {
    match write.change.as_ref()? {
        Change::Put(put) => Some((put.object.clone()?, put.etag.clone(), put.version_id.clone())),
        Change::Complete(complete) => {
            Some((complete.object.clone()?, complete.etag.clone(), complete.version_id.clone()))
        }
        Change::Copy(copy) => Some((copy.object.clone()?, copy.etag.clone(), copy.version_id.clone())),
        Change::Delete(delete) => Some((delete.object.clone()?, String::new(), delete.version_id.clone())),
        Change::SetTags(set) => Some((set.object.clone()?, String::new(), set.version_id.clone())),
        Change::SetAcl(set) => Some((set.object.clone()?, String::new(), set.version_id.clone())),
        Change::CreateUpload(_) | Change::Part(_) | Change::PartCopy(_) | Change::Abort(_) | Change::Bucket(_) => None,
    }
}

impl Speaker {
    /// Prepares a message.
    ///
    /// # Errors
    /// A status that ends the stream: the log is closed, or the index cannot be read.
    pub(super) async fn prepare(&self, message: v1::ControlUp) -> Result<Prepared, Status> {
        let Some(message) = message.message else { return Ok(Prepared::Nothing) };
        match message {
            Up::Hello(_) | Up::Heartbeat(_) | Up::Pod(_) => Ok(Prepared::Nothing),
            Up::Recorded(recorded) => self.recorded(recorded).await,
            Up::Read(read) => self.read(read).await,
            Up::Sightings(sightings) => self.sightings(sightings),
            Up::Intent(mut intent) => {
                if let Some(why) = intent.object.as_ref().and_then(|object| self.not_ours(object)) {
                    return Ok(refused(why));
                }
                believe(&self.service, &mut intent.head);
                Ok(commit(Fact::Intent(intent)))
            }
            Up::Abandoned(abandoned) => Ok(commit(Fact::Abandoned(abandoned))),
            Up::Gap(mut gap) => {
                if let Some(why) = gap.object.as_ref().and_then(|object| self.not_ours(object)) {
                    return Ok(refused(why));
                }
                believe(&self.service, &mut gap.head);
                believe(&self.service, &mut gap.end);
                Ok(commit(Fact::Gap(gap)))
            }
            Up::GapOpen(mut open) => {
                believe(&self.service, &mut open.begin);
                Ok(commit(Fact::GapOpen(open)))
            }
            Up::GapClose(mut close) => {
                believe(&self.service, &mut close.end);
                Ok(commit(Fact::GapClose(close)))
            }
            Up::Journalled(journalled) => Ok(self.journalled(journalled)),
        }
    }

    async fn recorded(&self, mut recorded: v1::Recorded) -> Result<Prepared, Status> {
        believe(&self.service, &mut recorded.head);
        believe(&self.service, &mut recorded.answer);
        let mut blocks = Vec::new();
        for at in 0..recorded.writes.len() {
            if let Some(why) = objects(&recorded.writes[at]).into_iter().find_map(|object| self.not_ours(&object)) {
                return Ok(refused(why));
            }
            if matches!(&recorded.writes[at].change, Some(Change::PartCopy(part)) if part.ranged) {
                let (head, answer) = (recorded.head, recorded.answer);
                if let Some(part) = self.cut_range(&recorded.writes[at], head.as_ref(), answer.as_ref()).await? {
                    recorded.writes[at] = part;
                }
            }
            let Some(body) = bodies(&mut recorded.writes[at]) else { continue };
            match self.keep(body).await? {
                Kept::Blocks(kept) => blocks.extend(kept),
                Kept::Malformed(why) => return Ok(refused(why)),
                Kept::Lost(reason) => return Ok(Prepared::Lost { fact: Fact::Recorded(recorded), reason }),
            }
        }
        Ok(Prepared::Commit { fact: Fact::Recorded(recorded), blocks })
    }

    async fn read(&self, mut read: v1::ObservedRead) -> Result<Prepared, Status> {
        let Some(object) = read.object.clone() else { return Ok(refused("a read names its object".into())) };
        if let Some(why) = self.not_ours(&object) {
            return Ok(refused(why));
        }
        if read.etag.is_empty() {
            return Ok(Prepared::Nothing); // nothing tells what this content belongs to
        }
        believe(&self.service, &mut read.head);
        believe(&self.service, &mut read.answer);
        let mut body = read.body.take().unwrap_or_default();
        let blocks = match self.keep(&mut body).await? {
            Kept::Blocks(blocks) => blocks,
            Kept::Malformed(why) => return Ok(refused(why)),
            Kept::Lost(reason) => return Ok(refused(format!("{reason}: the content was not kept"))),
        };
        let length = length(&body);
        if read.offset == 0 && length == read.total_length {
            read.body = Some(body);
            return Ok(Prepared::Commit { fact: Fact::Read(read), blocks });
        }
        let Some(v1::body::Content::Run(run)) = body.content else { return Ok(Prepared::Nothing) };
        let whole = {
            let mut partial = self.service.partial.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            partial.add(self.domain.id(), &read, &run)
        };
        let Some(run) = whole else { return Ok(Prepared::Nothing) };
        let (veiled, _) = run.hashes.as_chunks::<32>();
        let blocks = veiled.iter().map(|hash| self.domain.unveil(hash)).collect();
        read.body = Some(v1::Body { content: Some(v1::body::Content::Run(run)) });
        read.offset = 0;
        Ok(Prepared::Commit { fact: Fact::Read(read), blocks })
    }

    /// Most sightings say what is known: they cost no commit.
    fn sightings(&self, mut sightings: v1::Sightings) -> Result<Prepared, Status> {
        believe(&self.service, &mut sightings.head);
        believe(&self.service, &mut sightings.answer);
        let view = self.service.catalog.store().view();
        let mut news = Vec::new();
        for sighting in std::mem::take(&mut sightings.objects) {
            let Some(object) = sighting.object.as_ref().filter(|object| self.not_ours(object).is_none()) else {
                continue;
            };
            let at = Address::of(self.domain.id(), object);
            if is_news(&view, &at, &sighting).map_err(|error| Status::internal(error.to_string()))? {
                news.push(sighting);
            }
        }
        sightings.objects = news;
        if sightings.objects.is_empty() { Ok(Prepared::Nothing) } else { Ok(commit(Fact::Sightings(sightings))) }
    }

    fn journalled(&self, mut journalled: v1::Journalled) -> Prepared {
        if journalled.session.len() != 16 {
            return refused("a session's id has 16 bytes".into());
        }
        match &mut journalled.outcome {
            Some(v1::journalled::Outcome::Gap(gap)) => {
                if let Some(why) = gap.object.as_ref().and_then(|object| self.not_ours(object)) {
                    return refused(why);
                }
                believe(&self.service, &mut gap.head);
                believe(&self.service, &mut gap.end);
            }
            Some(v1::journalled::Outcome::Recorded(recorded)) => {
                believe(&self.service, &mut recorded.head);
                believe(&self.service, &mut recorded.answer);
                for write in &mut recorded.writes {
                    if let Some(why) = objects(write).into_iter().find_map(|object| self.not_ours(&object)) {
                        return refused(why);
                    }
                    if bodies(write).is_some() {
                        return refused("a journal holds no content".into());
                    }
                }
            }
            None => return Prepared::Nothing,
        }
        commit(Fact::Journalled(journalled))
    }

    /// Why an object is not this binding's to speak of.
    fn not_ours(&self, object: &v1::ObjectRef) -> Option<String> {
        if object.bucket.is_empty() && object.key.is_empty() {
            return None; // of the whole binding
        }
        let ours = store_bucket(&self.hello, &object.provider, &object.bucket).is_some();
        let of = format!("bucket {:?} of {:?}", object.bucket, object.provider);
        (!ours).then(|| format!("{of} does not belong to binding {}", self.hello.binding))
    }

    /// Makes sure of a body's form, keeps inline content as a block, veils the hashes; gives the blocks that
    /// must be there.
    async fn keep(&self, body: &mut v1::Body) -> Result<Kept, Status> {
        let run = match body.content.take() {
            None => return Ok(Kept::Blocks(Vec::new())),
            Some(v1::body::Content::Inline(content)) if content.is_empty() => return Ok(Kept::Blocks(Vec::new())),
            Some(v1::body::Content::Inline(content)) => {
                if content.len() > self.hello.block_size as usize {
                    return Ok(Kept::Malformed("inline content is longer than a block".into()));
                }
                let hash = BlockHash::of(&content);
                let length = content.len() as u64;
                match self.put(hash, content).await {
                    Ok(()) => {}
                    Err(PutError::Full(_)) => return Ok(Kept::Lost(GapReason::StoreFull)),
                    Err(error) => return Err(Status::unavailable(error.to_string())),
                }
                let hashes = Bytes::copy_from_slice(hash.as_bytes());
                v1::Run { length, block_size: self.hello.block_size, hashes, paged: false }
            }
            Some(v1::body::Content::Run(run)) => run,
        };
        if let Err(why) = well_formed(&run) {
            return Ok(Kept::Malformed(why));
        }
        let listed = BlockHash::list(&run.hashes).unwrap_or_default();
        let blocks = if run.paged { self.open_pages(&run, listed).await? } else { Kept::Blocks(listed) };
        let hashes = map_hashes(&run.hashes, |hash| self.domain.veil(&BlockHash::from_bytes(*hash)));
        body.content = Some(v1::body::Content::Run(v1::Run { hashes, ..run }));
        Ok(blocks)
    }

    /// Reads the pages of a long list: the blocks that they name must be there too.
    async fn open_pages(&self, run: &v1::Run, pages: Vec<BlockHash>) -> Result<Kept, Status> {
        let count = BlockSize::new(run.block_size).map_or(0, |size| size.count(run.length));
        let domain = self.domain.clone();
        let read = tokio::task::spawn_blocking(move || -> Result<Vec<BlockHash>, ReadError> {
            let mut blocks = pages.clone();
            for page in &pages {
                blocks.extend(BlockHash::list(&domain.read(page)?).unwrap_or_default());
            }
            Ok(blocks)
        });
        let listed = run.hashes.len() / 32;
        match read.await {
            Ok(Ok(blocks)) if (blocks.len() - listed) as u64 == count => Ok(Kept::Blocks(blocks)),
            Ok(Ok(_)) => Ok(Kept::Malformed("the pages of a body name another number of blocks".into())),
            Ok(Err(ReadError::Unknown { .. })) => Ok(Kept::Lost(GapReason::MissingBlocks)),
            Ok(Err(error)) => Err(Status::internal(error.to_string())),
            Err(_) => Err(Status::internal("reading the pages of a body panicked")),
        }
    }

    async fn put(&self, hash: BlockHash, content: Bytes) -> Result<(), PutError> {
        let room = self.service.catalog.store().room(content.len()).await;
        self.domain.put(hash, content, room).await
    }

    /// A range of another object became a part: its bytes are read from the copy and cut anew. `None` when
    /// the source is not known; the Complete that lists the part then makes the gap.
    async fn cut_range(
        &self,
        write: &v1::Write,
        head: Option<&v1::Stamp>,
        answer: Option<&v1::Stamp>,
    ) -> Result<Option<v1::Write>, Status> {
        let Some(Change::PartCopy(part)) = &write.change else { return Ok(None) };
        let source = part.source.clone().unwrap_or_default();
        let span = span(&self.session(), head, answer, 0);
        let extents = {
            let view = self.service.catalog.store().view();
            let internal = |error: crate::index::IndexError| Status::internal(error.to_string());
            // The ETag is that of the range: it says nothing of the source.
            let found = copied(&view, self.domain.id(), &source, &span, "").map_err(internal)?;
            let Some((at, row)) = found.filter(|(_, row)| part.last < row.size && part.first <= part.last) else {
                return Ok(None);
            };
            view.row::<ManifestRow>(MANIFESTS, &at.at(row.tick)).map_err(internal)?.unwrap_or_default().extents
        };
        let length = part.last - part.first + 1;
        let mut reader = BodyReader::new(self.domain.clone(), extents, part.first, length);
        let (mut hashes, size) = (Vec::new(), self.hello.block_size as usize);
        let mut block = bytes::BytesMut::with_capacity(size);
        loop {
            let read = tokio::task::spawn_blocking(move || {
                let frame = reader.frame();
                (reader, frame)
            });
            let Ok((back, frame)) = read.await else { return Err(Status::internal("reading a body panicked")) };
            reader = back;
            let frame = match frame {
                Ok(frame) => frame,
                Err(ReadError::Unknown { .. } | ReadError::Damaged { .. } | ReadError::Missing { .. }) => {
                    return Ok(None);
                }
                Err(error) => return Err(Status::internal(error.to_string())),
            };
            let ended = frame.is_none();
            block.extend_from_slice(&frame.unwrap_or_default());
            while block.len() >= size || (ended && !block.is_empty()) {
                let content = block.split_to(block.len().min(size)).freeze();
                let hash = BlockHash::of(&content);
                match self.put(hash, content).await {
                    Ok(()) => hashes.extend_from_slice(hash.as_bytes()),
                    Err(PutError::Full(_)) => return Ok(None),
                    Err(error) => return Err(Status::unavailable(error.to_string())),
                }
            }
            if ended {
                break;
            }
        }
        let run = v1::Run { length, block_size: self.hello.block_size, hashes: hashes.into(), paged: false };
        Ok(Some(v1::Write {
            change: Some(Change::Part(v1::UploadPart {
                object: part.object.clone(),
                upload_id: part.upload_id.clone(),
                part_number: part.part_number,
                body: Some(v1::Body { content: Some(v1::body::Content::Run(run)) }),
                etag: part.etag.clone(),
            })),
        }))
    }
}

enum Kept {
    Blocks(Vec<BlockHash>),
    Malformed(String),
    Lost(GapReason),
}

fn well_formed(run: &v1::Run) -> Result<(), String> {
    let Some(size) = BlockSize::new(run.block_size) else {
        return Err(format!("block size {} is no power of two from 16 KiB to 8 MiB", run.block_size));
    };
    let count = size.count(run.length);
    if count > RECORD_BLOCKS_MAX as u64 {
        return Err(format!("a record names at most {RECORD_BLOCKS_MAX} blocks, not {count}"));
    }
    let listed = if run.paged { count.div_ceil(PAGE_HASHES as u64) } else { count };
    if run.hashes.len() as u64 == listed * 32 {
        Ok(())
    } else {
        Err(format!("{} bytes have {listed} hashes, not {} bytes of them", run.length, run.hashes.len()))
    }
}

fn length(body: &v1::Body) -> u64 {
    match &body.content {
        Some(v1::body::Content::Run(run)) => run.length,
        Some(v1::body::Content::Inline(content)) => content.len() as u64,
        None => 0,
    }
}

/// Objects that a write speaks of as its own: a copy's source may be anyone's, it is only looked up.
fn objects(write: &v1::Write) -> Vec<v1::ObjectRef> {
    let object = match &write.change {
        Some(Change::Put(put)) => put.object.clone(),
        Some(Change::CreateUpload(create)) => create.object.clone(),
        Some(Change::Part(part)) => part.object.clone(),
        Some(Change::PartCopy(part)) => part.object.clone(),
        Some(Change::Complete(complete)) => complete.object.clone(),
        Some(Change::Abort(abort)) => abort.object.clone(),
        Some(Change::Copy(copy)) => copy.object.clone(),
        Some(Change::Delete(delete)) => delete.object.clone(),
        Some(Change::SetTags(set)) => set.object.clone(),
        Some(Change::SetAcl(set)) => set.object.clone(),
        Some(Change::Bucket(bucket)) => Some(v1::ObjectRef {
            provider: bucket.provider.clone(),
            bucket: bucket.bucket.clone(),
            ..v1::ObjectRef::default()
        }),
        None => None,
    };
    object.into_iter().collect()
}

fn commit(fact: Fact) -> Prepared {
    Prepared::Commit { fact, blocks: Vec::new() }
}

fn refused(why: String) -> Prepared {
    Prepared::Answer(Verdict::Refused(v1::Refused { why }))
}
