//! What the launcher tells the node agent unasked: each change of the domain, and warnings for the
//! instance's user (`kubevirt.notify.v1`).
//!
//! The agent may be away for a while. Of the domain, only the newest state waits for it, so nothing final is
//! ever lost; warnings are given up after some time.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use proto::domain::Domain;
use proto::notify::v1::notify_client::NotifyClient;
use proto::notify::v1::{DomainEventRequest, K8sEventRequest, Response};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::domain::{Published, Warning};

/// Time for one delivery.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// Time between tries while the agent is thought to be there.
const RETRY: Duration = Duration::from_secs(1);
/// After this the agent is thought to be away.
const PATIENCE: Duration = Duration::from_secs(20);
/// Time between tries while the agent is away: it asks by itself when it is back.
const RETRY_AWAY: Duration = Duration::from_secs(5);
/// Warnings that wait; the channel holds as many more.
const WARNINGS_MAX: usize = 64;

/// Why something was not delivered.
#[derive(Debug, thiserror::Error)]
enum NotifyError {
    /// There is no agent.
    #[error("connect to {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The transport's answer.
        source: tonic::transport::Error,
    },
    /// The agent did not take it.
    #[error("deliver an event")]
    Call(#[from] Box<Status>),
    /// The agent took it and said no.
    #[error("deliver an event: the node agent answers: {0}")]
    Refused(String),
    /// The agent does not answer.
    #[error("deliver an event: no answer within {} s", SEND_TIMEOUT.as_secs())]
    Timeout,
    /// The state cannot be written as JSON.
    #[error("write an event")]
    Encode(#[from] serde_json::Error),
}

/// Delivers what happens until the domain's owner is gone.
#[derive(Debug)]
pub struct Notifier {
    socket: PathBuf,
    domain: watch::Receiver<Published>,
    warnings: mpsc::Receiver<Warning>,
    waiting: VecDeque<Warning>,
    /// The newest revision that was taken.
    taken: watch::Sender<u64>,
    /// Since when deliveries fail.
    failing_since: Option<Instant>,
}

impl Notifier {
    /// Returns a notifier, and the newest revision that the agent has taken.
    pub fn new(
        socket: PathBuf,
        domain: watch::Receiver<Published>,
        warnings: mpsc::Receiver<Warning>,
    ) -> (Self, watch::Receiver<u64>) {
        let (taken, acknowledged) = watch::channel(0);
        let notifier = Self {
            socket,
            domain,
            warnings,
            waiting: VecDeque::new(),
            taken,
            failing_since: None,
        };
        (notifier, acknowledged)
    }

    /// Delivers.
    pub async fn run(mut self) {
        let mut next_try = Instant::now();
        loop {
            let has_work = !self.waiting.is_empty() || self.is_behind();
            tokio::select! {
                changed = self.domain.changed() => if changed.is_err() {
                    return;
                },
                Some(warning) = self.warnings.recv(), if self.waiting.len() < WARNINGS_MAX => {
                    self.waiting.push_back(warning);
                }
                () = sleep_until(next_try), if has_work => {}
            }
            match self.deliver().await {
                Ok(()) => self.failing_since = None,
                Err(error) => next_try = self.failed(&error),
            }
        }
    }

    fn is_behind(&self) -> bool {
        self.domain.borrow().revision > *self.taken.borrow()
    }

    /// Returns when to try again.
    fn failed(&mut self, error: &NotifyError) -> Instant {
        let now = Instant::now();
        if self.failing_since.is_none() {
            let error = vmm::error_chain(error);
            tracing::warn!(error, "node agent cannot be told what happens");
        }
        let since = *self.failing_since.get_or_insert(now);
        if now.duration_since(since) < PATIENCE {
            return now + RETRY;
        }
        if !self.waiting.is_empty() {
            tracing::warn!(
                count = self.waiting.len(),
                "warnings for the user are given up"
            );
            self.waiting.clear();
        }
        now + RETRY_AWAY
    }

    async fn deliver(&mut self) -> Result<(), NotifyError> {
        if self.waiting.is_empty() && !self.is_behind() {
            return Ok(());
        }
        let mut client = self.connect().await?;
        while let Some(warning) = self.waiting.front() {
            let event_json = serde_json::to_vec(&event(warning))?;
            let request = Request::new(K8sEventRequest { event_json });
            match answer(client.handle_k8s_event(request)).await {
                // An agent that does not want it will not want it later.
                Ok(()) | Err(NotifyError::Refused(_)) => drop(self.waiting.pop_front()),
                Err(error) => return Err(error),
            }
        }
        let Published {
            revision, domain, ..
        } = self.domain.borrow_and_update().clone();
        let taken = *self.taken.borrow();
        if let Some(domain) = domain.filter(|_| revision > taken) {
            let request = domain_event(&domain, taken == 0)?;
            answer(client.handle_domain_event(Request::new(request))).await?;
            self.taken.send_replace(revision);
        }
        Ok(())
    }

    async fn connect(&self) -> Result<NotifyClient<Channel>, NotifyError> {
        let failed = |source| NotifyError::Connect {
            path: self.socket.clone(),
            source,
        };
        let uri = format!("unix://{}", self.socket.display());
        let endpoint = Endpoint::from_shared(uri).map_err(failed)?;
        let connected = timeout(SEND_TIMEOUT, endpoint.connect()).await;
        let channel = connected.map_err(|_| NotifyError::Timeout)?;
        Ok(NotifyClient::new(channel.map_err(failed)?))
    }
}

async fn answer(
    call: impl Future<Output = Result<tonic::Response<Response>, Status>>,
) -> Result<(), NotifyError> {
    let answered = timeout(SEND_TIMEOUT, call).await;
    let answered = answered.map_err(|_| NotifyError::Timeout)?;
    let Response { success, message } = answered.map_err(Box::new)?.into_inner();
    if success {
        Ok(())
    } else {
        Err(NotifyError::Refused(message))
    }
}

fn domain_event(domain: &Domain, is_first: bool) -> Result<DomainEventRequest, NotifyError> {
    Ok(DomainEventRequest {
        domain_json: serde_json::to_vec(domain)?,
        status_json: Vec::new(),
        event_type: if is_first { "ADDED" } else { "MODIFIED" }.to_owned(),
    })
}

/// A Kubernetes event (`v1.Event`) on the instance.
fn event(warning: &Warning) -> serde_json::Value {
    let [namespace, name, uid] = &warning.instance;
    let now = jiff::Timestamp::now();
    let time = crate::domain::rfc3339(now);
    json!({
        "metadata": {
            "name": format!("{name}.{:x}", now.as_nanosecond()),
            "namespace": namespace,
        },
        "involvedObject": {
            "kind": "VirtualMachineInstance",
            "apiVersion": "kubevirt.io/v1",
            "namespace": namespace,
            "name": name,
            "uid": uid,
        },
        "reason": warning.reason,
        "message": warning.message,
        "type": "Warning",
        "source": { "component": "virt-launcher" },
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    })
}

#[cfg(test)]
mod tests {
    use proto::domain::Domain;

    use super::{Warning, domain_event, event};

    #[test]
    fn the_first_event_adds_the_domain() {
        let domain = Domain::new("ns", "vm", "1-2");
        for (is_first, kind) in [(true, "ADDED"), (false, "MODIFIED")] {
            let event = domain_event(&domain, is_first).unwrap();
            assert_eq!(event.event_type, kind);
            let told = Domain::from_json(&event.domain_json).unwrap();
            assert_eq!(told.as_ref(), Some(&domain));
        }
    }

    #[test]
    fn a_warning_is_an_event_of_the_instance() {
        let event = event(&Warning {
            instance: ["ns", "vm", "1-2"].map(str::to_owned),
            reason: "FieldNotHonoured",
            message: "spec.x: not supported".to_owned(),
        });
        assert_eq!(event["metadata"]["namespace"], "ns");
        assert_eq!(event["involvedObject"]["uid"], "1-2");
        assert_eq!(event["type"], "Warning");
        let time = event["firstTimestamp"].as_str().unwrap();
        assert!(time.ends_with('Z') && !time.contains('.'), "{time}");
    }
}
