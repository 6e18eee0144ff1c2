//! The live bytes of one connection: read on one side, written on the other, ends passed on as they came.
//! One task drives both directions; it owns both legs, and nothing else can reach them.
//!
//! May not enter here: anything that waits for the copy, or changes, holds back or invents a byte. (The one
//! exception is what HTTP asks of a proxy that is given a whole URL: [`crate::forward`].)

use std::cell::RefCell;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use hawser_api::Stamp;
use prometheus_client::metrics::counter::Counter;

use crate::drain::Drain;
use crate::forward::Forward;
use crate::leg::{Broken, Leg, Outbound, Pulled, READ_LEN};
use crate::tee::{Side, Tee};
use crate::ticks::Ticks;

thread_local! {
    /// What a turn of a relay reads into and writes from. Empty between turns, so all connections share it.
    static TURN: RefCell<(Vec<u8>, Outbound)> = RefCell::new((vec![0; READ_LEN], Outbound::new()));
}

/// How a relay ended.
pub enum Outcome {
    /// Both directions ended, each as its sender ended it.
    Closed,
    /// One side broke; so did the other then. Says which one, and why.
    Broke(Side, Broken),
    /// Closed between two exchanges because the process ends.
    Drained,
    /// The client goes on with a request for another host, whose first bytes are given.
    Elsewhere(Leg, Vec<u8>),
}

/// What passed so far, in bytes of content.
#[derive(Clone, Default)]
pub struct Passed {
    /// From clients to clouds.
    pub outward: Counter,
    /// From clouds to clients.
    pub inward: Counter,
}

/// A connection whose two ends are ready for content.
pub struct Relay {
    /// The application's end.
    pub client: Leg,
    /// The cloud's end.
    pub cloud: Leg,
    /// Where the copy goes; `None` when there is none.
    pub tee: Option<Tee>,
    /// Present when the client sends absolute-form requests.
    pub forward: Option<Forward>,
    /// The source of the stamps of what passes.
    pub ticks: Arc<Ticks>,
    /// Counts what passes.
    pub passed: Passed,
}

impl Relay {
    /// Relays until both directions have ended, one side broke, or `drain` finds the connection idle.
    pub async fn run(self, drain: &Drain) -> Outcome {
        let Relay { client, cloud, tee, forward, ticks, passed } = self;
        let mut live = Live {
            client,
            cloud,
            watch: Watch { tee, forward, ticks, passed, len: 0 },
            outward: Way::Open,
            inward: Way::Open,
        };
        let asked = drain.asked();
        tokio::pin!(asked);
        let end = tokio::select! {
            biased;
            end = poll_fn(|cx| live.poll(cx)) => end,
            () = &mut asked => live.run_until_idle(drain).await,
        };
        live.finish(end).await
    }
}

enum End {
    Closed,
    Broke(Side, Broken),
    Elsewhere,
    Idle,
}

/// One direction.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Bytes may come.
    Open,
    /// The sender ended TLS; its FIN may come.
    Notified,
    /// The sender's FIN came; it is passed on as soon as everything before it is.
    Finishing,
    /// The FIN was passed on.
    Ended,
}

struct Live {
    client: Leg,
    cloud: Leg,
    watch: Watch,
    outward: Way,
    inward: Way,
}

/// What is told of the bytes that pass.
struct Watch {
    tee: Option<Tee>,
    forward: Option<Forward>,
    ticks: Arc<Ticks>,
    passed: Passed,
    /// Bytes of content that passed on this connection, both ways.
    len: u64,
}

impl Live {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            let outward = pump(Side::Client, &mut self.client, &mut self.cloud, &mut self.outward, &mut self.watch, cx);
            let inward = pump(Side::Cloud, &mut self.cloud, &mut self.client, &mut self.inward, &mut self.watch, cx);
            let moved = match (outward, inward) {
                (Ok(outward), Ok(inward)) => outward || inward,
                (Err((side, broken)), _) | (_, Err((side, broken))) => return Poll::Ready(End::Broke(side, broken)),
            };
            if self.watch.forward.as_ref().is_some_and(|forward| forward.goes_elsewhere(self.inward == Way::Finishing))
            {
                return Poll::Ready(End::Elsewhere);
            }
            if self.outward == Way::Ended && self.inward == Way::Ended {
                return Poll::Ready(End::Closed);
            }
            if !moved {
                return Poll::Pending;
            }
        }
    }

    /// Goes on until nothing is under way any more. Whether that is so only the copy knows, so it is asked again and again.
    async fn run_until_idle(&mut self, drain: &Drain) -> End {
        loop {
            if self.is_idle() {
                return End::Idle;
            }
            tokio::select! {
                biased;
                end = poll_fn(|cx| self.poll(cx)) => return end,
                () = drain.look_again() => {}
            }
        }
    }

    fn is_idle(&self) -> bool {
        let understood = match (&self.watch.forward, &self.watch.tee) {
            (Some(forward), _) => forward.is_at_rest(),
            (None, Some(tee)) => tee.is_at_rest(),
            // Nobody knows what a splice carries: it is idle only while it has carried nothing.
            (None, None) => self.watch.len == 0,
        };
        understood && self.client.is_flushed() && self.cloud.is_flushed()
    }

    async fn finish(mut self, end: End) -> Outcome {
        match end {
            End::Closed => Outcome::Closed,
            End::Elsewhere => {
                for side in [Side::Client, Side::Cloud] {
                    self.watch.ended(side, true); // all of it was seen: else the copy would take it for lost
                }
                let held = self.watch.forward.take().map(Forward::into_held).unwrap_or_default();
                Outcome::Elsewhere(self.client, held)
            }
            End::Idle => {
                for (side, leg) in [(Side::Client, &mut self.client), (Side::Cloud, &mut self.cloud)] {
                    close(leg).await;
                    self.watch.ended(side, true);
                }
                Outcome::Drained
            }
            End::Broke(side, broken) => {
                self.salvage(side).await;
                for (side, way) in [(Side::Client, self.outward), (Side::Cloud, self.inward)] {
                    if matches!(way, Way::Open | Way::Notified) {
                        self.watch.ended(side, false);
                    }
                }
                let (mut lost, other) = match side {
                    Side::Client => (self.client, self.cloud),
                    Side::Cloud => (self.cloud, self.client),
                };
                match &broken {
                    // The peer would have seen an alert and a close: it sees the close.
                    Broken::Alert(_) => drop(other),
                    Broken::Tls(_) => {
                        let _ = poll_fn(|cx| Poll::Ready(lost.poll_flush(cx))).await; // our alert, if it can go at once
                        other.reset().await;
                    }
                    Broken::Socket(_) | Broken::Closed => other.reset().await,
                }
                Outcome::Broke(side, broken)
            }
        }
    }

    /// Delivers what the broken side had sent before it broke, as the network would have.
    async fn salvage(&mut self, side: Side) {
        poll_fn(|cx| {
            let (from, to, way) = match side {
                Side::Client => (&mut self.client, &mut self.cloud, &mut self.outward),
                Side::Cloud => (&mut self.cloud, &mut self.client, &mut self.inward),
            };
            loop {
                match to.poll_flush(cx) {
                    Poll::Pending => return Poll::Pending, // a slow reader still gets what was sent to it
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Ready(Ok(())) => {}
                }
                if !matches!(way, Way::Open | Way::Notified)
                    || !matches!(pump(side, from, to, way, &mut self.watch, cx), Ok(true))
                {
                    return Poll::Ready(());
                }
            }
        })
        .await;
        let to = if side == Side::Client { &mut self.cloud } else { &mut self.client };
        let _ = to.flush().await;
    }
}

