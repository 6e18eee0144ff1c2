//! Cuts a body into consecutive blocks of one size while it passes, and keeps the list of their hashes in
//! bounded memory: past one page, the list itself becomes blocks.
use bytes::{Bytes, BytesMut};
use hawser_api::block::PAGE_HASHES;
use hawser_api::v1;
use hawser_api::{BlockHash, BlockSize};

/// A body that is being cut.
pub struct Cutter {
    size: BlockSize,
    filling: BytesMut,
    len: u64,
    hashes: Vec<u8>,
    pages: Vec<u8>,
}

/// Blocks that are ready to be offered.
pub type Ready = Vec<(BlockHash, Bytes)>;

impl Cutter {
    /// An empty body in blocks of `size`.
    pub fn new(size: BlockSize) -> Cutter {
        Cutter { size, filling: BytesMut::new(), len: 0, hashes: Vec::new(), pages: Vec::new() }
    }

    /// Takes the next bytes; whole blocks go to `ready`.
    pub fn take(&mut self, mut bytes: &[u8], ready: &mut Ready) {
        self.len += bytes.len() as u64;
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(self.size.bytes() - self.filling.len()));
            self.filling.extend_from_slice(now);
            bytes = rest;
            if self.filling.len() == self.size.bytes() {
                self.cut(ready);
            }
        }
    }

    /// Ends the body. What is short travels inside its record; else the last blocks go to `ready`.
    pub fn end(mut self, ready: &mut Ready) -> v1::Body {
        if self.len < self.size.inline_below() as u64 {
            return v1::Body { content: Some(v1::body::Content::Inline(self.filling.freeze())) };
        }
        if !self.filling.is_empty() {
            self.cut(ready);
        }
        let paged = !self.pages.is_empty();
        if paged && !self.hashes.is_empty() {
            self.turn_page(ready);
        }
        let hashes = if paged { self.pages } else { self.hashes };
        let run = v1::Run { length: self.len, block_size: self.size.bytes() as u32, hashes: hashes.into(), paged };
        v1::Body { content: Some(v1::body::Content::Run(run)) }
    }

    fn cut(&mut self, ready: &mut Ready) {
        if self.hashes.len() == PAGE_HASHES * BlockHash::LEN {
            self.turn_page(ready);
        }
        let block = self.filling.split().freeze();
        let hash = BlockHash::of(&block);
        self.hashes.extend_from_slice(hash.as_bytes());
        ready.push((hash, block));
    }

    fn turn_page(&mut self, ready: &mut Ready) {
        let page = Bytes::from(std::mem::take(&mut self.hashes));
        let hash = BlockHash::of(&page);
        self.pages.extend_from_slice(hash.as_bytes());
        ready.push((hash, page));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn cut(len: usize, step: usize) -> (v1::body::Content, Ready) {
        let body: Vec<u8> = (0..len).map(|at| (at / 1000) as u8).collect();
        let (mut cutter, mut ready) = (Cutter::new(BlockSize::MIN), Vec::new());
        body.chunks(step).for_each(|bytes| cutter.take(bytes, &mut ready));
        (cutter.end(&mut ready).content.unwrap(), ready)
    }

    #[test]
    fn blocks_do_not_depend_on_how_the_bytes_come() {
        for len in [4096, 16 * 1024, 16 * 1024 + 1, 100_000] {
            assert_eq!(cut(len, 1).0, cut(len, 70_000).0, "{len}");
        }
    }

    #[test]
    fn a_body_is_inline_below_a_quarter_block() {
        for (len, inline) in [(0, true), (4095, true), (4096, false), (20_000, false)] {
            let (content, ready) = cut(len, 512);
            assert_eq!(matches!(content, v1::body::Content::Inline(_)), inline, "{len}");
            assert_eq!(ready.is_empty(), inline, "{len}");
        }
    }

    #[test]
    fn a_list_longer_than_a_page_becomes_blocks_itself() {
        let block = BlockSize::MIN.bytes();
        for (blocks, pages) in [(PAGE_HASHES, 0), (PAGE_HASHES + 1, 2), (2 * PAGE_HASHES, 2)] {
            let (content, ready) = cut(blocks * block, block);
            let v1::body::Content::Run(run) = content else { panic!("inline") };
            assert_eq!(run.paged, pages > 0, "{blocks}");
            assert_eq!(ready.len(), blocks + pages, "{blocks}");
            assert_eq!(run.hashes.len() / 32, if pages > 0 { pages } else { blocks }, "{blocks}");
        }
    }
}
