//! From the call that asks for an instance to its guest, without the node agent: a launcher that waits in its pod is
//! asked as the agent would ask it.
//!
//! The first instruction cannot be seen from outside. A machine's processors run before the call is answered, so the
//! answer is the later of the two; and the guest's kernel is told to speak early, so that its first byte in the
//! console's log bears witness.

use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::super::{BenchError, Goal, LIMIT, Peers, Row, median};
use super::calls::{Calls, wait};
use super::{LOOK, console_log, instance};
use crate::node::Node;

/// Starts that are measured.
const STARTS: usize = 5;

/// Measures the start of instances one after the other.
pub(in super::super) fn measure(_: &Peers) -> Result<Vec<Row>, BenchError> {
    let Some(mut node) = Node::new() else {
        return Ok(Vec::new());
    };
    let (mut answers_ms, mut round) = (Vec::new(), 0);
    let first_byte_ms = median(STARTS, || {
        round += 1;
        let (answered, spoke) = start_one(&mut node, &format!("start{round}"))?;
        answers_ms.push(1000.0 * answered.as_secs_f64());
        Ok(1000.0 * spoke.as_secs_f64())
    })?;
    answers_ms.sort_by(f64::total_cmp);
    Ok(vec![
        Row::alone(
            "SyncVirtualMachine to its answer, the guest running, ms",
            answers_ms[STARTS / 2],
            Goal::AtMost(100.0),
        ),
        Row::alone(
            "SyncVirtualMachine to the first byte from the guest's kernel, ms",
            first_byte_ms,
            Goal::Printed,
        ),
    ])
}

/// Time until the call was answered, and until the guest's kernel has spoken.
fn start_one(node: &mut Node, name: &str) -> Result<(Duration, Duration), BenchError> {
    let mut vmi = instance(name);
    let boot = &mut vmi["spec"]["domain"]["firmware"]["kernelBoot"];
    boot["kernelArgs"] = "console=ttyS0 earlyprintk=ttyS0,115200".into();
    let pod = node.start_pod(&vmi);
    let mut calls = Calls::connect(pod)?;
    let log = console_log(pod, &vmi);
    let json = vmi.to_string();
    let began = Instant::now();
    let spoke = first_byte(&log)?;
    let answered = calls.sync(json.as_bytes())?;
    let spoke = spoke
        .recv_timeout(LIMIT)
        .map_err(|_| BenchError::Late("the guest's first byte"))?;
    // It would take time from the next one.
    node.pod(name).signal(Signal::SIGKILL);
    Ok((answered, spoke.saturating_duration_since(began)))
}

/// Sends the time at which a file got its first byte.
fn first_byte(log: &Path) -> Result<Receiver<Instant>, BenchError> {
    let (sender, receiver) = channel();
    let log = log.to_owned();
    thread::Builder::new()
        .name("first-byte".to_owned())
        .spawn(move || {
            let deadline = Instant::now() + LIMIT;
            while Instant::now() < deadline {
                if log.metadata().is_ok_and(|log| log.len() > 0) {
                    // The receiver is gone when the call failed.
                    let _failed = sender.send(Instant::now());
                    return;
                }
                wait(LOOK);
            }
        })?;
    Ok(receiver)
}
