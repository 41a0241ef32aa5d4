//! Images that are broken, hostile or not allowed what they ask for.

use std::os::unix::fs::FileExt;
use std::path::Path;

use tempfile::TempDir;

use super::{dir, following, image, new_qcow2, pattern, read};
use crate::{
    CreateError, Disk, DiskError, Format, OpenError, OpenOptions, create_empty, open, overlay,
};

const LEN: u64 = 8 << 20;

fn patch(path: &Path, offset: u64, bytes: &[u8]) {
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, offset).unwrap();
}

/// Names a backing file in an image without one, with its format if there is one to record.
fn set_backing(path: &Path, name: &str, format: Option<&str>) {
    let mut extensions = Vec::new();
    if let Some(format) = format {
        extensions.extend(0xe279_2acau32.to_be_bytes());
        extensions.extend((format.len() as u32).to_be_bytes());
        extensions.extend(format.as_bytes());
        extensions.resize(extensions.len().next_multiple_of(8), 0);
    }
    extensions.extend([0; 8]);
    patch(path, 112, &extensions);
    patch(path, 8, &1024u64.to_be_bytes());
    patch(path, 16, &(name.len() as u32).to_be_bytes());
    patch(path, 1024, name.as_bytes());
}

fn qcow2(dir: &TempDir, name: &str) -> std::path::PathBuf {
    let path = image(dir, name);
    create_empty(&path, LEN, Format::Qcow2).unwrap();
    path
}

/// Asserts that an image with `bytes` at `offset` is refused in one line with all the `words`.
fn refused(offset: u64, bytes: &[u8], words: &[&str]) {
    let dir = dir();
    let path = qcow2(&dir, "broken.qcow2");
    patch(&path, offset, bytes);
    let error = open(&path, &following()).unwrap_err().to_string();
    for word in words.iter().chain(&["broken.qcow2"]) {
        assert!(error.contains(word), "{word:?} in {error:?}");
    }
    assert!(!error.contains('\n'));
}

#[test]
fn headers_that_cannot_be_are_refused_by_field() {
    let options = OpenOptions {
        format: Some(Format::Qcow2),
        ..OpenOptions::default()
    };
    let dir = dir();
    let raw = image(&dir, "raw");
    create_empty(&raw, LEN, Format::Raw).unwrap();
    assert!(
        open(&raw, &options)
            .unwrap_err()
            .to_string()
            .contains("magic")
    );
    refused(4, &9u32.to_be_bytes(), &["version", "9"]);
    refused(20, &8u32.to_be_bytes(), &["cluster_bits", "8"]);
    refused(20, &22u32.to_be_bytes(), &["cluster_bits", "22"]);
    refused(32, &1u32.to_be_bytes(), &["encryption"]);
    refused(36, &u32::MAX.to_be_bytes(), &["l1_size"]);
    refused(36, &0u32.to_be_bytes(), &["l1_size", "too small"]);
    refused(24, &u64::MAX.to_be_bytes(), &["size"]);
    refused(24, &(1u64 << 62).to_be_bytes(), &["l1_size", "too small"]);
    refused(
        40,
        &(1u64 << 40).to_be_bytes(),
        &["l1_table_offset", "leaves the file"],
    );
    refused(40, &u64::MAX.to_be_bytes(), &["l1_table_offset"]);
    refused(
        40,
        &7u64.to_be_bytes(),
        &["l1_table_offset", "start of a cluster"],
    );
    refused(
        48,
        &(1u64 << 50).to_be_bytes(),
        &["refcount_table_offset", "leaves the file"],
    );
    refused(56, &u32::MAX.to_be_bytes(), &["refcount_table_clusters"]);
    refused(
        56,
        &0u32.to_be_bytes(),
        &["refcount_table_clusters", "zero"],
    );
    refused(96, &7u32.to_be_bytes(), &["refcount_order", "7"]);
    refused(100, &50u32.to_be_bytes(), &["header_length"]);
    refused(
        72,
        &1u64.to_be_bytes(),
        &["incompatible_features", "dirty", "qemu-img check"],
    );
    refused(
        72,
        &2u64.to_be_bytes(),
        &["incompatible_features", "corrupt", "qemu-img check"],
    );
    refused(72, &4u64.to_be_bytes(), &["external data file"]);
    refused(72, &16u64.to_be_bytes(), &["extended L2"]);
    refused(
        72,
        &(1u64 << 40).to_be_bytes(),
        &["incompatible feature bit 40"],
    );
    refused(
        8,
        &[0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 255, 0],
        &["backing_file_size"],
    );
}

