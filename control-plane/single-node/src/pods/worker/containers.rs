//! Starting containers, and noting how they end.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};
use tokio::time::sleep;

use super::minder::Happening;
use super::{Site, Worker, again, in_turn};
use crate::pods::devices::{Allocation, is_device};
use crate::pods::environment::{Surroundings, units, variables};
use crate::pods::observed::{Finished, Refusal};
use crate::pods::plan::init_containers;
use crate::pods::probes::{self, Subject};
use crate::pods::spec::{Parts, SpecError, cpu_request, message_path};
use crate::pods::volumes::{on_disk, pull_policy};
use crate::sandbox::container::{Container as Run, Fresh, Life};
use crate::sandbox::host_image;
use crate::sandbox::image::{Image, ImageError, ImageRequest};
use crate::sandbox::namespaces;
use crate::sandbox::record::Ended;

/// Most bytes of a container's last words.
const MESSAGE_LEN_MAX_BYTES: u64 = 4096;
/// Most bytes of the log that stand for last words.
const LOG_TAIL_LEN_BYTES: u64 = 2048;

/// A pod that starts has this share of processor time, in thousandths of a processor, for this long: else a machine would
/// start the slower the more others boot, since each asks for little and uses all there is.
const HEAD_START_MILLI: u64 = 20_000;
const HEAD_START: Duration = Duration::from_millis(1500);

/// Why a container does not start, with the word for it that Kubernetes has.
struct Obstacle {
    reason: &'static str,
    message: String,
    /// Whether trying again is of no use.
    is_final: bool,
}

impl Obstacle {
    fn new(reason: &'static str, message: &dyn std::fmt::Display) -> Self {
        Self {
            reason,
            message: message.to_string(),
            is_final: false,
        }
    }
}

/// What is needed beside the pod.
struct Gathered {
    image: Image,
    variables: Vec<(String, String)>,
    allocation: Allocation,
}

impl Worker {
    fn container(&self, name: &str) -> Option<Container> {
        let spec = self.pod.spec.as_ref()?;
        let mut all = init_containers(spec).iter().chain(&spec.containers);
        all.find(|container| container.name == name).cloned()
    }

    pub(super) fn pre_stop(&self, container: &str) -> Option<LifecycleHandler> {
        self.container(container)?.lifecycle?.pre_stop
    }

    /// Starts a container.
    pub(super) async fn start(&mut self, name: &str) {
        let Some(container) = self.container(name) else {
            return;
        };
        if self.volumes.is_none() {
            // After a restart of this program, nothing was to be started until now.
            self.observed.is_prepared = false;
            self.prepare().await;
            return;
        }
        let run = self.observed.runs(name).count;
        let gathering = gather(
            Arc::clone(&self.site),
            Arc::clone(&self.pod),
            container.clone(),
            self.secrets.clone(),
        );
        let Some(gathered) = self.patiently(gathering).await else {
            return;
        };
        match gathered {
            Ok(gathered) => self.start_with(container, gathered, run).await,
            Err(obstacle) if obstacle.is_final => {
                self.refuse(Refusal {
                    reason: obstacle.reason.to_owned(),
                    message: obstacle.message,
                })
                .await;
            }
            Err(obstacle) => self.hold_back(name, &obstacle),
        }
    }

    /// Notes that a container cannot start yet.
    fn hold_back(&mut self, name: &str, obstacle: &Obstacle) {
        let before = self.observed.runs(name).setback.clone();
        let reason = again(obstacle.reason, before.is_some());
        self.warn("Failed", &obstacle.message, Some(name));
        let setback = self.setback(before.as_ref(), reason, obstacle.message.clone());
        self.observed.runs_mut(name).setback = Some(setback);
    }

    async fn start_with(&mut self, container: Container, gathered: Gathered, run: u32) {
        let name = container.name.clone();
        let image_id = gathered.image.digest.clone();
        let started = self.launch(&container, gathered, run).await;
        match started {
            Ok(fresh) => {
                self.end_head_start(HEAD_START);
                self.observed.runs_mut(&name).begin(
                    fresh.started.clone(),
                    image_id,
                    probes::before(&container),
                );
                self.minders.wait_for_end(
                    &name,
                    run,
                    fresh.started.keeper.clone(),
                    Some(fresh.keeper),
                );
                if let Some(hook) = post_start(&container) {
                    let folder = self.site.options.container_dir(&self.uid(), &name, run);
                    let ferrovirt = self.site.options.ferrovirt.clone();
                    self.minders.run_after_start(&name, hook, ferrovirt, folder);
                }
                self.start_probing(container, run);
                self.normal("Started", &format!("Started container {name}"), &name);
                tracing::info!(
                    pod = self.name(),
                    container = name,
                    run,
                    pid = fresh.started.process.pid,
                    "started container"
                );
            }
            Err(LaunchError::Spec(error)) => {
                self.hold_back(&name, &Obstacle::new("CreateContainerConfigError", &error));
            }
            Err(LaunchError::Start(error)) => {
                self.warn("Failed", &format!("Error: {error}"), Some(&name));
                let ended = Ended::failed(Timestamp::now(), error.to_string());
                self.end_run(
                    &name,
                    Finished {
                        started_at: None,
                        ended,
                        message: None,
                    },
                );
                self.observed.runs_mut(&name).image_id = image_id;
            }
        }
    }

