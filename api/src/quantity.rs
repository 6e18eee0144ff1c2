//! Amounts of bytes as people write them: `128Ki`, `200Mi`, `1G`; and rates of them, per second.
use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Suffixes and what they multiply by, as Kubernetes writes its quantities; binary ones first, largest first.
const UNITS: [(&str, u64); 8] = [
    ("Ti", 1 << 40),
    ("Gi", 1 << 30),
    ("Mi", 1 << 20),
    ("Ki", 1 << 10),
    ("T", 1_000_000_000_000),
    ("G", 1_000_000_000),
    ("M", 1_000_000),
    ("k", 1_000),
];

/// A text that is no amount of bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid value {0:?}: {MUST}")]
pub struct BadQuantity(String);

const MUST: &str =
    "must be a whole number of bytes from 1, with k, M, G, T, Ki, Mi, Gi or Ti after it if need be, like 200Mi";
/// The same in the words of a schema.
const PATTERN: &str = "^[1-9][0-9]{0,14}(k|M|G|T|Ki|Mi|Gi|Ti)?$";

/// Reads an amount of bytes: `512`, `128Ki`, `200Mi`, `1G`. No fractions, no sign, no space, at least 1.
///
/// # Errors
/// [`BadQuantity`] for any other text and for more than 2^64 − 1 bytes.
pub fn parse(text: &str) -> Result<NonZeroU64, BadQuantity> {
    let bad = || BadQuantity(text.to_owned());
    let (digits, factor) =
        UNITS.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor))).unwrap_or((text, 1));
    if !digits.bytes().all(|b| b.is_ascii_digit()) || digits.starts_with('0') || digits.len() > 15 {
        return Err(bad());
    }
    let number: u64 = digits.parse().map_err(|_| bad())?;
    number.checked_mul(factor).and_then(NonZeroU64::new).ok_or_else(bad)
}

/// Writes an amount with the largest unit that divides it, so that it reads back as the same number.
pub fn write(bytes: NonZeroU64) -> String {
    let bytes = bytes.get();
    let (unit, factor) = UNITS.iter().find(|(_, factor)| bytes.is_multiple_of(*factor)).copied().unwrap_or(("", 1));
    format!("{}{unit}", bytes / factor)
}

/// Bytes per second, at least 1: `200Mi` is 209 715 200 bytes a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(NonZeroU64);

impl Rate {
    /// The rate as a number.
    pub fn bytes_per_second(self) -> NonZeroU64 {
        self.0
    }
}

impl FromStr for Rate {
    type Err = BadQuantity;
    fn from_str(text: &str) -> Result<Rate, BadQuantity> {
        parse(text).map(Rate)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&write(self.0))
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Rate, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Rate {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Rate".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "maxLength": 17, "pattern": PATTERN})
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_amount_reads_as_it_is_written() {
        let rows = [
            ("1", 1, "1"),
            ("1023", 1023, "1023"),
            ("1024", 1024, "1Ki"),
            ("128Ki", 128 << 10, "128Ki"),
            ("200Mi", 200 << 20, "200Mi"),
            ("1Gi", 1 << 30, "1Gi"),
            ("1024Mi", 1 << 30, "1Gi"),
            ("3Ti", 3 << 40, "3Ti"),
            ("5k", 5_000, "5k"),
            ("2M", 2_000_000, "2M"),
            ("1G", 1_000_000_000, "1G"),
        ];
        for (text, bytes, written) in rows {
            assert_eq!(parse(text).unwrap().get(), bytes, "{text}");
            assert_eq!(write(parse(text).unwrap()), written, "{text}");
            assert_eq!(parse(written).unwrap().get(), bytes, "{written}");
        }
    }

    #[test]
    fn what_is_no_whole_amount_is_refused() {
        for text in [
            "",
            "0",
            "0Mi",
            "01",
            "-1",
            "+1",
            "1.5Gi",
            "Mi",
            "200 Mi",
            "200MB",
            "200mi",
            "200Mi/s",
            "20000000Ti",
            "1e3",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
