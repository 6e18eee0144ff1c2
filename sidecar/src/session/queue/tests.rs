#![allow(clippy::unwrap_used)]

use hawser_api::v1::write::Change;

use super::*;

fn queue(journal: &Arc<Journal>) -> Queue {
    Queue::new([7; 16], "shop/photos".into(), Arc::clone(journal))
}

fn object(key: &str) -> Option<v1::ObjectRef> {
    Some(v1::ObjectRef { provider: "p".into(), bucket: "b".into(), key: key.as_bytes().to_vec().into() })
}

fn intent(key: &str) -> v1::Intent {
    v1::Intent { object: object(key), ..v1::Intent::default() }
}

fn put(operation: u64, key: &str, len: usize) -> Message {
    let body = v1::Body { content: Some(v1::body::Content::Inline(vec![0; len].into())) };
    let put = v1::PutObject { object: object(key), etag: "e".into(), body: Some(body), ..v1::PutObject::default() };
    let writes = vec![v1::Write { change: Some(Change::Put(put)) }];
    Message::Recorded(v1::Recorded { operation, writes, ..v1::Recorded::default() })
}

fn delete(operation: u64, key: &str) -> Message {
    let delete = v1::DeleteObject { object: object(key), ..v1::DeleteObject::default() };
    let writes = vec![v1::Write { change: Some(Change::Delete(delete)) }];
    Message::Recorded(v1::Recorded { operation, writes, ..v1::Recorded::default() })
}

/// What goes out now, as (sequence, kind).
fn sent(queue: &mut Queue) -> Vec<(u64, &'static str)> {
    std::iter::from_fn(|| queue.next_letter()).map(|letter| (letter.sequence, kind(&letter))).collect()
}

fn kind(letter: &v1::ControlUp) -> &'static str {
    match letter.message.as_ref().unwrap() {
        Message::Intent(_) => "intent",
        Message::Recorded(_) => "recorded",
        Message::Abandoned(_) => "abandoned",
        Message::Gap(_) => "gap",
        Message::Sightings(_) => "sightings",
        Message::Journalled(_) => "journalled",
        _ => "other",
    }
}

#[test]
fn letters_go_out_in_order_and_again_after_a_break_until_they_are_receipted() {
    let journal = Arc::new(Journal::in_memory());
    let mut queue = queue(&journal);
    queue.welcomed(0);
    let first = queue.announce(intent("a"));
    assert_eq!(sent(&mut queue), [(1, "intent")]);
    queue.tell(put(first, "a", 10));
    let second = queue.announce(intent("b"));
    assert_eq!(sent(&mut queue), [(2, "recorded"), (3, "intent")]);
    assert_eq!(queue.open_operations(), [first, second]);

    queue.fell_silent();
    assert!(queue.next_letter().is_none(), "nobody listens");
    queue.welcomed(1);
    assert_eq!(sent(&mut queue), [(2, "recorded"), (3, "intent")], "the first intent is known to be there");
    queue.receipt(2, &Verdict::Taken);
    assert_eq!(queue.open_operations(), [second]);
    queue.receipt(3, &Verdict::Taken);
    assert_eq!(queue.open_operations(), [second], "an intent's receipt does not end its operation");
    queue.fell_silent();
    queue.welcomed(3);
    assert_eq!(sent(&mut queue), []);
    assert!(journal.is_empty(), "what was receipted is not kept");
}

#[test]
fn what_is_told_while_the_store_is_away_is_kept_until_its_receipt() {
    let journal = Arc::new(Journal::in_memory());
    let mut queue = queue(&journal);
    let operation = queue.announce(intent("a"));
    queue.tell(put(operation, "a", 10));
    queue.tell(delete(0, "b"));
    assert_eq!(journal.count(), 2);
    queue.welcomed(0);
    assert_eq!(sent(&mut queue), [(2, "recorded"), (3, "recorded")], "in full, the unsent intent left out");
    queue.receipt(2, &Verdict::Taken);
    queue.receipt(3, &Verdict::Taken);
    assert!(journal.is_empty());
    assert!(queue.is_settled());
}

#[test]
fn what_was_on_its_way_when_the_store_went_is_kept() {
    let journal = Arc::new(Journal::in_memory());
    let mut queue = queue(&journal);
    queue.welcomed(0);
    let operation = announced(&mut queue, "a");
    queue.tell(put(operation, "a", 10));
    sent(&mut queue);
    assert_eq!(journal.count(), 0, "should this process die, the intent becomes a gap");
    queue.fell_silent();
    assert_eq!(journal.count(), 1);
}

