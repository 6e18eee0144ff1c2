//! The controller of CloudBindings and the webhook that protects annotated pods.
#![forbid(unsafe_code)]

pub mod pod;
