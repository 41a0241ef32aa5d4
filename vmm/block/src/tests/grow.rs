//! Longer disks, and overlays that are opened again.

use std::fs;
use std::sync::{Arc, Barrier};
use std::thread;

use super::peer::check_if_present;
use super::{dir, image, new_qcow2, pattern, read};
use crate::{
    CacheMode, Disk, DiskError, Format, OpenError, OpenOptions, create_empty, open,
    open_or_create_overlay, open_overlay, overlay, resize,
};

const LEN: u64 = 1 << 20;

fn all_zero(disk: &dyn Disk, offset: u64, len: u64) -> bool {
    read(disk, offset, len as usize)
        .iter()
        .all(|byte| *byte == 0)
}

/// Grows a disk of [`LEN`] bytes and checks that the old part stays and the new one is zero.
fn grows(disk: &dyn Disk, len_bytes: u64) {
    let old = pattern(5, LEN as usize);
    disk.write_at(0, &old).unwrap();
    disk.grow(LEN - 512).unwrap();
    assert_eq!(disk.len_bytes(), LEN, "a disk does not shrink");
    disk.grow(len_bytes - 1).unwrap();
    assert_eq!(disk.len_bytes(), len_bytes);
    assert!(read(disk, 0, LEN as usize) == old);
    assert!(all_zero(disk, LEN, (len_bytes - LEN).min(1 << 20)));
    disk.write_at(len_bytes - 512, &pattern(6, 512)).unwrap();
    assert!(read(disk, len_bytes - 512, 512) == pattern(6, 512));
    assert!(all_zero(disk, LEN, 512));
    disk.flush().unwrap();
}

#[test]
fn every_format_grows_while_it_is_open() {
    for format in [Format::Raw, Format::Qcow2] {
        let dir = dir();
        let path = image(&dir, "disk");
        create_empty(&path, LEN, format).unwrap();
        let options = OpenOptions {
            format: Some(format),
            ..OpenOptions::default()
        };
        let disk = open(&path, &options).unwrap();
        grows(&*disk, 5 << 20);
        drop(disk);
        assert_eq!(open(&path, &options).unwrap().len_bytes(), 5 << 20);
        assert_eq!(resize(&path, format, 6 << 20).unwrap(), 6 << 20);
        assert_eq!(open(&path, &options).unwrap().len_bytes(), 6 << 20);
    }
}

#[test]
fn the_l1_table_grows_in_its_clusters_and_no_further() {
    // With clusters of 4 KiB an L1 entry maps 2 MiB, and a cluster has room for 512 entries.
    let dir = dir();
    let path = image(&dir, "small");
    let disk = new_qcow2(&path, LEN, 12, 4);
    grows(&*disk, 1 << 30);
    assert!(matches!(
        disk.grow((1 << 30) + 512),
        Err(DiskError::FixedSize)
    ));
    drop(disk);
    check_if_present(&path);
    let disk = open(&path, &OpenOptions::default()).unwrap();
    assert_eq!(disk.len_bytes(), 1 << 30);
    assert!(read(&*disk, (1 << 30) - 512, 512) == pattern(6, 512));
}

#[test]
fn a_discard_up_to_the_old_end_takes_nothing_from_behind_it() {
    const CLUSTER: u64 = 4096;
    const ROUNDS: u64 = 50;
    let dir = dir();
    let disk = new_qcow2(&image(&dir, "disk"), LEN + 512, 12, 4);
    let new = pattern(9, 1024);
    for end in (0..ROUNDS).map(|round| LEN + 512 + round * CLUSTER) {
        disk.write_at(end - 512, &pattern(8, 512)).unwrap();
        let barrier = Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                barrier.wait();
                disk.discard(end - 512, 512).unwrap();
            });
            barrier.wait();
            disk.grow(end + CLUSTER).unwrap();
            disk.write_at(end, &new).unwrap();
        });
        assert!(read(&*disk, end, new.len()) == new, "behind {end}");
    }
}

#[test]
fn sizes_that_no_file_can_have_are_refused() {
    for format in [Format::Raw, Format::Qcow2] {
        let dir = dir();
        let path = image(&dir, "disk");
        create_empty(&path, LEN, format).unwrap();
        let disk = open(&path, &OpenOptions::default()).unwrap();
        assert!(disk.grow(u64::MAX).is_err());
        assert_eq!(disk.len_bytes(), LEN);
        let options = OpenOptions {
            read_only: true,
            ..OpenOptions::default()
        };
        drop(disk);
        let disk = open(&path, &options).unwrap();
        assert!(matches!(disk.grow(2 * LEN), Err(DiskError::ReadOnly)));
    }
}

#[test]
fn a_longer_base_does_not_show_through_where_the_disk_ended() {
    let dir = dir();
    let base_path = image(&dir, "base");
    fs::write(&base_path, pattern(1, 4 << 20)).unwrap();
    let base = || {
        let options = OpenOptions {
            read_only: true,
            format: Some(Format::Raw),
            ..OpenOptions::default()
        };
        open(&base_path, &options).unwrap()
    };
    let path = image(&dir, "overlay");
    // It ends inside a cluster.
    let len_bytes = (1 << 20) + 512;
    let disk = overlay(base(), &path, Some(len_bytes)).unwrap();
    disk.write_at(len_bytes - 512, b"last").unwrap();
    disk.grow(8 << 20).unwrap();
    let check = |disk: &dyn Disk| {
        assert!(read(disk, 0, 1 << 20) == pattern(1, 4 << 20)[..1 << 20]);
        assert_eq!(read(disk, len_bytes - 512, 4), b"last");
        assert!(all_zero(disk, len_bytes, (8 << 20) - len_bytes));
    };
    check(&*disk);
    drop(disk);
    check(&*open_overlay(base(), &path, CacheMode::Writeback).unwrap());
    check_if_present(&path);
}