    /// Gives the pod the share of processor time that it asks for, after a while.
    pub(super) fn end_head_start(&self, after: Duration) {
        let (site, uid, milli) = (Arc::clone(&self.site), self.uid(), cpu_request(&self.pod));
        tokio::spawn(async move {
            sleep(after).await;
            // What the host does not allow was told when it started.
            let _told = on_disk(move || site.cgroups.weigh(&uid, milli)).await;
        });
    }

    async fn launch(
        &self,
        container: &Container,
        gathered: Gathered,
        run: u32,
    ) -> Result<Fresh, LaunchError> {
        let (site, pod) = (Arc::clone(&self.site), Arc::clone(&self.pod));
        let (container, volumes) = (container.clone(), self.volumes.clone().unwrap_or_default());
        let namespaces = self.namespaces.clone();
        let launched = in_turn(&self.site, move || {
            let uid = pod.metadata.uid.as_deref().unwrap_or_default();
            let shm = namespaces
                .ipc
                .is_some()
                .then(|| namespaces::shm(&site.options.sandbox_dir(uid)));
            let parts = Parts {
                options: &site.options,
                pod: &pod,
                container: &container,
                image: &gathered.image,
                volumes: &volumes,
                allocation: &gathered.allocation,
                variables: gathered.variables,
                namespaces,
                shm,
                run,
            };
            Ok(launch(&site, &parts))
        });
        launched.await.map_err(LaunchError::Start)?
    }

    pub(super) fn start_probing(&mut self, container: Container, run: u32) {
        if !probes::has_any(&container) {
            return;
        }
        let folder = self
            .site
            .options
            .container_dir(&self.uid(), &container.name, run);
        let network = self.namespaces.net.clone();
        let ferrovirt = self.site.options.ferrovirt.clone();
        let found = self.observed.runs(&container.name).probed;
        self.minders.probe(
            run,
            Subject {
                ferrovirt,
                folder,
                network,
                container,
                found,
            },
        );
    }

    /// Notes that a run has ended.
    pub(super) async fn note_end(&mut self, container: &str, run: u32) {
        let runs = self.observed.runs(container);
        if runs.started().is_none() || runs.count != run + 1 {
            return;
        }
        self.minders.stop_probing(container);
        let Some(finished) = self.finished(container, run).await else {
            // It runs after all, or its notes cannot be read just now.
            self.minders.look_again(Happening::Ended {
                container: container.to_owned(),
                run,
            });
            return;
        };
        let code = finished.ended.code;
        tracing::info!(pod = self.name(), container, run, code, "container ended");
        self.end_run(container, finished);
    }

    fn end_run(&mut self, container: &str, finished: Finished) {
        let reset_after = self.site.options.timing.backoff_reset;
        self.observed.runs_mut(container).end(finished, reset_after);
        if self.observed.runs(container).crashes == 2 {
            self.warn(
                "BackOff",
                &format!("Back-off restarting failed container {container}"),
                Some(container),
            );
        }
    }

    /// Reads how a run ended, with its last words.
    pub(super) async fn finished(&self, name: &str, run: u32) -> Option<Finished> {
        let folder = self.site.options.container_dir(&self.uid(), name, run);
        let container = self.container(name).unwrap_or_default();
        let words = message_path(&self.site.options.pod_dir(&self.uid()), name, run);
        let found = on_disk(move || finished(folder, &words, &container)).await;
        found.unwrap_or_else(|error| {
            tracing::warn!(pod = self.name(), container = name, %error, "cannot read how the container ended");
            None
        })
    }
}

fn post_start(container: &Container) -> Option<LifecycleHandler> {
    container.lifecycle.as_ref()?.post_start.clone()
}

/// Why a container was not started.
enum LaunchError {
    /// The pod asks for what is not possible.
    Spec(SpecError),
    /// It could not be started.
    Start(io::Error),
}

fn launch(site: &Site, parts: &Parts<'_>) -> Result<Fresh, LaunchError> {
    let uid = parts.pod.metadata.uid.as_deref().unwrap_or_default();
    let name = &parts.container.name;
    let is_privileged = parts
        .container
        .security_context
        .as_ref()
        .is_some_and(|context| context.privileged == Some(true));
    let limits = parts.limits(is_privileged).map_err(LaunchError::Spec)?;
    let (group, mut missing) = site.cgroups.make(uid, name, &limits);
    let favoured = site.cgroups.weigh(uid, HEAD_START_MILLI);
    missing.extend(favoured.err().map(|error| format!("cpu: {error}")));
    warn_once(&missing);
    let spec = parts.assemble(&group).map_err(LaunchError::Spec)?;
    let folder = site.options.container_dir(uid, name, parts.run);
    forget_older(&folder, &spec.log, parts.run);
    Run::at(folder)
        .start(&site.options.ferrovirt, &spec)
        .map_err(LaunchError::Start)
}

