//! The program `ferrovirt`.

use std::process::ExitCode;

fn main() -> ExitCode {
    single_node::main_entry()
}
