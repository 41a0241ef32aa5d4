//! What a pod has on disk: found after a restart of this program, and removed when the pod is gone.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStatus};
use rustix::mount::{UnmountFlags, unmount};
use serde::{Deserialize, Serialize};

use super::{Worker, in_turn};
use crate::pods::observed::{Current, Finished, Probed, Refusal};
use crate::pods::options::Options;
use crate::pods::plan::init_containers;
use crate::pods::probes;
use crate::pods::spec::{hostname, write_etc};
use crate::pods::volumes::on_disk;
use crate::sandbox::cgroup::Cgroups;
use crate::sandbox::container::{Container as Run, Life};
use crate::sandbox::mount_table::MountTable;
use crate::sandbox::namespaces::{self, Shared};
use crate::sandbox::record::{self, Ended, Started};

/// Name of the note on a pod in its sandbox's folder.
const POD: &str = "pod.json";

/// How often a container that was being started when this program ended is looked at.
const STARTING_LOOKS_MAX: usize = 1000;
/// Time between such looks: keepers take milliseconds.
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// What is noted of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct PodNote {
    namespace: String,
    name: String,
    since: Timestamp,
    is_released: bool,
    refused: Option<(String, String)>,
}

/// What was found of a pod: the note, and the runs of its containers.
type FoundPod = (PodNote, BTreeMap<String, Vec<Found>>);

/// A run that was found.
struct Found {
    run: u32,
    life: Life,
    image_id: String,
}

impl Worker {
    /// Notes what must be known after a restart.
    pub(super) async fn save(&self) {
        let note = PodNote {
            namespace: self.namespace(),
            name: self.name(),
            since: self.observed.since,
            is_released: self.observed.is_released,
            refused: self
                .observed
                .refused
                .clone()
                .map(|refusal| (refusal.reason, refusal.message)),
        };
        let folder = self.site.options.sandbox_dir(&self.uid());
        let saved = on_disk(move || {
            fs::create_dir_all(&folder)?;
            record::write(&folder, POD, &note)
        });
        if let Err(error) = saved.await {
            tracing::warn!(pod = self.name(), %error, "cannot note the pod");
        }
    }

    /// Makes the pod's namespaces, and the files that its containers share.
    pub(super) async fn make_namespaces(&mut self) -> io::Result<()> {
        let (site, pod) = (Arc::clone(&self.site), Arc::clone(&self.pod));
        let made = in_turn(&self.site, move || {
            let uid = pod.metadata.uid.as_deref().unwrap_or_default();
            let folder = site.options.sandbox_dir(uid);
            fs::create_dir_all(&folder)?;
            write_etc(&site.options.pod_dir(uid), &pod)?;
            namespaces::prepare(&folder, shared(&pod), &hostname(&pod))
        });
        self.namespaces = made.await?;
        Ok(())
    }

    /// Finds what runs already, or has run.
    pub(super) async fn find_what_runs(&mut self) {
        let folder = self.site.options.sandbox_dir(&self.uid());
        let found = on_disk(move || find(&folder)).await;
        match found {
            Ok(Some((note, containers))) => self.adopt(note, containers).await,
            Ok(None) => self.believe_status(),
            Err(error) => {
                tracing::warn!(pod = self.name(), %error, "cannot read what is known of the pod");
            }
        }
    }

    async fn adopt(&mut self, note: PodNote, containers: BTreeMap<String, Vec<Found>>) {
        self.observed.since = note.since;
        self.observed.is_released = note.is_released;
        self.observed.refused = note
            .refused
            .map(|(reason, message)| Refusal { reason, message });
        for (name, runs) in containers {
            for found in runs {
                self.adopt_run(&name, found).await;
            }
        }
        self.observed.is_prepared = !self.observed.is_released && self.needs_nothing_more();
        let uid = self.uid();
        let folder = self.site.options.sandbox_dir(&uid);
        self.namespaces.net = (!shared(&self.pod).is_net_host).then(|| folder.join("net"));
        self.end_head_start(Duration::ZERO);
        tracing::info!(
            pod = self.name(),
            uid,
            running = self.observed.has_running(),
            "found pod"
        );
    }

