//! Work inside the guest: a counted integer loop, SHA-256 and gzip; user CPU time between the markers.

use std::process::Command;

use super::{BenchError, Goal, LIMIT, Peers, Row, median, span, start};

/// Instructions of the integer loop (images/bench/init.c).
const LOOP_INSTRUCTIONS: f64 = 1e9;

/// The workloads, ours beside QEMU's translator and the host.
pub(super) fn measure(peers: &Peers) -> Result<Vec<Row>, BenchError> {
    let mut rows = vec![integer_loop(peers)?];
    for (name, filter) in [("sha256", "sha256sum"), ("gzip", "gzip -c")] {
        let [ours, peer, native] = everywhere(peers, name, || host_filter(peers, filter))?;
        rows.push(Row {
            figure: format!("{name} of 64 MiB, user CPU s"),
            ours: ours.unwrap_or_default(),
            peer,
            native,
            goal: Goal::Printed,
        });
    }
    Ok(rows)
}

fn integer_loop(peers: &Peers) -> Result<Row, BenchError> {
    let native = || {
        let mut command = Command::new(peers.guests.bench_init());
        command.arg("intloop");
        command
    };
    let speed = |user_s: f64| LOOP_INSTRUCTIONS / 1e6 / user_s.max(0.01);
    let [ours, peer, native] = everywhere(peers, "intloop", native)?.map(|time| time.map(speed));
    Ok(Row {
        figure: "integer loop, million instructions/s".to_owned(),
        ours: ours.unwrap_or_default(),
        peer,
        native,
        goal: Goal::AtLeast(250.0),
    })
}

/// User CPU seconds of a workload on the software CPU, under QEMU, and on the host.
fn everywhere(
    peers: &Peers,
    name: &str,
    native: impl Fn() -> Command,
) -> Result<[Option<f64>; 3], BenchError> {
    let machine = peers.machine().append(&format!("bench={name}"));
    let ours = median(peers.rounds, || in_guest(machine.vmm(&peers.vmm), name))?;
    let peer = match &peers.qemu {
        Some(qemu) => Some(median(peers.rounds, || {
            in_guest(machine.qemu(qemu, "pc"), name)
        })?),
        None => None,
    };
    let native = median(peers.rounds, || on_host(native()))?;
    Ok([Some(ours), peer, Some(native)])
}

fn in_guest(command: Command, name: &str) -> Result<f64, BenchError> {
    let mut guest = start(command)?;
    let span = span(&mut guest, name)?;
    guest.finish(LIMIT)?;
    Ok(span.user_s)
}

fn on_host(command: Command) -> Result<f64, BenchError> {
    Ok(start(command)?.finish(LIMIT)?.cpu.user.as_secs_f64())
}

/// The guest's pipeline, with the guest's own busybox.
fn host_filter(peers: &Peers, filter: &str) -> Command {
    let busybox = peers.guests.busybox();
    let mut command = Command::new(&busybox);
    let busybox = busybox.display();
    command.args(["sh", "-c"]).arg(format!(
        "'{busybox}' dd if=/dev/zero bs=64k count=1024 2>/dev/null | '{busybox}' {filter} >/dev/null"
    ));
    command
}
