//! The runner: one worker for each pod of this node.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::error_chain::chain;
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_change, unmount};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::cluster::Cluster;
use super::devices::DeviceSource;
use super::observed::Observed;
use super::options::{Options, is_file_name};
use super::volumes::on_disk;
use super::worker::{News, Site, Worker, release, remove_files};
use crate::sandbox::cgroup::Cgroups;
use crate::sandbox::host_image;
use crate::sandbox::image::ImageSource;
use crate::sandbox::mount_table::MountTable;

/// Pods that one answer to a list has at most.
const PAGE_SIZE: u32 = 200;

/// Why pods cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// The folders cannot be made.
    #[error("make the folder {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Mounts in pods' folders would not reach containers.
    #[error("share mounts below {}: running pods takes root", path.display())]
    Share {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The host's mounts cannot be read.
    #[error("find the control groups")]
    Cgroups(#[source] io::Error),
}

/// A container of a pod, for logs, exec and attach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerHandle {
    /// Its first process in the host's process namespace, while it runs.
    pub pid: Option<i32>,
    /// Its folder, to run programs in it ([`crate::sandbox::Exec::start`]).
    pub folder: PathBuf,
    /// The log of the current run.
    pub log_path: PathBuf,
    /// The log of the run before, if there was one.
    pub previous_log_path: Option<PathBuf>,
    /// File that holds the pod's network namespace; `None` for the host's.
    pub network: Option<PathBuf>,
    /// Whether it was given a terminal.
    pub has_terminal: bool,
    /// Whether it has ended; one that neither runs nor has ended was not started yet.
    pub has_ended: bool,
}

/// A worker, as the runner sees it.
struct Entry {
    namespace: String,
    name: String,
    news: watch::Sender<News>,
    observed: watch::Receiver<Arc<Observed>>,
}

/// Runs pods.
pub struct Runner {
    site: Arc<Site>,
    /// By uid. Not held across an await, nor while another lock is.
    workers: Mutex<HashMap<String, Entry>>,
}

impl Runner {
    /// Makes the folders of a node that runs pods. Blocks shortly.
    ///
    /// # Errors
    ///
    /// Fails when the folders cannot be made, or mounts in them cannot be shared with containers.
    pub fn new(
        options: Options,
        cluster: Arc<dyn Cluster>,
        images: Arc<dyn ImageSource>,
        devices: Arc<dyn DeviceSource>,
    ) -> Result<Arc<Self>, RunnerError> {
        for path in [
            options.pods_dir(),
            options.sandboxes_dir(),
            options.state.join("logs"),
        ] {
            fs::create_dir_all(&path).map_err(|source| RunnerError::Folder { path, source })?;
        }
        let path = options.pods_dir();
        share(&path).map_err(|source| RunnerError::Share { path, source })?;
        let cgroups = Cgroups::find(&options.cgroup_parent).map_err(RunnerError::Cgroups)?;
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let site = Site {
            options,
            cluster,
            images,
            devices,
            cgroups,
            starts: Semaphore::new(cores * 2),
        };
        Ok(Arc::new(Self {
            site: Arc::new(site),
            workers: Mutex::default(),
        }))
    }