    async fn adopt_run(&mut self, name: &str, found: Found) {
        let Found {
            run,
            life,
            image_id,
        } = found;
        self.observed.runs_mut(name).count = run;
        match life {
            Life::None => {}
            Life::Starting => {
                let life = self.wait_for_start(name, run).await;
                let found = Found {
                    run,
                    life,
                    image_id,
                };
                Box::pin(self.adopt_run(name, found)).await;
            }
            Life::Running(started) => {
                let container = self.spec_of(name);
                let found = self.told_probes(&container);
                let runs = self.observed.runs_mut(name);
                runs.begin(started.clone(), image_id, found);
                self.minders.wait_for_end(name, run, started.keeper, None);
                self.start_probing(container, run);
            }
            Life::Ended { started, ended } => {
                let read = self.finished(name, run).await;
                let started_at = started.as_ref().map(|started: &Started| started.at);
                let finished = read.unwrap_or(Finished {
                    started_at,
                    ended,
                    message: None,
                });
                let reset_after = self.site.options.timing.backoff_reset;
                let runs = self.observed.runs_mut(name);
                runs.end(finished, reset_after);
                runs.count = run + 1;
                runs.image_id = image_id;
            }
        }
    }

    /// What the API says that a container's probes have found; nobody has looked since.
    fn told_probes(&self, container: &Container) -> Probed {
        let all = self.pod.status.iter().flat_map(|status| {
            let main = status.container_statuses.iter();
            main.chain(&status.init_container_statuses).flatten()
        });
        let mut running = all.filter(|told| {
            let state = told.state.as_ref();
            state.is_some_and(|state| state.running.is_some())
        });
        let before = probes::before(container);
        running
            .find(|told| told.name == container.name)
            .map_or(before, |told| Probed {
                has_started: told.started == Some(true) || before.has_started,
                is_ready: told.ready || before.is_ready,
                is_unhealthy: false,
            })
    }

    /// Waits until a container's keeper has prepared it, or has not for too long.
    async fn wait_for_start(&self, name: &str, run: u32) -> Life {
        let folder = self.site.options.container_dir(&self.uid(), name, run);
        for _ in 0..STARTING_LOOKS_MAX {
            let container = Run::at(folder.clone());
            match on_disk(move || container.life()).await {
                Ok(Life::Starting) => tokio::time::sleep(BETWEEN_LOOKS).await,
                Ok(life) => return life,
                Err(_) => break,
            }
        }
        let started = None;
        let ended = Ended::failed(
            Timestamp::now(),
            "the container's keeper does not start it".to_owned(),
        );
        Life::Ended { started, ended }
    }

    fn spec_of(&self, name: &str) -> Container {
        let spec = self.pod.spec.clone().unwrap_or_default();
        let mut all = init_containers(&spec).iter().chain(&spec.containers);
        all.find(|container| container.name == name)
            .cloned()
            .unwrap_or_default()
    }

    /// Whether all containers have begun, so that volumes need not be looked at before one is to begin again.
    fn needs_nothing_more(&self) -> bool {
        let containers = self.pod.spec.iter().flat_map(|spec| &spec.containers);
        containers
            .into_iter()
            .all(|container| self.observed.runs(&container.name).count > 0)
    }

    /// Without any note, what the API says has run is not run anew: this node has lost it.
    fn believe_status(&mut self) {
        let pod = Arc::clone(&self.pod);
        let status = pod.status.as_ref();
        let all = status.iter().flat_map(|status| {
            status
                .container_statuses
                .iter()
                .chain(&status.init_container_statuses)
        });
        for told in all.flatten() {
            let Some(finished) = lost(told) else { continue };
            let runs = self.observed.runs_mut(&told.name);
            runs.count = u32::try_from(told.restart_count).unwrap_or(0) + 1;
            runs.current = Current::Ended(finished);
            runs.image_id.clone_from(&told.image_id);
        }
    }

