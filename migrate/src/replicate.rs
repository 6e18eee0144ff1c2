//! From the store to another cloud. In the order of the work: [`preflight`] looks at the target before the
//! first byte, the source confirms what the store holds, [`round`] after round carries what changed
//! ([`carry`] decides for one object, [`upload`] sends it), the target is verified, [`force`] moves. What
//! comes to the source later is carried [`over`].
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hawser_api::v1;

use crate::backfill;
use crate::cloud::{Cloud, Place};
use crate::failure::{Exit, Failure};
use crate::progress::{Progress, Report};
use crate::run::Run;
use crate::verify::{self, Verdict};

pub mod carry;
pub mod checkpoints;
pub mod compare;
pub mod content;
pub mod force;
pub mod landing;
pub mod layout;
pub mod over;
pub mod preflight;
pub mod round;
pub mod standing;
pub mod upload;

use preflight::Ready;
use round::Tally;
use standing::Way;

/// A round shorter than this is the last one before verifying and before the switch, which the store refuses
/// while anything came later: see [`force::insist`]. What is recorded at the source after the switch is
/// carried [`over`].
const ROUND_SHORT: Duration = Duration::from_secs(10);
/// Where the first round begins. Everything that ever changed is asked for, deletes too: an earlier run may
/// have sent what was deleted since. No object is older than the registration of its binding, tick 1.
const BEGINNING: u64 = 1;
/// Rounds before it is said that the source changes faster than it can be followed.
const ROUNDS_MAX: u32 = 1_000;

/// What carrying objects works with; shared by all workers.
pub struct Route {
    run: Arc<Run>,
    progress: Arc<Progress>,
    lease: v1::Lease,
    /// The provider whose records are carried.
    source: String,
    way: Way,
    target: Cloud,
    ready: Ready,
    checkpoints: checkpoints::Writer,
    landing: landing::Writer,
    /// Checkpoints that an earlier run left behind, by target.
    left: Mutex<HashMap<Place, v1::Checkpoint>>,
    /// Whether the target is looked at even where the records say that all is there.
    doubt: AtomicBool,
    tally: Tally,
}

/// The command.
pub async fn run(run: &Arc<Run>, lease: &v1::Lease, progress: &Arc<Progress>) -> Result<(Exit, Report), Failure> {
    let names = (run.source()?.name.as_str(), run.target()?.name.as_str());
    let outcome = tokio::select! {
        outcome = migrate(run, lease, progress) => outcome,
        () = progress.keep_showing(&run.store, Some(lease), names) => Err(Failure::Stopped),
    };
    progress.tell_end(&run.store, Some(lease), names).await;
    outcome
}

/// The way from a source to a target, and its report.
async fn migrate(run: &Arc<Run>, lease: &v1::Lease, progress: &Arc<Progress>) -> Result<(Exit, Report), Failure> {
    let (source, target) = (run.source()?.clone(), run.target()?.clone());
    let mut report =
        Report { command: "replicate", source: source.name.clone(), target: target.name.clone(), ..Report::default() };
    let in_force = run.in_force()?;
    if target.id() == in_force.id() {
        return over::run(run, lease, progress, &target, over::former(run, &target)?).await;
    }
    if source.id() != in_force.id() && !run.no_switch && !run.dry_run {
        return Err(Failure::Usage(format!(
            "{} is in force, and neither {} nor {}: leave --from out to move from it, or name it with --to to carry \
             over into it",
            in_force.name, source.name, target.name
        )));
    }
    let cloud = run.cloud(&target)?;
    progress.phase("Pending", &format!("looking at {} before the first byte", target.name));
    let ready = preflight::check(run, progress, &cloud).await?;
    let confirmed = match run.dry_run || run.no_switch {
        true => force::Confirmed::NotAsked,
        false => force::confirm(run, lease, progress, &source).await?,
    };

    let route = Route::prepare(run, lease, progress, source.id().to_string(), cloud, ready, Way::Forward).await?;
    progress.phase("Replicating", &format!("{} → {}", source.name, target.name));
    let mut through = follow(&route, BEGINNING).await?;
    report.notes.extend(route.ready.notes.iter().cloned());
    if run.dry_run {
        route.tell(&mut report, None);
        return Ok((Exit::Done, report));
    }

    let mut verdict = None;
    if route.tally.is_clean() {
        let mut verified = route.verify(through).await?;
        if !verified.holds() {
            // Somebody changed or deleted what we wrote: look at each object instead of believing the records.
            progress
                .phase("Replicating", &format!("{} differs from its records: looking at every object", target.name));
            route.doubt.store(true, Ordering::Relaxed);
            route.tally.there.store(0, Ordering::Relaxed);
            through = follow(&route, BEGINNING).await?;
            route.doubt.store(false, Ordering::Relaxed);
            verified = route.verify(through).await?;
        }
        verified.tell(&mut report);
        through = follow(&route, through).await?; // what came while it was verified
        verdict = Some(verified);
    }
    let ready = route.exit(verdict.as_ref()) == Exit::Done;
    let moved = match ready && !run.no_switch && !run.is_partial() {
        true => route.switch(through, &confirmed, verdict.as_ref()).await?,
        false => None,
    };
    route.tell(&mut report, verdict.as_ref());
    if let Some(force::Moved { through, unconfirmed }) = moved {
        progress.phase("InForce", &format!("{} is in force", target.name));
        report.notes.push(format!("{} is in force (changes carried up to tick {through})", target.name));
        report.notes.push(format!(
            "what applications still write to {0} is recorded there: `backfill --from {0}` and `replicate --from {0}` \
             carry it over",
            source.name
        ));
        if unconfirmed > 0 {
            report
                .notes
                .push(format!("{unconfirmed} objects are unconfirmed: recorded since {} was last listed", source.name));
        }
    }
    Ok((route.exit(verdict.as_ref()), report))
}

