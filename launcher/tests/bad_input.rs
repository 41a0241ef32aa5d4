//! Bad input to the command: one clear line that names the field or file, exit status 1, nothing left.

#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "an integration test is a test module as a whole"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A folder with images, objects and a place for the machine's files.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        // A plain folder is an image too.
        bench.put("images/boot/vmlinuz", b"this is no kernel");
        bench.put("images/boot/initrd", b"");
        bench.put("images/small/disk/d.raw", &[0; 4096]);
        fs::create_dir_all(bench.path("state")).unwrap();
        bench
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn put(&self, path: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Runs a manifest and returns its one error line.
    #[track_caller]
    fn error(&self, manifest: &str) -> String {
        let manifest = self.put("vmi.yaml", manifest.as_bytes());
        let output = Command::new(env!("CARGO_BIN_EXE_virt-launcher"))
            .arg("--standalone")
            .arg(manifest)
            .args(["--accel", "soft", "--log", "off"])
            .arg("--image-dir")
            .arg(self.path("images"))
            .arg("--volume-dir")
            .arg(self.path("objects"))
            .arg("--state-dir")
            .arg(self.path("state"))
            .arg("--cache-dir")
            .arg(self.path("cache"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(output.stdout.is_empty());
        assert_eq!(
            files_below(&self.path("state")),
            Vec::<PathBuf>::new(),
            "{stderr}"
        );
        assert_eq!(
            files_below(&self.path("cache")),
            Vec::<PathBuf>::new(),
            "{stderr}"
        );
        stderr.trim().to_owned()
    }

    #[track_caller]
    fn check(&self, manifest: &str, parts: &[&str]) {
        let error = self.error(manifest);
        for part in parts {
            assert!(error.contains(part), "{part:?} is not in {error:?}");
        }
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files
}

/// An instance that boots a kernel from the image `boot`, with one part replaced.
fn manifest(cpu: &str, memory: &str, disks: &str, volumes: &str) -> String {
    format!(
        "apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata: {{name: m}}
spec:
  domain:
    cpu: {cpu}
    memory: {memory}
    firmware:
      kernelBoot:
        container: {{image: boot, kernelPath: /vmlinuz, initrdPath: /initrd}}
    devices:
      disks: {disks}
  volumes: {volumes}
"
    )
}

fn with_volume(volume: &str) -> String {
    manifest(
        "{cores: 1}",
        "{guest: 64Mi}",
        "[{name: d, disk: {bus: virtio}}]",
        volume,
    )
}

#[test]
fn an_unknown_kind_is_named() {
    let manifest = "apiVersion: kubevirt.io/v1\nkind: VirtualBoxInstance\n";
    Bench::new().check(
        manifest,
        &[
            "kind: no matches for kind \"VirtualBoxInstance\"",
            "use VirtualMachineInstance",
        ],
    );
}

#[test]
fn text_that_is_no_yaml_is_named() {
    Bench::new().check("a: [", &["vmi.yaml: the manifest is not valid YAML"]);
}

#[test]
fn a_disk_without_a_volume_and_a_volume_without_a_disk_are_named() {
    let bench = Bench::new();
    bench.check(
        &with_volume("[]"),
        &["spec.domain.devices.disks[0].name: no volume is called \"d\""],
    );
    let volumes = "[{name: d, emptyDisk: {capacity: 1Gi}}, {name: e, emptyDisk: {capacity: 1Gi}}]";
    bench.check(
        &with_volume(volumes),
        &["spec.volumes[1].name: no disk or file system uses \"e\""],
    );
}

#[test]
fn a_volume_whose_source_is_missing_is_named() {
    let bench = Bench::new();
    bench.check(
        &with_volume("[{name: d, containerDisk: {image: nowhere}}]"),
        &[
            "spec.volumes[0].containerDisk.image: image docker.io/library/nowhere:latest is not in",
            "--image-dir",
        ],
    );
    let absent = bench.path("absent.raw");
    bench.check(
        &with_volume(&format!(
            "[{{name: d, hostDisk: {{path: {}, type: Disk}}}}]",
            absent.display()
        )),
        &[
            "spec.volumes[0].hostDisk.path: ",
            "absent.raw does not exist: make it, or use type DiskOrCreate",
        ],
    );
    bench.check(
        &with_volume("[{name: d, persistentVolumeClaim: {claimName: c}}]"),
        &[
            "spec.volumes[0].persistentVolumeClaim: ",
            "objects/c/disk.img does not exist",
        ],
    );
}

#[test]
fn a_volume_of_files_without_its_files_is_named() {
    let bench = Bench::new();
    for (volume, field) in [
        ("sysprep: {secret: {name: s}}", "sysprep: "),
        (
            "serviceAccount: {serviceAccountName: s}",
            "serviceAccount: ",
        ),
        ("downwardAPI: {fields: []}", "downwardAPI: "),
        (
            "cloudInitNoCloud: {secretRef: {name: s}}",
            "cloudInitNoCloud: ",
        ),
    ] {
        bench.check(
            &with_volume(&format!("[{{name: d, {volume}}}]")),
            &[&format!("spec.volumes[0].{field}"), "does not exist"],
        );
    }
    let label = "serviceaccountlabelthatistoolongforadisk";
    bench.put("objects/d/labels", b"");
    bench.check(
        &with_volume(&format!(
            "[{{name: d, downwardAPI: {{fields: [], volumeLabel: {label}}}}}]"
        )),
        &["spec.volumes[0].downwardAPI: label a volume"],
    );
}

#[test]
fn a_disk_larger_than_its_volume_is_told_in_figures() {
    let bench = Bench::new();
    let file = bench.path("made.raw");
    let source = format!(
        "{{path: {}, type: DiskOrCreate, capacity: 4Ei}}",
        file.display()
    );
    bench.check(
        &with_volume(&format!("[{{name: d, hostDisk: {source}}}]")),
        &[
            "spec.volumes[0].hostDisk.path: create ",
            "4611686018427387904 bytes are wanted and ",
            "free some room, or ask for less",
        ],
    );
    assert!(!file.exists());
}

#[test]
fn a_disk_that_contradicts_itself_is_named() {
    let bench = Bench::new();
    let with_disk = |disk: &str| {
        let disks = format!("[{{name: d, {disk}}}]");
        let volumes = "[{name: d, emptyDisk: {capacity: 1Gi}}]";
        manifest("{cores: 1}", "{guest: 64Mi}", &disks, volumes)
    };
    bench.check(
        &with_disk("disk: {bus: virtio}, shareable: true, cache: writeback"),
        &[
            "spec.domain.devices.disks[0].cache: a shareable disk",
            "use none",
        ],
    );
    bench.check(
        &with_disk("lun: {bus: scsi, reservation: true}"),
        &[
            "spec.domain.devices.disks[0].lun.reservation: ",
            "remove it",
        ],
    );
    bench.check(
        &with_disk("disk: {bus: floppy}"),
        &["spec.domain.devices.disks[0].disk.bus: \"floppy\" is not known"],
    );
}

#[test]
fn no_cpus_are_refused() {
    let manifest = manifest("{cores: 0}", "{guest: 64Mi}", "[]", "[]");
    Bench::new().check(
        &manifest,
        &["spec.domain.cpu.cores: a machine with 0 CPUs cannot run"],
    );
}

#[test]
fn memory_below_the_minimum_and_above_the_hosts_is_refused() {
    let bench = Bench::new();
    let memory = |guest: &str| manifest("{}", &format!("{{guest: {guest}}}"), "[]", "[]");
    bench.check(
        &memory("1Mi"),
        &["spec.domain.memory.guest: 1Mi is below the minimum of 16Mi"],
    );
    bench.check(
        &memory("1Ti"),
        &[
            "spec.domain.memory.guest: 1048576 MiB are more than the",
            "of this host",
        ],
    );
    bench.check(
        &memory("lots"),
        &["spec.domain.memory.guest: \"lots\" is no quantity"],
    );
}

#[test]
fn a_kernel_that_is_no_kernel_is_named() {
    let bench = Bench::new();
    let empty = manifest("{}", "{guest: 64Mi}", "[]", "[]");
    bench.check(&empty, &["images/boot/vmlinuz"]);
    bench.check(
        &empty.replace("/vmlinuz", "/absent"),
        &["kernelPath: image docker.io/library/boot:latest has no file /absent"],
    );
}

#[test]
fn a_host_disk_that_was_made_for_a_machine_that_does_not_start_is_removed() {
    let bench = Bench::new();
    let file = bench.path("made.raw");
    let source = format!(
        "{{path: {}, type: DiskOrCreate, capacity: 1Mi}}",
        file.display()
    );
    bench.check(
        &with_volume(&format!("[{{name: d, hostDisk: {source}}}]")),
        &["vmlinuz"],
    );
    assert!(!file.exists());
}

#[test]
fn a_truncated_layer_is_named() {
    let bench = Bench::new();
    let digest = "0".repeat(64);
    let manifest_json = format!(r#"{{"layers":[{{"digest":"sha256:{digest}"}}]}}"#);
    let manifest_digest = {
        use sha2::Digest;
        let hash = sha2::Sha256::digest(manifest_json.as_bytes());
        hash.iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    bench.put(
        &format!("images/cut/blobs/sha256/{manifest_digest}"),
        manifest_json.as_bytes(),
    );
    bench.put(&format!("images/cut/blobs/sha256/{digest}"), b"cut");
    bench.put("images/cut/oci-layout", b"{}");
    let index = format!(r#"{{"manifests":[{{"digest":"sha256:{manifest_digest}"}}]}}"#);
    bench.put("images/cut/index.json", index.as_bytes());
    bench.check(
        &with_volume("[{name: d, containerDisk: {image: cut}}]"),
        &[
            "spec.volumes[0].containerDisk.image: ",
            "is damaged or incomplete",
            "copy the image again",
        ],
    );
}

#[test]
fn a_truncated_qcow2_and_a_backing_file_are_named() {
    let bench = Bench::new();
    let claim = with_volume("[{name: d, persistentVolumeClaim: {claimName: c}}]");
    bench.put("objects/c/disk.img", b"QFI\xfb\0\0\0\x03");
    bench.check(&claim, &["objects/c/disk.img"]);
    // Version 3, a backing file name of 4 bytes at 112 and nothing else of use.
    let mut header = vec![0; 65536];
    header[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    header[8..16].copy_from_slice(&112_u64.to_be_bytes());
    header[16..20].copy_from_slice(&4_u32.to_be_bytes());
    header[20..24].copy_from_slice(&16_u32.to_be_bytes());
    header[24..32].copy_from_slice(&(1_u64 << 20).to_be_bytes());
    header[36..40].copy_from_slice(&1_u32.to_be_bytes());
    header[100..104].copy_from_slice(&112_u32.to_be_bytes());
    header[112..116].copy_from_slice(b"self");
    bench.put("objects/c/disk.img", &header);
    bench.check(&claim, &["objects/c/disk.img"]);
}

#[test]
fn an_initrd_that_does_not_fit_is_named() {
    let bench = Bench::new();
    let initrd = bench.path("images/boot/initrd");
    fs::File::create(&initrd)
        .unwrap()
        .set_len(256 << 20)
        .unwrap();
    let error = bench.error(&manifest("{}", "{guest: 64Mi}", "[]", "[]"));
    assert!(error.contains("images/boot/"), "{error}");
}

#[test]
fn nothing_to_run_names_the_flag() {
    let output = Command::new(env!("CARGO_BIN_EXE_virt-launcher"))
        .env_remove("STANDALONE_VMI")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(stderr.lines().count(), 1);
    assert!(stderr.contains("--standalone FILE"), "{stderr}");
}
