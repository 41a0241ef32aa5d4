//! The command line of `virt-handler`.

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the command and returns its exit status.
pub fn main(_arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    ExitCode::FAILURE
}
