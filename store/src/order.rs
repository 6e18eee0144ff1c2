//! What comes before what at the cloud, as far as anyone can know. Pure rules: no clock, no I/O.
//!
//! The store numbers its commits (ticks). A write has a *begin*, the last tick that its observer had heard
//! when the request went on, and an *end*, the tick at which its record was committed: the cloud applied it
//! in between. One observer's own count orders what it saw itself. Nothing else orders anything.

/// A moment of one observer: the store's last tick that it had heard, and its own count.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(crate) struct Mark {
    /// At a begin: the highest durable tick that was heard before, 0 for none. At an end: the tick of the
    /// commit, 0 while it lasts.
    #[prost(uint64, tag = "1")]
    pub(crate) tick: u64,
    /// Whose count; empty for nobody's.
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) session: bytes::Bytes,
    /// The observer's own count, from 1.
    #[prost(uint64, tag = "3")]
    pub(crate) counter: u64,
}

/// The span within which the cloud did something.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(crate) struct Span {
    /// Not before this.
    #[prost(message, required, tag = "1")]
    pub(crate) begin: Mark,
    /// Not after this.
    #[prost(message, required, tag = "2")]
    pub(crate) end: Mark,
}

/// Whether `a` was over at the cloud before `b` began: it committed before a tick that `b`'s observer had
/// heard, or one observer saw `a`'s final answer before it passed `b`'s head on.
pub(crate) fn precedes(a: &Span, b: &Span) -> bool {
    let by_tick = a.end.tick != 0 && a.end.tick <= b.begin.tick;
    let one_observer = !a.end.session.is_empty() && a.end.session == b.begin.session;
    by_tick || (one_observer && a.end.counter != 0 && a.end.counter < b.begin.counter)
}

/// What a new write does to the candidates of its key: those versions that may be the cloud's current one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placing {
    /// It becomes a candidate: nothing known came after it.
    pub(crate) stands: bool,
    /// Indices of the candidates that it came after.
    pub(crate) beaten: Vec<usize>,
}

/// Places a write among the candidates of its key. `past` are versions that are no candidates any more: a
/// write before one of them was overwritten with it, even where nothing orders it against the candidates.
pub(crate) fn place<'a>(new: &Span, candidates: &[&Span], mut past: impl Iterator<Item = &'a Span>) -> Placing {
    let beaten = (0..candidates.len()).filter(|&at| precedes(candidates[at], new)).collect();
    let overwritten = candidates.iter().any(|other| precedes(new, other)) || past.any(|other| precedes(new, other));
    Placing { stands: !overwritten, beaten }
}

/// Whether a sighting may say which of the candidates is current: it began after each of them was over.
pub(crate) fn decides(sighting: &Span, candidates: &[&Span]) -> bool {
    candidates.iter().all(|candidate| precedes(candidate, sighting))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(session: &'static str, tick: u64, counter: u64) -> Mark {
        Mark { tick, session: session.as_bytes().into(), counter }
    }
    fn span(session: &'static str, begin: (u64, u64), end: (u64, u64)) -> Span {
        Span { begin: mark(session, begin.0, begin.1), end: mark(session, end.0, end.1) }
    }

    #[test]
    fn only_ticks_heard_and_one_observers_count_order_writes() {
        let rows = [
            ("heard its commit", span("a", (0, 1), (5, 2)), span("b", (5, 1), (9, 2)), true),
            ("heard a later commit", span("a", (0, 1), (5, 2)), span("b", (6, 1), (9, 2)), true),
            ("had not heard it yet", span("a", (0, 1), (5, 2)), span("b", (4, 1), (9, 2)), false),
            ("had heard nothing", span("a", (0, 1), (5, 2)), span("b", (0, 1), (9, 2)), false),
            ("answer seen by the same sidecar", span("a", (0, 1), (5, 2)), span("a", (0, 3), (6, 4)), true),
            ("overlapping in one sidecar", span("a", (0, 1), (5, 4)), span("a", (0, 3), (6, 5)), false),
            ("equal counts of two sidecars", span("a", (0, 1), (5, 2)), span("b", (0, 3), (6, 4)), false),
            ("nobody's counts", span("", (0, 1), (5, 2)), span("", (0, 3), (6, 4)), false),
            ("still lasting", span("a", (0, 1), (0, 0)), span("a", (9, 3), (10, 4)), false),
        ];
        for (why, a, b, wanted) in rows {
            assert_eq!(precedes(&a, &b), wanted, "{why}");
            assert!(!(wanted && precedes(&b, &a)), "both ways: {why}");
        }
    }

    #[test]
    fn a_write_is_placed_by_what_it_beats_and_what_beats_it() {
        let (first, overlapping) = (span("a", (0, 1), (5, 2)), span("b", (0, 1), (6, 2)));
        let candidates = [&first, &overlapping];
        let after_both = span("a", (6, 3), (9, 4));
        let after_one = span("a", (5, 3), (9, 4));
        let before_first = span("a", (0, 0), (9, 0));
        assert_eq!(place(&after_both, &candidates, [].iter()), Placing { stands: true, beaten: vec![0, 1] });
        assert_eq!(place(&after_one, &candidates, [].iter()), Placing { stands: true, beaten: vec![0] });
        assert_eq!(place(&before_first, &candidates, [].iter()), Placing { stands: true, beaten: vec![] });
        let late = Span { begin: mark("a", 0, 0), end: mark("c", 9, 1) };
        let past = [span("c", (0, 2), (3, 3))];
        assert!(!place(&late, &candidates, past.iter()).stands, "overwritten with a version that is past");
    }

    #[test]
    fn a_sighting_decides_only_when_it_began_after_every_candidate() {
        let (first, second) = (span("a", (0, 1), (5, 2)), span("b", (0, 1), (6, 2)));
        assert!(decides(&span("c", (6, 1), (0, 2)), &[&first, &second]));
        assert!(!decides(&span("c", (5, 1), (0, 2)), &[&first, &second]));
        assert!(decides(&span("b", (5, 3), (0, 4)), &[&first, &second]));
    }
}