#[test]
fn a_truncated_image_is_refused_and_names_what_is_missing() {
    let dir = dir();
    let path = qcow2(&dir, "short.qcow2");
    for (len, field) in [
        (50, "refcount_table"),
        (90, "autoclear"),
        (70_000, "l1_table"),
    ] {
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(len).unwrap();
        let error = open(&path, &OpenOptions::default())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(field) && error.contains("short.qcow2"),
            "{error}"
        );
        std::fs::remove_file(&path).unwrap();
        create_empty(&path, LEN, Format::Qcow2).unwrap();
    }
}

#[test]
fn data_that_is_cut_off_is_an_error_of_the_read() {
    let dir = dir();
    let path = image(&dir, "cut.qcow2");
    let disk = new_qcow2(&path, LEN, 16, 4);
    disk.write_at(0, &pattern(1, 1 << 20)).unwrap();
    drop(disk);
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(file.metadata().unwrap().len() - (1 << 19))
        .unwrap();
    let disk = open(&path, &OpenOptions::default()).unwrap();
    let error = disk
        .read_at(0, &mut vec![0; 1 << 20])
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("cut.qcow2") && error.contains("beyond the end"),
        "{error}"
    );
    disk.read_at(0, &mut [0; 65_536]).unwrap();
}

#[test]
fn a_backing_file_is_followed_only_when_allowed() {
    let dir = dir();
    let secret = image(&dir, "secret");
    std::fs::write(&secret, pattern(9, 4096)).unwrap();
    let path = qcow2(&dir, "guest.img");
    set_backing(&path, "secret", Some("raw"));
    let error = open(&path, &OpenOptions::default()).unwrap_err();
    assert!(matches!(error, OpenError::BackingNotFollowed { .. }));
    assert!(error.to_string().contains("\"secret\"") && error.to_string().contains("qemu-img"));
    let declared = OpenOptions {
        format: Some(Format::Raw),
        ..following()
    };
    let raw = open(&path, &declared).unwrap();
    assert_eq!(read(&*raw, 0, 4), b"QFI\xfb");
    drop(raw);
    let disk = open(&path, &following()).unwrap();
    assert_eq!(read(&*disk, 0, 4096), pattern(9, 4096));
    assert_eq!(read(&*disk, 4096, 512), [0; 512]);
}

#[test]
fn a_backing_file_of_unrecorded_format_may_not_name_another() {
    let dir = dir();
    let [top, middle] = ["top", "middle"].map(|name| qcow2(&dir, name));
    create_empty(&image(&dir, "base"), LEN, Format::Raw).unwrap();
    set_backing(&top, "middle", None);
    open(&top, &following()).unwrap();
    set_backing(&middle, "base", Some("raw"));
    let error = open(&top, &following()).unwrap_err();
    assert!(
        matches!(error, OpenError::BackingNotFollowed { .. }),
        "{error}"
    );
    set_backing(&top, "middle", Some("qcow2"));
    open(&top, &following()).unwrap();
}

#[test]
fn chains_that_loop_or_never_end_are_refused() {
    let dir = dir();
    let [a, b] = ["a", "b"].map(|name| qcow2(&dir, name));
    set_backing(&a, "b", Some("qcow2"));
    set_backing(&b, "./a", Some("qcow2"));
    let error = open(&a, &following()).unwrap_err();
    assert!(matches!(error, OpenError::BackingLoop { .. }), "{error}");
    set_backing(&a, "a", Some("qcow2"));
    let error = open(&a, &following()).unwrap_err();
    assert!(matches!(error, OpenError::BackingLoop { .. }), "{error}");
    for layer in 0..64 {
        let path = qcow2(&dir, &format!("layer{layer}"));
        set_backing(&path, &format!("layer{}", layer + 1), Some("qcow2"));
    }
    qcow2(&dir, "layer64");
    let error = open(&image(&dir, "layer0"), &following()).unwrap_err();
    assert!(matches!(error, OpenError::ChainTooLong { .. }), "{error}");
    open(&image(&dir, "layer1"), &following()).unwrap();
}

