#![expect(
    clippy::needless_pass_by_value,
    reason = "json! literals read best as arguments"
)]

use std::path::PathBuf;

use serde_json::{Value, json};
use vmm::config::{Accel, BootSource, DiskSource, MachineConfig};

use super::{Environment, convert};
use crate::support::Remarks;
use crate::volumes::{ResolvedDisk, ResolvedKernel, ResolvedVolumes};

/// Converts an instance of two disks whose domain is the given one on top of a small default.
fn converted(domain: Value, kernel: bool) -> Result<(MachineConfig, Remarks), String> {
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
            },
        )
    };
    let volumes = ResolvedVolumes {
        disks: [disk("a"), disk("b")].into(),
        kernel: kernel.then(|| ResolvedKernel {
            kernel: PathBuf::from("/k"),
            initrd: None,
        }),
    };
    let environment = Environment {
        accel: Accel::Soft,
        bios: (!kernel).then(|| PathBuf::from("/bios")),
        memory_bytes: 1 << 30,
    };
    convert(&vmi, &volumes, &environment)
        .map(|converted| (converted.config, converted.remarks))
        .map_err(|errors| errors[0].to_string())
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
fn other_buses_become_virtio_with_a_warning_and_cdroms_are_read_only() {
    let (config, remarks) = converted(
        disks(json!([{"name": "a", "cdrom": {"bus": "sata"}}, {"name": "b", "disk": {"bus": "scsi"}}])),
        false,
    )
    .unwrap();
    assert_eq!(
        (config.disks[0].read_only, config.disks[1].read_only),
        (true, false)
    );
    assert_eq!(
        paths(&remarks.warnings),
        [
            "spec.domain.devices.disks[0].cdrom",
            "spec.domain.devices.disks[1].disk.bus"
        ]
    );
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
    assert_eq!(
        paths(&remarks.warnings),
        ["spec.domain.devices.disks[1].bootOrder"]
    );
    let in_order = disks(json!([{"name": "a", "bootOrder": 1}, {"name": "b", "bootOrder": 2}]));
    assert_eq!(converted(in_order, false).unwrap().1.warnings, []);
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
    assert_eq!(config.disks[0].cache, block::CacheMode::None);
    assert_eq!(config.disks[1].cache, block::CacheMode::Writethrough);
    assert!(config.rng && config.pvpanic);
}
