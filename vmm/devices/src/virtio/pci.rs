//! The PCI transport (virtio 1.3 §4.1).

mod layout;
mod lifecycle;

use std::sync::Arc;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::registers::{Effect, Registers};
use super::ring::{Ring, RingError, Rings};
use super::signal::{ConfigChange, Signals};
use super::spec::feature;
use super::worker::Slot;
use super::{VirtioDevice, WorkerPlan};
use crate::interrupt::{IrqLine, MsiSink};
use crate::lock::Lock;
use crate::memory::GuestMemory;
use crate::pci::config_space::COMMAND_INTX_DISABLE;
use crate::pci::{BarRegion, ConfigSpace, LayoutError, Msix, PciFunction};
use layout::{PciCfg, Window};

/// The base address register whose region holds the notification registers, among others.
pub const NOTIFY_BAR: usize = layout::BAR;

/// The features of the transport: everything that changes how rings and registers work.
const TRANSPORT_FEATURES: u64 = feature::VERSION_1
    | feature::RING_INDIRECT_DESC
    | feature::RING_EVENT_IDX
    | feature::RING_RESET;

/// Most queues of one device: 64 pairs and what controls them fit, and their vectors in a page.
const MAX_QUEUES: usize = 192;

/// What a virtio device on the PCI bus needs.
pub struct VirtioPciOptions {
    /// The device's name, unique on the board; its threads carry it.
    pub name: String,
    /// The guest's memory, which rings and buffers lie in.
    pub memory: GuestMemory,
    /// Where the device's messages go.
    pub msi: Arc<dyn MsiSink>,
    /// The line behind the device's pin INTA#, for drivers that do not switch MSI-X on.
    pub line: IrqLine,
}

/// Why a virtio device cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum VirtioPciError {
    /// The configuration space has no room.
    #[error("lay out the virtio device {name}")]
    Layout {
        /// The device's name.
        name: String,
        /// The cause.
        source: LayoutError,
    },
    /// The queues are too many, or a size is not a power of two up to 32768.
    #[error("build the virtio device {name}: queue sizes {sizes:?} cannot be")]
    Queues {
        /// The device's name.
        name: String,
        /// The sizes asked for.
        sizes: Vec<u16>,
    },
    /// The host gives no event counters.
    #[error("build the virtio device {name}: create an event")]
    Event {
        /// The device's name.
        name: String,
        /// The host's answer.
        source: std::io::Error,
    },
}

/// A virtio device on the PCI bus.
///
/// Locks: `inner` before the locks inside `signals`; workers take only the latter, so that they
/// can be stopped with `inner` held.
pub struct VirtioPci {
    name: String,
    kind: String,
    device: Arc<dyn VirtioDevice>,
    memory: GuestMemory,
    signals: Arc<Signals>,
    notify: Vec<EventFd>,
    inner: Lock<Inner>,
}

struct Inner {
    config: ConfigSpace,
    msix_control_reg: u16,
    pci_cfg: PciCfg,
    registers: Registers,
    slots: Vec<Slot>,
    paused: bool,
}

impl VirtioPci {
    /// Puts `device` on the PCI bus.
    ///
    /// # Errors
    /// If its queues cannot be, or the host refuses event counters.
    pub fn new(
        device: Arc<dyn VirtioDevice>,
        options: VirtioPciOptions,
    ) -> Result<Arc<Self>, VirtioPciError> {
        let VirtioPciOptions {
            name,
            memory,
            msi,
            line,
        } = options;
        let sizes = device.queue_sizes();
        check_sizes(&name, &sizes)?;
        let vectors = u16::try_from(sizes.len() + 1).unwrap_or(u16::MAX);
        let signals = Arc::new(Signals::new(Msix::new(vectors, msi), line, sizes.len()));
        device.set_config_change(ConfigChange(Arc::clone(&signals)));
        let (config, msix_reg, pci_cfg) = layout::config_space(device.as_ref(), signals.msix())
            .map_err(|source| VirtioPciError::Layout {
                name: name.clone(),
                source,
            })?;
        let notify = sizes
            .iter()
            .map(|_| EventFd::new(EFD_NONBLOCK))
            .collect::<Result<_, _>>();
        let notify = notify.map_err(|source| VirtioPciError::Event {
            name: name.clone(),
            source,
        })?;
        let offered = device.features() | TRANSPORT_FEATURES;
        let plans: Vec<WorkerPlan> = device.take_workers();
        let inner = Inner {
            config,
            msix_control_reg: msix_reg + 2,
            pci_cfg,
            registers: Registers::new(offered, vectors, &sizes),
            slots: plans
                .into_iter()
                .map(|plan| Slot::new(&name, plan))
                .collect(),
            paused: false,
        };
        Ok(Arc::new(Self {
            kind: format!("virtio-{}", device.device_type().0),
            name,
            device,
            memory,
            signals,
            notify,
            inner: Lock::new(inner),
        }))
    }

