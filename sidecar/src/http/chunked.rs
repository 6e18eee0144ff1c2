//! The chunked transfer coding (RFC 9112 §7.1), taken off without copying the data.

use bytes::Bytes;

use super::head::{Fields, Gather};
use super::{Broken, Piece};

/// Longest line of a chunk's size with its extensions. Real ones are under 100 bytes (aws-chunked puts its
/// signatures into lines of its own coding, not into these).
pub const SIZE_LINE_MAX: usize = 4096;

/// Where in the coding the next byte stands.
#[derive(Debug)]
pub(crate) enum Chunked {
    /// In the line that says how long the next chunk is.
    Size(Vec<u8>),
    /// In a chunk's data, so many bytes before its end.
    Data(u64),
    /// In the line end behind a chunk's data; a carriage return was seen or not.
    DataEnd { cr: bool },
    /// In the trailer.
    Trailer(Gather),
}

/// What came off the coding.
#[derive(Debug, PartialEq)]
pub(crate) enum Unchunked {
    /// Data, or word of data that was dropped.
    Piece(Piece),
    /// The last chunk and the trailer.
    End(Fields),
}

impl Chunked {
    /// At the first chunk's size.
    pub(crate) fn new() -> Chunked {
        Chunked::Size(Vec::new())
    }

    /// Takes the next piece off the front of `input`, until that is empty. `Ok(None)`: more input is needed.
    ///
    /// # Errors
    /// [`Broken::Malformed`] when it is no chunked coding; [`Broken::TooLarge`] past a bound;
    /// [`Broken::Dropped`] when bytes other than a chunk's data were dropped.
    pub(crate) fn take(&mut self, input: &mut Piece) -> Result<Option<Unchunked>, Broken> {
        loop {
            if input.is_empty() {
                return Ok(None);
            }
            match self {
                Chunked::Data(left) => {
                    let piece = input.split_to(*left);
                    *left -= piece.len();
                    if *left == 0 {
                        *self = Chunked::DataEnd { cr: false };
                    }
                    return Ok(Some(Unchunked::Piece(piece)));
                }
                Chunked::Size(line) => {
                    let bytes = input.bytes()?;
                    if let Some(size) = take_size(line, bytes)? {
                        *self = if size == 0 { Chunked::Trailer(Gather::trailer()) } else { Chunked::Data(size) };
                    }
                }
                Chunked::DataEnd { cr } => {
                    let bytes = input.bytes()?;
                    match (bytes.split_to(1)[0], *cr) {
                        (b'\r', false) => *cr = true,
                        (b'\n', _) => *self = Chunked::new(),
                        _ => return Err(Broken::Malformed("end of a chunk")),
                    }
                }
                Chunked::Trailer(gather) => {
                    let Some(lines) = gather.take(input.bytes()?)? else { return Ok(None) };
                    let fields = Fields::trailer(&lines)?;
                    *self = Chunked::new();
                    return Ok(Some(Unchunked::End(fields)));
                }
            }
        }
    }
}

/// Takes bytes of a size line up to its end, and gives the size.
fn take_size(line: &mut Vec<u8>, bytes: &mut Bytes) -> Result<Option<u64>, Broken> {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let part = bytes.split_to(end.map_or(bytes.len(), |end| end + 1));
    if line.len() + part.len() > SIZE_LINE_MAX {
        return Err(Broken::TooLarge("size line of a chunk"));
    }
    line.extend_from_slice(&part);
    if end.is_none() {
        return Ok(None);
    }
    hex_size(line).map(Some).ok_or(Broken::Malformed("size line of a chunk"))
}

/// The hexadecimal number at the start of a size line; what follows it must be an extension or the line's end.
/// White space around it is borne, as servers do (RFC 9112 §7.1.1).
pub(crate) fn hex_size(line: &[u8]) -> Option<u64> {
    let number = line.split(|byte| *byte == b';').next()?.trim_ascii();
    // 15 digits are a thousand times what any object has, and cannot overflow.
    if number.is_empty() || number.len() > 15 || !number.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(number).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Data, the trailer, and what was left behind the end.
    type Decoded = (Vec<u8>, Option<Fields>, Vec<u8>);

    fn decode(wire: &[u8], step: usize) -> Result<Decoded, Broken> {
        let (mut chunked, mut data, mut end, mut rest) = (Chunked::new(), Vec::new(), None, Vec::new());
        for piece in wire.chunks(step) {
            let mut input = Piece::Bytes(Bytes::copy_from_slice(piece));
            while end.is_none() {
                match chunked.take(&mut input)? {
                    None => break,
                    Some(Unchunked::Piece(Piece::Bytes(bytes))) => data.extend_from_slice(&bytes),
                    Some(Unchunked::Piece(Piece::Dropped(_))) => unreachable!(),
                    Some(Unchunked::End(fields)) => end = Some(fields),
                }
            }
            if end.is_some()
                && let Piece::Bytes(bytes) = input
            {
                rest.extend_from_slice(&bytes);
            }
        }
        Ok((data, end, rest))
    }

    #[test]
    fn chunks_extensions_and_trailers_come_off_however_they_are_split() {
        let rows: &[(&str, &[u8], &[u8], bool)] = &[
            ("plain", b"4\r\nwiki\r\n0\r\n\r\nNEXT", b"wiki", true),
            ("extension", b"4;name=\"v\"\r\nwiki\r\n0;x\r\n\r\nNEXT", b"wiki", true),
            (
                "upper and lower case, leading zeros",
                b"0A\r\n0123456789\r\n00a\r\n0123456789\r\n000\r\n\r\nNEXT",
                b"01234567890123456789",
                true,
            ),
            ("trailer", b"2\r\nab\r\n0\r\nx-amz-checksum-crc32: AAAA\r\nx-b: 1\r\n\r\nNEXT", b"ab", true),
            ("bare line feeds", b"2\nab\n0\n\nNEXT", b"ab", true),
            ("no end", b"2\r\nab\r\n", b"ab", false),
        ];
        for (trap, wire, data, ended) in rows {
            for step in 1..=wire.len() {
                let (seen, end, rest) = decode(wire, step).unwrap();
                assert_eq!((&seen[..], end.is_some()), (*data, *ended), "{trap}, {step} at a time");
                assert_eq!(&rest[..], if *ended { &b"NEXT"[..] } else { b"" }, "{trap}, {step} at a time");
            }
        }
    }

    #[test]
    fn what_is_no_chunk_is_broken() {
        for wire in [
            &b"\r\n"[..],
            b"g\r\n",
            b"-1\r\n",
            b"+1\r\n",
            b"0x1\r\n",
            b"1 2\r\n",
            b"fffffffffffffffff\r\n",
            b"1\r\nab\r\n",
            b"0\r\n bad\r\n\r\n",
        ] {
            assert!(decode(wire, 1).is_err(), "{}", String::from_utf8_lossy(wire));
        }
        assert!(decode(&vec![b' '; SIZE_LINE_MAX + 1], 100).is_err());
    }

    #[test]
    fn dropped_bytes_are_skipped_inside_a_chunk_and_break_it_elsewhere() {
        let mut chunked = Chunked::new();
        assert_eq!(chunked.take(&mut Piece::Bytes(Bytes::from_static(b"a\r\n"))).unwrap(), None);
        let mut dropped = Piece::Dropped(10);
        assert_eq!(chunked.take(&mut dropped).unwrap(), Some(Unchunked::Piece(Piece::Dropped(10))));
        let mut more = Piece::Dropped(1);
        assert_eq!(chunked.take(&mut more), Err(Broken::Dropped));
    }
}
