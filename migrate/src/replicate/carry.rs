//! What to do with one object at the target: a rule without I/O. Nothing is written there but under a guard,
//! or after a look where the service has no guards, and nothing foreign is ever replaced unasked.
use hawser_api::binding::Conflicts;

/// What should be at the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The object.
    Object,
    /// Nothing: the source's current version is a delete.
    Absence,
}

/// What the store recorded of the key at the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Nothing ever.
    Nothing,
    /// The very content and metadata that are wanted.
    Same {
        /// The ETag that it was answered with.
        etag: String,
    },
    /// Another version, which a later record may replace.
    Older {
        /// The ETag that it was answered with.
        etag: String,
    },
    /// A delete, before what is wanted.
    Gone,
    /// A version or delete that a pod made there after what is wanted.
    Newer,
}

/// Which conditions this service honours for the kind of write that the object needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Guards {
    /// If-None-Match: *.
    pub create: bool,
    /// If-Match.
    pub replace: bool,
    /// If-Match on a delete.
    pub delete: bool,
}

/// The condition of one write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum When {
    /// There is nothing.
    Absent,
    /// What is there has this ETag.
    Is(String),
}

/// The next thing to do, or the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// HEAD at the target.
    Look,
    /// Compare what is there, by content and metadata, with what is wanted.
    Compare {
        /// Its ETag.
        etag: String,
    },
    /// Ask the store whether it ever recorded the version that is there for this key.
    Ask {
        /// Its ETag.
        etag: String,
    },
    /// Send the object; `guarded` where the service honours the condition, else it was just looked at.
    Send {
        /// What must be true.
        when: When,
        /// Whether to say so in the request.
        guarded: bool,
    },
    /// Delete what is there.
    Delete {
        /// Its ETag.
        etag: String,
        /// Whether to say so in the request.
        guarded: bool,
    },
    /// Nothing more.
    End(End),
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was sent and arrived.
    Sent,
    /// It was there already, equal; now it is recorded.
    Adopted,
    /// It is there and recorded.
    There,
    /// What we wrote is deleted.
    Deleted,
    /// There is nothing, as wanted.
    Nothing,
    /// A pod's newer version is there: it is carried the other way.
    Newer,
    /// Something foreign is there and stays, as the binding says or as nothing is wanted there.
    Kept,
    /// Something foreign is there and stands in the way.
    Foreign,
    /// It kept changing under our hands.
    Restless,
}

/// What a step found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The target's answer to HEAD: an ETag, or nothing there.
    Head(Option<String>),
    /// Whether what is there is equal.
    Equal(bool),
    /// Whether the store recorded it once, or a checkpoint of ours explains it.
    Recorded(bool),
    /// The write succeeded.
    Written,
    /// The condition did not hold (412), or the object to replace is gone (404).
    Refused,
    /// Another write was under way (409).
    Busy,
}

/// One object on its way.
#[derive(Clone, Debug)]
pub struct Carry {
    wanted: Wanted,
    guards: Guards,
    conflicts: Conflicts,
    /// The ETag of our record, while it may still be what is there.
    recorded: Option<String>,
    /// Whether that record is of what is wanted.
    same: bool,
    steps: u32,
    /// What to do now.
    pub step: Step,
}

/// Steps before an object is called restless: three whole turns of look, compare, ask, send.
const STEPS_MAX: u32 = 16;

impl Carry {
    /// Begins with what the store knows. `doubted`: the target may be otherwise, as an earlier run may have
    /// written here without recording it, or as verifying found a difference; so it is looked at first.
    pub fn begin(wanted: Wanted, record: Record, guards: Guards, conflicts: Conflicts, doubted: bool) -> Carry {
        let same = matches!(record, Record::Same { .. });
        let recorded = match &record {
            Record::Older { etag } | Record::Same { etag } => Some(etag.clone()),
            Record::Nothing | Record::Gone | Record::Newer => None,
        };
        let step = match (wanted, record) {
            (_, Record::Newer) => Step::End(End::Newer),
            (Wanted::Object, _) if doubted => Step::Look,
            (_, Record::Same { .. }) => Step::End(End::There),
            (Wanted::Object, Record::Nothing | Record::Gone) if guards.create => {
                Step::Send { when: When::Absent, guarded: true }
            }
            (Wanted::Object, Record::Older { etag }) if guards.replace => {
                Step::Send { when: When::Is(etag), guarded: true }
            }
            (Wanted::Object, _) => Step::Look,
            (Wanted::Absence, Record::Older { .. }) => Step::Look,
            (Wanted::Absence, Record::Nothing | Record::Gone) if doubted => Step::Look,
            (Wanted::Absence, Record::Nothing | Record::Gone) => Step::End(End::Nothing),
        };
        Carry { wanted, guards, conflicts, recorded, same, steps: 0, step }
    }

