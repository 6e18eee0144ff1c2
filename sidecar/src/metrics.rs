//! What this process counts, under the names that `/metrics` shows.

use std::sync::atomic::AtomicI64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::relay::Passed;

/// How a connection was carried.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Carried {
    /// `bound`, `undecided` (in the clear, to a host not known at first), `spliced`, `passthrough` (distrust), `http2`
    /// or `refused`.
    pub how: &'static str,
}

/// Whose fault the end of a connection was.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Fault {
    /// `pod` or `cloud`.
    pub side: &'static str,
    /// What happened.
    pub what: &'static str,
}

/// One reason why a binding is not observed as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Lapsed {
    /// Namespace and name of the binding.
    pub binding: String,
    /// `distrust`, `http2`, `unparsed` or `crashed`.
    pub reason: &'static str,
}

/// The counters and gauges of the live path. The copy registers its own beside them.
#[derive(Default)]
pub struct Metrics {
    registry: std::sync::Mutex<Registry>,
    /// Connections, by how they were carried.
    pub connections: Family<Carried, Counter>,
    /// Connections open now.
    pub open: Gauge,
    /// Connections that broke.
    pub faults: Family<Fault, Counter>,
    /// Bytes of content relayed.
    pub passed: Passed,
    /// 1 while the files of the bindings are in force as they are, 0 while an earlier state of them is.
    pub bindings_valid: Gauge<i64, AtomicI64>,
    /// 1 while a binding as a whole is not observed for this reason.
    pub lapses: Family<Lapsed, Gauge>,
    /// Relays of this pod that ended by themselves.
    pub crashes: Gauge,
    /// 1 while everything is passed through because of that.
    pub splicing: Gauge,
    /// 1 while packet rules lead the pod's connections here, 0 when they could not be installed.
    pub led: Gauge,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// All metrics of the live path, registered.
    pub fn registered() -> Metrics {
        let metrics = Metrics::default();
        metrics.register(|registry| {
            registry.register(
                "connections",
                "Connections taken, by how they were carried",
                metrics.connections.clone(),
            );
            registry.register("connections_open", "Connections open now", metrics.open.clone());
            registry.register("connection_faults", "Connections that broke, by side and cause", metrics.faults.clone());
            registry.register(
                "outward_bytes",
                "Content relayed from applications to clouds",
                metrics.passed.outward.clone(),
            );
            registry.register(
                "inward_bytes",
                "Content relayed from clouds to applications",
                metrics.passed.inward.clone(),
            );
            registry.register(
                "bindings_valid",
                "Whether the bindings' files are in force as they are",
                metrics.bindings_valid.clone(),
            );
            registry.register("lapses", "Bindings that are not observed as a whole, by reason", metrics.lapses.clone());
            registry.register("relay_crashes", "Relays of this pod that ended by themselves", metrics.crashes.clone());
            registry.register(
                "splicing",
                "Whether everything is passed through because the relay ended again and again",
                metrics.splicing.clone(),
            );
            registry.register("led", "Whether packet rules lead the pod's connections here", metrics.led.clone());
        });
        metrics
    }

    /// Adds metrics; `hawser_sidecar_` is put before their names.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        let mut registry = self.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        add(registry.sub_registry_with_prefix("hawser_sidecar"));
    }

    /// The text that Prometheus reads.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        encode(&mut text, &registry).expect("writing to a String cannot fail");
        text
    }

    /// Counts one connection as carried `how`.
    pub fn carried(&self, how: &'static str) {
        self.connections.get_or_create(&Carried { how }).inc();
    }

    /// Counts one connection that broke.
    pub fn fault(&self, side: &'static str, what: &'static str) {
        self.faults.get_or_create(&Fault { side, what }).inc();
    }
}
