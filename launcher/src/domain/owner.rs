//! The thread `domain`: what it does with the machine.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::thread;

use api::{FieldError, Vmi};
use tokio::sync::{mpsc, watch};
use tracing::Span;
use vmm::machine::{Machine, MachineEnd, MachineError, MachineEvent, MachineHandle};
use vmm::probe::Backend;

use super::panic::Panic;
use super::state::{Activity, Ended, Facts, Paused};
use super::{
    DomainError, Published, Setup, Shared, Task, Warning, Wish, build, change, credentials,
    metrics, rfc3339, view,
};
use crate::agent::{Agent, AgentReport, Mode, PORT_NAME};
use crate::console::{Console, ConsoleSocket, GuestEnd};
use crate::state_dir::StateDir;
use crate::support::Remarks;
use crate::volumes::VolumePlan;

/// Reason of the event for a field that does nothing.
const NOT_HONOURED: &str = "FieldNotHonoured";
/// Reason of the event for a guest whose kernel panicked.
const GUEST_PANICKED: &str = "GuestPanicked";
/// Reason of the event for a machine that could not go on.
const MACHINE_FAILED: &str = "MachineFailed";
/// Reason of the event for a host that refuses a disk request.
const IO_ERROR: &str = "IOerror";

/// Owns the domain.
pub(super) struct Owner {
    pub(super) setup: Setup,
    /// For those who have news for the owner.
    pub(super) tasks: SyncSender<Task>,
    publisher: watch::Sender<Published>,
    warnings: mpsc::Sender<Warning>,
    shared: Arc<Shared>,
    /// `None` until a machine has started.
    pub(super) facts: Option<Facts>,
    /// `None` before the start and after the end.
    pub(super) running: Option<Running>,
    /// Whether the guest's kernel has panicked.
    pub(super) panic: Panic,
    /// Whether the pod is to end, known before there is a machine.
    marked_for_shutdown: bool,
}

/// A machine with what belongs to it.
pub(super) struct Running {
    pub(super) machine: MachineHandle,
    console: Console,
    agent: Option<Agent>,
    /// Those that are registered go with it.
    pub(super) files: StateDir,
    /// What its disks' volumes are.
    pub(super) plans: Vec<VolumePlan>,
}

pub(super) fn now() -> String {
    rfc3339(jiff::Timestamp::now())
}

fn panicked() -> (&'static str, String) {
    (GUEST_PANICKED, "the guest's kernel has panicked".to_owned())
}

pub(super) fn refused(what: &'static str) -> impl FnOnce(MachineError) -> DomainError {
    move |source| DomainError::Machine {
        what,
        source: Box::new(source),
    }
}

