//! What stands beside a software CPU: the board, its local APIC, its paravirtual clock.

use std::sync::Arc;
use std::time::Duration;

use devices::apic::{
    ApicEvents, LEN_BYTES, LocalApic, MSR_APIC_BASE, MSR_TSC_DEADLINE, MSR_X2APIC,
};
use devices::{Device, Mmio};
use x86::{Bus, CpuState};

use super::doorbell::Doorbell;
use super::model::Model;
use super::time::VcpuTsc;
use crate::hv::Board;
use crate::memory::Ram;

const APIC_BASE_ENABLED: u64 = 1 << 11;
const APIC_BASE_ADDRESS: u64 = 0xf_ffff_ffff_f000;
const X2APIC_LAST: u32 = 0x8ff;

/// MSRs of KVM's paravirtual clock.
const MSR_WALL_CLOCK: u32 = 0x4b56_4d00;
const MSR_SYSTEM_TIME: u32 = 0x4b56_4d01;
const SYSTEM_TIME_ENABLED: u64 = 1;

/// The surroundings of one vCPU, on its thread.
pub(super) struct Side {
    board: Arc<dyn Board>,
    apic: Arc<LocalApic>,
    bell: Arc<Doorbell>,
    tsc: Arc<VcpuTsc>,
    ram: Ram,
    model: Model,
    /// INIT and SIPI wait until the CPU has left its loop.
    start_events: ApicEvents,
    nmi: bool,
    wall_clock: u64,
    system_time: u64,
    /// Version of the clock's structure: even, and new with every write.
    clock_version: u32,
}

impl Side {
    pub(super) fn new(
        board: Arc<dyn Board>,
        apic: Arc<LocalApic>,
        bell: Arc<Doorbell>,
        tsc: Arc<VcpuTsc>,
        ram: Ram,
        model: Model,
    ) -> Self {
        Self {
            board,
            apic,
            bell,
            tsc,
            ram,
            model,
            start_events: ApicEvents::default(),
            nmi: false,
            wall_clock: 0,
            system_time: 0,
            clock_version: 0,
        }
    }

    pub(super) fn apic(&self) -> &LocalApic {
        &self.apic
    }

    /// Takes over what the local APIC has for this CPU whatever its flags say.
    fn collect_events(&mut self) {
        let events = self.apic.take_events();
        self.nmi |= events.nmi;
        self.start_events.init |= events.init;
        if events.sipi.is_some() {
            self.start_events.sipi = events.sipi;
        }
    }

    /// Takes INIT and SIPI.
    pub(super) fn take_start_events(&mut self) -> ApicEvents {
        self.collect_events();
        std::mem::take(&mut self.start_events)
    }

    /// Learns what the guest's time-stamp counter is ahead of the host's.
    pub(super) fn set_tsc_offset(&self, offset: u64) {
        self.tsc.set_offset(offset);
    }

    /// Returns to the state after power-on.
    pub(super) fn reset(&mut self) {
        self.apic.reset();
        self.start_events = ApicEvents::default();
        self.nmi = false;
        self.wall_clock = 0;
        self.system_time = 0;
    }

    /// Sleeps until something is due for a CPU that halts, or `most` is over; returns whether nothing was.
    pub(super) fn sleep(&mut self, most: Option<Duration>) -> bool {
        let due_ns = self.apic.next_deadline_ns();
        let left = due_ns
            .map(|due_ns| Duration::from_nanos(due_ns.saturating_sub(self.tsc.time().now_ns())));
        let timeout = most.into_iter().chain(left).min();
        let rang = timeout != Some(Duration::ZERO) && self.bell.sleep(timeout);
        !self.fire_timer() && !rang
    }

    /// Lets the timer go off if it is due; returns whether it was.
    fn fire_timer(&mut self) -> bool {
        let Some(due_ns) = self.apic.next_deadline_ns() else {
            return false;
        };
        let now_ns = self.tsc.time().now_ns();
        if due_ns <= now_ns {
            self.apic.fire(now_ns);
        }
        due_ns <= now_ns
    }

    /// Writes the guest's clock anew, which others do not see half-written: the version is odd meanwhile.
    pub(super) fn refresh_clock(&mut self) {
        if self.system_time & SYSTEM_TIME_ENABLED == 0 {
            return;
        }
        let gpa = self.system_time & !SYSTEM_TIME_ENABLED;
        self.clock_version = self.clock_version.wrapping_add(2);
        let odd = self.clock_version.wrapping_sub(1);
        // A guest that put its clock outside its RAM has none.
        let written = self
            .ram
            .write(gpa, &odd.to_le_bytes())
            .and_then(|()| self.ram.write(gpa, &self.tsc.pvclock(odd)))
            .and_then(|()| self.ram.write(gpa, &self.clock_version.to_le_bytes()));
        if let Err(error) = written {
            tracing::debug!(%error, "the guest's clock lies outside its memory");
        }
    }

