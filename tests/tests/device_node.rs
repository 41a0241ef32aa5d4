//! Device plugins on a worker node with real devices, inside QEMU. One node serves all steps: a boot takes as long as they do.

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Instant;

    use serde_json::{Value, json};
    use tests::device_node::protocol::{Given, Request};
    use tests::device_node::{DeviceNode, FUNCTIONS, Plug, healthy, row, rows};

    /// User and group of launchers.
    const LAUNCHER: u32 = 107;
    /// Units of what can be shared.
    const SHARED: usize = 20;

    const KVM: &str = "devices.kubevirt.io/kvm";
    const TUN: &str = "devices.kubevirt.io/tun";
    const STICK: &str = "example.com/stick";
    const SERIAL: &str = "example.com/serial";
    const HUB: &str = "example.com/hub";
    const TURNED: &str = "example.com/turned";
    const TABLET: &str = "example.com/tablet";
    const EDU: &str = "example.com/edu";
    const FUNCTION: &str = "example.com/nvme-vf";
    const SATA: &str = "example.com/sata";
    const GPU: &str = "example.com/vgpu";

    /// The list that the node is started with, as people write it: one item has vendor and product the wrong way round, and
    /// one is no item.
    const USB_LIST: &str = "example.com/stick;46f4;0001, example.com/serial;0x403;6001 ,example.com/hub;0409;55aa,\
                            example.com/turned;6001;0403,example.com/typo;04b4,";

    /// What the machine monitor says about the node.
    const NODE_FACTS: &str = "/var/lib/kubevirt-node-labeller/node-facts.json";
    /// Label of the node with what runs processors.
    const BACKEND: &str = "ferrovirt.io/cpu-backend";

    /// The NVMe controller, which has the virtual functions, and the edu device that is alone in its IOMMU group.
    const CONTROLLER: &str = "/sys/bus/pci/devices/0000:41:00.0";
    const EDU_DEVICE: &str = "/sys/bus/pci/devices/0000:00:10.0";
    /// Another edu device, and the USB controller that is in its IOMMU group.
    const GROUPED: [&str; 2] = [
        "/sys/bus/pci/devices/0000:01:01.0",
        "/sys/bus/pci/devices/0000:01:02.0",
    ];

    #[test]
    fn a_worker_node_gives_real_devices_away() {
        let Some(mut node) = DeviceNode::boot() else {
            return;
        };
        let up_after = node.up_after().as_secs_f64();
        say(&format!("the node was up after {up_after:.1} s"));
        start(&mut node);
        every_kind_of_usb_device_is_counted(&mut node);
        tun_and_its_like_are_shared(&mut node);
        kvm_is_offered_as_it_was_measured(&mut node);
        functions_count_once_vfio_has_them(&mut node);
        a_group_is_offered_as_a_whole(&mut node);
        let sticks = a_container_gets_what_it_needs_for_usb(&mut node);
        functions_are_given_by_group(&mut node);
        show(&mut node);
        a_device_that_is_plugged_in_again_is_the_same(&mut node, &sticks);
        a_device_that_flaps_ends_as_it_was(&mut node);
        a_function_that_leaves_vfio_is_explained(&mut node);
        nothing_is_done_while_nothing_changes(&mut node);
        a_kubelet_that_restarts_is_offered_the_same(&mut node);
        a_change_of_the_kubevirt_object_is_followed(&mut node);
        functions_are_bound_where_the_node_is_asked_to(&mut node);
        what_ended_pods_had_is_given_back(&mut node);
        a_new_node_agent_gives_back_too(&mut node);
        kvm_that_is_too_slow_is_not_given(&mut node);
    }

    /// Starts the node agent with the sort of configuration that upstream's documentation shows.
    fn start(node: &mut DeviceNode) {
        let configuration = configuration(&json!([
            {"resourceName": TABLET, "selectors": [{"vendor": "0627", "product": "0001"}]},
        ]));
        node.ask(&Request::KubeVirt { configuration });
        start_handler(node, &[]);
    }

    fn configuration(usb: &Value) -> Value {
        json!({
            "developerConfiguration": {"featureGates": ["HostDevices"]},
            "virtualMachineInstancesPerNode": SHARED,
            "permittedHostDevices": {
                "pciHostDevices": [
                    {"pciVendorSelector": "1234:11E8", "resourceName": EDU},
                    {"pciVendorSelector": "1b36:0010", "resourceName": FUNCTION},
                    {"pciVendorSelector": "8086:2922", "resourceName": SATA},
                ],
                "mediatedDevices": [{"mdevNameSelector": "GRID T4-1Q", "resourceName": GPU}],
                "usb": usb,
            },
        })
    }

    fn start_handler(node: &mut DeviceNode, arguments: &[&str]) {
        let arguments = ["--usb-list", USB_LIST].iter().chain(arguments);
        let arguments = arguments.map(|&word| word.to_owned()).collect();
        node.ask(&Request::StartHandler { arguments });
    }

    fn every_kind_of_usb_device_is_counted(node: &mut DeviceNode) {
        node.wait_for(STICK, 2, 2);
        node.wait_for(SERIAL, 1, 1);
        node.wait_for(TABLET, 1, 1);
        assert_eq!(
            node.offers().get(HUB).map_or(0, BTreeMap::len),
            0,
            "a hub counts"
        );
    }

    fn tun_and_its_like_are_shared(node: &mut DeviceNode) {
        for name in ["tun", "vhost-net", "vhost-vsock"] {
            let resource = format!("devices.kubevirt.io/{name}");
            node.wait_for(&resource, SHARED, SHARED);
        }
        let given = node.allocate("pod-tun", TUN, 1);
        let paths: Vec<&str> = given.nodes.iter().map(|node| node.0.as_str()).collect();
        assert_eq!(paths, ["/dev/net/tun"]);
    }

    /// On QEMU's translator KVM is usable, unless the host has next to no time for it.
    fn kvm_is_offered_as_it_was_measured(node: &mut DeviceNode) {
        let facts: Value = serde_json::from_str(&node.read(NODE_FACTS)).unwrap();
        let (backend, mips) = (&facts["backend"], &facts["kvmMips"]);
        say(&format!(
            "processors: {backend}; KVM ran {mips} million instructions a second"
        ));
        let is_usable = backend == "kvm";
        node.wait_for(KVM, SHARED, if is_usable { SHARED } else { 0 });
        if is_usable {
            let given = node.allocate("pod-kvm", KVM, 1);
            assert_eq!(given.nodes[0].0, "/dev/kvm", "{given:?}");
        }
        let has_label = node.until(|node| label(node, BACKEND) == *backend);
        assert!(has_label, "{backend}: {:#}", node.ask(&Request::Node));
    }

    /// Where the probe finds KVM too slow, it is there and nobody gets it.
    fn kvm_that_is_too_slow_is_not_given(node: &mut DeviceNode) {
        let script = format!(r#"/bin/busybox sed 's/"kvm"/"soft"/' {NODE_FACTS} >/run/facts.json"#);
        node.run(&["/bin/busybox", "sh", "-c", &script]);
        start_handler(node, &["--node-facts", "/run/facts.json"]);
        node.wait_for(KVM, SHARED, 0);
        assert!(row(&node.table(), KVM, "/dev/kvm").contains("unhealthy"));
        let has_label = node.until(|node| label(node, BACKEND) == "soft");
        assert!(has_label, "{:#}", node.ask(&Request::Node));
    }

    fn label(node: &mut DeviceNode, name: &str) -> Value {
        node.ask(&Request::Node)["metadata"]["labels"][name].clone()
    }

    /// Virtual functions are made and bound while the node agent runs.
    fn functions_count_once_vfio_has_them(node: &mut DeviceNode) {
        let total = node.read(&format!("{CONTROLLER}/sriov_totalvfs"));
        assert_eq!(total, FUNCTIONS.to_string());
        node.write(&format!("{CONTROLLER}/sriov_drivers_autoprobe"), "0");
        node.write(&format!("{CONTROLLER}/sriov_numvfs"), &total);
        for function in 0..4 {
            node.bind(&function_path(function), "vfio-pci");
        }
        node.bind(&function_path(4), "pci-stub");
        node.wait_for(FUNCTION, 4, 4);
        let table = node.table_with("pci-stub");
        assert_eq!(rows(&table, FUNCTION).len(), 9, "{table}");
        for unit in node.offers()[FUNCTION].values() {
            assert_eq!(unit.numa_nodes, [1]);
        }
    }

    /// What shares an IOMMU group with a device whose driver is another cannot be given, and the reason names that device.
    fn a_group_is_offered_as_a_whole(node: &mut DeviceNode) {
        let [edu, controller] = GROUPED;
        node.bind(edu, "vfio-pci");
        let table = node.table_with("xhci_hcd");
        let row = row(&table, EDU, "0000:01:01.0");
        assert!(row.contains("0000:01:02.0"), "{table}");
        node.record("recorded-node-mixed");
        node.unbind(controller);
        node.bind(controller, "vfio-pci");
        node.wait_for(EDU, 1, 1);
        node.unbind(&function_path(4));
        for function in 4..FUNCTIONS {
            node.bind(&function_path(function), "vfio-pci");
        }
        node.bind(EDU_DEVICE, "vfio-pci");
        node.wait_for(FUNCTION, 8, 8);
        node.wait_for(EDU, 2, 2);
        node.record("recorded-node");
    }

    fn function_path(number: u32) -> String {
        format!("{CONTROLLER}/virtfn{number}")
    }

    fn a_container_gets_what_it_needs_for_usb(node: &mut DeviceNode) -> Given {
        let given = node.allocate("pod-usb", STICK, 1);
        let address = &given.environment["USB_RESOURCE_EXAMPLE_COM_STICK"];
        let (bus, device) = address.split_once(':').expect("bus and device");
        let path = format!("/dev/bus/usb/{bus:0>3}/{device:0>3}");
        let paths: Vec<&str> = given.nodes.iter().map(|node| node.0.as_str()).collect();
        assert_eq!(paths, [path.as_str()], "{given:?}");
        assert_eq!(given.nodes[0].0, given.nodes[0].1, "{given:?}");
        let owner = node.owner(&path);
        assert!(owner.is_device, "{path} is no device node");
        assert_eq!((owner.user, owner.group), (LAUNCHER, LAUNCHER), "{path}");
        let too_many = node.try_allocate("pod-more", STICK, 2);
        assert!(too_many.is_err(), "{too_many:?}");
        given
    }

    fn functions_are_given_by_group(node: &mut DeviceNode) {
        let given = node.allocate("pod-vf", FUNCTION, 2);
        let addresses = &given.environment["PCI_RESOURCE_EXAMPLE_COM_NVME-VF"];
        let addresses: Vec<&str> = addresses.split(',').collect();
        assert_eq!(addresses.len(), 2, "{given:?}");
        let mut wanted: Vec<String> = addresses
            .iter()
            .map(|address| group(node, address))
            .collect();
        wanted.push("/dev/vfio/vfio".to_owned());
        wanted.sort();
        let mut paths: Vec<String> = given.nodes.iter().map(|node| node.0.clone()).collect();
        paths.sort();
        assert_eq!(paths, wanted);
        let taken = node.owner(&wanted[0]);
        assert_eq!(
            (taken.user, taken.is_device),
            (LAUNCHER, true),
            "{wanted:?}"
        );
    }

    /// The node of the IOMMU group that a PCI function is in.
    fn group(node: &mut DeviceNode, address: &str) -> String {
        let link = format!("/sys/bus/pci/devices/{address}/iommu_group");
        format!("/dev/vfio/{}", node.link_name(&link))
    }

    /// Prints what an operator sees, and looks for every kind in it.
    fn show(node: &mut DeviceNode) {
        for pod in ["pod-tun", "pod-usb", "pod-vf"] {
            node.table_with(pod);
        }
        let table = node.table();
        say(&table);
        for (resource, path) in [
            (KVM, "/dev/kvm"),
            (TUN, "/dev/net/tun"),
            ("devices.kubevirt.io/vhost-net", "/dev/vhost-net"),
            ("devices.kubevirt.io/vhost-vsock", "/dev/vhost-vsock"),
            (STICK, "/dev/bus/usb/"),
            (SERIAL, "/dev/bus/usb/"),
            (TABLET, "/dev/bus/usb/"),
            (EDU, "/dev/vfio/"),
            (FUNCTION, "/dev/vfio/"),
        ] {
            let rows = rows(&table, resource);
            assert!(
                rows.iter().any(|row| row.contains(path)),
                "{resource} in\n{table}"
            );
        }
        for (resource, pod) in [(STICK, "pod-usb"), (FUNCTION, "pod-vf"), (TUN, "pod-tun")] {
            let rows = rows(&table, resource);
            assert!(
                rows.iter().any(|row| row.contains(pod)),
                "{pod} in\n{table}"
            );
        }
        let reason = rows(&table, SATA).join("\n");
        assert!(
            reason.contains("0000:00:1f.2") && reason.contains("no driver"),
            "{table}"
        );
        assert!(row(&table, HUB, "1-1").contains("hub"), "{table}");
        assert!(
            rows(&table, TURNED).join("\n").contains("swapped"),
            "{table}"
        );
        assert!(table.contains("example.com/typo"), "{table}");
        assert!(!rows(&table, GPU).is_empty(), "{table}");
        let conditions = node.ask(&Request::Node)["status"]["conditions"].clone();
        let conditions = conditions.as_array().cloned().unwrap_or_default();
        let plugins = conditions
            .iter()
            .find(|it| it["type"] == "ferrovirt.io/DevicePlugins");
        let plugins = plugins.unwrap_or_else(|| panic!("no condition in {conditions:#?}"));
        assert_eq!(plugins["reason"], "WrongRequest", "{plugins:#}");
    }

    /// Once what a change brought is done, seconds pass in which the node agent needs next to no processor time. A heartbeat may
    /// fall into some of them.
    fn nothing_is_done_while_nothing_changes(node: &mut DeviceNode) {
        let pid = node.run(&["/bin/busybox", "pidof", "virt-handler"]);
        let stat = format!("/proc/{}/stat", pid.trim());
        let mut measured = Vec::new();
        while !measured.contains(&0) && measured.len() < 8 {
            let before = ticks(&node.read(&stat));
            node.run(&["/bin/busybox", "sleep", "2"]);
            measured.push(ticks(&node.read(&stat)) - before);
        }
        say(&format!(
            "ticks of the node agent in spans of 2 s without a change: {measured:?}"
        ));
        assert!(measured.contains(&0), "{measured:?}");
    }

    /// The processor time of a process in ticks: its own and the kernel's for it (proc(5)).
    fn ticks(stat: &str) -> u64 {
        let (_, rest) = stat.rsplit_once(") ").unwrap();
        let times = rest.split_whitespace().skip(11).take(2);
        times.map(|time| time.parse::<u64>().unwrap()).sum()
    }

    fn a_device_that_is_plugged_in_again_is_the_same(node: &mut DeviceNode, given: &Given) {
        let before = node.offers();
        // One of the two is in use; which of them depends on what the plugin prefers.
        for plug in [Plug::Stick, Plug::Twin] {
            let is_given = |node: &mut DeviceNode| {
                let offers = node.offers();
                let unit = offers[STICK].get(&given.ids[0]);
                unit.map(|unit| unit.is_healthy)
            };
            let began = Instant::now();
            node.unplug(plug);
            node.wait_until("one stick is left", |offers| healthy(offers, STICK) == 1);
            report(&format!("{plug:?} out"), began);
            if is_given(node) == Some(false) {
                let row = rows(&node.table(), STICK).join("\n");
                assert!(row.contains("unhealthy"), "{row}");
            }
            assert!(is_given(node).is_some(), "what is in use stays listed");
            let began = Instant::now();
            node.plug(plug);
            node.wait_for(STICK, 2, 2);
            report(&format!("{plug:?} in again"), began);
            assert_eq!(node.offers()[STICK], before[STICK]);
        }
        node.unplug(Plug::Serial);
        node.wait_until("no adapter is left", |offers| healthy(offers, SERIAL) == 0);
        let gone = node.try_allocate("pod-serial", SERIAL, 1);
        assert!(gone.is_err(), "{gone:?}");
        node.plug(Plug::Serial);
        node.wait_for(SERIAL, 1, 1);
        assert_eq!(node.offers()[SERIAL], before[SERIAL]);
    }

    fn a_device_that_flaps_ends_as_it_was(node: &mut DeviceNode) {
        let before = node.offers();
        for _ in 0..10 {
            node.unplug(Plug::Tablet);
            node.plug(Plug::Tablet);
        }
        node.wait_until("the tablet is there again", |offers| *offers == before);
    }

    fn a_function_that_leaves_vfio_is_explained(node: &mut DeviceNode) {
        let function = function_path(7);
        node.unbind(&function);
        node.wait_until("7 functions are left", |offers| {
            healthy(offers, FUNCTION) == 7
        });
        node.bind(&function, "pci-stub");
        let table = node.table_with("pci-stub");
        assert!(
            row(&table, FUNCTION, "0000:41:01.0").contains("pci-stub"),
            "{table}"
        );
        node.unbind(&function);
    }

    fn a_kubelet_that_restarts_is_offered_the_same(node: &mut DeviceNode) {
        node.wait_until("7 functions are left", |offers| {
            healthy(offers, FUNCTION) == 7
        });
        let before = node.offers();
        let began = Instant::now();
        node.ask(&Request::RestartKubelet);
        node.wait_until("all is offered again", |offers| *offers == before);
        report("all plugins registered with a new kubelet", began);
        let schedulable = label(node, "kubevirt.io/schedulable");
        assert_eq!(schedulable, "true");
    }

    fn a_change_of_the_kubevirt_object_is_followed(node: &mut DeviceNode) {
        let selectors = json!([
            {"vendor": "0627", "product": "0001"},
            {"vendor": "0403", "product": "6001"},
        ]);
        let wanted = json!([{"resourceName": "example.com/kit", "selectors": selectors}]);
        let configuration = configuration(&wanted);
        node.ask(&Request::KubeVirt { configuration });
        node.wait_for("example.com/kit", 1, 1);
        node.wait_until("the tablet is in the kit", |offers| {
            healthy(offers, TABLET) == 0 && healthy(offers, SERIAL) == 0
        });
        let given = node.allocate("pod-kit", "example.com/kit", 1);
        assert_eq!(given.nodes.len(), 2, "{given:?}");
        let addresses = &given.environment["USB_RESOURCE_EXAMPLE_COM_KIT"];
        assert_eq!(addresses.split(',').count(), 2, "{given:?}");
    }

    /// The virtual function that lost its driver comes back; the controller itself, which fits the selector too, keeps its own.
    fn functions_are_bound_where_the_node_is_asked_to(node: &mut DeviceNode) {
        let before = node.offers();
        start_handler(node, &["--bind-vfio"]);
        node.wait_for(FUNCTION, 8, 8);
        node.wait_until("all has its name again", |after| {
            before.iter().all(|(resource, units)| {
                let mut names = units.keys();
                names.all(|id| after.get(resource).is_some_and(|it| it.contains_key(id)))
            })
        });
        let function = format!("{}/driver", function_path(7));
        assert_eq!(node.link_name(&function), "vfio-pci");
        assert_eq!(node.link_name(&format!("{CONTROLLER}/driver")), "nvme");
    }

    fn what_ended_pods_had_is_given_back(node: &mut DeviceNode) {
        let given = node.allocate("pod-vf", FUNCTION, 2);
        let groups = given.nodes.iter().map(|node| node.0.clone());
        let groups: Vec<String> = groups.filter(|path| path != "/dev/vfio/vfio").collect();
        assert!(
            groups.iter().all(|path| node.owner(path).user == LAUNCHER),
            "{groups:?}"
        );
        for pod in ["pod-usb", "pod-vf", "pod-kit", "pod-tun"] {
            node.remove_pod(pod);
        }
        let is_back = node.until(|node| groups.iter().all(|path| node.owner(path).user == 0));
        if !is_back {
            node.fail(&format!("{groups:?} are still the launcher's"));
        }
    }

    /// What is given away is on record: a node agent that was not there when the pod ended finds it.
    fn a_new_node_agent_gives_back_too(node: &mut DeviceNode) {
        let given = node.allocate("pod-last", STICK, 2);
        assert_eq!(given.ids.len(), 2, "{given:?}");
        let paths: Vec<String> = given.nodes.into_iter().map(|node| node.0).collect();
        assert!(
            paths.iter().all(|path| node.owner(path).user == LAUNCHER),
            "{paths:?}"
        );
        node.table_with("pod-last");
        node.ask(&Request::StopHandler);
        node.remove_pod("pod-last");
        start_handler(node, &[]);
        let is_back = node.until(|node| paths.iter().all(|path| node.owner(path).user == 0));
        if !is_back {
            node.fail(&format!("{paths:?} are still the launcher's"));
        }
    }

    fn report(what: &str, began: Instant) {
        say(&format!(
            "{what}: after {} ms in the kubelet",
            began.elapsed().as_millis()
        ));
    }

    /// Tells people who look what the node offers.
    fn say(text: &str) {
        eprintln!("{text}");
    }
}
