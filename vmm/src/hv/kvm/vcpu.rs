//! A vCPU of KVM.

#![expect(
    unsafe_code,
    reason = "reads unions of the run structure and makes a request that the crate lacks"
)]

use std::io;
use std::sync::Arc;

use devices::SavedDevice;
use kvm_bindings::{
    KVM_MP_STATE_RUNNABLE, KVM_MP_STATE_UNINITIALIZED, KVMIO, Msrs, kvm_interrupt, kvm_lapic_state,
    kvm_mp_state, kvm_msr_entry, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::{VcpuExit as Exit, VcpuFd};
use serde::{Deserialize, Serialize};
use vmm_sys_util::ioctl::ioctl_with_ref;
use vmm_sys_util::ioctl_iow_nr;
use x86::CpuState;

use super::kick::Kicker;
use super::{host, registers};
use crate::hv::{Board, HvError, Kick, Vcpu, VcpuExit, VcpuState};
use crate::memory::Ram;

ioctl_iow_nr!(KVM_INTERRUPT, KVMIO, 0x86, kvm_interrupt);

const APIC_BASE: u64 = 0xfee0_0800;
const APIC_BASE_BSP: u64 = 1 << 8;
const APIC_KIND: &str = "kvm-lapic";
const APIC_VERSION: u32 = 1;
/// KVM_SYSTEM_EVENT_RESET.
const EVENT_RESET: u32 = 2;
/// KVM splits the access of an instruction into no more than these.
const ACCESSES_MAX: usize = 4;
const XSAVE_BYTES: usize = 576;

/// The saved form of the kernel's local APIC: its register page and base.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ApicState {
    base: u64,
    registers: Vec<u8>,
}

pub(super) struct KvmVcpu {
    id: u32,
    fd: VcpuFd,
    board: Arc<dyn Board>,
    kicker: Arc<Kicker>,
    /// The local APIC after power-on.
    fresh_apic: kvm_lapic_state,
    /// Keeps the mappings that the guest runs in, should the VM go first.
    _ram: Ram,
}

impl Drop for KvmVcpu {
    fn drop(&mut self) {
        self.kicker.leave();
    }
}

/// An exit by port I/O, with its data still in the run structure.
enum Port {
    In(u16, *mut u8, usize),
    Out(u16, *const u8, usize),
}

impl KvmVcpu {
    pub(super) fn new(
        id: u32,
        mut fd: VcpuFd,
        board: Arc<dyn Board>,
        ram: Ram,
    ) -> Result<Self, HvError> {
        let kicker = Kicker::new(&mut fd);
        let fresh_apic = fd.get_lapic().map_err(host("read a local APIC"))?;
        Ok(Self {
            id,
            fd,
            board,
            kicker,
            fresh_apic,
            _ram: ram,
        })
    }

    pub(super) fn kicker_handle(&self) -> Arc<Kicker> {
        Arc::clone(&self.kicker)
    }

    /// Hands the PIC's interrupt to the guest, or asks for an exit as soon as it takes one.
    fn offer_pic(&mut self) -> Result<(), HvError> {
        if self.id != 0 {
            return Ok(());
        }
        let waits = self.board.peek_pic().is_some();
        let run = self.fd.get_kvm_run();
        let is_ready = run.ready_for_interrupt_injection != 0;
        run.request_interrupt_window = u8::from(waits && !is_ready);
        if !waits || !is_ready {
            return Ok(());
        }
        let Some(vector) = self.board.acknowledge_pic() else {
            return Ok(());
        };
        let interrupt = kvm_interrupt { irq: vector.into() };
        // SAFETY: the descriptor is a vCPU's and the structure is the one that the request takes.
        let result = unsafe { ioctl_with_ref(&self.fd, KVM_INTERRUPT(), &interrupt) };
        if result < 0 {
            return Err(HvError::Host {
                request: "deliver the PIC's interrupt",
                source: io::Error::last_os_error(),
            });
        }
        Ok(())
    }

    /// Lets KVM finish the instruction whose access was served last, and runs nothing else: registers are whole only
    /// then.
    fn finish_access(&mut self) -> Result<(), HvError> {
        for _ in 0..ACCESSES_MAX {
            self.kicker.hold();
            // Without an access to finish this is over at once.
            self.run_once()?;
        }
        self.kicker.release();
        Ok(())
    }