#[test]
fn a_file_that_grew_is_noticed_when_asked() {
    let dir = dir();
    let path = image(&dir, "disk");
    create_empty(&path, LEN, Format::Raw).unwrap();
    let disk = open(&path, &OpenOptions::default()).unwrap();
    fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(3 * LEN)
        .unwrap();
    assert_eq!(disk.len_bytes(), LEN);
    assert_eq!(disk.refresh_len().unwrap(), 3 * LEN);
    disk.write_at(3 * LEN - 4, b"tail").unwrap();
}

#[test]
fn allocated_bytes_follow_what_is_written() {
    for format in [Format::Raw, Format::Qcow2] {
        let dir = dir();
        let path = image(&dir, "disk");
        create_empty(&path, 64 << 20, format).unwrap();
        let disk = open(&path, &OpenOptions::default()).unwrap();
        let before = disk.allocated_bytes();
        disk.write_at(0, &pattern(1, 1 << 20)).unwrap();
        disk.flush().unwrap();
        let after = disk.allocated_bytes();
        assert!(after >= before + (1 << 20), "{before} then {after}");
        assert!(after < 64 << 20, "the image is sparse: {after}");
    }
}

fn base() -> Arc<dyn Disk> {
    struct Base;
    impl Disk for Base {
        fn len_bytes(&self) -> u64 {
            LEN
        }
        fn is_read_only(&self) -> bool {
            true
        }
        fn read_at(&self, _: u64, buf: &mut [u8]) -> Result<(), DiskError> {
            buf.fill(7);
            Ok(())
        }
        fn write_at(&self, _: u64, _: &[u8]) -> Result<(), DiskError> {
            Err(DiskError::ReadOnly)
        }
        fn flush(&self) -> Result<(), DiskError> {
            Ok(())
        }
        fn discard(&self, _: u64, _: u64) -> Result<(), DiskError> {
            Err(DiskError::ReadOnly)
        }
        fn write_zeroes(&self, _: u64, _: u64, _: bool) -> Result<(), DiskError> {
            Err(DiskError::ReadOnly)
        }
    }
    Arc::new(Base)
}

#[test]
fn an_overlay_is_made_once_and_opened_again() {
    let dir = dir();
    let path = image(&dir, "overlay");
    for (round, cache) in [
        CacheMode::Writeback,
        CacheMode::None,
        CacheMode::Writethrough,
    ]
    .into_iter()
    .enumerate()
    {
        let disk = open_or_create_overlay(base(), &path, None, cache).unwrap();
        assert_eq!(disk.len_bytes(), LEN);
        let at = round as u64 * 65_536;
        assert_eq!(read(&*disk, at, 4), [7; 4]);
        disk.write_at(at, b"kept").unwrap();
        for earlier in 0..=round as u64 {
            assert_eq!(read(&*disk, earlier * 65_536, 4), b"kept");
        }
        let again = open_or_create_overlay(base(), &path, None, cache);
        assert!(matches!(again, Err(OpenError::InUse { .. })));
    }
}

#[test]
fn an_overlay_whose_making_was_cut_short_is_made_anew() {
    let dir = dir();
    for (name, rest) in [("empty", &[][..]), ("zeroes", &[0; 70_000])] {
        let path = image(&dir, name);
        fs::write(&path, rest).unwrap();
        assert!(open_overlay(base(), &path, CacheMode::Writeback).is_err());
        let disk = open_or_create_overlay(base(), &path, None, CacheMode::Writeback).unwrap();
        assert_eq!(read(&*disk, 0, 1), [7]);
    }
    let path = image(&dir, "other");
    fs::write(&path, b"somebody's notes").unwrap();
    assert!(open_or_create_overlay(base(), &path, None, CacheMode::Writeback).is_err());
    assert_eq!(fs::read(&path).unwrap(), b"somebody's notes");
}

#[test]
fn a_file_that_refuses_direct_access_says_so() {
    // A file system in memory has no way past the page cache.
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else {
        println!("skipped: there is no /dev/shm");
        return;
    };
    let path = image(&dir, "disk");
    create_empty(&path, LEN, Format::Raw).unwrap();
    let options = OpenOptions {
        cache: CacheMode::None,
        ..OpenOptions::default()
    };
    let disk = open(&path, &options).unwrap();
    match disk.note() {
        Some(note) => assert!(note.contains("direct"), "{note}"),
        // Newer kernels can do it after all.
        None => println!("skipped: this kernel does direct I/O in memory"),
    }
    grows(&*disk, 2 * LEN);
    assert_eq!(
        open(&path, &OpenOptions::default())
            .map(|d| d.note())
            .unwrap(),
        None
    );
}
