//! One pod: its worker owns what is known of it, and does what is planned.

mod containers;
mod files;
mod minder;
mod telling;

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use rustix::process::Signal;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep_until};

pub(super) use self::files::{release, remove_files};
use self::minder::{Happening, Minders};
use super::cluster::Cluster;
use super::devices::DeviceSource;
use super::observed::{Observed, Refusal, Setback, Stopping};
use super::options::{Options, is_file_name};
use super::plan::{Action, after, init_containers, plan};
use super::status::is_image_reason;
use super::volumes::{Maker, Ready, Tokens, VolumeError, on_disk};
use crate::sandbox::cgroup::Cgroups;
use crate::sandbox::image::{ImageSource, PullSecret};
use crate::sandbox::spec::Namespaces;

/// Happenings of a pod that wait to be heard: more than its containers tell at once.
const HAPPENINGS_MAX: usize = 64;
/// Longest time for which is slept at once; waking up for nothing costs nothing at this rate.
const SLEEP_MAX_S: u64 = 3600;

/// What all workers share.
pub(super) struct Site {
    pub(super) options: Options,
    pub(super) cluster: Arc<dyn Cluster>,
    pub(super) images: Arc<dyn ImageSource>,
    pub(super) devices: Arc<dyn DeviceSource>,
    pub(super) cgroups: Cgroups,
    /// How many containers are started at the same time: more would only slow each other down.
    pub(super) starts: Semaphore,
}

/// What the API says of the pod; `None` when it is gone there.
pub(super) type News = Option<Arc<Pod>>;

/// The worker of a pod.
pub(super) struct Worker {
    site: Arc<Site>,
    pod: Arc<Pod>,
    news: watch::Receiver<News>,
    /// The API does not have the pod any more.
    is_gone: bool,
    observed: Observed,
    shown: watch::Sender<Arc<Observed>>,
    volumes: Option<BTreeMap<String, Ready>>,
    namespaces: Namespaces,
    secrets: Vec<PullSecret>,
    tokens: Arc<Tokens>,
    told: Option<PodStatus>,
    events: HashMap<String, String>,
    minders: Minders,
    happenings: mpsc::Receiver<Happening>,
    /// When objects in volumes are looked at again.
    refresh_at: Option<Timestamp>,
}

impl Worker {
    pub(super) fn new(
        site: Arc<Site>,
        pod: Arc<Pod>,
        news: watch::Receiver<News>,
        shown: watch::Sender<Arc<Observed>>,
    ) -> Self {
        let (tell, happenings) = mpsc::channel(HAPPENINGS_MAX);
        Self {
            site,
            pod,
            news,
            is_gone: false,
            observed: Observed::new(Timestamp::now()),
            shown,
            volumes: None,
            namespaces: Namespaces::default(),
            secrets: Vec::new(),
            tokens: Arc::default(),
            told: None,
            events: HashMap::new(),
            minders: Minders::new(tell),
            happenings,
            refresh_at: None,
        }
    }

    fn uid(&self) -> String {
        self.pod.metadata.uid.clone().unwrap_or_default()
    }

    fn namespace(&self) -> String {
        self.pod.metadata.namespace.clone().unwrap_or_default()
    }

    fn name(&self) -> String {
        self.pod.metadata.name.clone().unwrap_or_default()
    }

    /// Works until the pod is gone and nothing of it is left here.
    pub(super) async fn run(mut self) {
        self.hear().await;
        self.find_what_runs().await;
        loop {
            self.hear().await;
            self.show();
            if self.observed.is_deleted {
                return;
            }
            let plan = plan(
                &self.pod,
                &self.observed,
                Timestamp::now(),
                &self.site.options.timing,
            );
            for action in &plan.actions {
                self.act(action).await;
                self.show();
            }
            if plan.actions.is_empty() {
                let again = self.tell().await;
                let wake = [plan.wake, again, self.refresh_at]
                    .into_iter()
                    .flatten()
                    .min();
                self.wait(wake).await;
            }
        }
    }

    fn show(&self) {
        self.shown.send_replace(Arc::new(self.observed.clone()));
    }

    /// Takes what the API says now.
    async fn hear(&mut self) {
        let news = self.news.borrow_and_update().clone();
        let Some(pod) = news else {
            self.take_for_gone();
            return;
        };
        let is_changed = self.pod.metadata.labels != pod.metadata.labels
            || self.pod.metadata.annotations != pod.metadata.annotations;
        self.pod = pod;
        if is_changed && self.volumes.is_some() {
            self.refresh(true).await;
        }
    }

    /// A pod that the API has no more ends at once.
    fn take_for_gone(&mut self) {
        if self.is_gone {
            return;
        }
        self.is_gone = true;
        let mut pod = Pod::clone(&self.pod);
        pod.metadata.deletion_timestamp = Some(Time(Timestamp::now()));
        pod.metadata.deletion_grace_period_seconds = Some(0);
        self.pod = Arc::new(pod);
    }

