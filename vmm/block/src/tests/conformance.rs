//! What every disk must do, run over every format.

use std::sync::Arc;
use std::thread;

use tempfile::TempDir;

use super::{dir, image, new_qcow2, pattern, read};
use crate::{CacheMode, Disk, DiskError, Format, OpenOptions, create_empty, open, overlay};

const LEN: u64 = 3 << 20;

/// Runs the suite on disks of [`LEN`] bytes that read as zeroes, each made by `make`.
fn conform(make: impl Fn(&TempDir) -> Arc<dyn Disk>) {
    let checks = [
        reads_back_what_was_written,
        refuses_ranges_outside,
        zeroes_read_as_zeroes,
        discarded_bytes_are_zero_or_old,
        neighbours_written_at_once_do_not_disturb_each_other,
        readers_and_discards_at_once_see_only_own_bytes,
    ];
    for check in checks {
        let dir = dir();
        let disk = make(&dir);
        assert_eq!(disk.len_bytes(), LEN);
        assert_eq!(read(&*disk, LEN - 512, 512), vec![0; 512]);
        check(&*disk);
        disk.flush().unwrap();
    }
}

fn reads_back_what_was_written(disk: &dyn Disk) {
    let mut model = vec![0; LEN as usize];
    for (seed, (offset, len)) in [
        (0, 512),
        (511, 2),
        (65_000, 70_000),
        (LEN as usize - 700, 700),
        (4096, 4096),
        (9, 0),
    ]
    .into_iter()
    .enumerate()
    {
        let bytes = pattern(seed as u64, len);
        disk.write_at(offset as u64, &bytes).unwrap();
        model[offset..offset + len].copy_from_slice(&bytes);
    }
    assert!(read(disk, 0, LEN as usize) == model);
    disk.flush().unwrap();
    assert!(read(disk, 0, LEN as usize) == model);
}

fn refuses_ranges_outside(disk: &dyn Disk) {
    let out = |result| assert!(matches!(result, Err(DiskError::OutOfRange { .. })));
    out(disk.read_at(LEN, &mut [0]));
    out(disk.write_at(LEN - 1, &[0, 0]));
    out(disk.discard(u64::MAX, 2));
    out(disk.write_zeroes(1, LEN, true));
    disk.read_at(LEN, &mut []).unwrap();
}

fn zeroes_read_as_zeroes(disk: &dyn Disk) {
    for (round, may_unmap) in [false, true].into_iter().enumerate() {
        let bytes = pattern(round as u64, LEN as usize);
        disk.write_at(0, &bytes).unwrap();
        for (offset, len) in [
            (100, 5),
            (65_536, 65_536),
            (200_000, 500_000),
            (LEN - 999, 999),
        ] {
            disk.write_zeroes(offset, len, may_unmap).unwrap();
            assert!(read(disk, offset, len as usize).iter().all(|b| *b == 0));
        }
        assert_eq!(read(disk, 99, 1)[0], bytes[99]);
        assert_eq!(read(disk, 105, 1)[0], bytes[105]);
        assert_eq!(read(disk, 700_000, 9), bytes[700_000..700_009]);
        disk.write_at(300_000, b"again").unwrap();
        assert_eq!(read(disk, 299_999, 7), b"\0again\0");
    }
}

fn discarded_bytes_are_zero_or_old(disk: &dyn Disk) {
    let bytes = pattern(5, LEN as usize);
    disk.write_at(0, &bytes).unwrap();
    disk.discard(10_000, 1 << 20).unwrap();
    let after = read(disk, 0, LEN as usize);
    assert!(
        after
            .iter()
            .zip(&bytes)
            .all(|(new, old)| new == old || *new == 0)
    );
    assert!(after[..10_000] == bytes[..10_000]);
    assert!(after[10_000 + (1 << 20)..] == bytes[10_000 + (1 << 20)..]);
}

fn neighbours_written_at_once_do_not_disturb_each_other(disk: &dyn Disk) {
    const WRITERS: u64 = 4;
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            scope.spawn(move || {
                for sector in (writer..LEN / 512).step_by(WRITERS as usize) {
                    disk.write_at(sector * 512, &pattern(sector, 512)).unwrap();
                    if sector % 97 == 0 {
                        disk.flush().unwrap();
                    }
                }
            });
        }
    });
    for sector in 0..LEN / 512 {
        assert_eq!(
            read(disk, sector * 512, 512),
            pattern(sector, 512),
            "sector {sector}"
        );
    }
}

/// One half of the disk is discarded and written over and over; the other half must not see it.
fn readers_and_discards_at_once_see_only_own_bytes(disk: &dyn Disk) {
    let half = LEN / 2;
    let quiet = pattern(1, half as usize);
    disk.write_at(0, &quiet).unwrap();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for round in 0..40 {
                    let offset = round * 8192 % (half - 70_000);
                    let got = read(disk, offset, 70_000);
                    assert!(got == quiet[offset as usize..][..70_000]);
                }
            });
        }
        scope.spawn(|| {
            for round in 0..10 {
                disk.write_at(half, &vec![round; half as usize]).unwrap();
                disk.discard(half, half).unwrap();
                disk.flush().unwrap();
            }
        });
    });
    assert!(read(disk, 0, half as usize) == quiet);
}

