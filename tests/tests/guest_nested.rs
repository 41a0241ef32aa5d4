//! The KVM back end on a real KVM: Debian's `kvm_amd` inside QEMU.
#![expect(
    clippy::tests_outside_test_module,
    reason = "an integration test is a test module"
)]

use std::time::Duration;

use tests::{
    Console, Spawned,
    demo::{BOOT, COMMAND},
    guests, nested, program,
    programs::{optional_tool, unit_tests},
};

/// Each tiny guest is a virtual machine of its own on a translated host.
const TINY_GUESTS: Duration = Duration::from_secs(240);

const SCRIPT: &str = r#"
export PATH=/nested
vmm probe
echo "PROBE-STATUS $?"
if [ -x /nested/vmm-tests ]; then
    /bin/busybox mkdir -p /tmp
    vmm-tests --nocapture --test-threads 1 kvm_
    echo "TESTS-STATUS $?"
fi
vmm run --kernel /nested/vmlinuz --initrd /nested/bench-initrd --cmdline "console=ttyS0 quiet" \
    --memory 256M --cpus 2 --accel kvm
echo "RUN-STATUS $?"
"#;

#[test]
fn kvm_inside_qemu_is_usable_and_boots_debian() {
    let (Some(guests), Some(vmm)) = (guests(), program("vmm")) else {
        return;
    };
    let Some(qemu) = optional_tool("qemu-system-x86_64") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let mut files = vec![vmm, guests.kernel(), guests.bench_initrd()];
    let unit_tests = unit_tests("vmm", "kvm_runs_every_tiny_guest");
    if let Some(program) = &unit_tests {
        let renamed = folder.path().join("vmm-tests");
        std::fs::copy(program, &renamed).unwrap();
        files.push(renamed);
    }
    let initrd = nested::initrd(&guests, &files, SCRIPT, folder.path()).unwrap();
    let command = nested::host(&qemu, &guests, &initrd);
    let mut host = Spawned::start(command, Console::OutputOnly).unwrap();
    host.expect("FERROVIRT-INIT", BOOT).unwrap();
    let probe = host.expect("PROBE-STATUS 0", BOOT).unwrap();
    assert!(
        probe.contains("kvm") && !probe.contains("not usable"),
        "{probe}"
    );
    if unit_tests.is_some() {
        let tests = host.expect("TESTS-STATUS ", TINY_GUESTS).unwrap();
        assert!(tests.contains("test result: ok"), "{tests}");
        assert!(!tests.contains("skipped: KVM"), "{tests}");
        report_skipped(&tests);
    }
    host.expect("FERROVIRT-INIT", BOOT).unwrap();
    host.expect("RUN-STATUS 0", BOOT).unwrap();
    host.finish(COMMAND).unwrap();
}

#[expect(
    clippy::print_stderr,
    reason = "a skipped test must say so where its reader looks"
)]
fn report_skipped(output: &str) {
    for line in output.lines().filter(|line| line.contains("skipped: ")) {
        eprintln!("{line}");
    }
}
