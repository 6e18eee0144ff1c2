//! Heads, and what follows them, from both sides: the same events however the bytes are split.
#![no_main]

use bytes::Bytes;
use hawser_api::Stamp;
use hawser_sidecar::budget::Budget;
use hawser_sidecar::http::{Event, Exchanges};
use hawser_sidecar::tee::{Chunk, Seen, Side};
use libfuzzer_sys::fuzz_target;

fn play(client: &[u8], cloud: &[u8], step: usize) -> usize {
    let budget = Budget::new(usize::MAX / 2);
    let (mut exchanges, mut out) = (Exchanges::default(), Vec::new());
    for (side, wire) in [(Side::Client, client), (Side::Cloud, cloud)] {
        for piece in wire.chunks(step) {
            let share = budget.try_take(piece.len()).expect("room");
            let bytes = Some((Bytes::copy_from_slice(piece), share));
            exchanges.on(Seen::Chunk(Chunk { side, stamp: Stamp::default(), len: piece.len(), bytes }), &mut out);
        }
    }
    // Bodies come in as many pieces as the wire; everything else does not.
    out.retain(|event| !matches!(event, Event::RequestBody { .. } | Event::AnswerBody { .. }));
    out.len()
}

fuzz_target!(|data: &[u8]| {
    let split = data.first().map_or(0, |byte| usize::from(*byte) * data.len() / 256);
    let (client, cloud) = data.split_at(split);
    assert_eq!(play(client, cloud, usize::MAX), play(client, cloud, 1));
});
