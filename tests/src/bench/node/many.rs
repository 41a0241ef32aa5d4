//! A node full of idle instances.

use std::time::Instant;

use super::super::{BenchError, Goal, LIMIT, Peers, Row};
use super::calls::wait;
use super::{
    GUEST_KIB, SETTLE, console_log, idle_per_cent, instance, launcher_pids, own_mib,
    proportional_mib, wait_for_words,
};
use crate::node::Node;

/// Instances on the node.
const INSTANCES: u32 = 50;

/// Measures the node once all guests wait at their login prompts.
pub(in super::super) fn measure(_: &Peers) -> Result<Vec<Row>, BenchError> {
    let Some(mut node) = Node::new() else {
        return Ok(Vec::new());
    };
    node.start_handler(&[]);
    let began = Instant::now();
    fill(&mut node);
    let running_s = began.elapsed().as_secs_f64();
    for pod in node.pods() {
        wait_for_words(&console_log(pod, &instance(pod.name())), "login: ")?;
    }
    let booted_s = began.elapsed().as_secs_f64();
    wait(SETTLE);
    let (handler, launchers) = (node.handler().pid(), launcher_pids(&node)?);
    let [handler_cpu, launchers_cpu] = idle_per_cent([&[handler], &launchers]);
    let mut rows = vec![
        row("instances all Running after, s", running_s, Goal::Printed),
        row(
            "guests all at their prompts after, s",
            booted_s,
            Goal::Printed,
        ),
        row("node agent, % of a core", handler_cpu, Goal::AtMost(1.0)),
        row(
            "node agent, resident MiB",
            own_mib(handler, 0)?,
            Goal::AtMost(15.0),
        ),
        row(
            "all processes, % of a core",
            handler_cpu + launchers_cpu,
            Goal::AtMost(20.0),
        ),
    ];
    rows.extend(memory(handler, &launchers)?);
    Ok(rows)
}

fn row(figure: &str, ours: f64, goal: Goal) -> Row {
    Row::alone(&format!("{INSTANCES} idle instances: {figure}"), ours, goal)
}

/// Starts the instances at once and waits until the last one runs.
fn fill(node: &mut Node) {
    let keys: Vec<_> = (0..INSTANCES)
        .map(|n| node.schedule(instance(&format!("many{n}"))))
        .collect();
    for key in &keys {
        node.wait_for_phase(key, "Running", LIMIT);
    }
}

fn memory(handler: u32, launchers: &[u32]) -> Result<[Row; 2], BenchError> {
    let own = launchers.iter().map(|pid| own_mib(*pid, GUEST_KIB));
    let own: Vec<f64> = own.collect::<Result<_, _>>()?;
    let all = launchers.iter().chain([&handler]);
    let total: f64 = all
        .map(|pid| proportional_mib(*pid))
        .sum::<Result<_, _>>()?;
    let largest = own.into_iter().fold(0.0, f64::max);
    Ok([
        row(
            "largest launcher above its guest's memory, resident MiB",
            largest,
            Goal::AtMost(20.0),
        ),
        row("all processes with their guests, MiB", total, Goal::Printed),
    ])
}
