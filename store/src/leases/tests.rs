//! Leases one by one, and every interleaving of a commit, an offer with its put, and a sweep.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use super::*;

fn name(seed: u64) -> BlockName {
    BlockName::from_bytes(*blake3::hash(&seed.to_le_bytes()).as_bytes())
}

#[test]
fn a_lease_ends_and_can_be_renewed() {
    let leases = Leases::new(Duration::ZERO);
    leases.lease([name(1)]);
    assert!(!leases.is_kept(&name(1)), "it was over at once");
    let leases = Leases::new(Duration::from_secs(60));
    leases.lease([name(1), name(1), name(2)]);
    assert!(leases.is_kept(&name(1)) && !leases.is_kept(&name(3)));
    assert_eq!(leases.count(), 2);
}

#[test]
fn leases_are_bounded_and_the_oldest_goes_first() {
    let leases = Leases::new(Duration::from_secs(60));
    leases.lease((0..LEASES_MAX as u64 + 10).map(name));
    assert_eq!(leases.count(), LEASES_MAX);
    assert!(!leases.is_kept(&name(9)) && leases.is_kept(&name(10)));
    for _ in 0..3 {
        leases.lease((0..LEASES_MAX as u64).map(name));
    }
    assert!(leases.lock().order.len() <= 2 * LEASES_MAX, "renewals are bounded as well");
}

#[test]
fn a_mark_never_forgets_a_name_and_rarely_invents_one() {
    let leases = Leases::new(Duration::ZERO);
    leases.begin_mark(20_000);
    leases.keep((0..20_000).map(name));
    assert!((0..20_000).all(|seed| leases.is_kept(&name(seed))));
    let invented = (20_000..60_000).filter(|seed| leases.is_kept(&name(*seed))).count();
    assert!(invented < 400, "{invented} of 40 000 dead names are kept");
    leases.end_mark();
    assert!(!leases.is_kept(&name(1)));
}

/// The least store there is: which segment holds a block, what records name, and what was promised.
#[derive(Default)]
struct Model {
    index: BTreeMap<BlockName, u32>,
    segments: BTreeMap<u32, BTreeSet<BlockName>>,
    records: Vec<BlockName>,
    in_flight: u32, // commits between their check and their being applied
    live: BTreeSet<BlockName>,
}

/// One atomic step of one actor. `Blocked` steps are tried again later, as a lock would do.
type Step = fn(&mut Model, &Leases, &mut Local) -> Outcome;

#[derive(Clone, Default)]
struct Local {
    found: bool,
}

enum Outcome {
    Done,
    Blocked,
}

const BLOCK: u64 = 7;

fn commit_enter(model: &mut Model, leases: &Leases, _: &mut Local) -> Outcome {
    model.in_flight += 1; // the gate, shared
    leases.keep([name(BLOCK)]);
    Outcome::Done
}

fn commit_enter_without_keeping(model: &mut Model, _: &Leases, _: &mut Local) -> Outcome {
    model.in_flight += 1;
    Outcome::Done
}

fn commit_check(model: &mut Model, _: &Leases, local: &mut Local) -> Outcome {
    local.found = model.index.contains_key(&name(BLOCK));
    Outcome::Done
}

fn commit_apply(model: &mut Model, _: &Leases, local: &mut Local) -> Outcome {
    if local.found {
        model.records.push(name(BLOCK));
    }
    model.in_flight -= 1;
    Outcome::Done
}

fn offer_lease(_: &mut Model, leases: &Leases, _: &mut Local) -> Outcome {
    leases.lease([name(BLOCK)]);
    Outcome::Done
}

fn offer_ask(model: &mut Model, _: &Leases, local: &mut Local) -> Outcome {
    local.found = model.index.contains_key(&name(BLOCK));
    Outcome::Done
}

fn offer_put(model: &mut Model, _: &Leases, local: &mut Local) -> Outcome {
    if !local.found && !model.index.contains_key(&name(BLOCK)) {
        model.segments.entry(2).or_default().insert(name(BLOCK));
        model.index.insert(name(BLOCK), 2);
    }
    Outcome::Done
}

fn sweep_begin(model: &mut Model, leases: &Leases, _: &mut Local) -> Outcome {
    if model.in_flight > 0 {
        return Outcome::Blocked; // the gate, exclusive: commits under way are applied first
    }
    leases.begin_mark(1);
    Outcome::Done
}

fn sweep_mark(model: &mut Model, leases: &Leases, _: &mut Local) -> Outcome {
    model.live = model.records.iter().copied().collect();
    leases.keep(model.live.iter().copied());
    Outcome::Done
}