impl Watch {
    fn ended(&mut self, side: Side, clean: bool) {
        if let Some(tee) = &mut self.tee {
            tee.ended(side, self.ticks.stamp(), clean);
        }
    }
}

/// Moves what one read of `from` brings over to `to`. `Ok(true)`: something moved, so ask again.
fn pump(
    side: Side,
    from: &mut Leg,
    to: &mut Leg,
    way: &mut Way,
    watch: &mut Watch,
    cx: &mut Context<'_>,
) -> Result<bool, (Side, Broken)> {
    let other = if side == Side::Client { Side::Cloud } else { Side::Client };
    match to.poll_flush(cx) {
        Poll::Pending => return Ok(false), // a slow reader stops the reading
        Poll::Ready(flushed) => flushed.map_err(|broken| (other, broken))?,
    }
    match way {
        Way::Ended => return Ok(false),
        Way::Finishing => {
            to.fin(cx);
            *way = Way::Ended;
            return Ok(true);
        }
        Way::Open | Way::Notified => {}
    }
    if side == Side::Client && watch.forward.as_ref().is_some_and(Forward::is_holding) {
        return Ok(false);
    }
    TURN.with_borrow_mut(|(inbound, outbound)| {
        let mut stamp: Option<Stamp> = None;
        let mut failed = None;
        let (mut reading, mut writing) = (Context::from_waker(cx.waker()), Context::from_waker(cx.waker()));
        let pulled = {
            let Watch { tee, forward, ticks, passed, len } = &mut *watch;
            let counter = if side == Side::Client { &passed.outward } else { &passed.inward };
            let mut pass = |content: &[u8]| {
                // Taken after the read and before the write: early enough for a client, late enough for a cloud.
                let stamp = *stamp.get_or_insert_with(|| ticks.stamp());
                *len += content.len() as u64;
                counter.inc_by(content.len() as u64);
                if let Some(tee) = tee {
                    tee.gather(side, stamp, content);
                }
                if failed.is_none() {
                    failed = to.push(&mut writing, content, outbound).err();
                }
            };
            let mut take = |content: &[u8]| match forward {
                Some(forward) if side == Side::Client => forward.requests(content, &mut pass),
                Some(forward) => {
                    forward.answers(content);
                    pass(content);
                }
                None => pass(content),
            };
            let pulled = from.poll_pull(&mut reading, inbound, &mut take);
            watch.tee.iter_mut().for_each(Tee::tell_gathered);
            pulled
        };
        if failed.is_none() && matches!(pulled, Poll::Ready(Ok(Pulled::CloseNotify))) {
            failed = to.push_close_notify(outbound).err();
        }
        let sent = to.send(cx, outbound);
        if let Some(broken) = failed.or(sent.err()) {
            return Err((other, broken));
        }
        match pulled {
            Poll::Pending => Ok(false),
            Poll::Ready(Err(broken)) => Err((side, broken)),
            Poll::Ready(Ok(Pulled::More)) => Ok(true),
            Poll::Ready(Ok(Pulled::CloseNotify)) => {
                *way = Way::Notified;
                watch.ended(side, true);
                Ok(true)
            }
            Poll::Ready(Ok(Pulled::Fin)) => {
                if *way == Way::Open {
                    watch.ended(side, !from.is_tls());
                }
                *way = Way::Finishing;
                Ok(true)
            }
        }
    })
}

/// Ends a leg politely: close_notify where there is TLS, then FIN.
async fn close(leg: &mut Leg) {
    poll_fn(|cx| {
        TURN.with_borrow_mut(|(_, outbound)| {
            if leg.push_close_notify(outbound).is_ok() {
                let _ = leg.send(cx, outbound);
            }
        });
        leg.fin(cx);
        Poll::Ready(())
    })
    .await;
}
