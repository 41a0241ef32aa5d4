//! From an instance to a machine: pure functions, so that what a manifest means can be read off a test.

mod disks;
mod domain_devices;
mod io_threads;

use std::path::PathBuf;

use api::domain::{Chassis, Cpu, DomainSpec, Firmware};
use api::validate::guest_memory_path;
use api::{FieldError, FieldPath, Vmi};
use uuid::Uuid;
use vmm::config::{
    Accel, BootSource, ConsolePortConfig, CpuConfig, MachineConfig, MemoryConfig, SmbiosConfig,
};

use crate::host_devices::{self, Variables};
use crate::support::{self, Remarks};
use crate::volumes::ResolvedVolumes;

pub use domain_devices::domain_devices;

/// Guest memory comes in whole MiB.
const MIB: u64 = 1 << 20;
/// Name of the guest agent's port.
pub const AGENT_PORT: &str = "org.qemu.guest_agent.0";
/// What guests of KubeVirt read from SMBIOS; cloud-init and systemd look for it.
const MANUFACTURER: &str = "KubeVirt";
const PRODUCT: &str = "None";
/// CPU models that mean the host's own.
const HOST_MODELS: [&str; 3] = ["", "host-model", "host-passthrough"];
/// How the machine's own CPU models begin.
const OWN_MODEL_PREFIX: &str = "ferrovirt-";

/// What a conversion needs to know of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// Which CPU back end runs the machine.
    pub accel: Accel,
    /// Firmware of machines without `kernelBoot`.
    pub bios: Option<PathBuf>,
    /// Memory of the host, bytes.
    pub memory_bytes: u64,
    /// Socket for the guest agent's port; no port when `None`.
    pub agent_socket: Option<PathBuf>,
    /// Whether an instance is refused whose guest would miss a device that it cannot do without; else
    /// that is a warning.
    pub strict: bool,
    /// Variables in which device plugins tell addresses of devices.
    pub device_variables: Variables,
}

/// A machine, and what is to be said about the instance it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Converted {
    /// The machine.
    pub config: MachineConfig,
    /// What is to be said about fields of the instance.
    pub remarks: Remarks,
}

/// Turns an instance into a machine.
///
/// The instance is defaulted and validated on the way; `volumes` has a source for every disk.
///
/// # Errors
///
/// Everything that is wrong with the instance, in the order of its fields.
pub fn convert(
    vmi: &Vmi,
    volumes: &ResolvedVolumes,
    environment: &Environment,
) -> Result<Converted, Vec<FieldError>> {
    let mut remarks = support::remarks(vmi);
    let vmi = checked(vmi)?;
    if environment.strict {
        name_host_devices(&vmi, environment, &mut remarks)?;
        if !remarks.refusals.is_empty() {
            return Err(remarks.refusals);
        }
    }
    remarks.warnings.append(&mut remarks.refusals);
    remarks.warnings.extend(volumes.warnings.iter().cloned());
    let domain = &vmi.spec.domain;
    let cpus = cpus(domain.cpu.as_ref(), &mut remarks);
    let memory = memory(domain, environment).map_err(|error| vec![error])?;
    let boot = boot(domain, volumes, environment).map_err(|error| vec![error])?;
    let vcpus = cpus.sockets * cpus.cores * cpus.threads;
    let disks = disks::configs(domain, vcpus, volumes, &mut remarks)?;
    remark_boot_order(domain, &boot, &mut remarks);
    let config = MachineConfig {
        name: format!(
            "{}_{}",
            vmi.metadata.namespace_or_default(),
            vmi.metadata.name
        ),
        cpus,
        memory,
        boot,
        disks,
        console_ports: agent_port(environment),
        rng: domain.devices.rng.is_some(),
        pvpanic: !domain.devices.panic_devices.is_empty(),
        smbios: smbios(domain),
        accel: environment.accel,
        start_paused: vmi.starts_paused(),
    };
    Ok(Converted { config, remarks })
}

/// Says of each device of the host which one the guest would get.
///
/// # Errors
///
/// What was given to the launcher doesn't fit the instance: that is to be mended whatever becomes of the devices.
fn name_host_devices(
    vmi: &Vmi,
    environment: &Environment,
    remarks: &mut Remarks,
) -> Result<(), Vec<FieldError>> {
    let devices = &vmi.spec.domain.devices;
    let variables = &environment.device_variables;
    for assigned in host_devices::assign(&devices.host_devices, &devices.gpus, variables)? {
        let mut refusals = remarks.refusals.iter_mut();
        if let Some(refusal) = refusals.find(|refusal| refusal.path == assigned.field) {
            refusal.message = assigned.unsupported();
        }
    }
    Ok(())
}

fn agent_port(environment: &Environment) -> Vec<ConsolePortConfig> {
    let socket = environment.agent_socket.iter();
    let port = |socket: &PathBuf| ConsolePortConfig {
        name: AGENT_PORT.to_owned(),
        socket: socket.clone(),
    };
    socket.map(port).collect()
}

/// Returns the instance with its defaults filled in.
///
/// # Errors
///
/// Everything that is wrong with it.
pub fn checked(vmi: &Vmi) -> Result<Vmi, Vec<FieldError>> {
    let vmi = api::default_vmi(vmi);
    let errors = api::validate_vmi(&vmi);
    if errors.is_empty() {
        Ok(vmi)
    } else {
        Err(errors)
    }
}

