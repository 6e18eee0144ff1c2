//! What is left when the relay ends again and again: every connection is passed through, none is looked at. The
//! bindings say so, as far as they and the store can be had; nothing of that is needed for a byte to pass.

use std::sync::Arc;

use crate::authority::Authority;
use crate::bindings::{self, Bindings, Bound};
use crate::budget::Budget;
use crate::connection::Ctx;
use crate::distrust::Distrust;
use crate::drain::Drain;
use crate::lapse::{InLapse, Lapse, Lapses};
use crate::metrics::Metrics;
use crate::observe;
use crate::run::{Plan, StartError};
use crate::ticks::Ticks;
use crate::tls::Tls;
use crate::upstream::Own;

/// The gaps of the bindings, open until this is dropped, and who tells the store of them.
pub struct Telling {
    observers: Arc<observe::Ctx>,
    _lapses: Vec<InLapse>,
}

impl Telling {
    /// Ends the gaps; who is given has to be flushed for the store to hear of it.
    pub fn end(self) -> Arc<observe::Ctx> {
        self.observers
    }
}

/// What connections share when nothing is bound.
///
/// # Errors
/// [`StartError`] of the cryptographic library.
pub fn ctx(plan: &Plan<'_>, own: Own, drain: Drain, metrics: Arc<Metrics>) -> Result<Arc<Ctx>, StartError> {
    let ticks = Arc::new(Ticks::default());
    // Not used: nothing is bound. The kept one is had sooner than a new one.
    let authority = Authority::open(plan.state_dir.as_deref()).or_else(|_| Authority::open(None))?;
    Ok(Arc::new(Ctx {
        bindings: Bindings::none(),
        tls: Tls::new(authority, Vec::new(), Vec::new())?,
        distrust: Distrust::default(),
        lapses: Lapses::new(Arc::clone(&ticks), Arc::clone(&metrics), Box::new(|_| {})),
        ticks,
        capture: None,
        own,
        drain,
        metrics,
    }))
}

/// Opens a gap of every binding. The journal stays closed: it may be what the relay ended of.
pub fn tell(plan: &Plan<'_>, metrics: &Arc<Metrics>) -> Option<Telling> {
    let told = bindings::open(&plan.copying.binding, Arc::clone(metrics)).map_err(|error| error.to_string());
    let told = told.and_then(|(bindings, _)| {
        let (ticks, budget) = (Arc::new(Ticks::default()), Budget::new(plan.copying.budget));
        let pod = plan.in_pod.pod.clone();
        let observers = observe::start(plan.copying, None, &bindings, &ticks, &budget, metrics, pod)
            .map_err(|error| error.to_string())?;
        let lapses = Lapses::new(ticks, Arc::clone(metrics), Arc::clone(&observers).on_lapse());
        let open = |bound: &Bound| lapses.open(bound, Lapse::Crashed);
        let _lapses = bindings.table().everything().iter().map(open).collect();
        Ok(Telling { observers, _lapses })
    });
    told.map_err(|error| tracing::error!(error, "the store cannot be told that nothing is observed")).ok()
}
