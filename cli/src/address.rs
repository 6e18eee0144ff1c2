//! Buckets and keys as they are typed: `BUCKET`, `BUCKET/PREFIX`, `BUCKET/KEY`.

use std::convert::Infallible;
use std::str::FromStr;

use hawser_api::ObjectKey;

/// A bucket by the store's name, and a prefix of keys; an empty one means the whole bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The store's name of the bucket.
    pub bucket: String,
    /// What the keys begin with.
    pub prefix: Vec<u8>,
}

impl Address {
    /// What of a key below this address is left in a folder of its own: what follows the prefix's last slash.
    pub fn below(&self, key: &ObjectKey) -> ObjectKey {
        let shown = self.prefix.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        ObjectKey::from_bytes(key.as_bytes().get(shown..).unwrap_or_default())
    }
}

impl FromStr for Address {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Address, Infallible> {
        let (bucket, prefix) = text.split_once('/').unwrap_or((text, ""));
        Ok(Address { bucket: bucket.to_owned(), prefix: prefix.as_bytes().to_vec() })
    }
}

/// One object. The key is everything after the first slash, a second slash included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyAddress {
    /// The store's name of the bucket.
    pub bucket: String,
    /// The key, as it is.
    pub key: ObjectKey,
}

/// A text that names no object.
#[derive(Debug, thiserror::Error)]
#[error("write the bucket, a slash and the key")]
pub struct NoKey;

impl FromStr for KeyAddress {
    type Err = NoKey;

    fn from_str(text: &str) -> Result<KeyAddress, NoKey> {
        match text.split_once('/') {
            Some((bucket, key)) if !bucket.is_empty() && !key.is_empty() => {
                Ok(KeyAddress { bucket: bucket.to_owned(), key: ObjectKey::from_bytes(key) })
            }
            _ => Err(NoKey),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_key_is_everything_after_the_first_slash() {
        for (text, bucket, key) in [
            ("b/k", "b", "k"),
            ("b//k", "b", "/k"),
            ("b/a//", "b", "a//"),
            ("b/..", "b", ".."),
            ("b/%2F+ ", "b", "%2F+ "),
        ] {
            let address: KeyAddress = text.parse().unwrap();
            assert_eq!((address.bucket.as_str(), address.key.as_str()), (bucket, Some(key)), "{text}");
        }
        for text in ["b", "b/", "/k", ""] {
            assert!(text.parse::<KeyAddress>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_bucket_alone_is_the_whole_bucket() {
        let whole = Address { bucket: "b".into(), prefix: vec![] };
        assert_eq!("b".parse::<Address>().unwrap(), whole);
        assert_eq!("b/".parse::<Address>().unwrap(), whole);
        assert_eq!("b//x".parse::<Address>().unwrap().prefix, b"/x");
    }

    #[test]
    fn a_prefix_is_left_out_up_to_its_last_slash() {
        for (address, key, below) in [
            ("b", "a/1", "a/1"),
            ("b/a", "a/1", "a/1"),
            ("b/a/", "a/1", "1"),
            ("b/a/x", "a/xy/1", "xy/1"),
            ("b/a/", "a/", ""),
        ] {
            let address: Address = address.parse().unwrap();
            assert_eq!(address.below(&ObjectKey::from_bytes(key)), ObjectKey::from_bytes(below), "{key}");
        }
    }
}
