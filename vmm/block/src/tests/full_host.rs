//! A host file system without room left.
//!
//! The test runs itself again in a mount namespace of its own, where it may mount a tiny tmpfs.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::{new_qcow2, pattern, peer, read};
use crate::{CreateError, DiskError, Format, OpenOptions, create_empty, open};

/// Names the directory of the tiny file system to the inner run.
const PLACE: &str = "BLOCK_TEST_TINY_FILE_SYSTEM";

#[test]
fn a_full_host_is_an_error_of_the_write_and_nothing_is_lost() {
    if let Some(place) = std::env::var_os(PLACE) {
        return fill(Path::new(&place));
    }
    let place = TempDir::new().unwrap();
    let script = format!(
        "mount -t tmpfs -o size=2m tiny {PLACE_VAR} || exit 77; \
         exec \"$0\" --exact {TEST} --nocapture",
        PLACE_VAR = format_args!("\"${PLACE}\""),
        TEST = "tests::full_host::a_full_host_is_an_error_of_the_write_and_nothing_is_lost",
    );
    let inner = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .env(PLACE, place.path())
        .output();
    match inner {
        Err(error) => println!("skipped: unshare cannot be run: {error}"),
        Ok(output) => {
            let text = format!("{output:?}");
            if text.contains("running 1 test") {
                assert!(output.status.success(), "{text}");
            } else {
                let reason = String::from_utf8_lossy(&output.stderr).into_owned();
                println!("skipped: no tiny file system can be mounted: {reason}");
            }
        }
    }
}

fn fill(place: &Path) {
    let path = place.join("disk.qcow2");
    let disk = new_qcow2(&path, 64 << 20, 16, 4);
    let chunk = |i: u64| pattern(i, 100_000);
    let mut written = 0;
    let error = loop {
        match disk.write_at(written * 100_000, &chunk(written)) {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, DiskError::NoSpace { .. }), "{error}");
    assert!(error.to_string().contains("disk.qcow2"));
    assert!(written > 10, "{written}");
    for i in 0..written {
        assert_eq!(read(&*disk, i * 100_000, 100_000), chunk(i));
    }
    // Room that the guest gives back can be used again.
    disk.discard(0, 500_000).unwrap();
    disk.flush().unwrap();
    disk.write_at(10 << 20, &chunk(7)).unwrap();
    disk.flush().unwrap();
    drop(disk);
    peer::check_if_present(&path);
    let disk = open(&path, &OpenOptions::default()).unwrap();
    assert_eq!(read(&*disk, 10 << 20, 100_000), chunk(7));
    drop(disk);
    raw_and_creation(place);
}

fn raw_and_creation(place: &Path) {
    let raw = place.join("disk.raw");
    create_empty(&raw, 8 << 20, Format::Raw).unwrap();
    let disk = open(&raw, &OpenOptions::default()).unwrap();
    let error = disk.write_at(0, &pattern(1, 4 << 20)).unwrap_err();
    assert!(matches!(error, DiskError::NoSpace { .. }), "{error}");
    let error = create_empty(&place.join("new.qcow2"), 1 << 30, Format::Qcow2).unwrap_err();
    assert!(matches!(error, CreateError::Write { .. }), "{error}");
    assert!(!place.join("new.qcow2").exists());
}
