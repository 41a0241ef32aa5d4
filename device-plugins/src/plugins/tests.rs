//! The plugins as a whole, with trees of files for a host.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Setup, run};
use crate::char_device::CharDevices;
use crate::report::{self, Report, ResourceReport};
use crate::source::Host;
use crate::tree;
use crate::wanted::{Problem, Wanted};

/// How long anything may take.
const LONGEST: Duration = Duration::from_secs(20);

/// A node with the plugins running.
struct Node {
    _tree: tempfile::TempDir,
    host: Host,
    wanted: watch::Sender<Wanted>,
    report: watch::Receiver<Arc<Report>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Node {
    fn begin(tree: &str, wanted: Wanted) -> Self {
        let tree = tree::plant(tree);
        let host = tree::host(&tree);
        fs::create_dir_all(&host.pods_dir).unwrap();
        let (wanted, wanting) = watch::channel(wanted);
        let (telling, report) = watch::channel(Arc::default());
        let stop = CancellationToken::new();
        let setup = Setup {
            host: host.clone(),
            launcher_id: 107,
        };
        let task = tokio::spawn(run(setup, wanting, telling, stop.clone()));
        Self {
            _tree: tree,
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
    let deadline = tokio::time::Instant::now() + LONGEST;
    while Report::read(&path).is_err() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "no table at {path:?}"
        );
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
