//! The program `virtctl`, also a plugin of kubectl (`kubectl virt`) when it is called `kubectl-virt`.

use std::process::ExitCode;

fn main() -> ExitCode {
    virtctl::main(std::env::args_os())
}
