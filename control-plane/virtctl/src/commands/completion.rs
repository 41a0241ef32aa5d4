//! `virtctl completion`: what a shell needs to complete words.

use clap::{Args, ValueEnum};
use clap_complete::{Shell, generate};

use super::Session;
use crate::cli::description;
use crate::failure::Failure;
use crate::report;

/// Print the completion script of a shell.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # Complete words of virtctl in this bash:
  source <(virtctl completion bash)

  # In each fish to come:
  virtctl completion fish > ~/.config/fish/completions/virtctl.fish")]
pub(crate) struct Completion {
    shell: ShellName,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ShellName {
    Bash,
    Fish,
    Zsh,
}

impl Completion {
    /// Prints the script.
    pub(super) fn run(&self, session: &Session) -> Result<(), Failure> {
        let shell = match self.shell {
            ShellName::Bash => Shell::Bash,
            ShellName::Fish => Shell::Fish,
            ShellName::Zsh => Shell::Zsh,
        };
        // kubectl completes words of plugins by programs of another form, so this is for the program alone.
        let mut script = Vec::new();
        generate(
            shell,
            &mut description(session.program),
            "virtctl",
            &mut script,
        );
        report::text(&String::from_utf8_lossy(&script))
    }
}
