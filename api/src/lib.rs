//! The words that all parts of Hawser share: what a binding is, what is said between the parts, and
//! the names of things on the way of a byte. May not enter here:
//! - anything that acts of its own accord: a word is a value; [`connect`] says how to reach the store and sends nothing;
//! - a Kubernetes client: the CloudBinding's types alone, so that every part runs without a cluster;
//! - anything that one part alone needs.

pub mod binding;
pub mod block;
pub mod change;
pub mod connect;
pub mod gap;
pub mod hello;
pub mod hosts;
pub mod key;
pub mod provider;
pub mod quantity;
pub mod stamp;
pub mod variables;

pub use binding::CloudBinding;
pub use block::{BlockHash, BlockSize};
pub use gap::{GapReason, GapScope};
pub use key::ObjectKey;
pub use provider::{Endpoint, ProviderId};
pub use stamp::Stamp;

/// The gRPC protocol, generated from `proto/hawser.proto`, where it is described.
#[allow(missing_docs, clippy::all, reason = "generated; the .proto file is its documentation")]
pub mod v1 {
    tonic::include_proto!("hawser.v1");
}

impl From<Stamp> for v1::Stamp {
    fn from(stamp: Stamp) -> v1::Stamp {
        v1::Stamp { incarnation: stamp.incarnation, tick: stamp.tick, counter: stamp.counter }
    }
}

impl From<v1::Stamp> for Stamp {
    fn from(stamp: v1::Stamp) -> Stamp {
        Stamp { incarnation: stamp.incarnation, tick: stamp.tick, counter: stamp.counter }
    }
}
