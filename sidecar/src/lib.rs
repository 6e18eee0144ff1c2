//! The proxy between one pod and its clouds. Bytes pass unchanged; a copy of them is understood, cut
//! into blocks and offered to the store. Read in the order of a byte: [`config`], [`bindings`],
//! [`tee`] with [`ticks`] and [`budget`], [`observe`].
#![forbid(unsafe_code)]

pub mod bindings;
pub mod budget;
pub mod observe;
pub mod tee;
pub mod ticks;