    /// The only place where the next step is chosen.
    pub fn on(mut self, seen: Seen) -> Carry {
        self.steps += 1;
        let next = match (self.step, seen) {
            (end @ Step::End(_), _) => end,
            (_, _) if self.steps > STEPS_MAX => Step::End(End::Restless),
            // The HEAD tells what is there; our own record is replaced, all else is compared first.
            (Step::Look, Seen::Head(None)) => match self.wanted {
                Wanted::Object => Step::Send { when: When::Absent, guarded: self.guards.create },
                Wanted::Absence => Step::End(End::Deleted),
            },
            (Step::Look, Seen::Head(Some(etag))) if self.recorded.as_ref() == Some(&etag) => match self.same {
                true => Step::End(End::There),
                false => replace(self.wanted, self.guards, etag),
            },
            (Step::Look, Seen::Head(Some(etag))) => match self.wanted {
                Wanted::Object => Step::Compare { etag },
                Wanted::Absence => Step::Ask { etag },
            },
            (Step::Compare { .. }, Seen::Equal(true)) => Step::End(End::Adopted),
            (Step::Compare { etag }, Seen::Equal(false)) => Step::Ask { etag },
            (Step::Ask { etag }, Seen::Recorded(true)) => replace(self.wanted, self.guards, etag),
            (Step::Ask { etag }, Seen::Recorded(false)) => match (self.wanted, self.conflicts) {
                (Wanted::Absence, _) | (Wanted::Object, Conflicts::KeepTarget) => Step::End(End::Kept),
                (Wanted::Object, Conflicts::Stop) => Step::End(End::Foreign),
                (Wanted::Object, Conflicts::Overwrite) => replace(self.wanted, self.guards, etag),
            },
            (Step::Send { .. }, Seen::Written) => Step::End(End::Sent),
            (Step::Delete { .. }, Seen::Written) => Step::End(End::Deleted),
            // Something else is there than was thought.
            (Step::Send { .. } | Step::Delete { .. }, Seen::Refused) => {
                self.recorded = None;
                Step::Look
            }
            (send @ (Step::Send { .. } | Step::Delete { .. }), Seen::Busy) => send,
            // It vanished between the HEAD and the comparison.
            (Step::Compare { .. } | Step::Ask { .. }, Seen::Refused) => Step::Look,
            (step, seen) => unreachable!("{step:?} cannot see {seen:?}: each step has its own answers"),
        };
        self.step = next;
        self
    }
}

