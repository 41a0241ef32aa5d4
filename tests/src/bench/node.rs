//! What a node costs: launchers in their pods with a guest each, the node agent, and the calls between them.

mod calls;
mod many;
mod one;
mod start;

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use self::calls::wait;
pub(super) use self::many::measure as many;
pub(super) use self::one::measure as one;
pub(super) use self::start::measure as start;
use super::footprint::own_memory_kib;
use super::{BenchError, LIMIT};
use crate::cpu_time::cpu_time;
use crate::node::pod::Pod;
use crate::node::{Node, manifest};

/// Guest memory of the instances, in KiB.
const GUEST_KIB: u64 = 128 << 10;
/// Time that CPU use is measured over.
const WINDOW: Duration = Duration::from_secs(60);
/// Time that everyone has to come to rest before that.
const SETTLE: Duration = Duration::from_secs(10);
/// How often something is looked at that does not tell by itself.
const LOOK: Duration = Duration::from_millis(1);

/// An instance whose console is logged.
fn instance(name: &str) -> Value {
    let mut vmi = manifest::vmi(name);
    vmi["spec"]["domain"]["devices"]["logSerialConsole"] = json!(true);
    vmi
}

/// What an instance's guest says on its console.
fn console_log(pod: &Pod, vmi: &Value) -> PathBuf {
    let uid = vmi["metadata"]["uid"].as_str().unwrap_or_default();
    pod.volume("private").join(uid).join("virt-serial0-log")
}

/// Waits until the console's last words hold `wanted`.
fn wait_for_words(log: &PathBuf, wanted: &str) -> Result<(), BenchError> {
    const TAIL_LEN: u64 = 4096;
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Ok(mut file) = fs::File::open(log) {
            let len = file.metadata()?.len();
            file.seek(SeekFrom::Start(len.saturating_sub(TAIL_LEN)))?;
            let mut tail = Vec::new();
            file.read_to_end(&mut tail)?;
            if String::from_utf8_lossy(&tail).contains(wanted) {
                return Ok(());
            }
        }
        if Instant::now() > deadline {
            return Err(BenchError::Late("the guest's words"));
        }
        wait(20 * LOOK);
    }
}

/// The launchers' processes.
fn launcher_pids(node: &Node) -> Result<Vec<u32>, BenchError> {
    let pids = node.pods().iter().map(Pod::launcher_pid);
    pids.collect::<Option<_>>()
        .ok_or(BenchError::Late("launchers that run"))
}

/// Resident MiB of a process without its guest's memory; `guest_kib` is 0 for one that has none.
fn own_mib(pid: u32, guest_kib: u64) -> Result<f64, BenchError> {
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps"))?;
    let own_kib = own_memory_kib(&smaps, guest_kib).ok_or(BenchError::Answer(smaps))?;
    Ok(own_kib / 1024.0)
}

/// MiB that a process takes from its host: what it shares counts in part (proc(5), `Pss`).
pub(super) fn proportional_mib(pid: u32) -> Result<f64, BenchError> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib = line.and_then(|text| text.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    Ok(kib.ok_or(BenchError::Answer(rollup))? / 1024.0)
}

/// CPU time that processes use in [`WINDOW`], in per cent of one core, one number for each group.
fn idle_per_cent<const N: usize>(groups: [&[u32]; N]) -> [f64; N] {
    let used = || {
        groups.map(|pids| {
            let times = pids.iter().filter_map(|pid| cpu_time(*pid));
            times
                .map(|time| time.total())
                .sum::<Duration>()
                .as_secs_f64()
        })
    };
    let (began, before) = (Instant::now(), used());
    wait(WINDOW);
    let (after, wall) = (used(), began.elapsed().as_secs_f64());
    std::array::from_fn(|group| 100.0 * (after[group] - before[group]) / wall)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_process_takes_memory_from_its_host() {
        let pid = std::process::id();
        let (resident, shared) = (own_mib(pid, 0).unwrap(), proportional_mib(pid).unwrap());
        assert!(
            shared > 0.0 && shared <= resident + 1.0,
            "{shared} of {resident}"
        );
    }
}
