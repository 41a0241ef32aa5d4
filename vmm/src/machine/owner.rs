//! The machine's owner: the one thread that decides over its life.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Instant;

use devices::{PlatformEvent, ResetSource};

use super::dump::Frozen;
use super::event::{EventLog, MachineEnd, MachineEvent};
use super::reset_limit::ResetLimit;
use super::stats::{Meter, Sources};
use super::vcpu_thread::VcpuThread;
use super::{Command, Image, MachineError, Orders};
use crate::board::Board;
use crate::boot;
use crate::config::BootSource;
use crate::error_chain;
use crate::hv::{CpuState, HvError, Vcpu, VcpuExit, Vm};

/// Puts a vCPU into its first state.
fn ready(
    vcpu: &mut dyn Vcpu,
    start: Option<&CpuState>,
    source: &BootSource,
) -> Result<(), HvError> {
    vcpu.reset(start)?;
    if start.is_some() {
        return Ok(());
    }
    let mut state = vcpu.state()?;
    if boot::prepare_waiting(source, &mut state.cpu) {
        vcpu.set_state(&state)?;
    }
    Ok(())
}

/// Everything a machine is made of, in the order in which it is taken apart.
pub(super) struct Owner {
    vcpus: Vec<VcpuThread>,
    board: Arc<Board>,
    vm: Arc<dyn Vm>,
    image: Image,
    inbox: Receiver<Command>,
    events: Arc<EventLog>,
    orders: Arc<Orders>,
    meter: Arc<Meter>,
    /// The machine waits for [`super::MachineHandle::resume`].
    is_paused: bool,
    /// vCPUs and devices stand still: the machine is paused or its memory is being dumped.
    is_still: bool,
    /// Memory dumps that are being written.
    dumps: usize,
    /// A reset that waits for the end of the dumps.
    waiting_reset: Option<Option<ResetSource>>,
    faults: ResetLimit,
}

impl Owner {
    pub(super) fn new(
        image: Image,
        vm: Arc<dyn Vm>,
        board: Arc<Board>,
        vcpus: Vec<VcpuThread>,
        inbox: Receiver<Command>,
        orders: Arc<Orders>,
    ) -> Self {
        let meter = Meter::new(Sources {
            vcpus: vcpus.iter().map(VcpuThread::watch).collect(),
            disks: board
                .disks()
                .iter()
                .cloned()
                .zip(image.config.disks.clone())
                .collect(),
            ram: image.ram.clone(),
        });
        Self {
            vcpus,
            board,
            vm,
            image,
            inbox,
            events: Arc::default(),
            orders,
            meter: Arc::new(meter),
            is_paused: false,
            is_still: false,
            dumps: 0,
            waiting_reset: None,
            faults: ResetLimit::default(),
        }
    }

    pub(super) fn events(&self) -> Arc<EventLog> {
        Arc::clone(&self.events)
    }

    pub(super) fn meter(&self) -> Arc<Meter> {
        Arc::clone(&self.meter)
    }

    /// Starts the machine for the first time.
    pub(super) fn start(&mut self) -> Result<(), MachineError> {
        self.load()?;
        if self.image.config.start_paused {
            self.pause();
        } else {
            self.vcpus.iter().for_each(VcpuThread::run);
        }
        Ok(())
    }

    /// Loads the boot source and readies the vCPUs.
    fn load(&mut self) -> Result<(), MachineError> {
        let start = self.image.load()?;
        for (id, vcpu) in self.vcpus.iter().enumerate() {
            let start = (id == 0).then(|| start.clone());
            let source = self.image.config.boot.clone();
            let job = move |vcpu: &mut dyn Vcpu| ready(vcpu, start.as_ref(), &source);
            vcpu.with(job).ok_or(MachineError::Ended)??;
        }
        Ok(())
    }

    /// Serves commands until the machine ends.
    pub(super) fn run(mut self) -> MachineEnd {
        let end = loop {
            let Ok(command) = self.inbox.recv() else {
                break MachineEnd::Killed;
            };
            if let Some(end) = self.serve(command) {
                break end;
            }
            self.stop_for_disks();
            self.report_ports();
        };
        match &end {
            MachineEnd::PoweredOff => self.events.report(MachineEvent::PoweredOff),
            MachineEnd::Failed(why) => self.events.report(MachineEvent::Failed(why.clone())),
            MachineEnd::Killed => {}
        }
        self.stop_vcpus();
        // Requests in flight end before the disks are closed.
        if !self.is_still {
            self.board.pause();
        }
        self.meter.end();
        self.events.close();
        end
    }

