//! The disk on which a guest reads metrics of its host (`downwardMetrics`), kept up to date.

use std::io;
use std::path::Path;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::Duration;

use tracing::Span;
use vmm::machine::MachineHandle;

use crate::volumes::{VolumePlan, VolumeSource, host_metrics, update_metrics_disk, vm_metrics};

/// How often the disk is written, as upstream's.
const INTERVAL: Duration = Duration::from_secs(5);
/// What runs the guest.
const PRODUCT: &str = concat!("ferrovirt ", env!("CARGO_PKG_VERSION"));

/// Keeps the disk of an instance that has one up to date, until the machine has ended.
///
/// # Errors
///
/// Fails when the host refuses a thread.
pub(super) fn keep_up(machine: &MachineHandle, plans: &[VolumePlan]) -> io::Result<()> {
    let file = plans.iter().find_map(|plan| match &plan.source {
        VolumeSource::Metrics { file } => Some(file.clone()),
        _ => None,
    });
    let Some(file) = file else { return Ok(()) };
    let machine = machine.clone();
    let span = Span::current();
    let work = move || {
        let events = machine.events();
        loop {
            if let Err(error) = update(&machine, &file) {
                tracing::warn!(%error, "metrics for the guest cannot be written");
            }
            match events.recv_timeout(INTERVAL) {
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    };
    thread::Builder::new()
        .name("metrics".to_owned())
        .spawn(move || span.in_scope(work))
        .map(drop)
}

fn update(machine: &MachineHandle, file: &Path) -> io::Result<()> {
    let stats = machine.stats();
    let cpu_time_ns = stats.vcpus.iter().map(|vcpu| vcpu.cpu_time_ns).sum();
    let vcpus = u32::try_from(stats.vcpus.len()).unwrap_or(u32::MAX);
    let host_name = nix::unistd::gethostname().unwrap_or_default();
    let mut metrics = host_metrics(&host_name.to_string_lossy(), PRODUCT);
    metrics.extend(vm_metrics(cpu_time_ns, vcpus, stats.memory.len_bytes));
    update_metrics_disk(file, &metrics)
}