/// An operation whose intent the store has receipted.
fn announced(queue: &mut Queue, key: &str) -> u64 {
    let operation = queue.announce(intent(key));
    let (sequence, _) = *sent(queue).last().unwrap();
    queue.receipt(sequence, &Verdict::Taken);
    operation
}

#[test]
fn what_a_stuck_store_has_not_heard_of_is_kept_although_it_is_not_away() {
    let journal = Arc::new(Journal::in_memory());
    let mut queue = queue(&journal);
    queue.welcomed(0);
    let (unsent, sent_only) = (queue.announce(intent("a")), queue.announce(intent("b")));
    queue.tell(put(unsent, "a", 10));
    assert_eq!(journal.count(), 1, "its intent had not left");
    sent(&mut queue);
    queue.tell(put(sent_only, "b", 10));
    assert_eq!(journal.count(), 2, "its intent had left, and nobody has said that it arrived");
    queue.tell(put(0, "c", 10));
    assert_eq!(journal.count(), 3, "nothing was announced");
    let told = sent(&mut queue);
    assert_eq!(told.len(), 2);
    for sequence in 1..=5 {
        queue.receipt(sequence, &Verdict::Taken);
    }
    assert!(journal.is_empty() && queue.is_settled(), "{}", journal.count());
}

#[test]
fn keys_that_become_known_are_told_before_the_outcome_and_with_the_same_number() {
    let journal = Arc::new(Journal::in_memory());
    let mut queue = queue(&journal);
    queue.welcomed(0);
    let keys = |operation| v1::Intent { operation, keys: vec!["k".into()], ..intent("") };
    let keys_of = |queue: &mut Queue| -> Vec<(u64, usize)> {
        let letters = std::iter::from_fn(|| queue.next_letter());
        let intents = letters.filter_map(|letter| match letter.message {
            Some(Message::Intent(intent)) => Some((intent.operation, intent.keys.len())),
            _ => None,
        });
        intents.collect()
    };
    let waiting = queue.announce(intent(""));
    queue.specify(keys(waiting));
    assert_eq!(keys_of(&mut queue), [(waiting, 1)], "one letter, as the first had not left");
    let gone = queue.announce(intent(""));
    assert_eq!(keys_of(&mut queue), [(gone, 0)]);
    queue.specify(keys(gone));
    queue.tell(delete(gone, "k"));
    assert_eq!(sent(&mut queue).iter().map(|(_, kind)| *kind).collect::<Vec<_>>(), ["intent", "recorded"]);
    queue.tell(delete(waiting, "k"));
    queue.specify(keys(77));
    assert_eq!(sent(&mut queue).len(), 1, "nothing is said of an operation that nobody announced");
}

#[test]
fn a_refused_write_that_nobody_heard_of_leaves_no_trace() {
    let journal = Arc::new(Journal::in_memory());
    let mut queue = queue(&journal);
    let operation = queue.announce(intent("a"));
    queue.tell(Message::Abandoned(v1::Abandoned { operation }));
    queue.welcomed(0);
    assert_eq!(sent(&mut queue), []);
    assert!(queue.open_operations().is_empty());
}

#[test]
fn over_the_bound_an_outcome_is_kept_in_the_journal_alone_and_told_from_there() {
    let journal = Arc::new(Journal::in_memory());
    let mut queue = queue(&journal);
    queue.welcomed(0);
    let len = LETTERS_LEN_MAX / 4;
    let operations = ["a", "b", "c", "d", "e"].map(|key| (announced(&mut queue, key), key));
    for (operation, key) in operations {
        queue.tell(put(operation, key, len));
    }
    assert!(queue.len <= LETTERS_LEN_MAX + 2 * LETTER_OVERHEAD);
    assert_eq!(journal.count(), 2);
    let kinds: Vec<_> = sent(&mut queue).into_iter().map(|(_, kind)| kind).collect();
    assert_eq!(kinds, ["recorded", "recorded", "recorded", "gap", "gap"]);
    for sequence in 6..=10 {
        queue.receipt(sequence, &Verdict::Taken);
    }
    assert!(journal.is_empty() && queue.is_settled());
    assert_eq!(queue.len, 0);
}

