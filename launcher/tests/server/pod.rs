//! A launcher's pod in a folder, with a stand-in for the node agent.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use proto::cmd::v1 as wire;
use proto::cmd::v1::cmd_client::CmdClient;
use proto::domain::Domain;
use proto::notify::v1::notify_server::{Notify, NotifyServer};
use proto::notify::v1::{DomainEventRequest, K8sEventRequest, Response as Taken};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::{Child, Command};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};

/// After this something is taken for missing.
pub const TIME_LIMIT: Duration = Duration::from_secs(60);
/// Uid of the instance.
pub const UID: &str = "0c6fb83b-8d1c-4bb8-9f4a-6d24cf6c6e5b";

/// mov dx, 0x3f8; mov al, 'H'; out dx, al
pub const SAY_H: [u8; 7] = [0x66, 0xba, 0xf8, 0x03, 0xb0, b'H', 0xee];
/// cli; hlt; and again
pub const IDLE: [u8; 4] = [0xfa, 0xf4, 0xeb, 0xfc];
/// mov dx, 0x604; mov ax, 0x2000; out dx, ax; hlt
pub const POWER_OFF: [u8; 11] = [
    0x66, 0xba, 0x04, 0x06, 0x66, 0xb8, 0x00, 0x20, 0x66, 0xef, 0xf4,
];

const LOAD_GPA: u64 = 0x10_0000;

/// An executable with `code` at its entry.
fn kernel(code: &[u8]) -> Vec<u8> {
    let mut image = b"\x7fELF\x02\x01\x01".to_vec();
    image.resize(120, 0);
    let len = u64::try_from(code.len()).unwrap();
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(16, &[2, 0, 62, 0]);
    put(24, &LOAD_GPA.to_le_bytes());
    put(32, &64_u64.to_le_bytes());
    put(54, &[56, 0, 1, 0]);
    put(64, &[1, 0, 0, 0, 5, 0, 0, 0]);
    put(72, &120_u64.to_le_bytes());
    put(88, &LOAD_GPA.to_le_bytes());
    put(96, &len.to_le_bytes());
    put(104, &len.to_le_bytes());
    image.extend(code);
    image
}

/// What the stand-in was told.
#[derive(Debug)]
pub enum Told {
    /// The kind of a domain event, and the domain.
    Domain(String, Box<Domain>),
    /// A Kubernetes event.
    Event(serde_json::Value),
}

struct Ear(UnboundedSender<Told>);

const TAKEN: Taken = Taken {
    success: true,
    message: String::new(),
};

#[tonic::async_trait]
impl Notify for Ear {
    async fn handle_domain_event(
        &self,
        request: Request<DomainEventRequest>,
    ) -> Result<Response<Taken>, Status> {
        let request = request.into_inner();
        let domain = Domain::from_json(&request.domain_json).unwrap().unwrap();
        self.0
            .send(Told::Domain(request.event_type, Box::new(domain)))
            .unwrap();
        Ok(Response::new(TAKEN))
    }

    async fn handle_k8s_event(
        &self,
        request: Request<K8sEventRequest>,
    ) -> Result<Response<Taken>, Status> {
        let event = serde_json::from_slice(&request.into_inner().event_json).unwrap();
        self.0.send(Told::Event(event)).unwrap();
        Ok(Response::new(TAKEN))
    }
}

/// A stand-in for the node agent.
pub struct Agent {
    told: UnboundedReceiver<Told>,
    serving: JoinHandle<()>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Agent {
    /// Returns the next thing that it is told.
    pub async fn told(&mut self) -> Told {
        timeout(TIME_LIMIT, self.told.recv())
            .await
            .expect("nothing is told")
            .unwrap()
    }

    /// Returns the next domain that is so, and the kind of its event.
    pub async fn domain_that(&mut self, is_so: impl Fn(&Domain) -> bool) -> (String, Domain) {
        loop {
            if let Told::Domain(kind, domain) = self.told().await
                && is_so(&domain)
            {
                return (kind, *domain);
            }
        }
    }
}

/// A launcher's pod.
pub struct Pod {
    dir: tempfile::TempDir,
    pub launcher: Option<Child>,
    /// What device plugins told the container.
    pub variables: Vec<(&'static str, &'static str)>,
}

impl Pod {
    /// Makes the folders of a pod, with a kernel that runs `code`.
    pub fn new(code: &[u8]) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("pod")
            .tempdir_in("/tmp")
            .unwrap();
        let pod = Self {
            dir,
            launcher: None,
            variables: Vec::new(),
        };
        pod.put("share/container-disks/kernel-boot/vmlinuz", &kernel(code));
        pod
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    pub fn put(&self, path: &str, bytes: &[u8]) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Starts a launcher as upstream's controller renders its command line.
    pub fn start(&mut self, more: &[&str]) {
        let program = option_env!("CARGO_BIN_EXE_virt-launcher");
        self.start_as(Path::new(program.expect("cargo builds it")), more);
    }

