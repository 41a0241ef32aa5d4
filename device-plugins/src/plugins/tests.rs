//! The plugins as a whole, with trees of files for a host.

use std::fs;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use proto::deviceplugin::v1beta1::device_plugin_client::DevicePluginClient;
use proto::deviceplugin::v1beta1::{AllocateRequest, ContainerAllocateRequest};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::nodes::tests::{owner, plant_device};
use super::{Setup, run};
use crate::char_device::CharDevices;
use crate::report::{self, Report, ResourceReport};
use crate::resource::ResourceName;
use crate::runner;
use crate::source::Host;
use crate::tree;
use crate::unit::Health;
use crate::usb_list;
use crate::wanted::{Problem, Wanted};

const LAUNCHER: u32 = 107;
/// How long anything may take.
const LONGEST: Duration = Duration::from_secs(20);

/// A node with the plugins running.
struct Node {
    tree: tempfile::TempDir,
    host: Host,
    wanted: watch::Sender<Wanted>,
    report: watch::Receiver<Arc<Report>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Node {
    fn begin(tree: &str, wanted: Wanted) -> Self {
        Self::begin_in(tree::plant(tree), wanted)
    }

    fn begin_in(tree: tempfile::TempDir, wanted: Wanted) -> Self {
        let host = tree::host(&tree);
        fs::create_dir_all(&host.pods_dir).unwrap();
        let (wanted, wanting) = watch::channel(wanted);
        let (telling, report) = watch::channel(Arc::default());
        let stop = CancellationToken::new();
        let setup = Setup {
            host: host.clone(),
            launcher_id: LAUNCHER,
        };
        let task = tokio::spawn(run(setup, wanting, telling, stop.clone()));
        Self {
            tree,
            host,
            wanted,
            report,
            stop,
            task,
        }
    }

    async fn until(&mut self, is_so: impl Fn(&Report) -> bool) -> Arc<Report> {
        let seen = self.report.wait_for(|report| is_so(report));
        let seen = tokio::time::timeout(LONGEST, seen).await;
        let seen = seen.map(|seen| seen.unwrap().clone());
        seen.unwrap_or_else(|_| panic!("it did not come so far: {:#?}", self.report.borrow()))
    }

    async fn restart(self, wanted: Wanted) -> Self {
        self.stop.cancel();
        if !self.task.is_finished() {
            let ended = tokio::time::timeout(LONGEST, self.task).await;
            ended.unwrap().unwrap();
        }
        Self::begin_in(self.tree, wanted)
    }

    async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(LONGEST, self.task)
            .await
            .unwrap()
            .unwrap();
    }
}

fn of<'a>(report: &'a Report, name: &str) -> Option<&'a ResourceReport> {
    let mut resources = report.resources.iter();
    resources.find(|one| one.resource.as_str() == name)
}

#[tokio::test]
async fn a_device_that_appears_is_offered_within_a_second() {
    let mut node = Node::begin("d dev\nd sys\n", Wanted::default());
    let kvm = "devices.kubevirt.io/kvm";
    let healthy = |report: &Report| of(report, kvm).map(ResourceReport::healthy);
    node.until(|report| healthy(report) == Some(0)).await;
    let begin = std::time::Instant::now();
    fs::write(node.host.dev_dir.join("kvm"), "").unwrap();
    node.until(|report| healthy(report) == Some(1000)).await;
    assert!(
        begin.elapsed() < Duration::from_secs(1),
        "{:?}",
        begin.elapsed()
    );
    fs::remove_file(node.host.dev_dir.join("kvm")).unwrap();
    node.until(|report| healthy(report) == Some(0)).await;
    node.end().await;
}

