//! Measures whether the host's KVM runs unmodified guests.
//!
//! `/dev/kvm` may open, report every capability and still run guest kernels by instruction emulation,
//! a thousand times slower than hardware, without SSE in ring 0 and without a working SYSCALL. So
//! tiny guests try what every kernel does: SSE in ring 0, a counted loop, and SYSCALL from ring 3.
//! Every step is cut off at a time limit, whatever the host does. The loop comes last and is tried several times, of
//! which the best counts: the first entries into a guest fill caches and page tables of the host, and a busy host
//! preempts. Where another step failed already, one try is enough to tell the speed.

#![expect(
    unsafe_code,
    reason = "a memory slot gives the guest's memory to the kernel"
)]

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{VcpuExit, VcpuFd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};
use x86::{CpuState, Segment, TableRegister};

use super::kick::Kicker;
use super::{Kvm, host, registers};
use crate::hv::{HvError, Kick};

/// Least speed of a usable KVM in million instructions a second: nested hardware virtualisation
/// reaches several times this, instruction emulation a fiftieth.
const MIPS_MIN: u64 = 100;
/// One try of the loop; hardware needs a tenth of a millisecond.
const LOOP_LIMIT: Duration = Duration::from_millis(8);
/// Tries of the loop: one to warm up the host, three for luck on a busy one.
const LOOP_TRIES: usize = 4;
/// Each other step, which hardware runs in microseconds and an emulator refuses as quickly: it is for a busy host.
const STEP_LIMIT: Duration = Duration::from_millis(100);
const LOOPS: u32 = 200_000;
const LOOP_INSTRUCTIONS: u64 = 2;

const MEMORY_BYTES: usize = 2 << 20;
const PML4_GPA: u64 = 0x1000;
const PDPT_GPA: u64 = 0x2000;
const PD_GPA: u64 = 0x3000;
const GDT_GPA: u64 = 0x4000;
const LOOP_GPA: u64 = 0x5000;
const SSE_GPA: u64 = 0x5100;
const TO_USER_GPA: u64 = 0x5200;
const USER_GPA: u64 = 0x6000;
const ENTRY_GPA: u64 = 0x7000;
const STACK_GPA: u64 = 0x9000;
/// Present, writable, for users.
const TABLE_FLAGS: u64 = 7;
const PAGE_FLAGS: u64 = 0x87;

/// The port at which a step ends.
const PORT: u16 = 0x10;

/// The counted loop, with the number of rounds in ECX.
const LOOP: [u8; 6] = [
    0xff, 0xc9, // dec ecx
    0x75, 0xfc, // jnz to dec
    0xe6, 0x10, // out PORT, al
];
/// SSE in ring 0.
const SSE: [u8; 10] = [
    0x66, 0x0f, 0xef, 0xc0, // pxor xmm0, xmm0
    0x66, 0x0f, 0xfe, 0xc0, // paddd xmm0, xmm0
    0xe6, 0x10, // out PORT, al
];
/// SYSRET to the ring 3 code that RCX names.
const TO_USER: [u8; 3] = [0x48, 0x0f, 0x07];
/// Ring 3: SYSCALL.
const USER: [u8; 4] = [0x0f, 0x05, 0xeb, 0xfe];
/// Ring 0 again: tells its code segment.
const ENTRY: [u8; 4] = [
    0x8c, 0xc8, // mov eax, cs
    0xe6, 0x10, // out PORT, al
];

const CODE_SELECTOR: u16 = 0x08;
const CODE_BYTE: u8 = 0x08;
const DATA_SELECTOR: u16 = 0x10;
/// Null, code, data, user data, user code: in the order that SYSCALL and SYSRET want.
const GDT: [u64; 6] = [
    0,
    0x00af_9b00_0000_ffff,
    0x00cf_9300_0000_ffff,
    0,
    0x00cf_f300_0000_ffff,
    0x00af_fb00_0000_ffff,
];
const STAR: (u32, u64) = (0xc000_0081, 0x0013_0008_0000_0000);
const LSTAR: (u32, u64) = (0xc000_0082, ENTRY_GPA);

/// What the measurement found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measurement {
    /// Million instructions a second in ring 0.
    pub mips: Option<u64>,
    /// What an unmodified guest would stumble over; `None` if KVM is usable.
    pub problem: Option<String>,
}

/// Measures the host's KVM. Never hangs.
///
/// # Errors
/// If the host refuses a request that every KVM grants.
pub fn measure(kvm: &Kvm) -> Result<Measurement, HvError> {
    let mut found = Guest::new(kvm)?.run()?;
    if let Some(problem) = &mut found.problem {
        problem.push_str(&hints());
    }
    Ok(found)
}

