//! The parts of the node, in the order that they need each other.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use api::components::service_account_user;
use apiserver::access::User;
use apiserver::objects::Objects;
use apiserver::ticks::Ticks;
use apiserver::{ApiServer, LocalService, housekeeping};
use axum::body::Body;
use control_plane::controller;
use control_plane::virt_api::{self, HandlerAddress, HandlerPlace, Identity, Pem};
use futures::FutureExt;
use handler::config::{HostPaths, Patience};
use handler::devices::DeviceFlags;
use http::Request;
use proto::node::NodeFacts;
use serde_json::Value;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::{error, warn};

use super::identities::Identities;
use super::{register, say};
use crate::bootstrap::{self, Installation, KUBEVIRT};
use crate::cli::{Accel, UpArgs};
use crate::client::client;
use crate::images::Images;
use crate::node::{self, Machine};
use crate::pods::{self, KubeCluster, PluginDevices, Runner};
use crate::state::State;
use crate::{node_api, provisioner, scheduler};

/// Time that the launcher may take to measure this machine.
const FACTS: Duration = Duration::from_secs(10);
/// Longest that machines may take to shut down beyond their own grace.
const FAREWELL: Duration = Duration::from_secs(30);
/// Time of the node agent's own end.
const AGENT_FAREWELL: Duration = Duration::from_secs(5);

/// The running parts.
pub(super) struct Components {
    tasks: JoinSet<()>,
    runner: Arc<Runner>,
    objects: Objects,
    server: ApiServer,
    /// Ends what would start machines anew.
    controllers: CancellationToken,
    facts: Option<NodeFacts>,
    accel: Accel,
}

impl Components {
    pub(super) async fn start(
        args: &UpArgs,
        state: &State,
        machine: &Machine,
        server: &ApiServer,
        identities: &Identities,
        stop: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let objects = Objects::new(server.clone(), "system:ferrovirt");
        let options = pods::Options::new(&machine.name, state.path());
        let facts = facts(&options.launcher, args.accel).await;
        let (agent, agent_options) = agent(args, state, machine, identities, facts.clone()).await?;
        let console = agent.ports().context("the node agent's ports")?.console;
        let console = SocketAddr::from((Ipv4Addr::LOCALHOST, console));
        // Webhooks are asked from the first object on, so what answers them comes before.
        server.services().insert(
            KUBEVIRT,
            "virt-api",
            virt_api_service(server, identities, console),
        );
        let installation = Installation {
            emulates: emulates(args.accel, facts.as_ref()),
            authority: identities.authority.certificate().to_owned(),
        };
        bootstrap::install(&objects, &installation).await?;
        register(&objects, machine, console, stop).await?;
        let images = Images::open(&state.images()).context("open the image store")?;
        let cluster = client(server.clone(), User::master("system:node:ferrovirt"));
        let devices = PluginDevices::new(&options.kubelet_dir(), PluginDevices::PATIENCE);
        let devices = devices.context("take up devices")?;
        let runner = Runner::new(
            options,
            Arc::new(KubeCluster::new(cluster.clone())),
            Arc::new(images),
            Arc::<PluginDevices>::clone(&devices),
        );
        let runner = runner.context("take up the pods of this node")?;
        server.services().insert(
            "kube-system",
            "kubelet",
            node_api::service(Arc::clone(&runner)),
        );
        let mut components = Self {
            tasks: JoinSet::new(),
            runner,
            objects,
            server: server.clone(),
            controllers: stop.child_token(),
            facts,
            accel: args.accel,
        };
        components.spawn_devices(machine, devices, stop);
        let running = Arc::clone(&components.runner).run(cluster, stop.clone());
        components.tasks.spawn(running);
        components.spawn_agent(server, agent, agent_options, stop);
        components.spawn_rest(args, state, machine, server, identities, stop);
        Ok(components)
    }

    /// Lets device plugins register, as with a kubelet, and tells the node's status what they offer.
    fn spawn_devices(
        &mut self,
        machine: &Machine,
        devices: Arc<PluginDevices>,
        stop: &CancellationToken,
    ) {
        let offering = node::offer(
            self.objects.clone(),
            machine.name.clone(),
            devices.counts(),
            stop.clone(),
        );
        self.tasks.spawn(offering);
        let stop = stop.clone();
        self.tasks.spawn(async move {
            if let Err(error) = devices.serve(stop).await {
                warn!(%error, "device plugins cannot register");
            }
        });
    }

