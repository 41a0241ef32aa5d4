//! Webhooks: reads what an answer depends on, has [`crate::admission`] decide, and marks instances whose pods are to
//! be evicted.

use api::kubevirt::{Configuration, KubeVirt};
use api::labels::{DOMAIN, VMI_NAME};
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{MethodRouter, post};
use http::StatusCode;
use jiff::Timestamp;
use serde_json::Value;
use uuid::{Builder, Uuid};

use super::answer::{Refusal, json_response};
use super::objects::{Kind, ObjectName, text};
use super::request::{Desk, bytes};
use crate::admission::{self, ClusterConfig, EvictionPlan, Facts, RequiredFacts};

/// Bytes of a review: two objects as large as API servers store them, and what is around them.
const REVIEW_LEN_MAX_BYTES: usize = 7 << 20;

/// Returns who answers at which path.
pub(super) fn routes() -> Vec<(&'static str, MethodRouter<Desk>)> {
    let answer = |path: &'static str| {
        post(
            move |State(desk): State<Desk>, body: Body| async move { answer(&desk, path, body).await },
        )
    };
    admission::paths()
        .map(|path| (path, answer(path)))
        .collect()
}

async fn answer(desk: &Desk, path: &'static str, body: Body) -> Result<Response, Refusal> {
    let body = bytes(body, REVIEW_LEN_MAX_BYTES).await?;
    let review: Value = serde_json::from_slice(&body).map_err(|error| {
        Refusal::bad_request(format!("the body is no AdmissionReview in JSON: {error}"))
    })?;
    let cluster = cluster(desk, path, &review).await?;
    if path == admission::path::EVICTION_VALIDATE {
        mark(desk, admission::plan_eviction(&review, &cluster)).await?;
    }
    let answer = admission::review(path, &review, &cluster);
    Ok(json_response(StatusCode::OK, &answer))
}

async fn cluster(desk: &Desk, path: &str, review: &Value) -> Result<ClusterConfig, Refusal> {
    let facts = match admission::required_facts(path, review) {
        RequiredFacts::Nothing => Facts::default(),
        RequiredFacts::Presets => presets(desk, review).await?,
        RequiredFacts::Migration => migration(desk, review).await?,
        RequiredFacts::Eviction => eviction(desk, review).await?,
        RequiredFacts::Instance => instance(desk, review).await?,
        RequiredFacts::Installations => Facts {
            installations: desk
                .objects
                .list(Kind::KubeVirt, "", "limit=2")
                .await?
                .len(),
            ..Facts::default()
        },
        RequiredFacts::Workloads => workloads(desk).await?,
    };
    Ok(ClusterConfig {
        namespace: desk.namespace.to_string(),
        configuration: configuration(desk).await?,
        now: Timestamp::now(),
        fresh_ids: [fresh_id()?, fresh_id()?],
        facts,
    })
}

fn fresh_id() -> Result<Uuid, Refusal> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| {
        let message = format!("the host has no random numbers to give: {error}");
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    })?;
    Ok(Builder::from_random_bytes(bytes).into_uuid())
}

/// Reads the configuration of the cluster's one `KubeVirt` resource; all defaults when there is none.
pub(super) async fn configuration(desk: &Desk) -> Result<Configuration, Refusal> {
    let found = desk
        .objects
        .list(Kind::KubeVirt, &desk.namespace, "limit=1")
        .await;
    let found = match found {
        Err(refusal) if refusal.is_not_found() => Vec::new(),
        found => found?,
    };
    let Some(first) = found.into_iter().next() else {
        return Ok(Configuration::default());
    };
    let typed: KubeVirt = serde_json::from_value(first).map_err(|error| {
        let message = format!("the KubeVirt resource cannot be read: {error}");
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    })?;
    Ok(typed.spec.configuration)
}

async fn presets(desk: &Desk, review: &Value) -> Result<Facts, Refusal> {
    let namespace = text(review, "/request/namespace");
    let presets = desk
        .objects
        .list(Kind::Preset, namespace, "limit=500")
        .await;
    Ok(Facts {
        presets: match presets {
            Err(refusal) if refusal.is_not_found() => Vec::new(),
            presets => presets?,
        },
        ..Facts::default()
    })
}

async fn migration(desk: &Desk, review: &Value) -> Result<Facts, Refusal> {
    let namespace = text(review, "/request/namespace");
    let name = text(review, "/request/object/spec/vmiName");
    if name.is_empty() {
        return Ok(Facts::default());
    }
    let instance = ObjectName::new(Kind::Instance, namespace, name);
    let query = format!("labelSelector={}%3D{name}", VMI_NAME.replace('/', "%2F"));
    Ok(Facts {
        instance: desk.objects.find(&instance).await?,
        migrations: desk
            .objects
            .list(Kind::Migration, namespace, &query)
            .await?,
        ..Facts::default()
    })
}

async fn eviction(desk: &Desk, review: &Value) -> Result<Facts, Refusal> {
    let namespace = text(review, "/request/namespace");
    let find = |kind, name: &str| {
        let object = ObjectName::new(kind, namespace, name);
        async move {
            match object.name.as_str() {
                "" => Ok(None),
                _ => desk.objects.find(&object).await,
            }
        }
    };
    let pod = find(Kind::Pod, text(review, "/request/name")).await?;
    let owner = match &pod {
        Some(pod)
            if pod["metadata"]["labels"][api::labels::APP] == api::components::HOTPLUG_DISK =>
        {
            find(Kind::Pod, text(pod, "/metadata/ownerReferences/0/name")).await?
        }
        _ => None,
    };
    let launcher = owner.as_ref().or(pod.as_ref());
    let name = launcher.and_then(|pod| pod["metadata"]["annotations"][DOMAIN].as_str());
    let instance = find(Kind::Instance, name.unwrap_or_default()).await?;
    Ok(Facts {
        pod,
        owner,
        instance,
        ..Facts::default()
    })
}

async fn instance(desk: &Desk, review: &Value) -> Result<Facts, Refusal> {
    let (namespace, name) = (
        text(review, "/request/namespace"),
        text(review, "/request/name"),
    );
    let object = ObjectName::new(Kind::Instance, namespace, name);
    Ok(Facts {
        instance: desk.objects.find(&object).await?,
        ..Facts::default()
    })
}

async fn workloads(desk: &Desk) -> Result<Facts, Refusal> {
    let mut workloads = Vec::new();
    for (kind, name) in [
        (Kind::Machine, "VirtualMachine"),
        (Kind::Instance, "VirtualMachineInstance"),
        (Kind::ReplicaSet, "VirtualMachineInstanceReplicaSet"),
    ] {
        if !desk.objects.list(kind, "", "limit=1").await?.is_empty() {
            workloads.push(name);
        }
    }
    Ok(Facts {
        workloads,
        ..Facts::default()
    })
}

/// Marks an instance to leave its node.
async fn mark(desk: &Desk, plan: EvictionPlan) -> Result<(), Refusal> {
    let EvictionPlan::Mark {
        namespace,
        name,
        patch,
        is_dry,
        ..
    } = plan
    else {
        return Ok(());
    };
    let object = ObjectName::new(Kind::Instance, &namespace, &name);
    match desk.objects.patch(&object, "", &patch, is_dry).await {
        Ok(_) => Ok(()),
        // The evictor tries again.
        Err(refusal) if refusal.is_outdated() => {
            tracing::info!(
                namespace,
                name,
                "instance changed while it was being marked"
            );
            Ok(())
        }
        Err(refusal) => Err(refusal),
    }
}