    /// The settings.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.site.options
    }

    fn workers(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches the API for pods of this node, and runs them until stopped. Containers go on then, to be found by the next
    /// runner with the same state.
    pub async fn run(self: Arc<Self>, client: Client, stop: CancellationToken) {
        let api: Api<Pod> = Api::all(client);
        let config = watcher::Config::default()
            .fields(&format!("spec.nodeName={}", self.site.options.node))
            .page_size(PAGE_SIZE);
        let mut events = watcher(api, config).default_backoff().boxed();
        let mut listed = HashSet::new();
        while let Some(Some(event)) = stop.run_until_cancelled(events.next()).await {
            match event {
                Ok(watcher::Event::Init) => listed.clear(),
                Ok(watcher::Event::InitApply(pod)) => {
                    listed.extend(pod.metadata.uid.clone());
                    self.apply(pod);
                }
                Ok(watcher::Event::InitDone) => self.keep_only(&std::mem::take(&mut listed)).await,
                Ok(watcher::Event::Apply(pod)) => self.apply(pod),
                Ok(watcher::Event::Delete(pod)) => {
                    self.forget(pod.metadata.uid.as_deref().unwrap_or_default());
                }
                Err(error) => {
                    tracing::warn!(error = chain(&error), "cannot watch pods; will try again");
                }
            }
        }
    }

    /// Takes a pod as the API has it now. To be called on a tokio runtime.
    pub fn apply(&self, pod: Pod) {
        let metadata = &pod.metadata;
        let names = [&metadata.uid, &metadata.namespace, &metadata.name];
        let is_fine = |name: &Option<String>| name.as_deref().is_some_and(is_file_name);
        let uid = metadata.uid.clone().unwrap_or_default();
        if !names.into_iter().all(is_fine) {
            let name = metadata.name.as_deref();
            tracing::warn!(
                uid,
                name,
                "the pod has no name for a folder; it is left alone"
            );
            return;
        }
        let mut workers = self.workers();
        // One whose work is done stays as long as the API has the pod, lest another begins it anew.
        workers.retain(|_, entry| !entry.news.is_closed() || entry.news.borrow().is_some());
        if let Some(entry) = workers.get(&uid) {
            entry.news.send_replace(Some(Arc::new(pod)));
            return;
        }
        workers.insert(uid, self.employ(Arc::new(pod)));
    }

    fn employ(&self, pod: Arc<Pod>) -> Entry {
        let (news, hears) = watch::channel(Some(Arc::clone(&pod)));
        let (shown, observed) = watch::channel(Arc::new(Observed::new(Timestamp::now())));
        let [namespace, name] = [&pod.metadata.namespace, &pod.metadata.name]
            .map(|text| text.clone().unwrap_or_default());
        let worker = Worker::new(Arc::clone(&self.site), pod, hears, shown);
        tokio::spawn(Box::pin(worker.run()));
        Entry {
            namespace,
            name,
            news,
            observed,
        }
    }

    /// Ends a pod that the API has no more.
    pub fn forget(&self, uid: &str) {
        if let Some(entry) = self.workers().get(uid) {
            entry.news.send_replace(None);
        }
    }

    /// Ends all pods but these, those included that only their files tell of.
    pub async fn keep_only(&self, uids: &HashSet<String>) {
        let unwanted: Vec<_> = self
            .workers()
            .keys()
            .filter(|uid| !uids.contains(*uid))
            .cloned()
            .collect();
        for uid in &unwanted {
            self.forget(uid);
        }
        let known: HashSet<_> = self.workers().keys().cloned().collect();
        let site = Arc::clone(&self.site);
        let cleaned = on_disk(move || clean_except(&site.options, &site.cgroups, &known)).await;
        match cleaned {
            Ok(uids) => uids.iter().for_each(|uid| self.site.devices.release(uid)),
            Err(error) => tracing::warn!(%error, "cannot remove all that earlier pods left"),
        }
    }

    /// Returns a container of a pod.
    #[must_use]
    pub fn container(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
    ) -> Option<ContainerHandle> {
        let workers = self.workers();
        let (uid, entry) = newest(&workers, namespace, pod)?;
        let news = entry.news.borrow().clone()?;
        let observed = Arc::clone(&entry.observed.borrow());
        let spec = news.spec.as_ref()?;
        let mut all = super::plan::init_containers(spec)
            .iter()
            .chain(&spec.containers);
        let wanted = all.find(|wanted| wanted.name == container && is_file_name(container))?;
        let runs = observed.runs(container);
        let run = runs.count.saturating_sub(1);
        let options = &self.site.options;
        let log = |run: u32| {
            options
                .log_dir(namespace, pod, uid)
                .join(container)
                .join(format!("{run}.log"))
        };
        Some(ContainerHandle {
            pid: runs.started().map(|started| started.process.pid),
            folder: options.container_dir(uid, container, run),
            log_path: log(run),
            previous_log_path: run.checked_sub(1).map(log),
            network: (spec.host_network != Some(true))
                .then(|| options.sandbox_dir(uid).join("net")),
            has_terminal: wanted.tty == Some(true),
            has_ended: runs.finished().is_some(),
        })
    }

    /// Returns the file that holds the network namespace of a pod, `None` inside for the host's.
    #[must_use]
    pub fn network(&self, namespace: &str, pod: &str) -> Option<Option<PathBuf>> {
        let workers = self.workers();
        let (uid, entry) = newest(&workers, namespace, pod)?;
        let news = entry.news.borrow().clone()?;
        let is_host = news.spec.as_ref()?.host_network == Some(true);
        Some((!is_host).then(|| self.site.options.sandbox_dir(uid).join("net")))
    }

    /// Returns what is known of a pod.
    #[must_use]
    pub fn observed(&self, uid: &str) -> Option<Arc<Observed>> {
        self.workers()
            .get(uid)
            .map(|entry| Arc::clone(&entry.observed.borrow()))
    }

    /// Ends all pods at once and removes everything of them: for `ferrovirt down`. Blocks until done.
    ///
    /// # Errors
    ///
    /// Fails when something cannot be removed.
    pub async fn end_all(&self) -> io::Result<()> {
        self.keep_only(&HashSet::new()).await;
        let ending: Vec<_> = self
            .workers()
            .values()
            .map(|entry| entry.news.clone())
            .collect();
        for news in ending {
            news.closed().await;
        }
        let site = Arc::clone(&self.site);
        on_disk(move || remove_all_with(&site.options, &site.cgroups)).await
    }
}