    /// Runs the guest once; `None` to go on.
    fn run_once(&mut self) -> Result<Option<VcpuExit>, HvError> {
        let port = match self.fd.run() {
            Ok(Exit::IoIn(port, data)) => Port::In(port, data.as_mut_ptr(), data.len()),
            Ok(Exit::IoOut(port, data)) => Port::Out(port, data.as_ptr(), data.len()),
            Ok(Exit::MmioRead(gpa, data)) => {
                self.board.mmio_read(gpa, data);
                return Ok(None);
            }
            Ok(Exit::MmioWrite(gpa, data)) => {
                self.board.mmio_write(gpa, data);
                return Ok(None);
            }
            Ok(Exit::IoapicEoi(vector)) => {
                self.board.end_of_interrupt(vector);
                return Ok(None);
            }
            Ok(Exit::IrqWindowOpen | Exit::Intr | Exit::Hlt) => return Ok(None),
            Ok(Exit::Shutdown) => return Ok(Some(VcpuExit::Shutdown)),
            Ok(Exit::SystemEvent(EVENT_RESET, _)) => return Ok(Some(VcpuExit::Reset)),
            Ok(Exit::X86Rdmsr(exit)) => {
                *exit.error = 1;
                return Ok(None);
            }
            Ok(Exit::X86Wrmsr(exit)) => {
                *exit.error = 1;
                return Ok(None);
            }
            Ok(other) => {
                let reason = format!("{other:?}");
                return Err(self.stuck(reason));
            }
            Err(error) if [nix::libc::EINTR, nix::libc::EAGAIN].contains(&error.errno()) => {
                return Ok(None);
            }
            Err(error) => return Err(host("run a vCPU")(error)),
        };
        self.serve_port(&port);
        Ok(None)
    }

    fn stuck(&self, reason: String) -> HvError {
        HvError::Stuck {
            id: self.id,
            reason,
            rip: self.fd.get_regs().map_or(0, |regs| regs.rip),
        }
    }

    /// Serves a port access; string instructions give several elements at once.
    fn serve_port(&mut self, port: &Port) {
        // SAFETY: the exit was one by port I/O, for which the kernel fills this part of the union.
        let io = unsafe { self.fd.get_kvm_run().__bindgen_anon_1.io };
        let size = usize::from(io.size).clamp(1, 4);
        match *port {
            Port::In(port, data, len) => {
                // SAFETY: the data lie in the run structure's pages, which stay mapped; nothing else
                // refers to them while the vCPU is out of the kernel.
                let data = unsafe { std::slice::from_raw_parts_mut(data, len) };
                for element in data.chunks_mut(size) {
                    self.board.port_read(port, element);
                }
            }
            Port::Out(port, data, len) => {
                // SAFETY: as above.
                let data = unsafe { std::slice::from_raw_parts(data, len) };
                for element in data.chunks(size) {
                    self.board.port_write(port, element);
                }
            }
        }
    }

    fn set_cpu(&self, state: &CpuState, apic_base: u64) -> Result<(), HvError> {
        let fd = &self.fd;
        fd.set_sregs(&registers::sregs(state, apic_base))
            .map_err(host("set system registers"))?;
        fd.set_regs(&registers::regs(state))
            .map_err(host("set registers"))?;
        fd.set_debug_regs(&registers::debug(state))
            .map_err(host("set debug registers"))?;
        self.set_extended(state)?;
        self.set_msrs(&state.msrs)?;
        let mut events = kvm_vcpu_events::default();
        events.interrupt.shadow = state.interrupt_shadow.into();
        events.nmi.masked = state.nmi_blocked.into();
        fd.set_vcpu_events(&events).map_err(host("set events"))
    }

