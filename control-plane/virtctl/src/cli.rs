//! The command line: name, global flags, help texts.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::Path;

use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser};
use tracing_subscriber::filter::LevelFilter;

use crate::commands::Command;
use crate::connection::ConnectionFlags;

/// The names that the program goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// A program of its own.
    Virtctl,
    /// A plugin of kubectl.
    Plugin,
}

impl Program {
    /// Returns the program of a command line whose first word is given: kubectl finds plugins as `kubectl-virt`.
    pub(crate) fn named(word: Option<&OsString>) -> Self {
        let stem = word.and_then(|word| Path::new(word).file_stem());
        match stem.and_then(|stem| stem.to_str()) {
            Some(stem) if stem.ends_with("-virt") => Self::Plugin,
            _ => Self::Virtctl,
        }
    }

    /// Returns what a person types.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Virtctl => "virtctl",
            Self::Plugin => "kubectl virt",
        }
    }
}

/// Control virtual machines of KubeVirt: start, stop, console, ssh and more.
///
/// The cluster is the one of the current kubectl context ($KUBECONFIG or ~/.kube/config).
#[derive(Debug, Parser)]
#[command(
    name = "virtctl",
    disable_version_flag = true,
    disable_help_subcommand = false
)]
#[command(after_help = "Examples:
  # Start the virtual machine 'myvm' and see what it says:
  virtctl start myvm
  virtctl console myvm

Use \"virtctl COMMAND --help\" for flags and examples of a command.")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) global: GlobalFlags,
}

/// Flags of all commands.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalFlags {
    #[command(flatten)]
    pub(crate) connection: ConnectionFlags,
    /// How much to tell about the program's own doings, 0 to 9
    #[arg(
        short = 'v',
        long = "v",
        global = true,
        value_name = "LEVEL",
        default_value_t = 2,
        hide_default_value = true
    )]
    verbosity: u8,
    /// Print help
    #[arg(short, long, global = true, action = ArgAction::Help, help_heading = "Global options")]
    help: Option<bool>,
}

impl Cli {
    pub(crate) fn verbosity(&self) -> u8 {
        self.global.verbosity
    }
}

/// Returns the description of the command line under the name that the user knows.
pub(crate) fn description(program: Program) -> clap::Command {
    let command = Cli::command().disable_help_flag(true);
    let command = command
        .bin_name(program.name())
        .display_name(program.name());
    renamed(command, program)
}

/// Says the program's name in all examples.
fn renamed(mut command: clap::Command, program: Program) -> clap::Command {
    if let Some(text) = command.get_after_help().map(ToString::to_string) {
        command = command.after_help(text.replace("virtctl", program.name()));
    }
    command.mut_subcommands(|sub| renamed(sub, program))
}

/// Reads a command line.
///
/// # Errors
///
/// Fails when it makes no sense, or asks for help, which is then the error's text.
pub(crate) fn parse(program: Program, arguments: Vec<OsString>) -> Result<Cli, clap::Error> {
    let mut description = description(program);
    let mut matches = description.try_get_matches_from_mut(arguments)?;
    Cli::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut description))
}

/// Lets the program and the libraries it uses tell of their doings on standard error; a person who does not ask for it
/// reads results and failures alone.
pub(crate) fn start_log(verbosity: u8) {
    let level = match verbosity {
        0..=2 => return,
        3 => LevelFilter::INFO,
        4..=5 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}
