//! The software back end: every vCPU is an [`x86::Vcpu`] with a local APIC of ours beside it.
//!
//! ```text
//!   waits for SIPI --SIPI--> runs <--interrupt, NMI, timer-- sleeps
//!         ^                   |  \----------HLT---------------^
//!         \-------INIT--------/
//! ```

mod doorbell;
pub(crate) mod model;
mod side;
mod time;

use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use devices::apic::{ApicBus, EoiSink, ExternalInterrupts, LocalApic, LocalApicConfig};
use devices::clock::MachineClock;
use devices::{Device, MsiSink, Wake};
use x86::memory::Memory;
use x86::{CpuState, Exit};

use self::doorbell::Doorbell;
use self::model::Model;
use self::side::Side;
pub(crate) use self::time::host_khz as host_tsc_khz;
use self::time::{GuestTime, VcpuTsc};
use super::{Board, HvError, Hypervisor, Kick, Vcpu, VcpuExit, VcpuState, Vm, VmSetup};
use crate::memory::Ram;

/// A CPU that halts for this long gives back the memory of decoded code.
const REST_AFTER: Duration = Duration::from_millis(100);
/// How often it does at most: decoding all of it again costs up to 20 ms.
const REST_EVERY: Duration = Duration::from_secs(20);

/// The software CPU as a back end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Soft;

impl Hypervisor for Soft {
    fn create_vm(&self, setup: &VmSetup<'_>) -> Result<Arc<dyn Vm>, HvError> {
        let count = setup.cpus.count();
        let cpus = usize::try_from(count).map_err(|_| HvError::Model {
            field: "sockets",
            problem: "too many vCPUs".to_owned(),
        })?;
        let memory = setup.ram.for_software_cpus(cpus);
        let doorbells = (0..cpus)
            .map(|id| Arc::new(Doorbell::new(memory.attention(id))))
            .collect();
        let time = Arc::new(GuestTime::new(Arc::clone(&setup.clock)));
        let model = Model::new(setup.cpus, time.khz())?;
        Ok(Arc::new(SoftVm {
            memory,
            ram: setup.ram.clone(),
            apics: ApicBus::new(),
            clock: Arc::clone(&setup.clock),
            doorbells,
            time,
            model,
            ioapic_ends: OnceLock::new(),
        }))
    }
}

struct SoftVm {
    memory: Arc<Memory>,
    /// Keeps the mappings that `memory` points into.
    ram: Ram,
    apics: Arc<ApicBus>,
    clock: Arc<MachineClock>,
    doorbells: Vec<Arc<Doorbell>>,
    time: Arc<GuestTime>,
    model: Model,
    ioapic_ends: OnceLock<Arc<dyn EoiSink>>,
}

/// Lends the board's interrupt controllers to the local APICs.
struct Controllers(Weak<dyn Board>);

impl ExternalInterrupts for Controllers {
    fn peek(&self) -> Option<u8> {
        self.0.upgrade()?.peek_pic()
    }

    fn acknowledge(&self) -> Option<u8> {
        self.0.upgrade()?.acknowledge_pic()
    }
}

/// The same for the end of level interrupts.
struct IoapicEnds {
    board: Weak<dyn Board>,
}

impl EoiSink for IoapicEnds {
    fn eoi(&self, vector: u8) {
        if let Some(board) = self.board.upgrade() {
            board.end_of_interrupt(vector);
        }
    }
}

impl Vm for SoftVm {
    fn msi_sink(&self) -> Arc<dyn MsiSink> {
        Arc::clone(&self.apics) as Arc<dyn MsiSink>
    }

    fn intr(&self) -> Arc<dyn Wake> {
        Arc::clone(&self.doorbells[0]) as Arc<dyn Wake>
    }

    fn connect(&self, board: &Arc<dyn Board>) {
        let board = Arc::downgrade(board);
        self.apics
            .connect_pic(Arc::new(Controllers(Weak::clone(&board))));
        let ends: Arc<dyn EoiSink> = Arc::new(IoapicEnds { board });
        let ends = self.ioapic_ends.get_or_init(|| ends);
        self.apics.connect_ioapic(Arc::downgrade(ends));
    }

