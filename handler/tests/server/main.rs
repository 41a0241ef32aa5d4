//! The servers of a node agent, over real sockets with certificates of the test's own. Launchers are stand-ins.

#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "an integration test is a test module as a whole"
)]

mod certificates;
mod client;
mod consoles;
mod measures;
mod requests;
mod site;
mod stand_in;
