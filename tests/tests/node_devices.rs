//! The node agent offers the node's devices: the agent is the real one; host, kubelet and API server are stand-ins.

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::{Duration, Instant};

    use device_plugins::wanted::Wanted;
    use nix::sys::signal::Signal;
    use serde_json::{Value, json};
    use tests::api_endpoint::{ApiEndpoint, ObjectKey, Resource, Which};
    use tests::console::{Console, Spawned};
    use tests::device_host::{DeviceHost, UsbDevice};
    use tests::kubelet::Mode;
    use tests::program;
    use tokio::runtime::Runtime;

    const PATIENCE: Duration = Duration::from_secs(20);
    const NODE: &str = "node01";
    const WIFI: &str = "kubevirt.io/wifi-dongle";
    const GSM: &str = "kubevirt.io/gsm-dongle";
    const TUN: &str = "devices.kubevirt.io/tun";
    const KVM: &str = "devices.kubevirt.io/kvm";
    /// What the agent is started with: the second item lacks its product.
    const LIST: &str = "kubevirt.io/wifi-dongle;0bda;0811,kubevirt.io/oops;0bda";

    /// A host, an API server, and the agent between them. Dropped, the agent is killed first.
    struct Site {
        agent: Option<Spawned>,
        api: ApiEndpoint,
        host: DeviceHost,
        runtime: Runtime,
    }

    fn node() -> ObjectKey {
        Resource::nodes().key("", NODE)
    }

    fn kubevirts() -> Resource {
        Resource::new("kubevirt.io/v1", "kubevirts")
    }

    fn kubevirt(usb: &Value) -> Value {
        json!({
            "apiVersion": "kubevirt.io/v1", "kind": "KubeVirt",
            "metadata": {"name": "kubevirt", "namespace": "kubevirt"},
            "spec": {"configuration": {
                "virtualMachineInstancesPerNode": 30, "permittedHostDevices": {"usb": usb},
            }},
        })
    }

    impl Site {
        /// Makes a node that was measured to have no use for KVM, with all shared devices and two dongles.
        fn new() -> Self {
            let host = DeviceHost::new(Wanted::default()).expect("make a host");
            for name in ["kvm", "net/tun", "vhost-net", "vhost-vsock"] {
                host.put_char_device(name).expect("make a device");
            }
            let wifi = UsbDevice::new("1-1", (0x0bda, 0x0811), 2);
            let gsm = UsbDevice::new("1-2", (0x0bda, 0x2838), 3);
            for device in [wifi, gsm] {
                host.plug(&device).expect("plug a device in");
            }
            let facts =
                json!({"backend": "soft", "backendReason": "KVM is too slow", "kvmMips": 2});
            std::fs::write(host.path("facts.json"), facts.to_string()).expect("write facts");
            for name in ["pods", "share"] {
                std::fs::create_dir_all(host.path(name)).expect("make a folder");
            }
            let api = ApiEndpoint::start().expect("start the API endpoint");
            let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE, "labels": {}, "annotations": {}}});
            api.put(&Resource::nodes(), object);
            api.put(&kubevirts(), kubevirt(&json!([])));
            Self {
                agent: None,
                api,
                host,
                runtime: Runtime::new().expect("start a runtime"),
            }
        }

        fn start(&mut self) -> Option<()> {
            let folder = |name: &str| self.host.path(name);
            let pods = self.host.kubelet.pods_dir();
            std::fs::create_dir_all(&pods).expect("make the folder of pods");
            let mut command = Command::new(program("virt-handler")?);
            let kubeconfig = self
                .api
                .kubeconfig(&folder(""))
                .expect("write a kubeconfig");
            command
                .env("KUBECONFIG", kubeconfig)
                .env("RUST_LOG", "info")
                .args(["--hostname-override", NODE, "--listen", "127.0.0.1"])
                .args([
                    "--port=0",
                    "--console-server-port=0",
                    "--vmstats-server-port=0",
                ])
                .args(["--usb-list", LIST]);
            for (flag, path) in [
                ("--sys-dir", folder("sys")),
                ("--dev-dir", folder("dev")),
                ("--kubelet-root", folder("kubelet")),
                ("--pods-dir", pods),
                ("--kubevirt-share-dir", folder("share")),
                ("--kubevirt-private-dir", folder("private")),
                ("--node-facts", folder("facts.json")),
            ] {
                command.arg(flag).arg(path);
            }
            let agent = Spawned::start(command, Console::OutputOnly);
            self.agent = Some(agent.expect("start the node agent"));
            Some(())
        }

        fn log(&self) -> String {
            self.agent.as_ref().map(Spawned::errors).unwrap_or_default()
        }

        fn start_kubelet(&mut self) {
            let _runtime = self.runtime.enter();
            let started = self.host.kubelet.start(Mode::Takes);
            started.expect("start the kubelet");
        }

        fn until(&self, resource: &str, capacity: usize, allocatable: usize) {
            let counts = self
                .host
                .kubelet
                .until_counts(PATIENCE, resource, capacity, allocatable);
            if let Err(error) = self.runtime.block_on(counts) {
                panic!("{error}\n{}", self.log());
            }
        }

        /// Waits until the node's condition is as wanted.
        fn condition(&self, wanted: impl Fn(&Value) -> bool) -> Value {
            let of = |node: &Value| {
                let conditions = node["status"]["conditions"].as_array();
                let mut conditions = conditions.into_iter().flatten();
                let found = conditions.find(|it| it["type"] == "ferrovirt.io/DevicePlugins");
                found.cloned().unwrap_or_default()
            };
            let found = self
                .api
                .wait_for(&node(), PATIENCE, |node| wanted(&of(node)));
            let found = found.unwrap_or_else(|node| panic!("{node:#?}\n{}", self.log()));
            of(&found)
        }

        fn devices(&self, format: &str) -> String {
            let program = program("virt-handler").expect("it runs");
            let mut command = Command::new(program);
            command.args(["devices", "-o", format, "--kubevirt-private-dir"]);
            let output = command.arg(self.host.path("private")).output();
            let output = output.expect("run virt-handler devices");
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            assert!(output.status.success(), "{}", text(&output.stderr));
            text(&output.stdout)
        }
    }

    impl Drop for Site {
        fn drop(&mut self) {
            self.agent = None;
        }
    }

    #[test]
    fn a_node_says_which_devices_it_offers_and_why_others_are_missing() {
        let mut site = Site::new();
        site.start_kubelet();
        let Some(()) = site.start() else { return };
        site.until(TUN, 30, 30);
        site.until(KVM, 30, 0);
        site.until(WIFI, 1, 1);
        let told = site.condition(|it| it["reason"] == "WrongRequest");
        assert_eq!(told["status"], "False");
        let message = told["message"].as_str().unwrap_or_default();
        for wanted in ["kubevirt.io/oops", "KVM is too slow"] {
            assert!(message.contains(wanted), "{message}");
        }
        site.host.kubelet.add_pod("pod-1").expect("make a pod");
        let given = site.host.kubelet.allocate("pod-1", "compute", TUN, 1);
        let given = site.runtime.block_on(given);
        given.expect("tun is given");
        let began = Instant::now();
        let table = loop {
            let table = site.devices("table");
            if table.contains("pod-1/compute") {
                break table;
            }
            assert!(began.elapsed() < PATIENCE, "{table}\n{}", site.log());
        };
        let row = |name: &str| {
            let row = table.lines().find(|line| line.starts_with(name));
            row.unwrap_or_else(|| panic!("{name} is not in\n{table}"))
                .to_owned()
        };
        assert!(row(KVM).contains("unhealthy") && row(KVM).contains("KVM is too slow"));
        assert!(row(TUN).contains("healthy") && row(TUN).contains("/dev/net/tun"));
        assert!(row(WIFI).contains("/dev/bus/usb/001/002"), "{table}");
        let report: Value = serde_json::from_str(&site.devices("json")).expect("it is JSON");
        assert_eq!(
            report["problems"].as_array().map(Vec::len),
            Some(1),
            "{report:#}"
        );
    }

    #[test]
    fn the_kubevirt_object_is_followed_and_the_node_stays_schedulable() {
        let mut site = Site::new();
        site.start_kubelet();
        let Some(()) = site.start() else { return };
        site.until(WIFI, 1, 1);
        let gsm =
            json!([{"resourceName": GSM, "selectors": [{"vendor": "0BDA", "product": "2838"}]}]);
        site.api.put(&kubevirts(), kubevirt(&gsm));
        site.until(GSM, 1, 1);
        site.host.kubelet.kill();
        site.start_kubelet();
        site.until(GSM, 1, 1);
        let is_schedulable =
            |node: &Value| node["metadata"]["labels"]["kubevirt.io/schedulable"] == "true";
        let schedulable = site.api.wait_for(&node(), PATIENCE, is_schedulable);
        schedulable.expect("the node is schedulable");
        site.api.put(&kubevirts(), kubevirt(&json!([])));
        site.until(GSM, 0, 0);
        site.until(WIFI, 1, 1);
        let agent = site.agent.take().expect("the agent runs");
        agent.signal(Signal::SIGTERM);
        agent.finish(PATIENCE).expect("the agent ends");
        site.until(WIFI, 0, 0);
        let left = std::fs::read_dir(site.host.kubelet.plugin_dir()).expect("read the folder");
        let left: Vec<_> = left.flatten().map(|entry| entry.file_name()).collect();
        let is_kubelets = |name: &std::ffi::OsString| name.to_string_lossy().starts_with("kubelet");
        assert!(left.iter().all(is_kubelets), "{left:?}");
    }

    #[test]
    fn a_role_that_may_not_tell_the_nodes_status_is_complained_of_once() {
        let mut site = Site::new();
        site.start_kubelet();
        site.api.answer(403, Which::Writes, 10_000);
        let Some(()) = site.start() else { return };
        site.until(WIFI, 1, 1);
        let complaint = "cannot tell the node's status which devices are offered";
        let until = |what: &str, is_so: &dyn Fn() -> bool| {
            let began = Instant::now();
            while !is_so() {
                assert!(began.elapsed() < PATIENCE, "{what}\n{}", site.log());
                std::thread::park_timeout(Duration::from_millis(10));
            }
        };
        until("it complains", &|| site.log().contains(complaint));
        assert!(site.log().contains("role patch nodes/status"));
        let (_, writes) = site.api.requests();
        site.host
            .unplug(&UsbDevice::new("1-1", (0x0bda, 0x0811), 2))
            .expect("unplug a device");
        site.until(WIFI, 0, 0);
        until("it tries again", &|| site.api.requests().1 > writes);
        assert_eq!(site.log().matches(complaint).count(), 1, "{}", site.log());
    }
}