/// Removes everything that pods left in a state folder whose runner is gone: processes, mounts, control groups, files.
/// Blocks.
///
/// # Errors
///
/// Fails when something cannot be removed.
pub fn remove_all(options: &Options) -> io::Result<()> {
    let cgroups = Cgroups::find(&options.cgroup_parent)?;
    remove_all_with(options, &cgroups)
}

fn remove_all_with(options: &Options, cgroups: &Cgroups) -> io::Result<()> {
    clean_except(options, cgroups, &HashSet::new())?;
    unshare_folder(&options.pods_dir())?;
    // Nobody runs any of the launchers that were kept for containers.
    host_image::forget(&options.state)
}

/// Returns the uids of the pods whose leavings were removed.
/// Returns the pod of a name: one that ends and its successor may have the same.
fn newest<'a>(
    workers: &'a HashMap<String, Entry>,
    namespace: &str,
    pod: &str,
) -> Option<(&'a String, &'a Entry)> {
    let of_name = workers
        .iter()
        .filter(|(_, entry)| entry.namespace == namespace && entry.name == pod);
    of_name.max_by_key(|(_, entry)| entry.observed.borrow().since)
}

fn clean_except(
    options: &Options,
    cgroups: &Cgroups,
    wanted: &HashSet<String>,
) -> io::Result<Vec<String>> {
    let mut uids = HashSet::new();
    for folder in [options.sandboxes_dir(), options.pods_dir()] {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        uids.extend(entries.map(|entry| entry.file_name().to_string_lossy().into_owned()));
    }
    let unwanted: Vec<_> = uids.difference(wanted).cloned().collect();
    for uid in &unwanted {
        tracing::info!(uid, "removing what an earlier pod left");
        release(options, cgroups, uid)?;
        remove_files(options, uid, None)?;
    }
    Ok(unwanted)
}

/// Makes what is mounted below a folder visible in containers.
fn share(folder: &Path) -> io::Result<()> {
    let table = MountTable::read()?;
    let is_shared = table
        .entries
        .iter()
        .any(|entry| entry.point == folder && entry.is_shared);
    if is_shared {
        return Ok(());
    }
    if !table.is_mount_point(folder) {
        mount_bind(folder, folder)?;
    }
    Ok(mount_change(folder, MountPropagationFlags::SHARED)?)
}

fn unshare_folder(folder: &Path) -> io::Result<()> {
    if MountTable::read()?.is_mount_point(folder) {
        unmount(folder, UnmountFlags::DETACH)?;
    }
    Ok(())
}
