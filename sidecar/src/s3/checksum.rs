//! The checksums of a body that are cheap enough to be checked in passing.
//!
//! The CRCs cost a few hundredths of a CPU-second per GiB and are checked at any length. MD5 and SHA cost more
//! than the whole relay; MD5 is checked up to [`MD5_BODY_MAX`], SHA and unknown names are not. The cloud checks
//! them all itself: ours guard the copy against our own mistakes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crc_fast::{CrcAlgorithm, Digest};
use md5::Digest as _;

use crate::http::head::Fields;

/// Longest body whose Content-MD5 is checked: 1 MiB takes 2 ms.
pub const MD5_BODY_MAX: u64 = 1024 * 1024;

/// A CRC that S3 knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Crc {
    Crc32,
    Crc32c,
    Crc64Nvme,
}

impl Crc {
    const ALL: [Crc; 3] = [Crc::Crc32, Crc::Crc32c, Crc::Crc64Nvme];

    /// The header or trailer that carries it.
    fn header(self) -> &'static str {
        match self {
            Crc::Crc32 => "x-amz-checksum-crc32",
            Crc::Crc32c => "x-amz-checksum-crc32c",
            Crc::Crc64Nvme => "x-amz-checksum-crc64nvme",
        }
    }

    fn algorithm(self) -> CrcAlgorithm {
        match self {
            Crc::Crc32 => CrcAlgorithm::Crc32IsoHdlc,
            Crc::Crc32c => CrcAlgorithm::Crc32Iscsi,
            Crc::Crc64Nvme => CrcAlgorithm::Crc64Nvme,
        }
    }

    /// Big-endian, in Base64, as it is written.
    fn written(self, digest: &Digest) -> String {
        let number = digest.finalize();
        match self {
            Crc::Crc32 | Crc::Crc32c => STANDARD.encode(&number.to_be_bytes()[4..]),
            Crc::Crc64Nvme => STANDARD.encode(number.to_be_bytes()),
        }
    }
}

/// The checksums that one request announces, on their way.
#[derive(Default)]
pub struct Checksums {
    crcs: Vec<(Crc, Option<String>, Digest)>,
    md5: Option<(String, md5::Md5)>,
}

impl std::fmt::Debug for Checksums {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.crcs.iter().map(|(crc, ..)| crc)).finish()
    }
}

impl Checksums {
    /// Those that the head gives, and those that it announces for the trailer (`x-amz-trailer`). `length` is that
    /// of the content; Content-MD5 is that of the body as it is sent, so `coded` bodies have none to check.
    pub fn announced(fields: &Fields, length: Option<u64>, coded: bool) -> Checksums {
        let crcs = Crc::ALL.into_iter().filter_map(|crc| {
            let given = fields.text(crc.header()).map(str::to_owned);
            let announced = given.is_some() || fields.has("x-amz-trailer", crc.header());
            announced.then(|| (crc, given, Digest::new(crc.algorithm())))
        });
        let crcs = crcs.collect();
        let small = !coded && length.is_some_and(|length| length <= MD5_BODY_MAX);
        let md5 = fields.text("content-md5").filter(|_| small).map(|given| (given.to_owned(), md5::Md5::new()));
        Checksums { crcs, md5 }
    }

    /// Takes the next bytes of the content.
    pub fn update(&mut self, bytes: &[u8]) {
        for (_, _, digest) in &mut self.crcs {
            digest.update(bytes);
        }
        if let Some((_, digest)) = &mut self.md5 {
            digest.update(bytes);
        }
    }

    /// Whether the bytes agree with every checksum that was given, in the head or in the trailer.
    pub fn agree(&self, trailer: impl Fn(&str) -> Option<String>) -> bool {
        let crcs = self.crcs.iter().all(|(crc, given, digest)| {
            let given = given.clone().or_else(|| trailer(crc.header()));
            given.is_none_or(|given| given.trim() == crc.written(digest))
        });
        let md5 =
            self.md5.as_ref().is_none_or(|(given, digest)| given.trim() == STANDARD.encode(digest.clone().finalize()));
        crcs && md5
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;

    use super::*;
    use crate::http::head::RequestHead;

    fn fields(lines: &str) -> Fields {
        RequestHead::parse(&Bytes::from(format!("PUT / HTTP/1.1\r\n{lines}\r\n"))).unwrap().fields
    }

    #[test]
    fn a_checksum_agrees_with_its_bytes_and_with_no_others() {
        let rows = [
            ("x-amz-checksum-crc32: y/Q5Jg==\r\n", true),
            ("x-amz-checksum-crc32c: 4waSgw==\r\n", true),
            ("x-amz-checksum-crc64nvme: rosUhgp5mIg=\r\n", true),
            ("content-md5: JfnnlDI7RTiF9RgfG2JNCw==\r\n", true),
            ("x-amz-checksum-crc32: y/Q5Jw==\r\n", false),
            ("x-amz-checksum-crc64nvme: AAAAAAAAAAA=\r\n", false),
            ("content-md5: AAAAAAAAAAAAAAAAAAAAAA==\r\n", false),
            ("x-amz-checksum-sha256: not checked\r\n", true),
            ("x-amz-checksum-unknown: not known\r\n", true),
        ];
        for (lines, agree) in rows {
            let mut checksums = Checksums::announced(&fields(lines), Some(9), false);
            checksums.update(b"1234");
            checksums.update(b"56789");
            assert_eq!(checksums.agree(|_| None), agree, "{lines}");
        }
    }

    #[test]
    fn a_trailer_brings_what_the_head_announced() {
        let mut checksums = Checksums::announced(&fields("x-amz-trailer: x-amz-checksum-crc32\r\n"), None, true);
        checksums.update(b"123456789");
        assert!(checksums.agree(|name| (name == "x-amz-checksum-crc32").then(|| "y/Q5Jg==".into())));
        assert!(!checksums.agree(|_| Some("AAAAAA==".into())));
    }
}