    fn set_extended(&self, state: &CpuState) -> Result<(), HvError> {
        let mut image = kvm_xsave::default();
        for (word, bytes) in image.region.iter_mut().zip(state.xsave.chunks_exact(4)) {
            *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        // SAFETY: without dynamically enabled features, which we never ask for, the kernel reads no
        // more than the structure.
        unsafe { self.fd.set_xsave(&image) }.map_err(host("set extended state"))?;
        let mut xcrs = kvm_xcrs {
            nr_xcrs: 1,
            ..kvm_xcrs::default()
        };
        xcrs.xcrs[0].value = state.xcr0;
        self.fd.set_xcrs(&xcrs).map_err(host("set XCR0"))
    }

    fn set_msrs(&self, msrs: &[(u32, u64)]) -> Result<(), HvError> {
        for (index, data) in msrs
            .iter()
            .filter(|(index, _)| registers::MSRS.contains(index))
        {
            let entry = kvm_msr_entry {
                index: *index,
                data: *data,
                ..kvm_msr_entry::default()
            };
            let one =
                Msrs::from_entries(&[entry]).map_err(|_| self.stuck("set MSRs".to_owned()))?;
            self.fd.set_msrs(&one).map_err(host("set MSRs"))?;
        }
        Ok(())
    }

    fn cpu(&self) -> Result<(CpuState, u64), HvError> {
        let fd = &self.fd;
        let mut state = CpuState::power_on();
        registers::take_regs(&mut state, &fd.get_regs().map_err(host("read registers"))?);
        let sregs = fd.get_sregs().map_err(host("read system registers"))?;
        registers::take_sregs(&mut state, &sregs);
        let debug = fd.get_debug_regs().map_err(host("read debug registers"))?;
        registers::take_debug(&mut state, &debug);
        let image = fd.get_xsave().map_err(host("read extended state"))?;
        let words = image.region.iter().take(XSAVE_BYTES / 4);
        state.xsave = words.flat_map(|word| word.to_le_bytes()).collect();
        let xcrs = fd.get_xcrs().map_err(host("read XCR0"))?;
        state.xcr0 = xcrs.xcrs[0].value;
        let events = fd.get_vcpu_events().map_err(host("read events"))?;
        state.interrupt_shadow = events.interrupt.shadow != 0;
        state.nmi_blocked = events.nmi.masked != 0;
        state.msrs = self.msrs()?;
        Ok((state, sregs.apic_base))
    }

    fn msrs(&self) -> Result<Vec<(u32, u64)>, HvError> {
        let wanted = registers::MSRS.map(|index| kvm_msr_entry {
            index,
            ..kvm_msr_entry::default()
        });
        let mut msrs =
            Msrs::from_entries(&wanted).map_err(|_| self.stuck("read MSRs".to_owned()))?;
        let count = self.fd.get_msrs(&mut msrs).map_err(host("read MSRs"))?;
        let read = msrs.as_slice().iter().take(count);
        Ok(read.map(|entry| (entry.index, entry.data)).collect())
    }

    fn set_waiting(&self, waits: bool) -> Result<(), HvError> {
        let mp_state = if waits {
            KVM_MP_STATE_UNINITIALIZED
        } else {
            KVM_MP_STATE_RUNNABLE
        };
        self.fd
            .set_mp_state(kvm_mp_state { mp_state })
            .map_err(host("set the running state"))
    }
}

impl Vcpu for KvmVcpu {
    fn kicker(&self) -> Arc<dyn Kick> {
        self.kicker_handle()
    }

    fn run(&mut self) -> Result<VcpuExit, HvError> {
        self.kicker.enter();
        loop {
            if self.kicker.take() {
                self.finish_access()?;
                return Ok(VcpuExit::Kicked);
            }
            self.offer_pic()?;
            if let Some(exit) = self.run_once()? {
                return Ok(exit);
            }
        }
    }

    fn reset(&mut self, start: Option<&CpuState>) -> Result<(), HvError> {
        let is_boot = self.id == 0;
        let base = APIC_BASE | if is_boot { APIC_BASE_BSP } else { 0 };
        let mut first = start.cloned().unwrap_or_else(CpuState::power_on);
        registers::clear_others(&mut first.msrs);
        self.set_cpu(&first, base)?;
        self.fd
            .set_lapic(&self.fresh_apic)
            .map_err(host("set a local APIC"))?;
        self.set_waiting(start.is_none())
    }

    fn state(&mut self) -> Result<VcpuState, HvError> {
        let id = self.id;
        let (cpu, base) = self.cpu()?;
        let lapic = self.fd.get_lapic().map_err(host("read a local APIC"))?;
        let registers = lapic.regs.iter().map(|byte| byte.cast_unsigned());
        let apic = ApicState {
            base,
            registers: registers.collect(),
        };
        let mp_state = self
            .fd
            .get_mp_state()
            .map_err(host("read the running state"))?;
        Ok(VcpuState {
            cpu,
            apic: SavedDevice::new(APIC_KIND, APIC_VERSION, &apic)
                .map_err(|source| HvError::Save { id, source })?,
            waits_for_sipi: mp_state.mp_state == KVM_MP_STATE_UNINITIALIZED,
        })
    }

    fn set_state(&mut self, state: &VcpuState) -> Result<(), HvError> {
        let id = self.id;
        let apic: ApicState = state
            .apic
            .open(APIC_KIND, APIC_VERSION)
            .map_err(|source| HvError::Restore { id, source })?;
        self.set_cpu(&state.cpu, apic.base)?;
        let mut lapic = kvm_lapic_state::default();
        for (to, from) in lapic.regs.iter_mut().zip(&apic.registers) {
            *to = from.cast_signed();
        }
        self.fd
            .set_lapic(&lapic)
            .map_err(host("set a local APIC"))?;
        self.set_waiting(state.waits_for_sipi)
    }
}
