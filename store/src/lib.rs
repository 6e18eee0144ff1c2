//! The private store: every block once for each domain, every record for ever, one append-only log on
//! one disk, and what serves them. `docs/format.md` has the bytes and the order of writes. Read in the
//! order of a byte:
//! - the door: [`serve`] listens, [`auth`] names the caller's domain, [`service`] takes what sidecars and
//!   migrations say, [`session`] is where time passes;
//! - what is known: [`catalog`] gives the log's entries their meaning and answers questions, [`order`] has
//!   the rules of what came before what;
//! - the disk: [`domain`] takes blocks and entries, [`prepare`] hashes and packs, [`log`] appends and
//!   syncs (the one commit point), [`replay`] and [`index`] know what stands where; [`segment`] is the
//!   format, [`recover`] what a crash leaves behind, [`gc`], [`scrub`] and [`backup`] keep it well;
//! - for people: [`s3`] is the read-only face, [`admin`] health, metrics and the folder's own door.
//!
//! May not enter here:
//! - an acknowledgement of what is not synced: only [`log`] answers, after its `fdatasync`;
//! - a fact that the log does not have: [`index`] is derived, and rebuilt at any time;
//! - a call that takes a hash without a domain: [`domain`] is the only door to a block;
//! - the wall clock, where something is decided: leases are monotonic, order is ticks.

pub mod admin;
pub mod api_server;
pub mod auth;
mod backup;
pub mod catalog;
mod certificate;
pub mod config;
mod crash;
mod domain;
mod folder;
mod gc;
pub mod heap;
mod incoming;
mod index;
mod keys;
mod leases;
mod log;
mod names;
mod order;
mod prepare;
mod recover;
mod replay;
pub mod review;
pub mod s3;
mod scan;
mod scrub;
pub mod segment;
mod segments;
pub mod serve;
pub mod service;
pub mod session;
mod space;
mod stats;
mod store;
mod view;

#[cfg(test)]
extern crate self as hawser_store; // so that unit tests use the integration tests' catalog

pub use backup::{BackedUp, BackupError};
pub use domain::{CommitError, Domain, Piece, PutError};
pub use gc::{Collected, FILL_PERCENT, GcError};
pub use index::{Batch, Family, IndexError, Keys, Pair};
pub use log::{Closed, Committed};
pub use names::{BlockName, DomainId, Place, StoreId};
pub use replay::{Damage, Entry, Live, Replay};
pub use scrub::{Finding, Scrubbed};
pub use segments::ReadError;
pub use space::{Full, Probe, Volume};
pub use stats::{DomainStats, Stats, Sums};
pub use store::{DomainError, OpenError, Options, Room, Store, Unready};
pub use view::View;
