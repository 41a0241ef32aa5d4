//! A node with pods, whose mounts go when it goes.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use api::Vmi;
use handler::config::HostPaths;
use handler::key::VmiKey;
use handler::launchers::Launcher;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::Uid;
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const UID: &str = "vmi-1";
pub(crate) const POD: &str = "pod-1";
/// Environment variable with the socket that a process shall listen on.
pub(crate) const SOCKET: &str = "CONTAINER_SOCKET";
pub(crate) const READY: &str = "container listens";

/// A node with one pod.
pub(crate) struct Host {
    folder: TempDir,
    pub(crate) paths: HostPaths,
}

impl Host {
    /// Makes a node, unless it cannot be had here.
    pub(crate) fn new() -> Option<Self> {
        if !Uid::effective().is_root() {
            println!("skipped: mounts need root");
            return None;
        }
        let can_unshare = Command::new("unshare").args(["--mount", "true"]).status();
        if !can_unshare.is_ok_and(|status| status.success()) {
            println!("skipped: `unshare --mount` does not work here");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let paths = HostPaths {
            pods_dir: at("pods"),
            share_dir: at("share"),
            private_dir: at("private"),
            kubelet_dir: at("kubelet"),
            ..HostPaths::default()
        };
        let host = Self { folder, paths };
        fs::create_dir_all(&host.paths.pods_dir).unwrap();
        // Mounts in pods reach those who share this one.
        mount_tmpfs(&host.paths.pods_dir);
        fs::create_dir_all(host.disks()).unwrap();
        Some(host)
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The pod's volume of container disks.
    pub(crate) fn disks(&self) -> PathBuf {
        let volume = "volumes/kubernetes.io~empty-dir/container-disks";
        self.paths.pods_dir.join(POD).join(volume)
    }

    /// Starts a container; its image is what the shell commands make in the current folder.
    pub(crate) fn container(&self, socket: &str, image: &str) -> Process {
        self.container_on(socket, "mount -t tmpfs none \"$ROOT\"", image)
    }

    /// Starts a container whose root is made by shell commands.
    pub(crate) fn container_on(&self, socket: &str, root: &str, image: &str) -> Process {
        let script = format!(
            r#"set -e
            {root}
            cd "$ROOT"
            {image}
            mkdir -p usr "./$EXE_DIR" disks proc
            mount --rbind /usr usr
            mount --bind "$EXE_DIR" "./$EXE_DIR"
            mount --bind "$DISKS" disks
            mount -t proc proc proc
            for lib in /lib /lib64; do
                test -d $lib || continue
                if test -L $lib; then ln -s "$(readlink $lib)" .$lib; else mkdir -p .$lib; mount --rbind $lib .$lib; fi
            done
            exec chroot . "$EXE" --exact listens_as_a_container --ignored --nocapture
            "#
        );
        let exe = std::env::current_exe().unwrap();
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "slave", "sh", "-c", &script])
            .env("ROOT", self.root())
            .env("EXE", &exe)
            .env("EXE_DIR", exe.parent().unwrap())
            .env("DISKS", self.disks())
            .env(SOCKET, Path::new("/disks").join(socket));
        Process::start(command)
    }

    fn root(&self) -> PathBuf {
        tempfile::tempdir_in(self.path()).unwrap().keep()
    }

    /// Starts a launcher that has the pod's volume where launchers have it.
    pub(crate) fn launcher_with(&self, propagation: &str) -> (Process, Launcher) {
        self.launcher_as(propagation, "")
    }

    /// Starts a launcher by a command that changes its user.
    pub(crate) fn launcher_as(&self, propagation: &str, user: &str) -> (Process, Launcher) {
        let script = r#"set -e
            mount -t tmpfs none "$ROOT"
            cd "$ROOT"
            mkdir -p var/run/kubevirt/container-disks usr bin lib lib64 dev
            mknod dev/kvm c 10 232
            mount --rbind "$DISKS" var/run/kubevirt/container-disks
            mount --make-r"$PROPAGATION" var/run/kubevirt/container-disks
            for dir in usr bin lib lib64; do mount --rbind /$dir $dir; done
            exec chroot . $AS_USER /bin/sh -c 'echo "container listens"; read end || true'
            "#;
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "slave", "sh", "-c", script])
            .env("ROOT", self.root())
            .env("DISKS", self.disks())
            .env("AS_USER", user)
            .env("PROPAGATION", propagation);
        let process = Process::start(command);
        let launcher = self.launcher(process.pid());
        (process, launcher)
    }

    /// Names a launcher.
    pub(crate) fn launcher(&self, pid: i32) -> Launcher {
        Launcher::at(&self.paths, VmiKey::new("default", "vm"), UID, POD, pid)
    }

    /// Names this process as launcher.
    pub(crate) fn own_launcher(&self) -> Launcher {
        self.launcher(i32::try_from(std::process::id()).unwrap())
    }

    /// What is mounted below the folder of the pods.
    pub(crate) fn mounts(&self) -> Vec<PathBuf> {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let paths = table.lines().filter_map(|line| line.split(' ').nth(4));
        let below =
            |path: &PathBuf| path.starts_with(&self.paths.pods_dir) && *path != self.paths.pods_dir;
        paths.map(PathBuf::from).filter(below).collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // With the file system go the mounts on it.
        // Where it is gone already, nothing is left to do.
        umount2(&self.paths.pods_dir, MntFlags::MNT_DETACH).ok();
    }
}

fn mount_tmpfs(on: &Path) {
    let nothing: Option<&str> = None;
    mount(Some("none"), on, Some("tmpfs"), MsFlags::empty(), nothing).unwrap();
    mount(nothing, on, nothing, MsFlags::MS_SHARED, nothing).unwrap();
}

/// A process that ends with the test.
pub(crate) struct Process {
    child: Child,
    _input: ChildStdin,
    /// The test harness in the process fails when it cannot write.
    _output: BufReader<ChildStdout>,
}

impl Process {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let is_ready = output
            .by_ref()
            .lines()
            .map_while(Result::ok)
            .any(|line| line.contains(READY));
        let process = Self {
            child,
            _input: input,
            _output: output,
        };
        assert!(is_ready, "the process is not ready");
        process
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Returns an instance with volumes.
pub(crate) fn vmi(spec: Value) -> Vmi {
    let metadata = json!({"namespace": "default", "name": "vm", "uid": UID});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
}

/// Returns an instance whose second volume is a container disk.
pub(crate) fn with_disk(disk: Value) -> Vmi {
    let first = json!({"name": "empty", "emptyDisk": {"capacity": "1Gi"}});
    let second = json!({"name": "root", "containerDisk": disk});
    vmi(json!({"domain": {}, "volumes": [first, second]}))
}
