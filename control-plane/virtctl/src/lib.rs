//! virtctl: KubeVirt's virtual machines from the command line.
//!
//! ```text
//!   cli (flags) ─▶ connection (kubeconfig) ─▶ cluster (requests) ─▶ API server ─▶ subresources
//!        └──────▶ commands/* (one each) ──┬──▶ cluster
//!                                         └──▶ stream (WebSocket) ◀─▶ terminal, sockets
//! ```
//!
//! Texts and exit codes are upstream's: what was asked for on standard output, all else on standard error, 0 or 1.

mod argument;
mod cli;
mod cluster;
mod commands;
mod connection;
mod failure;
mod local_file;
mod report;
mod standard_streams;
mod stream;
mod terminal;
mod yaml;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;

use cli::Program;

/// Runs the command line `arguments`, the first of which is the name it is called by; blocks until it is done.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let program = Program::named(arguments.first());
    let cli = match cli::parse(program, arguments) {
        Ok(cli) => cli,
        Err(error) => return answer(&error),
    };
    cli::start_log(cli.verbosity());
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    else {
        report::problem("this process may not wait for events: raise its limit of open files");
        return ExitCode::FAILURE;
    };
    let outcome = runtime.block_on(commands::run(program, cli));
    // A thread may still wait for a key to be pressed.
    runtime.shutdown_background();
    match outcome {
        Ok(code) => code,
        Err(failure) => {
            report::failure(&failure, program);
            ExitCode::FAILURE
        }
    }
}

/// Shows what the parser has to say: help, or what is wrong.
fn answer(error: &clap::Error) -> ExitCode {
    let text = error.render().to_string();
    match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => report::text(&text)
            .map(|()| ExitCode::SUCCESS)
            .unwrap_or(ExitCode::FAILURE),
        _ => {
            report::problem(text.trim_end());
            ExitCode::FAILURE
        }
    }
}