struct Guest {
    vcpu: VcpuFd,
    /// The VM goes before the memory that it maps.
    _vm: kvm_ioctls::VmFd,
    _memory: GuestMemoryMmap,
}

/// What a step came to.
struct Step {
    /// The byte that the guest wrote to the port, or what happened instead.
    end: Result<u8, String>,
    /// Time in the guest.
    elapsed: Duration,
}

fn segment(selector: u16, attributes: u16) -> Segment {
    Segment {
        selector,
        base: 0,
        limit: u32::MAX,
        attributes,
        unusable: false,
    }
}

fn start() -> CpuState {
    let mut state = CpuState::power_on();
    let data = segment(DATA_SELECTOR, 0xc093);
    let code = segment(CODE_SELECTOR, 0xa09b);
    state.segments = [data, code, data, data, data, data];
    state.gdtr = TableRegister {
        base: GDT_GPA,
        limit: 47,
    };
    state.cr0 = 0x8000_0033;
    state.cr3 = PML4_GPA;
    // PAE, OSFXSR, OSXMMEXCPT.
    state.cr4 = 0x620;
    // LMA, LME, SCE.
    state.efer = 0x501;
    state.gpr[4] = STACK_GPA;
    state.msrs = vec![STAR, LSTAR];
    state
}

impl Guest {
    fn new(kvm: &Kvm) -> Result<Self, HvError> {
        let memory = memory().ok_or_else(|| HvError::Host {
            request: "map memory for the probe",
            source: std::io::Error::last_os_error(),
        })?;
        let vm = kvm.kvm.create_vm().map_err(host("create a VM"))?;
        for (slot, region) in (0..).zip(memory.iter()) {
            let slot = kvm_userspace_memory_region {
                slot,
                guest_phys_addr: 0,
                memory_size: region.len(),
                userspace_addr: region.as_ptr().addr() as u64,
                flags: 0,
            };
            // SAFETY: the memory is mapped for as long as the guest, which owns it, has the VM.
            unsafe { vm.set_user_memory_region(slot) }.map_err(host("map the probe's memory"))?;
        }
        let vcpu = vm.create_vcpu(0).map_err(host("create a vCPU"))?;
        let supported = kvm
            .kvm
            .get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES)
            .map_err(host("read the CPUID that KVM supports"))?;
        vcpu.set_cpuid2(&supported).map_err(host("set CPUID"))?;
        Ok(Self {
            vcpu,
            _vm: vm,
            _memory: memory,
        })
    }

    /// Tries every step; the problems of all are told together.
    fn run(&mut self) -> Result<Measurement, HvError> {
        let mut problems = Vec::new();
        if let Err(why) = self.step(SSE_GPA, 0, STEP_LIMIT)?.end {
            problems.push(format!("it runs no SSE instructions in ring 0 ({why})"));
        }
        match self.step(TO_USER_GPA, USER_GPA, STEP_LIMIT)?.end {
            Ok(CODE_BYTE) => {}
            Ok(cs) => problems.push(format!("SYSCALL from ring 3 enters code segment {cs:#x}")),
            Err(why) => problems.push(format!("SYSCALL from ring 3 does not work ({why})")),
        }
        let tries = if problems.is_empty() { LOOP_TRIES } else { 1 };
        let mips = self.best_of_loops(tries)?;
        if mips < MIPS_MIN {
            problems.push(format!(
                "it runs {mips} million instructions a second in ring 0, less than {MIPS_MIN}"
            ));
        }
        Ok(Measurement {
            mips: Some(mips),
            problem: (!problems.is_empty()).then(|| problems.join(", ")),
        })
    }

    /// Repeats the loop until it is fast enough, or was given every chance.
    fn best_of_loops(&mut self, tries: usize) -> Result<u64, HvError> {
        let mut best = 0;
        for _ in 0..tries {
            best = best.max(self.run_loop()?);
            if best >= MIPS_MIN {
                break;
            }
        }
        Ok(best)
    }

    /// Measures the loop, also where it does not end in time: ECX tells how far it came.
    fn run_loop(&mut self) -> Result<u64, HvError> {
        let step = self.step(LOOP_GPA, u64::from(LOOPS), LOOP_LIMIT)?;
        let left = match step.end {
            Ok(_) => 0,
            Err(_) => self.vcpu.get_regs().map_err(host("read registers"))?.rcx,
        };
        Ok(mips(u64::from(LOOPS).saturating_sub(left), step.elapsed))
    }

    /// Runs the guest from `rip` until it writes to the port, under a time limit.
    fn step(&mut self, rip: u64, rcx: u64, limit: Duration) -> Result<Step, HvError> {
        let mut state = start();
        state.rip = rip;
        state.gpr[1] = rcx;
        state.gpr[11] = state.rflags;
        set(&self.vcpu, &state)?;
        let kicker = Kicker::new(&mut self.vcpu);
        kicker.enter();
        let (done, is_done) = channel::<()>();
        let watched = Arc::clone(&kicker);
        let watchdog = thread::Builder::new()
            .name("kvm-probe".to_owned())
            .spawn(move || {
                if is_done.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                    watched.kick();
                }
            })
            .map_err(|source| HvError::Host {
                request: "start the probe's watchdog",
                source,
            })?;
        let start = Instant::now();
        let end = self.await_port(limit);
        let elapsed = start.elapsed();
        drop(done);
        // The watchdog does nothing that can panic.
        drop(watchdog.join());
        kicker.take();
        kicker.leave();
        Ok(Step { end, elapsed })
    }

    fn await_port(&mut self, limit: Duration) -> Result<u8, String> {
        match self.vcpu.run() {
            Ok(VcpuExit::IoOut(PORT, [byte, ..])) => Ok(*byte),
            Ok(exit) => Err(format!("{exit:?}")),
            Err(error) if error.errno() == nix::libc::EINTR => {
                Err(format!("not done after {} ms", limit.as_millis()))
            }
            Err(error) => Err(error.to_string()),
        }
    }
}