    fn spawn_agent(
        &mut self,
        server: &ApiServer,
        servers: handler::server::Servers,
        options: handler::run::Options,
        stop: &CancellationToken,
    ) {
        let client = client(server.clone(), part("kubevirt-handler"));
        let stop = stop.clone();
        self.tasks.spawn(async move {
            if let Err(error) = handler::run::run_with(options, servers, client, stop).await {
                error!(%error, "the node agent ended: machines run on, but nobody looks after them");
            }
        });
    }

    fn spawn_rest(
        &mut self,
        args: &UpArgs,
        state: &State,
        machine: &Machine,
        server: &ApiServer,
        identities: &Identities,
        stop: &CancellationToken,
    ) {
        let ticks = || Ticks::new(server.store().clone());
        let node = machine.name.clone();
        self.tasks.spawn(scheduler::bind::run(
            self.objects.clone(),
            ticks(),
            node.clone(),
            stop.clone(),
        ));
        self.tasks.spawn(provisioner::run(
            self.objects.clone(),
            ticks(),
            state.volumes(),
            node.clone(),
            stop.clone(),
        ));
        let authority = identities.authority.certificate().to_owned();
        self.tasks
            .spawn(housekeeping::run(server.clone(), authority, stop.clone()));
        let client = client(server.clone(), part("kubevirt-controller"));
        let options = controller::Options {
            namespace: KUBEVIRT.to_owned(),
            identity: node,
            // Nobody else can hold the lease: the state folder is locked.
            leader_election: false,
            launcher_image: controller::LAUNCHER_IMAGE.to_owned(),
            launcher_arguments: launcher_arguments(args.accel),
        };
        let stop = self.controllers.clone();
        self.tasks.spawn(async move {
            if let Err(error) = controller::run(client, options, stop).await {
                error!(%error, "the controllers ended: nothing is started any more");
            }
        });
    }

    /// Says in a few words what runs processors.
    pub(super) fn accelerator(&self) -> String {
        let reason = self
            .facts
            .as_ref()
            .map(|it| it.backend_reason.clone())
            .unwrap_or_default();
        match (self.accel, emulates(self.accel, self.facts.as_ref())) {
            (Accel::Soft, _) => "software CPU, as asked for".to_owned(),
            (_, true) if reason.is_empty() => "software CPU".to_owned(),
            (_, true) => format!("software CPU: {reason}"),
            (_, false) => "KVM".to_owned(),
        }
    }

    /// Shuts down all machines: guests are asked to power off, as when their pods are deleted.
    pub(super) async fn shut_down(mut self) {
        self.controllers.cancel();
        let pods = self.objects.list("pods");
        let running: Vec<_> = pods
            .iter()
            .filter(|it| !scheduler::is_finished(it))
            .collect();
        if !running.is_empty() {
            say(&format!(
                "shutting down {} pods; their guests are asked to power off",
                running.len()
            ));
        }
        for pod in &running {
            if let Err(error) = self.objects.delete(&scheduler::path(pod)).await {
                warn!(%error, "cannot delete a pod");
            }
        }
        let longest = running.iter().map(|it| grace(it)).max().unwrap_or_default();
        if timeout(FAREWELL + longest, self.until_gone())
            .await
            .is_err()
        {
            warn!("some pods did not end in time and are killed");
        }
        if let Err(error) = self.runner.end_all().await {
            warn!(%error, "cannot remove all that pods left");
        }
        self.tasks.detach_all();
        say("stopped");
    }

    async fn until_gone(&self) {
        let mut ticks = Ticks::new(self.server.store().clone());
        ticks.follow(&["pods"]);
        while self
            .objects
            .list("pods")
            .iter()
            .any(|it| !scheduler::is_finished(it))
        {
            ticks.next().await;
        }
    }
}

fn grace(pod: &Value) -> Duration {
    Duration::from_secs(
        pod["spec"]["terminationGracePeriodSeconds"]
            .as_u64()
            .unwrap_or(30),
    )
}

