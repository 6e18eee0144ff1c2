//! What the controller counts.
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Counters of the controller. Clones count together.
#[derive(Clone)]
pub struct Metrics {
    /// Whether this replica leads.
    pub leader: Gauge,
    /// Whether the store tells of its bindings.
    pub store_connected: Gauge,
    /// How long a reconcile took.
    pub reconcile_seconds: Histogram,
    reconciles: Family<Result, Counter>,
    bindings: Family<Phase, Gauge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Result {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Phase {
    phase: String,
}

impl Metrics {
    /// Counters that `registry` shows.
    pub fn registered(registry: &mut Registry) -> Metrics {
        let metrics = Metrics {
            leader: Gauge::default(),
            store_connected: Gauge::default(),
            reconcile_seconds: Histogram::new(exponential_buckets(0.001, 4.0, 8)),
            reconciles: Family::default(),
            bindings: Family::default(),
        };
        registry.register("leader", "Whether this replica reconciles", metrics.leader.clone());
        let help = "Whether the store tells this replica of its bindings";
        registry.register("store_connected", help, metrics.store_connected.clone());
        registry.register("reconcile_seconds", "Time of one reconcile", metrics.reconcile_seconds.clone());
        registry.register("reconciles", "Reconciles, by what came of them", metrics.reconciles.clone());
        registry.register("bindings", "CloudBindings, by the phase that their status shows", metrics.bindings.clone());
        metrics
    }

    /// Counts one reconcile.
    pub fn reconciled(&self, ok: bool) {
        self.reconciles.get_or_create(&Result { result: if ok { "ok" } else { "error" } }).inc();
    }

    /// Shows the bindings as they are now.
    pub fn show_phases(&self, phases: impl Iterator<Item = String>) {
        self.bindings.clear();
        for phase in phases {
            self.bindings.get_or_create(&Phase { phase }).inc();
        }
    }
}