    async fn act(&mut self, action: &Action) {
        tracing::debug!(pod = self.name(), ?action, "doing");
        match action {
            Action::Refuse(refusal) => self.refuse(refusal.clone()).await,
            Action::Prepare => self.prepare().await,
            Action::Start { container } => self.start(container).await,
            Action::Stop {
                container,
                kill_at,
                why,
            } => self.stop(container, *kill_at, why).await,
            Action::Kill { container } => self.kill(container).await,
            Action::Release => self.release().await,
            Action::Delete => self.delete().await,
        }
    }

    async fn refuse(&mut self, refusal: Refusal) {
        self.warn(&refusal.reason, &refusal.message, None);
        self.observed.refused = Some(refusal);
        self.save().await;
    }

    /// Makes volumes and namespaces.
    async fn prepare(&mut self) {
        if let Some(refusal) = self.unfit() {
            self.refuse(refusal).await;
            return;
        }
        let Some(made) = self.make_volumes().await else {
            return;
        };
        let made = match made {
            Ok(()) => self.make_namespaces().await.map_err(|error| {
                (
                    "FailedCreatePodSandBox",
                    format!("make the pod's namespaces: {error}"),
                )
            }),
            Err(error) => Err((error.reason(), error.to_string())),
        };
        match made {
            Ok(()) => {
                self.observed.is_prepared = true;
                self.observed.unprepared = None;
            }
            Err((reason, message)) => {
                let event = if is_image_reason(reason) {
                    "Failed"
                } else {
                    reason
                };
                self.warn(event, &message, None);
                let before = self.observed.unprepared.take();
                let reason = again(reason, before.is_some());
                self.observed.unprepared = Some(self.setback(before.as_ref(), reason, message));
            }
        }
        self.save().await;
    }

    /// Returns why the pod cannot run on this node at all.
    fn unfit(&self) -> Option<Refusal> {
        let spec = self.pod.spec.as_ref()?;
        let containers = init_containers(spec).iter().chain(&spec.containers);
        let volumes = spec.volumes.iter().flatten().map(|volume| &volume.name);
        let mut names = containers.map(|container| &container.name).chain(volumes);
        let why = if !names.all(|name| is_file_name(name)) {
            "the name of a container or volume is no DNS label"
        } else if spec.share_process_namespace == Some(true) {
            "spec.shareProcessNamespace is not provided by this node: leave it out"
        } else if spec.host_users == Some(false) {
            "spec.hostUsers: false is not provided by this node: leave it out"
        } else {
            return None;
        };
        Some(Refusal {
            reason: "UnexpectedAdmissionError".to_owned(),
            message: why.to_owned(),
        })
    }

    /// Returns something to be tried again, after a wait that doubles.
    fn setback(&self, before: Option<&Setback>, reason: &str, message: String) -> Setback {
        let timing = &self.site.options.timing;
        let count = before.map_or(0, |before| before.count).saturating_add(1);
        // Registries are not to be asked often; what is missing here may come at any moment.
        let is_of_image = is_image_reason(reason);
        let longest = if is_of_image {
            timing.backoff_max
        } else {
            timing.retry.saturating_mul(4)
        };
        let doubled = timing.retry.saturating_mul(2_u32.saturating_pow(count - 1));
        let wait = doubled.min(longest);
        Setback {
            reason: reason.to_owned(),
            message,
            until: after(Timestamp::now(), wait),
            count,
        }
    }

    /// Waits for work that may take long: meanwhile the status is told, and the pod's end is heard. `None` when the pod is
    /// to end.
    async fn patiently<T: Send>(&mut self, work: impl Future<Output = T> + Send) -> Option<T> {
        let mut work = Box::pin(work);
        let mut telling = Box::pin(tokio::time::sleep(self.site.options.timing.telling));
        let mut was_told = false;
        loop {
            tokio::select! {
                done = &mut work => return Some(done),
                () = &mut telling, if !was_told => {
                    was_told = true;
                    self.tell().await;
                }
                changed = self.news.changed() => {
                    let is_ending = |news: &News| news.as_ref().is_none_or(|pod| pod.metadata.deletion_timestamp.is_some());
                    if changed.is_err() || is_ending(&self.news.borrow()) {
                        return None;
                    }
                }
            }
        }
    }

    /// Makes volumes, and reads the pod's pull secrets. `None` when the pod is to end.
    async fn make_volumes(&mut self) -> Option<Result<(), VolumeError>> {
        let (site, pod) = (Arc::clone(&self.site), Arc::clone(&self.pod));
        let tokens = Arc::clone(&self.tokens);
        let made = self.patiently(async move {
            let secrets = pull_secrets(&site, &pod).await;
            let ready = maker(&site, &pod, &secrets, &tokens).make().await;
            (ready, secrets)
        });
        let (ready, secrets) = made.await?;
        self.secrets = secrets;
        let refresh = after(Timestamp::now(), self.site.options.timing.refresh);
        self.refresh_at = changes(&self.pod).then_some(refresh);
        Some(ready.map(|ready| self.volumes = Some(ready)))
    }

