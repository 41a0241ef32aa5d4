//! What decisions are made from: the cache, and what only the API server can tell.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use api::Vmi;
use api::status::Phase;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;
use tracing::{info, warn};

use super::Work;
use crate::controller::actions::Action;
use crate::controller::api_server::ApiError;
use crate::controller::cache::uid;
use crate::controller::change::{has_finalizer, is_deleted, text};
use crate::controller::instance::{self, Past};
use crate::controller::key::{Key, Kind};
use crate::controller::pod::{self, Attachments, Claims};
use crate::controller::{evacuation, machine, migration, node, replica_set, watch};

/// Annotation of a network's definition with the resource that its pods need (Multus).
const NETWORK_RESOURCE: &str = "k8s.v1.cni.cncf.io/resourceName";

/// How long it is remembered whether the cluster makes data volumes.
const IMPORTER: Duration = Duration::from_secs(60);

impl Work {
    pub(super) async fn plan_instance(
        &self,
        key: &Key,
        now: Timestamp,
    ) -> Result<Vec<Action>, ApiError> {
        let config = self.config();
        let orphans = self.orphaned_pods(key).await?;
        let Some(raw) = self.cache.get(key) else {
            self.pasts().remove(key);
            return Ok(orphans);
        };
        if !orphans.is_empty() {
            return Ok(orphans);
        }
        if self.is_orphan(key, &raw).await? {
            info!(object = %key, "deleted: its virtual machine is gone");
            return Ok(Action::delete(Kind::Instance, &raw).into_iter().collect());
        }
        let vmi = match Vmi::deserialize(raw.as_ref()) {
            Ok(vmi) => vmi,
            Err(error) => {
                warn!(object = %key, %error, "cannot be read; left alone");
                return Ok(Vec::new());
            }
        };
        let pods = self.cache.owned(Kind::Pod, uid(&raw));
        let claims = self.claims(key, instance::claim_names(&vmi));
        let attachments = self.attachments(&vmi, &pods).await?;
        let past = self.past(key, now, instance::has_live(&pods));
        let on = Key::new(Kind::Node, "", vmi.status.node_name.clone());
        let node = self.cache.get(&on);
        let is_placed = !on.name.is_empty();
        let observed = instance::Observed {
            raw: &raw,
            vmi: &vmi,
            pods: &pods,
            claims: &claims,
            attachments: &attachments,
            node_is_dead: is_placed && node::is_dead(node.as_deref(), now),
            past: &past,
        };
        let mut actions = instance::plan(now, &observed, &config);
        if actions.is_empty() {
            let observed = evacuation::Observed {
                instance: &raw,
                node: node.as_deref(),
                migrations: &self.cache.all(Kind::Migration),
            };
            actions = evacuation::plan(now, &observed, &config);
        }
        Ok(actions)
    }

    /// Pods of the instance's name that no instance owns. The API server has the last word: the cache may be behind.
    async fn orphaned_pods(&self, key: &Key) -> Result<Vec<Action>, ApiError> {
        let known = self.cache.get(key);
        let known = known.as_deref().map(uid).unwrap_or_default();
        let all = self.cache.of_owner_name(Kind::Pod, key);
        let strangers = all.into_iter().filter(|pod| !is_deleted(pod));
        let strangers: Vec<Arc<Value>> = strangers
            .filter(|pod| watch::owner_uid(pod).is_some_and(|owner| owner != known))
            .collect();
        if strangers.is_empty() {
            return Ok(Vec::new());
        }
        let now = self.server.get(key).await?;
        let now = now.as_ref().map(uid).unwrap_or_default();
        let orphans = strangers
            .iter()
            .filter(|pod| watch::owner_uid(pod) != Some(now));
        Ok(orphans
            .filter_map(|pod| Action::delete(Kind::Pod, pod))
            .collect())
    }

    /// Whether an instance's virtual machine is gone for certain.
    async fn is_orphan(&self, key: &Key, raw: &Value) -> Result<bool, ApiError> {
        let Some((Kind::Machine, name)) = watch::owner(raw) else {
            return Ok(false);
        };
        if is_deleted(raw) {
            return Ok(false);
        }
        let owner = key.sibling(Kind::Machine, name);
        let wanted = watch::owner_uid(raw).unwrap_or_default();
        let known = self.cache.get(&owner);
        if known.is_some_and(|known| uid(&known) == wanted) {
            return Ok(false);
        }
        let found = self.server.get(&owner).await?;
        Ok(found.is_none_or(|found| uid(&found) != wanted))
    }

    fn claims(&self, key: &Key, names: Vec<String>) -> Claims {
        let found = names.into_iter().filter_map(|name| {
            let claim = self.cache.get(&key.sibling(Kind::Claim, &name))?;
            Some((name, claim))
        });
        found.collect()
    }

    /// Reads the definitions of an instance's networks, which matter while its pod is to be made.
    async fn attachments(&self, vmi: &Vmi, pods: &[Arc<Value>]) -> Result<Attachments, ApiError> {
        let mut found = Attachments::new();
        if !pods.is_empty() || !matches!(vmi.status.phase, Phase::Unset | Phase::Pending) {
            return Ok(found);
        }
        for (namespace, name) in pod::definitions(vmi) {
            let key = Key::new(Kind::NetworkAttachment, &namespace, &name);
            if let Some(definition) = self.server.get(&key).await? {
                let annotations = definition.pointer("/metadata/annotations");
                let resource = annotations.and_then(|all| all.get(NETWORK_RESOURCE)?.as_str());
                found.insert((namespace, name), resource.unwrap_or_default().to_owned());
            }
        }
        Ok(found)
    }

