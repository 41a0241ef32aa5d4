//! The counters of one machine.

use api::guest_agent::Filesystem;
use proto::stats::{
    BlockStats, CpuStats, DomainStats, Load, MemoryStats, NetStats, VcpuState, VcpuStats,
};
use serde::Deserialize;

use super::samples::{Family, Labels, Samples};
use super::{Reading, families};

/// Parts of one kind that are taken of one machine: more than any machine has.
const PARTS_MAX: usize = 512;

/// Adds what is known of a machine.
pub(super) fn add(samples: &mut Samples, node: &str, reading: &Reading) {
    let key = &reading.launcher.key;
    let labels = Labels::new([
        ("node", node),
        ("namespace", key.namespace.as_str()),
        ("name", key.name.as_str()),
    ]);
    if let Some(stats) = &reading.stats {
        add_stats(samples, &labels, stats);
        samples.add(&families::OVERHEAD, &labels, overhead(reading, stats));
    }
    let filesystems = reading.filesystems.as_ref();
    if let Some(filesystems) = filesystems.and_then(|told| Vec::deserialize(told).ok()) {
        add_filesystems(samples, &labels, &filesystems);
    }
}

/// Returns what the process has resident beyond its guest.
fn overhead(reading: &Reading, stats: &DomainStats) -> Option<f64> {
    let guest = stats.memory.as_ref()?.rss?.checked_mul(1024)?;
    Some(count(reading.process_resident_bytes?.saturating_sub(guest)))
}

fn add_stats(samples: &mut Samples, labels: &Labels, stats: &DomainStats) {
    if let Some(cpu) = &stats.cpu {
        add_cpu(samples, labels, cpu);
    }
    if let Some(memory) = &stats.memory {
        add_memory(samples, labels, memory);
    }
    if let Some(load) = &stats.load {
        add_load(samples, labels, load);
    }
    if stats.cpu_map_set {
        let pairs = stats.cpu_map.iter().flatten().filter(|may| **may).count();
        samples.add(
            &families::AFFINITY,
            labels,
            u32::try_from(pairs).ok().map(f64::from),
        );
    }
    for (number, vcpu) in stats.vcpu.iter().take(PARTS_MAX).enumerate() {
        add_vcpu(
            samples,
            &labels.with([("id", number.to_string().as_str())]),
            vcpu,
        );
    }
    for disk in stats.block.iter().take(PARTS_MAX) {
        add_disk(samples, labels, disk);
    }
    for interface in stats.net.iter().take(PARTS_MAX) {
        add_interface(samples, labels, interface);
    }
}

fn add_cpu(samples: &mut Samples, labels: &Labels, cpu: &CpuStats) {
    samples.add(&families::CPU_USAGE, labels, cpu.time.map(seconds));
    samples.add(&families::CPU_USER, labels, cpu.user.map(seconds));
    samples.add(&families::CPU_SYSTEM, labels, cpu.system.map(seconds));
}

