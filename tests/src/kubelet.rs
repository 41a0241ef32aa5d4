//! A stand-in for the kubelet towards device plugins, written from the kubelet's side of the wire
//! (`k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1`).
//!
//! ```text
//!  plugin ── Register ──► desk ── connects back, asks for the options ──► plugin
//!                                    └─ follows its lists ──► Node (watch)
//!  test ── allocate ──► GetPreferredAllocation, Allocate ──► checkpoint file
//! ```
//!
//! As the kubelet does, it empties its folder when it starts, keeps its file of who has what, counts what is unhealthy as
//! capacity but not as allocatable, and takes all devices of a plugin for unhealthy when the plugin's stream ends. It runs on
//! the runtime from which it is started.

mod allocation;
mod checkpoint;
mod desk;
mod node;
mod plugin;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub use allocation::Given;
pub use checkpoint::{CHECKPOINT, Entry};
pub use node::{Counts, Device, Node, Resource};
use plugin::Plugins;

/// Name of the socket at which plugins register.
pub const SOCKET: &str = "kubelet.sock";

/// How the stand-in treats plugins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It takes them.
    Takes,
    /// It accepts connections and says nothing.
    Hangs,
    /// It refuses to register them, with this reason.
    Refuses(String),
}

/// Why the stand-in cannot do something.
#[derive(Debug, thiserror::Error)]
pub enum KubeletError {
    /// A file of its own cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something did not become so in time.
    #[error("after {limit:?} it is not so that {what}; the node has {seen}")]
    Late {
        /// What was awaited.
        what: String,
        /// For how long.
        limit: Duration,
        /// What the node had then.
        seen: String,
    },
    /// No plugin is registered for the resource.
    #[error("no plugin offers {resource}")]
    Unknown {
        /// The resource.
        resource: String,
    },
    /// Not enough devices are free.
    #[error("{resource}: {wanted} devices are wanted and {free} are free")]
    Short {
        /// The resource.
        resource: String,
        /// How many are wanted.
        wanted: usize,
        /// How many are free.
        free: usize,
    },
    /// The plugin refused.
    #[error("{resource}: {reason}")]
    Refused {
        /// The resource.
        resource: String,
        /// The plugin's answer.
        reason: String,
    },
}

/// What the stand-in knows, also while it does not run.
struct State {
    dir: PathBuf,
    node: watch::Sender<Node>,
    /// Changes when streams are to be dropped.
    streams_dropped: watch::Sender<u64>,
    /// One allocation at a time.
    turn: AsyncMutex<()>,
    // Neither is held while the other is, nor across an await.
    entries: Mutex<Vec<Entry>>,
    plugins: Mutex<Plugins>,
}

/// The stand-in. Dropped, it ends as if it were killed.
pub struct Kubelet {
    state: Arc<State>,
    running: Option<CancellationToken>,
}