#[test]
fn a_store_that_stays_away_costs_no_growth() {
    let journal = Arc::new(Journal::in_memory());
    let mut queue = queue(&journal);
    for n in 0..50_000 {
        let operation = queue.announce(intent(&format!("k{n}")));
        queue.tell(put(operation, &format!("k{n}"), 100));
        assert!(queue.len < LETTERS_LEN_MAX + LETTERS_MAX * LETTER_OVERHEAD);
        assert!(journal.len() <= crate::journal::JOURNAL_LEN_MAX);
    }
    assert!(queue.letters.len() <= LETTERS_MAX + journal.count());
    assert!(queue.open_operations().is_empty());
    queue.welcomed(0);
    let told: Vec<_> = std::iter::from_fn(|| queue.next_letter()).collect();
    let folded = told.iter().any(|letter| {
        matches!(&letter.message, Some(Message::Gap(gap)) if gap.reason == "JournalFull" && gap.scope == "Bucket")
    });
    assert!(folded, "what found no room is told as a gap of the bucket");
    for letter in told {
        queue.receipt(letter.sequence, &Verdict::Taken);
    }
    assert!(queue.is_settled() && journal.is_empty());
}

#[test]
fn what_an_earlier_life_left_is_told_under_its_own_name_and_then_forgotten() {
    let journal = Arc::new(Journal::in_memory());
    let mut earlier = queue(&journal);
    for n in 0..200 {
        earlier.tell(put(0, &format!("k{n}"), 1));
    }
    drop(earlier);
    let mut queue = Queue::new([8; 16], "shop/photos".into(), Arc::clone(&journal));
    queue.welcomed(0);
    let mut replayed = Vec::new();
    while let Some(letter) = queue.next_letter() {
        let Some(Message::Journalled(old)) = letter.message else { panic!("only these") };
        assert_eq!(old.session.as_ref(), [7; 16]);
        replayed.push(old.old_sequence);
        assert!(queue.letters.len() <= REPLAYS_MAX);
        queue.receipt(letter.sequence, &Verdict::Taken);
    }
    assert_eq!(replayed, (1..=200).collect::<Vec<_>>());
    assert!(journal.is_empty());
}

#[test]
fn sightings_are_told_once_or_not_at_all() {
    let journal = Arc::new(Journal::in_memory());
    let mut queue = queue(&journal);
    assert!(!queue.mention(Message::Sightings(v1::Sightings::default())), "nobody listens");
    queue.welcomed(0);
    assert!(queue.mention(Message::Sightings(v1::Sightings::default())));
    assert_eq!(sent(&mut queue), [(1, "sightings")]);
    queue.fell_silent();
    queue.welcomed(0);
    assert_eq!(sent(&mut queue), []);
}

#[test]
fn a_refused_outcome_comes_back_and_a_refused_intent_does_not() {
    let journal = Arc::new(Journal::in_memory());
    let mut queue = queue(&journal);
    queue.welcomed(0);
    let operation = queue.announce(intent("a"));
    sent(&mut queue);
    let refused = Verdict::Refused("not ours".into());
    assert_eq!(queue.receipt(1, &refused), None);
    queue.tell(delete(operation, "a"));
    sent(&mut queue);
    assert!(matches!(queue.receipt(2, &refused), Some(Message::Recorded(_))));
}

#[test]
fn a_refused_outcome_is_kept_until_something_else_was_told_that_ends_its_operation() {
    let journal = Arc::new(Journal::in_memory());
    let mut queue = queue(&journal);
    queue.welcomed(0);
    let operation = announced(&mut queue, "a");
    queue.tell(delete(operation, "a"));
    queue.keep_untold();
    sent(&mut queue);
    let Some(Message::Recorded(_)) = queue.receipt(2, &Verdict::Refused("not ours".into())) else { panic!("it") };
    assert_eq!((journal.count(), queue.open_operations()), (1, vec![operation]), "a death now loses nothing");
    let gap = v1::GapFound { operation, object: object("a"), scope: "Key".into(), ..v1::GapFound::default() };
    queue.tell(Message::Gap(gap));
    queue.forget(2);
    let letter = queue.next_letter().unwrap();
    let Some(Message::Gap(told)) = &letter.message else { panic!("a gap") };
    assert_eq!(told.operation, operation, "it ends the intent at the store");
    queue.receipt(letter.sequence, &Verdict::Taken);
    assert!(journal.is_empty() && queue.open_operations().is_empty());
}
