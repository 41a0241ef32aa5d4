//! Which of several controllers acts: the one that holds the lease (`coordination.k8s.io/v1`).
//!
//! ```text
//!   free, or not renewed in time ── taken ──▶ held ── renewed every RETRY ──▶ held ─┬─ not for DEADLINE ─▶ given up
//!                                                                                   └─ stopped ─▶ released
//! ```
//!
//! Clocks of several machines are never compared: a lease has run out when it hasn't changed for its duration by the
//! clock of whoever looks at it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use api::error_chain::chain;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::api_server::{ApiError, ApiServer};
use super::change::{self, set, text};
use super::key::{Key, Kind};
use super::serve;

/// Name of the lease; upstream's, so that never two kinds of controllers act.
const NAME: &str = "virt-controller";
/// How long a lease holds that isn't renewed.
const DURATION: Duration = Duration::from_secs(15);
/// How long its holder goes on when it cannot renew.
const DEADLINE: Duration = Duration::from_secs(10);
/// Time between two looks or renewals.
const RETRY: Duration = Duration::from_secs(2);

/// What to do with the lease.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    /// Somebody else holds it.
    Wait,
    /// There is none: make it.
    Create(Value),
    /// Take or renew it.
    Write(Value),
}

/// What is seen of the lease: its content, and since when it hasn't changed.
#[derive(Debug)]
struct Seen {
    lease: Option<Value>,
    since: Instant,
}

/// Decides what to do with the lease.
fn plan(now: Timestamp, clock: Instant, me: &str, seen: &Seen) -> Step {
    let at = microtime(now);
    let fresh = json!({
        "holderIdentity": me,
        "leaseDurationSeconds": DURATION.as_secs(),
        "acquireTime": at,
        "renewTime": at,
        "leaseTransitions": 0,
    });
    let Some(lease) = &seen.lease else {
        return Step::Create(fresh);
    };
    let holder = text(lease, "/spec/holderIdentity");
    let mut next = lease.clone();
    if holder == me {
        set(&mut next, &["spec", "renewTime"], at);
        return Step::Write(next);
    }
    let seconds = lease.pointer("/spec/leaseDurationSeconds");
    let seconds = seconds.and_then(Value::as_u64);
    let duration = seconds.map_or(DURATION, Duration::from_secs);
    if !holder.is_empty() && clock.duration_since(seen.since) < duration {
        return Step::Wait;
    }
    let transitions = lease.pointer("/spec/leaseTransitions");
    let transitions = transitions.and_then(Value::as_u64).unwrap_or_default();
    set(&mut next, &["spec"], fresh);
    let count = ["spec", "leaseTransitions"];
    set(&mut next, &count, transitions.saturating_add(1));
    Step::Write(next)
}

/// A time with the six places that leases have.
fn microtime(at: Timestamp) -> String {
    format!("{at:.6}")
}

/// A part in the election.
#[derive(Debug)]
pub(crate) struct Candidate {
    server: ApiServer,
    key: Key,
    me: String,
    seen: Seen,
}

impl Candidate {
    /// Takes part.
    pub(crate) fn new(server: ApiServer, namespace: &str, me: &str) -> Self {
        Self {
            server,
            key: Key::new(Kind::Lease, namespace, NAME),
            me: me.to_owned(),
            seen: Seen {
                lease: None,
                since: Instant::now(),
            },
        }
    }