/// Carries round after round what changed since `through`, until a round is short.
async fn follow(route: &Arc<Route>, mut through: u64) -> Result<u64, Failure> {
    for _ in 0..ROUNDS_MAX {
        let begin = Instant::now();
        let round = round::carry_all(route, through).await?;
        through = round.through;
        route.progress.counts.lag_seconds.store(begin.elapsed().as_secs(), Ordering::Relaxed);
        let short = begin.elapsed() < ROUND_SHORT;
        if route.run.dry_run || short || round.seen == 0 || !route.tally.is_clean() {
            return Ok(through);
        }
    }
    Err(Failure::failed("the source changes faster than the target can follow: try again when it is quieter"))
}

impl Route {
    async fn prepare(
        run: &Arc<Run>,
        lease: &v1::Lease,
        progress: &Arc<Progress>,
        source: String,
        target: Cloud,
        ready: Ready,
        way: Way,
    ) -> Result<Arc<Route>, Failure> {
        let left = checkpoints::left(run, lease, &target.identity).await?;
        Ok(Arc::new(Route {
            run: run.clone(),
            progress: progress.clone(),
            lease: lease.clone(),
            source,
            way,
            ready,
            checkpoints: checkpoints::Writer::start(run.store.clone(), lease.clone()),
            landing: landing::Writer::start(run.store.clone(), lease.clone()),
            left: Mutex::new(left),
            doubt: AtomicBool::new(false),
            tally: Tally::default(),
            target,
        }))
    }

    /// Brings the target into force with everything recorded at the source so far.
    async fn switch(
        self: &Arc<Route>,
        through: u64,
        confirmed: &force::Confirmed,
        verdict: Option<&Verdict>,
    ) -> Result<Option<force::Moved>, Failure> {
        let take = async |through| {
            force::take(&self.run, &self.lease, &self.source, &self.target.identity, confirmed, through).await
        };
        let carry = async |through| {
            let through = follow(self, through).await?;
            Ok((self.exit(verdict) == Exit::Done).then_some(through))
        };
        force::insist(&self.run.source()?.name, through, force::PAUSE, take, carry).await
    }

    /// Compares the target with what the source had at the tick `through`, up to which it was carried.
    async fn verify(&self, through: u64) -> Result<Verdict, Failure> {
        let name = &self.target.name;
        self.progress.phase("Verifying", &format!("comparing {name} with what arrived there"));
        verify::target(&self.run, &self.progress, &self.source, &self.target, through).await
    }

    fn exit(&self, verdict: Option<&Verdict>) -> Exit {
        let tally = &self.tally;
        if tally.failed.load(Ordering::Relaxed) > 0 {
            Exit::Failed
        } else if tally.foreign.load(Ordering::Relaxed) > 0 || verdict.is_some_and(|verdict| !verdict.holds()) {
            Exit::Differences
        } else if tally.unknown.load(Ordering::Relaxed) > 0 && !self.run.accept_missing {
            Exit::GapsLeft
        } else {
            Exit::Done
        }
    }

    fn tell(&self, report: &mut Report, verdict: Option<&Verdict>) {
        let get = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
        let tally = &self.tally;
        let sent = if self.run.dry_run { "objects to send" } else { "objects sent" };
        report.counts.extend([
            (sent, get(&tally.sent)),
            ("bytes sent", get(&tally.bytes_sent)),
            ("objects there already", get(&tally.there)),
            ("objects adopted", get(&tally.adopted)),
            (if self.run.dry_run { "objects to delete" } else { "objects deleted" }, get(&tally.deleted)),
            ("objects kept, newer", get(&tally.newer)),
            ("objects kept, foreign", get(&tally.kept)),
            ("conflicts", get(&tally.foreign)),
            ("content unknown", get(&tally.unknown)),
            ("objects failed", get(&tally.failed)),
        ]);
        if let Some(verdict) = verdict {
            report.counts.extend([("objects verified", verdict.verified), ("differences", verdict.differences)]);
        }
        if get(&tally.foreign) > 0 {
            report.notes.push(
                "conflicts are foreign objects at the target: move them away, or set spec.migration.conflicts to \
                 KeepTarget or Overwrite"
                    .to_owned(),
            );
        }
        if get(&tally.unknown) > 0 {
            report.notes.push(
                "content unknown: the store has no bytes of these objects: run backfill while the source answers, or \
                 set spec.migration.accept to [MissingObjects]"
                    .to_owned(),
            );
        }
    }
}

/// Confirms the source by a backfill, where it answers.
pub(crate) async fn confirm_source(
    run: &Run,
    lease: &v1::Lease,
    progress: &Progress,
    cloud: Cloud,
) -> Result<backfill::Outcome, Failure> {
    backfill::settle(run, lease, progress, Arc::new(cloud)).await
}
