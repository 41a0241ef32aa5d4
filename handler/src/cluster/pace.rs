//! How often the API server is asked: a token bucket for all requests, and another for watches, which a server that
//! closes them at once would otherwise get without end.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Request;
use tokio::time::Instant;
use tower::{Layer, Service};

/// Time between two requests in the long run, and how many may come at once: upstream's figures.
const REQUESTS: Bucket = Bucket::new(Duration::from_millis(20), 100);
/// The same for watches: one per kind is open as long as all is well.
const WATCHES: Bucket = Bucket::new(Duration::from_secs(1), 6);

/// A layer that delays requests.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    buckets: Arc<Mutex<Buckets>>,
}

#[derive(Debug)]
struct Buckets {
    requests: Bucket,
    watches: Bucket,
}

/// A token bucket, by the time at which it would be full.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    interval: Duration,
    burst: u32,
    full_at: Option<Instant>,
}

impl Bucket {
    const fn new(interval: Duration, burst: u32) -> Self {
        Self {
            interval,
            burst,
            full_at: None,
        }
    }

    /// Takes a token at `now` and returns how long to wait for it.
    fn take(&mut self, now: Instant) -> Duration {
        let full_at = self.full_at.map_or(now, |at| at.max(now)) + self.interval;
        self.full_at = Some(full_at);
        (full_at - now).saturating_sub(self.interval * self.burst)
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            buckets: Arc::new(Mutex::new(Buckets {
                requests: REQUESTS,
                watches: WATCHES,
            })),
        }
    }
}

impl Pace {
    fn delay(&self, is_watch: bool) -> Duration {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let delay = buckets.requests.take(now);
        if is_watch {
            delay.max(buckets.watches.take(now))
        } else {
            delay
        }
    }
}

impl<S> Layer<S> for Pace {
    type Service = Paced<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Paced {
            pace: self.clone(),
            inner,
        }
    }
}

/// A service whose requests are delayed.
#[derive(Clone, Debug)]
pub(super) struct Paced<S> {
    pace: Pace,
    inner: S,
}

impl<S, B> Service<Request<B>> for Paced<S>
where
    S: Service<Request<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let query = request.uri().query().unwrap_or_default();
        let delay = self
            .pace
            .delay(query.split('&').any(|part| part == "watch=true"));
        // Nothing is sent before the future is polled.
        let answer = self.inner.call(request);
        Box::pin(async move {
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            answer.await
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::Bucket;

    #[test]
    fn a_burst_passes_and_the_rest_comes_at_the_rate() {
        let mut bucket = Bucket::new(Duration::from_secs(1), 2);
        let now = Instant::now();
        let delays = [(); 4].map(|()| bucket.take(now).as_secs());
        assert_eq!(delays, [0, 0, 1, 2]);
        assert_eq!(bucket.take(now + Duration::from_secs(60)), Duration::ZERO);
    }
}
