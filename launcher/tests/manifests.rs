//! What every manifest that the product was asked to satisfy becomes: the machine, or the error.

#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "an integration test is a test module as a whole"
)]

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use api::FieldError;
use block::Format;
use launcher::convert::{Environment, checked, convert};
use launcher::host_devices::Variables;
use launcher::images::ImageStore;
use launcher::instance::Instance;
use launcher::support::Remarks;
use launcher::volumes::{
    ClaimImage, Data, ImageFile, Medium, Place, ResolvedDisk, ResolvedKernel, ResolvedVolumes,
    Standalone, VolumePlan, VolumeSource, plan_volumes,
};
use vmm::config::{Accel, DiskSource, MachineConfig};

fn fixtures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths
}

fn environment() -> Environment {
    Environment {
        accel: Accel::Auto,
        bios: Some(PathBuf::from("/usr/share/seabios/bios-256k.bin")),
        memory_bytes: 64 << 30,
        agent_socket: Some(PathBuf::from("/var/run/kubevirt-private/uid/virt-agent0")),
        strict: false,
        device_variables: Variables::new(),
    }
}

/// The files that preparation would find or make.
fn resolved(plans: &[VolumePlan], kernel: bool) -> ResolvedVolumes {
    let image = |path: &Path, format, read_only| ResolvedDisk {
        source: DiskSource::Image {
            path: path.to_owned(),
            format,
            follow_backing: false,
        },
        read_only,
        medium: Medium {
            direct_io: true,
            ..Medium::default()
        },
    };
    let over = |base: PathBuf, overlay: &Option<PathBuf>, read_only| match overlay {
        None => image(&base, None, read_only),
        Some(overlay) => ResolvedDisk {
            source: DiskSource::Overlay {
                base,
                base_format: None,
                overlay: overlay.clone(),
            },
            read_only: false,
            medium: Medium::default(),
        },
    };
    let disk = |plan: &VolumePlan| match &plan.source {
        VolumeSource::ContainerDisk {
            image: ImageFile::Stored { image, path },
            overlay,
        } => {
            let path = path.as_deref().unwrap_or("/only-disk");
            over(
                PathBuf::from(format!("/images/{image}{path}")),
                overlay,
                true,
            )
        }
        VolumeSource::EmptyDisk { file, .. } => image(file, Some(Format::Qcow2), false),
        VolumeSource::HostDisk { file, .. } => image(file, None, false),
        VolumeSource::Claim {
            image: ClaimImage::File { file, .. },
            read_only,
            overlay,
            ..
        } => over(file.clone(), overlay, *read_only),
        VolumeSource::CloudInit { file, .. }
        | VolumeSource::Files { file, .. }
        | VolumeSource::Metrics { file } => image(file, Some(Format::Raw), true),
        other => panic!("{other:?} without a cluster"),
    };
    ResolvedVolumes {
        disks: plans
            .iter()
            .map(|plan| (plan.name.clone(), disk(plan)))
            .collect(),
        kernel: kernel.then(|| ResolvedKernel {
            kernel: PathBuf::from("/images/kernel"),
            initrd: Some(PathBuf::from("/images/initrd")),
        }),
        warnings: Vec::new(),
    }
}

/// Everything that a manifest means, as text.
fn meaning(text: &str, origin: &str) -> String {
    let instance = match Instance::from_text(text, origin) {
        Ok(instance) => instance,
        Err(error) => return format!("error: {}\n", vmm::error_chain(&error)),
    };
    let mut out = String::new();
    list(&mut out, &instance, &instance.remarks);
    let vmi = match checked(&instance.vmi) {
        Ok(vmi) => vmi,
        Err(errors) => return out + &list_errors(&instance, &errors),
    };
    let place = Place::Standalone(Standalone {
        root: PathBuf::from("/var/run"),
        volume_dir: Some(PathBuf::from("/volumes")),
        images: ImageStore::new(None, PathBuf::new()),
    });
    let plans = match plan_volumes(&vmi, &place) {
        Ok(plans) => plans,
        Err(error) => return out + &list_errors(&instance, &[error]),
    };
    let kernel = vmi
        .spec
        .domain
        .firmware
        .is_some_and(|firmware| firmware.kernel_boot.is_some());
    match convert(&instance.vmi, &resolved(&plans, kernel), &environment()) {
        Ok(converted) => {
            list(&mut out, &instance, &converted.remarks);
            write!(out, "{}", machine_text(&plans, &converted.config)).unwrap();
            out
        }
        Err(errors) => out + &list_errors(&instance, &errors),
    }
}

/// Plans and machine, with user data as text and without what every machine has.
fn machine_text(plans: &[VolumePlan], config: &MachineConfig) -> String {
    let mut text = String::new();
    for plan in plans {
        let VolumePlan {
            name,
            field,
            source,
        } = plan;
        writeln!(text, "\nvolume {name} ({field}): {}", source_text(source)).unwrap();
    }
    let MachineConfig {
        name,
        cpus,
        memory,
        boot,
        disks,
        smbios,
        ..
    } = config;
    writeln!(text, "\nmachine {name}\n{cpus:?}\n{memory:?}\n{boot:?}").unwrap();
    for disk in disks {
        writeln!(text, "{disk:?}").unwrap();
    }
    let uuid = smbios.uuid.map(uuid::Uuid::from_bytes);
    let (serial, rng, pvpanic) = (&smbios.serial, config.rng, config.pvpanic);
    writeln!(
        text,
        "uuid {uuid:?} serial {serial:?} rng {rng} pvpanic {pvpanic}"
    )
    .unwrap();
    text
}

fn source_text(source: &VolumeSource) -> String {
    let VolumeSource::CloudInit { file, data } = source else {
        return format!("{source:?}");
    };
    let bytes = |data: &Option<Data>| match data {
        Some(Data::Bytes(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
        other => format!("{other:?}"),
    };
    let (kind, hostname, uuid) = (data.kind, &data.hostname, &data.uuid);
    let (user, network) = (bytes(&data.user), bytes(&data.network));
    format!(
        "{kind:?} {file:?} hostname {hostname} uuid {uuid}\nuser data:\n{user}\nnetwork data:\n{network}"
    )
}

fn list(out: &mut String, instance: &Instance, remarks: &Remarks) {
    for (kind, errors) in [("warning", &remarks.warnings), ("note", &remarks.notes)] {
        for FieldError { path, message, .. } in errors {
            writeln!(
                out,
                "{kind}: {}: {message}",
                instance.field_in_manifest(path)
            )
            .unwrap();
        }
    }
}

fn list_errors(instance: &Instance, errors: &[FieldError]) -> String {
    let line = |error: &FieldError| {
        format!(
            "error: {}: {}\n",
            instance.field_in_manifest(&error.path),
            error.message
        )
    };
    errors.iter().map(line).collect()
}

#[test]
fn every_manifest_becomes_a_machine_or_a_clear_error() {
    for path in fixtures() {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        insta::assert_snapshot!(name, meaning(&text, name));
    }
}

#[test]
fn the_demo_manifest_runs_without_a_warning() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../images/demo/vmi.yaml");
    let meaning = meaning(&fs::read_to_string(path).unwrap(), "demo");
    assert!(
        !meaning.contains("error: ") && !meaning.contains("warning: "),
        "{meaning}"
    );
}
