//! The program against an API server that plays a part: what it asks for, what it says, how it ends.

#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "an integration test is a test module as a whole"
)]

mod commands;
mod console;
mod endpoint;
mod forwarding;
mod line;
mod pseudo_terminal;
mod scripts;
