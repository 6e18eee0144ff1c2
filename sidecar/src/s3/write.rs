//! When a write is proven: the one rule by which an exchange becomes a record, a gap, or nothing.

use hawser_api::GapReason;

/// What is known of one write while it passes by. Only `Proven` may be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// The request is passing.
    Sending,
    /// The request is passing and already of no use: what is needed of it was dropped or is not understood.
    Flawed(GapReason),
    /// The whole request went out, flawed or not; the cloud has not given its final answer.
    Sent(Option<GapReason>),
    /// The request was broken off; the cloud has not given its final answer.
    Broken {
        /// Whether the cloud could take what it got for a whole request.
        could_be_whole: bool,
    },
    /// The cloud said yes to a whole request, and the answer's body is still to say what became of it.
    Answered,
    /// The cloud said yes to a whole request.
    Proven,
    /// The cloud said no, or never had a whole request. Nothing changed there, so nothing is missing here.
    Refused,
    /// It may have changed the object and we cannot tell how: a gap.
    Lost(GapReason),
}

/// What happens to a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Something that is needed of the request cannot be known any more.
    Flaw(GapReason),
    /// The whole request went out.
    RequestEnd,
    /// The client broke off within the request.
    RequestBroken {
        /// Whether a careless cloud could take what went out for a whole request: a chunked body has no length.
        could_be_whole: bool,
    },
    /// The head of the final answer. Interim answers never come this far.
    Answer {
        /// Its status.
        status: u16,
        /// Whether the answer's body must be read before the status is believed.
        body_decides: bool,
    },
    /// The answer's body says what became of it.
    Verdict(Verdict),
    /// The connection ended without a final answer, or within an answer whose body decides.
    Unanswered,
    /// The connection is not understood any more, so that the answer will not be seen.
    Unobserved,
}

/// What an answer's body says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was done.
    Yes,
    /// It was not done: an error inside a 200.
    No,
    /// It may have been done: a server's own failure inside a 200, or a document that cannot be read.
    Unclear(GapReason),
}

impl Write {
    /// The only place where a `Write` changes. In doubt it is lost: a gap too many costs one read of the
    /// object, a gap too few costs the object.
    pub fn on(self, step: Step) -> Write {
        match (self, step) {
            (end @ (Write::Proven | Write::Refused | Write::Lost(_)), _) => end,

            // The cloud's no. It holds however much of the request was seen, and whatever was wrong with it.
            (_, Step::Answer { status: 300..=499, .. }) => Write::Refused,
            // A server that failed with a whole request may have applied it; 501 says that it never will.
            (_, Step::Answer { status: 501, .. }) => Write::Refused,
            (Write::Sending | Write::Broken { could_be_whole: false }, Step::Answer { status: 500.., .. }) => {
                Write::Refused
            }
            // How much of a flawed request was outstanding is not known: it may have been its last byte.
            (
                Write::Sent(_) | Write::Flawed(_) | Write::Broken { could_be_whole: true } | Write::Answered,
                Step::Answer { status: 500.., .. },
            ) => Write::Lost(GapReason::OutcomeUnknown),

            // The cloud's yes.
            (Write::Sent(None), Step::Answer { body_decides: true, .. }) => Write::Answered,
            (Write::Sent(None), Step::Answer { .. }) => Write::Proven,
            (Write::Sent(Some(reason)), Step::Answer { .. }) => Write::Lost(reason),
            (Write::Sending | Write::Flawed(_) | Write::Broken { .. }, Step::Answer { .. }) => {
                Write::Lost(GapReason::EarlyAnswer)
            }
            (Write::Answered, Step::Verdict(Verdict::Yes)) => Write::Proven,
            (Write::Answered, Step::Verdict(Verdict::No)) => Write::Refused,
            (Write::Answered, Step::Verdict(Verdict::Unclear(reason))) => Write::Lost(reason),

            // The request.
            (Write::Sending, Step::Flaw(reason)) => Write::Flawed(reason),
            (Write::Sent(None), Step::Flaw(reason)) => Write::Sent(Some(reason)),
            (Write::Sending, Step::RequestEnd) => Write::Sent(None),
            (Write::Flawed(reason), Step::RequestEnd) => Write::Sent(Some(reason)),
            (Write::Sending | Write::Flawed(_), Step::RequestBroken { could_be_whole }) => {
                Write::Broken { could_be_whole }
            }

            // No answer.
            (Write::Sent(_) | Write::Broken { could_be_whole: true } | Write::Answered, Step::Unanswered) => {
                Write::Lost(GapReason::OutcomeUnknown)
            }
            (Write::Sending | Write::Flawed(_) | Write::Broken { could_be_whole: false }, Step::Unanswered) => {
                Write::Refused
            }
            (Write::Broken { could_be_whole: false }, Step::Unobserved) => Write::Refused,
            (
                Write::Sending | Write::Flawed(_) | Write::Sent(_) | Write::Broken { .. } | Write::Answered,
                Step::Unobserved,
            ) => Write::Lost(GapReason::OutcomeUnknown),

            // What was said before is said again, or is of no weight any more.
            (
                state @ (Write::Flawed(_) | Write::Sent(Some(_)) | Write::Broken { .. } | Write::Answered),
                Step::Flaw(_),
            ) => state,
            (
                state @ (Write::Sent(_) | Write::Broken { .. } | Write::Answered),
                Step::RequestEnd | Step::RequestBroken { .. },
            ) => state,
            (state @ Write::Answered, Step::Answer { .. }) => state,
            (state @ (Write::Sending | Write::Flawed(_) | Write::Sent(_) | Write::Broken { .. }), Step::Verdict(_)) => {
                state
            }
        }
    }