/// Says once what of control groups this host does not have.
fn warn_once(missing: &[String]) {
    static WARNED: std::sync::Once = std::sync::Once::new();
    if !missing.is_empty() {
        let missing = missing.join("; ");
        WARNED.call_once(|| {
            tracing::warn!(
                missing,
                "containers run without some limits, as this host does not allow them"
            );
        });
    }
}

/// Removes runs and logs before the last.
fn forget_older(folder: &Path, log: &Path, run: u32) {
    let (Some(runs), Some(logs), Some(old)) = (folder.parent(), log.parent(), run.checked_sub(2))
    else {
        return;
    };
    // What is not there any more need not be removed.
    let _gone = fs::remove_dir_all(runs.join(old.to_string()));
    for name in [format!("{old}.log"), format!("{old}.log.1")] {
        let _gone = fs::remove_file(logs.join(name));
    }
}

/// Fetches image, environment and devices.
async fn gather(
    site: Arc<Site>,
    pod: Arc<Pod>,
    container: Container,
    secrets: Vec<crate::sandbox::image::PullSecret>,
) -> Result<Gathered, Obstacle> {
    let reference = container.image.as_deref().unwrap_or_default();
    let pull = pull_policy(container.image_pull_policy.as_deref(), reference);
    let request = ImageRequest {
        reference,
        pull,
        secrets: &secrets,
    };
    let image = image(&site, request).await;
    let image = image.map_err(|error| Obstacle::new(error.reason(), &error))?;
    let around = Surroundings {
        node: &site.options.node,
        host_ip: site.options.host_ip.as_deref(),
    };
    let variables = variables(&pod, &container, &image.env, &*site.cluster, around).await;
    let variables =
        variables.map_err(|error| Obstacle::new("CreateContainerConfigError", &error))?;
    let limits = container
        .resources
        .as_ref()
        .and_then(|resources| resources.limits.clone())
        .unwrap_or_default();
    let wanted = limits
        .iter()
        .filter(|(name, _)| is_device(name))
        .map(|(name, amount)| (name.clone(), units(amount)));
    let wanted: std::collections::BTreeMap<_, _> = wanted.filter(|(_, count)| *count > 0).collect();
    let allocation = if wanted.is_empty() {
        Allocation::default()
    } else {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let allocated = site.devices.allocate(uid, &container.name, &wanted).await;
        allocated.map_err(|error| Obstacle {
            is_final: true,
            ..Obstacle::new(
                "UnexpectedAdmissionError",
                &format!("Allocate failed due to {error}"),
            )
        })?
    };
    Ok(Gathered {
        image,
        variables,
        allocation,
    })
}

/// Our own components' image is built in; others are the source's.
async fn image(site: &Site, request: ImageRequest<'_>) -> Result<Image, ImageError> {
    if !host_image::is_built_in(request.reference) {
        return site.images.resolve(request).await;
    }
    let (launcher, state) = (site.options.launcher.clone(), site.options.state.clone());
    let resolved = on_disk(move || Ok(host_image::resolve(&launcher, &state))).await;
    resolved.unwrap_or_else(|error| {
        Err(ImageError::Failed {
            reference: request.reference.to_owned(),
            reason: error.to_string(),
        })
    })
}

fn finished(folder: PathBuf, words: &Path, container: &Container) -> io::Result<Option<Finished>> {
    let run = Run::at(folder);
    let Life::Ended { started, ended } = run.life()? else {
        return Ok(None);
    };
    if !run.folder().join(crate::sandbox::record::ENDED).exists() {
        run.note_end(&ended)?;
    }
    let message = read_end(words, MESSAGE_LEN_MAX_BYTES).unwrap_or_default();
    let falls_back =
        container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
    let message = if message.is_empty() && falls_back && ended.code != 0 {
        run.spec()?
            .map_or(String::new(), |spec| log_tail(&spec.log))
    } else {
        message
    };
    let message = (!message.is_empty()).then_some(message);
    Ok(Some(Finished {
        started_at: started.map(|started| started.at),
        ended,
        message,
    }))
}

/// Reads the end of a file.
fn read_end(path: &Path, len_bytes: u64) -> io::Result<String> {
    let mut file = fs::File::open(path)?;
    let skipped = file.metadata()?.len().saturating_sub(len_bytes);
    file.seek(SeekFrom::Start(skipped))?;
    let mut bytes = Vec::new();
    file.take(len_bytes).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn log_tail(log: &Path) -> String {
    let text = read_end(log, LOG_TAIL_LEN_BYTES).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.splitn(4, ' ').nth(3));
    lines.collect::<Vec<_>>().join("\n")
}
