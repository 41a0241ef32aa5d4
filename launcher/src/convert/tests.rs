#![expect(
    clippy::needless_pass_by_value,
    reason = "json! literals read best as arguments"
)]

use std::path::PathBuf;

use block::CacheMode;
use serde_json::{Value, json};
use vmm::config::{
    Accel, BootSource, DiskBus, DiskKind, DiskSource, ErrorPolicy, IoMode, MachineConfig,
};

use super::{AGENT_PORT, Environment, convert, domain_devices};
use crate::host_devices::Variables;
use crate::support::Remarks;
use crate::volumes::{Medium, ResolvedDisk, ResolvedKernel, ResolvedVolumes};

/// Converts an instance of two disks whose domain is the given one on top of a small default.
fn converted(domain: Value, kernel: bool) -> Result<(MachineConfig, Remarks), String> {
    on_media(domain, kernel, Medium::default(), false)
}

/// The same, with disks on files of a kind.
fn on_media(
    domain: Value,
    kernel: bool,
    medium: Medium,
    strict: bool,
) -> Result<(MachineConfig, Remarks), String> {
    let (vmi, volumes) = instance(domain, kernel, medium);
    let environment = Environment {
        accel: Accel::Soft,
        bios: (!kernel).then(|| PathBuf::from("/bios")),
        memory_bytes: 1 << 30,
        agent_socket: Some(PathBuf::from("/agent")),
        strict,
        device_variables: Variables::from([
            ("USB_RESOURCE_X_U".to_owned(), "1:7".to_owned()),
            ("USB_RESOURCE_X_FEW".to_owned(), "1:8".to_owned()),
        ]),
    };
    convert(&vmi, &volumes, &environment)
        .map(|converted| (converted.config, converted.remarks))
        .map_err(|errors| errors[0].to_string())
}

fn instance(domain: Value, kernel: bool, medium: Medium) -> (api::Vmi, ResolvedVolumes) {
    let mut full = json!({
        "memory": {"guest": "64Mi"},
        "devices": {"disks": [{"name": "a"}, {"name": "b"}]},
    });
    full.as_object_mut()
        .unwrap()
        .extend(domain.as_object().unwrap().clone());
    let object = json!({
        "metadata": {"name": "m"},
        "spec": {
            "domain": full,
            "volumes": [
                {"name": "a", "emptyDisk": {"capacity": "1Gi"}},
                {"name": "b", "containerDisk": {"image": "x"}},
            ],
        },
    });
    let (vmi, _) = api::manifest::parse_vmi_json(object.to_string().as_bytes()).unwrap();
    let disk = |name: &str| {
        let path = PathBuf::from(format!("/{name}"));
        let source = DiskSource::Image {
            path,
            format: None,
            follow_backing: false,
        };
        (
            name.to_owned(),
            ResolvedDisk {
                source,
                read_only: false,
                medium,
            },
        )
    };
    let volumes = ResolvedVolumes {
        disks: [disk("a"), disk("b")].into(),
        kernel: kernel.then(|| ResolvedKernel {
            kernel: PathBuf::from("/k"),
            initrd: None,
        }),
        warnings: Vec::new(),
    };
    (vmi, volumes)
}

fn paths(errors: &[api::FieldError]) -> Vec<&str> {
    errors.iter().map(|error| error.path.as_str()).collect()
}

fn disks(disks: Value) -> Value {
    json!({"devices": {"disks": disks}})
}

#[test]
fn memory_is_rounded_up_to_whole_mib_and_bounded_by_the_host() {
    let memory = |guest: &str| {
        converted(json!({"memory": {"guest": guest}}), false)
            .map(|(config, _)| config.memory.len_bytes)
    };
    assert_eq!(memory("64M"), Ok(62 << 20));
    assert_eq!(memory("1Gi"), Ok(1 << 30));
    assert!(
        memory("1025Mi")
            .unwrap_err()
            .starts_with("spec.domain.memory.guest: 1025 MiB are more")
    );
}

#[test]
fn cpus_take_topology_own_models_and_features() {
    let features = json!([{"name": "aes"}, {"name": "avx", "policy": "disable"}, {"name": "x", "policy": "optional"}]);
    let cpu = json!({"sockets": 2, "cores": 3, "model": "ferrovirt-v1", "features": features});
    let (config, remarks) = converted(json!({"cpu": cpu}), false).unwrap();
    assert_eq!(
        (config.cpus.sockets, config.cpus.cores, config.cpus.threads),
        (2, 3, 1)
    );
    assert_eq!(config.cpus.model.as_deref(), Some("ferrovirt-v1"));
    assert_eq!(
        config.cpus.features,
        [("aes".to_owned(), true), ("avx".to_owned(), false)]
    );
    assert_eq!(
        paths(&remarks.warnings),
        ["spec.domain.cpu.features[2].policy"]
    );
}

