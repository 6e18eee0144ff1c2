//! Content cut into consecutive blocks of one size, each named by its hash, and the list of those names.
//!
//! Content is what the object holds: transfer codings and `aws-chunked` are already off. It is not copied
//! where it passes in slices of some size; it is hashed slice by slice, so that no call takes long.
//! May not enter here: anything that waits, anything that knows where blocks go.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use hawser_api::block::{PAGE_HASHES, PUT_FRAME_MAX};
use hawser_api::{BlockHash, BlockSize, v1};

use crate::budget::{Budget, Share};

/// Slices shorter than this are copied together when they come one after the other: a slice has a handle
/// of some 50 bytes and holds on to the whole chunk that it lies in, which for 1-byte chunks of a chunked
/// body would cost many times what the budget knows of.
const CRUMB_LEN: usize = 4 * 1024;

/// Bytes of one buffer of crumbs; taken from the budget.
const CRUMBS_LEN: usize = 16 * 1024;

/// The pod's budget has no room for a copy that cutting needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

/// One block of content, or one page of a long list of hashes. Its bytes hold their part of the budget.
#[derive(Clone, Debug)]
pub struct Block {
    hash: BlockHash,
    slices: Vec<Bytes>,
    len: usize,
}

impl Block {
    /// Its name.
    pub fn hash(&self) -> BlockHash {
        self.hash
    }

    /// Bytes of content: at least 1, at most the block size (a page: [`PAGE_HASHES`] hashes).
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never true: no block is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The content in pieces of at most [`PUT_FRAME_MAX`] bytes; not copied where it lies in one slice.
    pub fn frames(&self) -> Vec<Bytes> {
        if let [slice] = &self.slices[..] {
            let starts = (0..self.len).step_by(PUT_FRAME_MAX);
            return starts.map(|at| slice.slice(at..self.len.min(at + PUT_FRAME_MAX))).collect();
        }
        let room = |done: usize| BytesMut::with_capacity(PUT_FRAME_MAX.min(self.len - done));
        let mut frames = Vec::with_capacity(self.len.div_ceil(PUT_FRAME_MAX));
        let mut frame = room(0);
        for mut slice in self.slices.iter().map(|slice| &slice[..]) {
            while !slice.is_empty() {
                let (now, later) = slice.split_at((PUT_FRAME_MAX - frame.len()).min(slice.len()));
                frame.extend_from_slice(now);
                slice = later;
                if frame.len() == PUT_FRAME_MAX {
                    let done = (frames.len() + 1) * PUT_FRAME_MAX;
                    frames.push(std::mem::replace(&mut frame, room(done)).freeze());
                }
            }
        }
        if !frame.is_empty() {
            frames.push(frame.freeze());
        }
        frames
    }
}

/// Content after its end: how a record names it.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Shorter than a quarter block: it travels inside the record and holds its part of the budget.
    Inline(Bytes),
    /// Named by the hashes of its blocks, all of which were given out.
    Run(v1::Run),
}