    /// Returns what is remembered of an instance, and remembers since when it has no live pod.
    fn past(&self, key: &Key, now: Timestamp, has_pods: bool) -> Past {
        let mut pasts = self.pasts();
        let past = pasts.entry(key.clone()).or_default();
        if has_pods {
            *past = Past::default();
        } else {
            past.podless_since.get_or_insert(now);
        }
        past.clone()
    }

    /// Returns why something could not be made; it is forgotten once it was.
    fn trouble(&self, key: &Key, is_over: bool) -> Option<String> {
        let mut pasts = self.pasts();
        if is_over {
            pasts.remove(key);
        }
        pasts.get(key)?.trouble.clone()
    }

    pub(super) async fn plan_machine(
        &self,
        key: &Key,
        now: Timestamp,
    ) -> Result<Vec<Action>, ApiError> {
        let Some(raw) = self.cache.get(key) else {
            self.pasts().remove(key);
            self.cache.forget_owned(Kind::Revision, key);
            return Ok(Vec::new());
        };
        let instance = self.cache.get(&key.sibling(Kind::Instance, &key.name));
        let own = instance
            .as_deref()
            .filter(|instance| machine::belongs(instance, &raw));
        let started_from = match own.and_then(|own| machine::revision_name(&raw, own)) {
            Some(name) if !is_deleted(&raw) => self.revision(key, &name).await?,
            _ => None,
        };
        let claims = self.claims(key, machine::claim_names(&raw));
        let has_templates = raw
            .pointer("/spec/dataVolumeTemplates")
            .and_then(Value::as_array)
            .is_some_and(|templates| !templates.is_empty());
        let has_importer = has_templates && self.has_importer().await?;
        let trouble = self.trouble(key, own.is_some());
        let observed = machine::Observed {
            raw: &raw,
            instance: instance.as_deref(),
            claims: &claims,
            started_from,
            has_importer,
            trouble: trouble.as_deref(),
        };
        Ok(machine::plan(now, &observed, &self.config()))
    }

    async fn revision(&self, key: &Key, name: &str) -> Result<Option<Arc<Value>>, ApiError> {
        let key = key.sibling(Kind::Revision, name);
        if let Some(known) = self.cache.get(&key) {
            return Ok(Some(known));
        }
        let found = self.server.get(&key).await?;
        Ok(found.and_then(|found| {
            self.cache.put(Kind::Revision, found);
            self.cache.get(&key)
        }))
    }

    /// Whether the cluster makes data volumes.
    async fn has_importer(&self) -> Result<bool, ApiError> {
        let known = *self.importer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, answer)) = known.filter(|(asked, _)| asked.elapsed() < IMPORTER) {
            return Ok(answer);
        }
        let answer = self.server.serves(Kind::DataVolume).await?;
        let asked = Some((Instant::now(), answer));
        *self.importer.lock().unwrap_or_else(PoisonError::into_inner) = asked;
        Ok(answer)
    }

    pub(super) fn plan_replica_set(&self, key: &Key, now: Timestamp) -> Vec<Action> {
        let Some(raw) = self.cache.get(key) else {
            self.pasts().remove(key);
            return Vec::new();
        };
        let instances = self.cache.owned(Kind::Instance, uid(&raw));
        let wanted = raw.pointer("/spec/replicas").and_then(Value::as_u64);
        let has_all = usize::try_from(wanted.unwrap_or(1)).is_ok_and(|n| n <= instances.len());
        let trouble = self.trouble(key, has_all);
        let observed = replica_set::Observed {
            raw: &raw,
            instances: &instances,
            trouble: trouble.as_deref(),
        };
        replica_set::plan(now, &observed)
    }

    pub(super) fn plan_migration(&self, key: &Key, now: Timestamp) -> Vec<Action> {
        let Some(raw) = self.cache.get(key) else {
            return Vec::new();
        };
        let of = key.sibling(Kind::Instance, text(&raw, "/spec/vmiName"));
        let instance = self.cache.get(&of);
        let mut siblings = self.cache.all(Kind::Migration);
        siblings.retain(|other| evacuation::is_of(other, &of));
        let observed = migration::Observed {
            raw: &raw,
            instance: instance.as_deref(),
            siblings: &siblings,
        };
        let waits = is_deleted(&raw) && !has_finalizer(&raw, api::labels::MIGRATION_FINALIZER);
        if waits {
            return Vec::new();
        }
        migration::plan(now, &observed)
    }

    pub(super) fn plan_node(&self, key: &Key, now: Timestamp) -> Vec<Action> {
        let raw = self.cache.get(key);
        let mut instances = self.cache.all(Kind::Instance);
        instances.retain(|instance| text(instance, "/status/nodeName") == key.name);
        let observed = node::Observed {
            name: &key.name,
            raw: raw.as_deref(),
            instances: &instances,
        };
        node::plan(now, &observed)
    }
}