#[tokio::test]
async fn the_table_is_there_while_the_plugins_run() {
    let wanted = Wanted {
        problems: vec![Problem {
            field: "--usb-list item 2".to_owned(),
            text: "has no product".to_owned(),
        }],
        ..Wanted::default()
    };
    let mut node = Node::begin("d dev\nd sys\n", wanted);
    let path = node.host.private_dir.join(report::FILE_NAME);
    let seen = node.until(|report| !report.resources.is_empty()).await;
    assert!(
        seen.problems
            .contains(&"--usb-list item 2: has no product".to_owned())
    );
    let deadline = Instant::now() + LONGEST;
    while Report::read(&path).is_err() {
        assert!(Instant::now() < deadline, "no table at {path:?}");
        tokio::task::yield_now().await;
    }
    node.end().await;
    let error = Report::read(&path).unwrap_err().to_string();
    assert!(error.contains("the node agent does not run"), "{error}");
}

#[tokio::test]
async fn the_number_of_units_follows_the_setting() {
    let mut node = Node::begin("d sys\nf dev/kvm\n", Wanted::default());
    let capacity =
        |report: &Report| of(report, "devices.kubevirt.io/kvm").map(ResourceReport::capacity);
    node.until(|report| capacity(report) == Some(1000)).await;
    node.wanted.send_modify(|wanted| {
        wanted.char_devices = CharDevices {
            count: 7,
            ..CharDevices::default()
        };
    });
    node.until(|report| capacity(report) == Some(7)).await;
    node.end().await;
}

/// The kubelet's side of a plugin.
async fn plugin(host: &Host, resource: &str) -> DevicePluginClient<Channel> {
    let name = runner::socket_name(&ResourceName::new(resource).unwrap());
    let path = host.plugin_dir.join(name);
    let deadline = Instant::now() + LONGEST;
    loop {
        let path = path.clone();
        let connect = service_fn(move |_: Uri| {
            let path = path.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
        });
        let endpoint = Endpoint::from_static("http://plugin");
        match endpoint.connect_with_connector(connect).await {
            Ok(channel) => return DevicePluginClient::new(channel),
            Err(error) => assert!(Instant::now() < deadline, "{error:?}"),
        }
        tokio::task::yield_now().await;
    }
}

fn asking(ids: &[&str]) -> AllocateRequest {
    let devices_ids = ids.iter().map(|id| (*id).to_owned()).collect();
    AllocateRequest {
        container_requests: vec![ContainerAllocateRequest { devices_ids }],
    }
}

#[tokio::test]
async fn a_container_is_given_what_it_asks_for() {
    let tree = "d sys\nf dev/kvm\nd kubelet/device-plugins\n";
    let mut node = Node::begin(tree, Wanted::default());
    let kvm = "devices.kubevirt.io/kvm";
    node.until(|report| of(report, kvm).is_some()).await;
    let mut client = plugin(&node.host, kvm).await;
    let answer = client.allocate(asking(&["kvm17", "kvm18"])).await.unwrap();
    let answer = &answer.get_ref().container_responses[0];
    let paths: Vec<&str> = answer
        .devices
        .iter()
        .map(|one| one.host_path.as_str())
        .collect();
    assert_eq!(paths, ["/dev/kvm"]);
    fs::remove_file(node.host.dev_dir.join("kvm")).unwrap();
    let error = client.allocate(asking(&["kvm17"])).await.unwrap_err();
    assert!(error.message().contains("kvm17"), "{error}");
    fs::write(node.host.dev_dir.join("kvm"), "").unwrap();
    node.until(|report| of(report, kvm).map(ResourceReport::healthy) == Some(1000))
        .await;
    client.allocate(asking(&["kvm17"])).await.unwrap();
    node.end().await;
}

/// The two identical sticks of the USB fixtures, as one resource.
fn sticks() -> Wanted {
    let (usb, problems) = usb_list::parse("x.io/stick;46f4;0001");
    assert_eq!(problems, []);
    Wanted {
        usb,
        ..Wanted::default()
    }
}

const STICKS: &str = "\
f sys/devices/pci0000:00/0000:00:04.0/numa_node -1
f sys/devices/pci0000:00/0000:00:04.0/usb1/idVendor 1d6b
f sys/devices/pci0000:00/0000:00:04.0/usb1/idProduct 0002
l sys/bus/usb/devices/usb1 -> ../../../devices/pci0000:00/0000:00:04.0/usb1
d kubelet/device-plugins
d kubelet/pods/pod-a
d kubelet/pods/pod-b
";

