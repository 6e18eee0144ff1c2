#![allow(clippy::unwrap_used)]
use super::*;
use crate::golden;

fn now() -> Timestamp {
    "2026-01-01T12:00:00Z".parse().unwrap()
}

fn store(in_force: &str, identity: &str, held: u64) -> v1::BindingReport {
    v1::BindingReport {
        status: Some(v1::BindingStatus {
            provider_in_force: in_force.into(),
            provider_identity: identity.into(),
            coverage: Some(v1::Coverage {
                known: true,
                listed_objects: 1000,
                held_objects: held,
                finished_unix: 1_767_225_600,
                ..Default::default()
            }),
            open_gaps: [("Overflow".to_owned(), 2)].into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn report(store: v1::BindingReport) -> Report {
    let pods = PodsStatus { protected: 3, unprotected: 1, stale: 0 };
    Report { store: Some(store), pods, concerns: Concerns::default() }
}

const AWS: &str = "s3+https://s3.eu-central-1.amazonaws.com";
const HETZNER: &str = "s3+https://fsn1.your-objectstorage.com";

fn shown(status: &CloudBindingStatus) -> Vec<String> {
    let conditions = status.conditions.iter();
    conditions.map(|is| format!("{}={} {}", is.type_, is.status, is.reason)).collect()
}

#[test]
fn a_binding_at_rest_is_ready_and_its_columns_read() {
    let status = status(&golden::binding(), &report(store("aws", AWS, 999)), now());
    assert_eq!(shown(&status), ["Ready=True InForce"]);
    assert_eq!(status.phase, Some(Phase::InForce));
    assert_eq!(status.provider.as_deref(), Some("aws"));
    assert_eq!(status.coverage_summary.as_deref(), Some("99.9% (Jan 01 00:00Z)"));
    assert_eq!(status.pods_summary.as_deref(), Some("3/4"));
    assert_eq!(status.migrated_summary, None);
    assert_eq!(status.open_gaps.unwrap().total, 2);
    assert_eq!(status.observed_generation, Some(2));
    assert!(status.conditions.iter().all(|is| is.observed_generation == Some(2)));
}

#[test]
fn reconciling_and_stalled_are_there_only_while_true() {
    let with = |edit: fn(&mut Concerns)| {
        let mut report = report(store("aws", AWS, 1000));
        edit(&mut report.concerns);
        status(&golden::binding(), &report, now())
    };
    let soon = Duration::from_secs(1);
    type Row = (&'static str, fn(&mut Concerns), &'static [&'static str], Phase);
    let rows: [Row; 5] = [
        (
            "backfill",
            |all| all.backfill = Outcome::waiting("Backfilling", "", Duration::ZERO),
            &["Ready=False Backfilling", "Reconciling=True Backfilling"],
            Phase::Backfilling,
        ),
        (
            "stalled before waiting",
            |all| {
                all.register = Outcome::waiting("StoreUnreachable", "", Duration::ZERO);
                all.migration = Outcome::stalled("BucketMissing", "", Duration::ZERO);
            },
            &["Ready=False BucketMissing", "Stalled=True BucketMissing"],
            Phase::Stalled,
        ),
        ("paused", |all| all.migration = Outcome::halted("Paused", ""), &["Ready=False Paused"], Phase::Paused),
        (
            "conflict",
            |all| all.conflict = Outcome::stalled("Conflict", "", Duration::ZERO),
            &["Ready=False Conflict", "Stalled=True Conflict"],
            Phase::Stalled,
        ),
        (
            "store away",
            |all| all.register = Outcome::waiting("StoreUnreachable", "", Duration::ZERO),
            &["Ready=False StoreUnreachable", "Reconciling=True StoreUnreachable"],
            Phase::Pending,
        ),
    ];
    for (trap, edit, conditions, phase) in rows {
        let status = with(edit);
        assert_eq!(shown(&status), conditions, "{trap}");
        assert_eq!(status.phase, Some(phase), "{trap}");
    }
    let mut report = report(store("aws", AWS, 1000));
    report.concerns.register = Outcome::waiting("x", "", soon);
    report.concerns.backfill = Outcome::waiting("y", "", Duration::from_secs(9));
    assert_eq!(report.concerns.again_in().into_iter().min(), Some(soon));
}

#[test]
fn a_migration_is_shown_from_its_own_progress_until_it_is_in_force() {
    let mut binding = golden::binding();
    binding.spec.provider = "hetzner".into();
    let epoch =
        |number| v1::MigrationEpoch { epoch: number, source: AWS.into(), target: HETZNER.into(), dry_run: false };
    let progress = |epoch, done| v1::Progress {
        migration_epoch: epoch,
        phase: "Replicating".into(),
        objects_total: 40,
        objects_done: done,
        ..Default::default()
    };
    let mut told = store("aws", AWS, 1000);
    told.migration = Some(epoch(3));
    told.status.as_mut().unwrap().progress = Some(progress(2, 40)); // of an earlier one
    let mut found = report(told);
    found.concerns.migration = Outcome::waiting("Replicating", "", Duration::ZERO);
    let pending = status(&binding, &found, now());
    assert_eq!((pending.phase, pending.migrated_summary.as_deref()), (Some(Phase::Pending), Some("0/0")));
    found.store.as_mut().unwrap().status.as_mut().unwrap().progress = Some(progress(3, 12));
    let moving = status(&binding, &found, now());
    assert_eq!((moving.phase, moving.migrated_summary.as_deref()), (Some(Phase::Replicating), Some("12/40")));
    assert_eq!(shown(&moving)[2], "MigrationComplete=False Replicating");
    assert_eq!((moving.migration.as_ref().unwrap().source.as_str(), moving.provider.as_deref()), ("aws", Some("aws")));

    binding.status = Some(moving);
    let mut silent = report(found.store.clone().unwrap());
    silent.concerns.register = Outcome::waiting("StoreUnreachable", "", Duration::ZERO);
    let silent = status(&binding, &silent, now());
    assert_eq!(silent.phase, Some(Phase::Replicating), "what was under way still is");
    assert_eq!(shown(&silent)[2], "MigrationComplete=False StoreUnreachable");

    let mut told = store("hetzner", HETZNER, 1000);
    told.migration = Some(epoch(3)); // and the progress is of a later comparison
    let done = status(&binding, &report(told), now());
    assert_eq!(shown(&done), ["Ready=True InForce", "MigrationComplete=True InForce"]);
    assert_eq!((done.phase, done.migrated_summary.as_deref()), (Some(Phase::InForce), Some("12/40")));
    assert_eq!(done.provider.as_deref(), Some("hetzner"));
}

#[test]
fn numbers_alone_are_written_now_and_then() {
    let binding = golden::binding();
    let first = status(&binding, &report(store("aws", AWS, 1000)), now());
    let after = |seconds: u64, edit: fn(&mut CloudBindingStatus)| {
        let mut second = first.clone();
        edit(&mut second);
        worth_a_patch(Some(&first), &second, now() + Duration::from_secs(seconds))
    };
    let gaps = |status: &mut CloudBindingStatus| {
        status.open_gaps.as_mut().unwrap().by_reason.insert("Overflow".into(), 9);
    };
    assert_eq!(worth_a_patch(None, &first, now()), Worth::Now);
    assert_eq!(after(0, |_| ()), Worth::Nothing);
    assert_eq!(after(0, |status| status.provider = Some("hetzner".into())), Worth::Now);
    assert_eq!(after(0, |status| status.pods.as_mut().unwrap().protected = 4), Worth::Now);
    assert_eq!(after(20, gaps), Worth::Later(Duration::from_secs(40)));
    assert_eq!(after(60, gaps), Worth::Now);
}

#[test]
fn a_condition_keeps_the_time_of_its_last_change() {
    let mut binding = golden::binding();
    let mut found = report(store("aws", AWS, 1000));
    binding.status = Some(status(&binding, &found, now()));
    let later = now() + Duration::from_secs(60);
    let same = status(&binding, &found, later);
    assert_eq!(same.conditions[0].last_transition_time.0, now());
    found.concerns.backfill = Outcome::waiting("Backfilling", "", Duration::ZERO);
    assert_eq!(status(&binding, &found, later).conditions[0].last_transition_time.0, later);
}
