//! qemu-img as a peer: it checks what we wrote, and we read what it wrote.

use std::path::Path;
use std::process::{Command, Output};

use super::{dir, following, image, new_qcow2, pattern, read};
use crate::{OpenOptions, open};

fn run(args: &[&str]) -> Option<Output> {
    match Command::new("qemu-img").args(args).output() {
        Ok(output) => Some(output),
        Err(error) => {
            println!("skipped: qemu-img cannot be run: {error}");
            None
        }
    }
}

/// Runs qemu-img and expects success; false if it is not installed.
fn qemu_img(args: &[&str]) -> bool {
    let Some(output) = run(args) else {
        return false;
    };
    assert!(output.status.success(), "qemu-img {args:?}: {output:?}");
    true
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Asserts that qemu-img finds neither errors nor leaks.
pub(super) fn check_if_present(path: &Path) {
    qemu_img(&["check", "-q", "-f", "qcow2", text(path)]);
}

/// Asserts that qemu-img finds at most leaks, as after a crash.
pub(super) fn check_leaks_only(path: &Path) {
    if let Some(output) = run(&["check", "-q", "-f", "qcow2", text(path)]) {
        assert!(matches!(output.status.code(), Some(0 | 3)), "{output:?}");
    }
}

#[test]
fn qemu_img_reads_what_we_wrote() {
    let dir = dir();
    for (cluster_bits, order) in [(9, 4), (9, 0), (12, 6), (16, 4), (16, 0), (21, 4)] {
        let path = image(&dir, "ours.qcow2");
        let disk = new_qcow2(&path, 40 << 20, cluster_bits, order);
        let mut model = vec![0; 40 << 20];
        for i in 0..60 {
            let (offset, len) = (i * 7_654_321 % (39 << 20), 1000 + i * 9000);
            let bytes = pattern(i as u64, len);
            disk.write_at(offset as u64, &bytes).unwrap();
            model[offset..offset + len].copy_from_slice(&bytes);
        }
        disk.discard(5 << 20, 6 << 20).unwrap();
        disk.write_zeroes(20 << 20, 3 << 20, true).unwrap();
        model[20 << 20..23 << 20].fill(0);
        model[5 << 20..11 << 20].copy_from_slice(&read(&*disk, 5 << 20, 6 << 20));
        drop(disk);
        check_if_present(&path);
        let raw = image(&dir, "model.raw");
        std::fs::write(&raw, &model).unwrap();
        qemu_img(&[
            "compare",
            "-q",
            "-f",
            "qcow2",
            "-F",
            "raw",
            text(&path),
            text(&raw),
        ]);
        std::fs::remove_file(&path).unwrap();
    }
}

/// Fills an image that qemu-img makes, then opens, changes and checks it.
fn use_theirs(options: &str, convert: &[&str]) {
    let dir = dir();
    let (raw, path) = (image(&dir, "source.raw"), image(&dir, "theirs.qcow2"));
    let mut model = vec![0; 12 << 20];
    for (i, chunk) in model
        .chunks_mut(300_000)
        .enumerate()
        .filter(|(i, _)| i % 3 != 1)
    {
        // Half of the bytes repeat, so that clusters are worth compressing.
        let len = chunk.len();
        chunk[..len / 2].copy_from_slice(&pattern(i as u64, len / 2));
        chunk[len / 2..].fill(7);
    }
    std::fs::write(&raw, &model).unwrap();
    let mut args = vec!["convert", "-q", "-f", "raw", "-O", "qcow2"];
    args.extend(convert);
    args.extend(["-o", options, text(&raw), text(&path)]);
    if !qemu_img(&args) {
        return;
    }
    let disk = open(&path, &OpenOptions::default()).unwrap();
    assert!(read(&*disk, 0, model.len()) == model, "{options}");
    for i in 0..40 {
        let (offset, len) = (i * 1_234_567 % (11 << 20), 700 + i * 5000);
        let bytes = pattern(1000 + i as u64, len);
        disk.write_at(offset as u64, &bytes).unwrap();
        model[offset..offset + len].copy_from_slice(&bytes);
    }
    disk.write_zeroes(3 << 20, 2 << 20, true).unwrap();
    model[3 << 20..5 << 20].fill(0);
    disk.flush().unwrap();
    check_leaks_only(&path);
    disk.discard(6 << 20, 1 << 20).unwrap();
    model[6 << 20..7 << 20].copy_from_slice(&read(&*disk, 6 << 20, 1 << 20));
    assert!(read(&*disk, 0, model.len()) == model, "{options}");
    drop(disk);
    check_if_present(&path);
    std::fs::write(&raw, &model).unwrap();
    qemu_img(&[
        "compare",
        "-q",
        "-f",
        "qcow2",
        "-F",
        "raw",
        text(&path),
        text(&raw),
    ]);
}

#[test]
fn we_change_what_qemu_img_wrote() {
    use_theirs("compat=1.1", &[]);
    use_theirs("compat=0.10", &[]);
    use_theirs("compat=1.1,lazy_refcounts=on", &[]);
    use_theirs("refcount_bits=1", &[]);
    use_theirs("refcount_bits=64", &[]);
    use_theirs("cluster_size=512", &[]);
    use_theirs("cluster_size=2M", &[]);
    use_theirs("preallocation=metadata", &[]);
}

#[test]
fn we_change_what_qemu_img_compressed() {
    use_theirs("compression_type=zlib", &["-c"]);
    use_theirs("compression_type=zstd", &["-c"]);
    use_theirs("compression_type=zstd,cluster_size=4k", &["-c"]);
    use_theirs("compression_type=zlib,cluster_size=2M", &["-c"]);
    use_theirs("compat=0.10", &["-c"]);
}

#[test]
fn snapshots_inside_an_image_stay_as_they_are() {
    let dir = dir();
    let path = image(&dir, "disk.qcow2");
    let disk = new_qcow2(&path, 8 << 20, 16, 4);
    let before = pattern(1, 8 << 20);
    disk.write_at(0, &before).unwrap();
    drop(disk);
    if !qemu_img(&["snapshot", "-c", "kept", text(&path)]) {
        return;
    }
    let disk = open(&path, &OpenOptions::default()).unwrap();
    disk.write_at(100_000, &pattern(2, 1 << 20)).unwrap();
    disk.discard(4 << 20, 1 << 20).unwrap();
    disk.write_zeroes(6 << 20, 1 << 20, true).unwrap();
    drop(disk);
    check_if_present(&path);
    qemu_img(&["snapshot", "-a", "kept", text(&path)]);
    let disk = open(&path, &OpenOptions::default()).unwrap();
    assert!(read(&*disk, 0, 8 << 20) == before);
    drop(disk);
    qemu_img(&["snapshot", "-d", "kept", text(&path)]);
    check_if_present(&path);
}

#[test]
fn backing_chains_of_qemu_img_are_followed_and_stay_unchanged() {
    for compat in ["0.10", "1.1"] {
        let dir = dir();
        let [base, middle, top] = ["base.raw", "middle.qcow2", "top.qcow2"].map(|n| image(&dir, n));
        let mut model = pattern(4, 3 << 20);
        std::fs::write(&base, &model).unwrap();
        let compat = format!("compat={compat}");
        let create = ["create", "-q", "-f", "qcow2", "-o", &compat, "-F"];
        if !qemu_img(&[&create[..], &["raw", "-b", "base.raw", text(&middle)]].concat()) {
            return;
        }
        let on_top = ["qcow2", "-b", "middle.qcow2", text(&top), "5M"];
        qemu_img(&[&create[..], &on_top].concat());
        model.resize(5 << 20, 0);
        let disk = open(&top, &following()).unwrap();
        assert!(read(&*disk, 0, 5 << 20) == model);
        disk.write_at(1_000_001, b"top").unwrap();
        model[1_000_001..1_000_004].copy_from_slice(b"top");
        disk.write_zeroes(2 << 20, 300_000, true).unwrap();
        model[2 << 20..][..300_000].fill(0);
        assert!(read(&*disk, 0, 5 << 20) == model);
        drop(disk);
        check_if_present(&top);
        check_if_present(&middle);
        let raw = image(&dir, "model.raw");
        std::fs::write(&raw, &model).unwrap();
        qemu_img(&[
            "compare",
            "-q",
            "-f",
            "qcow2",
            "-F",
            "raw",
            text(&top),
            text(&raw),
        ]);
    }
}
