//! The way to the cloud: names become addresses, addresses connections. Never to ourselves.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};

use crate::forward::Authority;

/// How long a connection may take to come about, over all addresses; clients wait about as long.
const CONNECT_MAX: Duration = Duration::from_secs(60);
/// How long one of several addresses is tried before the next.
const NEXT_ADDRESS_AFTER: Duration = Duration::from_secs(5);

/// Why there is no connection to the cloud.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The name has no address.
    #[error("{0}: the name cannot be resolved")]
    Unresolved(Authority, #[source] io::Error),
    /// No address answered.
    #[error("{0}: cannot be connected to")]
    Unreachable(Authority, #[source] io::Error),
    /// Nothing answered in time.
    #[error("{0}: does not answer")]
    Silent(Authority),
    /// It is one of our own listeners.
    #[error("{0}: leads back to this proxy")]
    Loop(Authority),
    /// A metadata or link-local address: credentials live there.
    #[error("{0}: link-local addresses are not proxied")]
    LinkLocal(Authority),
}

/// The addresses that we listen on ourselves.
#[derive(Clone, Debug, Default)]
pub struct Own(pub Vec<SocketAddr>);

impl Own {
    /// Whether a connection to `to` would come back to us.
    pub fn contains(&self, to: SocketAddr) -> bool {
        self.0.iter().any(|own| {
            own.port() == to.port()
                && (own.ip() == unmapped(to.ip()) || (own.ip().is_unspecified() && is_local(to.ip())))
        })
    }
}

/// Whether `ip` belongs to the link alone: 169.254.0.0/16, fe80::/10, and the IPv6 address of instance metadata.
pub fn is_link_local(ip: IpAddr) -> bool {
    match unmapped(ip) {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254],
    }
}

/// The addresses of `to`, through the system's resolver.
///
/// # Errors
/// [`UpstreamError::Unresolved`].
pub async fn resolve(to: &Authority) -> Result<Vec<SocketAddr>, UpstreamError> {
    if let Ok(ip) = to.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, to.port)]);
    }
    let found =
        lookup_host((to.host.as_str(), to.port)).await.map_err(|error| UpstreamError::Unresolved(to.clone(), error))?;
    let found: Vec<SocketAddr> = found.collect();
    if found.is_empty() {
        Err(UpstreamError::Unresolved(to.clone(), io::ErrorKind::NotFound.into()))
    } else {
        Ok(found)
    }
}

/// Connects to the first of `addresses` that answers.
///
/// # Errors
/// Every other [`UpstreamError`]; none is tried where one of them is our own.
pub async fn connect(to: &Authority, addresses: &[SocketAddr], own: &Own) -> Result<TcpStream, UpstreamError> {
    if addresses.iter().any(|address| own.contains(*address)) {
        return Err(UpstreamError::Loop(to.clone()));
    }
    let all = async {
        let mut last = None;
        for (at, address) in addresses.iter().enumerate() {
            let wait = if at + 1 < addresses.len() { NEXT_ADDRESS_AFTER } else { CONNECT_MAX };
            match tokio::time::timeout(wait, TcpStream::connect(address)).await {
                Ok(Ok(socket)) => {
                    let _ = socket.set_nodelay(true); // bytes go on when they come
                    return Ok(socket);
                }
                Ok(Err(error)) => last = Some(UpstreamError::Unreachable(to.clone(), error)),
                Err(_) => last = last.or(Some(UpstreamError::Silent(to.clone()))),
            }
        }
        Err(last.unwrap_or(UpstreamError::Silent(to.clone())))
    };
    tokio::time::timeout(CONNECT_MAX, all).await.unwrap_or(Err(UpstreamError::Silent(to.clone())))
}

fn unmapped(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

/// Whether `ip` is one of this machine's own: only those can be bound to.
fn is_local(ip: IpAddr) -> bool {
    ip.is_loopback() || UdpSocket::bind((ip, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::{Own, is_link_local};

    #[test]
    fn our_own_listeners_are_known_under_every_name() {
        let own = |text: &str| Own(vec![text.parse().expect("an address")]);
        let to = |text: &str| text.parse::<SocketAddr>().expect("an address");
        assert!(own("127.0.0.1:3128").contains(to("127.0.0.1:3128")));
        assert!(own("127.0.0.1:3128").contains(to("[::ffff:127.0.0.1]:3128")));
        assert!(!own("127.0.0.1:3128").contains(to("127.0.0.1:3129")));
        assert!(!own("127.0.0.1:3128").contains(to("127.0.0.2:3128")));
        assert!(own("0.0.0.0:15001").contains(to("127.0.0.2:15001")));
        assert!(!own("0.0.0.0:15001").contains(to("192.0.2.1:15001")));
    }

    #[test]
    fn addresses_of_the_link_are_known() {
        for (text, wanted) in [
            ("169.254.169.254", true),
            ("169.254.170.2", true),
            ("::ffff:169.254.169.254", true),
            ("fe80::1", true),
            ("fd00:ec2::254", true),
            ("10.0.0.1", false),
            ("::1", false),
        ] {
            assert_eq!(is_link_local(text.parse().expect("an address")), wanted, "{text}");
        }
    }
}
