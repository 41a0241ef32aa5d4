//! Steps that are taken on the node itself. They block, so they have threads of their own.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use api::Vmi;
use api::error_chain::chain;
use tokio::task::spawn_blocking;
use tracing::warn;

use super::Controller;
use super::memory::Record;
use super::observe::{DomainSight, Object, Sight};
use crate::config::HostPaths;
use crate::key::VmiKey;
use crate::launchers::Launcher;
use crate::mounts::{self, Mounted};
use crate::plan::{Machine, Outcome};
use crate::{cgroup, cleanup, ownership};

/// Flag of a launcher whose container disks the kubelet mounts.
const IMAGE_VOLUME: &str = "--image-volume";
/// Most bytes of a command line that are read.
const COMMAND_LINE_LEN_MAX: u64 = 64 * 1024;

impl Controller {
    /// Mounts container disks into the pod, unless the kubelet did.
    pub(super) async fn mount_disks(&self, sight: &Sight, launcher: &Launcher) -> Outcome {
        let (memory, uid) = (Arc::clone(&self.memory), sight.uid.clone());
        let mounted = self.blocking(sight, launcher, move |paths, vmi, launcher| {
            if has_image_volumes(paths, launcher) {
                return Ok(Outcome::Done);
            }
            Ok(match mounts::mount_container_disks(paths, vmi, launcher)? {
                Mounted::Ready { checksums } => {
                    memory.add_checksums(&uid, checksums);
                    Outcome::Done
                }
                Mounted::Waiting { volume } => {
                    Outcome::Waiting(format!("the container of volume {volume}"))
                }
            })
        });
        mounted.await
    }

    /// Gives devices and disks to the launcher's user, and lets it use them.
    pub(super) async fn give_ownership(&self, sight: &Sight, launcher: &Launcher) -> Outcome {
        let given = self.blocking(sight, launcher, |paths, vmi, launcher| {
            ownership::give_to_launcher(paths, vmi, launcher)?;
            cgroup::allow_present(paths, vmi, launcher)?;
            Ok(Outcome::Done)
        });
        given.await
    }

    async fn blocking(
        &self,
        sight: &Sight,
        launcher: &Launcher,
        work: impl FnOnce(&HostPaths, &Vmi, &Launcher) -> Result<Outcome, Box<dyn std::error::Error>>
        + Send
        + 'static,
    ) -> Outcome {
        let Object::Here(_, vmi) = &sight.object else {
            return Outcome::Done;
        };
        let (paths, vmi) = (self.parts.paths.clone(), Arc::clone(vmi));
        let launcher = launcher.clone();
        let done = spawn_blocking(move || {
            work(&paths, &vmi, &launcher)
                .unwrap_or_else(|error| Outcome::Failed(chain(error.as_ref())))
        });
        done.await
            .unwrap_or_else(|error| Outcome::Failed(error.to_string()))
    }

    /// Undoes what was done on the node for an instance.
    pub(super) async fn clean_up(&self, key: &VmiKey, uid: &str) -> Outcome {
        let (paths, of) = (self.parts.paths.clone(), uid.to_owned());
        let launcher = self.parts.launchers.get(key);
        let launcher = launcher.filter(|launcher| launcher.uid == uid);
        let undone = spawn_blocking(move || {
            mounts::unmount_all(&paths, &of).map_err(|error| chain(&error))?;
            launcher.map_or(Ok(()), |launcher| {
                cleanup::end_image_containers(&paths, &launcher.pod_uid)
                    .map_err(|error| chain(&error))
            })
        });
        match undone.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Outcome::Failed(error),
            Err(error) => return Outcome::Failed(error.to_string()),
        }
        self.parts.launchers.forget(uid).await;
        self.memory.forget_told(key, uid);
        // Another instance of the same name may wait for this.
        self.parts.queue.add(key);
        Outcome::Done
    }

    /// Has the checksums of an instance's files computed once its machine runs, where its status lacks them. Images are
    /// large: nobody waits for it.
    pub(super) fn want_checksums(&self, key: &VmiKey, sight: &Sight, record: &mut Record) {
        let (Object::Here(_, vmi), DomainSight::Known(domain)) = (&sight.object, &sight.domain)
        else {
            return;
        };
        let Some(launcher) = sight.attached() else {
            return;
        };
        let is_asked = record.checksums_of.as_ref() == Some(&sight.uid);
        if is_asked || Machine::of(domain) != Machine::Alive || !lacks_checksums(vmi) {
            return;
        }
        record.checksums_of = Some(sight.uid.clone());
        let (memory, reading) = (Arc::clone(&self.memory), Arc::clone(&self.reading));
        let (paths, queue) = (self.parts.paths.clone(), self.parts.queue.clone());
        let (vmi, launcher, key) = (Arc::clone(vmi), launcher.clone(), key.clone());
        tokio::spawn(async move {
            // The semaphore is never closed; were it, images would be read at once.
            let _turn = reading.acquire().await;
            let uid = vmi.metadata.uid.clone();
            let read = spawn_blocking(move || {
                if has_image_volumes(&paths, &launcher) {
                    return Ok(std::collections::BTreeMap::new());
                }
                mounts::checksums(&paths, &vmi, &launcher)
            });
            match read.await {
                Ok(Ok(checksums)) => {
                    memory.add_checksums(&uid, checksums);
                    queue.add(&key);
                }
                Ok(Err(error)) => warn!(error = chain(&error), "cannot compute checksums"),
                Err(error) => warn!(%error, "cannot compute checksums"),
            }
        });
    }
}

