//! The `aws-chunked` coding: the same bytes however it is split.
#![no_main]

use bytes::Bytes;
use hawser_sidecar::http::Piece;
use hawser_sidecar::s3::aws_chunked::AwsChunked;
use libfuzzer_sys::fuzz_target;

fn body(wire: &[u8], step: usize) -> (Vec<u8>, bool, bool) {
    let (mut coding, mut body) = (AwsChunked::default(), Vec::new());
    for piece in wire.chunks(step) {
        let mut input = Piece::Bytes(Bytes::copy_from_slice(piece));
        loop {
            match coding.take(&mut input) {
                Ok(Some(Piece::Bytes(bytes))) => body.extend_from_slice(&bytes),
                Ok(Some(Piece::Dropped(_))) => unreachable!("nothing was dropped"),
                Ok(None) => break,
                Err(_) => return (body, coding.is_ended(), false),
            }
        }
    }
    (body, coding.is_ended(), true)
}

fuzz_target!(|data: &[u8]| assert_eq!(body(data, usize::MAX), body(data, 1)));