fn sweep_take(model: &mut Model, leases: &Leases, _: &mut Local) -> Outcome {
    if model.in_flight > 0 {
        return Outcome::Blocked;
    }
    let candidates: Vec<BlockName> = model.segments.get(&1).into_iter().flatten().copied().collect();
    let domain = crate::names::DomainId::new(1).unwrap();
    let candidates = candidates.into_iter().filter(|name| model.index.get(name) == Some(&1));
    let candidates = candidates.map(|name| BlockKey { domain, name }).collect();
    leases.sweep(candidates, |dead| model.index.retain(|name, _| dead.iter().all(|block| block.name != *name)));
    Outcome::Done
}

fn sweep_move(model: &mut Model, _: &Leases, _: &mut Local) -> Outcome {
    let held = model.segments.get(&1).cloned().unwrap_or_default();
    for name in held {
        if model.index.get(&name) != Some(&1) {
            continue;
        }
        model.segments.entry(3).or_default().insert(name);
        model.index.insert(name, 3);
    }
    Outcome::Done
}

fn sweep_delete(model: &mut Model, leases: &Leases, _: &mut Local) -> Outcome {
    model.segments.remove(&1);
    leases.end_mark();
    Outcome::Done
}

/// Runs every interleaving of `actors` and gives how many there were and how many broke the promise:
/// a block that a record names is where the index says.
fn explore(actors: &[Vec<Step>]) -> (u64, u64) {
    let mut schedules: Vec<Vec<usize>> = vec![Vec::new()];
    let (mut runs, mut broken) = (0, 0);
    while let Some(schedule) = schedules.pop() {
        // Every run begins anew: the real `Leases` cannot be copied.
        let leases = Leases::new(Duration::from_secs(60));
        let mut model = Model::default();
        model.segments.insert(1, BTreeSet::from([name(BLOCK)]));
        model.index.insert(name(BLOCK), 1);
        let mut at = vec![0; actors.len()];
        let mut locals = vec![Local::default(); actors.len()];
        let mut blocked = false;
        for actor in schedule.iter().copied() {
            match actors[actor][at[actor]](&mut model, &leases, &mut locals[actor]) {
                Outcome::Done => at[actor] += 1,
                Outcome::Blocked => blocked = true,
            }
        }
        if blocked {
            continue; // the same order without the vain attempt is another schedule
        }
        let mut ended = true;
        for actor in 0..actors.len() {
            if at[actor] < actors[actor].len() {
                ended = false;
                let mut longer = schedule.clone();
                longer.push(actor);
                schedules.push(longer);
            }
        }
        if ended {
            runs += 1;
            let held =
                |name| model.index.get(name).is_some_and(|n| model.segments.get(n).is_some_and(|s| s.contains(name)));
            broken += u64::from(!model.records.iter().all(held));
        }
    }
    (runs, broken)
}

const SWEEP: [Step; 5] = [sweep_begin, sweep_mark, sweep_take, sweep_move, sweep_delete];

#[test]
fn no_interleaving_of_commit_offer_and_sweep_loses_a_recorded_block() {
    let commit: Vec<Step> = vec![commit_enter, commit_check, commit_apply];
    let offer: Vec<Step> = vec![offer_lease, offer_ask, offer_put];
    let (runs, broken) = explore(&[commit.clone(), SWEEP.to_vec()]);
    assert!(runs > 10 && broken == 0, "{broken} of {runs} interleavings of one commit");
    let (runs, broken) = explore(&[commit.clone(), offer, SWEEP.to_vec()]);
    assert!(runs > 1000 && broken == 0, "{broken} of {runs} interleavings with an offer");
    let (runs, broken) = explore(&[commit.clone(), commit, SWEEP.to_vec()]);
    assert!(runs > 800 && broken == 0, "{broken} of {runs} interleavings of two commits");
}

#[test]
fn the_model_sees_what_a_commit_that_keeps_nothing_would_lose() {
    let commit: Vec<Step> = vec![commit_enter_without_keeping, commit_check, commit_apply];
    let (_, broken) = explore(&[commit, SWEEP.to_vec()]);
    assert!(broken > 0, "a model that cannot fail proves nothing");
}

#[test]
fn a_block_that_an_offer_found_is_there_for_its_record() {
    let story: Vec<Step> =
        vec![offer_lease, offer_ask, offer_put, commit_enter, commit_check, must_be_found, commit_apply];
    let (runs, broken) = explore(&[story, SWEEP.to_vec()]);
    assert!(runs > 100 && broken == 0, "{broken} of {runs}");
}

fn must_be_found(_: &mut Model, _: &Leases, local: &mut Local) -> Outcome {
    assert!(local.found, "the lease kept it");
    Outcome::Done
}
