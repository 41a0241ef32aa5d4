//! A KubeVirt manifest becomes a running machine.
#![expect(
    clippy::tests_outside_test_module,
    reason = "an integration test is a test module"
)]

use tests::{demo, guests, program};

#[test]
fn the_demo_manifest_boots_and_carries_its_cloud_init_data() {
    let (Some(guests), Some(launcher)) = (guests(), program("virt-launcher")) else {
        return;
    };
    let report = demo::run(&launcher, &guests, "soft", false).unwrap();
    assert!(
        report.console.contains("hostname: ferrovirt"),
        "{}",
        report.console
    );
    assert!(
        report.console.contains("/mnt/cidata"),
        "lsblk shows the mount: {}",
        report.console
    );
}
