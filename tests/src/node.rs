//! A node for a test: an API endpoint, the kubelet's folders, launchers in pods of their own, and the node agent.
//!
//! What a kubelet and a container runtime would do for a launcher's pod is done by `unshare` and bind mounts ([`pod`]);
//! what the controller would do is done by the test, which writes the instance with its labels and pod
//! ([`manifest`]). Launchers, handler, sockets and guests are the real ones.

mod guest_console;
pub mod manifest;
pub mod pod;
pub mod status;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

pub use self::guest_console::GuestConsole;
use self::pod::{Images, Pod};
use crate::api_endpoint::{ApiEndpoint, ObjectKey, Resource};
use crate::console::{Console, Spawned};
use crate::guests::Guests;
use crate::{guests, program, skip};

/// Name of every test's node.
pub const NODE: &str = "node01";
/// Namespace of the tests' instances.
pub const NAMESPACE: &str = "default";

/// A node.
pub struct Node {
    /// Its API endpoint.
    pub api: ApiEndpoint,
    /// The guests to run.
    pub guests: Guests,
    folder: tempfile::TempDir,
    launcher: PathBuf,
    handler_program: PathBuf,
    handler: Option<Spawned>,
    pods: Vec<Pod>,
}

impl Node {
    /// Sets a node up without its agent. `None`, with the reason printed, where that is not possible.
    ///
    /// # Panics
    ///
    /// When the host refuses folders or mounts to root.
    #[must_use]
    pub fn new() -> Option<Self> {
        let guests = guests()?;
        let launcher = program("virt-launcher")?;
        let handler_program = program("virt-handler")?;
        if !nix::unistd::geteuid().is_root() {
            skip("pods need mounts, and mounts need root");
            return None;
        }
        // Sockets have short names, so has the folder.
        let folder = tempfile::Builder::new()
            .prefix("fv")
            .tempdir_in("/tmp")
            .ok()?;
        for name in ["pods", "share", "private", "kubelet"] {
            fs::create_dir(folder.path().join(name)).expect("make a folder of the node");
        }
        let pods = folder.path().join("pods");
        mount(&["--bind"], &pods, &pods);
        mount(&["--make-shared"], Path::new(""), &pods);
        let api = ApiEndpoint::start().expect("start the API endpoint");
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE, "labels": {}, "annotations": {}}});
        api.put(&Resource::nodes(), node);
        Some(Self {
            api,
            guests,
            folder,
            launcher,
            handler_program,
            handler: None,
            pods: Vec::new(),
        })
    }

    /// A folder of the node.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts the node agent with arguments of the test's beside those that say where things are.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub fn start_handler(&mut self, arguments: &[&str]) {
        let program = self.handler_program.clone();
        self.start_handler_program(&program, arguments);
    }

    /// Starts another build of the node agent.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub fn start_handler_program(&mut self, program: &Path, arguments: &[&str]) {
        let kubeconfig = self.api.kubeconfig(self.folder.path());
        let mut command = Command::new(program);
        command
            .env("KUBECONFIG", kubeconfig.expect("write a kubeconfig"))
            .env("RUST_LOG", "info")
            .args(["--hostname-override", NODE, "--listen", "127.0.0.1"])
            .args(["--port=0", "--console-server-port=0"])
            .arg("--vmstats-server-port=0")
            .args(self.handler_folders())
            .args(arguments);
        let spawned = Spawned::start(command, Console::OutputOnly);
        self.handler = Some(spawned.expect("start the node agent"));
    }

    fn handler_folders(&self) -> Vec<String> {
        [
            ("kubelet-pods-dir", "pods"),
            ("kubelet-root", "kubelet"),
            ("kubevirt-share-dir", "share"),
            ("kubevirt-private-dir", "private"),
        ]
        .map(|(flag, name)| format!("--{flag}={}", self.path(name).display()))
        .into()
    }

    /// The node agent.
    ///
    /// # Panics
    ///
    /// When it was not started.
    #[must_use]
    pub fn handler(&self) -> &Spawned {
        self.handler.as_ref().expect("the node agent was started")
    }

    /// Kills the node agent with SIGKILL, or ends it with SIGTERM, and waits for its end.
    ///
    /// # Panics
    ///
    /// When it does not end.
    pub fn stop_handler(&mut self, signal: Signal) -> String {
        let handler = self.handler.take().expect("the node agent was started");
        handler.signal(signal);
        let end = handler.finish(Duration::from_secs(20));
        end.expect("the node agent ends").errors
    }

    /// Starts a launcher's pod for an instance and writes the instance as the controller leaves it for the node:
    /// scheduled, with its pod and node.
    ///
    /// # Panics
    ///
    /// When the pod cannot be started.
    pub fn schedule(&mut self, vmi: Value) -> ObjectKey {
        self.start_pod(&vmi);
        self.write_scheduled(vmi)
    }

    /// Starts a launcher's pod alone.
    ///
    /// # Panics
    ///
    /// When the pod cannot be started.
    pub fn start_pod(&mut self, vmi: &Value) -> &mut Pod {
        self.start_pod_with(vmi, Images::Volumes)
    }

    /// Starts a launcher's pod alone, whose images are in containers ([`Self::start_container`]).
    ///
    /// # Panics
    ///
    /// When the pod cannot be started.
    pub fn start_pod_for_containers(&mut self, vmi: &Value) -> &mut Pod {
        self.start_pod_with(vmi, Images::Containers)
    }

    /// Starts a container of an instance's pod that has an image, a folder, and serves it under a name such as `disk_0`.
    /// Dropped, it is killed.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    #[must_use]
    pub fn start_container(&self, instance: &str, image: &Path, name: &str) -> Spawned {
        let pod = self.pod(instance);
        let container = pod.start_container(&self.launcher, image, name);
        container.expect("start a container")
    }

    /// Gives an emptyDir volume of an instance's pod, which is not started yet, a file system of this size.
    ///
    /// # Panics
    ///
    /// When the host refuses it.
    pub fn limit_volume(&self, vmi: &Value, volume: &str, size: &str) {
        let folder = self.path("pods").join(manifest::pod_uid(vmi));
        let folder = pod::volume(&folder, volume);
        fs::create_dir_all(&folder).expect("make the volume's folder");
        let options = format!("size={size}");
        mount(&["-t", "tmpfs", "-o", &options], Path::new("none"), &folder);
    }

    /// Gives a volume that was limited another size.
    ///
    /// # Panics
    ///
    /// When the host refuses it.
    pub fn resize_volume(&self, instance: &str, volume: &str, size: &str) {
        let folder = self.pod(instance).volume(volume);
        let options = format!("remount,size={size}");
        mount(&["-o", &options], Path::new(""), &folder);
    }

    fn start_pod_with(&mut self, vmi: &Value, images: Images) -> &mut Pod {
        let pods = self.path("pods");
        let pod = Pod::start(&pods, &self.launcher, &self.guests, vmi, images);
        self.pods.push(pod.expect("start a launcher's pod"));
        self.pods.last_mut().expect("it was just put there")
    }

    /// Writes an instance as scheduled here.
    pub fn write_scheduled(&self, vmi: Value) -> ObjectKey {
        let vmi = manifest::scheduled(vmi);
        let name = vmi["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        self.api.put(&Resource::vmis(), vmi);
        Resource::vmis().key(NAMESPACE, &name)
    }

    /// The pod of an instance.
    ///
    /// # Panics
    ///
    /// When there is none.
    #[must_use]
    pub fn pod(&self, name: &str) -> &Pod {
        let pod = self.pods.iter().find(|pod| pod.name() == name);
        pod.expect("the instance has a pod")
    }

    /// All pods.
    #[must_use]
    pub fn pods(&self) -> &[Pod] {
        &self.pods
    }

    /// Waits until an instance is in a phase.
    ///
    /// # Panics
    ///
    /// When it is not in time; the message has the instance's status and what handler and launcher logged.
    pub fn wait_for_phase(&self, key: &ObjectKey, phase: &str, patience: Duration) -> Value {
        self.wait_for(key, phase, patience, |vmi| vmi["status"]["phase"] == phase)
    }

    /// Waits until an instance is as wanted; `what` names that in the failure.
    ///
    /// # Panics
    ///
    /// As [`Self::wait_for_phase`].
    pub fn wait_for(
        &self,
        key: &ObjectKey,
        what: &str,
        patience: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let began = Instant::now();
        self.api
            .wait_for(key, patience, wanted)
            .unwrap_or_else(|last| {
                let status = last.map_or(Value::Null, |vmi| vmi["status"].clone());
                panic!(
                    "{} is not {what} after {:?}; its status: {status:#}\n{}",
                    key.name,
                    began.elapsed(),
                    self.logs(&key.name),
                )
            })
    }

    /// Waits until an instance has an event of that reason, and returns it.
    ///
    /// # Panics
    ///
    /// When it has none in time; the message has the reasons of those that it has.
    pub fn wait_for_event(&self, name: &str, reason: &str, patience: Duration) -> Value {
        let wanted =
            |event: &Value| event["involvedObject"]["name"] == name && event["reason"] == reason;
        let found = self.api.wait_for_any(&Resource::events(), patience, wanted);
        found.unwrap_or_else(|| {
            let reasons = self.event_reasons(name);
            panic!(
                "{name} has no event {reason}, only {reasons:?}\n{}",
                self.logs(name)
            )
        })
    }

    /// Connects to the guest's serial console, as the node agent does for a user. An earlier connection is taken over.
    ///
    /// # Panics
    ///
    /// When the launcher has no console.
    #[must_use]
    pub fn console(&self, name: &str) -> GuestConsole {
        let pod = self.pod(name);
        let folder = pod.volume("private").join(pod.instance_uid());
        GuestConsole::connect(&folder)
            .unwrap_or_else(|error| panic!("no console of {name}: {error}\n{}", self.logs(name)))
    }

    /// Returns the files that the node agent keeps of an instance: records, and sockets and mounts in the pod.
    #[must_use]
    pub fn leftovers(&self, name: &str) -> Vec<PathBuf> {
        let pod = self.pod(name);
        let mut left = Vec::new();
        for folder in ["private/ghost-records", "private/final-domains"] {
            left.push(self.path(folder).join(pod.instance_uid()));
        }
        left.push(pod.volume("public").join("domain-notify-pipe.sock"));
        left.retain(|path| path.symlink_metadata().is_ok());
        let disks = pod.volume("container-disks");
        left.extend(
            mount_points()
                .into_iter()
                .filter(|at| at.starts_with(&disks)),
        );
        left
    }

    /// Waits until nothing is left of an instance on the node but its pod.
    ///
    /// # Panics
    ///
    /// When something still is in the end.
    pub fn wait_until_clean(&self, name: &str, patience: Duration) {
        let is_clean = until(patience, || self.leftovers(name).is_empty());
        assert!(
            is_clean,
            "{name} left {:?}\n{}",
            self.leftovers(name),
            self.logs(name)
        );
    }

    /// What the node agent and the launcher of an instance logged.
    #[must_use]
    pub fn logs(&self, name: &str) -> String {
        let handler = self.handler.as_ref().map_or(String::new(), Spawned::errors);
        let pod = self.pods.iter().find(|pod| pod.name() == name);
        let launcher = pod.map_or(String::new(), Pod::errors);
        format!("handler:\n{handler}\nlauncher:\n{launcher}")
    }

    /// Reasons of the events on an instance, in the order of their names.
    #[must_use]
    pub fn event_reasons(&self, name: &str) -> Vec<String> {
        let events = self.api.list(&Resource::events());
        let of_it = events
            .iter()
            .filter(|event| event["involvedObject"]["name"] == name);
        of_it
            .filter_map(|event| event["reason"].as_str())
            .map(str::to_owned)
            .collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.handler = None;
        self.pods.clear();
        unmount_below(&self.path("pods"));
    }
}

