//! The key of an object: bytes, exactly as the cloud has them.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};

/// The percent-decoded bytes of an object's path below its bucket.
///
/// Nothing is normalised: `a//b`, `dir/` beside `dir`, `.`, `..`, `%2F` and a leading `/` are keys
/// of their own, and `+` in a path is a plus. 1 to 1 024 bytes at S3; longer ones are kept too.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(Vec<u8>);

/// What stays as it is when a key is written into a URL's path: RFC 3986 unreserved, and the slash.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

impl ObjectKey {
    /// A key of these very bytes.
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> ObjectKey {
        ObjectKey(bytes.into())
    }

    /// Decodes the path of a URL below the bucket's slash; an invalid escape stays as it is written.
    pub fn from_path(path: &[u8]) -> ObjectKey {
        ObjectKey(percent_decode(path).collect())
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, given away.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// The key as text, where it is valid UTF-8 (S3 keys are; the wire does not promise it).
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// The key written into a URL's path, slashes kept.
    pub fn to_path(&self) -> String {
        match self.as_str() {
            Some(text) => utf8_percent_encode(text, PATH).to_string(),
            None => percent_encoding::percent_encode(&self.0, PATH).to_string(),
        }
    }
}

/// For people: text where it is text, control characters and invalid bytes escaped, so that one key
/// is always one line.
impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                if c.is_control() { write!(f, "{}", c.escape_default())? } else { write!(f, "{c}")? }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectKey({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_path_is_normalised() {
        for (path, key) in [
            ("a//b", "a//b"),
            ("dir/", "dir/"),
            (".", "."),
            ("..%2f..", "../.."),
            ("a%252Fb", "a%2Fb"),
            ("/lead", "/lead"),
            ("a+b", "a+b"),
            ("a%20b", "a b"),
            ("%zz", "%zz"),
            ("%C3%A9", "é"),
        ] {
            assert_eq!(ObjectKey::from_path(path.as_bytes()).as_bytes(), key.as_bytes(), "{path}");
        }
    }

    #[test]
    fn a_key_written_into_a_path_comes_back() {
        for bytes in [&b"a//b"[..], b"%2F", b"\xff\xfe", b"a+b c?d#e", "é/ü".as_bytes(), b"\n"] {
            let key = ObjectKey::from_bytes(bytes);
            assert_eq!(ObjectKey::from_path(key.to_path().as_bytes()), key);
        }
    }

    #[test]
    fn a_key_is_one_line_for_people() {
        assert_eq!(ObjectKey::from_bytes(&b"a\nb\xff"[..]).to_string(), "a\\nb\\xff");
    }
}
