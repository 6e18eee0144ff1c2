//! The page for people on gaps says what the code does.
#![allow(clippy::unwrap_used)]

use hawser_api::GapReason;
use hawser_api::gap::ClosedBySighting;

#[test]
fn the_table_of_gaps_in_the_operations_page_is_the_one_in_the_code() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations.md");
    let page = std::fs::read_to_string(page).unwrap();
    let rows: Vec<Vec<&str>> = page
        .lines()
        .skip_while(|line| !line.starts_with("| reason |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let reasons: Vec<&str> = rows.iter().map(|row| row[0].trim_matches('`')).collect();
    assert_eq!(reasons, GapReason::ALL.map(GapReason::as_str), "every reason has its row, in the order of the code");
    for (row, reason) in rows.iter().zip(GapReason::ALL) {
        let sighting = match reason.closed_by_sighting() {
            ClosedBySighting::BegunAfter => "begun after it",
            ClosedBySighting::Settled => "HEAD or GET begun 60 s later",
            ClosedBySighting::Never => "no",
        };
        // Of overlapping writes a later one closes the gap with its candidates.
        let write = if reason.closed_by_later_write() { "yes" } else { "no" };
        assert_eq!(row[1..4], [reason.meaning(), sighting, write], "{reason}");
        assert!(row[4].starts_with(if reason == GapReason::SseC { "no" } else { "yes" }), "{reason}");
    }
}
