#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const SIZE: usize = 16 * 1024;

fn roomy() -> Arc<Budget> {
    Budget::new(1 << 30)
}

fn cut(pieces: impl IntoIterator<Item = Bytes>, budget: &Arc<Budget>) -> (Content, Vec<Block>) {
    let mut cutter = Cutter::new(BlockSize::MIN, Arc::clone(budget));
    let mut blocks = Vec::new();
    for piece in pieces {
        cutter.push(piece, &mut blocks).unwrap();
    }
    let content = cutter.finish(&mut blocks).unwrap();
    (content, blocks)
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 31 + n / 251) as u8).collect()
}

fn assembled(content: &Content, blocks: &[Block]) -> Vec<u8> {
    let run = match content {
        Content::Inline(bytes) => return bytes.to_vec(),
        Content::Run(run) => run,
    };
    let by_hash: HashMap<_, _> = blocks.iter().map(|block| (block.hash(), block.frames().concat())).collect();
    let mut names = BlockHash::list(&run.hashes).unwrap();
    if run.paged {
        names = names.iter().flat_map(|page| BlockHash::list(&by_hash[page]).unwrap()).collect();
    }
    let (last, whole) = names.split_last().unwrap();
    assert!(whole.iter().all(|name| by_hash[name].len() == SIZE), "only the last block is short");
    assert_eq!(names.len() as u64, BlockSize::MIN.count(run.length));
    whole.iter().chain([last]).flat_map(|name| by_hash[name].clone()).collect()
}

#[test]
fn content_is_cut_at_every_block_border_and_nowhere_else() {
    let rows = [
        ("empty", 0, None),
        ("one byte", 1, None),
        ("just inline", SIZE / 4 - 1, None),
        ("a quarter", SIZE / 4, Some(1)),
        ("one short of a block", SIZE - 1, Some(1)),
        ("a block", SIZE, Some(1)),
        ("one more", SIZE + 1, Some(2)),
        ("exact multiple", 3 * SIZE, Some(3)),
        ("odd", 3 * SIZE + 777, Some(4)),
    ];
    for (what, len, count) in rows {
        let bytes = pattern(len);
        let (content, blocks) = cut([Bytes::from(bytes.clone())], &roomy());
        assert_eq!(content.len(), len as u64, "{what}");
        assert_eq!(matches!(content, Content::Run(_)).then_some(blocks.len()), count, "{what}");
        assert_eq!(assembled(&content, &blocks), bytes, "{what}");
        for block in &blocks {
            assert_eq!(BlockHash::of(&block.frames().concat()), block.hash(), "{what}");
        }
    }
}

#[test]
fn a_list_is_paged_once_it_is_longer_than_a_page() {
    let blocks_of = |count: usize| {
        let zeros = Bytes::from(vec![0; SIZE]);
        cut((0..count).map(|n| if n % 2 == 0 { zeros.clone() } else { Bytes::from(vec![1; SIZE]) }), &roomy())
    };
    for (count, pages) in [(PAGE_HASHES, 0), (PAGE_HASHES + 1, 2), (2 * PAGE_HASHES, 2), (2 * PAGE_HASHES + 1, 3)] {
        let (content, blocks) = blocks_of(count);
        let Content::Run(run) = content else { panic!("a run") };
        assert_eq!((run.paged, blocks.len()), (pages > 0, count + pages), "{count}");
        let names = BlockHash::list(&run.hashes).unwrap();
        assert_eq!(names.len(), if pages > 0 { pages } else { count }, "{count}");
        let pages: Vec<_> = blocks.iter().filter(|block| names.contains(&block.hash()) && run.paged).collect();
        let listed: usize = pages.iter().map(|page| page.len() / BlockHash::LEN).sum();
        assert_eq!(listed, if run.paged { count } else { 0 }, "{count}");
    }
}

#[test]
fn a_block_that_lies_in_one_slice_is_not_copied() {
    let bytes = Bytes::from(pattern(2 * SIZE));
    let (_, blocks) = cut([bytes.clone()], &roomy());
    let frames: Vec<_> = blocks.iter().flat_map(Block::frames).collect();
    assert_eq!(frames[0].as_ptr(), bytes.as_ptr());
    assert_eq!(frames[1].as_ptr(), bytes[SIZE..].as_ptr());
}

#[test]
fn a_block_travels_in_frames_of_at_most_a_mebibyte() {
    let mut cutter = Cutter::new(BlockSize::MAX, roomy());
    let mut blocks = Vec::new();
    let bytes = pattern(BlockSize::MAX.bytes());
    for piece in bytes.chunks(700_001) {
        cutter.push(Bytes::copy_from_slice(piece), &mut blocks).unwrap();
    }
    let frames = blocks[0].frames();
    assert_eq!(frames.len(), 8);
    assert!(frames.iter().all(|frame| frame.len() == PUT_FRAME_MAX));
    assert_eq!(frames.concat(), bytes);
}

#[test]
fn crumbs_cost_about_what_they_weigh_and_give_it_back() {
    let budget = Budget::new(1 << 20);
    let bytes = pattern(SIZE + SIZE / 2);
    let (content, blocks) = cut(bytes.chunks(1).map(Bytes::copy_from_slice), &budget);
    assert_eq!(assembled(&content, &blocks), bytes);
    assert!(blocks.iter().all(|block| block.slices.len() < 4), "one-byte slices were copied together");
    assert!(budget.used() >= bytes.len() && budget.used() < 3 * bytes.len(), "{}", budget.used());
    drop((content, blocks));
    assert_eq!(budget.used(), 0);
}

#[test]
fn without_room_for_a_copy_the_body_is_lost() {
    let mut cutter = Cutter::new(BlockSize::MIN, Budget::new(1000));
    let mut blocks = Vec::new();
    cutter.push(Bytes::from_static(b"a"), &mut blocks).unwrap();
    assert_eq!(cutter.push(Bytes::from_static(b"b"), &mut blocks), Err(NoRoom));
}

#[test]
fn a_range_keeps_whole_blocks_and_the_short_last_one() {
    let block = SIZE as u64;
    let rows = [
        ("aligned", 0, block - 1, 10 * block, Some((0, block))),
        ("inside one block", 5, block - 2, 10 * block, None),
        ("both edges", 1, 3 * block, 10 * block, Some((block, 2 * block))),
        ("to the end", block - 1, 10 * block + 4, 10 * block + 5, Some((block, 9 * block + 5))),
        ("tail only", 10 * block, 10 * block + 4, 10 * block + 5, Some((10 * block, 5))),
        ("inside the tail", 10 * block + 1, 10 * block + 4, 10 * block + 5, None),
    ];
    for (what, first, last, total, kept) in rows {
        let window = Window::of_range(BlockSize::MIN, first, last, total);
        assert_eq!(window.map(|window| (window.offset, window.take)), kept, "{what}");
        let Some((mut window, (offset, len))) = window.zip(kept) else { continue };
        let range = pattern((last - first + 1) as usize);
        let clipped: Vec<u8> =
            range.chunks(1000).flat_map(|piece| window.clip(Bytes::copy_from_slice(piece)).to_vec()).collect();
        let from = (offset - first) as usize;
        assert_eq!(clipped, range[from..from + len as usize], "{what}");
    }
}

proptest! {
    #[test]
    fn what_was_cut_reassembles(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..9000), 0..12)) {
        let whole = pieces.concat();
        let budget = roomy();
        let (content, blocks) = cut(pieces.into_iter().map(Bytes::from), &budget);
        prop_assert_eq!(assembled(&content, &blocks), whole);
        drop((content, blocks));
        prop_assert_eq!(budget.used(), 0);
    }
}
