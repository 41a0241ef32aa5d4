//! The pod of a launcher: its folders, and the process in namespaces of its own.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::manifest;
use crate::console::{Console, Spawned};
use crate::guests::Guests;

/// emptyDir volumes of a launcher's pod, and where they are in it; outer ones before those inside them.
const EMPTY_DIRS: [(&str, &str); 7] = [
    ("public", "/run/kubevirt"),
    ("sockets", "/run/kubevirt/sockets"),
    ("container-disks", "/run/kubevirt/container-disks"),
    ("hotplug-disks", "/run/kubevirt/hotplug-disks"),
    ("private", "/run/kubevirt-private"),
    ("ephemeral-disks", "/run/kubevirt-ephemeral-disks"),
    ("libvirt-runtime", "/run/libvirt"),
];

/// A running pod; dropped, it is killed.
pub struct Pod {
    name: String,
    instance_uid: String,
    folder: PathBuf,
    process: Spawned,
}

impl Pod {
    /// Starts a launcher as the kubelet starts the container `compute`. The kernel image is mounted as an image volume.
    pub(super) fn start(
        pods: &Path,
        launcher: &Path,
        guests: &Guests,
        vmi: &Value,
    ) -> io::Result<Self> {
        let name = vmi["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let folder = pods.join(manifest::pod_uid(vmi));
        let volumes = folder.join("volumes/kubernetes.io~empty-dir");
        for (volume, _) in EMPTY_DIRS {
            let path = volumes.join(volume);
            fs::create_dir_all(&path)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
        }
        let kernel_image = guests.kernel();
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "slave", "--pid", "--fork"])
            .args(["--kill-child", "--mount-proc", "sh", "-euc"])
            .arg(script(
                &volumes,
                kernel_image.parent().unwrap_or(Path::new("/")),
            ))
            .arg("virt-launcher-monitor")
            .arg(launcher)
            .args(arguments(vmi))
            .env("RUST_LOG", "info")
            .env("POD_NAME", format!("virt-launcher-{name}-test0"));
        let uid = vmi["metadata"]["uid"].as_str();
        Ok(Self {
            name,
            instance_uid: uid.unwrap_or_default().to_owned(),
            folder,
            process: Spawned::start(command, Console::OutputOnly)?,
        })
    }

    /// Name of the instance.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Uid of the instance.
    #[must_use]
    pub fn instance_uid(&self) -> &str {
        &self.instance_uid
    }

    /// The pod's folder on the node.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A volume's folder on the node.
    #[must_use]
    pub fn volume(&self, name: &str) -> PathBuf {
        self.folder
            .join("volumes/kubernetes.io~empty-dir")
            .join(name)
    }

    /// The launcher's process as the node sees it, once it runs.
    #[must_use]
    pub fn launcher_pid(&self) -> Option<u32> {
        let outer = self.process.pid();
        let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    }

    /// What the launcher logged.
    #[must_use]
    pub fn errors(&self) -> String {
        self.process.errors()
    }

    /// Sends the launcher a signal, as the kubelet does with SIGTERM and the kernel with SIGKILL.
    ///
    /// # Panics
    ///
    /// When there is no launcher to be signalled.
    pub fn signal(&self, signal: Signal) {
        let pid = self.launcher_pid().and_then(|pid| i32::try_from(pid).ok());
        let pid = nix::unistd::Pid::from_raw(pid.expect("the launcher runs"));
        nix::sys::signal::kill(pid, signal).expect("signal the launcher");
    }

    /// The running process of the pod, to wait for its end.
    #[must_use]
    pub fn into_process(self) -> Spawned {
        self.process
    }
}

/// Mounts what a container of the pod has under /run, then becomes the launcher.
fn script(volumes: &Path, kernel_image: &Path) -> String {
    let mut script = String::from("mount -t tmpfs -o mode=755 run /run\n");
    for (volume, target) in EMPTY_DIRS {
        script += &format!(
            "mkdir -p {target}; mount --bind '{}' {target}\n",
            volumes.join(volume).display()
        );
    }
    script += &format!(
        "mkdir -p /run/kubevirt-kernel-boot; mount --bind -o ro '{}' /run/kubevirt-kernel-boot\n",
        kernel_image.display()
    );
    script + "exec \"$@\"\n"
}

/// The command line that upstream's controller renders.
fn arguments(vmi: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &vmi["metadata"];
    let grace = vmi["spec"]["terminationGracePeriodSeconds"]
        .as_u64()
        .unwrap_or(30)
        + 15;
    let mut arguments: Vec<String> = ["--qemu-timeout", "240s", "--name"]
        .map(str::to_owned)
        .into();
    arguments.push(text(&metadata["name"]));
    arguments.extend(["--uid".to_owned(), text(&metadata["uid"])]);
    arguments.extend(["--namespace".to_owned(), text(&metadata["namespace"])]);
    arguments.extend(["--grace-period-seconds".to_owned(), grace.to_string()]);
    arguments.extend(
        [
            "--kubevirt-share-dir=/var/run/kubevirt",
            "--ephemeral-disk-dir=/var/run/kubevirt-ephemeral-disks",
            "--container-disk-dir=/var/run/kubevirt/container-disks",
            "--hook-sidecars=0",
            "--ovmf-path=/usr/share/edk2/ovmf",
            "--run-as-nonroot",
            "--image-volume",
        ]
        .map(str::to_owned),
    );
    arguments
}
