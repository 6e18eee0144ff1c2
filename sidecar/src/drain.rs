//! The way out: no new connections, idle ones close, exchanges run until the grace ends.

use std::time::Duration;

use tokio::sync::watch;

/// How often a connection that is under way is looked at again while the process drains.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Whether the process is ending; every connection holds one.
#[derive(Clone, Debug)]
pub struct Drain {
    asked: watch::Receiver<bool>,
}

/// Asks for the end.
#[derive(Debug)]
pub struct Begin {
    asked: watch::Sender<bool>,
}

/// A process that is not ending yet.
pub fn new() -> (Begin, Drain) {
    let (to, asked) = watch::channel(false);
    (Begin { asked: to }, Drain { asked })
}

impl Begin {
    /// From now on no connection is begun and idle ones close.
    pub fn begin(&self) {
        self.asked.send_replace(true);
    }
}

impl Drain {
    /// Waits until the process is asked to end.
    pub async fn asked(&self) {
        // When the sender is gone without having asked, nobody ever will.
        if self.asked.clone().wait_for(|asked| *asked).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The pause between two looks at a connection that was not idle.
    pub async fn look_again(&self) {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
