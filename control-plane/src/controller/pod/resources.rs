//! What a launcher's pod asks of its node (KubeVirt §6.2, §6.3).

use std::collections::BTreeMap;

use api::components::resource;
use api::{Quantity, Vmi};
use serde_json::{Value, json};

use super::networks::{self, Attachments};
use crate::controller::configuration::Config;

/// Bytes that a launcher writes beside its volumes.
const EPHEMERAL_STORAGE_BYTES: u64 = 50_000_000;
/// Virtual processors for each host processor when the configuration says nothing.
const CPU_ALLOCATION_RATIO: u64 = 10;
/// Resources that are not copied but worked out.
const WORKED_OUT: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// Amounts by resource.
type Amounts = BTreeMap<String, String>;

/// Returns requests and limits of the container with the machine.
pub(super) fn compute(vmi: &Vmi, config: &Config, attachments: &Attachments) -> Value {
    let given = &vmi.spec.domain.resources;
    let mut requests = copied(&given.requests);
    let mut limits = copied(&given.limits);
    cpu(vmi, config, &mut requests, &mut limits);
    memory(vmi, config, &mut requests, &mut limits);
    ephemeral_storage(vmi, &mut requests, &mut limits);
    for (device, count) in devices(vmi, config, attachments) {
        for amounts in [&mut requests, &mut limits] {
            amounts.insert(device.clone(), count.to_string());
        }
    }
    let mut resources = json!({ "requests": requests });
    if !limits.is_empty() {
        resources["limits"] = json!(limits);
    }
    let claims = claims(vmi);
    if !claims.is_empty() {
        resources["claims"] = Value::Array(claims);
    }
    resources
}

fn copied(given: &BTreeMap<String, Quantity>) -> Amounts {
    given
        .iter()
        .filter(|(name, _)| !WORKED_OUT.contains(&name.as_str()))
        .map(|(name, amount)| (name.clone(), amount.to_string()))
        .collect()
}

/// Returns the number of virtual processors.
fn vcpus(vmi: &Vmi) -> u64 {
    let cpu = vmi.spec.domain.cpu.as_ref();
    let factor = |count: Option<u32>| u64::from(count.unwrap_or(1).max(1));
    cpu.map_or(1, |cpu| {
        factor(cpu.sockets)
            .saturating_mul(factor(cpu.cores))
            .saturating_mul(factor(cpu.threads))
    })
}

fn is_dedicated(vmi: &Vmi) -> bool {
    let cpu = vmi.spec.domain.cpu.as_ref();
    cpu.is_some_and(|cpu| cpu.dedicated_cpu_placement == Some(true))
}

fn cpu(vmi: &Vmi, config: &Config, requests: &mut Amounts, limits: &mut Amounts) {
    let given = &vmi.spec.domain.resources;
    if is_dedicated(vmi) {
        let isolated = vmi.spec.domain.cpu.as_ref();
        let isolated = isolated.is_some_and(|cpu| cpu.isolate_emulator_thread == Some(true));
        let count = vcpus(vmi) + u64::from(isolated);
        for amounts in [requests, limits] {
            amounts.insert("cpu".to_owned(), count.to_string());
        }
        return;
    }
    let by_cluster = config.cluster.cpu_request.as_ref();
    let request = given.requests.get("cpu").or(by_cluster);
    let request = request.map_or_else(|| shared_cpu(vmi, config), ToString::to_string);
    requests.insert("cpu".to_owned(), request);
    if let Some(limit) = given.limits.get("cpu") {
        limits.insert("cpu".to_owned(), limit.to_string());
    }
}

/// Processors that many machines share.
fn shared_cpu(vmi: &Vmi, config: &Config) -> String {
    let ratio = config.cluster.developer_configuration.cpu_allocation_ratio;
    let ratio = ratio
        .and_then(|ratio| u64::try_from(ratio).ok())
        .filter(|ratio| *ratio > 0)
        .unwrap_or(CPU_ALLOCATION_RATIO);
    let thousandths = vcpus(vmi).saturating_mul(1000) / ratio;
    format!("{}m", thousandths.max(1))
}

