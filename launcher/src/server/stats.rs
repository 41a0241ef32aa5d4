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

#[cfg(test)]
mod tests {
    use proto::domain::{Alias, Disk, DiskSource, DiskTarget, Domain};
    use proto::stats::VcpuState;
    use vmm::machine::{DiskStats, MachineStats, MemoryStats, VcpuStats};

    use super::domain_stats;

    #[test]
    fn counters_are_told_under_the_names_of_the_domain() {
        let mut domain = Domain::new("ns", "vm", "1-2");
        domain.spec.devices.disks = vec![Disk {
            alias: Some(Alias::user_defined("root")),
            target: DiskTarget {
                device: "vda".to_owned(),
                ..DiskTarget::default()
            },
            source: DiskSource {
                file: "/disk.img".to_owned(),
                ..DiskSource::default()
            },
            ..Disk::default()
        }];
        let vcpu = |halted, cpu_time_ns| VcpuStats {
            halted,
            cpu_time_ns,
        };
        let disk = |name: &str| DiskStats {
            name: name.to_owned(),
            read_requests: 3,
            ..DiskStats::default()
        };
        let machine = MachineStats {
            vcpus: vec![vcpu(false, 5), vcpu(true, 7)],
            disks: vec![disk("root"), disk("unknown")],
            memory: MemoryStats {
                len_bytes: 1 << 20,
                resident_bytes: 4096,
            },
        };
        let stats = domain_stats(&domain, &machine, Some([1.0, 0.5, 0.25]));
        assert_eq!(stats.name, "ns_vm");
        assert_eq!(stats.cpu.unwrap().time, Some(12));
        let memory = stats.memory.unwrap();
        assert_eq!((memory.total, memory.rss), (Some(1024), Some(4)));
        assert_eq!(memory.unused, None);
        let states: Vec<_> = stats.vcpu.iter().filter_map(|vcpu| vcpu.state).collect();
        assert_eq!(states, [VcpuState::RUNNING, VcpuState::BLOCKED]);
        assert_eq!(stats.block[0].name.as_deref(), Some("vda"));
        assert_eq!(stats.block[0].path.as_deref(), Some("/disk.img"));
        assert_eq!(stats.block[0].rd_reqs, Some(3));
        assert_eq!(
            (&*stats.block[1].alias, &stats.block[1].name),
            ("unknown", &None)
        );
        assert_eq!(stats.load.unwrap().load_15m, Some(0.25));
    }
}
