//! Stock Debian guests boot under the `vmm` command on the software CPU.
#![expect(
    clippy::tests_outside_test_module,
    reason = "an integration test is a test module"
)]

use nix::sys::signal::Signal;
use tests::{
    Console, Guests, Machine, Spawned,
    demo::{BOOT, COMMAND, ask, log_in},
    guests, program,
};

fn login_machine(guests: &Guests) -> Machine {
    Machine::new(&guests.kernel()).initrd(&guests.initrd())
}

#[test]
fn the_kernel_reaches_init_and_its_power_off_exits_0() {
    let (Some(guests), Some(vmm)) = (guests(), program("vmm")) else {
        return;
    };
    let machine = Machine::new(&guests.kernel()).initrd(&guests.bench_initrd());
    let mut guest = Spawned::start(machine.vmm(&vmm), Console::Pipes).unwrap();
    guest.expect("FERROVIRT-INIT", BOOT).unwrap();
    let finished = guest.finish(COMMAND).unwrap();
    assert_eq!(finished.status.code(), Some(0), "{}", finished.errors);
    assert!(
        !finished.output.contains("Call Trace"),
        "{}",
        finished.output
    );
}

#[test]
fn end_of_standard_input_is_not_the_end_of_the_guest() {
    let (Some(guests), Some(vmm)) = (guests(), program("vmm")) else {
        return;
    };
    let machine = Machine::new(&guests.kernel()).initrd(&guests.bench_initrd());
    let guest = Spawned::start(machine.vmm(&vmm), Console::OutputOnly).unwrap();
    let finished = guest.finish(BOOT).unwrap();
    assert!(
        finished.output.contains("FERROVIRT-INIT"),
        "{}",
        finished.output
    );
    assert_eq!(finished.status.code(), Some(0), "{}", finished.errors);
}

#[test]
fn a_user_logs_in_on_the_serial_console() {
    let (Some(guests), Some(vmm)) = (guests(), program("vmm")) else {
        return;
    };
    let mut guest = Spawned::start(login_machine(&guests).vmm(&vmm), Console::Pipes).unwrap();
    guest.expect("ferrovirt login: ", BOOT).unwrap();
    log_in(&mut guest, None).unwrap();
    assert!(
        ask(&mut guest, "uname -sm")
            .unwrap()
            .contains("Linux x86_64")
    );
    assert!(
        ask(&mut guest, "dmesg | grep -c BUG:")
            .unwrap()
            .contains("\n0")
    );
    guest.send("poweroff\n").unwrap();
    assert_eq!(guest.finish(COMMAND).unwrap().status.code(), Some(0));
}

#[test]
fn a_user_logs_in_on_a_terminal() {
    let (Some(guests), Some(vmm)) = (guests(), program("vmm")) else {
        return;
    };
    let mut guest = Spawned::start(login_machine(&guests).vmm(&vmm), Console::Terminal).unwrap();
    guest.expect("ferrovirt login: ", BOOT).unwrap();
    log_in(&mut guest, None).unwrap();
    guest.send("poweroff\n").unwrap();
    assert_eq!(guest.finish(COMMAND).unwrap().status.code(), Some(0));
}

#[test]
fn two_processors_run() {
    let (Some(guests), Some(vmm)) = (guests(), program("vmm")) else {
        return;
    };
    let machine = login_machine(&guests).cpus(2);
    let mut guest = Spawned::start(machine.vmm(&vmm), Console::Pipes).unwrap();
    guest.expect("ferrovirt login: ", BOOT).unwrap();
    log_in(&mut guest, None).unwrap();
    assert!(
        ask(&mut guest, "cat /sys/devices/system/cpu/online")
            .unwrap()
            .contains("0-1")
    );
    let both = "for cpu in 0 1; do taskset $((cpu + 1)) sh -c 'echo on-$((40 + 2))' & done; wait";
    let answer = ask(&mut guest, both).unwrap();
    assert_eq!(answer.matches("on-42").count(), 2, "{answer}");
    guest.send("poweroff\n").unwrap();
    assert_eq!(guest.finish(COMMAND).unwrap().status.code(), Some(0));
}

#[test]
fn a_reboot_from_inside_boots_again() {
    let (Some(guests), Some(vmm)) = (guests(), program("vmm")) else {
        return;
    };
    let mut guest = Spawned::start(login_machine(&guests).vmm(&vmm), Console::Pipes).unwrap();
    guest.expect("ferrovirt login: ", BOOT).unwrap();
    log_in(&mut guest, None).unwrap();
    guest.send("reboot\n").unwrap();
    guest.expect("Linux version", BOOT).unwrap();
    guest.expect("ferrovirt login: ", BOOT).unwrap();
    log_in(&mut guest, None).unwrap();
    guest.send("poweroff\n").unwrap();
    assert_eq!(guest.finish(COMMAND).unwrap().status.code(), Some(0));
}

#[test]
fn memory_and_processors_are_what_was_asked_for() {
    let (Some(guests), Some(vmm)) = (guests(), program("vmm")) else {
        return;
    };
    let machine = login_machine(&guests).memory("512M").cpus(3);
    let mut guest = Spawned::start(machine.vmm(&vmm), Console::Pipes).unwrap();
    guest.expect("ferrovirt login: ", BOOT).unwrap();
    log_in(&mut guest, None).unwrap();
    assert!(ask(&mut guest, "nproc").unwrap().contains("\n3"));
    let answer = ask(
        &mut guest,
        "sed -n 's/MemTotal: *\\([0-9]*\\) kB/total=\\1./p' /proc/meminfo",
    );
    let answer = answer.unwrap();
    let total = answer
        .rsplit("total=")
        .next()
        .and_then(|rest| rest.split('.').next())
        .unwrap();
    let total_kib: u32 = total.parse().unwrap();
    assert!((430_000..524_288).contains(&total_kib), "{answer}");
    guest.send("poweroff\n").unwrap();
    assert_eq!(guest.finish(COMMAND).unwrap().status.code(), Some(0));
}

#[test]
fn a_guest_that_hangs_after_a_panic_is_ended_by_sigterm() {
    let (Some(guests), Some(vmm)) = (guests(), program("vmm")) else {
        return;
    };
    let machine = Machine::new(&guests.kernel()).append("panic=0 rdinit=/none");
    let mut guest = Spawned::start(machine.vmm(&vmm), Console::Pipes).unwrap();
    guest.expect("Kernel panic", BOOT).unwrap();
    guest.signal(Signal::SIGTERM);
    guest.finish(COMMAND).unwrap();
}