    /// Returns the events that stand for the notification registers, each with its offset in the
    /// region of [`NOTIFY_BAR`]: a back end may have the host's kernel signal them on a guest's
    /// write of any width there, which then need not trap.
    ///
    /// # Errors
    /// If the host has no descriptors left.
    pub fn notify_eventfds(&self) -> std::io::Result<Vec<(u64, EventFd)>> {
        let events = (0u64..).zip(&self.notify);
        events
            .map(|(index, event)| Ok((layout::notify_offset(index), event.try_clone()?)))
            .collect()
    }

    fn notify(&self, offset: u64) {
        let index = usize::try_from(offset / layout::NOTIFY_MULTIPLIER);
        if let Some(event) = index.ok().and_then(|index| self.notify.get(index)) {
            // A counter that is full is set, which is all that it must be.
            if let Err(error) = event.write(1) {
                tracing::debug!(device = self.name, %error, "a notification was set already");
            }
        }
    }

    fn write_common(&self, offset: u64, data: &[u8]) {
        self.write_register(offset, data);
        self.signals.flush();
    }

    fn write_register(&self, offset: u64, data: &[u8]) {
        let mut inner = self.inner.get();
        match inner.registers.write(offset, data) {
            Effect::None => {}
            Effect::Settle => self.settle(&mut inner),
            Effect::Reset => self.reset_virtio(&mut inner),
            Effect::ResetQueue(index) => {
                self.stop_owner(&mut inner, index);
                inner.registers.reset_queue(index);
                self.settle(&mut inner);
            }
        }
    }

    /// Returns to the state after a virtio reset (§2.4): no thread, no feature, no queue.
    fn reset_virtio(&self, inner: &mut Inner) {
        self.stop_all(inner);
        for worker in inner.slots.iter_mut().filter_map(Slot::idle) {
            worker.reset();
        }
        inner.registers.reset();
        self.device.reset();
        self.signals.reset();
        for event in &self.notify {
            super::event::take(event);
        }
    }

    /// Makes workers run or not, as status, bus mastering and pause ask.
    fn settle(&self, inner: &mut Inner) {
        let registers = &inner.registers;
        let vectors = registers.queue_vectors();
        self.signals.set_vectors(registers.config_vector(), vectors);
        self.signals.set_driver_ok(registers.is_driver_ok());
        let runs = registers.wants_to_run()
            && inner.config.is_bus_master()
            && !self.signals.needs_reset()
            && !inner.paused;
        if runs {
            self.start_all(inner);
        } else {
            self.stop_all(inner);
        }
    }

    fn start_all(&self, inner: &mut Inner) {
        for at in 0..inner.slots.len() {
            if !inner.slots[at].is_idle() {
                self.stop_if_queues_changed(inner, at);
            }
            if inner.slots[at].is_idle() {
                self.start_one(inner, at);
            }
        }
    }

    /// Stops a worker that does not have a queue which was enabled since it started.
    fn stop_if_queues_changed(&self, inner: &mut Inner, at: usize) {
        let Inner {
            registers, slots, ..
        } = inner;
        let enabled = |queue: &&u16| registers.queues[usize::from(**queue)].is_enabled();
        let count = slots[at].queues.iter().filter(enabled).count();
        if count != slots[at].ring_count() {
            self.stop_slot(inner, at);
        }
    }

    fn start_one(&self, inner: &mut Inner, at: usize) {
        let started = self.rings_of(&inner.registers, &inner.slots[at].queues);
        let rings = match started {
            Ok(rings) => rings,
            Err(error) => {
                return self.signals.fail_for(&self.name, &error);
            }
        };
        let events = inner.slots[at].queues.iter();
        let events = events.map(|queue| self.notify[usize::from(*queue)].try_clone());
        let features = inner.registers.features();
        let result = events
            .collect::<std::io::Result<Vec<_>>>()
            .and_then(|events| {
                inner.slots[at].start(rings, events, features, Arc::clone(&self.signals))
            });
        if let Err(error) = result {
            tracing::error!(device = self.name, %error, "a worker cannot start");
            self.signals.fail();
        }
    }

    fn rings_of(&self, registers: &Registers, queues: &[u16]) -> Result<Rings, RingError> {
        let event_idx = registers.has(feature::RING_EVENT_IDX);
        let ring = |queue: &u16| {
            let registers = &registers.queues[usize::from(*queue)];
            let state = registers.ring_state(event_idx);
            let (memory, signals) = (self.memory.clone(), Arc::clone(&self.signals));
            let ring = registers
                .is_enabled()
                .then(|| Ring::new(*queue, state, memory, signals));
            ring.transpose()
        };
        queues.iter().map(ring).collect::<Result<_, _>>().map(Rings)
    }

