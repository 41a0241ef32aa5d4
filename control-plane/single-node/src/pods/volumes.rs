//! Volumes of pods, in the kubelet's folders: `pods/<uid>/volumes/kubernetes.io~<kind>/<name>`.

mod claims;
mod files;
mod folders;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodSpec, Volume};

use super::cluster::{Cluster, ClusterError};
use super::environment::Surroundings;
use super::options::Options;
use crate::sandbox::image::{
    ImageError, ImageRequest, ImageRoot, ImageSource, PullPolicy, PullSecret,
};

/// A volume that is ready to be mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ready {
    /// The folder, file or device on the host.
    pub(crate) path: PathBuf,
    /// Whether it can only be read whatever the container wants.
    pub(crate) is_read_only: bool,
    /// Whether it is a device and no folder.
    pub(crate) is_block: bool,
}

impl Ready {
    fn folder(path: PathBuf) -> Self {
        Self {
            path,
            is_read_only: false,
            is_block: false,
        }
    }
}

/// Why a volume is not ready.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    #[error("MountVolume.SetUp failed for volume {volume:?}: {reason}")]
    Failed { volume: String, reason: String },
    #[error(
        "volume {volume:?}: {kind} volumes are not provided by this node: use emptyDir, configMap, secret, downwardAPI, projected, hostPath, image or persistentVolumeClaim"
    )]
    Unsupported { volume: String, kind: String },
    #[error("volume {volume:?}: {source}")]
    Image { volume: String, source: ImageError },
}

impl VolumeError {
    /// Returns a word for the status or an event.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Image { source, .. } => source.reason(),
            Self::Failed { .. } | Self::Unsupported { .. } => "FailedMount",
        }
    }
}

/// What volumes are made with.
pub(crate) struct Maker<'a> {
    pub(crate) options: &'a Options,
    pub(crate) cluster: &'a Arc<dyn Cluster>,
    pub(crate) images: &'a Arc<dyn ImageSource>,
    pub(crate) secrets: &'a [PullSecret],
    pub(crate) tokens: &'a Tokens,
    pub(crate) pod: &'a Pod,
}

/// Tokens that are good still, by volume and path, with when each is to be renewed.
pub(crate) type Tokens = Mutex<BTreeMap<(String, PathBuf), (String, Timestamp)>>;

