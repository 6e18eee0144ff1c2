//! Documents of S3, and what is made of them.
#![no_main]

use hawser_sidecar::s3::xml::Element;
use hawser_sidecar::s3::{listing, metadata, proven};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(root) = Element::parse(data) {
        let _ = listing::sightings(&root, "b");
    }
    let _ = metadata::tags(data);
    let _ = proven::verdict(data);
});