/// A stick in a port of the first bus.
fn stick(port: u8, number: u8) -> String {
    let folder = format!("sys/devices/pci0000:00/0000:00:04.0/usb1/1-{port}");
    format!(
        "f {folder}/idVendor 46f4\nf {folder}/idProduct 0001\nf {folder}/busnum 1\nf {folder}/devnum {number}\n\
         f {folder}/bDeviceClass 00\nf {folder}/devpath {port}\n\
         f {folder}/uevent MAJOR=189\\nDEVNAME=bus/usb/001/{number:03}\\nDEVTYPE=usb_device\\nPRODUCT=46f4/1/0\\nBUSNUM=001\\nDEVNUM={number:03}\\n\n\
         l sys/bus/usb/devices/1-{port} -> ../../../devices/pci0000:00/0000:00:04.0/usb1/1-{port}\n\
         f dev/bus/usb/001/{number:03}\n"
    )
}

/// Writes the kubelet's record as the kubelet does.
fn record(host: &Host, entries: &[(&str, &str)]) {
    let entry = |(pod, id): &(&str, &str)| serde_json::json!({"PodUID": pod, "ContainerName": "compute", "ResourceName": "x.io/stick", "DeviceIDs": {"-1": [id]}});
    let entries: Vec<_> = entries.iter().map(entry).collect();
    let text = serde_json::json!({"Data": {"PodDeviceEntries": entries}, "Checksum": 1});
    let beside = host.plugin_dir.join(".new");
    fs::write(&beside, text.to_string()).unwrap();
    fs::rename(beside, host.plugin_dir.join("kubelet_internal_checkpoint")).unwrap();
}

#[tokio::test]
async fn a_stick_in_use_stays_listed_and_comes_back_under_its_name() {
    let tree = format!("{STICKS}{}{}", stick(1, 2), stick(2, 3));
    let mut node = Node::begin(&tree, sticks());
    let name = "x.io/stick";
    let seen = node
        .until(|report| of(report, name).is_some_and(|one| one.healthy() == 2))
        .await;
    let ids: Vec<String> = of(&seen, name)
        .unwrap()
        .units
        .iter()
        .map(|unit| unit.id.clone())
        .collect();
    let mut client = plugin(&node.host, name).await;
    let answer = client.allocate(asking(&[&ids[0]])).await.unwrap();
    let answer = &answer.get_ref().container_responses[0];
    assert_eq!(answer.devices[0].host_path, "/dev/bus/usb/001/002");
    assert_eq!(answer.envs["USB_RESOURCE_X_IO_STICK"], "1:2");
    record(&node.host, &[("pod-a", &ids[0])]);
    let held = |report: &Report| of(report, name).map(ResourceReport::held);
    node.until(|report| held(report) == Some(1)).await;
    // Unplugged.
    fs::remove_file(node.host.sys_dir.join("bus/usb/devices/1-1")).unwrap();
    fs::remove_file(node.host.dev_dir.join("bus/usb/001/002")).unwrap();
    let seen = node
        .until(|report| of(report, name).is_some_and(|one| one.healthy() == 1))
        .await;
    let gone = of(&seen, name)
        .unwrap()
        .units
        .iter()
        .find(|unit| unit.id == ids[0])
        .unwrap()
        .clone();
    assert!(
        matches!(&gone.health, Health::Unhealthy(reason) if reason.contains("pod-a")),
        "{gone:?}"
    );
    let error = client.allocate(asking(&[&ids[0]])).await.unwrap_err();
    assert!(error.message().contains(&ids[0]), "{error}");
    // Plugged in again: it has another number.
    tree::add(&node.tree, &stick(1, 9));
    let seen = node
        .until(|report| of(report, name).is_some_and(|one| one.healthy() == 2))
        .await;
    let again = of(&seen, name)
        .unwrap()
        .units
        .iter()
        .find(|unit| unit.id == ids[0])
        .unwrap()
        .clone();
    assert_eq!(again.addresses, ["1:9"]);
    // Its pod ends; the kubelet's record still has it.
    fs::remove_dir(node.host.pods_dir.join("pod-a")).unwrap();
    node.until(|report| held(report) == Some(0)).await;
    node.end().await;
}