fn cpus(cpu: Option<&Cpu>, remarks: &mut Remarks) -> CpuConfig {
    let cpu = cpu.cloned().unwrap_or_default();
    let mut features = Vec::new();
    for (index, feature) in cpu.features.iter().enumerate() {
        match feature.policy.as_str() {
            "" | "force" | "require" => features.push((feature.name.clone(), true)),
            "disable" | "forbid" => features.push((feature.name.clone(), false)),
            _ => remarks.warnings.push(FieldError::new(
                FieldPath::new("spec.domain.cpu.features")
                    .index(index)
                    .child("policy"),
                "optional features are not supported yet: use require, or leave it out",
            )),
        }
    }
    CpuConfig {
        sockets: cpu.sockets.unwrap_or(1),
        cores: cpu.cores.unwrap_or(1),
        threads: cpu.threads.unwrap_or(1),
        model: cpu_model(cpu.model, remarks),
        features,
    }
}

/// A model that only other machine monitors know becomes the default one.
fn cpu_model(model: String, remarks: &mut Remarks) -> Option<String> {
    if model.starts_with(OWN_MODEL_PREFIX) {
        return Some(model);
    }
    if !HOST_MODELS.contains(&model.as_str()) {
        remarks.warnings.push(FieldError::new(
            FieldPath::new("spec.domain.cpu.model"),
            format!("CPU model {model} is not supported yet: the guest gets the default model"),
        ));
    }
    None
}

/// Memory in whole MiB: a guest gets at least what it asks for.
fn memory(domain: &DomainSpec, environment: &Environment) -> Result<MemoryConfig, FieldError> {
    let memory = domain.memory.clone().unwrap_or_default();
    let guest = memory.guest.and_then(|guest| guest.units()).unwrap_or(0);
    let len_bytes = guest.next_multiple_of(MIB);
    if len_bytes > environment.memory_bytes {
        let host_mib = environment.memory_bytes / MIB;
        return Err(FieldError::new(
            guest_memory_path(domain),
            format!(
                "{} MiB are more than the {host_mib} MiB of this host: ask for less",
                len_bytes / MIB
            ),
        ));
    }
    let hugepages = memory.hugepages.and_then(|hugepages| hugepages.page_size);
    Ok(MemoryConfig {
        len_bytes,
        hugepage_bytes: hugepages.and_then(|size| size.units()),
        prefault: false,
        shared: false,
    })
}

fn boot(
    domain: &DomainSpec,
    volumes: &ResolvedVolumes,
    environment: &Environment,
) -> Result<BootSource, FieldError> {
    let firmware = domain.firmware.clone().unwrap_or_default();
    let path = FieldPath::new("spec.domain.firmware");
    if let (Some(kernel_boot), Some(kernel)) = (&firmware.kernel_boot, &volumes.kernel) {
        return Ok(BootSource::Kernel {
            kernel: kernel.kernel.clone(),
            initrd: kernel.initrd.clone(),
            cmdline: kernel_boot.kernel_args.clone(),
        });
    }
    if firmware
        .bootloader
        .is_some_and(|bootloader| bootloader.efi.is_some())
    {
        let text = "UEFI is not supported yet: use bios or kernelBoot";
        return Err(FieldError::new(path.child("bootloader.efi"), text));
    }
    match &environment.bios {
        Some(image) => Ok(BootSource::Firmware {
            image: image.clone(),
        }),
        None => Err(FieldError::new(
            path.child("kernelBoot"),
            "not set, and this host has no BIOS image to boot disks with: set it, install the package seabios, or give --bios FILE",
        )),
    }
}

/// A kernel that is given needs no boot order.
fn remark_boot_order(domain: &DomainSpec, boot: &BootSource, remarks: &mut Remarks) {
    let disks = domain.devices.disks.iter().enumerate();
    let numbered = disks.filter_map(|(index, disk)| Some((disk.boot_order?, index)));
    let has_kernel = matches!(boot, BootSource::Kernel { .. });
    if let Some((_, first)) = numbered.min().filter(|_| has_kernel) {
        let path = FieldPath::new("spec.domain.devices.disks")
            .index(first)
            .child("bootOrder");
        let text = "has no effect with kernelBoot";
        remarks.notes.push(FieldError::new(path, text));
    }
}

fn smbios(domain: &DomainSpec) -> SmbiosConfig {
    let Firmware { uuid, serial, .. } = domain.firmware.clone().unwrap_or_default();
    let Chassis {
        manufacturer,
        version,
        serial: chassis_serial,
        asset,
        sku,
    } = domain.chassis.clone().unwrap_or_default();
    SmbiosConfig {
        manufacturer: MANUFACTURER.to_owned(),
        product: PRODUCT.to_owned(),
        family: MANUFACTURER.to_owned(),
        serial,
        uuid: Uuid::try_parse(&uuid).ok().map(Uuid::into_bytes),
        chassis: [manufacturer, version, chassis_serial, asset, sku],
        ..SmbiosConfig::default()
    }
}

#[cfg(test)]
mod tests;
