//! The interconnect of the local APICs: routes messages and inter-processor interrupts.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, Weak};

use super::message::{DeliveryMode, Destination, Interrupt, Ipi, Shorthand, of_msi};
use super::{EoiSink, ExternalInterrupts, LocalApic};
use crate::interrupt::{MsiMessage, MsiSink};

/// Knows every local APIC of a machine, its I/O APIC and its PIC.
///
/// The machine owns it; the APICs hold it weakly and it holds the I/O APIC weakly, which in turn
/// owns it as its message sink.
#[derive(Default)]
pub struct ApicBus {
    apics: RwLock<Arc<Vec<Arc<LocalApic>>>>,
    /// Spreads lowest-priority interrupts over equally idle processors.
    turn: AtomicUsize,
    ioapic: OnceLock<Weak<dyn EoiSink>>,
    pic: OnceLock<Arc<dyn ExternalInterrupts>>,
}

impl ApicBus {
    /// Makes an interconnect without processors.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Connects the I/O APIC, which learns of ended level interrupts. Only the first one counts.
    pub fn connect_ioapic(&self, ioapic: Weak<dyn EoiSink>) {
        self.ioapic.get_or_init(|| ioapic);
    }

    /// Connects the PIC to LINT0 of the processors. Only the first one counts.
    pub fn connect_pic(&self, pic: Arc<dyn ExternalInterrupts>) {
        self.pic.get_or_init(|| pic);
    }

    /// Delivers a non-maskable interrupt to every processor, as a front panel button would.
    pub fn inject_nmi(&self) {
        let nmi = Interrupt {
            mode: DeliveryMode::NMI,
            vector: 2,
            level: false,
        };
        for apic in self.apics().iter() {
            apic.deliver(nmi);
        }
    }

    pub(super) fn attach(&self, apic: Arc<LocalApic>) {
        let mut apics = self.apics.write().unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut apics).push(apic);
    }

    pub(super) fn pic(&self) -> Option<&dyn ExternalInterrupts> {
        self.pic.get().map(AsRef::as_ref)
    }

    pub(super) fn end_level(&self, vector: u8) {
        if let Some(ioapic) = self.ioapic.get().and_then(Weak::upgrade) {
            ioapic.eoi(vector);
        }
    }

    pub(super) fn send(&self, from: &LocalApic, ipi: Ipi) {
        let targets = self.apics();
        match ipi.shorthand {
            Shorthand::None => self.route(&targets, ipi.destination, ipi.interrupt),
            Shorthand::Oneself => from.deliver(ipi.interrupt),
            Shorthand::All => targets.iter().for_each(|apic| apic.deliver(ipi.interrupt)),
            Shorthand::AllButOneself => {
                let others = targets.iter().filter(|apic| apic.id() != from.id());
                others.for_each(|apic| apic.deliver(ipi.interrupt));
            }
        }
    }

    fn apics(&self) -> Arc<Vec<Arc<LocalApic>>> {
        self.apics
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn route(&self, targets: &[Arc<LocalApic>], to: Destination, interrupt: Interrupt) {
        let named = targets.iter().filter(|apic| apic.is_named(to));
        if interrupt.mode == DeliveryMode::LOWEST {
            self.arbitrate(named, interrupt);
        } else {
            named.for_each(|apic| apic.deliver(interrupt));
        }
    }

    /// Delivers to one of the processors with the lowest priority.
    fn arbitrate<'a>(&self, named: impl Iterator<Item = &'a Arc<LocalApic>>, interrupt: Interrupt) {
        let able = named.filter(|apic| apic.is_software_enabled());
        let ranked: Vec<_> = able.map(|apic| (apic.priority_class(), apic)).collect();
        let lowest = ranked.iter().map(|(class, _)| *class).min();
        let idle: Vec<_> = ranked
            .into_iter()
            .filter(|(class, _)| Some(*class) == lowest)
            .collect();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        if let Some((_, apic)) = turn.checked_rem(idle.len()).and_then(|at| idle.get(at)) {
            apic.deliver(interrupt);
        }
    }
}

impl MsiSink for ApicBus {
    fn send_msi(&self, msi: MsiMessage) {
        let (destination, interrupt) = of_msi(msi);
        self.route(&self.apics(), destination, interrupt);
    }
}
