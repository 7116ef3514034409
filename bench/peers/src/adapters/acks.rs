//! Acknowledgements that a client hands out as one future per record, as a [`crate::peer::Producer`] tells them.
//!
//! Unordered, because records of different partitions may be acknowledged in any order. Not here: what a future of which client means.

use std::future::Future;
use std::pin::Pin;

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};

use crate::peer::Ack;

type Pending = Pin<Box<dyn Future<Output = Ack>>>;

/// Those under way.
#[derive(Default)]
pub struct Acks(FuturesUnordered<Pending>);

impl Acks {
    /// One more.
    pub fn push(&mut self, tag: u64, fate: impl Future<Output = Result<(), String>> + 'static) {
        self.0.push(Box::pin(async move { Ack { tag, error: fate.await.err() } }));
    }

    /// Waits for one, and takes all that are there.
    pub async fn take(&mut self, into: &mut Vec<Ack>) {
        if self.0.is_empty() {
            return std::future::pending().await;
        }
        if let Some(ack) = self.0.next().await {
            into.push(ack);
        }
        while let Some(Some(ack)) = self.0.next().now_or_never() {
            into.push(ack);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fate_is_told_once_in_any_order() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let mut acks = Acks::default();
            let (late_sender, late) = tokio::sync::oneshot::channel::<()>();
            acks.push(1, async move { late.await.map_err(|error| error.to_string()) });
            acks.push(2, async { Err("full".to_owned()) });
            let mut got = Vec::new();
            acks.take(&mut got).await;
            assert_eq!(got.iter().map(|ack| (ack.tag, ack.error.as_deref())).collect::<Vec<_>>(), [(2, Some("full"))]);
            late_sender.send(()).expect("it waits");
            acks.take(&mut got).await;
            assert_eq!((got.len(), got[1].tag, got[1].error.is_none()), (2, 1, true));
            assert!(acks.take(&mut got).now_or_never().is_none(), "nothing is under way: it waits");
        });
    }
}
