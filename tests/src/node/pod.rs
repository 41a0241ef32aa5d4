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

/// How images come into a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Images {
    /// The kubelet mounts them.
    Volumes,
    /// Containers have them, and the node agent mounts their files.
    Containers,
}

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
        images: Images,
    ) -> io::Result<Self> {
        let name = vmi["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let folder = pods.join(manifest::pod_uid(vmi));
        for (name, _) in EMPTY_DIRS {
            let path = volume(&folder, name);
            fs::create_dir_all(&path)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
        }
        let image_volume = (images == Images::Volumes).then_some("--image-volume");
        let kernel_image = guests.kernel();
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "slave", "--pid", "--fork"])
            .args(["--kill-child", "--mount-proc", "sh", "-euc"])
            .arg(script(
                &folder,
                kernel_image.parent().unwrap_or(Path::new("/")),
            ))
            .arg("virt-launcher-monitor")
            .arg(launcher)
            .args(arguments(vmi))
            .args(image_volume)
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
        volume(&self.folder, name)
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

    /// Starts another container of the pod, which runs `container-disk` with an image: a folder, into which the host's
    /// libraries are mounted.
    pub(super) fn start_container(
        &self,
        launcher: &Path,
        image: &Path,
        name: &str,
    ) -> io::Result<Spawned> {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "slave", "sh", "-euc", CONTAINER])
            .arg("container-disk")
            .arg(image)
            .arg(launcher)
            .arg(self.volume("container-disks"))
            .arg(name);
        Spawned::start(command, Console::OutputOnly)
    }

    /// The running process of the pod, to wait for its end.
    #[must_use]
    pub fn into_process(self) -> Spawned {
        self.process
    }
}

/// The folder of an emptyDir volume of the pod in a folder.
pub(super) fn volume(pod: &Path, name: &str) -> PathBuf {
    pod.join("volumes/kubernetes.io~empty-dir").join(name)
}

/// Makes the root of a container that brings an image, and becomes the program that keeps it there.
const CONTAINER: &str = r#"
image=$1 launcher=$2 disks=$3 name=$4
mount --bind "$image" "$image"
cd "$image"
mkdir -p proc dev usr lib lib64 disks
mount -t proc proc proc
for folder in dev usr lib lib64; do mount --rbind /$folder $folder; done
mount --bind "$disks" disks
touch container-disk
mount --bind "$launcher" container-disk
exec chroot . /container-disk -c /disks/"$name"
"#;

/// Mounts what a container of the pod has under /run, then becomes the launcher.
fn script(folder: &Path, kernel_image: &Path) -> String {
    let mut script = String::from("mount -t tmpfs -o mode=755 run /run\n");
    for (name, target) in EMPTY_DIRS {
        script += &format!(
            "mkdir -p {target}; mount --bind '{}' {target}\n",
            volume(folder, name).display()
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
        ]
        .map(str::to_owned),
    );
    arguments
}
