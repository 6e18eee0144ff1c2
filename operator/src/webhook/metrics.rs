//! What the webhook counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::pod::Denial;

/// What became of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    /// `protected`, `denied` or `warned`.
    outcome: &'static str,
    /// Why it was denied; empty otherwise.
    reason: &'static str,
}

pub(super) struct Metrics {
    pods: Family<Outcome, Counter>,
    /// Seconds that the API server waited.
    pub(super) seconds: Histogram,
}

impl Metrics {
    /// Every reason is there from the start, so that an alert on it works before it happens.
    pub(super) fn registered(registry: &mut Registry) -> Metrics {
        let seconds = Histogram::new([0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0]);
        let metrics = Metrics { pods: Family::default(), seconds };
        for reason in Denial::REASONS {
            let _ = metrics.pods.get_or_create(&Outcome { outcome: "denied", reason });
        }
        registry.register("webhook_pods", "Pods that the webhook was asked about", metrics.pods.clone());
        registry.register("webhook_seconds", "Time that the API server waited for an answer", metrics.seconds.clone());
        metrics
    }

    pub(super) fn protected(&self) {
        self.pods.get_or_create(&Outcome { outcome: "protected", reason: "" }).inc();
    }

    pub(super) fn denied(&self, denial: &Denial) {
        self.pods.get_or_create(&Outcome { outcome: "denied", reason: denial.reason() }).inc();
    }

    pub(super) fn warned(&self) {
        self.pods.get_or_create(&Outcome { outcome: "warned", reason: "" }).inc();
    }
}
