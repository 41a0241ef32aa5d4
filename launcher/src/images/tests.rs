use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{ImageError, ImageStore};

/// Builds image folders.
struct Fixture {
    dir: tempfile::TempDir,
}

type Files<'a> = &'a [(&'a str, &'a [u8])];

impl Fixture {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn store(&self) -> ImageStore {
        ImageStore::new(Some(self.images()), self.dir.path().join("cache"))
    }

    fn images(&self) -> PathBuf {
        let images = self.dir.path().join("images");
        fs::create_dir_all(&images).unwrap();
        images
    }

    /// An OCI layout with the given layers and name annotation.
    fn layout(&self, place: &str, name: Option<&str>, layers: &[Vec<u8>]) -> PathBuf {
        let root = self.images().join(place);
        fs::create_dir_all(root.join("blobs/sha256")).unwrap();
        let put = |bytes: &[u8]| {
            let digest = sha256(bytes);
            fs::write(root.join("blobs/sha256").join(&digest), bytes).unwrap();
            serde_json::json!({"mediaType": "application/x", "digest": format!("sha256:{digest}"), "size": bytes.len()})
        };
        let layers: Vec<_> = layers.iter().map(|layer| put(layer)).collect();
        let manifest = serde_json::json!({"schemaVersion": 2, "layers": layers});
        let mut descriptor = put(manifest.to_string().as_bytes());
        if let Some(name) = name {
            descriptor["annotations"] =
                serde_json::json!({"org.opencontainers.image.ref.name": name});
        }
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [descriptor]});
        fs::write(root.join("index.json"), index.to_string()).unwrap();
        fs::write(root.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        root
    }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn layer(files: Files<'_>) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o600);
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, path, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

fn read(path: Result<PathBuf, ImageError>) -> Vec<u8> {
    fs::read(path.unwrap()).unwrap()
}

fn message(path: Result<PathBuf, ImageError>) -> String {
    path.unwrap_err().to_string()
}

#[test]
fn a_disk_is_found_by_full_name_tag_and_folder() {
    let fixture = Fixture::new();
    fixture.layout(
        "x",
        Some("registry.example/a/one:1"),
        &[layer(&[("disk/d", b"one")])],
    );
    fixture.layout("team/two", Some("v2"), &[layer(&[("disk/d", b"two")])]);
    fixture.layout("three", None, &[layer(&[("./disk/d", b"three")])]);
    let store = fixture.store();
    assert_eq!(read(store.only_disk("registry.example/a/one:1")), b"one");
    assert_eq!(
        read(store.only_disk("registry.example/team/two:v2")),
        b"two"
    );
    assert_eq!(read(store.only_disk("kubevirt/three")), b"three");
    assert!(message(store.only_disk("registry.example/a/one:2")).contains("is not in"));
    assert!(message(store.only_disk("team/two:v3")).contains("is not in"));
}

#[test]
fn packed_layers_are_unpacked_and_cached_read_only() {
    let fixture = Fixture::new();
    let content = layer(&[("disk/d", &[7; 200_000])]);
    fixture.layout("g", Some("g:latest"), &[gzip(&content)]);
    fixture.layout("z", Some("z:latest"), &[zstd(&content)]);
    let store = fixture.store();
    for name in ["g", "z"] {
        let path = store.only_disk(name).unwrap();
        assert_eq!(fs::read(&path).unwrap(), [7; 200_000]);
        assert!(fs::metadata(&path).unwrap().permissions().readonly());
        assert_eq!(store.only_disk(name).unwrap(), path);
    }
}

#[test]
fn zeroes_become_holes_and_the_size_stays() {
    let fixture = Fixture::new();
    let mut content = vec![0; 1 << 20];
    content[0] = 1;
    fixture.layout("h", None, &[layer(&[("disk/d", &content)])]);
    let path = fixture.store().only_disk("h").unwrap();
    assert_eq!(fs::read(&path).unwrap(), content);
    let blocks = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(&path).unwrap());
    assert!(blocks * 512 < 1 << 20, "{blocks} blocks");
}

