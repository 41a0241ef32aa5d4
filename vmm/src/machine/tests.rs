use std::io::Write;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::*;
use crate::config::{Accel, CpuConfig, DiskBus, ErrorPolicy, IoMode, MemoryConfig, SmbiosConfig};

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

type Started = (MachineHandle, Receiver<Vec<u8>>, tempfile::NamedTempFile);

/// Starts a machine; its kernel's file must stay for resets.
fn start(code: &[u8], cpus: u32) -> Started {
    start_with(code, cpus, |_| {})
}

fn start_with(code: &[u8], cpus: u32, change: impl FnOnce(&mut MachineConfig)) -> Started {
    let kernel = kernel(code);
    let (sender, output) = channel();
    let io = MachineIo {
        serial_out: Box::new(Collect(sender)),
        serial_room: None,
        debug_out: Box::new(Discard),
    };
    let mut config = config(kernel.path(), cpus);
    change(&mut config);
    let machine = Machine::start(config, io).unwrap();
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
        Err(error) => error_chain(&error),
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

#[test]
fn a_machine_that_starts_paused_waits_to_be_resumed() {
    let code = [&SAY_H[..], &POWER_OFF].concat();
    let (machine, output, _kernel) = start_with(&code, 2, |config| config.start_paused = true);
    let events = machine.events();
    expect(&events, &MachineEvent::Paused);
    assert_eq!(machine.first_instruction(), None);
    assert!(machine.stats().vcpus.iter().all(|vcpu| !vcpu.halted));
    assert!(output.try_recv().is_err());
    machine.resume().unwrap();
    assert_eq!(output.recv_timeout(TIME_LIMIT).unwrap(), b"H");
    assert_eq!(machine.wait(), MachineEnd::PoweredOff);
    assert!(machine.first_instruction().is_some());
}

#[test]
fn a_power_off_becomes_a_start_once_if_that_is_asked_for() {
    let code = [&SAY_H[..], &POWER_OFF].concat();
    let (machine, output, _kernel) = start_with(&code, 1, |config| config.start_paused = true);
    machine.reset_on_power_off(true);
    machine.resume().unwrap();
    assert_eq!(machine.wait(), MachineEnd::PoweredOff);
    let said: Vec<u8> = output.try_iter().flatten().collect();
    assert_eq!(said, b"HH");
    let events: Vec<_> = machine.events().iter().collect();
    assert!(events.contains(&MachineEvent::Reset(None)), "{events:?}");
}

#[test]
fn figures_grow_while_the_guest_runs_and_stay_after_its_end() {
    let (machine, output, _kernel) = start(&[&SAY_H[..], &SPIN].concat(), 2);
    assert_eq!(output.recv_timeout(TIME_LIMIT).unwrap(), b"H");
    let deadline = Instant::now() + TIME_LIMIT;
    let used_ms = |stats: &MachineStats| stats.vcpus[0].cpu_time_ns / 1_000_000;
    let mut stats = machine.stats();
    while used_ms(&stats) < 20 {
        assert!(Instant::now() < deadline, "{stats:?}");
        stats = machine.stats();
    }
    assert!(!stats.vcpus[0].halted);
    assert!(stats.vcpus[1].halted, "it waits for its start-up message");
    assert!(stats.vcpus[1].cpu_time_ns < stats.vcpus[0].cpu_time_ns);
    assert_eq!(stats.memory.len_bytes, 32 << 20);
    assert!((1..8 << 20).contains(&stats.memory.resident_bytes));
    machine.kill().unwrap();
    assert_eq!(machine.wait(), MachineEnd::Killed);
    assert!(machine.stats().vcpus[0].cpu_time_ns >= stats.vcpus[0].cpu_time_ns);
}

#[test]
fn figures_cost_less_than_a_millisecond_for_many_vcpus_and_much_memory() {
    let (machine, output, _kernel) = start_with(&[&SAY_H[..], &SPIN].concat(), 16, |config| {
        config.memory.len_bytes = 16 << 30;
    });
    assert_eq!(output.recv_timeout(TIME_LIMIT).unwrap(), b"H");
    machine.pause().unwrap();
    let timed = (0..20).map(|_| {
        let start = Instant::now();
        assert_eq!(machine.stats().vcpus.len(), 16);
        start.elapsed()
    });
    let best = timed.min().unwrap();
    println!("figures of 16 vCPUs and 16 GiB: {best:?}");
    assert!(best < Duration::from_millis(5), "{best:?}");
}

#[test]
fn a_dump_holds_the_guest_and_the_guest_goes_on() {
    let code = [&SAY_H[..], &SPIN].concat();
    let (machine, output, _kernel) = start(&code, 2);
    assert_eq!(output.recv_timeout(TIME_LIMIT).unwrap(), b"H");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("core");
    let len_bytes = machine.dump_memory(&path).unwrap();
    let core = std::fs::read(&path).unwrap();
    assert_eq!(core.len(), usize::try_from(len_bytes).unwrap());
    let at = core.windows(code.len()).position(|window| window == code);
    let ram_at = core.len() - (32 << 20);
    assert_eq!(at, Some(ram_at + usize::try_from(LOAD_GPA).unwrap()));
    // It spins after it has spoken: its registers are in the first note.
    let rip = LOAD_GPA + u64::try_from(SAY_H.len()).unwrap();
    let first_rip = 64 + 2 * 56 + 12 + 8 + 112 + 16 * 8;
    assert_eq!(core[first_rip..first_rip + 8], rip.to_le_bytes());

    let used = machine.stats().vcpus[0].cpu_time_ns;
    let deadline = Instant::now() + TIME_LIMIT;
    while machine.stats().vcpus[0].cpu_time_ns == used {
        assert!(Instant::now() < deadline, "the guest does not go on");
    }
    let missing = machine.dump_memory(Path::new("/nowhere/core"));
    assert!(matches!(missing, Err(MachineError::Dump { .. })));
    machine.pause().unwrap();
    machine.dump_memory(&path).unwrap();
    let events = machine.events();
    machine.resume().unwrap();
    expect(&events, &MachineEvent::Resumed);
    machine.kill().unwrap();
    assert_eq!(machine.wait(), MachineEnd::Killed);
    assert!(matches!(
        machine.dump_memory(&path),
        Err(MachineError::Ended)
    ));
}

#[test]
fn an_overlay_is_made_once_and_taken_up_again() {
    let folder = tempfile::tempdir().unwrap();
    let (base, overlay) = (folder.path().join("base"), folder.path().join("overlay"));
    std::fs::write(&base, [7; 4096]).unwrap();
    for _ in 0..2 {
        let (machine, _output, _kernel) = start_with(&POWER_OFF, 1, |config| {
            config.disks = vec![DiskConfig {
                name: "root".to_owned(),
                bus: DiskBus::VirtioBlk,
                kind: DiskKind::Disk,
                source: DiskSource::Overlay {
                    base: base.clone(),
                    base_format: None,
                    overlay: overlay.clone(),
                },
                read_only: false,
                serial: None,
                queues: 1,
                logical_block_bytes: 512,
                physical_block_bytes: 512,
                cache: block::CacheMode::Writeback,
                io: IoMode::Threads,
                discard: true,
                error_policy: ErrorPolicy::Report,
                io_thread: None,
                boot_order: None,
            }];
        });
        assert_eq!(machine.wait(), MachineEnd::PoweredOff);
        assert_eq!(machine.stats().disks[0].capacity_bytes, 4096);
    }
    assert!(overlay.exists());
}

#[test]
fn a_port_that_was_closed_and_opened_again_is_told_as_that() {
    let orders = Orders::default();
    for open in [true, false, true] {
        orders.port_changed("agent", open);
    }
    orders.port_changed("other", true);
    let change = |name: &str, open| (name.to_owned(), open);
    let expected = [
        change("agent", false),
        change("agent", true),
        change("other", true),
    ];
    assert_eq!(orders.take_changed_ports(), expected);
    assert!(orders.take_changed_ports().is_empty());
}