#[tokio::test]
async fn a_stick_that_is_given_under_one_name_is_not_offered_under_another() {
    let tree = format!("{STICKS}{}", stick(1, 2));
    let mut node = Node::begin(&tree, sticks());
    let seen = node
        .until(|report| of(report, "x.io/stick").is_some_and(|one| one.healthy() == 1))
        .await;
    let id = of(&seen, "x.io/stick").unwrap().units[0].id.clone();
    let mut client = plugin(&node.host, "x.io/stick").await;
    client.allocate(asking(&[&id])).await.unwrap();
    let (usb, _) = usb_list::parse("x.io/other;46f4;0001,x.io/stick;46f4;0001");
    node.wanted.send_modify(|wanted| wanted.usb = usb);
    let seen = node
        .until(|report| of(report, "x.io/other").is_some())
        .await;
    let other = of(&seen, "x.io/other").unwrap();
    assert_eq!(other.capacity(), 0, "{other:?}");
    record(&node.host, &[("pod-b", &id)]);
    node.until(|report| of(report, "x.io/stick").map(ResourceReport::held) == Some(1))
        .await;
    record(&node.host, &[]);
    node.until(|report| of(report, "x.io/other").is_some_and(|one| one.capacity() == 1))
        .await;
    node.end().await;
}

#[tokio::test]
async fn what_was_given_is_known_after_a_restart() {
    let tree = format!("{STICKS}{}", stick(1, 2));
    let mut node = Node::begin(&tree, sticks());
    let seen = node
        .until(|report| of(report, "x.io/stick").is_some_and(|one| one.healthy() == 1))
        .await;
    let id = of(&seen, "x.io/stick").unwrap().units[0].id.clone();
    let mut client = plugin(&node.host, "x.io/stick").await;
    client.allocate(asking(&[&id])).await.unwrap();
    let (usb, _) = usb_list::parse("x.io/other;46f4;0001");
    let wanted = Wanted {
        usb,
        ..Wanted::default()
    };
    let mut node = node.restart(wanted).await;
    let seen = node
        .until(|report| of(report, "x.io/other").is_some())
        .await;
    let other = of(&seen, "x.io/other").unwrap();
    assert_eq!(other.capacity(), 0, "{other:?}");
    assert!(other.left_out[0].reason.contains("in use as"), "{other:?}");
    node.end().await;
}

#[tokio::test]
async fn the_kubelets_folder_may_come_later_and_is_not_made() {
    let mut node = Node::begin("d sys\nf dev/kvm\n", Wanted::default());
    let kvm = "devices.kubevirt.io/kvm";
    node.until(|report| of(report, kvm).is_some()).await;
    assert!(!node.host.plugin_dir.exists());
    fs::create_dir_all(&node.host.plugin_dir).unwrap();
    let mut client = plugin(&node.host, kvm).await;
    client.allocate(asking(&["kvm0"])).await.unwrap();
    node.end().await;
}

#[tokio::test]
async fn a_record_of_the_kubelet_that_makes_no_sense_is_told_until_it_does() {
    let tree = format!("{STICKS}{}", stick(1, 2));
    let mut node = Node::begin(&tree, sticks());
    node.until(|report| of(report, "x.io/stick").is_some())
        .await;
    let path = node.host.plugin_dir.join("kubelet_internal_checkpoint");
    fs::write(path, "{\"Data\":").unwrap();
    let is_told = |report: &Report| {
        let mut problems = report.problems.iter();
        problems.any(|problem| problem.contains("the kubelet's record"))
    };
    node.until(is_told).await;
    record(&node.host, &[]);
    node.until(|report| !is_told(report)).await;
    node.end().await;
}