#[test]
fn a_foreign_cpu_model_becomes_the_default_with_a_warning() {
    for (model, warnings) in [
        ("Nehalem-IBRS", 1),
        ("host-passthrough", 0),
        ("host-model", 0),
    ] {
        let (config, remarks) = converted(json!({"cpu": {"model": model}}), false).unwrap();
        assert_eq!(config.cpus.model, None);
        assert_eq!(remarks.warnings.len(), warnings, "{model}");
    }
}

#[test]
fn disks_are_on_the_bus_they_ask_for_or_on_scsi() {
    for (disk, kind, bus, warnings) in [
        (
            json!({"disk": {"bus": "virtio"}}),
            DiskKind::Disk,
            DiskBus::VirtioBlk,
            vec![],
        ),
        (
            json!({"disk": {"bus": "scsi"}}),
            DiskKind::Disk,
            DiskBus::VirtioScsi,
            vec![],
        ),
        (json!({}), DiskKind::Disk, DiskBus::VirtioScsi, vec![]),
        (
            json!({"disk": {"bus": "sata"}}),
            DiskKind::Disk,
            DiskBus::VirtioScsi,
            vec!["disk.bus"],
        ),
        (
            json!({"disk": {"bus": "usb"}}),
            DiskKind::Disk,
            DiskBus::VirtioScsi,
            vec!["disk.bus"],
        ),
        (
            json!({"cdrom": {}}),
            DiskKind::Cdrom,
            DiskBus::VirtioScsi,
            vec![],
        ),
        (
            json!({"cdrom": {"bus": "sata"}}),
            DiskKind::Cdrom,
            DiskBus::VirtioScsi,
            vec!["cdrom.bus"],
        ),
        (
            json!({"lun": {"bus": "scsi"}}),
            DiskKind::Lun,
            DiskBus::VirtioScsi,
            vec![],
        ),
    ] {
        let mut named = json!({"name": "a"});
        named
            .as_object_mut()
            .unwrap()
            .extend(disk.as_object().unwrap().clone());
        let other = json!({"name": "b", "disk": {"bus": "virtio"}});
        let (config, remarks) = converted(disks(json!([named, other])), false).unwrap();
        let found = &config.disks[0];
        assert_eq!((found.kind, found.bus), (kind, bus), "{disk}");
        assert_eq!(found.read_only, kind == DiskKind::Cdrom, "{disk}");
        let expected: Vec<String> = warnings
            .iter()
            .map(|field| format!("spec.domain.devices.disks[0].{field}"))
            .collect();
        assert_eq!(paths(&remarks.warnings), expected, "{disk}");
    }
}

#[test]
fn a_drive_with_an_open_tray_is_empty() {
    let both = json!([{"name": "a", "cdrom": {"tray": "open"}}, {"name": "b", "cdrom": {"readonly": false}}]);
    let (config, _) = converted(disks(both), false).unwrap();
    assert_eq!(config.disks[0].source, DiskSource::Empty);
    assert!(matches!(config.disks[1].source, DiskSource::Image { .. }));
    assert!(!config.disks[1].read_only);
}

#[test]
fn persistent_reservations_are_refused() {
    let lun = json!([{"name": "a", "lun": {"reservation": true}}, {"name": "b"}]);
    let error = converted(disks(lun), false).unwrap_err();
    assert!(
        error.starts_with("spec.domain.devices.disks[0].lun.reservation: "),
        "{error}"
    );
}

#[test]
fn the_cache_follows_what_the_file_can_unless_it_is_given() {
    let cache = |disk: Value, direct_io| {
        let mut named = json!({"name": "a"});
        named
            .as_object_mut()
            .unwrap()
            .extend(disk.as_object().unwrap().clone());
        let medium = Medium {
            direct_io,
            ..Medium::default()
        };
        on_media(disks(json!([named, {"name": "b"}])), false, medium, false)
            .map(|(config, _)| config.disks[0].cache)
    };
    assert_eq!(cache(json!({}), true), Ok(CacheMode::None));
    assert_eq!(cache(json!({}), false), Ok(CacheMode::Writethrough));
    assert_eq!(
        cache(json!({"cache": "writeback"}), true),
        Ok(CacheMode::Writeback)
    );
    assert_eq!(
        cache(json!({"shareable": true}), false),
        Ok(CacheMode::None)
    );
    let error = cache(json!({"shareable": true, "cache": "writeback"}), true).unwrap_err();
    assert!(
        error.starts_with("spec.domain.devices.disks[0].cache: "),
        "{error}"
    );
}

