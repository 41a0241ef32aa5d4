//! What the device plugins do for a kubelet: devices that come, go and flap, kubelets that start again, hang or are not
//! there, and who has what.

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::path::Path;
    use std::time::{Duration, Instant};

    use device_plugins::resource::ResourceName;
    use device_plugins::runner::{Registration, socket_name};
    use device_plugins::usb::{UsbMatch, UsbSelector};
    use device_plugins::usb_list;
    use device_plugins::wanted::Wanted;
    use nix::sys::stat::{Mode as NodeMode, SFlag, makedev, mknod};
    use tests::device_host::{DeviceHost, UsbDevice};
    use tests::kubelet::{CHECKPOINT, Counts, Kubelet, KubeletError, Mode, SOCKET};
    use tests::skip;

    /// Time for everything; the machine may have much else to do.
    const PATIENCE: Duration = Duration::from_secs(20);
    /// Time in which a change shows in the kubelet, at the best of a few times.
    const SHOWN: Duration = Duration::from_secs(1);
    /// Time in which plugins are back with a kubelet that started again, at the best of a few times.
    const BACK: Duration = Duration::from_secs(2);

    const KVM: &str = "devices.kubevirt.io/kvm";
    const TUN: &str = "devices.kubevirt.io/tun";
    const WIFI: &str = "kubevirt.io/wifi-dongle";
    const GSM: &str = "kubevirt.io/gsm-dongle";
    /// Makes of devices.
    const WIFI_MAKE: (u16, u16) = (0x0bda, 0x0811);
    const GSM_MAKE: (u16, u16) = (0x0bda, 0x2838);
    /// What a test's machine asks for.
    const LIST: &str = "kubevirt.io/wifi-dongle;0bda;0811,kubevirt.io/gsm-dongle;0bda;2838";

    fn wanted(list: &str) -> Wanted {
        let (usb, problems) = usb_list::parse(list);
        Wanted {
            usb,
            problems,
            ..Wanted::default()
        }
    }

    fn wifi(port: u16) -> UsbDevice {
        UsbDevice::new(&format!("1-{port}"), WIFI_MAKE, port + 1)
    }

    fn host() -> DeviceHost {
        let host = DeviceHost::new(wanted(LIST)).unwrap();
        for name in ["kvm", "net/tun", "vhost-net", "vhost-vsock"] {
            host.put_char_device(name).unwrap();
        }
        host
    }

    /// A host on which kubelet and plugins run, with two dongles of one make.
    async fn running() -> DeviceHost {
        let mut host = host();
        host.plug(&wifi(1)).unwrap();
        host.plug(&wifi(2)).unwrap();
        host.kubelet.start(Mode::Takes).unwrap();
        host.start_plugins();
        shows(&host, WIFI, 2, 2).await;
        host
    }

    /// Waits until the node has so many devices, and says how long that took.
    async fn shows(
        host: &DeviceHost,
        resource: &str,
        capacity: usize,
        allocatable: usize,
    ) -> Duration {
        let counts = host
            .kubelet
            .until_counts(PATIENCE, resource, capacity, allocatable);
        counts.await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Waits until so many plugins are registered, each with its list.
    async fn registers(kubelet: &Kubelet, count: usize) {
        let what = format!("{count} plugins are registered");
        let connected = kubelet.until(PATIENCE, &what, |node| {
            let connected = node.resources.values();
            connected.filter(|found| found.is_connected).count() == count
        });
        connected.await.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Time from the socket's appearance until all plugins were registered.
    fn registered_after(kubelet: &Kubelet, appeared: Instant) -> Duration {
        let node = kubelet.node();
        let node = node.borrow();
        let times = node.resources.values().filter_map(|one| one.registered_at);
        times.max().unwrap().saturating_duration_since(appeared)
    }

    fn socket(host: &DeviceHost, resource: &str) -> std::path::PathBuf {
        let name = socket_name(&ResourceName::new(resource).unwrap());
        host.kubelet.plugin_dir().join(name)
    }

    fn is_there(path: &Path) -> bool {
        fs::symlink_metadata(path).is_ok()
    }

    /// Tells a figure where the reader of the tests finds it.
    fn figure(what: &str, value: impl std::fmt::Debug) {
        println!("figure: {what}: {value:?}");
    }

    #[tokio::test]
    async fn all_resources_are_registered_with_their_devices() {
        let host = running().await;
        registers(&host.kubelet, 6).await;
        for shared in ["kvm", "tun", "vhost-net", "vhost-vsock"] {
            let resource = format!("devices.kubevirt.io/{shared}");
            shows(&host, &resource, 1000, 1000).await;
            let mode = fs::metadata(socket(&host, &resource))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600, "only we may speak to {resource}");
        }
        // What was asked for and is not plugged in is a resource without devices.
        shows(&host, GSM, 0, 0).await;
        assert!(is_there(
            &host.kubelet.plugin_dir().join("kubevirt-kvm.sock")
        ));
        let told = |resource: &_| {
            let registered: &device_plugins::report::ResourceReport = resource;
            registered.registration == Registration::Registered
        };
        assert!(host.until_told(PATIENCE, KVM, told).await);
        assert!(host.until_told(PATIENCE, GSM, told).await);
    }

    #[tokio::test]
    async fn a_thousand_kvm_devices_fit_in_a_hundred_kilobytes() {
        let host = running().await;
        shows(&host, KVM, 1000, 1000).await;
        let len = host.kubelet.node().borrow().resources[KVM].list_len_bytes;
        figure("bytes of a list of 1000 kvm devices", len);
        assert!(len < 100_000, "{len}");
        let given = host.kubelet.add_pod("pod");
        given.unwrap();
        let given = host
            .kubelet
            .allocate("pod", "compute", KVM, 1)
            .await
            .unwrap();
        assert_eq!(given.ids, ["kvm0"]);
        assert_eq!(given.response.devices[0].host_path, "/dev/kvm");
        assert!(given.response.envs.is_empty());
    }

    #[tokio::test]
    async fn plugins_register_as_soon_as_the_kubelets_socket_appears() {
        let mut host = host();
        host.start_plugins();
        assert!(host.until_told(PATIENCE, KVM, |_| true).await);
        let mut fastest = PATIENCE;
        for _ in 0..5 {
            let appeared = host.kubelet.start(Mode::Takes).unwrap();
            registers(&host.kubelet, 6).await;
            let took = registered_after(&host.kubelet, appeared);
            figure("from kubelet.sock to six registrations", took);
            fastest = fastest.min(took);
            host.kubelet.stop().unwrap();
        }
        assert!(fastest < BACK, "{fastest:?}");
    }

    #[tokio::test]
    async fn a_kubelet_that_starts_again_gets_everything_back() {
        let mut host = running().await;
        registers(&host.kubelet, 6).await;
        let mut fastest = PATIENCE;
        for is_killed in [false, true, false, true] {
            match is_killed {
                true => host.kubelet.kill(),
                false => host.kubelet.stop().unwrap(),
            }
            assert_eq!(
                host.kubelet.counts(WIFI),
                Counts {
                    capacity: 2,
                    allocatable: 0
                }
            );
            let began = Instant::now();
            host.kubelet.start(Mode::Takes).unwrap();
            assert_eq!(host.kubelet.counts(WIFI), Counts::default());
            registers(&host.kubelet, 6).await;
            shows(&host, WIFI, 2, 2).await;
            shows(&host, KVM, 1000, 1000).await;
            let took = began.elapsed();
            figure("until all devices are back after a restart", took);
            fastest = fastest.min(took);
        }
        assert!(fastest < BACK, "{fastest:?}");
    }

    #[tokio::test]
    async fn a_kubelet_that_starts_again_many_times_is_followed() {
        let mut host = running().await;
        for _ in 0..20 {
            host.kubelet.start(Mode::Takes).unwrap();
            tokio::task::yield_now().await;
        }
        registers(&host.kubelet, 6).await;
        shows(&host, WIFI, 2, 2).await;
        assert!(is_there(&socket(&host, WIFI)));
    }

    #[tokio::test]
    async fn a_socket_that_is_removed_is_made_again() {
        let host = running().await;
        let lists = host.kubelet.node().borrow().resources[WIFI].lists;
        let path = socket(&host, WIFI);
        let before = fs::metadata(&path).unwrap().ino();
        fs::remove_file(&path).unwrap();
        let made_again = async {
            while !is_there(&path) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, made_again).await.unwrap();
        assert_ne!(fs::metadata(&path).unwrap().ino(), before);
        // The kubelet's stream was not broken by that, and goes on.
        host.unplug(&wifi(2)).unwrap();
        shows(&host, WIFI, 1, 1).await;
        let resource = host.kubelet.node().borrow().resources[WIFI].clone();
        assert!(resource.lists > lists && resource.is_connected);
    }

    #[tokio::test]
    async fn devices_appear_and_vanish_within_a_second() {
        let host = running().await;
        let (mut appeared, mut vanished) = (PATIENCE, PATIENCE);
        for _ in 0..4 {
            host.plug(&wifi(3)).unwrap();
            appeared = appeared.min(shows(&host, WIFI, 3, 3).await);
            host.unplug(&wifi(3)).unwrap();
            vanished = vanished.min(shows(&host, WIFI, 2, 2).await);
        }
        figure(
            "until a device shows and until it is gone",
            (appeared, vanished),
        );
        assert!(
            appeared < SHOWN && vanished < SHOWN,
            "{appeared:?} {vanished:?}"
        );
        host.take_char_device("kvm").unwrap();
        shows(&host, KVM, 1000, 0).await;
        host.put_char_device("kvm").unwrap();
        shows(&host, KVM, 1000, 1000).await;
    }

    #[tokio::test]
    async fn a_device_that_is_plugged_in_again_keeps_its_name() {
        let host = running().await;
        let ids = || -> BTreeSet<String> {
            let node = host.kubelet.node();
            let node = node.borrow();
            node.resources[WIFI].devices.keys().cloned().collect()
        };
        let before = ids();
        host.unplug(&wifi(1)).unwrap();
        shows(&host, WIFI, 1, 1).await;
        // Its number is another one then.
        let mut again = wifi(1);
        again.number = 77;
        host.plug(&again).unwrap();
        shows(&host, WIFI, 2, 2).await;
        assert_eq!(ids(), before);
        host.kubelet.add_pod("pod").unwrap();
        let given = host
            .kubelet
            .allocate("pod", "compute", WIFI, 2)
            .await
            .unwrap();
        let nodes = given.response.devices.iter();
        let nodes: BTreeSet<String> = nodes.map(|node| node.host_path.clone()).collect();
        assert_eq!(nodes, BTreeSet::from([again.node(), wifi(2).node()]));
    }

    #[tokio::test]
    async fn a_device_that_flaps_costs_few_lists_and_its_last_state_stays() {
        const FLAPS: u32 = 200;
        const HALF: Duration = Duration::from_millis(5);
        let host = running().await;
        let before = host.kubelet.node().borrow().resources[WIFI].lists;
        let began = Instant::now();
        let mut pace = tokio::time::interval(HALF);
        for _ in 0..FLAPS {
            pace.tick().await;
            host.plug(&wifi(3)).unwrap();
            pace.tick().await;
            host.unplug(&wifi(3)).unwrap();
        }
        host.plug(&wifi(3)).unwrap();
        let flapped = began.elapsed();
        shows(&host, WIFI, 3, 3).await;
        let lists = host.kubelet.node().borrow().resources[WIFI].lists - before;
        figure(
            "lists while a device flapped a hundred times a second",
            (lists, flapped),
        );
        let bound = 4.0 * flapped.as_secs_f64() + 4.0;
        assert!(f64::from(u32::try_from(lists).unwrap()) < bound, "{lists}");
    }

    #[tokio::test]
    async fn five_hundred_devices_are_offered() {
        let mut host = DeviceHost::new(wanted(LIST)).unwrap();
        let devices: Vec<UsbDevice> = (0..500)
            .map(|index| {
                let name = format!("1-{}.{}", index / 25 + 1, index % 25 + 1);
                UsbDevice::new(&name, WIFI_MAKE, index + 2)
            })
            .collect();
        for device in &devices {
            host.plug(device).unwrap();
        }
        host.kubelet.start(Mode::Takes).unwrap();
        let began = Instant::now();
        host.start_plugins();
        shows(&host, WIFI, 500, 500).await;
        figure("until 500 devices are offered", began.elapsed());
        host.unplug(&devices[250]).unwrap();
        shows(&host, WIFI, 499, 499).await;
        host.kubelet.add_pod("pod").unwrap();
        let given = host
            .kubelet
            .allocate("pod", "compute", WIFI, 499)
            .await
            .unwrap();
        assert_eq!(given.response.devices.len(), 499);
    }

    #[tokio::test]
    async fn a_kubelet_that_hangs_or_refuses_is_told_of_and_asked_again() {
        let mut host = host();
        host.kubelet.start(Mode::Hangs).unwrap();
        host.start_plugins();
        let failed =
            |told: &device_plugins::report::ResourceReport, word: &str| match &told.registration {
                Registration::Failed(reason) => reason.contains(word),
                _ => false,
            };
        assert!(
            host.until_told(PATIENCE, KVM, |told| failed(told, "not answered"))
                .await
        );
        // Another kubelet is not kept waiting for the one that hung.
        let reason = "too many plugins".to_owned();
        host.kubelet.start(Mode::Refuses(reason.clone())).unwrap();
        assert!(
            host.until_told(PATIENCE, KVM, |told| failed(told, &reason))
                .await
        );
        let appeared = host.kubelet.start(Mode::Takes).unwrap();
        registers(&host.kubelet, 6).await;
        let took = registered_after(&host.kubelet, appeared);
        figure("from the end of a refusal to six registrations", took);
    }

    #[tokio::test]
    async fn the_folder_may_come_after_the_plugins_and_go_again() {
        let mut host = host();
        host.start_plugins();
        let is_waiting = |told: &device_plugins::report::ResourceReport| {
            told.registration == Registration::Waiting
        };
        assert!(host.until_told(PATIENCE, KVM, is_waiting).await);
        assert!(!is_there(&host.kubelet.plugin_dir()));
        for _ in 0..2 {
            host.kubelet.start(Mode::Takes).unwrap();
            registers(&host.kubelet, 6).await;
            host.kubelet.stop().unwrap();
            fs::remove_dir_all(host.path("kubelet")).unwrap();
            assert!(host.until_told(PATIENCE, KVM, is_waiting).await);
        }
    }

    #[tokio::test]
    async fn a_container_gets_nodes_and_addresses_and_keeps_them() {
        let mut host = running().await;
        host.kubelet.add_pod("pod").unwrap();
        let given = host
            .kubelet
            .allocate("pod", "compute", WIFI, 2)
            .await
            .unwrap();
        let nodes: Vec<&str> = given
            .response
            .devices
            .iter()
            .map(|one| one.host_path.as_str())
            .collect();
        assert_eq!(nodes, [wifi(1).node(), wifi(2).node()]);
        assert!(
            given
                .response
                .devices
                .iter()
                .all(|one| one.host_path == one.container_path)
        );
        let variable = "USB_RESOURCE_KUBEVIRT_IO_WIFI-DONGLE";
        let addresses = format!("{},{}", wifi(1).address(), wifi(2).address());
        assert_eq!(given.response.envs[variable], addresses);
        let holds = |told: &device_plugins::report::ResourceReport| {
            let mut holders = told.units.iter().flat_map(|unit| &unit.holders);
            holders.any(|holder| holder.pod_uid == "pod" && holder.container == "compute")
        };
        assert!(host.until_told(PATIENCE, WIFI, holds).await);
        // Neither side's restart changes who has what.
        host.kubelet.start(Mode::Takes).unwrap();
        shows(&host, WIFI, 2, 2).await;
        let kept = host
            .kubelet
            .allocate("pod", "compute", WIFI, 2)
            .await
            .unwrap();
        assert_eq!(kept, given);
        host.kubelet.add_pod("other").unwrap();
        let none = host.kubelet.allocate("other", "compute", WIFI, 1).await;
        assert!(
            matches!(none, Err(KubeletError::Short { free: 0, .. })),
            "{none:?}"
        );
        host.kubelet.remove_pod("pod").unwrap();
        let freed = host
            .kubelet
            .allocate("other", "compute", WIFI, 1)
            .await
            .unwrap();
        assert_eq!(freed.ids, given.ids[..1]);
    }

    #[tokio::test]
    async fn what_is_gone_is_an_error_and_not_a_silent_gap() {
        let host = running().await;
        host.kubelet.add_pod("pod").unwrap();
        // The kubelet has not heard of it yet.
        host.unplug(&wifi(1)).unwrap();
        let given = host.kubelet.allocate("pod", "compute", WIFI, 2).await;
        let Err(KubeletError::Refused { reason, .. }) = given else {
            panic!("{given:?}");
        };
        assert!(reason.contains(WIFI), "{reason}");
        shows(&host, WIFI, 1, 1).await;
        // What is left of the pod's wish is not kept from others.
        host.kubelet
            .allocate("pod", "compute", WIFI, 1)
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn a_device_in_use_keeps_its_name_while_it_is_unplugged() {
        let host = running().await;
        host.kubelet.add_pod("pod").unwrap();
        let given = host
            .kubelet
            .allocate("pod", "compute", WIFI, 1)
            .await
            .unwrap();
        let holds = |told: &device_plugins::report::ResourceReport| {
            told.units.iter().any(|unit| !unit.holders.is_empty())
        };
        assert!(host.until_told(PATIENCE, WIFI, holds).await);
        host.unplug(&wifi(1)).unwrap();
        shows(&host, WIFI, 2, 1).await;
        let is_known = host.kubelet.node().borrow().resources[WIFI]
            .devices
            .contains_key(&given.ids[0]);
        assert!(is_known, "{:?}", given.ids);
        host.plug(&wifi(1)).unwrap();
        shows(&host, WIFI, 2, 2).await;
    }

    #[tokio::test]
    async fn what_is_in_use_is_not_offered_twice_after_the_wish_has_changed() {
        const OTHER: &str = "kubevirt.io/radio";
        let host = running().await;
        host.kubelet.add_pod("pod").unwrap();
        host.kubelet
            .allocate("pod", "compute", WIFI, 1)
            .await
            .unwrap();
        host.want(wanted("kubevirt.io/radio;0bda;0811"));
        shows(&host, OTHER, 1, 1).await;
        shows(&host, WIFI, 0, 0).await;
        let is_explained = |told: &device_plugins::report::ResourceReport| {
            told.left_out.iter().any(|left| !left.reason.is_empty())
        };
        assert!(host.until_told(PATIENCE, OTHER, is_explained).await);
        host.kubelet.remove_pod("pod").unwrap();
        shows(&host, OTHER, 2, 2).await;
    }

    #[tokio::test]
    async fn resources_come_and_go_with_the_wish() {
        let host = running().await;
        host.want(wanted("kubevirt.io/gsm-dongle;0bda;2838"));
        shows(&host, WIFI, 0, 0).await;
        host.plug(&UsbDevice::new("1-9", GSM_MAKE, 19)).unwrap();
        shows(&host, GSM, 1, 1).await;
        host.want(wanted(LIST));
        shows(&host, WIFI, 2, 2).await;
        host.want(wanted(
            "kubevirt.io/gsm-dongle;zzzz;2838,kubevirt.io/wifi-dongle;bda;811,",
        ));
        shows(&host, GSM, 0, 0).await;
        shows(&host, WIFI, 2, 2).await;
        let report = host.report();
        let problems = report.borrow().problems.clone();
        assert!(
            problems.iter().any(|problem| problem.contains("zzzz")),
            "{problems:?}"
        );
    }

    #[tokio::test]
    async fn plugins_that_stop_offer_nothing_and_remove_their_sockets() {
        let mut host = running().await;
        registers(&host.kubelet, 6).await;
        let began = Instant::now();
        assert!(host.stop_plugins(PATIENCE).await);
        figure("until the plugins have stopped", began.elapsed());
        assert!(began.elapsed() < Duration::from_secs(4));
        // Without the empty list the kubelet would still count the devices, as unhealthy.
        for resource in [KVM, TUN, WIFI, GSM] {
            shows(&host, resource, 0, 0).await;
            assert!(!is_there(&socket(&host, resource)));
        }
        let left: Vec<String> = fs::read_dir(host.kubelet.plugin_dir())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        assert!(
            left.iter().all(|name| name == SOCKET || name == CHECKPOINT),
            "{left:?}"
        );
    }

    #[tokio::test]
    async fn plugins_that_are_killed_take_up_their_sockets_and_records_again() {
        let mut host = running().await;
        host.kubelet.add_pod("pod").unwrap();
        host.kubelet
            .allocate("pod", "compute", WIFI, 1)
            .await
            .unwrap();
        host.kill_plugins().await;
        shows(&host, WIFI, 2, 0).await;
        host.start_plugins();
        shows(&host, WIFI, 2, 2).await;
        host.kubelet.add_pod("other").unwrap();
        let given = host.kubelet.allocate("other", "compute", WIFI, 2).await;
        assert!(
            matches!(given, Err(KubeletError::Short { free: 1, .. })),
            "{given:?}"
        );
    }

    #[tokio::test]
    async fn names_that_look_alike_are_different_resources() {
        let names = [
            "kubevirt.io/wifi-dongle",
            "example.com/wifi-dongle",
            "kubevirt.io/wifi-dongle-with-a-long-name",
            "kubevirt.io/wifi-dongle-with-a-long-name-2",
            "devices.kubevirt.io/wifi-dongle",
        ];
        let list: Vec<String> = names
            .iter()
            .enumerate()
            .map(|(index, name)| format!("{name};0bda;{index}"))
            .collect();
        let mut host = DeviceHost::new(wanted(&list.join(","))).unwrap();
        for index in 0..5 {
            let device = UsbDevice::new(&format!("1-{}", index + 1), (0x0bda, index), index + 2);
            host.plug(&device).unwrap();
        }
        host.kubelet.start(Mode::Takes).unwrap();
        host.start_plugins();
        for (index, name) in names.iter().enumerate() {
            shows(&host, name, 1, 1).await;
            host.kubelet
                .add_pod(name.rsplit('/').next().unwrap())
                .unwrap();
            let pod = name.rsplit('/').next().unwrap();
            let given = host.kubelet.allocate(pod, name, name, 1).await.unwrap();
            let node = format!("/dev/bus/usb/001/{:03}", index + 2);
            assert_eq!(given.response.devices[0].host_path, node);
        }
    }

    #[tokio::test]
    async fn a_plugin_that_cannot_be_served_does_not_stop_the_others() {
        let mut host = host();
        host.plug(&wifi(1)).unwrap();
        // A folder is where the socket should be.
        fs::create_dir_all(socket(&host, KVM).join("in-the-way")).unwrap();
        host.kubelet.start(Mode::Takes).unwrap();
        host.start_plugins();
        registers(&host.kubelet, 5).await;
        shows(&host, WIFI, 1, 1).await;
        let is_told = |told: &device_plugins::report::ResourceReport| matches!(&told.registration, Registration::Failed(reason) if reason.contains("kubevirt-kvm.sock"));
        assert!(host.until_told(PATIENCE, KVM, is_told).await);
        fs::remove_dir_all(socket(&host, KVM)).unwrap();
        shows(&host, KVM, 1000, 1000).await;
    }

    #[tokio::test]
    async fn a_node_belongs_to_the_launcher_while_a_container_has_it() {
        const LAUNCHER: u32 = 107;
        let mut host = host();
        host.set_launcher_id(LAUNCHER);
        let device = wifi(1);
        let node = host.path(device.node());
        // A character device that is no harm: /dev/null's numbers.
        let made = mknod(
            &node,
            SFlag::S_IFCHR,
            NodeMode::from_bits_truncate(0o640),
            makedev(1, 3),
        );
        let owned = made.map_err(std::io::Error::from).and_then(|()| {
            std::os::unix::fs::chown(&node, Some(LAUNCHER), None)?;
            std::os::unix::fs::chown(&node, Some(0), None)
        });
        if let Err(error) = owned {
            skip(&format!(
                "device nodes cannot be made or given away here: {error}"
            ));
            return;
        }
        host.plug_without_node(&device).unwrap();
        host.kubelet.start(Mode::Takes).unwrap();
        host.start_plugins();
        shows(&host, WIFI, 1, 1).await;
        host.kubelet.add_pod("pod").unwrap();
        let owner = || {
            let found = fs::metadata(&node).unwrap();
            (found.uid(), found.gid())
        };
        let before = owner();
        host.kubelet
            .allocate("pod", "compute", WIFI, 1)
            .await
            .unwrap();
        assert_eq!(owner(), (LAUNCHER, LAUNCHER));
        let holds = |told: &device_plugins::report::ResourceReport| {
            told.units.iter().any(|unit| !unit.holders.is_empty())
        };
        assert!(host.until_told(PATIENCE, WIFI, holds).await);
        host.kubelet.remove_pod("pod").unwrap();
        let given_back = async {
            while owner() != before {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, given_back).await.unwrap();
    }

    #[tokio::test]
    async fn all_devices_of_a_unit_are_given_together() {
        let wifi_match = UsbMatch::parse("0bda", "0811").unwrap();
        let gsm_match = UsbMatch::parse("0bda", "2838").unwrap();
        let selector = UsbSelector {
            resource: ResourceName::new("kubevirt.io/pair").unwrap(),
            matches: vec![wifi_match, gsm_match],
        };
        let mut host = DeviceHost::new(Wanted {
            usb: vec![selector],
            ..Wanted::default()
        })
        .unwrap();
        host.plug(&wifi(1)).unwrap();
        host.plug(&UsbDevice::new("1-2", GSM_MAKE, 3)).unwrap();
        host.kubelet.start(Mode::Takes).unwrap();
        host.start_plugins();
        shows(&host, "kubevirt.io/pair", 1, 1).await;
        host.kubelet.add_pod("pod").unwrap();
        let given = host
            .kubelet
            .allocate("pod", "compute", "kubevirt.io/pair", 1)
            .await
            .unwrap();
        assert_eq!(given.response.devices.len(), 2);
        assert_eq!(
            given.response.envs["USB_RESOURCE_KUBEVIRT_IO_PAIR"],
            "1:2,1:3"
        );
    }

    /// Time that this thread was on a CPU.
    fn thread_time() -> Duration {
        let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        let first = text.split(' ').next().unwrap();
        Duration::from_nanos(first.parse().unwrap())
    }

    #[tokio::test]
    async fn plugins_use_no_cpu_while_nothing_changes() {
        let host = running().await;
        registers(&host.kubelet, 6).await;
        // What follows a registration is over by then.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let before = thread_time();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let used = thread_time() - before;
        figure(
            "CPU time of all plugins and the kubelet's side in 2 s",
            used,
        );
        assert!(used < Duration::from_millis(5), "{used:?}");
    }

    /// Bytes of this process that are in memory.
    fn resident_len_bytes() -> u64 {
        let text = fs::read_to_string("/proc/self/statm").unwrap();
        let pages = text.split(' ').nth(1).unwrap();
        pages.parse::<u64>().unwrap() * 4096
    }

    #[tokio::test]
    async fn all_plugins_of_a_node_need_little_memory() {
        const BOUND: u64 = 4 << 20;
        // What the program itself needs is in memory then.
        let first = running().await;
        registers(&first.kubelet, 6).await;
        let mut host = host();
        host.kubelet.start(Mode::Takes).unwrap();
        let before = resident_len_bytes();
        host.start_plugins();
        registers(&host.kubelet, 6).await;
        shows(&host, KVM, 1000, 1000).await;
        let grown = resident_len_bytes().saturating_sub(before);
        figure(
            "bytes for six plugins and the kubelet's side of them",
            grown,
        );
        assert!(grown < BOUND, "{grown}");
    }
}