/// Runs `mount`; an empty source is left out.
fn mount(options: &[&str], source: &Path, target: &Path) {
    let mut command = Command::new("mount");
    command.args(options);
    if source != Path::new("") {
        command.arg(source);
    }
    let done = command.arg(target).stdin(Stdio::null()).status();
    let is_done = done.is_ok_and(|status| status.success());
    assert!(is_done, "mount {options:?} {} failed", target.display());
}

/// Unmounts everything at and below a folder, the deepest first.
fn unmount_below(folder: &Path) {
    let mut below = mount_points();
    below.retain(|point| point.starts_with(folder));
    below.sort_unstable_by_key(|point| std::cmp::Reverse(point.as_os_str().len()));
    for point in below {
        // What another unmounted meanwhile is gone all the same.
        let mut umount = Command::new("umount");
        let _gone: io::Result<_> = umount.arg("-l").arg(point).stderr(Stdio::null()).status();
    }
}

fn mount_points() -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    points.map(PathBuf::from).collect()
}

/// Looks until something is so, for what tells nobody of its changes; false when it is not in time.
#[must_use]
pub fn until(patience: Duration, is_so: impl Fn() -> bool) -> bool {
    const BETWEEN_LOOKS: Duration = Duration::from_millis(20);
    let deadline = Instant::now() + patience;
    loop {
        if is_so() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::park_timeout(BETWEEN_LOOKS);
    }
}