    fn create_vcpu(&self, id: u32, board: Arc<dyn Board>) -> Result<Box<dyn Vcpu>, HvError> {
        let index = usize::try_from(id).unwrap_or(usize::MAX);
        let Some(bell) = self.doorbells.get(index) else {
            let problem = format!("there is no vCPU {id}");
            return Err(HvError::Model {
                field: "sockets",
                problem,
            });
        };
        let tsc = Arc::new(VcpuTsc::new(Arc::clone(&self.time)));
        let apic = LocalApic::new(
            LocalApicConfig {
                id: self.model.apic_id(id),
                is_bsp: id == 0,
                clock: Arc::clone(&self.clock) as _,
                tsc: Arc::clone(&tsc) as _,
                wake: Arc::clone(bell) as _,
            },
            &self.apics,
        );
        let model = self.model.clone();
        let side = Side::new(board, apic, Arc::clone(bell), tsc, self.ram.clone(), model);
        let mut cpu = x86::Vcpu::new(index, Arc::clone(&self.memory));
        if id != 0 {
            cpu.init();
        }
        Ok(Box::new(SoftVcpu {
            id,
            cpu,
            side,
            bell: Arc::clone(bell),
            rested: None,
        }))
    }

    fn inject_nmi(&self) {
        self.apics.inject_nmi();
    }

    fn resumed(&self) {
        self.time.anchor();
        self.doorbells.iter().for_each(|bell| bell.wake());
    }
}

struct SoftVcpu {
    id: u32,
    cpu: x86::Vcpu,
    side: Side,
    bell: Arc<Doorbell>,
    /// When the memory of decoded code was last given back.
    rested: Option<Instant>,
}

impl SoftVcpu {
    /// Sleeps while the guest halts.
    fn sleep(&mut self) {
        let recently = |then: Instant| then.elapsed() < REST_EVERY;
        if !self.cpu.holds_much_code() || self.rested.is_some_and(recently) {
            self.side.sleep(None);
        } else if self.side.sleep(Some(REST_AFTER)) {
            self.cpu.release_code();
            self.rested = Some(Instant::now());
        }
    }

    /// Acts on INIT and SIPI.
    fn take_start_events(&mut self) {
        let events = self.side.take_start_events();
        if events.init {
            self.cpu.init();
        }
        if let Some(vector) = events.sipi {
            self.cpu.sipi(vector);
        }
    }

    fn set_cpu(&mut self, state: &CpuState) -> Result<(), HvError> {
        let id = self.id;
        self.cpu
            .set_state(state)
            .map_err(|source| HvError::State { id, source })
    }
}

impl Vcpu for SoftVcpu {
    fn kicker(&self) -> Arc<dyn Kick> {
        Arc::clone(&self.bell) as Arc<dyn Kick>
    }

    fn run(&mut self) -> Result<VcpuExit, HvError> {
        self.side.refresh_clock();
        loop {
            if self.bell.take_kick() {
                return Ok(VcpuExit::Kicked);
            }
            self.take_start_events();
            match self.cpu.run(&mut self.side) {
                Exit::Halt => self.sleep(),
                Exit::Shutdown => return Ok(VcpuExit::Shutdown),
                Exit::Kicked => {}
            }
        }
    }

    fn reset(&mut self, start: Option<&CpuState>) -> Result<(), HvError> {
        self.side.reset();
        self.cpu.reset();
        match start {
            Some(start) => self.set_cpu(start),
            None => {
                self.cpu.init();
                Ok(())
            }
        }
    }

    fn state(&mut self) -> Result<VcpuState, HvError> {
        let id = self.id;
        let mut cpu = self.cpu.state();
        self.side.save_msrs(&mut cpu);
        let apic = self.side.apic().save();
        Ok(VcpuState {
            cpu,
            apic: apic.map_err(|source| HvError::Save { id, source })?,
            waits_for_sipi: self.cpu.waits_for_sipi(),
        })
    }

    fn set_state(&mut self, state: &VcpuState) -> Result<(), HvError> {
        let id = self.id;
        self.set_cpu(&state.cpu)?;
        if state.waits_for_sipi {
            self.cpu.init();
        }
        self.side.set_tsc_offset(self.cpu.tsc_offset());
        self.side
            .apic()
            .restore(&state.apic)
            .map_err(|source| HvError::Restore { id, source })?;
        self.side.restore_msrs(&state.cpu);
        Ok(())
    }
}
