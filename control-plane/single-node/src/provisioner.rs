//! The built-in storage class: a claim becomes a folder of this node.
//!
//! It also does what a cluster's volume controller does: binds claims to volumes that somebody made, protects claims that
//! pods use, and removes or keeps volumes whose claim is gone.

mod plan;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use self::plan::{Action, plan};
use apiserver::objects::{Objects, Refused};
use apiserver::ticks::Ticks;

/// Name of the class, and of who provisions it.
pub const CLASS: &str = "ferrovirt-local";
/// Provisioner of the class.
pub const PROVISIONER: &str = "ferrovirt.io/local";
/// Resources that decide. Pods change more often than all others, and decide only while a claim is being deleted.
const RESOURCES: [&str; 4] = [
    "persistentvolumeclaims",
    "persistentvolumes",
    "storageclasses.storage.k8s.io",
    "pods",
];

/// Looks after claims and volumes until it is told to stop.
pub async fn run(
    objects: Objects,
    mut ticks: Ticks,
    folder: PathBuf,
    node: String,
    stop: CancellationToken,
) {
    let [claims, volumes, classes, pods] = RESOURCES;
    let followed = |with_pods: bool| &RESOURCES[..RESOURCES.len() - usize::from(!with_pods)];
    let mut follows_pods = false;
    ticks.follow(followed(follows_pods));
    // A claim is told once why it waits.
    let mut told = BTreeMap::new();
    loop {
        let [claims, volumes, classes] = [claims, volumes, classes].map(|it| objects.list(it));
        let needs_pods = claims.iter().any(plan::is_going);
        if needs_pods != follows_pods {
            follows_pods = needs_pods;
            ticks.follow(followed(follows_pods));
            // Changes between the look and now would be missed.
            continue;
        }
        let pods = if needs_pods {
            objects.list(pods)
        } else {
            Vec::new()
        };
        for action in plan(&claims, &volumes, &pods, &classes) {
            let name = format!("{action:?}");
            if let Err(error) = act(&objects, &folder, &node, action, &mut told).await {
                warn!(
                    action = name,
                    error, "cannot look after a volume; will try again with the next change"
                );
            }
        }
        if stop.run_until_cancelled(ticks.next()).await.is_none() {
            return;
        }
    }
}

async fn act(
    objects: &Objects,
    folder: &Path,
    node: &str,
    action: Action,
    told: &mut BTreeMap<String, String>,
) -> Result<(), String> {
    let text = |refused: Refused| refused.message;
    match action {
        Action::Protect { claim, finalizers } => {
            objects
                .merge(&claim, &json!({"metadata": {"finalizers": finalizers}}))
                .await
                .map_err(text)?;
        }
        Action::Make { claim, name } => {
            let path = folder.join(&name);
            let made = path.clone();
            let done = spawn_blocking(move || make(&made)).await;
            done.map_err(|error| error.to_string())?
                .map_err(|error| format!("make {}: {error}", path.display()))?;
            let volume = plan::volume(&claim, &name, &path.to_string_lossy(), node);
            match objects.create("/api/v1/persistentvolumes", &volume).await {
                Err(refused) if refused.code != 409 => return Err(refused.message),
                _ => info!(volume = name, "made a volume"),
            }
        }
        Action::Bind {
            claim,
            volume,
            class,
        } => bind(objects, &claim, &volume, &class).await.map_err(text)?,
        Action::Release { volume } => {
            let path = format!("/api/v1/persistentvolumes/{volume}/status");
            objects
                .merge(&path, &json!({"status": {"phase": "Released"}}))
                .await
                .map_err(text)?;
        }
        Action::Remove { volume, path } => {
            remove(folder, path).await?;
            objects
                .delete(&format!("/api/v1/persistentvolumes/{volume}"))
                .await
                .map_err(text)?;
            info!(volume, "removed a volume whose claim is gone");
        }
        Action::Tell { claim, uid, reason } => {
            if told.get(&uid) != Some(&reason) {
                told.insert(uid, reason.clone());
                tell(objects, &claim, &reason).await.map_err(text)?;
            }
        }
    }
    Ok(())
}

fn make(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir_all(path)?;
    // Whoever the pod runs as must be able to write; the folder above lets nobody else in.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777))
}

/// Removes a volume's folder, if it is one of ours.
async fn remove(folder: &Path, path: PathBuf) -> Result<(), String> {
    if path.parent() != Some(folder) {
        return Ok(());
    }
    let removed = spawn_blocking(move || match std::fs::remove_dir_all(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("remove {}: {error}", path.display()))
        }
        _ => Ok(()),
    });
    removed.await.map_err(|error| error.to_string())?
}

async fn bind(
    objects: &Objects,
    claim: &Value,
    volume: &Value,
    class: &str,
) -> Result<(), Refused> {
    let (claim_path, volume_name) = (plan::claim_path(claim), plan::name(volume));
    let volume_path = format!("/api/v1/persistentvolumes/{volume_name}");
    let reference = json!({"spec": {"claimRef": plan::reference(claim)}});
    objects.merge(&volume_path, &reference).await?;
    let bound = json!({"status": {"phase": "Bound"}});
    objects
        .merge(&format!("{volume_path}/status"), &bound)
        .await?;
    objects
        .merge(
            &claim_path,
            &json!({"spec": {"volumeName": volume_name, "storageClassName": class}}),
        )
        .await?;
    let status = json!({"status": {
        "phase": "Bound",
        "capacity": volume["spec"]["capacity"],
        "accessModes": volume["spec"]["accessModes"],
    }});
    objects
        .merge(&format!("{claim_path}/status"), &status)
        .await?;
    Ok(())
}

async fn tell(objects: &Objects, claim: &Value, reason: &str) -> Result<(), Refused> {
    let namespace = claim["metadata"]["namespace"].as_str().unwrap_or("default");
    let now = jiff::Timestamp::now()
        .strftime("%Y-%m-%dT%H:%M:%SZ")
        .to_string();
    let event = json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": {"generateName": format!("{}.", plan::name(claim)), "namespace": namespace},
        "involvedObject": {
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": namespace,
            "name": claim["metadata"]["name"], "uid": claim["metadata"]["uid"],
        },
        "reason": "ProvisioningFailed", "message": reason, "type": "Warning", "count": 1,
        "firstTimestamp": now, "lastTimestamp": now, "source": {"component": PROVISIONER},
    });
    objects
        .create(&format!("/api/v1/namespaces/{namespace}/events"), &event)
        .await?;
    Ok(())
}
