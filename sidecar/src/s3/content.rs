//! The content of a request: its body with `aws-chunked` taken off, its length and checksums checked.

use bytes::Bytes;
use hawser_api::GapReason;

use super::aws_chunked::{AwsChunked, BadFrame};
use super::checksum::Checksums;
use crate::http::Piece;
use crate::http::body::Framing;
use crate::http::head::Fields;

/// A request's content on its way.
#[derive(Debug)]
pub struct Content {
    coding: Option<AwsChunked>,
    length: Option<u64>,
    seen: u64,
    checksums: Checksums,
    flaw: Option<GapReason>,
}

impl Content {
    /// Of a request with that head and framing.
    pub fn of(fields: &Fields, framing: Framing) -> Content {
        let coded = is_aws_chunked(fields);
        let length = if coded {
            fields.text("x-amz-decoded-content-length").and_then(|text| text.trim().parse().ok())
        } else {
            match framing {
                Framing::Length(length) => Some(length),
                // botocore and others say it beside Transfer-Encoding: chunked too.
                Framing::Chunked | Framing::UntilClose => {
                    fields.text("x-amz-decoded-content-length").and_then(|text| text.trim().parse().ok())
                }
            }
        };
        let checksums = Checksums::announced(fields, length, coded);
        Content { coding: coded.then(AwsChunked::default), length, seen: 0, checksums, flaw: None }
    }

    /// Its length, when the head tells it.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// How much of it came.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Takes a piece of the body and gives the content in it, piece by piece. After a flaw nothing is given.
    ///
    /// # Errors
    /// The reason why the content cannot be known any more, the first time only.
    pub fn take(&mut self, mut piece: Piece, mut give: impl FnMut(Bytes)) -> Result<(), GapReason> {
        if self.flaw.is_some() {
            return Ok(());
        }
        let taken = self.take_inner(&mut piece, &mut give);
        self.flaw = taken.err();
        taken
    }

    fn take_inner(&mut self, piece: &mut Piece, give: &mut impl FnMut(Bytes)) -> Result<(), GapReason> {
        loop {
            let next = match &mut self.coding {
                None if piece.is_empty() => None,
                None => Some(piece.split_to(u64::MAX)),
                Some(coding) => coding.take(piece).map_err(|bad| match bad {
                    BadFrame::Malformed => GapReason::Malformed,
                    BadFrame::Dropped => GapReason::Overflow,
                })?,
            };
            match next {
                None => return Ok(()),
                Some(Piece::Dropped(_)) => return Err(GapReason::Overflow),
                Some(Piece::Bytes(bytes)) => {
                    self.seen += bytes.len() as u64;
                    self.checksums.update(&bytes);
                    give(bytes);
                }
            }
        }
    }

    /// The body is whole, with that HTTP trailer: whether the content is what was announced.
    ///
    /// # Errors
    /// What is wrong with it, if that was not said before.
    pub fn end(&mut self, trailer: &Fields) -> Result<(), GapReason> {
        if self.flaw.is_some() {
            return Ok(());
        }
        if self.coding.as_ref().is_some_and(|coding| !coding.is_ended()) {
            return Err(GapReason::Malformed);
        }
        let agree = self.checksums.agree(|name| self.trailer(name, trailer));
        if !agree || self.length.is_some_and(|length| length != self.seen) {
            return Err(GapReason::ChecksumMismatch);
        }
        Ok(())
    }

    /// Whether every byte of content and every checksum that was announced is there, although the body's own framing may
    /// still have an end to come.
    pub fn is_complete(&self, announced: &Fields) -> bool {
        let coding = self.coding.as_ref().is_none_or(|coding| {
            let trailer = |name: &[u8]| {
                let name = String::from_utf8_lossy(name).to_ascii_lowercase();
                coding.trailer(&name).is_some()
            };
            coding.is_ended() && announced.list("x-amz-trailer").all(trailer)
        });
        // Without the coding, a trailer would be HTTP's, which comes with the end.
        let trailer = self.coding.is_some() || announced.get("x-amz-trailer").is_none();
        self.flaw.is_none() && coding && trailer && self.length == Some(self.seen)
    }

    /// What a trailer says under that name: the coding's own, else that of HTTP.
    pub fn trailer(&self, name: &str, http: &Fields) -> Option<String> {
        let own = self.coding.as_ref().and_then(|coding| coding.trailer(name));
        own.or_else(|| http.get(name)).map(|value| String::from_utf8_lossy(value).into_owned())
    }

    /// The body broke off. Whether a careless cloud could take it for whole: it could when nothing said how long
    /// it was to be, or all of it had gone out.
    pub fn could_be_whole(&self, framing: Framing) -> bool {
        let by_length = matches!(framing, Framing::Length(_));
        !by_length && self.length.is_none_or(|length| self.seen >= length || self.flaw.is_some())
    }
}

/// Whether the body has that coding. Content-Encoding does not tell: some clients leave it out, and some leave it
/// in where the body is plain.
fn is_aws_chunked(fields: &Fields) -> bool {
    fields.text("x-amz-content-sha256").is_some_and(|hash| hash.trim().starts_with("STREAMING-"))
}
