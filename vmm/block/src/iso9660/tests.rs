use std::path::Path;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use super::{IsoBuilder, IsoError};

fn long_name() -> String {
    "configuration-key-".repeat(15)[..253].to_owned()
}

fn sample() -> IsoBuilder {
    let mut iso = IsoBuilder::new("cidata").unwrap();
    iso.modified(UNIX_EPOCH + Duration::from_secs(1_700_000_000));
    iso.file("user-data", "#cloud-config\n").unwrap();
    iso.file("meta-data", "instance-id: x\n").unwrap();
    iso.file("openstack/latest/meta_data.json", "{}").unwrap();
    iso.file("big.bin", vec![7; 5000]).unwrap();
    iso.file("empty", "").unwrap();
    iso.directory("nothing/here").unwrap();
    iso.file(&long_name(), "long").unwrap();
    iso.file("Grüße.txt", "ä").unwrap();
    for i in 0..100 {
        iso.file(
            &format!("many/a-rather-long-file-name-{i:03}.yaml"),
            format!("{i}"),
        )
        .unwrap();
    }
    iso
}

/// Runs a program on the volume; none, after saying so, if it is not installed.
fn output(program: &str, args: &[&str], iso: &Path) -> Option<String> {
    match Command::new(program)
        .args(args)
        .arg(iso)
        .env("LC_ALL", "C.UTF-8")
        .output()
    {
        Ok(output) => {
            assert!(output.status.success(), "{output:?}");
            Some(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        Err(error) => {
            println!("skipped: {program} cannot be run: {error}");
            None
        }
    }
}

fn written() -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seed.iso");
    sample().write_to(&path).unwrap();
    (dir, path)
}

#[test]
fn label_and_size_are_in_the_primary_descriptor() {
    let bytes = sample().to_bytes().unwrap();
    let primary = &bytes[16 * 2048..17 * 2048];
    assert_eq!(&primary[..6], b"\x01CD001");
    assert_eq!(&primary[40..72], b"cidata                          ");
    let blocks = u32::from_le_bytes(primary[80..84].try_into().unwrap());
    assert_eq!(u64::from(blocks) * 2048, bytes.len() as u64);
    assert_eq!(primary[881], 1);
    assert_eq!(&bytes[17 * 2048 + 88..][..3], b"%/E");
    assert_eq!(&bytes[17 * 2048 + 40..][..4], b"\0c\0i");
}

#[test]
fn equal_content_makes_equal_volumes() {
    assert!(sample().to_bytes().unwrap() == sample().to_bytes().unwrap());
}

#[test]
fn isoinfo_lists_rock_ridge_and_joliet_names() {
    let (_dir, path) = written();
    let Some(rock) = output("isoinfo", &["-R", "-f", "-i"], &path) else {
        return;
    };
    for name in [
        "/user-data",
        "/openstack/latest/meta_data.json",
        "/nothing/here",
        "/empty",
    ] {
        assert!(rock.lines().any(|line| line == name), "{name} in {rock}");
    }
    assert!(rock.contains(&format!("/{}\n", long_name())));
    assert!(rock.contains("/many/a-rather-long-file-name-099.yaml"));
    let joliet = output("isoinfo", &["-J", "-f", "-i"], &path).unwrap();
    assert!(
        joliet.contains("/many/a-rather-long-file-name-042.yaml"),
        "{joliet}"
    );
    assert!(joliet.contains("/meta-data\n"));
    let primary = output("isoinfo", &["-d", "-i"], &path).unwrap();
    assert!(primary.contains("Volume id: cidata"), "{primary}");
    assert!(
        primary.contains("Rock Ridge") && primary.contains("Joliet"),
        "{primary}"
    );
}

#[test]
fn bsdtar_extracts_what_was_put_in() {
    let (dir, path) = written();
    let target = dir.path().join("out");
    std::fs::create_dir(&target).unwrap();
    let args = ["-C", target.to_str().unwrap(), "-xf"];
    if output("bsdtar", &args, &path).is_none() {
        return;
    }
    let read = |name: &str| std::fs::read(target.join(name)).unwrap();
    assert_eq!(read("user-data"), b"#cloud-config\n");
    assert_eq!(read("big.bin"), [7; 5000]);
    assert_eq!(read(&long_name()), b"long");
    assert_eq!(read("empty"), b"");
    assert_eq!(read("Grüße.txt"), "ä".as_bytes());
    assert_eq!(read("many/a-rather-long-file-name-077.yaml"), b"77");
    assert!(target.join("nothing/here").is_dir());
    let modified = std::fs::metadata(target.join("user-data"))
        .unwrap()
        .modified()
        .unwrap();
    assert_eq!(modified, UNIX_EPOCH + Duration::from_secs(1_700_000_000));
}

#[test]
fn xorriso_accepts_the_volume() {
    let (_dir, path) = written();
    let _listing = output("xorriso", &["-abort_on", "WARNING", "-indev"], &path);
}

#[test]
fn a_volume_without_files_is_a_volume() {
    let bytes = IsoBuilder::new("config-2").unwrap().to_bytes().unwrap();
    assert!(bytes.len() > 18 * 2048);
}

#[test]
fn bad_labels_and_paths_are_refused_by_name() {
    for label in ["", "much too long for a volume label!", "tab\t", "ü"] {
        assert!(
            matches!(IsoBuilder::new(label), Err(IsoError::Label { .. })),
            "{label}"
        );
    }
    let mut iso = IsoBuilder::new("x").unwrap();
    iso.file("a/b", "").unwrap();
    let long = "x".repeat(256);
    for path in [
        "",
        "/a",
        "../a",
        "a//b",
        "a/./b",
        "a/b/c",
        "a",
        "1/2/3/4/5/6/7/8/9",
        "a\0",
        &long,
    ] {
        assert!(
            matches!(iso.file(path, ""), Err(IsoError::Path { .. })),
            "{path}"
        );
    }
    iso.file("a/b", "replaced").unwrap();
}

#[test]
fn no_partial_file_is_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing/seed.iso");
    assert!(matches!(
        sample().write_to(&missing),
        Err(IsoError::Write { .. })
    ));
    std::fs::create_dir(dir.path().join("taken.iso")).unwrap();
    assert!(sample().write_to(&dir.path().join("taken.iso")).is_err());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}
