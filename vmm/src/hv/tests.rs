//! The suite that every back end runs: the tiny guests of the software CPU.

use std::sync::atomic::{AtomicBool, Ordering};
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
    /// Signalled instead of the PIC.
    event: OnceLock<EventFd>,
    kick_at_input: AtomicBool,
}

impl Board for Recorder {
    fn port_read(&self, _port: u16, data: &mut [u8]) {
        data.fill(0xff);
        if self.kick_at_input.load(Ordering::SeqCst) {
            self.kick.get().unwrap().kick();
        }
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
                if let Some(event) = self.event.get() {
                    return event.write(1).unwrap();
                }
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

fn tiny_ram() -> Ram {
    Ram::new(&MemoryConfig {
        len_bytes: RAM_BYTES,
        hugepage_bytes: None,
        prefault: false,
        shared: false,
    })
    .unwrap()
}

fn create_vm(hypervisor: &dyn Hypervisor, ram: &Ram) -> Arc<dyn Vm> {
    let setup = VmSetup {
        ram,
        cpus: &one_cpu(),
        clock: Arc::new(MachineClock::new()),
    };
    hypervisor.create_vm(&setup).unwrap()
}

/// The guest's start. QEMU's translator of SVM gives up over a task state that is busy, as those in use are; KVM and
/// processors do not look.
fn start(guest: &TinyGuest) -> CpuState {
    const BUSY: u16 = 2;
    let mut state = guest.state();
    if is_translated() {
        state.tr.attributes &= !BUSY;
    }
    state
}

/// Whether this machine is QEMU's translator, by the name that it gives its guests.
fn is_translated() -> bool {
    let leaf = std::arch::x86_64::__cpuid(0x4000_0000);
    [leaf.ebx, leaf.ecx, leaf.edx].map(u32::to_le_bytes) == [*b"TCGT", *b"CGTC", *b"GTCG"]
}

/// What QEMU's translator does its own way, so that KVM on it cannot do better.
const TRANSLATED_OTHERWISE: [(&str, &[&str]); 6] = [
    (
        "it has no such feature",
        &[
            "PCIDs keep their mappings apart",
            "user code may not look at tables under UMIP",
        ],
    ),
    (
        "its SYSENTER is AMD's, which 64-bit mode lacks",
        &[
            "SYSENTER takes its stack and entry from MSRs",
            "SYSENTER without a code segment is a protection fault",
        ],
    ),
    (
        "it does not check this",
        &[
            "an unaligned access under AC is an alignment check",
            "LSTAR must be canonical",
            "PAE paging: reserved bits of a page directory pointer fault with CR3",
            "real mode: a word at the end of a segment is a protection fault",
            "a write through a code segment is a protection fault",
            "an expand-down segment has its limit below",
        ],
    ),
    (
        "without its help KVM sees only the lower half of what is moved to CR4",
        &["reserved bits of CR4 fault"],
    ),
    (
        "it gives another vector or error code",
        &[
            "a stack access outside the canonical space is a stack fault",
            "an interrupt through a privileged gate names the gate",
            "an interrupt beyond the table names the gate",
            "an absent gate for a benign exception is reported as such",
            "a reserved bit in an upper table",
        ],
    ),
    (
        "it runs a block of instructions as it was",
        &["code that overwrites the next instruction runs the new one"],
    ),
];

fn why_skipped(guest: &TinyGuest) -> Option<&'static str> {
    let mut reasons = TRANSLATED_OTHERWISE.iter();
    let (why, _) = reasons.find(|(_, names)| names.contains(&guest.name))?;
    is_translated().then_some(why)
}

/// What the guest reported, and how it ended.
fn run(hypervisor: &dyn Hypervisor, guest: &TinyGuest) -> (Vec<(u16, u32)>, Result<End, String>) {
    let ram = tiny_ram();
    for (gpa, bytes) in guest.memory() {
        ram.write(gpa, &bytes).unwrap();
    }
    let vm = create_vm(hypervisor, &ram);
    let recorder = Arc::new(Recorder::default());
    let board = Arc::clone(&recorder) as Arc<dyn Board>;
    vm.connect(&board);
    let mut vcpu = vm.create_vcpu(0, board).unwrap();
    recorder.kick.get_or_init(|| vcpu.kicker());
    recorder.intr.get_or_init(|| vm.intr());
    recorder.vm.get_or_init(|| Arc::clone(&vm));
    let exit = vcpu
        .reset(Some(&start(guest)))
        .and_then(|()| run_limited(vcpu.as_mut()));
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

fn run_all(hypervisor: &dyn Hypervisor, skipped: impl Fn(&TinyGuest) -> Option<&'static str>) {
    let mut wrong = Vec::new();
    for guest in all() {
        if let Some(why) = skipped(&guest) {
            println!("skipped: {}: QEMU runs this machine, and {why}", guest.name);
            continue;
        }
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
    run_all(&Soft, |_| None);
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
        None => run_all(&kvm, why_skipped),
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

struct SlowGuest {
    vm: Arc<dyn Vm>,
    vcpu: Box<dyn Vcpu>,
    recorder: Arc<Recorder>,
}

/// A vCPU of KVM, also of a slow one, that will run this code in real mode.
fn slow_kvm(code: &[(u64, &[u8])]) -> Option<SlowGuest> {
    let kvm = match Kvm::open() {
        Ok(kvm) => kvm,
        Err(error) => {
            println!("skipped: {error}");
            return None;
        }
    };
    let ram = tiny_ram();
    for (gpa, bytes) in code {
        ram.write(*gpa, bytes).unwrap();
    }
    let vm = create_vm(&kvm, &ram);
    let recorder = Arc::new(Recorder::default());
    let mut vcpu = vm.create_vcpu(0, Arc::clone(&recorder) as _).unwrap();
    recorder.kick.get_or_init(|| vcpu.kicker());
    vcpu.reset(Some(&real_mode_state())).unwrap();
    Some(SlowGuest { vm, vcpu, recorder })
}

/// mov al, 0x5a; mov [0x3000], al; out NOTE, al; out END, al; jmp to itself
const NOTE_GUEST: [(u64, &[u8]); 1] = [(
    0x1000,
    &[
        0xb0, 0x5a, 0xa2, 0x00, 0x30, 0xe6, 0x13, 0xe6, 0x1f, 0xeb, 0xfe,
    ],
)];

#[test]
fn kvm_serves_ports_state_kicks_and_the_dirty_log_even_where_it_is_slow() {
    let Some(SlowGuest {
        vm,
        mut vcpu,
        recorder,
    }) = slow_kvm(&NOTE_GUEST)
    else {
        return;
    };
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

/// Reads the default memory type, tells it, and makes it uncached for the fixed ranges too.
const MEMORY_TYPE_GUEST: [(u64, &[u8]); 1] = [(
    0x1000,
    &[
        0x66, 0xb9, 0xff, 0x02, 0x00, 0x00, // mov ecx, IA32_MTRR_DEF_TYPE
        0x0f, 0x32, // rdmsr
        0x66, 0xe7, 0x13, // out NOTE, eax
        0x66, 0xb8, 0x00, 0x0c, 0x00, 0x00, // mov eax, enabled, uncached
        0x66, 0x31, 0xd2, // xor edx, edx
        0x0f, 0x30, // wrmsr
        0xe6, 0x1f, // out END, al
        0xeb, 0xfe, // jmp to itself
    ],
)];

#[test]
fn memory_types_of_kvm_move_with_a_vcpu_and_a_reset_forgets_them() {
    let Some(SlowGuest {
        mut vcpu, recorder, ..
    }) = slow_kvm(&MEMORY_TYPE_GUEST)
    else {
        return;
    };
    let types = [
        (0x2ff, 0xc06),
        (0x250, 0x0606_0606_0606_0606),
        (0x26f, 0x0505_0505_0505_0505),
        (0x200, 0x8000_0006),
        (0x201, 0xf_8000_0800),
        (0x20f, 0xf_c000_0800),
    ];
    let of = |state: &CpuState, wanted: u32| {
        let mut msrs = state.msrs.iter();
        msrs.find(|(index, _)| *index == wanted).map(|(_, it)| *it)
    };
    let mut state = vcpu.state().unwrap();
    assert!(
        types
            .iter()
            .all(|(index, _)| of(&state.cpu, *index) == Some(0))
    );
    state.cpu.msrs.extend(types);
    vcpu.set_state(&state).unwrap();
    let moved = vcpu.state().unwrap();
    let kept = types.map(|(index, _)| (index, of(&moved.cpu, index).unwrap()));
    assert_eq!(kept, types);

    assert_eq!(run_limited(vcpu.as_mut()).unwrap(), VcpuExit::Kicked);
    assert_eq!(*recorder.seen.lock().unwrap(), [(port::NOTE, 0xc06)]);
    let state = vcpu.state().unwrap();
    assert_eq!(of(&state.cpu, 0x2ff), Some(0xc00), "what the guest wrote");
    vcpu.reset(None).unwrap();
    assert_eq!(of(&vcpu.state().unwrap().cpu, 0x2ff), Some(0));
}

/// in al, NOTE; jmp to itself
const INPUT_GUEST: [(u64, &[u8]); 1] = [(0x1000, &[0xe4, 0x13, 0xeb, 0xfe])];

#[test]
fn kvm_has_finished_an_access_when_a_kick_returns() {
    let Some(SlowGuest {
        mut vcpu, recorder, ..
    }) = slow_kvm(&INPUT_GUEST)
    else {
        return;
    };
    recorder.kick_at_input.store(true, Ordering::SeqCst);
    assert_eq!(run_limited(vcpu.as_mut()).unwrap(), VcpuExit::Kicked);
    let state = vcpu.state().unwrap().cpu;
    assert_eq!((state.gpr[0] & 0xff, state.rip), (0xff, 0x1002));
}

/// Switches the local APIC to x2APIC and on, asks for an interrupt and waits. Its handler tells and ends.
const X2APIC_GUEST: [(u64, &[u8]); 3] = [
    (0x40 * 4, &[0x00, 0x11, 0x00, 0x00]),
    (
        0x1000,
        &[
            0x66, 0xb9, 0x1b, 0x00, 0x00, 0x00, // mov ecx, IA32_APIC_BASE
            0x0f, 0x32, // rdmsr
            0x80, 0xcc, 0x0c, // or ah, 0xc: enabled, x2APIC
            0x0f, 0x30, // wrmsr
            0x66, 0xb9, 0x0f, 0x08, 0x00, 0x00, // mov ecx, spurious-interrupt vector register
            0x66, 0xb8, 0xff, 0x01, 0x00, 0x00, // mov eax, enabled
            0x66, 0x31, 0xd2, // xor edx, edx
            0x0f, 0x30, // wrmsr
            0xfb, // sti
            0xe6, 0x19, // out INTERRUPT, al
            0xf4, // hlt
            0xeb, 0xfd, // jmp to hlt
        ],
    ),
    // mov al, 0x41; out NOTE, al; out END, al; jmp to itself
    (0x1100, &[0xb0, 0x41, 0xe6, 0x13, 0xe6, 0x1f, 0xeb, 0xfe]),
];

#[test]
fn kvm_turns_bound_events_into_interrupts() {
    let Some(SlowGuest {
        vm,
        mut vcpu,
        recorder,
    }) = slow_kvm(&X2APIC_GUEST)
    else {
        return;
    };
    let event = EventFd::new(nix::libc::EFD_NONBLOCK).unwrap();
    let bound = vm.bind_msi(&event).unwrap().unwrap();
    let message = MsiMessage {
        address: 0xfee0_0000,
        data: 0x40,
    };
    bound.set_message(Some(message)).unwrap();
    recorder.event.set(event.try_clone().unwrap()).unwrap();
    assert_eq!(run_limited(vcpu.as_mut()).unwrap(), VcpuExit::Kicked);
    assert_eq!(*recorder.seen.lock().unwrap(), [(port::NOTE, 0x41)]);
    assert!(event.read().is_err(), "the kernel has taken the event");
    bound.set_message(None).unwrap();
    event.write(1).unwrap();
    assert_eq!(event.read().unwrap(), 1, "a masked event waits");
    drop(bound);
    event.write(1).unwrap();
    assert_eq!(event.read().unwrap(), 1, "nobody takes an unbound event");
}

#[test]
fn the_software_back_end_leaves_events_to_its_callers() {
    let vm = create_vm(&Soft, &tiny_ram());
    let event = EventFd::new(0).unwrap();
    assert!(vm.bind_msi(&event).unwrap().is_none());
}