impl Content {
    /// Bytes of content.
    pub fn len(&self) -> u64 {
        match self {
            Content::Inline(bytes) => bytes.len() as u64,
            Content::Run(run) => run.length,
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<Content> for v1::Body {
    fn from(content: Content) -> v1::Body {
        let content = match content {
            Content::Inline(bytes) => v1::body::Content::Inline(bytes),
            Content::Run(run) => v1::body::Content::Run(run),
        };
        v1::Body { content: Some(content) }
    }
}

/// Cuts one body. Holds less than one block and one page of hashes, and 32 bytes for each full page.
#[derive(Debug)]
pub struct Cutter {
    size: BlockSize,
    /// Content shorter than this is inline.
    inline_below: u64,
    budget: Arc<Budget>,
    length: u64,
    /// The block that is being filled.
    hasher: blake3::Hasher,
    slices: Vec<Bytes>,
    filled: usize,
    crumbs: Option<Crumbs>,
    /// Hashes of the blocks since the last full page.
    hashes: Vec<u8>,
    /// Hashes of the full pages.
    pages: Vec<u8>,
}

impl Cutter {
    /// A cutter for one body. Copies that it has to make are taken from `budget`.
    pub fn new(size: BlockSize, budget: Arc<Budget>) -> Cutter {
        Cutter {
            size,
            inline_below: size.inline_below() as u64,
            budget,
            length: 0,
            hasher: blake3::Hasher::new(),
            slices: Vec::new(),
            filled: 0,
            crumbs: None,
            hashes: Vec::new(),
            pages: Vec::new(),
        }
    }

    /// The same for a part of an object, which is never inline: it is to be joined with others by its blocks.
    pub fn of_range(size: BlockSize, budget: Arc<Budget>) -> Cutter {
        Cutter { inline_below: 0, ..Cutter::new(size, budget) }
    }

    /// Bytes of the body so far.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Whether the body is already too long to be inline.
    pub fn is_run(&self) -> bool {
        self.length >= self.inline_below
    }

    /// Takes the next bytes of the body and appends the blocks that they complete to `out`.
    ///
    /// # Errors
    /// [`NoRoom`] when a copy found none in the budget: the body is lost, the cutter of no more use.
    pub fn push(&mut self, mut bytes: Bytes, out: &mut Vec<Block>) -> Result<(), NoRoom> {
        self.length += bytes.len() as u64;
        while !bytes.is_empty() {
            let slice = bytes.split_to((self.size.bytes() - self.filled).min(bytes.len()));
            self.hasher.update(&slice);
            self.filled += slice.len();
            self.keep(slice)?;
            if self.filled == self.size.bytes() {
                self.complete(out)?;
            }
        }
        Ok(())
    }

    /// Ends the body. What is left becomes its last block, or, when all of it is short, inline content.
    ///
    /// # Errors
    /// [`NoRoom`] as in [`Cutter::push`].
    pub fn finish(mut self, out: &mut Vec<Block>) -> Result<Content, NoRoom> {
        if self.length < self.inline_below {
            self.sweep_crumbs();
            return Ok(Content::Inline(join(&self.budget, self.slices)?));
        }
        if self.filled > 0 {
            self.complete(out)?;
        }
        let paged = !self.pages.is_empty();
        if paged && !self.hashes.is_empty() {
            self.turn_page(out)?;
        }
        let hashes = if paged { self.pages } else { self.hashes };
        let block_size = u32::try_from(self.size.bytes()).unwrap_or(u32::MAX);
        Ok(Content::Run(v1::Run { length: self.length, block_size, hashes: hashes.into(), paged }))
    }

    fn complete(&mut self, out: &mut Vec<Block>) -> Result<(), NoRoom> {
        self.sweep_crumbs();
        let hash = BlockHash::from(self.hasher.finalize());
        self.hasher.reset();
        out.push(Block { hash, slices: std::mem::take(&mut self.slices), len: std::mem::take(&mut self.filled) });
        // A page is turned only when there is more to write than fits it: a list of one page stays plain.
        if self.hashes.len() == PAGE_HASHES * BlockHash::LEN {
            self.turn_page(out)?;
        }
        self.hashes.extend_from_slice(hash.as_bytes());
        Ok(())
    }

    fn turn_page(&mut self, out: &mut Vec<Block>) -> Result<(), NoRoom> {
        let share = self.budget.try_take(self.hashes.len()).ok_or(NoRoom)?;
        let page = budgeted(std::mem::take(&mut self.hashes).into(), share);
        let hash = BlockHash::of(&page);
        self.pages.extend_from_slice(hash.as_bytes());
        out.push(Block { hash, len: page.len(), slices: vec![page] });
        Ok(())
    }

    fn keep(&mut self, slice: Bytes) -> Result<(), NoRoom> {
        let is_crumb = |slice: &Bytes| slice.len() < CRUMB_LEN;
        let after_crumb = self.crumbs.is_some() || self.slices.last().is_some_and(is_crumb);
        if !is_crumb(&slice) || !after_crumb {
            self.sweep_crumbs();
            self.slices.push(slice);
            return Ok(());
        }
        if self.crumbs.as_ref().is_some_and(|crumbs| crumbs.bytes.len() + slice.len() > CRUMBS_LEN) {
            self.sweep_crumbs();
        }
        let crumbs = match &mut self.crumbs {
            Some(crumbs) => crumbs,
            none => none.insert(Crumbs {
                share: self.budget.try_take(CRUMBS_LEN).ok_or(NoRoom)?,
                bytes: Vec::with_capacity(CRUMBS_LEN),
            }),
        };
        crumbs.bytes.extend_from_slice(&slice);
        Ok(())
    }

    fn sweep_crumbs(&mut self) {
        if let Some(Crumbs { bytes, share }) = self.crumbs.take() {
            self.slices.push(budgeted(bytes.into(), share));
        }
    }
}

#[derive(Debug)]
struct Crumbs {
    bytes: Vec<u8>,
    share: Share,
}

fn join(budget: &Arc<Budget>, mut slices: Vec<Bytes>) -> Result<Bytes, NoRoom> {
    if slices.len() <= 1 {
        return Ok(slices.pop().unwrap_or_default());
    }
    let len = slices.iter().map(Bytes::len).sum();
    let share = budget.try_take(len).ok_or(NoRoom)?;
    Ok(budgeted(slices.concat().into(), share))
}

/// Bytes that give `share` back when the last slice of them is dropped.
fn budgeted(bytes: Bytes, share: Share) -> Bytes {
    struct Owner(Bytes, #[expect(dead_code, reason = "held for its drop")] Share);
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    Bytes::from_owner(Owner(bytes, share))
}

/// The part of a range that is whole blocks of its object: the edges teach no block and are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Offset in the object of the first byte that is kept; a multiple of the block size.
    pub offset: u64,
    skip: u64,
    take: u64,
}

impl Window {
    /// The whole blocks within the bytes `first` to `last` of an object of `total` bytes, its short last block
    /// among them; `None` when there is none.
    pub fn of_range(size: BlockSize, first: u64, last: u64, total: u64) -> Option<Window> {
        let block = size.bytes() as u64;
        let end = last.checked_add(1)?;
        let offset = first.checked_next_multiple_of(block)?;
        let until = if end == total { total } else { end / block * block };
        (offset < until).then(|| Window { offset, skip: offset - first, take: until - offset })
    }

    /// All of an object.
    pub fn whole() -> Window {
        Window { offset: 0, skip: 0, take: u64::MAX }
    }

    /// The part of the next `bytes` of the range that lies within.
    pub fn clip(&mut self, mut bytes: Bytes) -> Bytes {
        let skip = self.skip.min(bytes.len() as u64);
        self.skip -= skip;
        let mut kept = bytes.split_off(skip as usize);
        let take = self.take.min(kept.len() as u64);
        self.take -= take;
        kept.truncate(take as usize);
        kept
    }
}

#[cfg(test)]
mod tests;
