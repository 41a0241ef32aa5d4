//! Bad input gets one clear line that names the field or file, and exit status 1.
#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "an integration test is a test module, its helpers included"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tests::{Console, Machine, Spawned, program};

const SOON: Duration = Duration::from_secs(60);

/// Runs a command that must be refused, and gives its message.
fn refusal(command: Command) -> String {
    let child = Spawned::start(command, Console::OutputOnly).unwrap();
    let finished = child.finish(SOON).unwrap();
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    assert!(!finished.errors.contains("panicked"), "{}", finished.errors);
    finished.errors
}

/// The message must name each of the words, in one line.
fn assert_names(message: &str, words: &[&str]) {
    let telling = |line: &str| words.iter().all(|word| line.contains(word));
    assert!(
        message.lines().any(telling),
        "no line names {words:?}:\n{message}"
    );
}

fn file(folder: &Path, name: &str, content: &[u8]) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, content).unwrap();
    path
}

#[test]
fn a_kernel_that_is_none_is_refused() {
    let Some(vmm) = program("vmm") else { return };
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in [("empty", &b""[..]), ("text", &b"no kernel at all\n"[..])] {
        let path = file(folder.path(), name, content);
        assert_names(
            &refusal(Machine::new(&path).vmm(&vmm)),
            &[path.to_str().unwrap()],
        );
    }
    let absent = folder.path().join("absent");
    assert_names(
        &refusal(Machine::new(&absent).vmm(&vmm)),
        &[absent.to_str().unwrap()],
    );
}

#[test]
fn an_impossible_size_or_count_is_refused() {
    let (Some(vmm), Some(guests)) = (program("vmm"), tests::guests()) else {
        return;
    };
    let machine = || Machine::new(&guests.kernel()).initrd(&guests.bench_initrd());
    assert_names(&refusal(machine().cpus(0).vmm(&vmm)), &["cpu"]);
    assert_names(&refusal(machine().cpus(65).vmm(&vmm)), &["cpu"]);
    assert_names(&refusal(machine().memory("0").vmm(&vmm)), &["memory"]);
    assert_names(&refusal(machine().memory("1K").vmm(&vmm)), &["memory"]);
    assert_names(&refusal(machine().memory("900G").vmm(&vmm)), &["memory"]);
}

#[test]
fn an_initrd_that_does_not_fit_is_refused() {
    let (Some(vmm), Some(guests)) = (program("vmm"), tests::guests()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("initrd");
    fs::File::create(&path).unwrap().set_len(300 << 20).unwrap();
    let machine = Machine::new(&guests.kernel()).initrd(&path);
    assert_names(&refusal(machine.vmm(&vmm)), &["initrd"]);
}

#[test]
fn a_broken_image_is_refused() {
    let (Some(vmm), Some(guests)) = (program("vmm"), tests::guests()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let Some(qcow2) = guests.root_qcow2() else {
        return;
    };
    let whole = fs::read(qcow2).unwrap();
    let image = file(folder.path(), "short.qcow2", &whole[..60]);
    let absent = folder.path().join("absent.qcow2");
    for path in [image, absent] {
        let machine = Machine::new(&guests.kernel()).disk(&path, ",format=qcow2");
        assert_names(&refusal(machine.vmm(&vmm)), &[path.to_str().unwrap()]);
    }
}

/// Makes one change to the demo manifest and gives the launcher's answer.
fn refused_manifest(launcher: &Path, from: &str, to: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let demo = tests::guests::repository().join("images/demo/vmi.yaml");
    let text = fs::read_to_string(demo).unwrap();
    assert!(text.contains(from), "the demo manifest lost {from:?}");
    let path = file(folder.path(), "vmi.yaml", text.replace(from, to).as_bytes());
    let images = folder.path().join("images");
    fs::create_dir(&images).unwrap();
    let mut command = Command::new(launcher);
    command
        .arg("--standalone")
        .arg(path)
        .arg("--image-dir")
        .arg(images);
    refusal(command)
}

#[test]
fn a_wrong_manifest_is_refused_by_the_name_of_its_fault() {
    let Some(launcher) = program("virt-launcher") else {
        return;
    };
    let cases: [(&str, &str, &[&str]); 6] = [
        ("kind: VirtualMachineInstance", "kind: Teapot", &["Teapot"]),
        (
            "    - name: scratch\n      emptyDisk:\n        capacity: 1Gi\n",
            "",
            &["scratch"],
        ),
        (
            "        - name: scratch\n",
            "        - name: other\n",
            &["other"],
        ),
        ("      cores: 2", "      cores: 0", &["cores"]),
        ("      guest: 256Mi", "      guest: 16Ki", &["memory"]),
        ("demo-disk:latest", "nowhere:latest", &["nowhere"]),
    ];
    for (from, to, words) in cases {
        assert_names(&refused_manifest(&launcher, from, to), words);
    }
}
