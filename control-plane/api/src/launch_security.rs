//! `spec.domain.launchSecurity`: memory that the host cannot read.

use crate::object::{Presence, object};

object! {
    /// Confidential computing; one of its fields is set.
    pub struct LaunchSecurity {
        /// AMD's memory encryption.
        pub sev: Option<Sev>,
        /// AMD's memory encryption with integrity.
        pub snp: Option<Snp>,
        /// Intel's trust domains.
        pub tdx: Option<Presence>,
    }

    /// AMD's memory encryption.
    pub struct Sev {
        /// What the guest's owner insists on.
        pub policy: Option<SevPolicy>,
        /// Whether the machine waits for the owner's attestation.
        pub attestation: Option<Presence>,
        /// Session of the owner, base64.
        pub session: String,
        /// Diffie-Hellman key of the owner, base64.
        pub dh_cert: String,
    }

    /// What the guest's owner insists on.
    pub struct SevPolicy {
        /// Whether registers are encrypted as well (SEV-ES).
        pub encrypted_state: Option<bool>,
    }

    /// AMD's memory encryption with integrity.
    pub struct Snp {
        /// Whether the machine waits for the owner's attestation.
        pub attestation: Option<Presence>,
    }
}