#[test]
fn raw_conforms_in_every_cache_mode() {
    for cache in [CacheMode::Writeback, CacheMode::None] {
        conform(|dir| {
            let path = image(dir, "disk.raw");
            create_empty(&path, LEN, Format::Raw).unwrap();
            let format = Some(Format::Raw);
            open(
                &path,
                &OpenOptions {
                    format,
                    cache,
                    ..OpenOptions::default()
                },
            )
            .unwrap()
        });
    }
}

#[test]
fn qcow2_conforms_with_every_cluster_size() {
    for (cluster_bits, refcount_order) in [(9, 4), (12, 0), (16, 4), (17, 6), (21, 3)] {
        conform(|dir| new_qcow2(&image(dir, "disk.qcow2"), LEN, cluster_bits, refcount_order));
    }
}

#[test]
fn qcow2_conforms_past_the_page_cache() {
    conform(|dir| {
        let path = image(dir, "disk.qcow2");
        create_empty(&path, LEN, Format::Qcow2).unwrap();
        open(
            &path,
            &OpenOptions {
                cache: CacheMode::None,
                ..OpenOptions::default()
            },
        )
        .unwrap()
    });
}

#[test]
fn overlay_conforms() {
    conform(|dir| {
        let base = image(dir, "base.raw");
        create_empty(&base, LEN, Format::Raw).unwrap();
        let options = OpenOptions {
            read_only: true,
            ..OpenOptions::default()
        };
        overlay(
            open(&base, &options).unwrap(),
            &image(dir, "top.qcow2"),
            None,
        )
        .unwrap()
    });
}

#[test]
fn overlay_leaves_its_base_unchanged() {
    let dir = dir();
    let base = image(&dir, "base.raw");
    let bytes = pattern(3, 1 << 20);
    std::fs::write(&base, &bytes).unwrap();
    let options = OpenOptions {
        read_only: true,
        ..OpenOptions::default()
    };
    let lower = open(&base, &options).unwrap();
    let disk = overlay(lower, &image(&dir, "top.qcow2"), Some(2 << 20)).unwrap();
    assert_eq!(disk.len_bytes(), 2 << 20);
    disk.write_at(70_001, b"changed").unwrap();
    disk.write_zeroes(200_000, 300_000, true).unwrap();
    disk.write_at((1 << 20) - 1, b"xy").unwrap();
    let mut expected = bytes.clone();
    expected.resize(2 << 20, 0);
    expected[70_001..70_008].copy_from_slice(b"changed");
    expected[200_000..500_000].fill(0);
    expected[(1 << 20) - 1..][..2].copy_from_slice(b"xy");
    assert!(read(&*disk, 0, 2 << 20) == expected);
    assert!(std::fs::read(&base).unwrap() == bytes);
}

#[test]
fn a_read_only_disk_refuses_every_change() {
    let dir = dir();
    for format in [Format::Raw, Format::Qcow2] {
        let path = image(&dir, &format!("{format:?}"));
        create_empty(&path, LEN, format).unwrap();
        let disk = open(
            &path,
            &OpenOptions {
                read_only: true,
                ..OpenOptions::default()
            },
        )
        .unwrap();
        let refused = |result| assert!(matches!(result, Err(DiskError::ReadOnly)));
        refused(disk.write_at(0, &[1]));
        refused(disk.discard(0, 512));
        refused(disk.write_zeroes(0, 512, true));
        disk.flush().unwrap();
    }
}

#[test]
fn a_raw_file_of_odd_length_ends_in_zeroes() {
    let dir = dir();
    let path = image(&dir, "odd.raw");
    std::fs::write(&path, pattern(1, 700)).unwrap();
    let disk = open(&path, &OpenOptions::default()).unwrap();
    assert_eq!(disk.len_bytes(), 1024);
    assert_eq!(read(&*disk, 690, 334)[10..], [0; 324]);
    disk.write_at(1023, &[7]).unwrap();
    assert_eq!(read(&*disk, 699, 325)[324], 7);
}

#[test]
fn writes_survive_reopening() {
    let dir = dir();
    for cluster_bits in [9, 16, 21] {
        let path = image(&dir, &format!("{cluster_bits}.qcow2"));
        let bytes = pattern(8, 1 << 20);
        let disk = new_qcow2(&path, 64 << 20, cluster_bits, 4);
        disk.write_at(33 << 20, &bytes).unwrap();
        drop(disk);
        let disk = open(&path, &OpenOptions::default()).unwrap();
        assert!(read(&*disk, 33 << 20, 1 << 20) == bytes);
    }
}

#[test]
fn a_write_through_needs_no_flush() {
    let dir = dir();
    let (path, copy) = (image(&dir, "disk.qcow2"), image(&dir, "copy.qcow2"));
    create_empty(&path, LEN, Format::Qcow2).unwrap();
    let options = OpenOptions {
        cache: CacheMode::Writethrough,
        ..OpenOptions::default()
    };
    let disk = open(&path, &options).unwrap();
    disk.write_at(70_000, b"at once").unwrap();
    std::fs::copy(&path, &copy).unwrap();
    let copied = open(&copy, &OpenOptions::default()).unwrap();
    assert_eq!(read(&*copied, 70_000, 7), b"at once");
}

#[test]
fn a_writable_qcow2_image_has_one_user() {
    let dir = dir();
    let path = image(&dir, "disk.qcow2");
    let disk = new_qcow2(&path, LEN, 16, 4);
    let again = open(&path, &OpenOptions::default());
    assert!(
        matches!(again, Err(crate::OpenError::InUse { .. })),
        "{again:?}"
    );
    drop(disk);
    open(&path, &OpenOptions::default()).unwrap();
}
