use std::io::Write;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::*;
use crate::config::{Accel, CpuConfig, MemoryConfig, SmbiosConfig};

const LOAD_GPA: u64 = 0x10_0000;
/// After this an event is taken for missing.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// mov dx, 0x3f8; mov al, 'H'; out dx, al
const SAY_H: [u8; 7] = [0x66, 0xba, 0xf8, 0x03, 0xb0, b'H', 0xee];
/// mov dx, 0x604; mov ax, 0x2000; out dx, ax; hlt
const POWER_OFF: [u8; 11] = [
    0x66, 0xba, 0x04, 0x06, 0x66, 0xb8, 0x00, 0x20, 0x66, 0xef, 0xf4,
];
/// jmp to itself
const SPIN: [u8; 2] = [0xeb, 0xfe];
/// ud2, without an interrupt table
const FAULT: [u8; 2] = [0x0f, 0x0b];

/// An executable with `code` at its entry.
fn kernel(code: &[u8]) -> tempfile::NamedTempFile {
    let mut image = b"\x7fELF\x02\x01\x01".to_vec();
    image.resize(120, 0);
    let len = u64::try_from(code.len()).unwrap();
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(16, &[2, 0, 62, 0]);
    put(24, &LOAD_GPA.to_le_bytes());
    put(32, &64_u64.to_le_bytes());
    put(54, &[56, 0, 1, 0]);
    put(64, &[1, 0, 0, 0, 5, 0, 0, 0]);
    put(72, &120_u64.to_le_bytes());
    put(88, &LOAD_GPA.to_le_bytes());
    put(96, &len.to_le_bytes());
    put(104, &len.to_le_bytes());
    image.extend(code);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&image).unwrap();
    file
}

fn config(kernel: &Path, cpus: u32) -> MachineConfig {
    MachineConfig {
        name: "test".to_owned(),
        cpus: CpuConfig {
            sockets: 1,
            cores: cpus,
            threads: 1,
            model: None,
            features: Vec::new(),
        },
        memory: MemoryConfig {
            len_bytes: 32 << 20,
            hugepage_bytes: None,
            prefault: false,
            shared: false,
        },
        boot: BootSource::Kernel {
            kernel: kernel.to_owned(),
            initrd: None,
            cmdline: String::new(),
        },
        disks: Vec::new(),
        console_ports: Vec::new(),
        rng: true,
        pvpanic: true,
        smbios: SmbiosConfig::default(),
        accel: Accel::Soft,
        start_paused: false,
    }
}

struct Collect(std::sync::mpsc::Sender<Vec<u8>>);

impl ConsoleOut for Collect {
    fn write(&mut self, bytes: &[u8]) {
        // The test may have seen enough.
        drop(self.0.send(bytes.to_vec()));
    }
}

/// Starts a machine; its kernel's file must stay for resets.
fn start(code: &[u8], cpus: u32) -> (MachineHandle, Receiver<Vec<u8>>, tempfile::NamedTempFile) {
    let kernel = kernel(code);
    let (sender, output) = channel();
    let io = MachineIo {
        serial_out: Box::new(Collect(sender)),
        serial_room: None,
        debug_out: Box::new(Discard),
    };
    let machine = Machine::start(config(kernel.path(), cpus), io).unwrap();
    (machine, output, kernel)
}

fn expect(events: &Receiver<MachineEvent>, wanted: &MachineEvent) {
    loop {
        let event = events.recv_timeout(TIME_LIMIT).unwrap();
        if event == *wanted {
            return;
        }
    }
}

#[test]
fn a_guest_speaks_and_powers_off() {
    let (machine, output, _kernel) = start(&[&SAY_H[..], &POWER_OFF].concat(), 1);
    assert_eq!(machine.wait(), MachineEnd::PoweredOff);
    assert_eq!(output.recv_timeout(TIME_LIMIT).unwrap(), b"H");
    let events: Vec<_> = machine.events().iter().collect();
    assert_eq!(events, [MachineEvent::PoweredOff]);
    assert!(matches!(machine.pause(), Err(MachineError::Ended)));
}

#[test]
fn a_machine_pauses_resumes_resets_and_is_killed() {
    let (machine, output, _kernel) = start(&[&SAY_H[..], &SPIN].concat(), 3);
    let events = machine.events();
    assert_eq!(output.recv_timeout(TIME_LIMIT).unwrap(), b"H");
    for _ in 0..3 {
        machine.pause().unwrap();
        expect(&events, &MachineEvent::Paused);
        machine.resume().unwrap();
        expect(&events, &MachineEvent::Resumed);
    }
    machine.reset().unwrap();
    expect(&events, &MachineEvent::Reset(None));
    assert_eq!(output.recv_timeout(TIME_LIMIT).unwrap(), b"H");
    machine.pause().unwrap();
    machine.reset().unwrap();
    assert_eq!(output.recv_timeout(TIME_LIMIT).unwrap(), b"H");
    machine.kill().unwrap();
    assert_eq!(machine.wait(), MachineEnd::Killed);
}

#[test]
fn a_guest_that_only_faults_is_started_a_few_times_and_then_given_up() {
    let (machine, _output, _kernel) = start(&FAULT, 1);
    let MachineEnd::Failed(why) = machine.wait() else {
        panic!("the machine did not fail");
    };
    assert!(why.contains("triple fault"), "{why}");
    let faults = machine.events().into_iter();
    let faults = faults.filter(|event| *event == MachineEvent::TripleFault { vcpu: 0 });
    assert_eq!(faults.count(), 4);
}

#[test]
fn a_machine_that_cannot_start_says_why() {
    let io = MachineIo {
        serial_out: Box::new(Discard),
        serial_room: None,
        debug_out: Box::new(Discard),
    };
    let error = match Machine::start(config(Path::new("/nonexistent"), 1), io) {
        Ok(_) => panic!("it started without a kernel"),
        Err(error) => crate::error_chain(&error),
    };
    assert!(error.contains("/nonexistent"), "{error}");
}

#[test]
fn dropping_the_last_handle_ends_the_machine() {
    let (machine, _output, _kernel) = start(&SPIN, 1);
    let events = machine.events();
    drop(machine);
    assert!(events.recv_timeout(TIME_LIMIT).is_err());
}