fn lacks_checksums(vmi: &Vmi) -> bool {
    let mut volumes = vmi
        .spec
        .volumes
        .iter()
        .filter(|volume| volume.container_disk.is_some());
    let lacks = |name: &str| {
        let status = vmi.status.volume(name);
        status.is_none_or(|status| status.container_disk_volume.is_none())
    };
    let firmware = vmi.spec.domain.firmware.as_ref();
    let boot = firmware.and_then(|firmware| firmware.kernel_boot.as_ref());
    let has_kernel = boot.is_some_and(|boot| boot.container.is_some());
    volumes.any(|volume| lacks(&volume.name))
        || has_kernel && vmi.status.kernel_boot_status.is_none()
}

/// Whether the kubelet mounts the container disks of a launcher's pod, as its command line says: whoever made the pod
/// decided, whatever the cluster's configuration has become since.
fn has_image_volumes(paths: &HostPaths, launcher: &Launcher) -> bool {
    let path = paths
        .proc_dir
        .join(launcher.pid.to_string())
        .join("cmdline");
    read(&path).is_some_and(|line| asks_for_image_volumes(&line))
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    let file = std::fs::File::open(path).ok()?;
    file.take(COMMAND_LINE_LEN_MAX)
        .read_to_end(&mut line)
        .ok()?;
    Some(line)
}

fn asks_for_image_volumes(line: &[u8]) -> bool {
    let mut arguments = line.split(|byte| *byte == 0);
    arguments.any(|argument| {
        argument
            .strip_prefix(IMAGE_VOLUME.as_bytes())
            .is_some_and(|rest| matches!(rest, b"" | b"=true"))
    })
}

#[cfg(test)]
mod tests {
    use api::Vmi;
    use serde_json::json;

    use super::{asks_for_image_volumes, lacks_checksums};

    #[test]
    fn the_launcher_says_who_mounts_its_disks() {
        assert!(asks_for_image_volumes(
            b"virt-launcher\0--image-volume\0--name\0vm\0"
        ));
        assert!(asks_for_image_volumes(
            b"virt-launcher\0--image-volume=true\0"
        ));
        assert!(!asks_for_image_volumes(
            b"virt-launcher\0--image-volume=false\0"
        ));
        assert!(!asks_for_image_volumes(
            b"virt-launcher\0--image-volume-dir\0/x\0"
        ));
        assert!(!asks_for_image_volumes(b""));
    }

    #[test]
    fn checksums_are_wanted_until_the_status_has_them() {
        let lacks = |spec, status| {
            let vmi = json!({"spec": spec, "status": status});
            lacks_checksums(&serde_json::from_value::<Vmi>(vmi).unwrap())
        };
        let disk = || json!({"volumes": [{"name": "root", "containerDisk": {"image": "i"}}]});
        let boot =
            || json!({"domain": {"firmware": {"kernelBoot": {"container": {"image": "i"}}}}});
        assert!(!lacks(json!({}), json!({})));
        assert!(lacks(disk(), json!({})));
        assert!(lacks(disk(), json!({"volumeStatus": [{"name": "root"}]})));
        let known =
            json!({"volumeStatus": [{"name": "root", "containerDiskVolume": {"checksum": 1}}]});
        assert!(!lacks(disk(), known));
        assert!(lacks(boot(), json!({})));
        assert!(!lacks(
            boot(),
            json!({"kernelBootStatus": {"kernelInfo": {"checksum": 1}}})
        ));
    }
}