#[tokio::test]
async fn a_file_that_does_not_answer_keeps_nobody_from_what_is_there() {
    let tree = format!("{STICKS}f dev/kvm\n{}", stick(1, 2));
    let mut node = Node::begin(&tree, sticks());
    let kvm = "devices.kubevirt.io/kvm";
    node.until(|report| of(report, kvm).is_some()).await;
    let mut client = plugin(&node.host, kvm).await;
    // Who opens a pipe waits for somebody at its other end.
    let pipe = node
        .host
        .sys_dir
        .join("devices/pci0000:00/0000:00:04.0/usb1/1-1/idVendor");
    fs::remove_file(&pipe).unwrap();
    mkfifo(&pipe, Mode::S_IRWXU).unwrap();
    fs::write(node.host.dev_dir.join("bus/usb/001/003"), "").unwrap();
    let opening = tokio::task::spawn_blocking({
        let pipe = pipe.clone();
        move || fs::OpenOptions::new().write(true).open(pipe).unwrap()
    });
    // From here on a look waits for what is written.
    let mut writing = tokio::time::timeout(LONGEST, opening)
        .await
        .unwrap()
        .unwrap();
    client.allocate(asking(&["kvm17"])).await.unwrap();
    node.wanted.send_modify(|wanted| wanted.usb.clear());
    writing.write_all(b"46f4\n").unwrap();
    drop(writing);
    fs::remove_file(&pipe).unwrap();
    node.until(|report| of(report, "x.io/stick").is_none())
        .await;
    node.end().await;
}

#[tokio::test]
async fn a_node_is_the_launchers_own_while_a_container_has_it() {
    let tree = format!("{STICKS}{}", stick(1, 2));
    let tree = tree::plant(&tree);
    let path = tree.path().join("dev/bus/usb/001/002");
    fs::remove_file(&path).unwrap();
    if !plant_device(&tree, "dev/bus/usb/001/002", 0o664) {
        return;
    }
    let before = owner(&path);
    let mut node = Node::begin_in(tree, sticks());
    let name = "x.io/stick";
    let seen = node
        .until(|report| of(report, name).is_some_and(|one| one.healthy() == 1))
        .await;
    let id = of(&seen, name).unwrap().units[0].id.clone();
    plugin(&node.host, name)
        .await
        .allocate(asking(&[&id]))
        .await
        .unwrap();
    assert_eq!(owner(&path), (LAUNCHER, LAUNCHER, before.2));
    record(&node.host, &[("pod-a", &id)]);
    node.until(|report| of(report, name).is_some_and(|one| one.held() == 1))
        .await;
    // The node agent is replaced, and the pod ends meanwhile.
    node.stop.cancel();
    tokio::time::timeout(LONGEST, &mut node.task)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(owner(&path).0, LAUNCHER);
    fs::remove_dir(node.host.pods_dir.join("pod-a")).unwrap();
    let node = node.restart(sticks()).await;
    let deadline = Instant::now() + LONGEST;
    while owner(&path) != before {
        assert!(Instant::now() < deadline, "{:?}", owner(&path));
        tokio::task::yield_now().await;
    }
    node.end().await;
}

#[tokio::test]
async fn a_device_that_flaps_is_told_a_few_times_a_second_and_then_as_it_is() {
    let mut node = Node::begin("d sys\nd dev\n", Wanted::default());
    let kvm = "devices.kubevirt.io/kvm";
    node.until(|report| of(report, kvm).is_some()).await;
    let mut told = node.report.clone();
    let counting = tokio::spawn(async move {
        let mut count = 0;
        while told.changed().await.is_ok() {
            count += 1;
        }
        count
    });
    let path = node.host.dev_dir.join("kvm");
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(2) {
        fs::write(&path, "").unwrap();
        tokio::task::yield_now().await;
        fs::remove_file(&path).unwrap();
        tokio::task::yield_now().await;
    }
    fs::write(&path, "").unwrap();
    let end = Instant::now();
    node.until(|report| of(report, kvm).is_some_and(|one| one.healthy() == 1000))
        .await;
    assert!(
        end.elapsed() < Duration::from_secs(1),
        "{:?}",
        end.elapsed()
    );
    node.end().await;
    let count = counting.await.unwrap();
    assert!(count <= 9, "told {count} times");
}
