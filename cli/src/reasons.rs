//! `hawser reasons`: why a gap can be there, and what closes it.

use hawser_api::GapReason;
use hawser_api::gap::ClosedBySighting;
use serde::Serialize;

use crate::Found;
use crate::failure::Failure;
use crate::print::{Align, Out, Table};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Reason {
    reason: &'static str,
    meaning: &'static str,
    closed_by: Vec<&'static str>,
}

pub(crate) fn run(out: &mut Out) -> Result<Found, Failure> {
    let mut table = Table::new(&[("REASON", Align::Left), ("WHAT HAPPENED", Align::Left), ("CLOSED BY", Align::Left)]);
    for reason in GapReason::ALL {
        if out.json() {
            out.object(&Reason { reason: reason.as_str(), meaning: reason.meaning(), closed_by: closers(reason) })?;
        } else {
            table.row(out, vec![reason.as_str().into(), reason.meaning().into(), closers(reason).join(", ")])?;
        }
    }
    table.print(out)?;
    if !out.json() {
        out.line("")?;
        CLOSERS.iter().try_for_each(|line| out.line(line))?;
    }
    out.flush()?;
    Ok(Found::Fine)
}

/// What closes a gap of one key, the cheapest first; the words are explained by [`CLOSERS`].
fn closers(reason: GapReason) -> Vec<&'static str> {
    let sighting = match reason.closed_by_sighting() {
        ClosedBySighting::BegunAfter => Some("sighting"),
        ClosedBySighting::Settled => Some("settled"),
        ClosedBySighting::Never => None,
    };
    let write = reason.closed_by_later_write().then_some("write");
    write.into_iter().chain(sighting).chain(["backfill"]).collect()
}

const CLOSERS: [&str; 4] = [
    "write     a recorded write of the key, begun after the gap's end",
    "sighting  a HEAD, GET or listing of the key, begun after it",
    "settled   a HEAD or GET of the key, begun a minute after it: until then the write may still arrive",
    "backfill  a complete hawser-migrate backfill, begun after it",
];

/// What a person does about gaps of this reason.
pub(crate) fn repair(reason: GapReason) -> &'static str {
    match reason {
        GapReason::Concurrent => "the next read or listing of the key decides; hawser-migrate backfill reads it now",
        GapReason::OutcomeUnknown | GapReason::IntentLost => {
            "hawser-migrate backfill asks the cloud, a minute after the write at the earliest"
        }
        GapReason::Overflow => "hawser-migrate backfill; if it happens often, give the sidecar a larger budget",
        GapReason::StoreAway => "hawser-migrate backfill, once the store is back",
        GapReason::StoreFull => "make room for the store, then hawser-migrate backfill",
        GapReason::Damaged => "hawser-store scrub names what is hurt; hawser-migrate backfill reads it again",
        GapReason::SseC => "nothing: only the client can read it. Write it without SSE-C to have it copied",
        GapReason::Http2 => "let the client speak HTTP/1.1, or hawser-migrate backfill after it",
        GapReason::Distrust => {
            "let the client trust the pod's bundle (hawser-sidecar env), then hawser-migrate backfill"
        }
        GapReason::RelayCrashed => {
            "the sidecar's log says why it ended (memory limit, signal); hawser-migrate backfill after it"
        }
        GapReason::Other => "a newer hawser knows it; hawser-migrate backfill",
        GapReason::MissingBlocks
        | GapReason::EarlyAnswer
        | GapReason::ChecksumMismatch
        | GapReason::Malformed
        | GapReason::TooLarge
        | GapReason::Unsupported
        | GapReason::UnknownUpload
        | GapReason::UnknownPart
        | GapReason::UnknownSource
        | GapReason::Unparsed
        | GapReason::JournalFull
        | GapReason::Folded
        | GapReason::UnseenVersion => "hawser-migrate backfill",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::print::tests::Shown;

    #[test]
    fn every_reason_is_printed_with_what_closes_it() {
        let (text, json) = (Shown::default(), Shown::default());
        run(&mut text.out(false)).unwrap();
        run(&mut json.out(true)).unwrap();
        assert_eq!(text.text().lines().count(), 1 + GapReason::ALL.len() + 1 + CLOSERS.len());
        for (reason, line) in GapReason::ALL.iter().zip(json.text().lines()) {
            let object: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(object["reason"], reason.as_str());
            assert!(!object["closedBy"].as_array().unwrap().is_empty());
        }
    }
}