fn replace(wanted: Wanted, guards: Guards, etag: String) -> Step {
    match wanted {
        Wanted::Object => Step::Send { when: When::Is(etag), guarded: guards.replace },
        Wanted::Absence => Step::Delete { etag, guarded: guards.delete },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Seen::{Busy, Equal, Head, Recorded, Refused, Written};

    const ALL: Guards = Guards { create: true, replace: true, delete: true };
    const NONE: Guards = Guards { create: false, replace: false, delete: false };

    fn older() -> Record {
        Record::Older { etag: "ours".into() }
    }

    fn same() -> Record {
        Record::Same { etag: "ours".into() }
    }

    fn there(etag: &str) -> Seen {
        Head(Some(etag.into()))
    }

    /// Follows the seen things and gives the end, together with the unguarded writes on the way.
    fn follow(wanted: Wanted, record: Record, guards: Guards, conflicts: Conflicts, seen: Vec<Seen>) -> (Step, u32) {
        let mut unguarded = 0;
        let doubted = matches!(seen.first(), Some(Head(_)));
        let mut carry = Carry::begin(wanted, record, guards, conflicts, doubted);
        for seen in seen {
            if let Step::Send { guarded: false, .. } | Step::Delete { guarded: false, .. } = carry.step {
                unguarded += 1;
            }
            carry = carry.on(seen);
        }
        (carry.step, unguarded)
    }

    #[test]
    fn nothing_foreign_is_replaced_and_nothing_equal_is_sent_again() {
        use Conflicts::{KeepTarget, Overwrite, Stop};
        use Wanted::{Absence, Object};
        type Row = (&'static str, Wanted, Record, Guards, Conflicts, Vec<Seen>, End, u32);
        let rows: Vec<Row> = vec![
            ("a new object", Object, Record::Nothing, ALL, Stop, vec![Written], End::Sent, 0),
            (
                "a new object without guards",
                Object,
                Record::Nothing,
                NONE,
                Stop,
                vec![Head(None), Written],
                End::Sent,
                1,
            ),
            ("busy once", Object, Record::Nothing, ALL, Stop, vec![Busy, Written], End::Sent, 0),
            ("unfinished, arrived", Object, Record::Nothing, ALL, Stop, vec![there("x"), Equal(true)], End::Adopted, 0),
            ("unfinished, not arrived", Object, Record::Nothing, ALL, Stop, vec![Head(None), Written], End::Sent, 0),
            ("unfinished, ours of before", Object, older(), ALL, Stop, vec![there("ours"), Written], End::Sent, 0),
            (
                "unfinished, of what the source had before",
                Object,
                Record::Nothing,
                ALL,
                Stop,
                vec![there("x"), Equal(false), Recorded(true), Written],
                End::Sent,
                0,
            ),
            ("there already", Object, same(), ALL, Stop, vec![], End::There, 0),
            ("there already, doubted", Object, same(), ALL, Stop, vec![there("ours")], End::There, 0),
            ("there no more", Object, same(), ALL, Stop, vec![Head(None), Written], End::Sent, 0),
            (
                "changed by somebody since",
                Object,
                same(),
                ALL,
                Stop,
                vec![there("x"), Equal(false), Recorded(false)],
                End::Foreign,
                0,
            ),
            ("ours, older", Object, older(), ALL, Stop, vec![Written], End::Sent, 0),
            ("ours, older, no guards", Object, older(), NONE, Stop, vec![there("ours"), Written], End::Sent, 1),
            ("a pod's newer one", Object, Record::Newer, ALL, Overwrite, vec![], End::Newer, 0),
            ("deleted before", Object, Record::Gone, ALL, Stop, vec![Written], End::Sent, 0),
            (
                "killed after the PUT",
                Object,
                Record::Nothing,
                ALL,
                Stop,
                vec![Refused, there("x"), Equal(true)],
                End::Adopted,
                0,
            ),
            (
                "foreign",
                Object,
                Record::Nothing,
                ALL,
                Stop,
                vec![Refused, there("x"), Equal(false), Recorded(false)],
                End::Foreign,
                0,
            ),
            (
                "foreign, kept",
                Object,
                Record::Nothing,
                ALL,
                KeepTarget,
                vec![Refused, there("x"), Equal(false), Recorded(false)],
                End::Kept,
                0,
            ),
            (
                "foreign, overwritten",
                Object,
                Record::Nothing,
                ALL,
                Overwrite,
                vec![Refused, there("x"), Equal(false), Recorded(false), Written],
                End::Sent,
                0,
            ),
            (
                "recorded once, as after moving there and back",
                Object,
                Record::Nothing,
                ALL,
                Stop,
                vec![Refused, there("x"), Equal(false), Recorded(true), Written],
                End::Sent,
                0,
            ),
            (
                "somebody replaced ours",
                Object,
                older(),
                ALL,
                Stop,
                vec![Refused, there("x"), Equal(false), Recorded(false)],
                End::Foreign,
                0,
            ),
            ("somebody deleted ours", Object, older(), ALL, Stop, vec![Refused, Head(None), Written], End::Sent, 0),
            (
                "foreign without guards",
                Object,
                Record::Nothing,
                NONE,
                Stop,
                vec![there("x"), Equal(false), Recorded(false)],
                End::Foreign,
                0,
            ),
            ("a delete of ours", Absence, older(), ALL, Stop, vec![there("ours"), Written], End::Deleted, 0),
            (
                "a delete of ours, changed since",
                Absence,
                older(),
                ALL,
                Stop,
                vec![there("x"), Recorded(false)],
                End::Kept,
                0,
            ),
            ("a delete of what is gone", Absence, older(), ALL, Stop, vec![Head(None)], End::Deleted, 0),
            ("a delete of nothing", Absence, Record::Nothing, ALL, Overwrite, vec![Head(None)], End::Deleted, 0),
            (
                "a delete of what a killed run wrote",
                Absence,
                Record::Nothing,
                ALL,
                Stop,
                vec![there("x"), Recorded(true), Written],
                End::Deleted,
                0,
            ),
            ("a delete where a pod wrote later", Absence, Record::Newer, ALL, Overwrite, vec![], End::Newer, 0),
            (
                "a delete overtaken",
                Absence,
                older(),
                ALL,
                Overwrite,
                vec![there("ours"), Refused, there("x"), Recorded(false)],
                End::Kept,
                0,
            ),
        ];
        for (what, wanted, record, guards, conflicts, seen, end, unguarded) in rows {
            assert_eq!(follow(wanted, record, guards, conflicts, seen), (Step::End(end), unguarded), "{what}");
        }
    }

    #[test]
    fn an_object_that_never_rests_is_given_up() {
        let mut carry = Carry::begin(Wanted::Object, Record::Nothing, ALL, Conflicts::Stop, false);
        for _ in 0..=STEPS_MAX {
            carry = carry.on(Busy);
        }
        assert_eq!(carry.step, Step::End(End::Restless));
    }
}
