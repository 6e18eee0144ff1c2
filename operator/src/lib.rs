//! The controller of CloudBindings and the webhook that protects annotated pods. Read in this order: [`run`], then for
//! the controller [`leader`], [`caches`], [`controller`], [`reconcile`] and its concerns ([`conflict`], [`at_store`],
//! [`config`], [`account`], [`migration`], [`backfill`], [`schedule`], [`pods`], [`status`], [`events`]); for the
//! webhook [`webhook`], [`pod`]. May not enter here:
//! - a cloud: Jobs speak to it, under an account that may do nothing else;
//! - anything remembered of a binding between two reconciles: it is read from the cluster and the store each time;
//! - a write to a spec: that is the person's.
#![forbid(unsafe_code)]

pub mod account;
pub mod admin;
pub mod apply;
pub mod at_store;
pub mod authority;
pub mod backfill;
pub mod caches;
pub mod config;
pub mod conflict;
pub mod context;
pub mod controller;
pub mod crdgen;
pub mod ended;
pub mod events;
pub mod flags;
#[cfg(test)]
pub(crate) mod golden;
pub mod job;
pub mod labels;
pub mod leader;
pub mod metrics;
pub mod migration;
pub mod outcome;
pub mod pod;
pub mod pods;
pub mod reconcile;
pub mod rights;
pub mod run;
pub mod schedule;
pub mod start;
pub mod status;
pub mod store_tls;
pub mod webhook;
