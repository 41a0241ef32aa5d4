//! What a person or a script reads: results on standard output, everything else on standard error.

use std::io::{IsTerminal, Write};

use crate::cli::Program;
use crate::failure::Failure;

/// Writes a text to standard output as it is.
///
/// # Errors
///
/// Fails when nobody takes it, as with `virtctl … | head`.
pub(crate) fn text(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(Failure::Output)
}

/// Writes a line to standard output.
///
/// # Errors
///
/// Fails as [`text`] does.
pub(crate) fn line(line: &str) -> Result<(), Failure> {
    text(&format!("{line}\n"))
}

/// Writes a line to standard error, where it may get lost.
pub(crate) fn problem(line: &str) {
    let _lost = writeln!(std::io::stderr().lock(), "{line}");
}

/// Tells why a command failed, and the cure where there is one.
pub(crate) fn failure(failure: &Failure, program: Program) {
    if let Failure::Output(error) = failure
        && error.kind() == std::io::ErrorKind::BrokenPipe
    {
        return;
    }
    problem(&failure.to_string());
    if let Some(cure) = failure.cure() {
        problem(&cure.replace("virtctl", program.name()));
    }
}

/// What is being waited for: one line that changes on a terminal, one line for each change elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    shown: String,
}

impl Progress {
    /// Shows what is waited for now and since how many seconds.
    pub(crate) fn show(&mut self, what: &str, elapsed_s: u64) {
        if std::io::stderr().is_terminal() {
            let _lost = write!(std::io::stderr().lock(), "\r\x1b[K{what} ({elapsed_s} s)");
        } else if self.shown != what {
            problem(what);
        }
        what.clone_into(&mut self.shown);
    }

    /// Removes the line from the terminal.
    pub(crate) fn clear(&mut self) {
        if !self.shown.is_empty() && std::io::stderr().is_terminal() {
            let _lost = write!(std::io::stderr().lock(), "\r\x1b[K");
        }
        self.shown.clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