impl Owner {
    pub(super) fn new(
        setup: Setup,
        tasks: SyncSender<Task>,
        publisher: watch::Sender<Published>,
        warnings: mpsc::Sender<Warning>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            setup,
            tasks,
            publisher,
            warnings,
            shared,
            facts: None,
            running: None,
            panic: Panic::default(),
            marked_for_shutdown: false,
        }
    }

    /// Lets everyone see the facts as they are.
    pub(super) fn publish(&self) {
        let Some(facts) = &self.facts else { return };
        let report = self.agent().map(Agent::report).unwrap_or_default();
        let domain = view::domain(facts, &report);
        let stage = facts.stage();
        self.publisher.send_if_modified(|published| {
            let is_news = published.stage != stage || published.domain.as_deref() != Some(&domain);
            if is_news {
                published.revision += 1;
                published.domain = Some(Arc::new(domain));
                published.stage = stage;
            }
            is_news
        });
    }

    fn warn(&self, vmi: &Vmi, reason: &'static str, message: String) {
        let metadata = &vmi.metadata;
        let namespace = metadata.namespace_or_default().to_owned();
        let instance = [namespace, metadata.name.clone(), metadata.uid.clone()];
        let warning = Warning {
            instance,
            reason,
            message,
        };
        if self.warnings.try_send(warning).is_err() {
            tracing::warn!(reason, "an event was dropped: too many are waiting");
        }
    }

    fn agent(&self) -> Option<&Agent> {
        self.running.as_ref()?.agent.as_ref()
    }

    pub(super) fn machine(&self) -> Result<&Running, DomainError> {
        self.running.as_ref().ok_or(DomainError::NoMachine)
    }

    pub(super) fn sync(&mut self, wish: &Wish) -> Result<(), DomainError> {
        let Some(facts) = &self.facts else {
            return self.start(wish);
        };
        let (wanted, running) = (&wish.vmi.metadata.uid, &facts.vmi.metadata.uid);
        if wanted != running {
            return Err(DomainError::OtherInstance {
                wanted: wanted.clone(),
                running: running.clone(),
            });
        }
        if facts.activity == Activity::Paused(Paused::IoError) {
            tracing::info!("machine goes on after an I/O error");
            self.go_on()?;
        }
        self.change(&wish.vmi)
    }

    fn start(&mut self, wish: &Wish) -> Result<(), DomainError> {
        let mut built = build::build(wish, &self.setup)?;
        let console = Console::new();
        let closing = CloseOnDrop(Some(console.clone()));
        self.connect(&built.vmi, wish.log_console, &console, &mut built.files)?;
        let (guest, io) = GuestEnd::new(&console);
        let mut facts = Facts::new(wish, built.vmi, &built.config);
        facts.marked_for_shutdown = self.marked_for_shutdown;
        let machine = Machine::start(built.config, io).map_err(refused("start the machine"))?;
        let attended = guest.pump_input(&machine).map_err(DomainError::from);
        if let Err(error) = attended.and_then(|()| self.watch(&machine)) {
            // A thread that has started already would keep the machine.
            drop(machine.kill());
            return Err(error);
        }
        let backend = machine.backend();
        tracing::info!(backend = %backend.backend, reason = backend.reason, "machine runs");
        facts.is_kvm = backend.backend == Backend::Kvm;
        built.files.started();
        closing.keep();
        let agent = self.start_agent(built.layout.agent_socket());
        let running = Running {
            machine,
            console,
            agent,
            files: built.files,
            plans: built.plans,
        };
        self.serve_guest(&running, &facts);
        self.report(&facts.vmi, &built.remarks);
        *self.shared.machine() = Some(running.machine.clone());
        *self.shared.agent() = running.agent.clone();
        self.running = Some(running);
        self.facts = Some(facts);
        self.publish();
        Ok(())
    }

    /// Starts what a guest gets beside its machine; it runs without, too.
    fn serve_guest(&self, running: &Running, facts: &Facts) {
        let Running {
            machine,
            agent,
            plans,
            ..
        } = running;
        let started = metrics::keep_up(machine, plans);
        if let Err(error) = started {
            tracing::warn!(%error, "guest gets no metrics");
        }
        let Some(agent) = agent else { return };
        if let Activity::Paused(_) = facts.activity {
            agent.set_paused(true);
        }
        let started = credentials::keep_up(machine, agent, &facts.vmi, self.setup.place(), {
            let tasks = self.tasks.clone();
            move |outcome| {
                let task = move |owner: &mut Self| owner.credentials_went(outcome);
                // The owner ends with the process.
                drop(tasks.send(Box::new(task)));
            }
        });
        if let Err(error) = started {
            tracing::warn!(%error, "guest gets no credentials by its agent");
        }
    }

    fn credentials_went(&mut self, outcome: Result<(), String>) {
        if let Some(facts) = &mut self.facts {
            facts.credentials = Some(outcome);
            self.publish();
        }
    }

    /// Makes the console's socket and log.
    fn connect(
        &self,
        vmi: &Vmi,
        cluster_logs: bool,
        console: &Console,
        files: &mut StateDir,
    ) -> Result<(), DomainError> {
        let devices = &vmi.spec.domain.devices;
        if !devices.autoattach_serial_console.unwrap_or(true) {
            return Ok(());
        }
        let failed = |path: PathBuf| move |source| DomainError::Console { path, source };
        let uid = &vmi.metadata.uid;
        let socket = self.setup.paths.serial_socket(uid);
        files.claim_socket(&socket)?;
        ConsoleSocket::listen(&socket, console).map_err(failed(socket))?;
        if devices.log_serial_console.unwrap_or(cluster_logs) {
            let log = self.setup.paths.serial_log(uid);
            console.log_to(&log).map_err(failed(log))?;
        }
        Ok(())
    }

    /// A machine without its agent is a machine still.
    fn start_agent(&self, socket: PathBuf) -> Option<Agent> {
        let tasks = self.tasks.clone();
        let listener = move |_report: AgentReport| {
            // What is not taken now comes with the next change.
            drop(tasks.try_send(Box::new(|owner: &mut Self| owner.publish())));
        };
        let started = Agent::start(socket, Box::new(listener), self.setup.intervals);
        started
            .inspect_err(|error| tracing::warn!(%error, "guest agent is not looked for"))
            .ok()
    }

    /// Has the owner told what happens to the machine.
    fn watch(&self, machine: &MachineHandle) -> Result<(), DomainError> {
        let (machine, tasks) = (machine.clone(), self.tasks.clone());
        let span = Span::current();
        let tell = move || {
            for event in machine.events() {
                drop(tasks.send(Box::new(|owner: &mut Self| owner.happened(event))));
            }
            let end = machine.wait();
            drop(tasks.send(Box::new(move |owner: &mut Self| owner.ended(&end))));
        };
        let thread = thread::Builder::new().name("machine-events".to_owned());
        thread.spawn(move || span.in_scope(tell))?;
        Ok(())
    }

    fn report(&self, vmi: &Vmi, remarks: &Remarks) {
        for FieldError { path, message, .. } in &remarks.notes {
            tracing::info!(field = %path, reason = message, "field is not honoured");
        }
        for remark in &remarks.warnings {
            tracing::warn!(field = %remark.path, reason = remark.message, "field is not honoured");
            self.warn(vmi, NOT_HONOURED, remark.to_string());
        }
    }

    fn happened(&mut self, event: MachineEvent) {
        let Some(facts) = self.facts.as_mut().filter(|_| self.running.is_some()) else {
            return;
        };
        let warning = match event {
            MachineEvent::Reset(_) | MachineEvent::TripleFault { .. } => {
                self.panic.started_anew();
                if let Some(agent) = self.agent() {
                    agent.guest_reset();
                }
                None
            }
            MachineEvent::Panicked => self.guest_panicked().then(panicked),
            MachineEvent::CrashLoaded => {
                facts.panics = facts.panics.saturating_add(1);
                Some(panicked())
            }
            MachineEvent::DiskStopped { disk, reason } => {
                facts.activity = Activity::Paused(Paused::IoError);
                let text = format!("disk {disk}: {reason}: the machine is paused");
                Some((IO_ERROR, text))
            }
            MachineEvent::PortOpened { name, open } => {
                if let Some(agent) = self.agent().filter(|_| name == PORT_NAME) {
                    agent.port_opened(open);
                }
                None
            }
            MachineEvent::MediumEjected { disk } => {
                change::show_ejected(&mut facts.devices, &disk);
                None
            }
            MachineEvent::DiskError(error) => {
                tracing::error!(?error, "host refused a disk request");
                None
            }
            MachineEvent::Failed(reason) => Some((MACHINE_FAILED, reason)),
            other => {
                tracing::debug!(?other, "machine event");
                None
            }
        };
        if let Some((reason, message)) = warning
            && let Some(facts) = &self.facts
        {
            tracing::warn!(reason, message, "machine is in trouble");
            self.warn(&facts.vmi, reason, message);
        }
        self.publish();
    }

    fn ended(&mut self, end: &MachineEnd) {
        self.end_as(match end {
            MachineEnd::PoweredOff => Ended::Shutdown,
            MachineEnd::Killed => Ended::Destroyed,
            MachineEnd::Failed(_) => Ended::Failed,
        });
    }

    pub(super) fn end_as(&mut self, end: Ended) {
        let Some(facts) = &mut self.facts else { return };
        if matches!(facts.activity, Activity::Ended(_)) {
            return;
        }
        tracing::info!(?end, "machine has ended");
        facts.ended_at = Some(now());
        facts.activity = Activity::Ended(end);
        self.publish();
        *self.shared.machine() = None;
        *self.shared.agent() = None;
        if let Some(running) = self.running.take() {
            running.console.close();
        }
    }

    fn go_on(&mut self) -> Result<(), DomainError> {
        let running = self.machine()?;
        let agent = running.agent.clone();
        running
            .machine
            .resume()
            .map_err(refused("resume the machine"))?;
        if let Some(agent) = agent {
            agent.set_paused(false);
        }
        self.be(Activity::Running);
        self.wait_for_reboot();
        Ok(())
    }

    fn be(&mut self, activity: Activity) {
        if let Some(facts) = &mut self.facts
            && !matches!(facts.activity, Activity::Ended(_))
            && facts.activity != activity
        {
            facts.activity = activity;
            self.publish();
        }
    }

    pub(super) fn pause(&mut self) -> Result<(), DomainError> {
        let running = self.machine()?;
        running
            .machine
            .pause()
            .map_err(refused("pause the machine"))?;
        if let Some(agent) = &running.agent {
            agent.set_paused(true);
        }
        self.be(Activity::Paused(Paused::User));
        Ok(())
    }

    pub(super) fn unpause(&mut self) -> Result<(), DomainError> {
        self.go_on()
    }

    pub(super) fn reset(&mut self) -> Result<(), DomainError> {
        let running = self.machine()?;
        running
            .machine
            .reset()
            .map_err(refused("reset the machine"))
    }

    pub(super) fn soft_reboot(&mut self) -> Result<(), DomainError> {
        let Running { machine, agent, .. } = self.machine()?;
        if let Some(agent) = agent.as_ref().filter(|agent| agent.report().connected) {
            let agent = agent.clone();
            // The agent answers late or never when it obeys.
            return Ok(thread::Builder::new()
                .name("agent-reboot".to_owned())
                .spawn(move || {
                    if let Err(error) = agent.shutdown(Mode::Reboot) {
                        tracing::warn!(%error, "guest agent does not reboot the guest");
                    }
                })
                .map(drop)?);
        }
        machine.reset_on_power_off(true);
        machine
            .power_button()
            .map_err(refused("press the power button"))
    }

    pub(super) fn shutdown(&mut self) -> Result<(), DomainError> {
        let machine = &self.machine()?.machine;
        machine.reset_on_power_off(false);
        machine
            .power_button()
            .map_err(refused("press the power button"))?;
        if let Some(facts) = &mut self.facts
            && facts.shutdown_at.is_none()
        {
            facts.shutdown_at = Some(now());
            self.publish();
        }
        Ok(())
    }

    pub(super) fn kill(&mut self) -> Result<(), DomainError> {
        if let Some(Running { machine, .. }) = &self.running {
            // A machine that has ended needs no killing.
            drop(machine.kill());
            let end = machine.wait();
            self.ended(&end);
        }
        Ok(())
    }

    pub(super) fn delete(&mut self) -> Result<(), DomainError> {
        self.kill()?;
        if let Some(facts) = &mut self.facts
            && !facts.is_deleted
        {
            facts.is_deleted = true;
            self.publish();
        }
        Ok(())
    }

    pub(super) fn mark_for_shutdown(&mut self) -> Result<(), DomainError> {
        self.marked_for_shutdown = true;
        if let Some(facts) = &mut self.facts {
            facts.marked_for_shutdown = true;
            self.publish();
        }
        Ok(())
    }
}

/// Closes a console unless it is kept.
struct CloseOnDrop(Option<Console>);

impl CloseOnDrop {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        if let Some(console) = &self.0 {
            console.close();
        }
    }
}