    /// Lets go what the pod held.
    pub(super) async fn release(&mut self) {
        let (site, uid) = (Arc::clone(&self.site), self.uid());
        let released = on_disk(move || release(&site.options, &site.cgroups, &uid)).await;
        if let Err(error) = released {
            tracing::warn!(pod = self.name(), %error, "cannot let go all that the pod held; trying again");
            tokio::time::sleep(self.site.options.timing.retry).await;
            return;
        }
        self.site.devices.release(&self.uid());
        self.observed.is_released = true;
        self.observed.is_prepared = false;
        self.volumes = None;
        self.refresh_at = None;
        if !self.is_gone {
            self.save().await;
        }
    }

    /// Tells the API that the pod is gone, and removes its files.
    pub(super) async fn delete(&mut self) {
        if !self.is_gone {
            self.tell().await;
            let deleted = self
                .site
                .cluster
                .delete(&self.namespace(), &self.name(), &self.uid())
                .await;
            if let Err(error @ crate::pods::cluster::ClusterError::Failed { .. }) = deleted {
                tracing::warn!(pod = self.name(), %error, "cannot delete the pod; trying again");
                tokio::time::sleep(self.site.options.timing.retry).await;
                return;
            }
        }
        let (site, uid) = (Arc::clone(&self.site), self.uid());
        let (namespace, name) = (self.namespace(), self.name());
        let removed =
            on_disk(move || remove_files(&site.options, &uid, Some((&namespace, &name)))).await;
        if let Err(error) = removed {
            tracing::warn!(pod = self.name(), %error, "cannot remove the pod's files; trying again");
            tokio::time::sleep(self.site.options.timing.retry).await;
            return;
        }
        tracing::info!(pod = self.name(), "pod is gone");
        self.observed.is_deleted = true;
    }
}

fn shared(pod: &k8s_openapi::api::core::v1::Pod) -> Shared {
    let spec = pod.spec.as_ref();
    let is = |field: Option<bool>| field == Some(true);
    Shared {
        is_net_host: spec.is_some_and(|spec| is(spec.host_network)),
        is_ipc_host: spec.is_some_and(|spec| is(spec.host_ipc)),
        is_pid_host: spec.is_some_and(|spec| is(spec.host_pid)),
    }
}

/// Returns how a container has ended that the API knows and this node does not; `None` when it never began.
fn lost(told: &ContainerStatus) -> Option<Finished> {
    let state = told.state.clone().unwrap_or_default();
    if let Some(terminated) = state.terminated {
        let reason = terminated.reason.as_deref();
        let is_failure = reason == Some("StartError");
        let message = terminated.message.clone();
        let ended = Ended {
            code: terminated.exit_code,
            signal: terminated.signal,
            at: terminated
                .finished_at
                .map_or_else(Timestamp::now, |time| time.0),
            is_out_of_memory: reason == Some("OOMKilled"),
            failure: terminated.message.filter(|_| is_failure),
        };
        let started_at = terminated.started_at.map(|time| time.0);
        return Some(Finished {
            started_at,
            ended,
            message: message.filter(|_| !is_failure),
        });
    }
    let started_at = state.running?.started_at.map(|time| time.0);
    let ended = Ended::unseen(Timestamp::now());
    Some(Finished {
        started_at,
        ended,
        message: None,
    })
}

fn find(folder: &Path) -> io::Result<Option<FoundPod>> {
    let Some(note) = record::read(folder, POD)? else {
        return Ok(None);
    };
    let mut containers = BTreeMap::new();
    for name in names(&folder.join("containers"))? {
        let runs = folder.join("containers").join(&name);
        let mut numbers: Vec<u32> = names(&runs)?
            .iter()
            .filter_map(|run| run.parse().ok())
            .collect();
        numbers.sort_unstable();
        let mut found = Vec::new();
        for run in numbers {
            let container = Run::at(runs.join(run.to_string()));
            let image_id = container
                .spec()?
                .map(|spec| spec.image_id)
                .unwrap_or_default();
            found.push(Found {
                run,
                life: container.life()?,
                image_id,
            });
        }
        containers.insert(name, found);
    }
    Ok(Some((note, containers)))
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    names.collect()
}

