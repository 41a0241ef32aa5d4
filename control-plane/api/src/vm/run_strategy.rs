//! When a virtual machine's instance should run.

use std::fmt;
use std::str::FromStr;

/// When a virtual machine's instance should run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RunStrategy {
    /// All the time.
    Always,
    /// Never.
    Halted,
    /// From a start by hand to a stop by hand.
    Manual,
    /// Until it ends well.
    RerunOnFailure,
    /// One time, however it ends.
    Once,
    /// As the target of a migration from another cluster.
    WaitAsReceiver,
}

/// Why it isn't clear when an instance should run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunStrategyError {
    /// Both fields are set.
    #[error("running and runStrategy exclude each other: remove running")]
    Both,
    /// Neither field is set.
    #[error("one of running and runStrategy is required: add `runStrategy: Always` or another")]
    Neither,
    /// The strategy isn't known.
    #[error("{0:?} is not known: use {names}", names = RunStrategy::ALL.map(|s| s.as_str()).join(", "))]
    Unknown(String),
}

impl RunStrategy {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Always,
        Self::Halted,
        Self::Manual,
        Self::RerunOnFailure,
        Self::Once,
        Self::WaitAsReceiver,
    ];

    /// Returns the name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::Halted => "Halted",
            Self::Manual => "Manual",
            Self::RerunOnFailure => "RerunOnFailure",
            Self::Once => "Once",
            Self::WaitAsReceiver => "WaitAsReceiver",
        }
    }

    /// Returns the strategy that two fields of a virtual machine mean: `running: true` is
    /// [`Always`](Self::Always), `running: false` is [`Halted`](Self::Halted).
    ///
    /// # Errors
    ///
    /// Fails when both or neither are set, or the strategy is not known.
    pub fn resolve(
        running: Option<bool>,
        run_strategy: Option<&str>,
    ) -> Result<Self, RunStrategyError> {
        match (running, run_strategy.filter(|name| !name.is_empty())) {
            (Some(_), Some(_)) => Err(RunStrategyError::Both),
            (None, None) => Err(RunStrategyError::Neither),
            (Some(true), None) => Ok(Self::Always),
            (Some(false), None) => Ok(Self::Halted),
            (None, Some(name)) => name.parse(),
        }
    }

    /// Whether a start by the subresource is a request in `status.stateChangeRequests` instead of an
    /// edit of the specification.
    pub fn starts_by_request(self) -> bool {
        matches!(self, Self::Manual | Self::RerunOnFailure)
    }
}

impl FromStr for RunStrategy {
    type Err = RunStrategyError;

    fn from_str(name: &str) -> Result<Self, RunStrategyError> {
        Self::ALL
            .into_iter()
            .find(|strategy| strategy.as_str() == name)
            .ok_or_else(|| RunStrategyError::Unknown(name.to_owned()))
    }
}

impl fmt::Display for RunStrategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::{RunStrategy, RunStrategyError};

    #[test]
    fn the_old_field_means_always_or_halted() {
        assert_eq!(
            RunStrategy::resolve(Some(true), None),
            Ok(RunStrategy::Always)
        );
        assert_eq!(
            RunStrategy::resolve(Some(false), None),
            Ok(RunStrategy::Halted)
        );
    }

    #[test]
    fn every_strategy_is_read_as_it_is_written() {
        for strategy in RunStrategy::ALL {
            assert_eq!(
                RunStrategy::resolve(None, Some(strategy.as_str())),
                Ok(strategy)
            );
        }
    }

    #[test]
    fn both_none_and_unknown_ones_are_refused_with_the_cure() {
        let both = RunStrategy::resolve(Some(true), Some("Always")).unwrap_err();
        assert_eq!(both, RunStrategyError::Both);
        assert_eq!(
            RunStrategy::resolve(None, None),
            Err(RunStrategyError::Neither)
        );
        let unknown = RunStrategy::resolve(None, Some("Sometimes")).unwrap_err();
        assert_eq!(
            unknown.to_string(),
            "\"Sometimes\" is not known: use Always, Halted, Manual, RerunOnFailure, Once, WaitAsReceiver"
        );
    }
}