/// A part of KubeVirt: its service account, which here may do everything.
fn part(account: &str) -> User {
    User::master(&service_account_user(KUBEVIRT, account))
}

fn virt_api_service(
    server: &ApiServer,
    identities: &Identities,
    console: SocketAddr,
) -> LocalService {
    let text = |pem: &str| Pem::Text(pem.into());
    let identity = Identity::new(
        text(&identities.virt_api.certificate),
        text(&identities.virt_api.key),
        text(identities.authority.certificate()),
    );
    let router = virt_api::router(virt_api::Options {
        client: client(server.clone(), part("kubevirt-apiserver")),
        namespace: KUBEVIRT.to_owned(),
        handler: HandlerAddress {
            place: HandlerPlace::Fixed(console),
            identity,
        },
        // The API server has decided already: it is the same process.
        authorize: false,
    });
    Arc::new(move |request: Request<Body>| {
        let router = router.clone();
        async move {
            let answered: Result<_, Infallible> = router.oneshot(request).await;
            answered.unwrap_or_else(|never| match never {})
        }
        .boxed()
    })
}

/// Asks the launcher what this machine can do.
async fn facts(launcher: &std::path::Path, accel: Accel) -> Option<NodeFacts> {
    let mut command = Command::new(launcher);
    command
        .args(launcher_arguments(accel))
        .args(["--node-facts", "-"])
        .kill_on_drop(true);
    let output = match timeout(FACTS, command.output()).await {
        Ok(Ok(output)) if output.status.success() => output.stdout,
        Ok(Ok(output)) => {
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            warn!(why, "the launcher cannot tell what this machine can do");
            return None;
        }
        Ok(Err(error)) => {
            warn!(launcher = %launcher.display(), %error, "cannot run the launcher: build or install virt-launcher beside ferrovirt");
            return None;
        }
        Err(_) => {
            warn!("the launcher takes too long to tell what this machine can do");
            return None;
        }
    };
    serde_json::from_slice(&output).ok()
}

/// Whether machines are emulated.
fn emulates(accel: Accel, facts: Option<&NodeFacts>) -> bool {
    match accel {
        Accel::Soft => true,
        Accel::Kvm => false,
        Accel::Auto => facts.is_none_or(|it| it.backend != "kvm"),
    }
}

fn launcher_arguments(accel: Accel) -> Vec<String> {
    match accel {
        Accel::Auto => Vec::new(),
        Accel::Kvm => vec!["--accel=kvm".to_owned()],
        Accel::Soft => vec!["--accel=soft".to_owned()],
    }
}

async fn agent(
    args: &UpArgs,
    state: &State,
    machine: &Machine,
    identities: &Identities,
    facts: Option<NodeFacts>,
) -> anyhow::Result<(handler::server::Servers, handler::run::Options)> {
    let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
    let accel = match args.accel {
        Accel::Auto => handler::cli::Accel::Auto,
        Accel::Kvm => handler::cli::Accel::Kvm,
        Accel::Soft => handler::cli::Accel::Soft,
    };
    let options = handler::run::Options {
        node: machine.name.clone(),
        pod_ip: Some(loopback),
        kubeconfig: None,
        install_namespace: KUBEVIRT.to_owned(),
        listen: loopback,
        metrics_port: 0,
        console_port: 0,
        vmstats_port: 0,
        metric_requests_max: 3,
        certificate: identities.handler.certificate.clone(),
        key: identities.handler.key.clone(),
        client_ca: Some(identities.handler.authority.clone()),
        paths: paths(state),
        patience: Patience::default(),
        graceful_shutdown: AGENT_FAREWELL,
        accel,
        devices: DeviceFlags {
            usb_list: args.usb_list.clone(),
            bind_vfio: args.bind_vfio,
            accel,
            ..DeviceFlags::default()
        },
        facts,
    };
    let servers = handler::run::bind(&options)
        .await
        .context("start the node agent")?;
    Ok((servers, options))
}

fn paths(state: &State) -> HostPaths {
    HostPaths {
        pods_dir: state.kubelet().join("pods"),
        share_dir: state.agent("share"),
        private_dir: state.agent("private"),
        kubelet_dir: state.kubelet(),
        ..HostPaths::default()
    }
}
