//! One file for each command.

mod completion;
mod console;
mod start;
mod stop;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::cli::{Cli, Program};
use crate::cluster::Cluster;
use crate::connection::ConnectionFlags;
use crate::failure::Failure;
use crate::report;

/// What can be asked for.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Completion(completion::Completion),
    Console(console::Console),
    Start(start::Start),
    Stop(stop::Stop),
}

/// What commands know beside their own arguments.
pub(crate) struct Session {
    /// Name the program goes by.
    pub(crate) program: Program,
    /// Which cluster is meant.
    pub(crate) connection: ConnectionFlags,
}

impl Session {
    /// Returns the cluster that is meant.
    ///
    /// # Errors
    ///
    /// Fails when there is no configuration or it is wrong.
    pub(crate) async fn cluster(&self) -> Result<Cluster, Failure> {
        Cluster::connect(&self.connection).await
    }
}

/// Runs a command; the exit code is its own or that of a program it runs.
///
/// # Errors
///
/// Fails when it is not done.
pub(crate) async fn run(program: Program, cli: Cli) -> Result<ExitCode, Failure> {
    let session = Session {
        program,
        connection: cli.global.connection,
    };
    let session = &session;
    match cli.command {
        Command::Completion(command) => command.run(session)?,
        Command::Console(command) => return command.run(session).await,
        Command::Start(command) => command.run(session).await?,
        Command::Stop(command) => command.run(session).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether anything is changed.
#[derive(Clone, Copy, Debug, Args)]
struct DryRun {
    /// Only ask whether it would be done
    #[arg(
        long,
        num_args = 0..=1,
        require_equals = true,
        default_value_t = false,
        default_missing_value = "true",
        hide_default_value = true,
        value_name = "BOOL"
    )]
    dry_run: bool,
}

impl DryRun {
    /// Says that nothing is going to be changed, and returns the value of `dryRun`.
    fn values(self) -> Result<Vec<String>, Failure> {
        if !self.dry_run {
            return Ok(Vec::new());
        }
        report::line("Dry Run execution")?;
        Ok(vec![api::options::DRY_RUN_ALL.to_owned()])
    }
}
