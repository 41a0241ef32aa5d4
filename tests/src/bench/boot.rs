//! User CPU time from the start of the program to the guest's first process.

use std::process::Command;

use super::{BenchError, Goal, LIMIT, Peers, Row, start};

/// Boots with and without the kernel's self-tests of its ciphers, ours and QEMU's in turn.
pub(super) fn measure(peers: &Peers) -> Result<Vec<Row>, BenchError> {
    let variants = [
        ("boot to init, user CPU s", ""),
        (
            "boot to init with cryptomgr.notests, user CPU s",
            "cryptomgr.notests",
        ),
    ];
    variants
        .into_iter()
        .map(|(figure, words)| row(peers, figure, words))
        .collect()
}

fn row(peers: &Peers, figure: &str, words: &str) -> Result<Row, BenchError> {
    let machine = peers.machine().append(words);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..peers.rounds {
        ours.push(to_init(machine.vmm(&peers.vmm))?);
        if let Some(qemu) = &peers.qemu {
            theirs.push(to_init(machine.qemu(qemu, "pc"))?);
        }
    }
    Ok(Row {
        figure: figure.to_owned(),
        ours: middle(&mut ours).unwrap_or_default(),
        peer: middle(&mut theirs),
        native: None,
        goal: Goal::AtMostPeers(3.0),
    })
}

fn to_init(command: Command) -> Result<f64, BenchError> {
    let mut guest = start(command)?;
    guest.expect("FERROVIRT-INIT", LIMIT)?;
    let user = guest.cpu().user.as_secs_f64();
    guest.finish(LIMIT)?;
    Ok(user)
}

fn middle(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
