//! A request's body in the chunked coding: the same bytes however it is split.
#![no_main]

use bytes::Bytes;
use hawser_api::Stamp;
use hawser_sidecar::budget::Budget;
use hawser_sidecar::http::{Event, Exchanges, Piece};
use hawser_sidecar::tee::{Chunk, Seen, Side};
use libfuzzer_sys::fuzz_target;

fn body(wire: &[u8], step: usize) -> (Vec<u8>, bool) {
    let budget = Budget::new(usize::MAX / 2);
    let (mut exchanges, mut out) = (Exchanges::default(), Vec::new());
    for piece in wire.chunks(step) {
        let share = budget.try_take(piece.len()).expect("room");
        let bytes = Some((Bytes::copy_from_slice(piece), share));
        let chunk = Chunk { side: Side::Client, stamp: Stamp::default(), len: piece.len(), bytes };
        exchanges.on(Seen::Chunk(chunk), &mut out);
    }
    let (mut body, mut ended) = (Vec::new(), false);
    for event in out {
        match event {
            Event::RequestBody { piece: Piece::Bytes(bytes), .. } => body.extend_from_slice(&bytes),
            Event::RequestEnd { .. } => ended = true,
            _ => {}
        }
    }
    (body, ended)
}

fuzz_target!(|data: &[u8]| {
    let wire = [b"PUT /b/k HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", data].concat();
    assert_eq!(body(&wire, usize::MAX), body(&wire, 1));
});
