//! A block size as a manifest writes it: one of ten words, `16Ki` to `8Mi`.
use std::num::NonZeroU64;

use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serializer, de};

use crate::block::BlockSize;
use crate::quantity;

/// Every size there is, smallest first.
fn all() -> impl Iterator<Item = BlockSize> {
    (0..=32).filter_map(|bit| BlockSize::new(1_u32.checked_shl(bit)?))
}

fn word(size: BlockSize) -> String {
    NonZeroU64::new(size.bytes() as u64).map(quantity::write).unwrap_or_default()
}

pub(super) fn serialize<S: Serializer>(size: &BlockSize, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&word(*size))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BlockSize, D::Error> {
    let text = String::deserialize(from)?;
    all().find(|size| word(*size) == text).ok_or_else(|| {
        let words: Vec<String> = all().map(word).collect();
        de::Error::custom(format!("invalid value {text:?}: must be one of {}", words.join(", ")))
    })
}

pub(super) fn schema(_: &mut SchemaGenerator) -> Schema {
    let words: Vec<String> = all().map(word).collect();
    json_schema!({"type": "string", "enum": words})
}
