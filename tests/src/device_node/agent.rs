//! The program that a worker node inside QEMU becomes: it plays the parts of the cluster, and does what the test asks.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::protocol::{Answer, Given, Offers, Owner, Request, Unit};
use super::record;
use crate::api_endpoint::{ApiEndpoint, Resource};
use crate::console::{Console, Spawned};
use crate::kubelet::{Device, Kubelet, KubeletError, Mode};
use crate::node::NODE;

/// The serial port to the test.
const PORT: &str = "/dev/ttyS1";
/// Where our programs are.
const PROGRAMS: &str = "/node";
/// What the launcher's program says about the node, where the node agent looks for it.
const NODE_FACTS: &str = "/var/lib/kubevirt-node-labeller/node-facts.json";
/// Folder of the kubelet.
const KUBELET: &str = "/var/lib/kubelet";
/// Folders that a node has; those in the kubelet's are made by it.
const FOLDERS: [&str; 5] = [
    KUBELET,
    "/var/run/kubevirt",
    "/var/run/kubevirt-private",
    "/var/lib/kubevirt-node-labeller",
    "/root",
];
/// Namespace of the installation.
const INSTALLATION: &str = "kubevirt";
/// Time for the node agent to end.
const END: Duration = Duration::from_secs(30);

/// Serves the test until the node is switched off.
pub fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error is the console, where the test's reader looks.
            drop(writeln!(io::stderr(), "agent: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<()> {
    let mut port = open_port()?;
    let requests = BufReader::new(port.try_clone()?);
    let mut agent = Agent::new()?;
    answer(&mut port, &Ok(json!("up")))?;
    for line in requests.lines() {
        let request = serde_json::from_str::<Request>(&line?);
        let answered = request
            .map_err(|error| format!("read the request: {error}"))
            .and_then(|request| agent.answer(request));
        answer(&mut port, &answered)?;
    }
    Ok(())
}

/// Opens the port without echo and line editing.
fn open_port() -> io::Result<File> {
    let port = OpenOptions::new().read(true).write(true).open(PORT)?;
    let mut settings = tcgetattr(&port)?;
    cfmakeraw(&mut settings);
    tcsetattr(&port, SetArg::TCSANOW, &settings)?;
    Ok(port)
}

fn answer(port: &mut File, answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    port.write_all(&line)
}

/// What runs in the node.
struct Agent {
    api: ApiEndpoint,
    kubelet: Kubelet,
    runtime: Runtime,
    handler: Option<Spawned>,
}

impl Agent {
    fn new() -> io::Result<Self> {
        for folder in FOLDERS {
            fs::create_dir_all(folder)?;
        }
        let api = ApiEndpoint::start()?;
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": NODE, "labels": {}, "annotations": {}}, "status": {},
        });
        api.put(&Resource::nodes(), node);
        let mut agent = Self {
            api,
            kubelet: Kubelet::new(Path::new(KUBELET)),
            runtime: Runtime::new()?,
            handler: None,
        };
        agent.start_kubelet().map_err(io::Error::other)?;
        Ok(agent)
    }

    fn answer(&mut self, request: Request) -> Answer {
        match request {
            Request::Read { path } => text(fs::read_to_string(path)),
            Request::Write { path, text } => write(&path, &text),
            Request::Link { path } => told(fs::read_link(path).map(|it| json!(it))),
            Request::Owner { path } => owner(&path),
            Request::Run { command } => run(&command),
            Request::Record => Ok(json!(record::devices())),
            Request::StartHandler { arguments } => self.start_handler(&arguments),
            Request::StopHandler => self.stop_handler(),
            Request::HandlerLog => Ok(json!(self.handler.as_ref().map(Spawned::errors))),
            Request::KubeVirt { configuration } => Ok(self.write_kubevirt(&configuration)),
            Request::Node => {
                let node = self.api.get(&Resource::nodes().key("", NODE));
                node.ok_or_else(|| "the node's object is gone".to_owned())
            }
            Request::Offers => Ok(json!(self.offers())),
            Request::Await {
                resource,
                capacity,
                allocatable,
                patience,
            } => self.wait(patience, &resource, capacity, allocatable),
            Request::Allocate {
                pod,
                container,
                resource,
                count,
            } => told(self.allocate(&pod, &container, &resource, count)),
            Request::RemovePod { pod } => told(self.kubelet.remove_pod(&pod).map(|()| Value::Null)),
            Request::RestartKubelet => told(self.start_kubelet().map(|()| Value::Null)),
        }
    }

    /// Starts the kubelet, or starts it again.
    fn start_kubelet(&mut self) -> Result<(), KubeletError> {
        let _inside = self.runtime.enter();
        self.kubelet.start(Mode::Takes)?;
        Ok(())
    }

    fn offers(&self) -> Offers {
        let node = self.kubelet.node().borrow().clone();
        let unit = |device: Device| Unit {
            is_healthy: device.is_healthy,
            numa_nodes: device.numa_nodes,
        };
        let units = |devices: BTreeMap<String, Device>| {
            let devices = devices.into_iter();
            devices.map(|(id, device)| (id, unit(device))).collect()
        };
        let resources = node.resources.into_iter();
        resources
            .map(|(name, resource)| (name, units(resource.devices)))
            .collect()
    }

    fn wait(
        &self,
        patience: Duration,
        resource: &str,
        capacity: usize,
        allocatable: usize,
    ) -> Answer {
        let waiting = self
            .kubelet
            .until_counts(patience, resource, capacity, allocatable);
        told(self.runtime.block_on(waiting)).map(|_| Value::Null)
    }

    fn allocate(
        &self,
        pod: &str,
        container: &str,
        resource: &str,
        count: usize,
    ) -> Result<Value, KubeletError> {
        self.kubelet.add_pod(pod)?;
        let giving = self.kubelet.allocate(pod, container, resource, count);
        let given = self.runtime.block_on(giving)?;
        let nodes = given.response.devices.into_iter();
        Ok(json!(Given {
            ids: given.ids,
            environment: given.response.envs.into_iter().collect(),
            nodes: nodes
                .map(|it| (it.host_path, it.container_path, it.permissions))
                .collect(),
        }))
    }

    fn write_kubevirt(&self, configuration: &Value) -> Value {
        let object = json!({
            "apiVersion": "kubevirt.io/v1", "kind": "KubeVirt",
            "metadata": {"name": "kubevirt", "namespace": INSTALLATION},
            "spec": {"configuration": configuration},
        });
        self.api
            .put(&Resource::new("kubevirt.io/v1", "kubevirts"), object);
        Value::Null
    }

    fn start_handler(&mut self, arguments: &[String]) -> Answer {
        self.stop_handler()?;
        if !Path::new(NODE_FACTS).exists() {
            let launcher = format!("{PROGRAMS}/virt-launcher");
            run(&[launcher, "--node-facts".to_owned(), NODE_FACTS.to_owned()])?;
        }
        let kubeconfig = told(self.api.kubeconfig(Path::new("/root")))?;
        let mut command = Command::new(format!("{PROGRAMS}/virt-handler"));
        command
            .env("KUBECONFIG", kubeconfig)
            .env("RUST_LOG", "info,handler=debug,device_plugins=debug")
            .args(["--hostname-override", NODE, "--listen", "127.0.0.1"])
            .args(["--port=8443", "--console-server-port=0"])
            .arg("--vmstats-server-port=0")
            .args(arguments);
        self.handler = Some(told(Spawned::start(command, Console::OutputOnly))?);
        Ok(Value::Null)
    }

    fn stop_handler(&mut self) -> Answer {
        let Some(handler) = self.handler.take() else {
            return Ok(Value::Null);
        };
        handler.signal(Signal::SIGTERM);
        let finished = told(handler.finish(END))?;
        Ok(json!(finished.status.code()))
    }
}

/// Puts the host's answer into words.
fn told<T>(done: Result<T, impl std::fmt::Display>) -> Result<T, String> {
    done.map_err(|error| error.to_string())
}

fn text(read: io::Result<String>) -> Answer {
    told(read.map(Value::String))
}

fn write(path: &Path, text: &str) -> Answer {
    let file = OpenOptions::new().write(true).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    told(written.map(|()| Value::Null))
}

fn owner(path: &Path) -> Answer {
    let metadata = told(fs::metadata(path))?;
    Ok(json!(Owner {
        user: metadata.uid(),
        group: metadata.gid(),
        is_device: metadata.file_type().is_char_device(),
    }))
}

fn run(command: &[String]) -> Answer {
    let (program, arguments) = command.split_first().ok_or("there is no program to run")?;
    let done = told(Command::new(program).args(arguments).output())?;
    let (output, errors) = (
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr),
    );
    if done.status.success() {
        Ok(json!(output))
    } else {
        Err(format!("{}: {output}{errors}", done.status))
    }
}