#[test]
fn policies_threads_and_interfaces_are_taken_over() {
    let mut domain = disks(json!([
        {"name": "a", "errorPolicy": "report", "io": "native", "dedicatedIOThread": true},
        {"name": "b"},
    ]));
    domain["ioThreadsPolicy"] = json!("shared");
    let (config, remarks) = converted(domain, false).unwrap();
    let [a, b] = config.disks.as_slice() else {
        panic!()
    };
    assert_eq!(
        (a.error_policy, a.io, a.io_thread),
        (ErrorPolicy::Report, IoMode::Native, None)
    );
    assert_eq!(
        (b.error_policy, b.io, b.io_thread),
        (ErrorPolicy::Stop, IoMode::Threads, Some(0))
    );
    assert!(a.discard);
    assert_eq!(remarks.warnings, []);
    for (policy, expected) in [
        ("ignore", ErrorPolicy::Ignore),
        ("enospace", ErrorPolicy::StopOnEnospc),
    ] {
        let disk = json!([{"name": "a", "errorPolicy": policy}, {"name": "b"}]);
        let (config, _) = converted(disks(disk), false).unwrap();
        assert_eq!(config.disks[0].error_policy, expected);
    }
}

#[test]
fn room_that_is_set_aside_is_kept() {
    let medium = Medium {
        preallocated: true,
        direct_io: true,
        ..Medium::default()
    };
    let (config, _) = on_media(json!({}), false, medium, false).unwrap();
    assert_eq!(
        (config.disks[0].discard, config.disks[0].io),
        (false, IoMode::Native)
    );
}

#[test]
fn block_sizes_can_be_the_volumes() {
    let sizes = |match_volume: Value, block_bytes| {
        let disk = json!({"name": "a", "blockSize": {"matchVolume": match_volume}});
        let medium = Medium {
            block_bytes,
            ..Medium::default()
        };
        let (config, remarks) =
            on_media(disks(json!([disk, {"name": "b"}])), false, medium, false).unwrap();
        let found = &config.disks[0];
        (
            (found.logical_block_bytes, found.physical_block_bytes),
            remarks.warnings.len(),
        )
    };
    assert_eq!(sizes(json!({}), Some((4096, 4096))), ((4096, 4096), 0));
    assert_eq!(
        sizes(json!({"enabled": true}), Some((512, 4096))),
        ((512, 4096), 0)
    );
    assert_eq!(
        sizes(json!({"enabled": false}), Some((4096, 4096))),
        ((512, 512), 0)
    );
    assert_eq!(sizes(json!({}), Some((1 << 20, 1 << 20))), ((512, 512), 1));
    assert_eq!(sizes(json!({}), None), ((512, 512), 1));
}

#[test]
fn a_machine_has_the_agents_port_and_may_start_paused() {
    let (config, _) = converted(json!({}), false).unwrap();
    assert_eq!(config.console_ports.len(), 1);
    assert_eq!(config.console_ports[0].name, AGENT_PORT);
    assert!(!config.start_paused);
    let (mut vmi, volumes) = instance(json!({}), true, Medium::default());
    vmi.spec.start_strategy = Some("Paused".to_owned());
    let environment = Environment {
        accel: Accel::Soft,
        bios: Some(PathBuf::from("/bios")),
        memory_bytes: 1 << 30,
        agent_socket: None,
        strict: true,
        device_variables: Variables::new(),
    };
    let config = convert(&vmi, &volumes, &environment).unwrap().config;
    assert!(config.start_paused && config.console_ports.is_empty());
}

#[test]
fn a_guest_that_would_be_another_one_is_refused_where_that_is_asked_for() {
    let domain = |devices: Value| {
        json!({"devices": {
            "disks": [{"name": "a", "disk": {"bus": "sata"}}, {"name": "b"}],
            "hostDevices": devices,
            "interfaces": [{"name": "default", "masquerade": {}}],
            "tpm": {},
        }})
    };
    let convert = |devices: Value, strict| {
        let mut domain = domain(devices);
        domain["devices"]["interfaces"] = json!([]);
        on_media(domain, false, Medium::default(), strict)
    };
    let one = json!([{"name": "u", "deviceName": "x/u"}]);
    assert_eq!(
        convert(one.clone(), true).unwrap_err(),
        "spec.domain.devices.hostDevices[0]: attaching u (of x/u: USB device 1:7) is not supported yet, remove it"
    );
    let two = json!([{"name": "u", "deviceName": "x/few"}, {"name": "v", "deviceName": "x/few"}]);
    let error = convert(two, true).unwrap_err();
    let mismatch = "spec.domain.devices.hostDevices[1]: USB_RESOURCE_X_FEW has 1 addresses";
    assert!(error.starts_with(mismatch), "{error}");
    let (_, remarks) = convert(one, false).unwrap();
    assert_eq!(remarks.warnings.len(), 3);
    assert_eq!(remarks.refusals, []);
}

