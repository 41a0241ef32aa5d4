//! Takes the notifications of one launcher (`kubevirt.notify.v1`). It may speak for its own instance only.

use std::sync::Arc;
use std::time::Duration;

use proto::domain::Domain;
use proto::notify::info::notify_info_server::NotifyInfo;
use proto::notify::info::{NotifyInfoRequest, NotifyInfoResponse};
use proto::notify::v1::notify_server::Notify;
use proto::notify::v1::{DomainEventRequest, K8sEventRequest, Response};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};
use tonic::{Request, Status};

use super::call::bounded;
use super::launcher::Launcher;
use super::view::View;

/// Bytes of the longest Kubernetes event that is passed on; what etcd takes is not much more for all of an object.
const EVENT_LEN_MAX_BYTES: usize = 64 << 10;
/// Notifications that a launcher may send in a row.
const BURST: u32 = 50;
/// Time in which it may send another.
const REFILL: Duration = Duration::from_millis(50);
/// Time between two log lines about what one launcher does wrong.
const COMPLAINT_SPACING: Duration = Duration::from_secs(10);

/// Which versions of the notify service are spoken.
#[derive(Debug)]
pub(super) struct Info;

#[tonic::async_trait]
impl NotifyInfo for Info {
    async fn info(
        &self,
        _request: Request<NotifyInfoRequest>,
    ) -> Result<tonic::Response<NotifyInfoResponse>, Status> {
        Ok(tonic::Response::new(NotifyInfoResponse {
            supported_notify_versions: vec![1],
        }))
    }
}

/// Slows down and complains about a launcher that does too much.
#[derive(Debug)]
struct Pace {
    /// When the launcher would have used up all it is allowed to send.
    used_until: Instant,
    next_complaint: Instant,
    refused: u64,
}

impl Pace {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            used_until: now,
            next_complaint: now,
            refused: 0,
        }
    }

    /// Waits while more comes than is allowed.
    async fn wait(&mut self) {
        self.used_until = self.used_until.max(Instant::now()) + REFILL;
        sleep_until(self.used_until - REFILL * BURST).await;
    }

    fn complain(&mut self, launcher: &Launcher, reason: &str) {
        self.refused += 1;
        let now = Instant::now();
        if now < self.next_complaint {
            return;
        }
        self.next_complaint = now + COMPLAINT_SPACING;
        let (vmi, refused) = (&launcher.key, self.refused);
        tracing::warn!(%vmi, pod = launcher.pod_uid, refused, reason, "notification of a launcher is refused");
    }
}

/// The notifications of one launcher.
#[derive(Debug)]
pub(super) struct Notifications {
    view: Arc<View>,
    /// Held while a notification is taken: they are taken one by one.
    pace: Mutex<Pace>,
}

impl Notifications {
    pub(super) fn new(view: Arc<View>) -> Self {
        Self {
            view,
            pace: Mutex::new(Pace::new()),
        }
    }

    /// A connection may outlive the launcher's being given up or forgotten.
    fn check_attached(&self) -> Result<(), String> {
        if self.view.launcher.has_ended() {
            return Err("this handler has let the launcher go".to_owned());
        }
        Ok(())
    }

    async fn take_domain(&self, event: &DomainEventRequest) -> Result<(), String> {
        self.check_attached()?;
        match self.read_domain(event) {
            Ok(domain) => {
                self.view.take_event(domain).await;
                Ok(())
            }
            Err(reason) => {
                self.view.wish_for_domain();
                Err(reason)
            }
        }
    }

    fn read_domain(&self, event: &DomainEventRequest) -> Result<Option<Domain>, String> {
        match event.event_type.as_str() {
            "ADDED" | "MODIFIED" => self.own_domain(&event.domain_json).map(Some),
            "DELETED" => {
                if !event.domain_json.is_empty() {
                    self.own_domain(&event.domain_json)?;
                }
                Ok(None)
            }
            "ERROR" => {
                let status = String::from_utf8_lossy(&event.status_json);
                Err(format!(
                    "the launcher reports an error: {}",
                    bounded(&status)
                ))
            }
            other => Err(format!("eventType {:?} is not known", bounded(other))),
        }
    }

    fn own_domain(&self, json: &[u8]) -> Result<Domain, String> {
        let domain = Domain::from_json(json).map_err(|error| format!("domainJSON: {error}"))?;
        let domain = domain.ok_or("domainJSON: it is empty")?;
        let launcher = &self.view.launcher;
        match launcher.foreign(&domain) {
            None => Ok(domain),
            Some(found) => Err(format!(
                "domainJSON: the domain is that of {found}, and this pod runs {}",
                launcher.key
            )),
        }
    }

    fn take_event(&self, json: &[u8]) -> Result<(), String> {
        self.check_attached()?;
        if json.len() > EVENT_LEN_MAX_BYTES {
            return Err(format!("eventJSON: more than {EVENT_LEN_MAX_BYTES} bytes"));
        }
        let event: Value =
            serde_json::from_slice(json).map_err(|error| format!("eventJSON: {error}"))?;
        check_event(&event, &self.view.launcher)?;
        if self.view.pass_on(event) {
            Ok(())
        } else {
            Err("too many events wait".to_owned())
        }
    }
}

/// Checks that an event is about the launcher's own instance.
fn check_event(event: &Value, launcher: &Launcher) -> Result<(), String> {
    let text = |path: &str| {
        event
            .pointer(path)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let key = &launcher.key;
    let expected = [
        ("/involvedObject/kind", "VirtualMachineInstance", true),
        ("/involvedObject/name", key.name.as_str(), false),
        ("/involvedObject/namespace", key.namespace.as_str(), false),
        ("/involvedObject/uid", launcher.uid.as_str(), true),
        ("/metadata/namespace", key.namespace.as_str(), true),
    ];
    for (path, expected, may_miss) in expected {
        let found = text(path);
        if found != expected && !(may_miss && found.is_empty()) {
            let found = bounded(found);
            return Err(format!(
                "eventJSON: {path} is {found:?}, and must be {expected:?}"
            ));
        }
    }
    Ok(())
}

#[tonic::async_trait]
impl Notify for Notifications {
    async fn handle_domain_event(
        &self,
        request: Request<DomainEventRequest>,
    ) -> Result<tonic::Response<Response>, Status> {
        let mut pace = self.pace.lock().await;
        pace.wait().await;
        let taken = self.take_domain(request.get_ref()).await;
        Ok(answer(taken, &mut pace, &self.view.launcher))
    }

    async fn handle_k8s_event(
        &self,
        request: Request<K8sEventRequest>,
    ) -> Result<tonic::Response<Response>, Status> {
        let mut pace = self.pace.lock().await;
        pace.wait().await;
        let taken = self.take_event(&request.get_ref().event_json);
        Ok(answer(taken, &mut pace, &self.view.launcher))
    }
}

fn answer(
    taken: Result<(), String>,
    pace: &mut Pace,
    launcher: &Launcher,
) -> tonic::Response<Response> {
    if let Err(reason) = &taken {
        pace.complain(launcher, reason);
    }
    tonic::Response::new(Response {
        success: taken.is_ok(),
        message: taken.err().unwrap_or_default(),
    })
}
