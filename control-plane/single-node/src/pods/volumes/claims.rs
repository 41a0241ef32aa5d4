//! Volumes that outlive pods: claims, and what they are bound to.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{PersistentVolumeSpec, Volume};

use super::{Maker, Ready, VolumeError, folders, on_disk};

impl Maker<'_> {
    /// Returns what a claim is bound to.
    pub(super) async fn claim(
        &self,
        volume: &Volume,
        name: &str,
        is_read_only: bool,
    ) -> Result<Ready, VolumeError> {
        let claim = self
            .cluster
            .claim(self.namespace(), name)
            .await
            .map_err(self.unread(volume))?;
        let claim = claim.ok_or_else(|| {
            self.failed(
                volume,
                &format!("persistentvolumeclaim \"{name}\" not found"),
            )
        })?;
        let bound = claim
            .spec
            .as_ref()
            .and_then(|spec| spec.volume_name.clone())
            .filter(|name| !name.is_empty());
        let is_bound = claim
            .status
            .as_ref()
            .is_some_and(|status| status.phase.as_deref() == Some("Bound"));
        let bound = bound.filter(|_| is_bound).ok_or_else(|| {
            self.failed(
                volume,
                &format!("persistentvolumeclaim \"{name}\" is not bound yet"),
            )
        })?;
        let found = self
            .cluster
            .volume(&bound)
            .await
            .map_err(self.unread(volume))?;
        let spec = found.and_then(|found| found.spec).ok_or_else(|| {
            self.failed(volume, &format!("persistentvolume \"{bound}\" not found"))
        })?;
        self.bound(volume, &bound, &spec, is_read_only).await
    }

    async fn bound(
        &self,
        volume: &Volume,
        name: &str,
        spec: &PersistentVolumeSpec,
        is_read_only: bool,
    ) -> Result<Ready, VolumeError> {
        let failed = |error: std::io::Error| {
            self.failed(volume, &format!("persistentvolume \"{name}\": {error}"))
        };
        let (path, kind) = match (&spec.host_path, &spec.local) {
            (Some(host), _) => (
                PathBuf::from(&host.path),
                host.type_.clone().unwrap_or_default(),
            ),
            (None, Some(local)) => (PathBuf::from(&local.path), String::new()),
            (None, None) => {
                let reason = format!(
                    "persistentvolume \"{name}\" is neither hostPath nor local, and this node mounts no others"
                );
                return Err(self.failed(volume, &reason));
            }
        };
        let checked = path.clone();
        on_disk(move || folders::host_path(&checked, &kind))
            .await
            .map_err(failed)?;
        let is_block = spec.volume_mode.as_deref() == Some("Block");
        if is_block && !fs::metadata(&path).is_ok_and(|found| found.file_type().is_block_device()) {
            let reason = format!(
                "persistentvolume \"{name}\" has volumeMode Block, but {} is no block device: give it one (a file can be made one with losetup), or use volumeMode Filesystem",
                path.display()
            );
            return Err(self.failed(volume, &reason));
        }
        Ok(Ready {
            path,
            is_read_only,
            is_block,
        })
    }
}