    /// Writes again what volumes have of objects that change.
    async fn refresh(&mut self, only_pod: bool) {
        let (site, pod) = (Arc::clone(&self.site), Arc::clone(&self.pod));
        let (secrets, tokens) = (self.secrets.clone(), Arc::clone(&self.tokens));
        let maker = maker(&site, &pod, &secrets, &tokens);
        if let Err(error) = maker.refresh(only_pod).await {
            tracing::warn!(pod = self.name(), %error, "volumes keep what they have");
        }
        if !only_pod {
            self.refresh_at = Some(after(Timestamp::now(), site.options.timing.refresh));
        }
    }

    /// Asks a container to end.
    async fn stop(&mut self, container: &str, kill_at: Timestamp, why: &str) {
        if self.observed.runs(container).probed.is_unhealthy {
            self.warn("Unhealthy", why, Some(container));
        }
        self.normal("Killing", why, container);
        let hook = self.pre_stop(container);
        let run = self.observed.runs(container).count.saturating_sub(1);
        let runs = self.observed.runs_mut(container);
        runs.stopping = Some(Stopping {
            kill_at,
            is_killed: false,
        });
        runs.probed.is_ready = false;
        let folder = self.site.options.container_dir(&self.uid(), container, run);
        match hook {
            Some(hook) => self.minders.stop_after(
                container,
                hook,
                self.site.options.ferrovirt.clone(),
                folder,
                kill_at,
            ),
            None => minder::signal(folder, Signal::TERM).await,
        }
    }

    async fn kill(&mut self, container: &str) {
        let run = self.observed.runs(container).count.saturating_sub(1);
        let runs = self.observed.runs_mut(container);
        let kill_at = runs
            .stopping
            .map_or(Timestamp::now(), |stopping| stopping.kill_at);
        runs.stopping = Some(Stopping {
            kill_at,
            is_killed: true,
        });
        let folder = self.site.options.container_dir(&self.uid(), container, run);
        minder::signal(folder, Signal::KILL).await;
    }

    /// Waits until something happens, or for this time.
    async fn wait(&mut self, wake: Option<Timestamp>) {
        let now = Timestamp::now();
        let seconds = wake.map_or(SLEEP_MAX_S as f64, |at| {
            at.duration_since(now).as_secs_f64()
        });
        let limit = std::time::Duration::from_secs_f64(seconds.clamp(0.0, SLEEP_MAX_S as f64));
        tokio::select! {
            changed = self.news.changed() => {
                if changed.is_err() {
                    // The runner itself is gone; containers go on without us.
                    std::future::pending::<()>().await;
                }
            }
            happening = self.happenings.recv() => {
                if let Some(happening) = happening {
                    self.note(happening).await;
                }
            }
            () = sleep_until(Instant::now() + limit) => {}
        }
        while let Ok(happening) = self.happenings.try_recv() {
            self.note(happening).await;
        }
        if self.refresh_at.is_some_and(|at| at <= Timestamp::now()) {
            self.refresh(false).await;
        }
    }

    async fn note(&mut self, happening: Happening) {
        match happening {
            Happening::Ended { container, run } => self.note_end(&container, run).await,
            Happening::Probed {
                container,
                run,
                probed,
            } => {
                let runs = self.observed.runs_mut(&container);
                if runs.started().is_some() && runs.count == run + 1 && runs.stopping.is_none() {
                    runs.probed = probed;
                }
            }
        }
    }
}

/// Kubernetes has another word for an image that is waited for.
fn again(reason: &'static str, has_failed_before: bool) -> &'static str {
    match reason {
        "ErrImagePull" if has_failed_before => "ImagePullBackOff",
        reason => reason,
    }
}

fn maker<'a>(
    site: &'a Site,
    pod: &'a Pod,
    secrets: &'a [PullSecret],
    tokens: &'a Tokens,
) -> Maker<'a> {
    Maker {
        options: &site.options,
        cluster: &site.cluster,
        images: &site.images,
        secrets,
        tokens,
        pod,
    }
}

/// Whether the pod's volumes have files of objects that may change.
fn changes(pod: &Pod) -> bool {
    let volumes = pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten());
    volumes.into_iter().any(|volume| {
        volume.config_map.is_some() || volume.secret.is_some() || volume.projected.is_some()
    })
}

/// Reads the pod's pull secrets. One that is not there is left out, as the kubelet does.
async fn pull_secrets(site: &Site, pod: &Pod) -> Vec<PullSecret> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let mut found = Vec::new();
    for wanted in pod
        .spec
        .iter()
        .flat_map(|spec| spec.image_pull_secrets.iter().flatten())
    {
        let read = site.cluster.secret(namespace, &wanted.name).await;
        let data = read
            .ok()
            .flatten()
            .and_then(|secret| secret.data)
            .unwrap_or_default();
        match data.get(".dockerconfigjson") {
            Some(config) => found.push(PullSecret {
                name: wanted.name.clone(),
                docker_config: config.0.clone(),
            }),
            None => tracing::warn!(
                pod = pod.metadata.name,
                secret = wanted.name,
                "the pull secret has no .dockerconfigjson"
            ),
        }
    }
    found
}

/// Does what blocks, with a turn among those that start containers.
async fn in_turn<T: Send + 'static>(
    site: &Site,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    // Never closed.
    let _turn = site.starts.acquire().await;
    on_disk(work).await
}
