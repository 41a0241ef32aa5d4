//! What there is of an instance: the object, the launcher, the machine.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use api::Vmi;
use api::error_chain::chain;
use api::labels;
use api::status::Phase;
use jiff::Timestamp;
use proto::domain::Domain;
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::{debug, error};

use super::Controller;
use super::memory::{Record, Told};
use crate::cluster::WriteError;
use crate::key::VmiKey;
use crate::launchers::{AttachError, Launcher, VmiIdentity};
use crate::plan::{DomainView, Instance, LauncherView};
use crate::store::Stored;

/// How often a guest agent is asked what it can do.
const AGENT_ASKED: Duration = Duration::from_secs(300);

/// What there is of an instance.
#[derive(Debug)]
pub(super) struct Sight {
    /// Uid of the instance that the work is for: the object's, or the launcher's when there is no such object.
    pub(super) uid: String,
    /// The object.
    pub(super) object: Object,
    /// The launcher.
    pub(super) launcher: LauncherSight,
    /// Its machine.
    pub(super) domain: DomainSight,
    /// Stands for all that a Sync would bring to the machine.
    pub(super) digest: u64,
    /// Why the API server could not be asked.
    pub(super) error: Option<WriteError>,
}

/// The object of an instance.
#[derive(Debug)]
pub(super) enum Object {
    Unsure,
    Elsewhere,
    Gone,
    Here(Stored, Arc<Vmi>),
}

/// The launcher of an instance.
#[derive(Debug)]
pub(super) enum LauncherSight {
    None,
    NotYet,
    Trouble(String),
    Attached(Launcher),
    Lost(String),
}

/// The machine of an instance.
#[derive(Debug)]
pub(super) enum DomainSight {
    Unknown,
    Absent,
    Known(Arc<Domain>),
}

impl Sight {
    pub(super) fn instance(&self) -> Instance<'_> {
        match &self.object {
            Object::Unsure => Instance::Unsure,
            Object::Elsewhere => Instance::Elsewhere,
            Object::Gone => Instance::Gone,
            Object::Here(_, vmi) => Instance::Here(vmi),
        }
    }

    pub(super) fn is_gone(&self) -> bool {
        matches!(self.object, Object::Gone)
    }

    pub(super) fn launcher_view(&self) -> LauncherView<'_> {
        match &self.launcher {
            LauncherSight::None => LauncherView::None,
            LauncherSight::NotYet => LauncherView::NotYet,
            LauncherSight::Trouble(why) => LauncherView::Trouble(why),
            LauncherSight::Attached(launcher) => LauncherView::Attached {
                uid: &launcher.uid,
                pod_uid: &launcher.pod_uid,
            },
            LauncherSight::Lost(why) => LauncherView::Lost(why),
        }
    }

    pub(super) fn domain_view(&self) -> DomainView<'_> {
        match &self.domain {
            DomainSight::Unknown => DomainView::Unknown,
            DomainSight::Absent => DomainView::Absent,
            DomainSight::Known(domain) => DomainView::Known(domain),
        }
    }

    /// Returns the launcher that can be asked.
    pub(super) fn attached(&self) -> Option<&Launcher> {
        match &self.launcher {
            LauncherSight::Attached(launcher) => Some(launcher),
            LauncherSight::None
            | LauncherSight::NotYet
            | LauncherSight::Trouble(_)
            | LauncherSight::Lost(_) => None,
        }
    }

    /// Returns the instance as launchers are told of it; of one that is gone, what names it.
    pub(super) fn json(&self, key: &VmiKey) -> Vec<u8> {
        match &self.object {
            Object::Here(stored, _) => stored.raw.json().to_vec(),
            Object::Unsure | Object::Elsewhere | Object::Gone => json!({
                "apiVersion": api::manifest::API_VERSION,
                "kind": "VirtualMachineInstance",
                "metadata": { "name": key.name, "namespace": key.namespace, "uid": self.uid },
            })
            .to_string()
            .into_bytes(),
        }
    }
}

impl Controller {
    /// Looks at an instance.
    pub(super) async fn observe(&self, key: &VmiKey, record: &mut Record) -> Sight {
        let known = self.parts.launchers.get(key);
        let (object, error) = self.object(key, known.as_ref()).await;
        let object_uid = match &object {
            Object::Here(_, vmi) => Some(vmi.metadata.uid.clone()),
            Object::Unsure | Object::Elsewhere | Object::Gone => None,
        };
        let told = self.memory.told(key);
        // What an earlier instance of the same name left comes first.
        let left = known.as_ref().map(|launcher| launcher.uid.clone());
        let left = left.filter(|uid| Some(uid) != object_uid.as_ref());
        let told_uid = told.as_ref().map(|told| told.uid.clone());
        let uid = left.clone().or(object_uid).or(told_uid).unwrap_or_default();
        let told = told.filter(|told| told.uid == uid);
        let object = match object {
            Object::Here(..) if left.is_some() => Object::Gone,
            object => object,
        };
        let launcher = self.launcher(key, &object, known, told.as_ref()).await;
        let domain = self.domain(key, &uid, &launcher, told).await;
        let sight = Sight {
            digest: self.digest(&object),
            uid,
            object,
            launcher,
            domain,
            error,
        };
        self.ask_agent(&sight, record).await;
        sight
    }

    async fn object(&self, key: &VmiKey, known: Option<&Launcher>) -> (Object, Option<WriteError>) {
        match self.parts.store.get(key) {
            Some(stored) => (here(stored), None),
            None if !self.parts.store.is_complete() => (Object::Unsure, None),
            // Before a machine is ended for it, the API server is asked itself: the watch selects by a label.
            None => match known {
                Some(launcher) => self.ask_for_object(key, launcher).await,
                None => (Object::Gone, None),
            },
        }
    }