#[test]
fn domain_devices_are_named_in_order_by_bus() {
    let three = json!([
        {"name": "a", "disk": {"bus": "virtio"}, "serial": "s"},
        {"name": "b", "cdrom": {"tray": "open"}},
    ]);
    let (config, _) = converted(disks(three.clone()), false).unwrap();
    let (vmi, _) = instance(disks(three), false, Medium::default());
    let devices = domain_devices(&vmi, &config);
    insta::assert_snapshot!(serde_json::to_string_pretty(&devices).unwrap());
}

#[test]
fn a_serial_beyond_virtio_is_cut_with_a_warning() {
    let serial = "0123456789012345678901234";
    let (config, remarks) = converted(
        disks(json!([{"name": "a", "serial": serial}, {"name": "b", "serial": "s"}])),
        false,
    )
    .unwrap();
    assert_eq!(
        config.disks[0].serial.as_deref(),
        Some("01234567890123456789")
    );
    assert_eq!(config.disks[1].serial.as_deref(), Some("s"));
    assert_eq!(
        paths(&remarks.warnings),
        ["spec.domain.devices.disks[0].serial"]
    );
}

#[test]
fn a_boot_order_is_passed_on_and_remarked_where_it_does_nothing() {
    let second_first = disks(json!([{"name": "a"}, {"name": "b", "bootOrder": 1}]));
    let (config, remarks) = converted(second_first.clone(), false).unwrap();
    assert_eq!(config.disks[1].boot_order, Some(1));
    assert_eq!(remarks.warnings, []);
    let mut with_kernel = second_first;
    with_kernel["firmware"] = kernel_boot();
    let (_, remarks) = converted(with_kernel, true).unwrap();
    assert_eq!(
        paths(&remarks.notes),
        ["spec.domain.devices.disks[1].bootOrder"]
    );
}

fn kernel_boot() -> Value {
    json!({"kernelBoot": {"kernelArgs": "console=ttyS0", "container": {"image": "i", "kernelPath": "/k"}}})
}

#[test]
fn a_machine_boots_its_kernel_or_the_bios_or_names_what_is_missing() {
    let (config, _) = converted(json!({"firmware": kernel_boot()}), true).unwrap();
    assert!(
        matches!(config.boot, BootSource::Kernel { cmdline, .. } if cmdline == "console=ttyS0")
    );
    let (config, _) = converted(json!({}), false).unwrap();
    assert_eq!(
        config.boot,
        BootSource::Firmware {
            image: PathBuf::from("/bios")
        }
    );
    let efi = converted(json!({"firmware": {"bootloader": {"efi": {}}}}), false).unwrap_err();
    assert!(
        efi.starts_with("spec.domain.firmware.bootloader.efi: UEFI is not supported yet"),
        "{efi}"
    );
}

#[test]
fn queues_follow_the_processors_when_asked() {
    let mut domain = disks(json!([{"name": "a"}, {"name": "b"}]));
    domain["devices"]["blockMultiQueue"] = json!(true);
    domain["cpu"] = json!({"cores": 4});
    let (config, _) = converted(domain, false).unwrap();
    assert_eq!(config.disks[0].queues, 4);
}

#[test]
fn sector_sizes_cache_entropy_and_panic_device_are_taken_over() {
    let block_size = json!({"custom": {"logical": 4096, "physical": 8192}});
    let mut domain = disks(json!([
        {"name": "a", "blockSize": block_size, "cache": "none"},
        {"name": "b", "cache": "writethrough"},
    ]));
    domain["devices"]["rng"] = json!({});
    domain["devices"]["panicDevices"] = json!([{"model": "pvpanic"}]);
    let (config, _) = converted(domain, false).unwrap();
    assert_eq!(
        (
            config.disks[0].logical_block_bytes,
            config.disks[0].physical_block_bytes
        ),
        (4096, 8192)
    );
    assert_eq!(config.disks[0].cache, CacheMode::None);
    assert_eq!(config.disks[1].cache, CacheMode::Writethrough);
    assert!(config.rng && config.pvpanic);
}
