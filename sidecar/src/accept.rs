//! The ways in: a proxy that is asked, and packets that were redirected.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::connection::{self, Ctx};
use crate::drain::Drain;

/// How long to wait after the system refused a connection for want of descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// Which way in a listener is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Clients ask for their destination.
    Proxy,
    /// The kernel knows it.
    Redirect,
}

/// Takes connections until the process drains, then waits for those that are open until `grace` ends; what is open then is cut.
pub async fn serve(listener: TcpListener, way: Way, ctx: Arc<Ctx>, drain: Drain, grace: Duration) {
    let mut open = JoinSet::new();
    let asked = drain.asked();
    tokio::pin!(asked);
    loop {
        tokio::select! {
            biased;
            () = &mut asked => break,
            Some(_) = open.join_next() => {}
            taken = listener.accept() => match taken {
                Ok((client, _)) => {
                    let _ = client.set_nodelay(true);
                    open.spawn(one(client, way, Arc::clone(&ctx)));
                }
                // A client that is gone already, or no descriptors left: neither ends the listener.
                Err(error) => {
                    tracing::debug!(%error, "a connection could not be taken");
                    tokio::time::sleep(PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let all = async { while open.join_next().await.is_some() {} };
    if tokio::time::timeout(grace, all).await.is_err() {
        tracing::warn!("the grace is over: connections that are still open are cut");
    }
}

async fn one(client: TcpStream, way: Way, ctx: Arc<Ctx>) {
    ctx.metrics.open.inc();
    match way {
        Way::Proxy => connection::proxied(client, &ctx).await,
        Way::Redirect => connection::redirected(client, &ctx).await,
    }
    ctx.metrics.open.dec();
}

/// Where a redirected connection was going, as the kernel's table of connections has it.
///
/// # Errors
/// The system's, when the connection was not redirected.
pub fn original_destination(client: &TcpStream) -> io::Result<SocketAddr> {
    let socket = SockRef::from(client);
    // An IPv4 connection on an IPv6 listener is kept in the table of IPv4.
    let found = match client.local_addr()? {
        SocketAddr::V6(own) if own.ip().to_ipv4_mapped().is_none() => socket.original_dst_v6(),
        _ => socket.original_dst_v4(),
    };
    let found = found?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok(SocketAddr::new(found.ip().to_canonical(), found.port()))
}
