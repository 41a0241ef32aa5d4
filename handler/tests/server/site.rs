//! A node with its agent's servers, and launchers that are stand-ins.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use device_plugins::report::Report;
use handler::cluster::{Event, Recorder};
use handler::config::{HostPaths, Patience};
use handler::key::VmiKey;
use handler::launchers::{Launchers, VmiIdentity};
use handler::server::{
    Authority as Trusted, Consoles, Ports, Pulse, ServerSetup, Servers, TlsFiles, TlsKeeper,
};
use handler::store::VmiStore;
use proto::domain::{Domain, LifeCycle};
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::client::{Answer, Authority, HANDLER_CLIENT, Identity, ask, connect};
use crate::stand_in::{Script, StandIn};

/// Time between two looks at certificates.
pub(crate) const LOOK: Duration = Duration::from_millis(20);

pub(crate) struct Site {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) authority: Authority,
    pub(crate) virt_api: Identity,
    pub(crate) ports: Ports,
    pub(crate) store: VmiStore,
    pub(crate) consoles: Consoles,
    pub(crate) launchers: Launchers,
    pub(crate) trust: watch::Sender<Option<Arc<str>>>,
    pub(crate) devices: watch::Sender<Arc<Report>>,
    pub(crate) events: mpsc::Receiver<Event>,
    pub(crate) stop: CancellationToken,
    pub(crate) serving: JoinHandle<()>,
    stand_ins: Vec<StandIn>,
}

impl Site {
    pub(crate) async fn new() -> Self {
        Self::with(Pulse::default(), 3).await
    }

    pub(crate) async fn with(pulse: Pulse, metric_requests_max: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let paths = HostPaths {
            pods_dir: dir.path().join("p"),
            share_dir: dir.path().join("s"),
            private_dir: dir.path().join("v"),
            ..HostPaths::default()
        };
        fs::create_dir(&paths.pods_dir).unwrap();
        let authority = Authority::new();
        authority
            .identity("kubevirt.io:system:node:virt-handler")
            .write(dir.path());
        let (sender, mut seen) = mpsc::channel(16);
        tokio::spawn(async move { while seen.recv().await.is_some() {} });
        let launchers = Launchers::start(paths, Patience::default(), sender)
            .await
            .unwrap();
        let servers = Servers::bind(IpAddr::V4(Ipv4Addr::LOCALHOST), free_ports())
            .await
            .unwrap();
        let ports = servers.ports().unwrap();
        let stop = CancellationToken::new();
        let (trust, told) = watch::channel(Some(authority.pem().into()));
        let files = TlsFiles {
            certificate: dir.path().join("tls.crt"),
            key: dir.path().join("tls.key"),
        };
        let (store, consoles) = (VmiStore::default(), Consoles::new(pulse));
        store.end_list();
        let (recorder, events) = Recorder::waiting();
        let (devices, told_devices) = watch::channel(Arc::default());
        let setup = ServerSetup {
            node: "node1".to_owned(),
            launchers: launchers.clone(),
            instances: store.clone(),
            consoles: consoles.clone(),
            recorder,
            tls: TlsKeeper::start(files, Trusted::Told(told), LOOK, stop.clone()).await,
            devices: told_devices,
            metric_requests_max,
        };
        Self {
            dir,
            virt_api: authority.identity(HANDLER_CLIENT),
            authority,
            ports,
            store,
            consoles,
            launchers,
            trust,
            devices,
            events,
            serving: tokio::spawn(servers.serve(setup, stop.clone())),
            stop,
            stand_ins: Vec::new(),
        }
    }

    /// Starts the launcher of an instance, and attaches to it.
    pub(crate) async fn launch(&mut self, name: &str, script: Script) -> Arc<Script> {
        let script = Arc::new(script);
        fs::create_dir_all(self.volume(name, "sockets")).unwrap();
        fs::create_dir_all(self.volume(name, "public")).unwrap();
        fs::create_dir_all(self.volume(name, "private").join(format!("u-{name}"))).unwrap();
        let socket = self.volume(name, "sockets").join("launcher-sock");
        self.stand_ins.push(StandIn::serve(&socket, &script));
        let identity = VmiIdentity {
            key: key(name),
            uid: format!("u-{name}"),
            pod_uids: vec![format!("p-{name}")],
        };
        self.launchers.attach(&identity).await.unwrap();
        self.store.put(instance(name));
        self.knows_domain(name, !script.domain.is_empty()).await;
        script
    }

    /// Waits until the launcher has told how its domain is.
    async fn knows_domain(&self, name: &str, is_there: bool) {
        let known = async {
            while self.launchers.domain(&key(name)).is_some() != is_there {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), known)
            .await
            .unwrap();
    }

    pub(crate) fn volume(&self, name: &str, volume: &str) -> PathBuf {
        let pod = self.dir.path().join("p").join(format!("p-{name}"));
        pod.join("volumes/kubernetes.io~empty-dir").join(volume)
    }

    /// Listens as the console of an instance's machine.
    pub(crate) fn console(&self, name: &str) -> UnixListener {
        let folder = self.volume(name, "private").join(format!("u-{name}"));
        UnixListener::bind(folder.join("virt-serial0")).unwrap()
    }

    /// Asks as virt-api.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        let port = self.ports.console;
        let stream = connect(port, &self.authority, Some(&self.virt_api))
            .await
            .unwrap();
        ask(stream, method, path, body.to_owned()).await.unwrap()
    }

    /// Asks as Prometheus.
    pub(crate) async fn scrape(&self, path: &str) -> Answer {
        let stream = connect(self.ports.metrics, &self.authority, None)
            .await
            .unwrap();
        ask(stream, "GET", path, "").await.unwrap()
    }
}

pub(crate) fn free_ports() -> Ports {
    Ports {
        console: 0,
        metrics: 0,
        stats: 0,
    }
}

pub(crate) fn key(name: &str) -> VmiKey {
    VmiKey::new("default", name)
}

pub(crate) fn path(name: &str, action: &str) -> String {
    format!("/v1/namespaces/default/virtualmachineinstances/{name}/{action}")
}

pub(crate) fn instance(name: &str) -> Value {
    json!({
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"namespace": "default", "name": name, "uid": format!("u-{name}"), "resourceVersion": "1"},
        "spec": {"domain": {"devices": {}}},
        "status": {"phase": "Running", "nodeName": "node1"},
    })
}

/// Returns a script of a launcher whose machine is in this state.
pub(crate) fn machine(name: &str, state: &str) -> Script {
    let mut domain = Domain::new("default", name, &format!("u-{name}"));
    domain.status.status = LifeCycle::from(state.to_owned());
    Script {
        domain: serde_json::to_string(&domain).unwrap(),
        ..Script::default()
    }
}
