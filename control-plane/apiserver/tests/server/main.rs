//! A server behind a real socket: clients, crashes, kubectl.

#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "an integration test is a test module as a whole"
)]

mod crash;
mod figures;
mod kubectl;
mod protocols;
mod wire;
