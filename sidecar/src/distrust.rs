//! Clients that do not trust the pod's CA. After one that failed, its kind is passed through to that host for a while
//! without being decrypted, and the lapse is reported: availability first, never silently.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::lapse::InLapse;
use crate::peek::Fingerprint;

/// How long a kind of client is passed through before it is tried again.
const PASS_FOR: Duration = Duration::from_secs(600);
/// Closes right after our certificate, with no success in between, that count as distrust. One may be chance.
const CLOSES_MAX: u8 = 2;
/// Kinds of clients remembered; beyond it the oldest judgement goes.
const KINDS_MAX: usize = 4096;

/// A kind of client at one host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Kind {
    /// What kind.
    pub client: Fingerprint,
    /// The host asked for.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// How a client answered our certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It finished the handshake.
    Trusts,
    /// It said that it does not know the authority, or does not like the certificate.
    Refuses,
    /// It closed right after the certificate, without a word.
    Closes,
}

/// What is known of each kind. `L` is what stays open while a kind is passed through.
pub struct Distrust<L = InLapse> {
    kinds: Mutex<HashMap<Kind, Judgement<L>>>,
}

struct Judgement<L> {
    at: Instant,
    closes: u8,
    /// Present while the kind is passed through.
    passing: Option<L>,
}

impl<L> Default for Distrust<L> {
    fn default() -> Distrust<L> {
        Distrust { kinds: Mutex::default() }
    }
}

impl<L> Distrust<L> {
    /// Whether connections of this kind are passed through at the moment `now`.
    pub fn passes(&self, kind: &Kind, now: Instant) -> bool {
        let kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        kinds.get(kind).is_some_and(|judgement| judgement.passing.is_some() && now < judgement.at + PASS_FOR)
    }

    /// Takes note of an answer. When it is what makes the kind pass, `open` gives what is held until that ends, and
    /// the answer is true.
    pub fn note(&self, kind: Kind, answer: Answer, now: Instant, open: impl FnOnce() -> L) -> bool {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        if answer == Answer::Trusts {
            kinds.remove(&kind);
            return false;
        }
        if kinds.len() >= KINDS_MAX
            && !kinds.contains_key(&kind)
            && let Some(oldest) = kinds.iter().min_by_key(|(_, judgement)| judgement.at).map(|(kind, _)| kind.clone())
        {
            kinds.remove(&oldest);
        }
        let judgement = kinds.entry(kind).or_insert(Judgement { at: now, closes: 0, passing: None });
        judgement.at = now;
        judgement.closes = judgement.closes.saturating_add(u8::from(answer == Answer::Closes));
        let distrusts = answer == Answer::Refuses || judgement.closes >= CLOSES_MAX;
        if distrusts && judgement.passing.is_none() {
            judgement.passing = Some(open());
            return true;
        }
        false
    }

    /// Forgets what is over; ends the lapses that were held for it. To be called now and then.
    pub fn expire(&self, now: Instant) {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        kinds.retain(|_, judgement| now < judgement.at + PASS_FOR);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Answer::{Closes, Refuses, Trusts};
    use super::{Distrust, Kind, PASS_FOR};
    use crate::peek::Fingerprint;

    #[test]
    fn one_refusal_or_two_closes_in_a_row_make_a_kind_pass() {
        let rows: [(&str, &[super::Answer], bool); 6] = [
            ("an alert", &[Refuses], true),
            ("one close may be chance", &[Closes], false),
            ("two closes", &[Closes, Closes], true),
            ("a success in between", &[Closes, Trusts, Closes], false),
            ("trust takes distrust back", &[Refuses, Trusts], false),
            ("nothing", &[], false),
        ];
        let now = Instant::now();
        let kind = Kind { client: Fingerprint::default(), host: "a.test".into(), port: 443 };
        let elsewhere = Kind { host: "b.test".into(), ..kind.clone() };
        for (trap, answers, passes) in rows {
            let distrust = Distrust::default();
            for answer in answers {
                distrust.note(kind.clone(), *answer, now, || ());
            }
            assert_eq!(distrust.passes(&kind, now), passes, "{trap}");
            assert!(!distrust.passes(&elsewhere, now), "{trap}: another host");
            assert!(!distrust.passes(&kind, now + PASS_FOR), "{trap}: it is tried again");
        }
    }

    #[test]
    fn what_is_held_while_a_kind_passes_is_dropped_with_it() {
        let (distrust, now) = (Distrust::default(), Instant::now());
        let kind = Kind { client: Fingerprint::default(), host: "a.test".into(), port: 443 };
        let held = std::rc::Rc::new(());
        assert!(distrust.note(kind.clone(), Refuses, now, || held.clone()));
        assert!(!distrust.note(kind, Refuses, now, || held.clone()), "it passes already");
        distrust.expire(now + PASS_FOR - Duration::from_secs(1));
        assert_eq!(std::rc::Rc::strong_count(&held), 2);
        distrust.expire(now + PASS_FOR);
        assert_eq!(std::rc::Rc::strong_count(&held), 1);
    }
}
