//! `spec.domain.features.hyperv`: enlightenments for Windows guests (Hyper-V TLFS).

use crate::domain::FeatureState;
use crate::object::object;

object! {
    /// Enlightenments; each is on when it is there and not switched off.
    pub struct HyperV {
        /// No watchdog for delayed timers.
        pub relaxed: Option<FeatureState>,
        /// Paravirtual APIC.
        pub vapic: Option<FeatureState>,
        /// Hint when to give up spinning.
        pub spinlocks: Option<Spinlocks>,
        /// Index of the virtual processor.
        pub vpindex: Option<FeatureState>,
        /// Time that processors ran.
        pub runtime: Option<FeatureState>,
        /// Synthetic interrupt controller.
        pub synic: Option<FeatureState>,
        /// Synthetic timers.
        pub synictimer: Option<SyntheticTimer>,
        /// Reset by a register.
        pub reset: Option<FeatureState>,
        /// Vendor that the guest reads.
        pub vendorid: Option<VendorId>,
        /// Frequencies in registers.
        pub frequencies: Option<FeatureState>,
        /// Notice of a changed clock frequency.
        pub reenlightenment: Option<FeatureState>,
        /// Flushes of address translations.
        pub tlbflush: Option<TlbFlush>,
        /// Interrupts between processors.
        pub ipi: Option<FeatureState>,
        /// Nested virtualisation by the enlightened VMCS.
        pub evmcs: Option<FeatureState>,
    }

    /// Hint when to give up spinning.
    pub struct Spinlocks {
        /// Whether it is on; `true` when unset.
        pub enabled: Option<bool>,
        /// Tries before the hypervisor is told.
        #[serde(rename = "spinlocks")]
        pub retries: Option<u32>,
    }

    /// Synthetic timers.
    pub struct SyntheticTimer {
        /// Whether they are on; `true` when unset.
        pub enabled: Option<bool>,
        /// Interrupts without messages.
        pub direct: Option<FeatureState>,
    }

    /// Vendor that the guest reads.
    pub struct VendorId {
        /// Whether it is on; `true` when unset.
        pub enabled: Option<bool>,
        /// The vendor, at most 12 characters.
        pub vendorid: String,
    }

    /// Flushes of address translations.
    pub struct TlbFlush {
        /// Whether they are on; `true` when unset.
        pub enabled: Option<bool>,
        /// From nested guests.
        pub direct: Option<FeatureState>,
        /// Of parts of the address space.
        pub extended: Option<FeatureState>,
    }
}

impl HyperV {
    /// Returns the switches by their JSON names, those of nested fields left out.
    pub fn switches(&self) -> [(&'static str, Option<Option<bool>>); 14] {
        let plain = |state: &Option<FeatureState>| state.as_ref().map(|state| state.enabled);
        [
            ("relaxed", plain(&self.relaxed)),
            ("vapic", plain(&self.vapic)),
            ("spinlocks", self.spinlocks.as_ref().map(|s| s.enabled)),
            ("vpindex", plain(&self.vpindex)),
            ("runtime", plain(&self.runtime)),
            ("synic", plain(&self.synic)),
            ("synictimer", self.synictimer.as_ref().map(|s| s.enabled)),
            ("reset", plain(&self.reset)),
            ("vendorid", self.vendorid.as_ref().map(|v| v.enabled)),
            ("frequencies", plain(&self.frequencies)),
            ("reenlightenment", plain(&self.reenlightenment)),
            ("tlbflush", self.tlbflush.as_ref().map(|t| t.enabled)),
            ("ipi", plain(&self.ipi)),
            ("evmcs", plain(&self.evmcs)),
        ]
    }

    /// Whether an enlightenment is there and not switched off, by its JSON name.
    pub fn has(&self, name: &str) -> bool {
        let mut switches = self.switches().into_iter();
        switches.any(|(known, state)| known == name && state.is_some_and(|on| on != Some(false)))
    }
}
