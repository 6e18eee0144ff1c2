//! Which hosts are bound, and to what: the manifests as a table that follows its files.

use std::sync::Arc;

use hawser_api::binding::{CloudBinding, Provider};

/// What (host, port) of one connection belongs to. Several bindings may share a host; the bucket of
/// an operation selects one of them.
#[derive(Debug)]
pub struct Bound {
    /// The name or address that the connection was made for: SNI, CONNECT authority or Host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Every binding and provider that has this host among its own; never empty.
    pub entries: Vec<Entry>,
}

/// One provider of one binding. Where the bucket stands in a request (path or host) is answered by
/// `hawser_api::hosts::classify` for the Host of that request.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The binding as its file said when the connection began.
    pub binding: Arc<CloudBinding>,
    /// One of `binding.spec.providers`.
    pub provider: Arc<Provider>,
}