    /// Waits until it holds the lease.
    pub(crate) async fn win(&mut self) {
        let mut last = String::new();
        loop {
            match Box::pin(self.step()).await {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) => {
                    let text = chain(&error);
                    if text == last {
                        debug!(error = text, "still cannot take the lease");
                    } else {
                        warn!(error = text, "cannot take the lease; will try again");
                        last = text;
                    }
                }
            }
            sleep(RETRY).await;
        }
        serve::LEADS.store(true, Ordering::Relaxed);
        info!(identity = self.me, "leads");
    }

    /// Keeps the lease until told to stop, and then gives it back.
    ///
    /// Returns whether it was kept: where not, others may act already.
    pub(crate) async fn keep(mut self, stop: CancellationToken) -> bool {
        let mut renewed = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    Box::pin(self.release()).await;
                    return true;
                }
                () = sleep(RETRY) => {}
            }
            let step = tokio::time::timeout(DEADLINE, Box::pin(self.step())).await;
            match step {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => break,
                Ok(Err(error)) => warn!(error = chain(&error), "cannot renew the lease"),
                Err(_) => warn!("cannot renew the lease: no answer"),
            }
            if renewed.elapsed() >= DEADLINE {
                break;
            }
        }
        serve::LEADS.store(false, Ordering::Relaxed);
        false
    }

    /// Looks at the lease and takes or renews it. Returns whether it is held now.
    async fn step(&mut self) -> Result<bool, ApiError> {
        // A holder knows its lease: what others wrote shows when the renewal is refused.
        let holds = |lease: &Value| text(lease, "/spec/holderIdentity") == self.me;
        if !self.seen.lease.as_ref().is_some_and(holds) {
            self.look().await?;
        }
        match plan(Timestamp::now(), Instant::now(), &self.me, &self.seen) {
            Step::Wait => Ok(false),
            Step::Create(spec) => {
                let lease = json!({
                    "apiVersion": Kind::Lease.api_version(),
                    "kind": Kind::Lease.name(),
                    "metadata": { "name": self.key.name, "namespace": self.key.namespace },
                    "spec": spec,
                });
                let answer = self.server.create(&self.key, &lease).await;
                self.settle(answer).await
            }
            Step::Write(next) => {
                let Some(patch) = self
                    .seen
                    .lease
                    .as_ref()
                    .and_then(|old| change::patch(old, &next))
                else {
                    return Ok(true);
                };
                let answer = self.server.patch(&self.key, None, &patch).await;
                self.settle(answer).await
            }
        }
    }

    async fn look(&mut self) -> Result<(), ApiError> {
        let lease = self.server.get(&self.key).await?;
        let changed = {
            let version = |lease: &Option<Value>| {
                let version = lease.as_ref()?.pointer("/metadata/resourceVersion");
                version.cloned()
            };
            version(&lease) != version(&self.seen.lease)
        };
        if changed || lease.is_none() {
            self.seen = Seen {
                lease,
                since: Instant::now(),
            };
        }
        Ok(())
    }

    async fn settle(&mut self, answer: Result<Value, ApiError>) -> Result<bool, ApiError> {
        match answer {
            Ok(lease) => {
                self.seen = Seen {
                    lease: Some(lease),
                    since: Instant::now(),
                };
                Ok(true)
            }
            // The lease may be held and renewed for all that is known.
            Err(error @ (ApiError::Unreachable { .. } | ApiError::TimedOut(_))) => Err(error),
            Err(error) => {
                // Whatever is there now is not what it was: others may have been faster.
                self.look().await?;
                if self.seen.lease.is_none() || self.is_held() {
                    return Err(error);
                }
                Ok(false)
            }
        }
    }

    fn is_held(&self) -> bool {
        let lease = self.seen.lease.as_ref();
        lease.is_some_and(|lease| text(lease, "/spec/holderIdentity") == self.me)
    }

    /// Gives the lease back, so that the next one needn't wait.
    async fn release(&mut self) {
        serve::LEADS.store(false, Ordering::Relaxed);
        let Some(old) = self.seen.lease.clone().filter(|_| self.is_held()) else {
            return;
        };
        let mut next = old.clone();
        set(&mut next, &["spec", "holderIdentity"], "");
        set(&mut next, &["spec", "leaseDurationSeconds"], 1);
        if let Some(patch) = change::patch(&old, &next)
            && let Err(error) = self.server.patch(&self.key, None, &patch).await
        {
            debug!(error = chain(&error), "the lease was not given back");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;
    use serde_json::{Value, json};
    use tokio::time::Instant;

    use super::{Candidate, DURATION, Seen, Step, plan};
    use crate::controller::fake::Fake;

    fn lease(holder: &str) -> Value {
        json!({
            "metadata": {"resourceVersion": "7"},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "leaseTransitions": 3},
        })
    }

    fn decide(lease: Option<Value>, unchanged_for: Duration) -> Step {
        let since = Instant::now();
        let seen = Seen { lease, since };
        plan(Timestamp::UNIX_EPOCH, since + unchanged_for, "me", &seen)
    }

    #[test]
    fn a_lease_that_isnt_there_is_made() {
        let Step::Create(spec) = decide(None, Duration::ZERO) else {
            panic!("no lease is made");
        };
        assert_eq!(spec["holderIdentity"], "me");
        assert_eq!(spec["renewTime"], "1970-01-01T00:00:00.000000Z");
    }

    #[tokio::test]
    async fn of_two_candidates_one_leads_until_it_gives_the_lease_back() {
        let fake = Fake::default();
        let candidate = |me: &str| Candidate::new(fake.server(), "kubevirt", me);
        let (mut one, mut two) = (candidate("one"), candidate("two"));
        assert!(one.step().await.unwrap());
        assert!(!two.step().await.unwrap());
        assert!(one.step().await.unwrap());
        assert!(!two.step().await.unwrap());
        one.release().await;
        assert!(two.step().await.unwrap());
        // The first one learns of it when it tries to renew.
        assert!(!one.step().await.unwrap());
    }

    #[tokio::test]
    async fn a_holder_whose_lease_was_taken_gives_up() {
        let fake = Fake::default();
        let mut one = Candidate::new(fake.server(), "kubevirt", "one");
        assert!(one.step().await.unwrap());
        let path = one.key.path(None);
        let mut taken = fake.get(&path).unwrap();
        taken["spec"]["holderIdentity"] = json!("two");
        fake.put(&path, taken);
        assert!(!one.step().await.unwrap());
    }

    #[test]
    fn somebody_elses_is_left_until_it_runs_out() {
        let almost = DURATION - Duration::from_millis(1);
        assert_eq!(decide(Some(lease("other")), almost), Step::Wait);
        let Step::Write(next) = decide(Some(lease("other")), DURATION) else {
            panic!("a lease that ran out isn't taken");
        };
        assert_eq!(next["spec"]["holderIdentity"], "me");
        assert_eq!(next["spec"]["leaseTransitions"], 4);
    }

    #[test]
    fn one_that_was_given_back_is_taken_at_once() {
        let step = decide(Some(lease("")), Duration::ZERO);
        assert!(matches!(step, Step::Write(_)));
    }

    #[test]
    fn the_own_one_is_renewed_without_a_transition() {
        let Step::Write(next) = decide(Some(lease("me")), Duration::ZERO) else {
            panic!("the lease isn't renewed");
        };
        assert_eq!(next["spec"]["leaseTransitions"], 3);
        assert_eq!(next["spec"]["renewTime"], "1970-01-01T00:00:00.000000Z");
    }
}