#[test]
fn backing_files_on_the_network_are_refused_by_name() {
    let dir = dir();
    let path = qcow2(&dir, "top");
    for name in ["nbd://host/disk", "json:{}"] {
        set_backing(&path, name, Some("raw"));
        let error = open(&path, &following()).unwrap_err().to_string();
        assert!(
            error.contains("protocol") && error.contains(name),
            "{error}"
        );
    }
}

#[test]
fn what_is_no_disk_is_refused() {
    let dir = dir();
    for path in [dir.path(), Path::new("/dev/null")] {
        let options = OpenOptions {
            read_only: true,
            ..OpenOptions::default()
        };
        let error = open(path, &options).unwrap_err();
        assert!(matches!(error, OpenError::NotADisk { .. }), "{error}");
    }
    let missing = open(&image(&dir, "missing"), &OpenOptions::default()).unwrap_err();
    assert!(missing.to_string().contains("missing"));
}

#[test]
fn creating_leaves_existing_files_alone_and_no_partial_ones() {
    let dir = dir();
    let path = image(&dir, "precious");
    std::fs::write(&path, "content").unwrap();
    for format in [Format::Raw, Format::Qcow2] {
        let error = create_empty(&path, LEN, format).unwrap_err();
        assert!(matches!(error, CreateError::Exists { .. }));
        for len_bytes in [0, u64::MAX, (1 << 63) - 512] {
            let error = create_empty(&image(&dir, "new"), len_bytes, format).unwrap_err();
            assert!(matches!(error, CreateError::Size { .. }), "{error}");
        }
    }
    assert_eq!(std::fs::read(&path).unwrap(), b"content");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    create_empty(&image(&dir, "odd"), 1000, Format::Qcow2).unwrap();
    assert_eq!(
        open(&image(&dir, "odd"), &OpenOptions::default())
            .unwrap()
            .len_bytes(),
        1024
    );
}

#[test]
fn an_overlay_does_not_replace_a_file() {
    let dir = dir();
    let path = qcow2(&dir, "base");
    let options = OpenOptions {
        read_only: true,
        ..OpenOptions::default()
    };
    let base = open(&path, &options).unwrap();
    let error = overlay(base, &path, None).unwrap_err();
    assert!(
        matches!(error, OpenError::Create(CreateError::Exists { .. })),
        "{error}"
    );
}

/// Overwrites tables with random bytes: every answer will do, but there must be one.
#[test]
fn garbage_in_tables_is_an_error_not_a_panic() {
    let dir = dir();
    for seed in 0..60 {
        let path = image(&dir, &format!("{seed}.qcow2"));
        let disk = new_qcow2(
            &path,
            LEN,
            if seed % 2 == 0 { 9 } else { 16 },
            seed as u32 % 7,
        );
        disk.write_at(1 << 20, &pattern(seed, 1 << 20)).unwrap();
        drop(disk);
        let len = std::fs::metadata(&path).unwrap().len();
        let at = pattern(seed + 1000, 64);
        for place in at.chunks(8) {
            let offset = u64::from_le_bytes(place.try_into().unwrap()) % (len.min(400_000) / 8) * 8;
            // Half of them look like entries that point into the file.
            let entry = if place[0] % 2 == 0 {
                pattern(offset, 8)
            } else {
                ((u64::from(place[1] & 0xc0) << 56) | (u64::from(place[2]) << 9))
                    .to_be_bytes()
                    .to_vec()
            };
            patch(&path, offset.max(112), &entry);
        }
        if let Ok(disk) = open(&path, &following()) {
            exercise(&*disk);
        }
        std::fs::remove_file(&path).unwrap();
    }
}

fn exercise(disk: &dyn Disk) {
    let mut failures = 0;
    let mut note = |result: Result<(), DiskError>| failures += usize::from(result.is_err());
    let len = disk.len_bytes().min(LEN);
    for offset in (0..len).step_by(100_000) {
        let size = (len - offset).min(70_000);
        note(disk.read_at(offset, &mut vec![0; size as usize]));
        note(disk.write_at(offset, &pattern(offset, size as usize / 3)));
        note(disk.write_zeroes(offset, size / 2, true));
        note(disk.discard(offset, size));
    }
    note(disk.flush());
    println!("{failures} requests failed");
}
