//! A node for a test: the runner of pods with an API in memory.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use serde_json::{Value, json};
use single_node::pods::{Options, PluginDevices, Runner, Timing};
use single_node::sandbox::image::{Image, ImageError, ImageRequest, ImageRoot, ImageSource};

use crate::memory::Memory;
use crate::place::{FERROVIRT, PATIENCE, Place};

/// Images of the tests: the host's programs, and folders.
struct TestImages {
    programs: PathBuf,
    folders: PathBuf,
}

impl ImageSource for TestImages {
    fn resolve<'a>(
        &'a self,
        request: ImageRequest<'a>,
    ) -> BoxFuture<'a, Result<Image, ImageError>> {
        let reference = request.reference.to_owned();
        let root = match reference.as_str() {
            "host" => Some(ImageRoot::Host(self.programs.clone())),
            other => Some(self.folders.join(other))
                .filter(|folder| folder.is_dir())
                .map(ImageRoot::Folder),
        };
        let image = root.map(|root| Image {
            root,
            digest: format!("sha256:{reference}"),
            entrypoint: Vec::new(),
            cmd: Vec::new(),
            env: vec!["FROM_IMAGE=yes".to_owned()],
            user: String::new(),
            workdir: String::new(),
        });
        Box::pin(std::future::ready(
            image.ok_or(ImageError::NotPresent { reference }),
        ))
    }
}

pub(crate) struct Node {
    folder: PathBuf,
    /// Removed with the node.
    _place: Option<Place>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) runner: Arc<Runner>,
}

impl Node {
    /// Starts a node; `None`, with the reason printed, without root.
    pub(crate) fn new() -> Option<Self> {
        let place = Place::new()?;
        let folder = place.folder.path().to_owned();
        Some(Self::with(folder, Some(place)))
    }

    /// Starts a node in a place that others use too.
    pub(crate) fn at(folder: &Path) -> Self {
        Self::with(folder.to_owned(), None)
    }

    fn with(folder: PathBuf, place: Option<Place>) -> Self {
        let memory = Arc::new(Memory::default());
        let runner = runner(&folder, &memory);
        memory.tells(&runner);
        Self {
            folder,
            _place: place,
            memory,
            runner,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Puts another runner in place, as after a restart of the node.
    pub(crate) fn restart(&mut self) {
        let memory = Arc::new(Memory::default());
        let old = std::mem::replace(&mut self.memory, memory);
        self.runner = runner(&self.folder, &self.memory);
        self.memory.tells(&self.runner);
        for pod in old.all_pods() {
            self.memory.put_pod(pod);
        }
    }

    pub(crate) async fn wait_for(
        &self,
        name: &str,
        what: &str,
        is_so: impl Fn(&Value) -> bool,
    ) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let pod = self.memory.pod(name).unwrap_or_default();
            if is_so(&pod) {
                return pod;
            }
            assert!(
                Instant::now() < deadline,
                "{name} is not {what}: {:#}\n{:?}",
                pod["status"],
                self.memory.warnings()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn wait_for_phase(&self, name: &str, phase: &str) -> Value {
        self.wait_for(name, phase, |pod| pod["status"]["phase"] == phase)
            .await
    }

    pub(crate) async fn wait_until_gone(&self, name: &str) {
        self.wait_for(name, "gone", Value::is_null).await;
        let uid = uid(name);
        let deadline = Instant::now() + PATIENCE;
        while self.runner.options().sandbox_dir(&uid).exists() {
            assert!(Instant::now() < deadline, "{name} left files");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// What a container of a pod wrote.
    pub(crate) fn log(&self, pod: &str, container: &str) -> String {
        let handle = self.runner.container("default", pod, container).unwrap();
        let text = std::fs::read_to_string(handle.log_path).unwrap_or_default();
        let lines = text
            .lines()
            .map(|line| line.splitn(4, ' ').nth(3).unwrap_or_default());
        lines.map(|line| format!("{line}\n")).collect()
    }

    /// Mounts, control groups, processes and files that are still there.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let state = self.state();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let pods = state.join("kubelet/pods");
        let point = |line: &str| line.split(' ').nth(4).unwrap_or_default().to_owned();
        let mut left: Vec<_> = mounts
            .lines()
            .map(point)
            .filter(|point| Path::new(point).starts_with(&state) && Path::new(point) != pods)
            .collect();
        for folder in ["sandboxes", "kubelet/pods", "logs"] {
            left.extend(
                std::fs::read_dir(state.join(folder))
                    .unwrap()
                    .map(|entry| entry.unwrap().path().display().to_string()),
            );
        }
        for controller in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            let group = controller.path().join(parent(&self.folder));
            if group.exists() {
                left.push(group.display().to_string());
            }
        }
        for process in std::fs::read_dir("/proc").unwrap().flatten() {
            let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&line).contains(&*state.to_string_lossy()) {
                left.push(format!(
                    "process {}: {}",
                    process.path().display(),
                    String::from_utf8_lossy(&line)
                ));
            }
        }
        left
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.path("state")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let cleaned = single_node::pods::runner::remove_all(self.runner.options());
        if !std::thread::panicking() {
            cleaned.unwrap();
        }
    }
}

fn parent(folder: &Path) -> String {
    format!(
        "ferrovirt-{}",
        folder.file_name().unwrap().to_string_lossy()
    )
}

fn runner(folder: &Path, memory: &Arc<Memory>) -> Arc<Runner> {
    let mut options = Options::new("node01", &folder.join("state"));
    options.ferrovirt = FERROVIRT.into();
    options.launcher = Path::new(FERROVIRT).with_file_name("virt-launcher");
    options.cgroup_parent = parent(folder);
    options.host_ip = Some("192.0.2.1".to_owned());
    options.timing = Timing {
        backoff: Duration::from_millis(200),
        retry: Duration::from_millis(100),
        ..Timing::default()
    };
    let images = TestImages {
        programs: folder.join("programs"),
        folders: folder.join("images"),
    };
    let devices = PluginDevices::new(&options.kubelet_dir(), PluginDevices::PATIENCE).unwrap();
    Runner::new(options, Arc::clone(memory) as _, Arc::new(images), devices).unwrap()
}

/// The uid of a test's pod.
pub(crate) fn uid(name: &str) -> String {
    format!("uid-{name}")
}

/// A pod whose container `main` runs a shell script.
pub(crate) fn pod(name: &str, script: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": uid(name), "labels": {"color": "blue"}},
        "spec": {
            "nodeName": "node01", "restartPolicy": "Never", "terminationGracePeriodSeconds": 5,
            "containers": [container("main", script)],
        },
        "status": {"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
    })
}

pub(crate) fn container(name: &str, script: &str) -> Value {
    json!({"name": name, "image": "host", "imagePullPolicy": "IfNotPresent", "command": ["/bin/sh", "-c", script]})
}
