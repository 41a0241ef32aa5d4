//! One virtual machine from one configuration.
//!
//! [`machine::Machine::start`] builds a machine from a [`config::MachineConfig`] and gives the handle
//! by which it is commanded. Below it, [`hv`] is the seam to what runs the CPUs, [`board`] the
//! devices, [`boot`] what the guest starts with.

pub mod acpi;
pub mod board;
pub mod boot;
pub mod cli;
pub mod config;
pub mod facts;
pub mod hv;
pub mod machine;
pub mod memory;
pub mod probe;
pub mod smbios;

/// Returns an error with all its causes in one line.
#[must_use]
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use std::io;

    #[test]
    fn an_error_chain_is_one_line() {
        #[derive(Debug, thiserror::Error)]
        #[error("read /x")]
        struct Read(#[source] io::Error);

        let error = Read(io::Error::other("two\nlines"));
        assert_eq!(super::error_chain(&error), "read /x: two lines");
    }
}
