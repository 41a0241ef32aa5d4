//! The states of a domain and the reasons for them, as libvirt under KubeVirt names them.

use serde::{Deserialize, Serialize, Serializer};

/// An enum written as one of several texts, which keeps a text that is none of them.
macro_rules! open_enum {
    ($(#[$doc:meta])* $name:ident, default $default:ident {
        $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)*
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
        #[serde(from = "String")]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
            /// A text that is not known here, as it was.
            Other(String),
        }

        impl $name {
            /// Returns the text on the wire.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)*
                    Self::Other(text) => text,
                }
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::$default
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                match text.as_str() {
                    $($text => Self::$variant,)*
                    _ => Self::Other(text),
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        #[cfg(test)]
        impl $name {
            /// Every value that is known here.
            pub(super) const KNOWN: &[Self] = &[$(Self::$variant),*];
        }
    };
}

open_enum! {
    /// The state of a domain (libvirt `virDomainState`).
    LifeCycle, default NoState {
        /// No state is known.
        NoState = "NoState",
        /// The vCPUs run.
        Running = "Running",
        /// The vCPUs wait for something outside.
        Blocked = "Blocked",
        /// The vCPUs are stopped; the reason says by whom.
        Paused = "Paused",
        /// The guest was asked to power off.
        ShuttingDown = "ShuttingDown",
        /// The machine has ended.
        Shutoff = "Shutoff",
        /// The machine has ended by a failure.
        Crashed = "Crashed",
        /// The guest has suspended itself.
        PmSuspended = "PMSuspended",
        /// The state cannot be told.
        Unknown = "Unknown",
    }
}

open_enum! {
    /// Why a domain is in its state. Which reasons go with which state: see libvirt's
    /// `virDomainPausedReason`, `virDomainShutoffReason` and their like.
    StateChangeReason, default Unknown {
        /// No reason is known; the usual one of a machine that runs.
        Unknown = "Unknown",
        /// A user asked for it.
        User = "User",
        /// Stopped for a migration.
        Migration = "Migration",
        /// Stopped while the state is saved.
        Save = "Save",
        /// Stopped while memory is dumped.
        Dump = "Dump",
        /// Stopped because a disk failed.
        IoError = "IOError",
        /// Stopped by the watchdog device.
        Watchdog = "Watchdog",
        /// Loaded from a snapshot.
        FromSnapshot = "FromSnapshot",
        /// Stopped on the way to its end.
        ShuttingDown = "ShuttingDown",
        /// Stopped while a snapshot is taken.
        Snapshot = "Snapshot",
        /// Ended by a failure.
        Crashed = "Crashed",
        /// Stopped because it is not started yet.
        StartingUp = "StartingUp",
        /// Stopped while the rest of memory follows to the other node.
        Postcopy = "Postcopy",
        /// Stopped for good: the rest of memory is lost.
        PostcopyFailed = "PostcopyFailed",
        /// The guest powered itself off.
        Shutdown = "Shutdown",
        /// The machine was ended from outside.
        Destroyed = "Destroyed",
        /// The machine runs on another node now.
        Migrated = "Migrated",
        /// The guest panicked.
        Panicked = "Panicked",
        /// The state was saved.
        Saved = "Saved",
        /// The machine could not start.
        Failed = "Failed",
        /// There is no such machine.
        NonExistent = "NonExistent",
    }
}