#[test]
fn upper_layers_replace_and_hide() {
    let fixture = Fixture::new();
    let lower = layer(&[
        ("disk/old", b"old"),
        ("disk/new", b"below"),
        ("boot/a", b"a"),
        ("etc/x", b"x"),
    ]);
    let upper = layer(&[
        ("disk/.wh.old", b""),
        ("disk/new", b"above"),
        ("boot/.wh..wh..opq", b""),
        ("boot/b", b"b"),
        (".wh.etc", b""),
    ]);
    fixture.layout("i", None, &[lower, upper]);
    let store = fixture.store();
    assert_eq!(read(store.only_disk("i")), b"above");
    assert_eq!(read(store.file("i", "/boot/b")), b"b");
    for gone in ["/boot/a", "/etc/x", "/disk/old"] {
        assert!(message(store.file("i", gone)).contains(&format!("has no file {gone}")));
    }
}

#[test]
fn links_lead_to_files_and_never_out() {
    let fixture = Fixture::new();
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(1);
    builder
        .append_data(&mut header, "boot/k-6", &b"k"[..])
        .unwrap();
    header.set_size(0);
    header.set_entry_type(tar::EntryType::Symlink);
    builder
        .append_link(&mut header, "boot/k", "/boot/k-6")
        .unwrap();
    builder
        .append_link(&mut header, "out", "/etc/hostname")
        .unwrap();
    header.set_entry_type(tar::EntryType::Link);
    builder
        .append_link(&mut header, "hard", "boot/k-6")
        .unwrap();
    fixture.layout("l", None, &[builder.into_inner().unwrap()]);
    let store = fixture.store();
    assert_eq!(read(store.file("l", "/boot/k")), b"k");
    assert_eq!(read(store.file("l", "/hard")), b"k");
    assert!(store.file("l", "/out").is_err());
}

#[test]
fn none_or_several_disks_are_an_error_that_names_the_cure() {
    let fixture = Fixture::new();
    fixture.layout("none", None, &[layer(&[("other/d", b"x")])]);
    fixture.layout("two", None, &[layer(&[("disk/a", b"x"), ("disk/b", b"y")])]);
    let store = fixture.store();
    assert!(message(store.only_disk("none")).contains("has nothing below /disk"));
    let two = message(store.only_disk("two"));
    assert!(
        two.contains("/disk/a, /disk/b") && two.contains("containerDisk.path"),
        "{two}"
    );
    assert_eq!(read(store.file("two", "/disk/b")), b"y");
}

#[test]
fn altered_and_truncated_layers_are_refused_and_leave_nothing_behind() {
    let fixture = Fixture::new();
    let content = layer(&[("disk/d", &[7; 5000])]);
    let root = fixture.layout("i", None, std::slice::from_ref(&content));
    let blob = root.join("blobs/sha256").join(sha256(&content));
    for damage in [&content[..3000], b"", &[1; 10_000]] {
        fs::write(&blob, damage).unwrap();
        let error = message(fixture.store().only_disk("i"));
        assert!(
            error.contains("damaged or incomplete") && error.contains("copy the image again"),
            "{error}"
        );
    }
    fs::remove_file(&blob).unwrap();
    assert!(message(fixture.store().only_disk("i")).starts_with("read "));
    assert!(!fixture.dir.path().join("cache").exists());
}

#[test]
fn damaged_manifests_are_one_clear_line() {
    let fixture = Fixture::new();
    let root = fixture.layout("i", None, &[layer(&[("disk/d", b"x")])]);
    for index in [
        "{",
        r#"{"manifests":[{"digest":"sha256:../../etc/passwd"}]}"#,
        r#"{"manifests":[{"digest":"md5:00"}]}"#,
        r#"{"manifests":[{}]}"#,
    ] {
        fs::write(root.join("index.json"), index).unwrap();
        let error = message(fixture.store().only_disk("i"));
        assert!(
            error.contains("index.json") || error.contains("SHA-256"),
            "{error}"
        );
        assert!(!error.contains('\n'));
    }
}