fn add_memory(samples: &mut Samples, labels: &Labels, memory: &MemoryStats) {
    let amounts: [(&'static Family, Option<u64>); 9] = [
        (&families::MEMORY_DOMAIN, memory.total),
        (&families::MEMORY_RESIDENT, memory.rss),
        (&families::MEMORY_AVAILABLE, memory.available),
        (&families::MEMORY_UNUSED, memory.unused),
        (&families::MEMORY_USABLE, memory.usable),
        (&families::MEMORY_CACHED, memory.cached),
        (&families::MEMORY_BALLOON, memory.actual_balloon),
        (&families::MEMORY_SWAP_IN, memory.swap_in),
        (&families::MEMORY_SWAP_OUT, memory.swap_out),
    ];
    for (family, kib) in amounts {
        samples.add(family, labels, kib.map(|kib| count(kib) * 1024.0));
    }
    samples.add(
        &families::MAJOR_FAULTS,
        labels,
        memory.major_fault.map(count),
    );
    samples.add(
        &families::MINOR_FAULTS,
        labels,
        memory.minor_fault.map(count),
    );
}

fn add_load(samples: &mut Samples, labels: &Labels, load: &Load) {
    samples.add(&families::LOAD_1M, labels, load.load_1m);
    samples.add(&families::LOAD_5M, labels, load.load_5m);
    samples.add(&families::LOAD_15M, labels, load.load_15m);
}

fn add_vcpu(samples: &mut Samples, labels: &Labels, vcpu: &VcpuStats) {
    let state = match vcpu.state {
        Some(VcpuState::OFFLINE) => "offline",
        Some(VcpuState::RUNNING) => "running",
        Some(VcpuState::BLOCKED) => "blocked",
        _ => "unknown",
    };
    let with_state = labels.with([("state", state)]);
    samples.add(&families::VCPU, &with_state, vcpu.time.map(seconds));
    samples.add(&families::VCPU_WAIT, labels, vcpu.wait.map(seconds));
    samples.add(&families::VCPU_DELAY, labels, vcpu.delay.map(seconds));
}

fn add_disk(samples: &mut Samples, labels: &Labels, disk: &BlockStats) {
    let drive = match (disk.alias.as_str(), &disk.name) {
        ("", Some(name)) => name,
        ("", None) => return,
        (alias, _) => alias,
    };
    let labels = &labels.with([("drive", drive)]);
    samples.add(
        &families::STORAGE_IOPS_READ,
        labels,
        disk.rd_reqs.map(count),
    );
    samples.add(
        &families::STORAGE_IOPS_WRITE,
        labels,
        disk.wr_reqs.map(count),
    );
    samples.add(
        &families::STORAGE_READ_BYTES,
        labels,
        disk.rd_bytes.map(count),
    );
    samples.add(
        &families::STORAGE_WRITE_BYTES,
        labels,
        disk.wr_bytes.map(count),
    );
    samples.add(
        &families::STORAGE_READ_TIMES,
        labels,
        disk.rd_times.map(seconds),
    );
    samples.add(
        &families::STORAGE_WRITE_TIMES,
        labels,
        disk.wr_times.map(seconds),
    );
    samples.add(&families::STORAGE_FLUSHES, labels, disk.fl_reqs.map(count));
    samples.add(
        &families::STORAGE_FLUSH_TIMES,
        labels,
        disk.fl_times.map(seconds),
    );
}

fn add_interface(samples: &mut Samples, labels: &Labels, interface: &NetStats) {
    let Some(name) = interface.alias.as_ref().or(interface.name.as_ref()) else {
        return;
    };
    let labels = labels.with([("interface", name.as_str())]);
    for (direction, bytes) in [("rx", interface.rx_bytes), ("tx", interface.tx_bytes)] {
        let labels = labels.with([("type", direction)]);
        samples.add(&families::NETWORK_TRAFFIC, &labels, bytes.map(count));
    }
    let counters: [(&'static Family, Option<u64>); 8] = [
        (&families::NETWORK_RECEIVE_BYTES, interface.rx_bytes),
        (&families::NETWORK_RECEIVE_PACKETS, interface.rx_pkts),
        (&families::NETWORK_RECEIVE_ERRORS, interface.rx_errs),
        (&families::NETWORK_RECEIVE_DROPPED, interface.rx_drop),
        (&families::NETWORK_TRANSMIT_BYTES, interface.tx_bytes),
        (&families::NETWORK_TRANSMIT_PACKETS, interface.tx_pkts),
        (&families::NETWORK_TRANSMIT_ERRORS, interface.tx_errs),
        (&families::NETWORK_TRANSMIT_DROPPED, interface.tx_drop),
    ];
    for (family, counter) in counters {
        samples.add(family, &labels, counter.map(count));
    }
}

fn add_filesystems(samples: &mut Samples, labels: &Labels, filesystems: &[Filesystem]) {
    for filesystem in filesystems.iter().take(PARTS_MAX) {
        let labels = labels.with([
            ("disk_name", filesystem.disk_name.as_str()),
            ("mount_point", filesystem.mount_point.as_str()),
            ("file_system_type", filesystem.file_system_type.as_str()),
        ]);
        let bytes = |bytes: i64| Some(count(u64::try_from(bytes).unwrap_or_default()));
        samples.add(
            &families::FILESYSTEM_CAPACITY,
            &labels,
            bytes(filesystem.total_bytes),
        );
        samples.add(
            &families::FILESYSTEM_USED,
            &labels,
            bytes(filesystem.used_bytes),
        );
    }
}

fn seconds(nanoseconds: u64) -> f64 {
    std::time::Duration::from_nanos(nanoseconds).as_secs_f64()
}

/// Returns the number as Prometheus has it: exact up to 2^53.
fn count(number: u64) -> f64 {
    number as f64
}