fn set(vcpu: &VcpuFd, state: &CpuState) -> Result<(), HvError> {
    let base = vcpu
        .get_sregs()
        .map_err(host("read system registers"))?
        .apic_base;
    vcpu.set_sregs(&registers::sregs(state, base))
        .map_err(host("set system registers"))?;
    vcpu.set_regs(&registers::regs(state))
        .map_err(host("set registers"))?;
    for (index, data) in &state.msrs {
        let entry = kvm_bindings::kvm_msr_entry {
            index: *index,
            data: *data,
            ..kvm_bindings::kvm_msr_entry::default()
        };
        if let Ok(one) = kvm_bindings::Msrs::from_entries(&[entry]) {
            vcpu.set_msrs(&one).map_err(host("set MSRs"))?;
        }
    }
    Ok(())
}

fn mips(loops: u64, elapsed: Duration) -> u64 {
    let instructions = u128::from(loops) * u128::from(LOOP_INSTRUCTIONS);
    // Rounded up: a KVM that emulates runs about one.
    let mips = (instructions * 1000).div_ceil(elapsed.as_nanos().max(1));
    u64::try_from(mips).unwrap_or(u64::MAX)
}

fn memory() -> Option<GuestMemoryMmap> {
    let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), MEMORY_BYTES)]).ok()?;
    let put = |gpa: u64, bytes: &[u8]| memory.write_slice(bytes, GuestAddress(gpa)).ok();
    put(PML4_GPA, &(PDPT_GPA | TABLE_FLAGS).to_le_bytes())?;
    put(PDPT_GPA, &(PD_GPA | TABLE_FLAGS).to_le_bytes())?;
    put(PD_GPA, &PAGE_FLAGS.to_le_bytes())?;
    let gdt: Vec<u8> = GDT.into_iter().flat_map(u64::to_le_bytes).collect();
    put(GDT_GPA, &gdt)?;
    put(LOOP_GPA, &LOOP)?;
    put(SSE_GPA, &SSE)?;
    put(TO_USER_GPA, &TO_USER)?;
    put(USER_GPA, &USER)?;
    put(ENTRY_GPA, &ENTRY)?;
    Some(memory)
}

/// What the host says of itself that fits a KVM without hardware under it.
fn hints() -> String {
    let mut hints = Vec::new();
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let has = |flag: &str| info.split_whitespace().any(|word| word == flag);
    if !has("vmx") && !has("svm") {
        hints.push("the processor shows neither vmx nor svm");
    }
    let module = |name: &str| Path::new("/sys/module").join(name).exists();
    if module("kvm_pvm") {
        hints.push("the module kvm_pvm is loaded, which needs modified guests");
    }
    if hints.is_empty() {
        return String::new();
    }
    format!("; {}", hints.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_ends_quickly_and_says_what_it_found() {
        let kvm = match Kvm::open() {
            Ok(kvm) => kvm,
            Err(error) => {
                println!("skipped: {error}");
                return;
            }
        };
        let start = Instant::now();
        let found = measure(&kvm).unwrap();
        assert!(start.elapsed() < Duration::from_secs(2));
        let is_fast = found.mips.is_some_and(|mips| mips >= MIPS_MIN);
        assert!(is_fast || found.problem.is_some(), "{found:?}");
        if Path::new("/sys/module/kvm_pvm").exists() {
            assert!(found.problem.is_some(), "{found:?}");
        }
    }
}