fn guest_bytes(vmi: &Vmi) -> u64 {
    let memory = vmi.spec.domain.memory.as_ref();
    let guest = memory.and_then(|memory| memory.guest.as_ref());
    guest.and_then(Quantity::units).unwrap_or_default()
}

fn memory(vmi: &Vmi, config: &Config, requests: &mut Amounts, limits: &mut Amounts) {
    let given = &vmi.spec.domain.resources;
    let overhead = overhead_bytes(vmi, config);
    let bytes =
        |amounts: &BTreeMap<String, Quantity>| amounts.get("memory").and_then(Quantity::units);
    let request = bytes(&given.requests).unwrap_or_else(|| overcommitted(vmi, config));
    let request = match hugepages(vmi) {
        Some(size) => {
            let guest = guest_bytes(vmi);
            for amounts in [&mut *requests, &mut *limits] {
                amounts.insert(format!("hugepages-{size}"), guest.to_string());
            }
            request.saturating_sub(guest)
        }
        None => request,
    };
    let beside = if given.overcommit_guest_overhead == Some(true) {
        0
    } else {
        overhead
    };
    let set = |amounts: &mut Amounts, bytes: u64| {
        amounts.insert(
            "memory".to_owned(),
            bytes.saturating_add(beside).to_string(),
        );
    };
    set(requests, request);
    if let Some(limit) = bytes(&given.limits) {
        let pages = hugepages(vmi).map_or(0, |_| guest_bytes(vmi));
        set(limits, limit.saturating_sub(pages));
    }
}

fn hugepages(vmi: &Vmi) -> Option<String> {
    let memory = vmi.spec.domain.memory.as_ref()?;
    let size = memory.hugepages.as_ref()?.page_size.as_ref();
    Some(size.map_or_else(|| "2Mi".to_owned(), ToString::to_string))
}

