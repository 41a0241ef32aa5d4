//! Virtqueue notifications that the back end signals by itself, without a call into the board.

use std::sync::{Arc, Mutex, PoisonError};

use devices::pci::{BarRegion, PciFunction};
use devices::virtio::{NOTIFY_BAR, VirtioPci};
use devices::{Device, RestoreError, SaveError, SavedDevice};
use vmm_sys_util::eventfd::EventFd;

use crate::hv::Vm;

/// A virtio function whose notification registers follow its region in the back end.
pub(super) struct Notified {
    function: Arc<VirtioPci>,
    vm: Arc<dyn Vm>,
    /// Each register's offset in the region and its event.
    events: Vec<(u64, EventFd)>,
    /// Where the region is known to the back end.
    base: Mutex<Option<u64>>,
}

impl Notified {
    /// Wraps a function.
    pub(super) fn new(function: Arc<VirtioPci>, vm: Arc<dyn Vm>) -> std::io::Result<Self> {
        Ok(Self {
            events: function.notify_eventfds()?,
            function,
            vm,
            base: Mutex::new(None),
        })
    }

    fn each(&self, base: u64, change: impl Fn(u64, &EventFd) -> Result<(), crate::hv::HvError>) {
        for (offset, event) in &self.events {
            // Without the shortcut the board is called, as on any other register.
            if let Err(error) = change(base + offset, event) {
                tracing::warn!(device = self.name(), %error, "a notification takes the long way");
            }
        }
    }
}

impl PciFunction for Notified {
    fn config_read(&self, reg: u16, data: &mut [u8]) {
        self.function.config_read(reg, data);
    }

    fn config_write(&self, reg: u16, data: &[u8]) {
        self.function.config_write(reg, data);
    }

    fn bars(&self) -> Vec<BarRegion> {
        self.function.bars()
    }

    fn bar_read(&self, bar: usize, offset: u64, data: &mut [u8]) {
        self.function.bar_read(bar, offset, data);
    }

    fn bar_write(&self, bar: usize, offset: u64, data: &[u8]) {
        self.function.bar_write(bar, offset, data);
    }

    fn bars_mapped(&self, mapped: &[BarRegion]) {
        self.function.bars_mapped(mapped);
        let region = mapped.iter().find(|region| region.bar == NOTIFY_BAR);
        let wanted = region.map(|region| region.base);
        let mut base = self.base.lock().unwrap_or_else(PoisonError::into_inner);
        if *base == wanted {
            return;
        }
        if let Some(old) = base.take() {
            self.each(old, |gpa, event| self.vm.remove_ioeventfd(gpa, event));
        }
        if let Some(new) = wanted {
            self.each(new, |gpa, event| self.vm.add_ioeventfd(gpa, event));
        }
        *base = wanted;
    }
}

impl Device for Notified {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn reset(&self) {
        self.function.reset();
    }

    fn pause(&self) {
        self.function.pause();
    }

    fn resume(&self) {
        self.function.resume();
    }

    fn save(&self) -> Result<SavedDevice, SaveError> {
        self.function.save()
    }

    fn restore(&self, saved: &SavedDevice) -> Result<(), RestoreError> {
        self.function.restore(saved)
    }
}
