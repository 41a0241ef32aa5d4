//! Guests read and write their disks, and what they wrote is there afterwards.
#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "an integration test is a test module, its helpers included"
)]

use std::{path::Path, process::Command};

use tests::{
    Console, Guests, Machine, Spawned,
    demo::{BOOT, COMMAND, ask, log_in},
    guests, program,
    programs::tool,
};

const ROOT: &str = "root=LABEL=ferrovirt-root";

/// Boots from the first disk and logs in.
fn boot(vmm: &Path, machine: &Machine) -> Spawned {
    let mut guest = Spawned::start(machine.vmm(vmm), Console::Pipes).unwrap();
    guest.expect("ferrovirt login: ", BOOT).unwrap();
    log_in(&mut guest, None).unwrap();
    guest
}

fn power_off(mut guest: Spawned) {
    guest.send("poweroff\n").unwrap();
    let finished = guest.finish(COMMAND).unwrap();
    assert_eq!(finished.status.code(), Some(0), "{}", finished.errors);
}

fn machine(guests: &Guests) -> Machine {
    Machine::new(&guests.kernel())
        .initrd(&guests.initrd())
        .append(ROOT)
}

#[test]
fn a_file_written_before_power_off_is_there_after_it() {
    let (Some(guests), Some(vmm)) = (guests(), program("vmm")) else {
        return;
    };
    let raw = Some((guests.root_raw(), "raw"));
    let images = [raw, guests.root_qcow2().map(|image| (image, "qcow2"))];
    let folder = tempfile::tempdir().unwrap();
    for (image, name) in images.into_iter().flatten() {
        let disk = folder.path().join(name);
        std::fs::copy(image, &disk).unwrap();
        let machine = machine(&guests).disk(&disk, &format!(",format={name}"));
        let mut guest = boot(&vmm, &machine);
        ask(
            &mut guest,
            "seq 1 200000 > /numbers; sha256sum /numbers > /sum; sync",
        )
        .unwrap();
        power_off(guest);
        let mut guest = boot(&vmm, &machine);
        assert!(
            ask(&mut guest, "sha256sum -c /sum")
                .unwrap()
                .contains("/numbers: OK"),
            "{name}"
        );
        power_off(guest);
        check(&disk, name);
    }
}

/// Lets the foreign tools judge the image: `qemu-img check`, and `e2fsck` for what lies in it.
fn check(disk: &Path, format: &str) {
    if format == "qcow2"
        && let Some(tool) = tool("qemu-img")
    {
        let answer = Command::new(tool).arg("check").arg(disk).output().unwrap();
        assert!(answer.status.success(), "{answer:?}");
    }
    if format == "raw"
        && let Some(tool) = tool("e2fsck")
    {
        let answer = Command::new(tool)
            .args(["-f", "-n"])
            .arg(disk)
            .output()
            .unwrap();
        assert!(answer.status.success(), "{answer:?}");
    }
}

#[test]
fn a_read_only_disk_stays_as_it_was() {
    let (Some(guests), Some(vmm)) = (guests(), program("vmm")) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    std::fs::copy(guests.root_raw(), &disk).unwrap();
    let before = std::fs::read(&disk).unwrap();
    let machine = Machine::new(&guests.kernel())
        .initrd(&guests.initrd())
        .disk(&disk, ",readonly=on,format=raw");
    let mut guest = boot(&vmm, &machine);
    assert!(
        ask(&mut guest, "cat /sys/block/vda/ro")
            .unwrap()
            .contains("\n1")
    );
    let answer = ask(
        &mut guest,
        "dd if=/dev/zero of=/dev/vda bs=4k count=1; echo status=$?",
    );
    assert!(answer.unwrap().contains("status=1"));
    power_off(guest);
    assert!(std::fs::read(&disk).unwrap() == before, "the image changed");
}

#[test]
fn several_disks_appear_in_order() {
    let (Some(guests), Some(vmm)) = (guests(), program("vmm")) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let mut machine = Machine::new(&guests.kernel()).initrd(&guests.initrd());
    for (name, mebibytes) in [("a", 1), ("b", 3), ("c", 5)] {
        let path = folder.path().join(name);
        std::fs::File::create(&path)
            .unwrap()
            .set_len(mebibytes << 20)
            .unwrap();
        machine = machine.disk(&path, ",format=raw");
    }
    let mut guest = boot(&vmm, &machine);
    let answer = ask(&mut guest, "cat /sys/block/vd[abc]/size").unwrap();
    assert!(answer.contains("2048\r\n6144\r\n10240"), "{answer:?}");
    power_off(guest);
}