    fn serve(&mut self, command: Command) -> Option<MachineEnd> {
        match command {
            Command::Pause(answer) => {
                self.pause();
                Self::answer(&answer, ());
            }
            Command::Resume(answer) => {
                self.resume();
                Self::answer(&answer, ());
            }
            Command::BeginDump(answer) => {
                let frozen = self.begin_dump();
                Self::answer(&answer, frozen);
            }
            Command::EndDump => return self.end_dump(),
            Command::Reset => return self.reset(None),
            Command::PowerButton => self.board.press_power_button(),
            Command::Nmi => self.vm.inject_nmi(),
            Command::Kill => return Some(MachineEnd::Killed),
            Command::Platform(event) => return self.serve_platform(event),
            Command::Disk(event) => self.events.report(MachineEvent::DiskError(event)),
            Command::Ejected(disk) => self.events.report(MachineEvent::MediumEjected { disk }),
            Command::LookAtOrders => {}
            Command::Exit(vcpu, exit) => return self.serve_exit(vcpu, exit),
        }
        None
    }

    fn answer<R>(answer: &SyncSender<R>, value: R) {
        if answer.send(value).is_err() {
            tracing::debug!("whoever commanded the machine did not wait for the answer");
        }
    }

    fn serve_platform(&mut self, event: PlatformEvent) -> Option<MachineEnd> {
        match event {
            PlatformEvent::Reset(source) => return self.reset(Some(source)),
            PlatformEvent::PowerOff if self.orders.take_reset_on_power_off() => {
                return self.reset(None);
            }
            PlatformEvent::PowerOff => return Some(MachineEnd::PoweredOff),
            PlatformEvent::Panicked => self.events.report(MachineEvent::Panicked),
            PlatformEvent::CrashLoaded => self.events.report(MachineEvent::CrashLoaded),
            PlatformEvent::ShutDown => {}
        }
        None
    }

    fn serve_exit(&mut self, vcpu: u32, exit: Result<VcpuExit, HvError>) -> Option<MachineEnd> {
        match exit {
            Ok(VcpuExit::Kicked) => None,
            Ok(VcpuExit::Reset) => self.reset(None),
            Ok(VcpuExit::Shutdown) => {
                self.events.report(MachineEvent::TripleFault { vcpu });
                if self.faults.admit(Instant::now()) {
                    return self.reset(None);
                }
                let why = format!("vcpu {vcpu} ends in triple faults again and again");
                Some(MachineEnd::Failed(why))
            }
            Err(error) => Some(MachineEnd::Failed(error_chain(&error))),
        }
    }

    fn stop_vcpus(&self) {
        self.vcpus.iter().for_each(VcpuThread::park);
        self.vcpus.iter().for_each(VcpuThread::wait_parked);
    }

    fn pause(&mut self) {
        if !self.is_paused {
            self.is_paused = true;
            self.settle();
            self.events.report(MachineEvent::Paused);
        }
    }

    fn resume(&mut self) {
        if self.is_paused {
            self.is_paused = false;
            self.settle();
            self.events.report(MachineEvent::Resumed);
        }
    }

    /// Stops the machine or lets it run, as it is wanted.
    fn settle(&mut self) {
        let be_still = self.is_paused || self.dumps > 0;
        if be_still == self.is_still {
            return;
        }
        self.is_still = be_still;
        if be_still {
            self.stop_vcpus();
            self.board.pause();
            self.vm.paused();
        } else {
            self.board.resume();
            self.vm.resumed();
            self.vcpus.iter().for_each(VcpuThread::run);
        }
    }

    /// Pauses the machine if a disk's error policy wants that.
    fn stop_for_disks(&mut self) {
        for event in self.orders.take_stopped_disks() {
            self.events.report(MachineEvent::DiskStopped {
                disk: event.device,
                reason: event.error,
            });
            self.pause();
        }
    }

    fn report_ports(&self) {
        for (name, open) in self.orders.take_changed_ports() {
            self.events.report(MachineEvent::PortOpened { name, open });
        }
    }

    fn begin_dump(&mut self) -> Frozen {
        self.dumps += 1;
        self.settle();
        let states = self.vcpus.iter().map(|vcpu| vcpu.with(|vcpu| vcpu.state()));
        Frozen {
            ram: self.image.ram.clone(),
            // A vCPU that gives no answer has ended the machine already.
            vcpus: states.flatten().flatten().map(|state| state.cpu).collect(),
        }
    }

    fn end_dump(&mut self) -> Option<MachineEnd> {
        self.dumps = self.dumps.saturating_sub(1);
        if self.dumps == 0
            && let Some(source) = self.waiting_reset.take()
        {
            return self.reset(source);
        }
        self.settle();
        None
    }

    /// Starts the machine anew; a paused one runs again.
    fn reset(&mut self, source: Option<ResetSource>) -> Option<MachineEnd> {
        if self.dumps > 0 {
            self.waiting_reset = Some(source);
            return None;
        }
        self.resume();
        self.settle();
        self.stop_vcpus();
        self.board.reset();
        self.events.report(MachineEvent::Reset(source));
        if let Err(failed) = self.load() {
            return Some(MachineEnd::Failed(error_chain(&failed)));
        }
        self.vcpus.iter().for_each(VcpuThread::run);
        None
    }
}