    /// Whether nothing can change it any more.
    pub fn is_settled(self) -> bool {
        matches!(self, Write::Proven | Write::Refused | Write::Lost(_))
    }
}

#[cfg(test)]
mod tests {
    use GapReason::{ChecksumMismatch, EarlyAnswer, Malformed, OutcomeUnknown, Overflow};
    use Step::{Flaw, RequestBroken, RequestEnd, Unanswered, Unobserved};
    use Write::{Lost, Proven, Refused};

    use super::*;

    fn answer(status: u16) -> Step {
        Step::Answer { status, body_decides: false }
    }

    fn long(status: u16) -> Step {
        Step::Answer { status, body_decides: true }
    }

    #[test]
    fn only_a_yes_to_a_whole_request_proves_a_write() {
        let short = RequestBroken { could_be_whole: false };
        let open = RequestBroken { could_be_whole: true };
        let rows = [
            ("plain", vec![RequestEnd, answer(200)], Proven),
            ("204", vec![RequestEnd, answer(204)], Proven),
            ("refused", vec![RequestEnd, answer(403)], Refused),
            ("condition failed", vec![RequestEnd, answer(412)], Refused),
            ("conflict", vec![RequestEnd, answer(409)], Refused),
            ("not modified", vec![RequestEnd, answer(304)], Refused),
            ("redirected", vec![RequestEnd, answer(307)], Refused),
            ("412 instead of 100", vec![answer(412), RequestEnd], Refused),
            ("200 before the end", vec![answer(200), RequestEnd], Lost(EarlyAnswer)),
            ("200 after the client broke off", vec![short, answer(200)], Lost(EarlyAnswer)),
            ("200 after a chunked body broke off", vec![open, answer(200)], Lost(EarlyAnswer)),
            ("500 to a whole body", vec![RequestEnd, answer(500)], Lost(OutcomeUnknown)),
            ("503 to a whole body", vec![RequestEnd, answer(503)], Lost(OutcomeUnknown)),
            ("500 before the end", vec![answer(500), RequestEnd], Refused),
            ("not implemented", vec![RequestEnd, answer(501)], Refused),
            ("no answer", vec![RequestEnd, Unanswered], Lost(OutcomeUnknown)),
            ("broken off, known length", vec![short, Unanswered], Refused),
            ("broken off, chunked", vec![open, Unanswered], Lost(OutcomeUnknown)),
            ("broken off, chunked, then 500", vec![open, answer(500)], Lost(OutcomeUnknown)),
            ("broken off, then 400", vec![open, answer(400)], Refused),
            ("overflow", vec![Flaw(Overflow), RequestEnd, answer(200)], Lost(Overflow)),
            (
                "overflow and a later flaw",
                vec![Flaw(Overflow), Flaw(Malformed), RequestEnd, answer(200)],
                Lost(Overflow),
            ),
            ("overflow, refused", vec![Flaw(Overflow), RequestEnd, answer(403)], Refused),
            ("overflow, no answer", vec![Flaw(Overflow), RequestEnd, Unanswered], Lost(OutcomeUnknown)),
            (
                "wrong checksum, found at the end",
                vec![RequestEnd, Flaw(ChecksumMismatch), answer(200)],
                Lost(ChecksumMismatch),
            ),
            ("wrong checksum, the cloud found it too", vec![RequestEnd, Flaw(ChecksumMismatch), answer(400)], Refused),
            ("the body says yes", vec![RequestEnd, long(200), Step::Verdict(Verdict::Yes)], Proven),
            ("an error inside a 200", vec![RequestEnd, long(200), Step::Verdict(Verdict::No)], Refused),
            (
                "a server's failure inside a 200",
                vec![RequestEnd, long(200), Step::Verdict(Verdict::Unclear(OutcomeUnknown))],
                Lost(OutcomeUnknown),
            ),
            ("cut inside a 200", vec![RequestEnd, long(200), Unanswered], Lost(OutcomeUnknown)),
            ("unread inside a 200", vec![RequestEnd, long(200), Unobserved], Lost(OutcomeUnknown)),
            ("no longer understood", vec![Unobserved], Lost(OutcomeUnknown)),
            ("broken off, then not understood", vec![short, Unobserved], Refused),
            ("nothing changes a proof", vec![RequestEnd, answer(200), Unanswered, Unobserved, answer(500)], Proven),
        ];
        for (trap, steps, end) in rows {
            assert_eq!(steps.into_iter().fold(Write::Sending, Write::on), end, "{trap}");
        }
    }
}
