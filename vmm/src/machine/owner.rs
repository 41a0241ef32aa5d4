//! The machine's owner: the one thread that decides over its life.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Instant;

use devices::{PlatformEvent, ResetSource};

use super::event::{EventLog, MachineEnd, MachineEvent};
use super::reset_limit::ResetLimit;
use super::vcpu_thread::VcpuThread;
use super::{Command, Image, MachineError};
use crate::board::Board;
use crate::error_chain;
use crate::hv::{HvError, VcpuExit, Vm};

/// Everything a machine is made of, in the order in which it is taken apart.
pub(super) struct Owner {
    vcpus: Vec<VcpuThread>,
    board: Arc<Board>,
    vm: Arc<dyn Vm>,
    image: Image,
    inbox: Receiver<Command>,
    events: Arc<EventLog>,
    is_paused: bool,
    faults: ResetLimit,
}

impl Owner {
    pub(super) fn new(
        image: Image,
        vm: Arc<dyn Vm>,
        board: Arc<Board>,
        vcpus: Vec<VcpuThread>,
        inbox: Receiver<Command>,
    ) -> Self {
        Self {
            vcpus,
            board,
            vm,
            image,
            inbox,
            events: Arc::default(),
            is_paused: false,
            faults: ResetLimit::default(),
        }
    }

    pub(super) fn events(&self) -> Arc<EventLog> {
        Arc::clone(&self.events)
    }

    /// Loads the boot source and lets the vCPUs run.
    pub(super) fn boot(&mut self) -> Result<(), MachineError> {
        let start = self.image.load()?;
        for (id, vcpu) in self.vcpus.iter().enumerate() {
            let start = (id == 0).then(|| start.clone());
            match vcpu.with(move |vcpu| vcpu.reset(start.as_ref())) {
                Some(result) => result?,
                None => return Err(MachineError::Ended),
            }
        }
        self.vcpus.iter().for_each(VcpuThread::run);
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
        };
        match &end {
            MachineEnd::PoweredOff => self.events.report(MachineEvent::PoweredOff),
            MachineEnd::Failed(why) => self.events.report(MachineEvent::Failed(why.clone())),
            MachineEnd::Killed => {}
        }
        self.stop_vcpus();
        // Requests in flight end before the disks are closed.
        if !self.is_paused {
            self.board.pause();
        }
        self.events.close();
        end
    }

    fn serve(&mut self, command: Command) -> Option<MachineEnd> {
        match command {
            Command::Pause(answer) => {
                self.pause();
                Self::answer(&answer);
            }
            Command::Resume(answer) => {
                self.resume();
                Self::answer(&answer);
            }
            Command::Reset => return self.reset(None),
            Command::PowerButton => self.board.press_power_button(),
            Command::Nmi => self.vm.inject_nmi(),
            Command::Kill => return Some(MachineEnd::Killed),
            Command::Platform(event) => return self.serve_platform(event),
            Command::Disk(event) => self.events.report(MachineEvent::DiskError(event)),
            Command::Exit(vcpu, exit) => return self.serve_exit(vcpu, exit),
        }
        None
    }

    fn answer(answer: &SyncSender<()>) {
        if answer.send(()).is_err() {
            tracing::debug!("whoever commanded the machine did not wait for the answer");
        }
    }

    fn serve_platform(&mut self, event: PlatformEvent) -> Option<MachineEnd> {
        match event {
            PlatformEvent::Reset(source) => return self.reset(Some(source)),
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
        if self.is_paused {
            return;
        }
        self.stop_vcpus();
        self.board.pause();
        self.vm.paused();
        self.is_paused = true;
        self.events.report(MachineEvent::Paused);
    }

    fn resume(&mut self) {
        if !self.is_paused {
            return;
        }
        self.board.resume();
        self.vm.resumed();
        self.vcpus.iter().for_each(VcpuThread::run);
        self.is_paused = false;
        self.events.report(MachineEvent::Resumed);
    }

    /// Starts the machine anew; a paused one runs again.
    fn reset(&mut self, source: Option<ResetSource>) -> Option<MachineEnd> {
        self.stop_vcpus();
        if self.is_paused {
            self.resume();
            self.stop_vcpus();
        }
        self.board.reset();
        self.events.report(MachineEvent::Reset(source));
        let failed = self.boot().err()?;
        Some(MachineEnd::Failed(error_chain(&failed)))
    }
}