/// The guest's memory as far as the cluster wants it to be there at once.
fn overcommitted(vmi: &Vmi, config: &Config) -> u64 {
    let percent = config.cluster.developer_configuration.memory_overcommit;
    let percent = percent
        .and_then(|percent| u64::try_from(percent).ok())
        .filter(|percent| *percent > 0)
        .unwrap_or(100);
    let bytes = u128::from(guest_bytes(vmi)) * 100 / u128::from(percent);
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

fn ephemeral_storage(vmi: &Vmi, requests: &mut Amounts, limits: &mut Amounts) {
    let name = "ephemeral-storage";
    let given = &vmi.spec.domain.resources;
    let with_ours = |amount: &Quantity| {
        let bytes = amount.units().unwrap_or_default();
        bytes.saturating_add(EPHEMERAL_STORAGE_BYTES).to_string()
    };
    let request = given.requests.get(name);
    let request = request.map_or_else(|| "50M".to_owned(), with_ours);
    requests.insert(name.to_owned(), request);
    if let Some(limit) = given.limits.get(name) {
        limits.insert(name.to_owned(), with_ours(limit));
    }
}

/// Devices by resource. Our launcher's network queues are its own, so nobody needs `vhost-net`.
fn devices(vmi: &Vmi, config: &Config, attachments: &Attachments) -> BTreeMap<String, u64> {
    let domain = &vmi.spec.domain.devices;
    let mut devices = BTreeMap::new();
    if !config.cluster.use_emulation() {
        devices.insert(resource::KVM.to_owned(), 1);
    }
    if domain.interfaces.iter().any(|bound| bound.sriov.is_none()) {
        devices.insert(resource::TUN.to_owned(), 1);
    }
    if domain.autoattach_vsock == Some(true) {
        devices.insert(resource::VHOST_VSOCK.to_owned(), 1);
    }
    let of_host = domain.host_devices.iter().map(|device| &device.device_name);
    let of_gpus = domain.gpus.iter().map(|device| &device.device_name);
    let of_networks = networks::resources(vmi, attachments);
    let named = of_host.chain(of_gpus).filter(|name| !name.is_empty());
    for name in named.chain(of_networks) {
        *devices.entry(name.clone()).or_default() += 1;
    }
    devices
}

/// Claims of dynamic resource allocation that devices refer to.
fn claims(vmi: &Vmi) -> Vec<Value> {
    let domain = &vmi.spec.domain.devices;
    let of_host = domain
        .host_devices
        .iter()
        .map(|device| (&device.claim_name, &device.request_name));
    let of_gpus = domain
        .gpus
        .iter()
        .map(|device| (&device.claim_name, &device.request_name));
    let mut claims: Vec<Value> = of_host
        .chain(of_gpus)
        .filter(|(claim, _)| !claim.is_empty())
        .map(|(claim, request)| match request.as_str() {
            "" => json!({ "name": claim }),
            request => json!({ "name": claim, "request": request }),
        })
        .collect();
    claims.dedup();
    claims
}

/// Bytes of a launcher by itself, and for each virtual processor.
///
/// Measured (`make bench BENCH=node`): 14 MiB with one processor and 128 MiB of guest memory. Twice that leaves room for
/// decoded code, queues of busy disks and what the page cache keeps of the launcher's own files.
const LAUNCHER_BYTES: (u64, u64) = (24 * MIB, 8 * MIB);
/// Share of guest memory that tables of its pages take.
const PAGE_TABLE_SHARE: u64 = 512;
/// Bytes of a probe that asks the guest, while it runs.
const PROBE_BYTES: u64 = 10 * MIB;
/// Bytes that are locked for devices of the host.
const HOST_DEVICE_BYTES: u64 = 1024 * MIB;
/// Bytes of the disk with metrics of the host.
const METRICS_BYTES: u64 = MIB;
const MIB: u64 = 1 << 20;

/// Returns the memory of a launcher beside its guest's, bytes (KubeVirt §6.3, with our figures).
pub(crate) fn overhead_bytes(vmi: &Vmi, config: &Config) -> u64 {
    let devices = &vmi.spec.domain.devices;
    let has_sriov = devices.interfaces.iter().any(|bound| bound.sriov.is_some());
    let probes = [&vmi.spec.readiness_probe, &vmi.spec.liveness_probe]
        .into_iter()
        .flatten();
    let probes = probes.filter(|probe| probe.exec.is_some() || probe.guest_agent_ping.is_some());
    let probes = u64::try_from(probes.count()).unwrap_or_default();
    let mut bytes = LAUNCHER_BYTES
        .0
        .saturating_add(LAUNCHER_BYTES.1.saturating_mul(vcpus(vmi)))
        .saturating_add(guest_bytes(vmi) / PAGE_TABLE_SHARE)
        .saturating_add(PROBE_BYTES * probes);
    if has_sriov || !devices.host_devices.is_empty() || !devices.gpus.is_empty() {
        bytes = bytes.saturating_add(HOST_DEVICE_BYTES);
    }
    if vmi
        .spec
        .volumes
        .iter()
        .any(|volume| volume.downward_metrics.is_some())
    {
        bytes = bytes.saturating_add(METRICS_BYTES);
    }
    let ratio = &config.cluster.additional_guest_memory_overhead_ratio;
    let ratio = ratio
        .as_ref()
        .and_then(|ratio| ratio.parse::<Quantity>().ok());
    scaled(bytes.saturating_add(added_bytes(vmi)), ratio)
}

/// What the user wants to be set aside beyond that (`memory.reservedOverhead.addedOverhead`).
fn added_bytes(vmi: &Vmi) -> u64 {
    let memory = vmi.spec.domain.memory.as_ref();
    let reserved = memory.and_then(|memory| memory.reserved_overhead.as_ref());
    let added = reserved.and_then(|reserved| reserved.added_overhead.as_ref());
    added.and_then(Quantity::units).unwrap_or_default()
}

/// The bytes times a ratio, rounded up to whole KiB.
fn scaled(bytes: u64, ratio: Option<Quantity>) -> u64 {
    let Some(ratio) = ratio else { return bytes };
    // A quantity tells whole units only: a million times the ratio keeps six places.
    let millionths = format!("{ratio}e6").parse::<Quantity>();
    let millionths = millionths.ok().and_then(|m| m.units()).unwrap_or(1_000_000);
    let bytes = u128::from(bytes) * u128::from(millionths) / 1_000_000;
    u64::try_from(bytes.div_ceil(1024) * 1024).unwrap_or(u64::MAX)
}
