//! `aws-chunked`: S3's own coding of a body that is signed or checksummed piece by piece. It stands inside a
//! body of known length, or inside the chunked transfer coding, and comes off after that.
//!
//! Frames are `HEX[;chunk-signature=…]CRLF data CRLF`; the last has size 0 and is followed by a trailer of
//! lines. Clients differ in where they put empty lines among those, and some leave out the last: what counts
//! is the last frame; the trailer lasts until the body ends.

use bytes::Bytes;

use crate::http::Piece;
use crate::http::chunked::hex_size;

/// Longest frame header or trailer line. A signature by ECDSA takes some 170 bytes.
pub const LINE_MAX: usize = 4096;

/// Most trailer lines: a checksum and a signature are what is sent.
pub const TRAILER_LINES_MAX: usize = 32;

/// The decoder; feed it the body without its transfer coding.
#[derive(Debug)]
pub struct AwsChunked {
    state: State,
    /// The trailer's lines, names in lower case.
    trailer: Vec<(String, Bytes)>,
}

#[derive(Debug)]
enum State {
    Size(Vec<u8>),
    Data(u64),
    DataEnd { cr: bool },
    Trailer(Vec<u8>),
}

/// The body is no `aws-chunked` coding, or bytes other than data were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadFrame {
    /// It breaks the coding.
    Malformed,
    /// Bytes outside of data were dropped, so that the next frame cannot be found.
    Dropped,
}

impl Default for AwsChunked {
    fn default() -> AwsChunked {
        AwsChunked { state: State::Size(Vec::new()), trailer: Vec::new() }
    }
}

impl AwsChunked {
    /// Takes the next data off the front of `input`, until that is empty. `Ok(None)`: more input is needed, or
    /// the body's end.
    pub fn take(&mut self, input: &mut Piece) -> Result<Option<Piece>, BadFrame> {
        while !input.is_empty() {
            match &mut self.state {
                State::Data(left) => {
                    let piece = input.split_to(*left);
                    *left -= piece.len();
                    if *left == 0 {
                        self.state = State::DataEnd { cr: false };
                    }
                    return Ok(Some(piece));
                }
                State::Size(line) => {
                    if take_line(line, input)? {
                        let size = hex_size(line).ok_or(BadFrame::Malformed)?;
                        self.state = if size == 0 { State::Trailer(Vec::new()) } else { State::Data(size) };
                    }
                }
                State::DataEnd { cr } => match (bytes(input)?.split_to(1)[0], *cr) {
                    (b'\r', false) => *cr = true,
                    (b'\n', true) => self.state = State::Size(Vec::new()),
                    _ => return Err(BadFrame::Malformed),
                },
                State::Trailer(line) => {
                    if take_line(line, input)? {
                        let line = std::mem::take(line);
                        self.trailer_line(line.trim_ascii())?;
                    }
                }
            }
        }
        Ok(None)
    }

    /// Whether the last frame was seen.
    pub fn is_ended(&self) -> bool {
        matches!(self.state, State::Trailer(_))
    }

    /// The trailer's value of that lower-case name.
    pub fn trailer(&self, name: &str) -> Option<&Bytes> {
        self.trailer.iter().find(|(own, _)| own == name).map(|(_, value)| value)
    }

    fn trailer_line(&mut self, line: &[u8]) -> Result<(), BadFrame> {
        if line.is_empty() {
            return Ok(());
        }
        let colon = line.iter().position(|byte| *byte == b':').ok_or(BadFrame::Malformed)?;
        let name = std::str::from_utf8(&line[..colon]).map_err(|_| BadFrame::Malformed)?.trim().to_ascii_lowercase();
        if self.trailer.len() >= TRAILER_LINES_MAX {
            return Err(BadFrame::Malformed);
        }
        self.trailer.push((name, Bytes::copy_from_slice(line[colon + 1..].trim_ascii())));
        Ok(())
    }
}

