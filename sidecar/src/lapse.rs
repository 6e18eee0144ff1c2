//! Times in which a binding as a whole is not observed: bytes pass, and nobody knows for which key. The session makes
//! a gap of the binding of each.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use hawser_api::Stamp;

use crate::bindings::Bound;
use crate::metrics::{Lapsed, Metrics};
use crate::ticks::Ticks;

/// Why a binding is not observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lapse {
    /// A client does not trust the CA and is passed through without being decrypted.
    Distrust,
    /// Client and cloud agreed on HTTP/2, which is relayed and not yet understood.
    Http2,
    /// Bytes came that are not the protocol of the binding.
    Unparsed,
    /// The relay ended again and again: everything is passed through.
    Crashed,
}

impl Lapse {
    /// Its word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Lapse::Distrust => "distrust",
            Lapse::Http2 => "http2",
            Lapse::Unparsed => "unparsed",
            Lapse::Crashed => "crashed",
        }
    }
}

/// Which binding: namespace (the domain without a cluster) and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BindingName {
    /// Its namespace.
    pub domain: String,
    /// Its name.
    pub name: String,
}

/// A lapse began, or ended: the first of its kind for this binding, or the last.
#[derive(Clone, Debug)]
pub struct Change {
    /// Of which binding.
    pub binding: BindingName,
    /// Of which kind.
    pub lapse: Lapse,
    /// True when it began. It is told before the first unobserved byte passes.
    pub began: bool,
    /// When.
    pub stamp: Stamp,
}

/// Takes every [`Change`], in order for each binding; must not block.
pub type OnChange = Box<dyn Fn(Change) + Send + Sync>;

/// The lapses that are open, each counted by the connections that are in it.
pub struct Lapses {
    open: Mutex<HashMap<(BindingName, Lapse), usize>>,
    ticks: Arc<Ticks>,
    metrics: Arc<Metrics>,
    on_change: OnChange,
}

impl Lapses {
    /// No lapse is open yet.
    pub fn new(ticks: Arc<Ticks>, metrics: Arc<Metrics>, on_change: OnChange) -> Arc<Lapses> {
        Arc::new(Lapses { open: Mutex::default(), ticks, metrics, on_change })
    }

    /// Opens `lapse` for every binding of `bound`, until the answer is dropped.
    pub fn open(self: &Arc<Self>, bound: &Bound, lapse: Lapse) -> InLapse {
        let mut bindings = Vec::new();
        for entry in &bound.entries {
            let binding =
                BindingName { domain: entry.binding.domain().to_owned(), name: entry.binding.name().to_owned() };
            if !bindings.contains(&binding) {
                bindings.push(binding);
            }
        }
        for binding in &bindings {
            self.count(binding, lapse, true);
        }
        InLapse { lapses: Arc::clone(self), bindings, lapse }
    }

    fn count(&self, binding: &BindingName, lapse: Lapse, enters: bool) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry((binding.clone(), lapse)).or_default();
        let changed = if enters {
            *count += 1;
            *count == 1
        } else {
            *count -= 1;
            *count == 0
        };
        if *count == 0 {
            open.remove(&(binding.clone(), lapse));
        }
        if changed {
            let label = Lapsed { binding: format!("{}/{}", binding.domain, binding.name), reason: lapse.as_str() };
            self.metrics.lapses.get_or_create(&label).set(i64::from(enters));
            (self.on_change)(Change { binding: binding.clone(), lapse, began: enters, stamp: self.ticks.stamp() });
        }
    }
}

/// Keeps a lapse open. Its drop ends it, unless another connection is in the same.
pub struct InLapse {
    lapses: Arc<Lapses>,
    bindings: Vec<BindingName>,
    lapse: Lapse,
}

impl Drop for InLapse {
    fn drop(&mut self) {
        for binding in &self.bindings {
            self.lapses.count(binding, self.lapse, false);
        }
    }
}
