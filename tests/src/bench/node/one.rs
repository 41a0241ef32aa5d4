//! A node with one instance: memory of launcher and node agent, and the call that changes nothing.

use std::time::Duration;

use super::super::{BenchError, Goal, LIMIT, Peers, Row};
use super::calls::{Calls, wait};
use super::{GUEST_KIB, SETTLE, console_log, instance, own_mib, wait_for_words};
use crate::node::Node;

/// Calls that are measured.
const CALLS: usize = 1000;

/// Measures a launcher and the node agent.
pub(in super::super) fn measure(_: &Peers) -> Result<Vec<Row>, BenchError> {
    let Some(mut node) = Node::new() else {
        return Ok(Vec::new());
    };
    node.start_handler(&[]);
    wait(SETTLE);
    let handler_mib = own_mib(node.handler().pid(), 0)?;
    let vmi = instance("one");
    let key = node.schedule(vmi.clone());
    let running = node.wait_for_phase(&key, "Running", LIMIT);
    let pod = node.pod("one");
    wait_for_words(&console_log(pod, &vmi), "login: ")?;
    wait(SETTLE);
    let pid = pod
        .launcher_pid()
        .ok_or(BenchError::Late("a launcher that runs"))?;
    let launcher_mib = own_mib(pid, GUEST_KIB)?;
    let mut times_ms = nothing_to_do(&mut Calls::connect(pod)?, running.to_string().as_bytes())?;
    times_ms.sort_by(f64::total_cmp);
    Ok(vec![
        Row::alone(
            "node agent without instances, resident MiB",
            handler_mib,
            Goal::AtMost(15.0),
        ),
        Row::alone(
            "launcher in its pod above the guest's memory, resident MiB",
            launcher_mib,
            Goal::AtMost(20.0),
        ),
        Row::alone(
            "Sync with nothing to do, median ms",
            times_ms[CALLS / 2],
            Goal::AtMost(5.0),
        ),
        Row::alone(
            "Sync with nothing to do, 99th percentile ms",
            times_ms[CALLS * 99 / 100],
            Goal::AtMost(5.0),
        ),
    ])
}

fn nothing_to_do(calls: &mut Calls, vmi_json: &[u8]) -> Result<Vec<f64>, BenchError> {
    let milliseconds = |took: Duration| 1000.0 * took.as_secs_f64();
    (0..CALLS)
        .map(|_| calls.sync(vmi_json).map(milliseconds))
        .collect()
}
