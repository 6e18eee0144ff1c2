//! Named places at which a test lets the process die. Always compiled, so that what is tested is
//! what runs; without `HAWSER_CRASH_AT` in the environment a place costs one load.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The variable: `NAME` dies at the first visit of that place, `NAME:N` at the Nth.
pub(crate) const CRASH_AT: &str = "HAWSER_CRASH_AT";

/// Dies here, without unwinding or flushing anything, when a test asked for it.
pub(crate) fn point(name: &str) {
    static ASKED: OnceLock<Option<(String, AtomicU64)>> = OnceLock::new();
    let asked = ASKED.get_or_init(|| {
        let wish = std::env::var(CRASH_AT).ok()?;
        let (name, visit) = wish.split_once(':').unwrap_or((&wish, "1"));
        Some((name.to_owned(), AtomicU64::new(visit.parse().unwrap_or(1))))
    });
    if let Some((wanted, visits)) = asked
        && wanted == name
        && visits.fetch_sub(1, Ordering::Relaxed) == 1
    {
        #[expect(clippy::disallowed_methods, reason = "a crash is what the test asks for")]
        std::process::abort();
    }
}
