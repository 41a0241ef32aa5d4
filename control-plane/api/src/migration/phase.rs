//! How far a migration is.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{MigrationPhaseTransition, MigrationStatus};
use crate::object::Unset;

/// How far a migration is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum MigrationPhase {
    /// Just made.
    #[default]
    #[serde(rename = "")]
    Unset,
    /// Accepted; waits for its turn.
    Pending,
    /// Waits for the other side.
    WaitingForSync,
    /// Both sides know each other.
    Synchronizing,
    /// The target's pod looks for a node.
    Scheduling,
    /// The target's pod runs.
    Scheduled,
    /// The target's node gets ready.
    PreparingTarget,
    /// The target's node is ready.
    TargetReady,
    /// Memory is being sent.
    Running,
    /// The instance runs on its new node.
    Succeeded,
    /// The instance runs on its old node.
    Failed,
    /// A name that we don't know.
    #[serde(other)]
    Unknown,
}

impl MigrationPhase {
    /// Returns the name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unset => "",
            Self::Pending => "Pending",
            Self::WaitingForSync => "WaitingForSync",
            Self::Synchronizing => "Synchronizing",
            Self::Scheduling => "Scheduling",
            Self::Scheduled => "Scheduled",
            Self::PreparingTarget => "PreparingTarget",
            Self::TargetReady => "TargetReady",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Unknown => "Unknown",
        }
    }

    /// Whether it is over.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

impl fmt::Display for MigrationPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Unset for MigrationPhase {
    fn is_unset(&self) -> bool {
        *self == Self::Unset
    }
}

impl MigrationStatus {
    /// Enters a phase at `now` (RFC 3339) and notes the time, once for each phase.
    ///
    /// Returns whether it is another phase than before.
    pub fn enter_phase(&mut self, phase: MigrationPhase, now: &str) -> bool {
        let changed = self.phase != phase;
        self.phase = phase;
        let noted = &mut self.phase_transition_timestamps;
        if changed && !noted.iter().any(|transition| transition.phase == phase) {
            noted.push(MigrationPhaseTransition {
                phase,
                phase_transition_timestamp: Some(now.to_owned()),
            });
        }
        changed
    }
}