    async fn ask_for_object(
        &self,
        key: &VmiKey,
        launcher: &Launcher,
    ) -> (Object, Option<WriteError>) {
        match self.parts.instances.get(key).await {
            Ok(Some(raw)) => {
                let is_ours = self.is_ours(&raw);
                let stored = Stored::new(raw);
                if stored.uid() != launcher.uid {
                    (Object::Gone, None)
                } else if is_ours {
                    self.parts.store.put(stored.clone());
                    (here(stored), None)
                } else {
                    (Object::Elsewhere, None)
                }
            }
            Ok(None) => (Object::Gone, None),
            Err(error) => (Object::Unsure, Some(error)),
        }
    }

    /// Whether an instance has the label of this node.
    pub(super) fn is_ours(&self, raw: &Value) -> bool {
        let labels = raw.pointer("/metadata/labels");
        let node = labels.and_then(|labels| labels.get(labels::NODE_NAME)?.as_str());
        node == Some(&self.parts.node)
    }

    async fn launcher(
        &self,
        key: &VmiKey,
        object: &Object,
        known: Option<Launcher>,
        told: Option<&Told>,
    ) -> LauncherSight {
        if let Some(why) = told.and_then(|told| told.lost.as_ref()) {
            return LauncherSight::Lost(why.clone());
        }
        if let Some(launcher) = known {
            return LauncherSight::Attached(launcher);
        }
        let Object::Here(_, vmi) = object else {
            return LauncherSight::None;
        };
        if !matches!(vmi.status.phase, Phase::Scheduled | Phase::Running) {
            return LauncherSight::None;
        }
        match self.parts.launchers.attach(&self.identity(key, vmi)).await {
            Ok(launcher) => LauncherSight::Attached(launcher),
            Err(AttachError::NotYet(_)) => LauncherSight::NotYet,
            Err(AttachError::Lost { reason, .. }) => LauncherSight::Lost(reason),
            Err(error) => LauncherSight::Trouble(chain(&error)),
        }
    }

    fn identity(&self, key: &VmiKey, vmi: &Vmi) -> VmiIdentity {
        let pods = vmi.status.active_pods.iter();
        let here = pods.filter(|(_, node)| **node == self.parts.node);
        VmiIdentity {
            key: key.clone(),
            uid: vmi.metadata.uid.clone(),
            pod_uids: here.map(|(uid, _)| uid.clone()).collect(),
        }
    }

    async fn domain(
        &self,
        key: &VmiKey,
        uid: &str,
        launcher: &LauncherSight,
        told: Option<Told>,
    ) -> DomainSight {
        let latest = self
            .parts
            .launchers
            .get(key)
            .filter(|launcher| launcher.uid == uid);
        let latest = latest.and_then(|_| self.parts.launchers.domain(key));
        if let Some(domain) = latest.or_else(|| told?.domain) {
            return DomainSight::Known(domain);
        }
        let LauncherSight::Attached(launcher) = launcher else {
            return DomainSight::Unknown;
        };
        match launcher.domain().await {
            Ok(Some(domain)) => DomainSight::Known(Arc::new(domain)),
            Ok(None) => DomainSight::Absent,
            Err(error) => {
                debug!(error = chain(&error), "cannot ask for the machine");
                DomainSight::Unknown
            }
        }
    }

    /// Returns the domain of an instance as the launchers have it.
    pub(super) fn latest_domain(&self, key: &VmiKey, uid: &str) -> Option<Arc<Domain>> {
        let domain = self.parts.launchers.domain(key)?;
        // Of two instances of one name, the domain says whose it is.
        let whose = [&domain.meta.uid, &domain.spec.metadata.kubevirt.uid];
        let is_of_uid = whose.iter().all(|named| named.is_empty() || *named == uid);
        is_of_uid.then_some(domain)
    }

    /// Returns a number that stands for all that a Sync would bring to the machine.
    fn digest(&self, object: &Object) -> u64 {
        let Object::Here(stored, _) = object else {
            return 0;
        };
        let mut hasher = DefaultHasher::new();
        stored.wish.hash(&mut hasher);
        self.parts.cluster.borrow().revision.hash(&mut hasher);
        hasher.finish()
    }

    /// Asks the guest agent what it can do, when it has just come or it is time.
    async fn ask_agent(&self, sight: &Sight, record: &mut Record) {
        let DomainSight::Known(domain) = &sight.domain else {
            return;
        };
        if !domain.agent_connected() {
            record.agent = None;
            return;
        }
        let Some(launcher) = sight.attached() else {
            return;
        };
        let now = Timestamp::now();
        if record
            .agent
            .as_ref()
            .is_some_and(|(asked, _)| now < *asked + AGENT_ASKED)
        {
            return;
        }
        let info = match launcher.guest_info().await {
            Ok(info) => api::guest_agent::GuestAgentInfo::deserialize(info).ok(),
            Err(error) => {
                debug!(error = chain(&error), "cannot ask the guest agent");
                None
            }
        };
        record.agent = Some((now, info));
    }
}

fn here(stored: Stored) -> Object {
    match stored.vmi.clone() {
        Ok(vmi) => Object::Here(stored, vmi),
        Err(error) => {
            error!(
                error,
                "cannot read the instance; its machine is left as it is"
            );
            Object::Unsure
        }
    }
}
