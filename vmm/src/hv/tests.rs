//! The suite that every back end runs: the tiny guests of the software CPU.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use devices::Wake;
use x86::tiny_guests::{End, RAM_BYTES, TinyGuest, all, port};

use super::kvm::Kvm;
use super::kvm::probe::measure;
use super::soft::Soft;
use super::*;
use crate::config::MemoryConfig;

/// After this a guest is taken for lost.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// A board that records, and raises what guests ask for.
#[derive(Default)]
struct Recorder {
    seen: Mutex<Vec<(u16, u32)>>,
    vector: Mutex<Option<u8>>,
    done: Mutex<bool>,
    kick: OnceLock<Arc<dyn Kick>>,
    intr: OnceLock<Arc<dyn Wake>>,
    vm: OnceLock<Arc<dyn Vm>>,
}

impl Board for Recorder {
    fn port_read(&self, _port: u16, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn port_write(&self, port: u16, data: &[u8]) {
        let mut bytes = [0; 4];
        bytes[..data.len()].copy_from_slice(data);
        match port {
            port::END => {
                *self.done.lock().unwrap() = true;
                self.kick.get().unwrap().kick();
            }
            port::NMI => self.vm.get().unwrap().inject_nmi(),
            port::INTERRUPT => {
                *self.vector.lock().unwrap() = Some(bytes[0]);
                self.intr.get().unwrap().wake();
            }
            _ => self
                .seen
                .lock()
                .unwrap()
                .push((port, u32::from_le_bytes(bytes))),
        }
    }

    fn mmio_read(&self, _gpa: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn mmio_write(&self, _gpa: u64, _data: &[u8]) {}

    fn peek_pic(&self) -> Option<u8> {
        *self.vector.lock().unwrap()
    }

    fn acknowledge_pic(&self) -> Option<u8> {
        self.vector.lock().unwrap().take()
    }

    fn end_of_interrupt(&self, _vector: u8) {}
}

fn one_cpu() -> CpuConfig {
    CpuConfig {
        sockets: 1,
        cores: 1,
        threads: 1,
        model: None,
        features: Vec::new(),
    }
}

/// What the guest reported, and how it ended.
fn run(hypervisor: &dyn Hypervisor, guest: &TinyGuest) -> (Vec<(u16, u32)>, Result<End, String>) {
    let ram = Ram::new(&MemoryConfig {
        len_bytes: RAM_BYTES,
        hugepage_bytes: None,
        prefault: false,
        shared: false,
    })
    .unwrap();
    for (gpa, bytes) in guest.memory() {
        ram.write(gpa, &bytes).unwrap();
    }
    let setup = VmSetup {
        ram: &ram,
        cpus: &one_cpu(),
        clock: Arc::new(MachineClock::new()),
    };
    let vm = hypervisor.create_vm(&setup).unwrap();
    let recorder = Arc::new(Recorder::default());
    let board = Arc::clone(&recorder) as Arc<dyn Board>;
    vm.connect(&board);
    let mut vcpu = vm.create_vcpu(0, board).unwrap();
    recorder.kick.get_or_init(|| vcpu.kicker());
    recorder.intr.get_or_init(|| vm.intr());
    recorder.vm.get_or_init(|| Arc::clone(&vm));
    vcpu.reset(Some(&guest.state())).unwrap();
    let exit = run_limited(vcpu.as_mut());
    let is_done = *recorder.done.lock().unwrap();
    let end = match exit {
        Ok(VcpuExit::Shutdown) => Ok(End::Shutdown),
        Ok(VcpuExit::Kicked) if is_done => Ok(End::Done),
        Ok(other) => Err(format!("{other:?}")),
        Err(error) => Err(crate::error_chain(&error)),
    };
    let seen = recorder.seen.lock().unwrap().clone();
    (seen, end)
}

fn run_limited(vcpu: &mut dyn Vcpu) -> Result<VcpuExit, HvError> {
    let (done, is_done) = channel::<()>();
    let kick = vcpu.kicker();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if is_done.recv_timeout(TIME_LIMIT) == Err(RecvTimeoutError::Timeout) {
                kick.kick();
            }
        });
        let exit = vcpu.run();
        drop(done);
        exit
    })
}

fn run_all(hypervisor: &dyn Hypervisor) {
    let mut wrong = Vec::new();
    for guest in all() {
        let (seen, end) = run(hypervisor, &guest);
        if seen != guest.expect || end != Ok(guest.end) {
            wrong.push(format!(
                "{} ({:?}): {seen:x?} {end:?}, not {:x?} {:?}",
                guest.name, guest.start, guest.expect, guest.end
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_software_back_end_runs_every_tiny_guest() {
    run_all(&Soft);
}

#[test]
fn kvm_runs_every_tiny_guest() {
    let kvm = match Kvm::open() {
        Ok(kvm) => kvm,
        Err(error) => {
            println!("skipped: {error}");
            return;
        }
    };
    match measure(&kvm).unwrap().problem {
        Some(problem) => println!("skipped: KVM is not usable: {problem}"),
        None => run_all(&kvm),
    }
}

/// A real-mode guest that needs nothing but port I/O and HLT: even a KVM that emulates runs it.
fn real_mode_state() -> CpuState {
    let mut state = CpuState::power_on();
    state.segments[1].base = 0;
    state.segments[1].selector = 0;
    state.rip = 0x1000;
    state
}

#[test]
fn kvm_serves_ports_state_kicks_and_the_dirty_log_even_where_it_is_slow() {
    let kvm = match Kvm::open() {
        Ok(kvm) => kvm,
        Err(error) => {
            println!("skipped: {error}");
            return;
        }
    };
    let ram = Ram::new(&MemoryConfig {
        len_bytes: RAM_BYTES,
        hugepage_bytes: None,
        prefault: false,
        shared: false,
    })
    .unwrap();
    // mov al, 0x5a; mov [0x3000], al; out NOTE, al; out END, al; jmp to itself
    let code = [
        0xb0, 0x5a, 0xa2, 0x00, 0x30, 0xe6, 0x13, 0xe6, 0x1f, 0xeb, 0xfe,
    ];
    ram.write(0x1000, &code).unwrap();
    let setup = VmSetup {
        ram: &ram,
        cpus: &one_cpu(),
        clock: Arc::new(MachineClock::new()),
    };
    let vm = kvm.create_vm(&setup).unwrap();
    let recorder = Arc::new(Recorder::default());
    let mut vcpu = vm.create_vcpu(0, Arc::clone(&recorder) as _).unwrap();
    recorder.kick.get_or_init(|| vcpu.kicker());
    vcpu.reset(Some(&real_mode_state())).unwrap();
    assert!(vm.set_dirty_log(true).unwrap());
    assert_eq!(run_limited(vcpu.as_mut()).unwrap(), VcpuExit::Kicked);
    let dirty = vm.take_dirty_log().unwrap();
    assert_eq!(dirty[0].bits[0] & (1 << 3), 1 << 3);
    assert!(vm.set_dirty_log(false).unwrap());
    assert_eq!(*recorder.seen.lock().unwrap(), [(port::NOTE, 0x5a)]);
    let state = vcpu.state().unwrap();
    assert_eq!(state.cpu.gpr[0] & 0xff, 0x5a);
    vcpu.set_state(&state).unwrap();
    assert_eq!(vcpu.state().unwrap().cpu.gpr, state.cpu.gpr);
}
