//! The kubelet's streams of lists.

use std::sync::Arc;

use futures::stream::{Stream, unfold};
use proto::deviceplugin::v1beta1::ListAndWatchResponse;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::list::{is_same, list};
use crate::unit::Offer;

/// How many streams there are and were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Streams {
    /// Streams at the moment.
    pub(super) open: usize,
    /// Streams so far.
    pub(super) opened: u64,
}

/// Counts a stream while it lasts.
struct Counted(watch::Sender<Streams>);

impl Counted {
    fn new(streams: watch::Sender<Streams>) -> Self {
        streams.send_modify(|streams| {
            streams.open += 1;
            streams.opened += 1;
        });
        Self(streams)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|streams| streams.open -= 1);
    }
}

/// What a stream sends, and what it sent last.
struct Lists {
    offer: watch::Receiver<Arc<Offer>>,
    stop: CancellationToken,
    sent: Option<Arc<Offer>>,
    is_over: bool,
    _counted: Counted,
}

/// Sends the list at once and after each change of it; of changes that come faster than they are read, the last. When
/// stopped, sends an empty list and ends; ends without when nobody makes offers any more.
pub(super) fn lists(
    offer: watch::Receiver<Arc<Offer>>,
    stop: CancellationToken,
    streams: watch::Sender<Streams>,
) -> impl Stream<Item = Result<ListAndWatchResponse, Status>> + Send + 'static {
    let lists = Lists {
        offer,
        stop,
        sent: None,
        is_over: false,
        _counted: Counted::new(streams),
    };
    unfold(lists, async |mut lists| {
        let next = lists.next().await?;
        Some((Ok(next), lists))
    })
}

impl Lists {
    async fn next(&mut self) -> Option<ListAndWatchResponse> {
        while !self.is_over && !self.stop.is_cancelled() {
            if let Some(offer) = self.news() {
                return Some(list(&offer));
            }
            self.wait().await;
        }
        let is_last = !std::mem::replace(&mut self.is_over, true);
        is_last.then(ListAndWatchResponse::default)
    }

    /// The offer, if its list is another than the one that was sent.
    fn news(&mut self) -> Option<Arc<Offer>> {
        let offer = Arc::clone(&self.offer.borrow_and_update());
        let is_known = self.sent.as_ref().is_some_and(|sent| is_same(sent, &offer));
        self.sent = Some(Arc::clone(&offer));
        (!is_known).then_some(offer)
    }

    async fn wait(&mut self) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            changed = self.offer.changed() => self.is_over = changed.is_err(),
        }
    }
}