impl Maker<'_> {
    pub(crate) fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }

    pub(crate) fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or("default")
    }

    fn around(&self) -> Surroundings<'_> {
        Surroundings {
            node: &self.options.node,
            host_ip: self.options.host_ip.as_deref(),
        }
    }

    fn folder(&self, kind: &str, volume: &str) -> PathBuf {
        volume_dir(&self.options.pod_dir(self.uid()), kind, volume)
    }

    fn fs_group(&self) -> Option<u32> {
        let spec = self.pod.spec.as_ref()?;
        u32::try_from(spec.security_context.as_ref()?.fs_group?).ok()
    }

    /// Makes all volumes of the pod.
    pub(crate) async fn make(&self) -> Result<BTreeMap<String, Ready>, VolumeError> {
        let empty = PodSpec::default();
        let spec = self.pod.spec.as_ref().unwrap_or(&empty);
        let mut ready = BTreeMap::new();
        for volume in spec.volumes.iter().flatten() {
            ready.insert(volume.name.clone(), self.volume(volume).await?);
        }
        Ok(ready)
    }

    /// Writes again what volumes have of objects that change, or of the pod only.
    pub(crate) async fn refresh(&self, only_pod: bool) -> Result<(), VolumeError> {
        let empty = PodSpec::default();
        let spec = self.pod.spec.as_ref().unwrap_or(&empty);
        for volume in spec.volumes.iter().flatten() {
            let of_pod = volume.downward_api.is_some();
            let of_objects = volume.config_map.is_some()
                || volume.secret.is_some()
                || volume.projected.is_some();
            if of_pod || (of_objects && !only_pod) {
                self.files(volume).await?;
            }
        }
        Ok(())
    }

    async fn volume(&self, volume: &Volume) -> Result<Ready, VolumeError> {
        let failed = |error: io::Error| self.failed(volume, &error.to_string());
        if let Some(wanted) = &volume.empty_dir {
            let folder = self.folder("empty-dir", &volume.name);
            let (made, wanted, group) = (folder.clone(), wanted.clone(), self.fs_group());
            on_disk(move || folders::empty_dir(&made, &wanted, group))
                .await
                .map_err(failed)?;
            return Ok(Ready::folder(folder));
        }
        if let Some(wanted) = &volume.host_path {
            let (path, kind) = (
                PathBuf::from(&wanted.path),
                wanted.type_.clone().unwrap_or_default(),
            );
            let made = path.clone();
            let is_block = on_disk(move || folders::host_path(&made, &kind))
                .await
                .map_err(failed)?;
            return Ok(Ready {
                path,
                is_read_only: false,
                is_block,
            });
        }
        if volume.config_map.is_some()
            || volume.secret.is_some()
            || volume.projected.is_some()
            || volume.downward_api.is_some()
        {
            return Ok(Ready {
                is_read_only: true,
                ..Ready::folder(self.files(volume).await?)
            });
        }
        if let Some(claim) = &volume.persistent_volume_claim {
            return self
                .claim(volume, &claim.claim_name, claim.read_only == Some(true))
                .await;
        }
        if volume.ephemeral.is_some() {
            let pod = self.pod.metadata.name.as_deref().unwrap_or_default();
            return self
                .claim(volume, &format!("{pod}-{}", volume.name), false)
                .await;
        }
        if let Some(image) = &volume.image {
            let reference = image.reference.as_deref().unwrap_or_default();
            return self
                .image(volume, reference, image.pull_policy.as_deref())
                .await;
        }
        Err(VolumeError::Unsupported {
            volume: volume.name.clone(),
            kind: kind_of(volume),
        })
    }

    fn failed(&self, volume: &Volume, reason: &str) -> VolumeError {
        VolumeError::Failed {
            volume: volume.name.clone(),
            reason: reason.to_owned(),
        }
    }

    fn unread(&self, volume: &Volume) -> impl Fn(ClusterError) -> VolumeError {
        let volume = volume.name.clone();
        move |error| VolumeError::Failed {
            volume: volume.clone(),
            reason: error.to_string(),
        }
    }

    async fn image(
        &self,
        volume: &Volume,
        reference: &str,
        pull: Option<&str>,
    ) -> Result<Ready, VolumeError> {
        let request = ImageRequest {
            reference,
            pull: pull_policy(pull, reference),
            secrets: self.secrets,
        };
        let resolved = self.images.resolve(request).await;
        let image = resolved.map_err(|source| VolumeError::Image {
            volume: volume.name.clone(),
            source,
        })?;
        match image.root {
            ImageRoot::Folder(path) => Ok(Ready {
                is_read_only: true,
                ..Ready::folder(path)
            }),
            ImageRoot::Host(_) => Err(self.failed(volume, "the built-in image is no volume")),
        }
    }
}

/// Returns the policy that a reference has without one: what is tagged `latest` is fetched always.
pub(crate) fn pull_policy(policy: Option<&str>, reference: &str) -> PullPolicy {
    match policy {
        Some("Always") => PullPolicy::Always,
        Some("Never") => PullPolicy::Never,
        Some(_) => PullPolicy::IfNotPresent,
        None => {
            let name = reference.rsplit('/').next().unwrap_or_default();
            let is_latest =
                !name.contains('@') && name.split_once(':').is_none_or(|(_, tag)| tag == "latest");
            if is_latest {
                PullPolicy::Always
            } else {
                PullPolicy::IfNotPresent
            }
        }
    }
}

fn kind_of(volume: &Volume) -> String {
    let fields = serde_json::to_value(volume).unwrap_or_default();
    let mut names = fields
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name);
    names
        .find(|name| *name != "name")
        .cloned()
        .unwrap_or_else(|| "unnamed".to_owned())
}

/// Returns a volume's folder in a pod's.
pub(crate) fn volume_dir(pod_dir: &Path, kind: &str, volume: &str) -> PathBuf {
    pod_dir
        .join("volumes")
        .join(format!("kubernetes.io~{kind}"))
        .join(volume)
}

/// Does what blocks.
pub(crate) async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(io::Error::other("the work was given up")))
}
