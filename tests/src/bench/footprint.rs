//! What an idle machine costs its host: memory above the guest's own, and CPU time.

use std::process::Command;

use super::{BenchError, Goal, LIMIT, Peers, Row, span, start};
use crate::{
    console::{Console, Spawned},
    demo,
};

/// Guest memory of the machines measured, in KiB.
const GUEST_KIB: u64 = 256 << 10;

/// Resident memory beyond the guest's RAM, at the login prompt of the demo machine (or, without a launcher, while the
/// benchmark guest idles).
pub(super) fn memory(peers: &Peers) -> Result<Vec<Row>, BenchError> {
    let (figure, mut guest) = match &peers.launcher {
        Some(launcher) => {
            let command = demo::command(launcher, &peers.guests, "soft");
            let mut guest = Spawned::start(command, Console::Pipes)?;
            guest.expect("login: ", LIMIT)?;
            ("virt-launcher memory above the guest's, MiB", guest)
        }
        None => {
            let mut guest = start(idle_machine(peers, 5))?;
            guest.expect("FERROVIRT-BEGIN idle", LIMIT)?;
            ("vmm memory above the guest's, MiB", guest)
        }
    };
    guest.close_input();
    let smaps = std::fs::read_to_string(format!("/proc/{}/smaps", guest.pid()))?;
    let own_kib = own_memory_kib(&smaps, GUEST_KIB).ok_or(BenchError::Answer(smaps))?;
    Ok(vec![Row::alone(
        figure,
        own_kib / 1024.0,
        Goal::AtMost(24.0),
    )])
}

/// CPU time of a guest that sleeps, in per cent of one core.
pub(super) fn idle(peers: &Peers) -> Result<Vec<Row>, BenchError> {
    let per_cent = |command| -> Result<f64, BenchError> {
        let mut guest = start(command)?;
        let span = span(&mut guest, "idle")?;
        Ok(100.0 * span.cpu_s / span.wall_s)
    };
    let machine = peers.machine().append("bench=idle seconds=20");
    let peer = peers
        .qemu
        .as_ref()
        .map(|qemu| per_cent(machine.qemu(qemu, "pc")))
        .transpose()?;
    Ok(vec![Row {
        figure: "idle guest, % of a core".to_owned(),
        ours: per_cent(idle_machine(peers, 20))?,
        peer,
        native: None,
        goal: Goal::AtMost(1.0),
    }])
}

fn idle_machine(peers: &Peers, seconds: u32) -> Command {
    peers
        .machine()
        .append(&format!("bench=idle seconds={seconds}"))
        .vmm(&peers.vmm)
}

/// Resident KiB outside guest RAM (proc(5), `/proc/pid/smaps`). Guest RAM is the mapping of exactly its size, or else
/// the largest ones that together have it.
pub(super) fn own_memory_kib(smaps: &str, guest_kib: u64) -> Option<f64> {
    let field = |line: &str, name: &str| -> Option<u64> {
        line.strip_prefix(name)?
            .trim()
            .strip_suffix(" kB")?
            .parse()
            .ok()
    };
    let mut sizes = smaps.lines().filter_map(|line| field(line, "Size:"));
    let resident = smaps.lines().filter_map(|line| field(line, "Rss:"));
    let mut mappings: Vec<(u64, u64)> = resident
        .map_while(|rss| Some((sizes.next()?, rss)))
        .collect();
    mappings
        .sort_unstable_by_key(|(size, rss)| (*size != guest_kib, u64::MAX - size, u64::MAX - rss));
    let mut left = guest_kib;
    let mut own = 0;
    for (size, rss) in &mappings {
        own += if left == 0 { *rss } else { 0 };
        left = left.saturating_sub(*size);
    }
    (!mappings.is_empty()).then(|| f64::from(u32::try_from(own).unwrap_or(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn smaps(mappings: &[(u64, u64)]) -> String {
        let entry = |(size, rss): &(u64, u64)| {
            format!(
                "7f0-7f1 rw-p 0 00:00 0\nSize: {size} kB\nKernelPageSize: 4 kB\nRss:   {rss} kB\n"
            )
        };
        mappings.iter().map(entry).collect()
    }

    #[test]
    fn the_mapping_of_the_guests_size_is_left_out() {
        let text = smaps(&[(100, 90), (9999, 5), (1000, 700), (50, 3)]);
        assert_eq!(own_memory_kib(&text, 1000), Some(98.0));
    }

    #[test]
    fn split_guest_memory_is_left_out_whole() {
        let text = smaps(&[(640, 640), (360, 60), (50, 3), (20, 7)]);
        assert_eq!(own_memory_kib(&text, 1000), Some(10.0));
        assert_eq!(own_memory_kib("", 1000), None);
    }
}
