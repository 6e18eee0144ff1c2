//! The proxy between one pod and its clouds. Bytes pass unchanged; a copy of them is understood, cut
//! into blocks and offered to the store. Read in the order of a byte: [`config`], [`bindings`], [`accept`],
//! [`peek`], [`connection`] (the story), [`authority`], [`trust`], [`tls`], [`upstream`], [`leg`], [`relay`], [`tee`]
//! with [`budget`] and [`ticks`]; then the copy's way, [`observe`]: understood by
//! [`http`] and [`s3`] as an [`operation`], its content [`cut`] into blocks and put on [`offer`], its outcome told by the
//! [`session`] as a [`record`] or a [`gap`], kept in the [`journal`] while the store is away. In a pod [`supervise`]
//! stands in front of all this and [`splice`] is what is left when it fails; [`pod`], [`redirect`], [`trust`] and
//! [`ready`] are for those who run before the application. May not enter here:
//! - anything that writes to a live socket: [`relay`] owns both, nothing else can reach them;
//! - anything that lets live bytes wait for their copy: the tee is bounded, full means a gap;
//! - Kubernetes: the binding arrives as a file, so this crate runs anywhere.
#![forbid(unsafe_code)]

pub mod accept;
pub mod admin;
pub mod authority;
mod backoff;
pub mod bindings;
pub mod budget;
pub mod config;
pub mod connection;
pub mod cut;
pub mod distrust;
pub mod drain;
pub mod env;
pub mod exec;
pub mod forward;
pub mod gap;
pub mod heap;
pub mod http;
pub mod journal;
pub mod lapse;
pub mod leg;
pub mod metrics;
pub mod observe;
pub mod offer;
pub mod operation;
pub mod peek;
pub mod pod;
pub mod ready;
pub mod record;
pub mod redirect;
pub mod relay;
pub mod run;
pub mod s3;
pub mod session;
pub mod splice;
pub mod supervise;
pub mod tally;
pub mod tee;
pub mod ticks;
pub mod tls;
pub mod trust;
pub mod upstream;
pub mod verify;