    fn stop_all(&self, inner: &mut Inner) {
        for at in 0..inner.slots.len() {
            self.stop_slot(inner, at);
        }
    }

    fn stop_owner(&self, inner: &mut Inner, queue: u16) {
        let owner = inner
            .slots
            .iter()
            .position(|slot| slot.queues.contains(&queue));
        if let Some(at) = owner {
            self.stop_slot(inner, at);
        }
    }

    /// Stops a worker and keeps how far it came.
    fn stop_slot(&self, inner: &mut Inner, at: usize) {
        for ring in inner.slots[at].stop().enabled() {
            inner.registers.queues[usize::from(ring.index())].set_positions(ring.positions());
        }
        if inner.slots[at].is_lost() {
            self.signals.fail();
        }
    }

    /// Passes the command register's interrupt disable and the MSI-X control word on.
    fn config_changed(&self) {
        let (pin_disabled, control) = {
            let mut inner = self.inner.get();
            self.settle(&mut inner);
            let disabled = inner.config.command() & COMMAND_INTX_DISABLE != 0;
            (disabled, inner.config.read_u16(inner.msix_control_reg))
        };
        self.signals.msix().set_control(control);
        let pin_disabled = pin_disabled || self.signals.msix().is_enabled();
        self.signals.set_pin_disabled(pin_disabled);
        self.signals.flush();
    }
}

impl PciFunction for VirtioPci {
    fn config_read(&self, reg: u16, data: &mut [u8]) {
        let access = self.inner.get().pci_cfg_access(reg);
        if let Some((offset, len)) = access {
            let mut value = [0; 4];
            self.bar_read(layout::BAR, offset, &mut value[..len]);
            let mut inner = self.inner.get();
            inner.set_pci_cfg_data(value);
        }
        let mut inner = self.inner.get();
        inner.config.set_interrupt(self.signals.isr() != 0);
        inner.config.read(reg, data);
    }

    fn config_write(&self, reg: u16, data: &[u8]) {
        let access = {
            let mut inner = self.inner.get();
            inner.config.write(reg, data);
            inner.pci_cfg_access(reg)
        };
        if let Some((offset, len)) = access {
            let value = self.inner.get().pci_cfg_data();
            self.bar_write(layout::BAR, offset, &value[..len]);
        }
        self.config_changed();
    }

    fn bars(&self) -> Vec<BarRegion> {
        self.inner.get().config.bars()
    }

    fn bar_read(&self, bar: usize, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if bar != layout::BAR {
            return;
        }
        match layout::window(offset) {
            Some((Window::Common, at)) => {
                let (needs_reset, generation) =
                    (self.signals.needs_reset(), self.signals.generation());
                self.inner
                    .get()
                    .registers
                    .read(at, data, needs_reset, generation);
            }
            Some((Window::Isr, 0)) => {
                if let Some(first) = data.first_mut() {
                    *first = self.signals.take_isr();
                }
            }
            Some((Window::Device, at)) => self.device.config_read(at, data),
            Some((Window::MsixTable, at)) => self.signals.msix().table_read(at, data),
            Some((Window::MsixPending, at)) => self.signals.msix().pba_read(at, data),
            Some((Window::Isr | Window::Notify, _)) | None => {}
        }
    }

    fn bar_write(&self, bar: usize, offset: u64, data: &[u8]) {
        if bar != layout::BAR {
            return;
        }
        match layout::window(offset) {
            Some((Window::Common, at)) => self.write_common(at, data),
            Some((Window::Device, at)) => self.device.config_write(at, data),
            Some((Window::Notify, at)) => self.notify(at),
            Some((Window::MsixTable, at)) => self.signals.msix().table_write(at, data),
            Some((Window::Isr | Window::MsixPending, _)) | None => {}
        }
    }
}

impl Drop for VirtioPci {
    fn drop(&mut self) {
        for slot in &mut self.inner.get().slots {
            // The rings go with the device.
            drop(slot.stop());
        }
    }
}

fn check_sizes(name: &str, sizes: &[u16]) -> Result<(), VirtioPciError> {
    let fits = |size: &u16| size.is_power_of_two();
    if sizes.len() <= MAX_QUEUES && !sizes.is_empty() && sizes.iter().all(fits) {
        return Ok(());
    }
    Err(VirtioPciError::Queues {
        name: name.to_owned(),
        sizes: sizes.to_vec(),
    })
}

#[cfg(test)]
mod tests;
