//! The KVM back end on a real KVM: Debian's `kvm_amd` inside QEMU.
#![expect(
    clippy::tests_outside_test_module,
    reason = "an integration test is a test module"
)]

use tests::{
    Console, Spawned,
    demo::{BOOT, COMMAND},
    guests, nested, program,
    programs::optional_tool,
};

const SCRIPT: &str = r#"
export PATH=/nested
vmm probe
echo "PROBE-STATUS $?"
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
    let files = [vmm, guests.kernel(), guests.bench_initrd()];
    let initrd = nested::initrd(&guests, &files, SCRIPT, folder.path()).unwrap();
    let command = nested::host(&qemu, &guests, &initrd);
    let mut host = Spawned::start(command, Console::OutputOnly).unwrap();
    host.expect("FERROVIRT-INIT", BOOT).unwrap();
    let probe = host.expect("PROBE-STATUS 0", BOOT).unwrap();
    assert!(
        probe.contains("kvm") && !probe.contains("not usable"),
        "{probe}"
    );
    host.expect("FERROVIRT-INIT", BOOT).unwrap();
    host.expect("RUN-STATUS 0", BOOT).unwrap();
    host.finish(COMMAND).unwrap();
}