    pub fn start_as(&mut self, program: &Path, more: &[&str]) {
        let mut command = Command::new(program);
        command
            .args(["--qemu-timeout", "331s", "--name", "tiny", "--uid", UID])
            .args(["--namespace", "default", "--hook-sidecars", "0"])
            .args(["--ovmf-path", "/usr/share/OVMF", "--run-as-nonroot"])
            .args(["--accel", "soft", "--log", "info"]);
        for (flag, path) in [
            ("--kubevirt-share-dir", "share"),
            ("--ephemeral-disk-dir", "ephemeral"),
            ("--container-disk-dir", "share/container-disks"),
            ("--hotplug-disk-dir", "share/hotplug-disks"),
            ("--private-dir", "private"),
            ("--libvirt-dir", "libvirt"),
        ] {
            command.arg(flag).arg(self.path(path));
        }
        let stderr = fs::File::create(self.path("stderr")).unwrap();
        let launcher = command
            .args(more)
            .env_remove("STANDALONE_VMI")
            .envs(self.variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        self.launcher = Some(launcher);
    }

    /// What the launcher has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("stderr")).unwrap()
    }

    /// Listens where the launcher tells what happens.
    pub fn agent(&self) -> Agent {
        fs::create_dir_all(self.path("share")).unwrap();
        let socket = self.path("share/domain-notify-pipe.sock");
        let _absent = fs::remove_file(&socket);
        let listener = UnixListener::bind(socket).unwrap();
        let (teller, told) = unbounded_channel();
        let serving = tokio::spawn(async move {
            Server::builder()
                .add_service(NotifyServer::new(Ear(teller)))
                .serve_with_incoming(UnixListenerStream::new(listener))
                .await
                .unwrap();
        });
        Agent { told, serving }
    }

    /// Connects once the launcher is ready.
    pub async fn channel(&mut self) -> Channel {
        let socket = self.path("share/sockets/launcher-sock");
        let mut ticks = interval(Duration::from_millis(10));
        let connected = timeout(TIME_LIMIT, async {
            while UnixStream::connect(&socket).await.is_err() {
                ticks.tick().await;
                let ended = self.launcher.as_mut().unwrap().try_wait().unwrap();
                assert_eq!(ended, None, "{}", self.log());
            }
        });
        connected.await.expect("the launcher is not ready");
        let uri = format!("unix://{}", socket.display());
        Endpoint::from_shared(uri).unwrap().connect().await.unwrap()
    }

    pub async fn client(&mut self) -> CmdClient<Channel> {
        CmdClient::new(self.channel().await)
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let id = self.launcher.as_ref().unwrap().id().unwrap();
        let pid = nix::unistd::Pid::from_raw(i32::try_from(id).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// Waits for the launcher's end and returns its exit code.
    pub async fn ended(&mut self) -> i32 {
        let launcher = self.launcher.as_mut().unwrap();
        let status = timeout(TIME_LIMIT, launcher.wait()).await;
        let status = status.expect("the launcher does not end").unwrap();
        status.code().unwrap_or_else(|| panic!("{status}"))
    }
}

/// An instance whose kernel is the pod's, with more of its specification given.
pub fn instance(more: serde_json::Value) -> serde_json::Value {
    let mut vmi = serde_json::json!({
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": { "name": "tiny", "namespace": "default", "uid": UID },
        "spec": {
            "terminationGracePeriodSeconds": 30,
            "domain": {
                "memory": { "guest": "32Mi" },
                "firmware": { "kernelBoot": { "container": {
                    "image": "boot", "kernelPath": "/boot/vmlinuz",
                } } },
                "devices": { "autoattachPodInterface": false },
            },
        },
    });
    merge(&mut vmi, more);
    vmi
}

fn merge(into: &mut serde_json::Value, from: serde_json::Value) {
    match (into, from) {
        (serde_json::Value::Object(into), serde_json::Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(serde_json::Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// A request for an instance.
pub fn request(vmi: &serde_json::Value) -> wire::VmiRequest {
    wire::VmiRequest {
        vmi: Some(wire::Vmi {
            vmi_json: serde_json::to_vec(vmi).unwrap(),
        }),
        options: None,
    }
}

/// Fails unless a call did its work.
#[track_caller]
pub fn done(response: Result<Response<wire::Response>, Status>) {
    let response = response.unwrap().into_inner();
    assert!(response.success, "{}", response.message);
}