    fn write_wall_clock(&mut self, gpa: u64) {
        self.wall_clock = gpa;
        if let Err(error) = self.ram.write(gpa, &self.tsc.time().wall_clock(2)) {
            tracing::debug!(%error, "the guest's wall clock lies outside its memory");
        }
    }

    /// Adds the registers that live here to a saved state.
    pub(super) fn save_msrs(&self, state: &mut CpuState) {
        state.cr8 = self.apic.cr8();
        state.msrs.push((MSR_WALL_CLOCK, self.wall_clock));
        state.msrs.push((MSR_SYSTEM_TIME, self.system_time));
    }

    /// Takes the registers that live here from a saved state.
    pub(super) fn restore_msrs(&mut self, state: &CpuState) {
        let find = |wanted| state.msrs.iter().find(|(index, _)| *index == wanted);
        self.wall_clock = find(MSR_WALL_CLOCK).map_or(0, |(_, value)| *value);
        self.system_time = find(MSR_SYSTEM_TIME).map_or(0, |(_, value)| *value);
        self.refresh_clock();
    }

    /// Returns the offset in the local APIC's registers, if `gpa` lies there.
    fn apic_offset(&self, gpa: u64) -> Option<u64> {
        let base = self.apic.apic_base();
        let offset = gpa.wrapping_sub(base & APIC_BASE_ADDRESS);
        (base & APIC_BASE_ENABLED != 0 && offset < LEN_BYTES).then_some(offset)
    }
}

impl Bus for Side {
    fn port_in(&mut self, port: u16, size: u8) -> u32 {
        let mut data = [0; 4];
        let len = usize::from(size).min(4);
        self.board.port_read(port, &mut data[..len]);
        u32::from_le_bytes(data)
    }

    fn port_out(&mut self, port: u16, size: u8, value: u32) {
        let len = usize::from(size).min(4);
        self.board.port_write(port, &value.to_le_bytes()[..len]);
    }

    fn mmio_read(&mut self, gpa: u64, data: &mut [u8]) {
        match self.apic_offset(gpa) {
            Some(offset) => self.apic.mmio_read(offset, data),
            None => self.board.mmio_read(gpa, data),
        }
    }

    fn mmio_write(&mut self, gpa: u64, data: &[u8]) {
        match self.apic_offset(gpa) {
            Some(offset) => self.apic.mmio_write(offset, data),
            None => self.board.mmio_write(gpa, data),
        }
    }

    fn msr_read(&mut self, index: u32) -> Option<u64> {
        match index {
            MSR_APIC_BASE | MSR_TSC_DEADLINE | MSR_X2APIC..=X2APIC_LAST => {
                self.apic.msr_read(index)
            }
            MSR_WALL_CLOCK => Some(self.wall_clock),
            MSR_SYSTEM_TIME => Some(self.system_time),
            _ => None,
        }
    }

    fn msr_write(&mut self, index: u32, value: u64) -> Option<()> {
        match index {
            MSR_APIC_BASE | MSR_TSC_DEADLINE | MSR_X2APIC..=X2APIC_LAST => {
                self.apic.msr_write(index, value).ok()?;
            }
            MSR_WALL_CLOCK => self.write_wall_clock(value),
            MSR_SYSTEM_TIME => {
                self.system_time = value;
                self.refresh_clock();
            }
            _ => return None,
        }
        Some(())
    }

    fn cr8(&mut self) -> u8 {
        self.apic.cr8().to_le_bytes()[0]
    }

    fn set_cr8(&mut self, value: u8) {
        self.apic.set_cr8(u64::from(value));
    }

    fn cpuid(&mut self, leaf: u32, subleaf: u32) -> [u32; 4] {
        self.model.cpuid(self.apic.id(), leaf, subleaf)
    }

    fn interrupt_pending(&mut self) -> bool {
        self.apic.pending_vector().is_some()
    }

    fn acknowledge_interrupt(&mut self) -> Option<u8> {
        self.apic.acknowledge()
    }

    fn take_nmi(&mut self) -> bool {
        self.collect_events();
        if self.start_events != ApicEvents::default() {
            self.bell.leave();
        }
        std::mem::take(&mut self.nmi)
    }

    fn tsc_offset_changed(&mut self, offset: u64) {
        self.tsc.set_offset(offset);
        self.refresh_clock();
    }

    fn tick(&mut self) {
        self.fire_timer();
    }
}
