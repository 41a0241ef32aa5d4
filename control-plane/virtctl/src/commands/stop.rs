//! `virtctl stop`.

use api::options::StopOptions;
use clap::Args;
use serde_json::json;

use super::{DryRun, Session};
use crate::argument;
use crate::cluster::Kind;
use crate::failure::Failure;
use crate::report;

/// Stop a virtual machine.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # Stop a virtual machine called 'myvm':
  virtctl stop myvm

  # Pull the plug:
  virtctl stop myvm --force --grace-period=0")]
pub(crate) struct Stop {
    /// Virtual machine
    #[arg(value_name = "VM", value_parser = argument::machine)]
    name: String,
    #[command(flatten)]
    force: Force,
    #[command(flatten)]
    dry_run: DryRun,
}

/// How much time a machine gets.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Force {
    /// Seconds for the guest to shut down; needs --force
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    grace_period: Option<i64>,
    /// Do not wait for the guest: what it has not written is lost; needs --grace-period
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", hide_default_value = true, value_name = "BOOL")]
    force: bool,
}

impl Force {
    /// Returns the time that is asked for, if any.
    ///
    /// # Errors
    ///
    /// Fails when only one of the flags is given, as neither means much alone.
    pub(super) fn grace_period(self) -> Result<Option<i64>, Failure> {
        match (self.grace_period, self.force) {
            (Some(seconds), true) if seconds >= 0 => Ok(Some(seconds)),
            (Some(seconds), true) => Err(Failure::Argument(format!(
                "--grace-period={seconds}: give a number of seconds that is not negative"
            ))),
            (None, false) => Ok(None),
            _ => Err(Failure::Argument(
                "Must both use --force=true and set --grace-period.".to_owned(),
            )),
        }
    }
}

impl Stop {
    /// Asks for the stop.
    pub(super) async fn run(&self, session: &Session) -> Result<(), Failure> {
        let grace_period = self.force.grace_period()?;
        let cluster = session.cluster().await?;
        let options = StopOptions {
            grace_period,
            dry_run: self.dry_run.values()?,
        };
        let path = cluster.action(Kind::Machine, &self.name, "stop");
        let answer = cluster.put(&path, &json!(options)).await;
        let attempt = match grace_period {
            None => "Error stopping VirtualMachine",
            Some(_) => "Error force stopping VirtualMachine:",
        };
        answer.map_err(|refusal| refusal.of(attempt))?;
        report::line(&format!("VM {} was scheduled to stop", self.name))
    }
}
