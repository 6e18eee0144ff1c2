//! After the switch: what applications still write to, or delete at, a provider that is not in force any
//! more is carried over to the one that is, where it is newer than what is there ([`standing`]). It may run
//! as often as one likes; where there is nothing newer it speaks to no cloud at all.
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use hawser_api::binding::Provider;
use hawser_api::v1;

use super::carry::Record;
use super::standing::{self, Way};
use super::{BEGINNING, Route, preflight, round};
use crate::failure::{Exit, Failure};
use crate::progress::{Progress, Report};
use crate::run::Run;

/// Questions to the store under way while it is looked for what is newer.
const QUESTIONS: usize = 32;

/// A provider that is carried over from, and what of it the target had when it came into force.
pub struct Former {
    provider: Provider,
    through: u64,
}

/// The providers to carry over from: the one that was named, else each that was in force before.
pub fn former(run: &Run, target: &Provider) -> Result<Vec<Former>, Failure> {
    let through = |provider: &Provider| {
        let identity = provider.id().to_string();
        run.welcome.former.iter().find(|former| former.identity == identity).map(|former| former.through_tick)
    };
    let source = run.source()?;
    if source.id() != target.id() {
        let through = through(source).unwrap_or(BEGINNING).max(BEGINNING);
        return Ok(vec![Former { provider: source.clone(), through }]);
    }
    let others = run.binding.spec.providers.iter().filter(|provider| provider.id() != target.id());
    let former = others.filter_map(|provider| Some((provider, through(provider)?)));
    Ok(former
        .map(|(provider, through)| Former { provider: provider.clone(), through: through.max(BEGINNING) })
        .collect())
}

/// Carries over from each of `former` what is newer there than at `target`, the provider in force.
pub async fn run(
    run: &Arc<Run>,
    lease: &v1::Lease,
    progress: &Arc<Progress>,
    target: &Provider,
    former: Vec<Former>,
) -> Result<(Exit, Report), Failure> {
    let names: Vec<&str> = former.iter().map(|former| former.provider.name.as_str()).collect();
    let mut report =
        Report { command: "replicate", source: names.join(", "), target: target.name.clone(), ..Report::default() };
    let mut exit = Exit::Done;
    for Former { provider, through } in &former {
        let identity = provider.id().to_string();
        if !any_due(run, lease, &identity, *through, target).await? {
            report.notes.push(format!("{} has nothing newer than {}", provider.name, target.name));
            continue;
        }
        let cloud = run.cloud(target)?;
        progress.phase("Settling", &format!("{} → {}, which is in force: what is newer", provider.name, target.name));
        let ready = preflight::check(run, progress, &cloud).await?;
        let route = Route::prepare(run, lease, progress, identity, cloud, ready, Way::Over).await?;
        super::follow(&route, *through).await?;
        route.tell(&mut report, None);
        let ended = route.exit(None);
        if exit == Exit::Done || ended == Exit::Failed {
            exit = ended;
        }
    }
    if former.is_empty() {
        report.notes.push(format!("{} is in force already, and no other provider was: nothing to do", target.name));
    }
    Ok((exit, report))
}

/// Whether anything at `source` has to be looked at more closely than by the records.
async fn any_due(run: &Run, lease: &v1::Lease, source: &str, through: u64, target: &Provider) -> Result<bool, Failure> {
    let changes = round::changes(run, lease, source, through).await?;
    let due = changes
        .try_filter_map(async |change| match change {
            v1::change::Change::Object(entry) => Ok(round::place_of(run, &target.name, &entry).map(|at| (at, entry))),
            v1::change::Change::ThroughTick(_) => Ok(None),
        })
        .try_filter(|(_, entry)| std::future::ready(standing::speaks(entry)))
        .map_ok(|(place, entry)| async move {
            if !entry.gap.is_empty() {
                return Ok(true);
            }
            let known = round::known(run, &target.id().to_string(), &place, "", "").await?;
            let deleted = entry.tombstone || entry.delete_marker;
            Ok(match standing::record(Way::Over, &entry, known) {
                Record::Nothing | Record::Gone => !deleted,
                Record::Older { .. } => true,
                Record::Same { .. } | Record::Newer => false,
            })
        })
        .try_buffer_unordered(QUESTIONS);
    let mut due = std::pin::pin!(due);
    while let Some(due) = due.next().await {
        if due? {
            return Ok(true);
        }
    }
    Ok(false)
}