impl Kubelet {
    /// Makes a stand-in that works in `device-plugins` and `pods` of a folder. It does nothing before it is started.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        let state = State {
            dir: dir.to_owned(),
            node: watch::Sender::default(),
            streams_dropped: watch::Sender::default(),
            turn: AsyncMutex::default(),
            entries: Mutex::default(),
            plugins: Mutex::default(),
        };
        Self {
            state: Arc::new(state),
            running: None,
        }
    }

    /// The folder of device plugins.
    #[must_use]
    pub fn plugin_dir(&self) -> PathBuf {
        self.state.plugin_dir()
    }

    /// The folder with a folder for each pod.
    #[must_use]
    pub fn pods_dir(&self) -> PathBuf {
        self.state.pods_dir()
    }

    /// Starts, or starts again: makes the folder or empties it, and takes plugins. Returns the time at which the socket
    /// appeared. Must be called on a runtime.
    ///
    /// # Errors
    ///
    /// Fails when the folder or the socket cannot be made, or the file of who has what cannot be read.
    pub fn start(&mut self, mode: Mode) -> Result<Instant, KubeletError> {
        self.kill();
        self.state.empty_folder()?;
        self.state.load()?;
        let stop = CancellationToken::new();
        let appeared = desk::open(&self.state, mode, &stop)?;
        self.running = Some(stop);
        Ok(appeared)
    }

    /// Ends as the kubelet ends when it is told to: the socket is removed.
    ///
    /// # Errors
    ///
    /// Fails when the socket cannot be removed.
    pub fn stop(&mut self) -> Result<(), KubeletError> {
        self.kill();
        remove(&self.plugin_dir().join(SOCKET))
    }

    /// Ends as if killed: connections end, and the socket's file stays.
    pub fn kill(&mut self) {
        if let Some(stop) = self.running.take() {
            stop.cancel();
        }
        self.state.plugins().forget();
        self.state.node.send_modify(Node::disconnect);
    }

    /// Drops the connections to all plugins and runs on: a kubelet does that when a plugin that has registered twice loses
    /// its first stream.
    pub fn drop_streams(&self) {
        self.state.streams_dropped.send_modify(|count| *count += 1);
    }

    /// What the plugins offer, as it changes.
    #[must_use]
    pub fn node(&self) -> watch::Receiver<Node> {
        self.state.node.subscribe()
    }

    /// How many devices the node has of a resource; none of an unknown one.
    #[must_use]
    pub fn counts(&self, resource: &str) -> Counts {
        self.state.node.borrow().counts(resource)
    }

    /// Waits until something is so, and returns how long that took.
    ///
    /// # Errors
    ///
    /// Fails when it is not so in time.
    pub async fn until(
        &self,
        limit: Duration,
        what: &str,
        is_so: impl FnMut(&Node) -> bool,
    ) -> Result<Duration, KubeletError> {
        let began = Instant::now();
        let mut node = self.node();
        match timeout(limit, node.wait_for(is_so)).await {
            Ok(Ok(_)) => Ok(began.elapsed()),
            _ => Err(KubeletError::Late {
                what: what.to_owned(),
                limit,
                seen: self.state.node.borrow().to_string(),
            }),
        }
    }

    /// Waits until a resource has so many devices, all and healthy ones, and returns how long that took.
    ///
    /// # Errors
    ///
    /// Fails when that is not so in time.
    pub async fn until_counts(
        &self,
        limit: Duration,
        resource: &str,
        capacity: usize,
        allocatable: usize,
    ) -> Result<Duration, KubeletError> {
        let counts = Counts {
            capacity,
            allocatable,
        };
        let what = format!("{resource} has {counts}");
        self.until(limit, &what, |node| node.counts(resource) == counts)
            .await
    }

    /// Begins a pod: makes its folder.
    ///
    /// # Errors
    ///
    /// Fails when the folder cannot be made.
    pub fn add_pod(&self, pod_uid: &str) -> Result<(), KubeletError> {
        let path = self.pods_dir().join(pod_uid);
        fs::create_dir_all(&path).map_err(|source| KubeletError::File { path, source })
    }

    /// Ends a pod: removes its folder. What it had stays on file until the next allocation, as with the kubelet.
    ///
    /// # Errors
    ///
    /// Fails when the folder cannot be removed.
    pub fn remove_pod(&self, pod_uid: &str) -> Result<(), KubeletError> {
        let path = self.pods_dir().join(pod_uid);
        fs::remove_dir_all(&path).map_err(|source| KubeletError::File { path, source })
    }

    /// Gives devices to a container of a pod that was [added](Self::add_pod). A container that has them gets the same.
    ///
    /// # Errors
    ///
    /// Fails when no plugin offers the resource, not enough is free, or the plugin refuses.
    pub async fn allocate(
        &self,
        pod_uid: &str,
        container: &str,
        resource: &str,
        count: usize,
    ) -> Result<Given, KubeletError> {
        self.state
            .allocate(pod_uid, container, resource, count)
            .await
    }

    /// Who has what.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.state.entries().clone()
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.kill();
    }
}

impl State {
    fn plugin_dir(&self) -> PathBuf {
        self.dir.join("device-plugins")
    }

    fn pods_dir(&self) -> PathBuf {
        self.dir.join("pods")
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn plugins(&self) -> MutexGuard<'_, Plugins> {
        self.plugins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the folder, and removes all files in it but the checkpoint.
    fn empty_folder(&self) -> Result<(), KubeletError> {
        let path = self.plugin_dir();
        let failed = |source| KubeletError::File {
            path: path.clone(),
            source,
        };
        fs::create_dir_all(&path).map_err(failed)?;
        fs::create_dir_all(self.pods_dir()).map_err(failed)?;
        for entry in fs::read_dir(&path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let is_folder = entry.file_type().map_err(failed)?.is_dir();
            if !is_folder && entry.file_name() != CHECKPOINT {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }
}

/// Removes a file, if it is there.
fn remove(path: &Path) -> Result<(), KubeletError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(KubeletError::File {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}
