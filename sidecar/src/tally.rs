//! What the copy counts, registered beside the live path's metrics.

use hawser_api::GapReason;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::metrics::Metrics;

/// Why something became a gap.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// Whose session with the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    binding: String,
}

/// The counters of the copy.
#[derive(Debug, Default)]
pub struct Tally {
    captured_bytes: Counter,
    offered_blocks: Counter,
    wanted_blocks: Counter,
    recorded: Counter,
    refused: Counter,
    gaps: Family<Reason, Counter>,
    panics: Counter,
    journal_bytes: Gauge,
    store_connected: Family<Of, Gauge>,
}

impl Tally {
    /// All of them, shown by `metrics`.
    pub fn registered(metrics: &Metrics) -> Tally {
        let tally = Tally::default();
        metrics.register(|registry| {
            registry.register("captured_bytes", "Content that was understood and cut", tally.captured_bytes.clone());
            registry.register("offered_blocks", "Blocks offered to the store", tally.offered_blocks.clone());
            registry.register("wanted_blocks", "Blocks that the store lacked", tally.wanted_blocks.clone());
            registry.register("recorded", "Operations told as confirmed by the cloud", tally.recorded.clone());
            registry.register("refused", "Messages that the store refused", tally.refused.clone());
            registry.register("gaps", "Changes that were not recorded, by reason", tally.gaps.clone());
            registry.register("observer_panics", "Observers that ended by a bug of ours", tally.panics.clone());
            registry.register("journal_bytes", "Bytes of outcomes kept for the store", tally.journal_bytes.clone());
            registry.register(
                "store_connected",
                "Whether a session with the store stands",
                tally.store_connected.clone(),
            );
        });
        tally
    }

    pub(crate) fn captured(&self, len: u64) {
        self.captured_bytes.inc_by(len);
    }

    pub(crate) fn offered(&self, blocks: u64) {
        self.offered_blocks.inc_by(blocks);
    }

    pub(crate) fn wanted(&self, blocks: u64) {
        self.wanted_blocks.inc_by(blocks);
    }

    pub(crate) fn recorded(&self) {
        self.recorded.inc();
    }

    pub(crate) fn refused(&self) {
        self.refused.inc();
    }

    pub(crate) fn gap(&self, reason: GapReason) {
        self.gaps.get_or_create(&Reason { reason: reason.as_str() }).inc();
    }

    pub(crate) fn panicked(&self) {
        self.panics.inc();
    }

    pub(crate) fn journal(&self, len: usize) {
        self.journal_bytes.set(len as i64);
    }

    pub(crate) fn connected(&self, binding: &str, connected: bool) {
        self.store_connected.get_or_create(&Of { binding: binding.to_owned() }).set(connected.into());
    }
}
