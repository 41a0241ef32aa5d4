//! virtio-blk in the guest beside `qemu-img bench` on a copy of the same file.

use std::{
    path::Path,
    process::{Command, Output},
};

use super::{BenchError, Goal, LIMIT, Peers, Row, Span, span, start};

/// Sequential and random reads. qemu-img has no random pattern; a stride that visits the file out of order stands in.
pub(super) fn measure(peers: &Peers) -> Result<Vec<Row>, BenchError> {
    let folder = tempfile::tempdir()?;
    let image = folder.path().join("disk.raw");
    std::fs::copy(peers.guests.root_raw(), &image)?;
    let machine = peers.machine().append("bench=blkread");
    let ours = reads(machine.clone().disk(&image, ",format=raw").vmm(&peers.vmm))?;
    let sequential = ["-c", "64", "-s", "1048576", "-d", "1"];
    let strided = ["-c", "8192", "-s", "4096", "-d", "1", "-S", "4231168"];
    let peer = |options: &[&str]| -> Result<Option<f64>, BenchError> {
        peers
            .qemu_img
            .as_ref()
            .map(|tool| image_bench(tool, &image, options))
            .transpose()
    };
    Ok(vec![
        Row {
            figure: "virtio-blk sequential read, MiB/s (QEMU: qemu-img bench on the host)"
                .to_owned(),
            ours: ours[0].amount / f64::from(1 << 20) / ours[0].wall_s,
            peer: peer(&sequential)?.map(|seconds| 64.0 / seconds),
            native: None,
            goal: Goal::Printed,
        },
        Row {
            figure: "virtio-blk 4 KiB random read, one at a time, IO/s (likewise)".to_owned(),
            ours: ours[1].amount / ours[1].wall_s,
            peer: peer(&strided)?.map(|seconds| 8192.0 / seconds),
            native: None,
            goal: Goal::Printed,
        },
    ])
}

fn reads(command: Command) -> Result<[Span; 2], BenchError> {
    let mut guest = start(command)?;
    let spans = [span(&mut guest, "seqread")?, span(&mut guest, "randread")?];
    guest.finish(LIMIT)?;
    Ok(spans)
}

/// Seconds that `qemu-img bench` says it took.
fn image_bench(tool: &Path, image: &Path, options: &[&str]) -> Result<f64, BenchError> {
    let Output { stdout, .. } = Command::new(tool)
        .args(["bench", "-f", "raw"])
        .args(options)
        .arg(image)
        .output()?;
    let text = String::from_utf8_lossy(&stdout);
    parse(&text).ok_or_else(|| BenchError::Answer(text.into_owned()))
}

fn parse(text: &str) -> Option<f64> {
    text.split("completed in ")
        .nth(1)?
        .split(' ')
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_found_in_the_tools_answer() {
        let text = "Sending 8 read requests, 4096 bytes each\nRun completed in 0.013 seconds.\n";
        assert_eq!(parse(text), Some(0.013));
        assert_eq!(parse("qemu-img: no such file"), None);
    }
}
