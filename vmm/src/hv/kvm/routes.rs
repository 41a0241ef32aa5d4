//! The kernel's table of interrupt routes: which message a pin of the I/O APIC or an event stands for.
//!
//! The pins come first, each under its own number, so that the kernel reports the end of level-triggered interrupts.
//! Events follow, in the order in which they are bound.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use devices::MsiMessage;
use devices::ioapic::{PINS, RouteListener};
use kvm_bindings::{
    KVM_IRQ_ROUTING_MSI, KvmIrqRouting, kvm_irq_routing_entry, kvm_irq_routing_entry__bindgen_ty_1,
    kvm_irq_routing_msi,
};
use kvm_ioctls::VmFd;
use vmm_sys_util::eventfd::EventFd;

use super::{halves, host};
use crate::hv::{HvError, MsiEvent};

/// Routes that the kernel takes (KVM_MAX_IRQ_ROUTES); numbers stay below.
const ROUTES_MAX: usize = 4096;

/// The routes of a machine.
pub(super) struct Routes {
    fd: Arc<VmFd>,
    /// The message of each number in use, if there is one now. Held while the kernel takes the table, so that tables
    /// arrive in order; nothing else is locked under it.
    messages: Mutex<BTreeMap<u32, Option<MsiMessage>>>,
}

impl Routes {
    /// Makes an empty table, which is what the kernel starts with.
    pub(super) fn new(fd: Arc<VmFd>) -> Self {
        let pins = (0..).take(PINS).map(|pin| (pin, None));
        Self {
            fd,
            messages: Mutex::new(pins.collect()),
        }
    }

    /// Reserves a number for an event, which has no message yet.
    pub(super) fn bind(routes: &Arc<Self>, event: &EventFd) -> Result<Box<dyn MsiEvent>, HvError> {
        let refused = |source| HvError::Host {
            request: "bind an event to an interrupt",
            source,
        };
        let event = event.try_clone().map_err(refused)?;
        let gsi = routes
            .reserve()
            .ok_or_else(|| refused(std::io::ErrorKind::QuotaExceeded.into()))?;
        Ok(Box::new(Bound {
            gsi,
            event,
            routes: Arc::clone(routes),
            is_connected: Mutex::new(false),
        }))
    }

    fn reserve(&self) -> Option<u32> {
        let mut messages = self.lock();
        let limit = u32::try_from(ROUTES_MAX).ok()?;
        let gsi = (0..limit).find(|gsi| !messages.contains_key(gsi))?;
        messages.insert(gsi, None);
        Some(gsi)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u32, Option<MsiMessage>>> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the table and tells the kernel.
    fn change(
        &self,
        change: impl FnOnce(&mut BTreeMap<u32, Option<MsiMessage>>),
    ) -> Result<(), HvError> {
        let mut messages = self.lock();
        change(&mut messages);
        let entries: Vec<_> = messages
            .iter()
            .filter_map(|(gsi, message)| Some(entry(*gsi, (*message)?)))
            .collect();
        let table = KvmIrqRouting::from_entries(&entries)
            .expect("the table holds no more than ROUTES_MAX entries");
        self.fd
            .set_gsi_routing(&table)
            .map_err(host("set the interrupt routes"))
    }
}

impl RouteListener for Routes {
    fn route_changed(&self, pin: usize, route: Option<MsiMessage>) {
        let Some(gsi) = u32::try_from(pin).ok().filter(|_| pin < PINS) else {
            return;
        };
        let set = self.change(|messages| {
            messages.insert(gsi, route);
        });
        if let Err(error) = set {
            let error = crate::error_chain(&error);
            tracing::error!(error, "level-triggered interrupts may stay unacknowledged");
        }
    }
}

fn entry(gsi: u32, msi: MsiMessage) -> kvm_irq_routing_entry {
    let (address_lo, address_hi) = halves(msi.address);
    kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_MSI,
        u: kvm_irq_routing_entry__bindgen_ty_1 {
            msi: kvm_irq_routing_msi {
                address_lo,
                address_hi,
                data: msi.data,
                ..kvm_irq_routing_msi::default()
            },
        },
        ..kvm_irq_routing_entry::default()
    }
}

/// An event with a number in the table.
struct Bound {
    gsi: u32,
    event: EventFd,
    routes: Arc<Routes>,
    /// Whether the kernel takes the event. Locked before the table.
    is_connected: Mutex<bool>,
}

impl Bound {
    /// Lets the kernel take the event, or leaves it alone.
    fn connect(&self, is_connected: &mut bool, wanted: bool) -> Result<(), HvError> {
        if *is_connected == wanted {
            return Ok(());
        }
        let fd = &self.routes.fd;
        if wanted {
            fd.register_irqfd(&self.event, self.gsi)
                .map_err(host("connect an event to an interrupt"))?;
        } else {
            fd.unregister_irqfd(&self.event, self.gsi)
                .map_err(host("disconnect an event from an interrupt"))?;
        }
        *is_connected = wanted;
        Ok(())
    }
}

impl MsiEvent for Bound {
    fn set_message(&self, message: Option<MsiMessage>) -> Result<(), HvError> {
        let mut is_connected = self
            .is_connected
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if message.is_none() {
            self.connect(&mut is_connected, false)?;
        }
        self.routes.change(|messages| {
            messages.insert(self.gsi, message);
        })?;
        self.connect(&mut is_connected, message.is_some())
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let freed = self.set_message(None);
        if let Err(error) = freed {
            let error = crate::error_chain(&error);
            tracing::warn!(error, gsi = self.gsi, "an interrupt route stays in use");
            return;
        }
        self.routes.lock().remove(&self.gsi);
    }
}
