//! Repository rules, guest harness and end-to-end tests.
//!
//! The harness drives programs from outside: it finds the guests ([`mod@guests`]) and the programs under test
//! ([`programs`]), starts them with a console ([`console`]), and scripts the demo ([`mod@demo`]). A test whose guest or
//! program is absent prints `skipped: …` and returns; under `make test` absence is a failure.

pub mod api_endpoint;
pub mod bench;
pub mod console;
pub mod cpu_time;
pub mod demo;
pub mod device_host;
pub mod device_node;
pub mod guests;
pub mod initrd;
pub mod kubelet;
pub mod nested;
pub mod node;
pub mod programs;
pub mod single_node;
pub mod tidy;
pub mod tour;

pub use console::{Console, Spawned};
pub use guests::{Guests, guests};
pub use programs::{Machine, program};

/// Reports that a test cannot run here.
///
/// # Panics
///
/// With `FERROVIRT_REQUIRE_GUESTS=1`, which `make test` sets: there nothing may be skipped.
#[expect(
    clippy::print_stderr,
    reason = "a skipped test must say so where its reader looks"
)]
pub fn skip(reason: &str) {
    assert!(
        std::env::var_os("FERROVIRT_REQUIRE_GUESTS").is_none_or(|value| value != "1"),
        "cannot run, and FERROVIRT_REQUIRE_GUESTS=1 forbids skipping: {reason}"
    );
    eprintln!("skipped: {reason}");
}
