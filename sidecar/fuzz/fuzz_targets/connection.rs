//! A whole connection in the form of the recordings in `tests/wire`, read leniently: nothing panics, and every
//! exchange that began has finished when the copy ends.
#![no_main]

use std::sync::Arc;

use bytes::Bytes;
use hawser_api::Stamp;
use hawser_api::binding::{Addressing as Style, Provider, S3};
use hawser_sidecar::budget::Budget;
use hawser_sidecar::operation::Event;
use hawser_sidecar::s3::Observer;
use hawser_sidecar::s3::address::Addressing;
use hawser_sidecar::tee::{Chunk, Seen, Side};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let s3 = S3 {
        endpoint: "https://localhost".parse().expect("an endpoint"),
        region: None,
        addressing: Style::Auto,
        credentials: None,
        ca: None,
    };
    let addressing = Addressing::new(vec![Arc::new(Provider { name: "cloud".into(), s3 })], 443);
    let (mut observer, mut events, budget) = (Observer::new(addressing), Vec::new(), Budget::new(usize::MAX / 2));
    let (mut rest, mut counter) = (data, 0);
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line = &rest[..end];
        rest = &rest[end + 1..];
        counter += 1;
        let stamp = Stamp { counter, ..Stamp::default() };
        let side = if line.first() == Some(&b'>') { Side::Client } else { Side::Cloud };
        let seen = if line.get(1) == Some(&b'|') {
            Seen::End { side, stamp, clean: line.len() == 2 }
        } else {
            let number = line.get(2..).and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
            let bytes = &rest[..number.unwrap_or(0usize).min(rest.len())];
            rest = rest.get(bytes.len() + 1..).unwrap_or_default();
            // A frame without its space stands for dropped bytes.
            let kept = line.get(1) == Some(&b' ');
            let share = budget.try_take(bytes.len()).expect("room");
            Seen::Chunk(Chunk {
                side,
                stamp,
                len: bytes.len(),
                bytes: kept.then(|| (Bytes::copy_from_slice(bytes), share)),
            })
        };
        observer.on(seen, &mut events);
    }
    observer.close(&mut events);
    let mut open = 0_i64;
    for event in &events {
        match event {
            Event::WriteBegan(_) | Event::ReadBegan(_) => open += 1,
            Event::Finished(_) => open -= 1,
            Event::Body { .. }
            | Event::BodyLost { .. }
            | Event::Keys { .. }
            | Event::Sighting(_)
            | Event::Unparsed { .. } => {}
        }
    }
    assert_eq!(open, 0, "every exchange that began has finished");
    drop(events);
    assert_eq!(budget.used(), 0, "all bytes gave their budget back");
});
