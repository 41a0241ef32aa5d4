//! From the machine's counters to the JSON that metrics are made of.

use proto::domain::{Alias, Domain};
use proto::stats::{BlockStats, CpuStats, DomainStats, Load, MemoryStats, VcpuState, VcpuStats};
use vmm::machine::MachineStats;

/// Returns the counters of a domain; those that nobody counts stay unset.
pub(super) fn domain_stats(
    domain: &Domain,
    stats: &MachineStats,
    load: Option<[f64; 3]>,
) -> DomainStats {
    let guest_ns = stats.vcpus.iter().map(|vcpu| vcpu.cpu_time_ns).sum();
    DomainStats {
        name: domain.spec.name.clone(),
        uuid: domain.spec.uuid.clone(),
        cpu: Some(CpuStats {
            time: Some(guest_ns),
            ..CpuStats::default()
        }),
        memory: Some(MemoryStats {
            rss: Some(stats.memory.resident_bytes / 1024),
            total: Some(stats.memory.len_bytes / 1024),
            actual_balloon: Some(stats.memory.len_bytes / 1024),
            ..MemoryStats::default()
        }),
        vcpu: stats.vcpus.iter().map(vcpu).collect(),
        block: blocks(domain, stats),
        load: load.map(|[one, five, fifteen]| Load {
            load_1m: Some(one),
            load_5m: Some(five),
            load_15m: Some(fifteen),
        }),
        ..DomainStats::default()
    }
}

fn vcpu(stats: &vmm::machine::VcpuStats) -> VcpuStats {
    let state = if stats.halted {
        VcpuState::BLOCKED
    } else {
        VcpuState::RUNNING
    };
    VcpuStats {
        state: Some(state),
        time: Some(stats.cpu_time_ns),
        ..VcpuStats::default()
    }
}

/// The machine counts by the disk's name, which is the alias that the domain has.
fn blocks(domain: &Domain, stats: &MachineStats) -> Vec<BlockStats> {
    let shown = |disk: &vmm::machine::DiskStats| {
        let mut disks = domain.spec.devices.disks.iter();
        let is_it = |alias: &Alias| alias.name == disk.name;
        let known = disks.find(|known| known.alias.as_ref().is_some_and(is_it));
        let path = known.map(|known| format!("{}{}", known.source.file, known.source.dev));
        BlockStats {
            alias: disk.name.clone(),
            name: known.map(|known| known.target.device.clone()),
            path,
            rd_reqs: Some(disk.read_requests),
            rd_bytes: Some(disk.read_bytes),
            rd_times: Some(disk.read_ns),
            wr_reqs: Some(disk.write_requests),
            wr_bytes: Some(disk.write_bytes),
            wr_times: Some(disk.write_ns),
            fl_reqs: Some(disk.flush_requests),
            fl_times: Some(disk.flush_ns),
            errors: Some(disk.errors),
            capacity: Some(disk.capacity_bytes),
            allocation: Some(disk.allocated_bytes),
            physical: Some(disk.allocated_bytes),
            ..BlockStats::default()
        }
    };
    stats.disks.iter().map(shown).collect()
}