fn bytes(input: &mut Piece) -> Result<&mut Bytes, BadFrame> {
    input.bytes().map_err(|_| BadFrame::Dropped)
}

/// Takes bytes up to and with a line feed; whether it came.
fn take_line(line: &mut Vec<u8>, input: &mut Piece) -> Result<bool, BadFrame> {
    let bytes = bytes(input)?;
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let part = bytes.split_to(end.map_or(bytes.len(), |end| end + 1));
    if line.len() + part.len() > LINE_MAX {
        return Err(BadFrame::Malformed);
    }
    line.extend_from_slice(&part);
    Ok(end.is_some())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn decode(wire: &[u8], step: usize) -> Result<(Vec<u8>, AwsChunked), BadFrame> {
        let (mut coding, mut data) = (AwsChunked::default(), Vec::new());
        for piece in wire.chunks(step) {
            let mut input = Piece::Bytes(Bytes::copy_from_slice(piece));
            while let Some(Piece::Bytes(bytes)) = coding.take(&mut input)? {
                data.extend_from_slice(&bytes);
            }
        }
        Ok((data, coding))
    }

    #[test]
    fn every_kind_of_frame_comes_off_however_it_is_split() {
        let signed = b"4;chunk-signature=ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648\r\nwiki\r\n0;chunk-signature=b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9\r\n\r\n";
        type Row<'a> = (&'a str, &'a [u8], &'a [u8], Option<&'a str>);
        let rows: &[Row<'_>] = &[
            ("signed", signed, b"wiki", None),
            ("unsigned, trailer", b"4\r\nwiki\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n", b"wiki", Some("AAAAAA==")),
            ("signed trailer", b"4;chunk-signature=0\r\nwiki\r\n0;chunk-signature=0\r\nx-amz-checksum-crc32:AAAAAA==\r\nx-amz-trailer-signature:0\r\n\r\n", b"wiki", Some("AAAAAA==")),
            ("trailer of the first SDKs, line feed before the line end", b"4\r\nwiki\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\n\r\n\r\n", b"wiki", Some("AAAAAA==")),
            ("without the empty line", b"4\r\nwiki\r\n0\r\n", b"wiki", None),
            ("several", b"2\r\nwi\r\n1\r\nk\r\n1\r\ni\r\n0\r\n\r\n", b"wiki", None),
            ("empty", b"0\r\nX-Amz-Checksum-CRC32: AAAAAA==\r\n\r\n", b"", Some("AAAAAA==")),
        ];
        for (trap, wire, data, checksum) in rows {
            for step in 1..=wire.len() {
                let (seen, coding) = decode(wire, step).unwrap();
                assert_eq!((&seen[..], coding.is_ended()), (*data, true), "{trap}, {step} at a time");
                assert_eq!(
                    coding.trailer("x-amz-checksum-crc32").map(|value| &value[..]),
                    checksum.map(str::as_bytes),
                    "{trap}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_frame_is_malformed() {
        for wire in
            [&b"hello\r\n"[..], b"4\r\nwikipedia", b"4\r\nwiki\n", b"0\r\nno colon\r\n\r\n", b"0\r\n\r\nmore\r\n"]
        {
            assert_eq!(decode(wire, 1).err(), Some(BadFrame::Malformed), "{}", String::from_utf8_lossy(wire));
        }
        assert!(decode(&vec![b'0'; LINE_MAX + 1], 64).is_err());
    }

    #[test]
    fn dropped_bytes_are_skipped_inside_data_only() {
        let mut coding = AwsChunked::default();
        let mut head = Piece::Bytes(Bytes::from_static(b"5\r\n"));
        assert_eq!(coding.take(&mut head), Ok(None));
        assert_eq!(coding.take(&mut Piece::Dropped(5)), Ok(Some(Piece::Dropped(5))));
        assert_eq!(coding.take(&mut Piece::Dropped(2)), Err(BadFrame::Dropped));
    }
}