/// Ends what still runs of a pod, and lets its namespaces, control groups and mounts go. Blocks.
pub(in crate::pods) fn release(options: &Options, cgroups: &Cgroups, uid: &str) -> io::Result<()> {
    let sandbox = options.sandbox_dir(uid);
    kill_all(&sandbox)?;
    cgroups.remove(uid)?;
    namespaces::remove(&sandbox)?;
    unmount_below(&options.pod_dir(uid))?;
    for name in names(&sandbox.join("containers"))? {
        let runs = sandbox.join("containers").join(name);
        for run in names(&runs)? {
            for layer in ["upper", "work", "root", "memory"] {
                remove_folder(&runs.join(&run).join(layer))?;
            }
        }
    }
    Ok(())
}

/// Kills containers by their notes, and waits for their keepers to note it. Without control groups nothing else does.
fn kill_all(sandbox: &Path) -> io::Result<()> {
    for name in names(&sandbox.join("containers"))? {
        let runs = sandbox.join("containers").join(name);
        for run in names(&runs)? {
            if let Life::Running(started) = started_life(&Run::at(runs.join(run)))? {
                started.process.signal(rustix::process::Signal::KILL)?;
                wait_for_end(&started)?;
            }
        }
    }
    Ok(())
}

/// Returns what became of a container, once its keeper has prepared it.
fn started_life(container: &Run) -> io::Result<Life> {
    for _ in 0..STARTING_LOOKS_MAX {
        match container.life()? {
            // Notes tell nobody that they are written.
            Life::Starting => std::thread::park_timeout(BETWEEN_LOOKS),
            life => return Ok(life),
        }
    }
    Err(io::Error::other(format!(
        "the keeper of {} does not get on",
        container.folder().display()
    )))
}

/// Longest time for which a killed container's keeper is waited.
const KEEPER_PATIENCE_S: i64 = 5;

fn wait_for_end(started: &Started) -> io::Result<()> {
    let Ok(held) = started.keeper.hold() else {
        return Ok(());
    };
    let limit = rustix::event::Timespec {
        tv_sec: KEEPER_PATIENCE_S,
        tv_nsec: 0,
    };
    let mut polled = [rustix::event::PollFd::new(
        &held,
        rustix::event::PollFlags::IN,
    )];
    rustix::event::poll(&mut polled, Some(&limit))?;
    Ok(())
}

fn unmount_below(folder: &Path) -> io::Result<()> {
    for point in MountTable::read()?.below(folder) {
        match unmount(&point, UnmountFlags::DETACH) {
            // Whoever else mounted there may unmount at the same time.
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Removes all files of a pod, its logs too when its name is known. Blocks.
pub(in crate::pods) fn remove_files(
    options: &Options,
    uid: &str,
    named: Option<(&str, &str)>,
) -> io::Result<()> {
    let folder = options.pod_dir(uid);
    unmount_below(&folder)?;
    // Nothing that is mounted may be taken for the pod's own.
    if !MountTable::read()?.below(&folder).is_empty() {
        return Err(io::Error::other(
            "something was mounted into the pod's folder meanwhile",
        ));
    }
    remove_folder(&folder)?;
    let sandbox = options.sandbox_dir(uid);
    let note: Option<PodNote> = record::read(&sandbox, POD)?;
    let noted = note
        .as_ref()
        .map(|note| (note.namespace.as_str(), note.name.as_str()));
    if let Some((namespace, name)) = named.or(noted) {
        remove_folder(&options.log_dir(namespace, name, uid))?;
    }
    remove_folder(&sandbox)
}

fn remove_folder(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