fn archive_of(root: &Path) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_dir_all(".", root).unwrap();
    builder.into_inner().unwrap()
}

#[test]
fn oci_archives_are_read_in_place() {
    let fixture = Fixture::new();
    let root = fixture.layout(
        "tmp",
        Some("registry.example/a/disk:1"),
        &[gzip(&layer(&[("disk/d", b"tar")]))],
    );
    fs::write(fixture.images().join("some.tar"), archive_of(&root)).unwrap();
    fs::remove_dir_all(root).unwrap();
    assert_eq!(
        read(fixture.store().only_disk("registry.example/a/disk:1")),
        b"tar"
    );
}

#[test]
fn docker_archives_are_read_and_checked_by_their_configuration() {
    let fixture = Fixture::new();
    let content = layer(&[("disk/d", b"docker")]);
    let config = |diff_id: &str| {
        serde_json::json!({"rootfs": {"type": "layers", "diff_ids": [format!("sha256:{diff_id}")]}})
            .to_string()
    };
    let manifest = r#"[{"Config":"c.json","RepoTags":["disk:7"],"Layers":["l/layer.tar"]}]"#;
    let write = |diff_id: &str| {
        let files = [
            ("c.json", config(diff_id).into_bytes()),
            ("l/layer.tar", content.clone()),
            ("manifest.json", manifest.as_bytes().to_vec()),
        ];
        let files: Vec<(&str, &[u8])> = files.iter().map(|(n, b)| (*n, b.as_slice())).collect();
        fs::write(fixture.images().join("d.tar"), layer(&files)).unwrap();
    };
    write(&sha256(&content));
    assert_eq!(read(fixture.store().only_disk("disk:7")), b"docker");
    write(&sha256(b"other"));
    assert!(message(fixture.store().only_disk("disk:7")).contains("damaged"));
}

#[test]
fn a_truncated_archive_is_named() {
    let fixture = Fixture::new();
    let root = fixture.layout("tmp", Some("a:1"), &[layer(&[("disk/d", &[1; 9000])])]);
    let archive = archive_of(&root);
    fs::remove_dir_all(root).unwrap();
    fs::write(
        fixture.images().join("cut.tar"),
        &archive[..archive.len() - 6000],
    )
    .unwrap();
    let error = message(fixture.store().only_disk("a:1"));
    assert!(
        error.contains("cut.tar is damaged or incomplete"),
        "{error}"
    );
}

#[test]
fn a_plain_folder_serves_as_an_image() {
    let fixture = Fixture::new();
    let root = fixture.images().join("team/disk");
    fs::create_dir_all(root.join("disk")).unwrap();
    fs::create_dir_all(root.join("boot")).unwrap();
    fs::write(root.join("disk/d.qcow2"), b"plain").unwrap();
    fs::write(root.join("boot/k"), b"kernel").unwrap();
    std::os::unix::fs::symlink("/boot/k", root.join("vmlinuz")).unwrap();
    let store = fixture.store();
    assert_eq!(
        read(store.only_disk("registry.example/team/disk")),
        b"plain"
    );
    assert_eq!(read(store.file("team/disk", "/vmlinuz")), b"kernel");
    assert!(store.file("team/disk", "/../disk").is_err());
    assert!(store.file("team/disk", "/etc/passwd").is_err());
}

#[test]
fn no_image_folder_and_a_bad_name_are_one_clear_line() {
    let store = ImageStore::new(None, PathBuf::from("/nonexistent"));
    assert!(message(store.only_disk("a")).contains("--image-dir"));
    assert!(message(store.only_disk("a b")).contains("is no image name"));
    let store = ImageStore::new(
        Some(PathBuf::from("/nonexistent")),
        PathBuf::from("/nonexistent"),
    );
    assert_eq!(message(store.only_disk("a")), "read /nonexistent");
}
