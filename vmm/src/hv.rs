//! The seam between a machine and what runs its CPUs.
//!
//! A [`Hypervisor`] makes a [`Vm`], which makes [`Vcpu`]s. A vCPU calls *into* the [`Board`] for port
//! I/O, memory-mapped I/O and the interrupt controllers; [`Vcpu::run`] returns only when the machine
//! has to decide something. Interrupts travel the other way through the sinks that the [`Vm`] gives.
//! Local APICs belong to the back end; PIC, I/O APIC and PIT are devices of the board under every one.

pub mod kvm;
pub mod soft;

use std::sync::Arc;

use devices::clock::MachineClock;
use devices::ioapic::RouteListener;
use devices::{MsiMessage, MsiSink, SavedDevice, Wake};
use vmm_sys_util::eventfd::EventFd;
pub use x86::CpuState;

use crate::config::CpuConfig;
use crate::memory::Ram;

/// Why a back end failed. None of these is the guest's doing.
#[derive(Debug, thiserror::Error)]
pub enum HvError {
    /// The host has no such back end.
    #[error("open {device}")]
    Open {
        /// The device file.
        device: &'static str,
        /// The host's answer.
        source: std::io::Error,
    },
    /// The host's back end lacks something that a machine needs.
    #[error("use {device}: {missing} is missing; choose the software CPU with --accel soft")]
    Missing {
        /// The device file.
        device: &'static str,
        /// What is missing.
        missing: &'static str,
    },
    /// A request to the host failed.
    #[error("{request}")]
    Host {
        /// What was asked.
        request: &'static str,
        /// The host's answer.
        source: std::io::Error,
    },
    /// The CPU model is not known, or lacks what was asked for.
    #[error("use cpus.{field}: {problem}")]
    Model {
        /// The field of the configuration.
        field: &'static str,
        /// What is wrong, and the cure.
        problem: String,
    },
    /// A vCPU cannot go on.
    #[error("run vcpu {id}: {reason} at rip {rip:#x}")]
    Stuck {
        /// The vCPU.
        id: u32,
        /// What the back end said.
        reason: String,
        /// Where the guest was.
        rip: u64,
    },
    /// A saved state does not fit.
    #[error("restore vcpu {id}")]
    Restore {
        /// The vCPU.
        id: u32,
        /// The cause.
        source: devices::RestoreError,
    },
    /// A state holds what no CPU can hold.
    #[error("set the state of vcpu {id}")]
    State {
        /// The vCPU.
        id: u32,
        /// The field.
        source: x86::StateError,
    },
    /// A state cannot be saved.
    #[error("save vcpu {id}")]
    Save {
        /// The vCPU.
        id: u32,
        /// The cause.
        source: devices::SaveError,
    },
}

/// The machine as a vCPU sees it. Every call may come from any vCPU's thread.
pub trait Board: Send + Sync {
    /// Reads 1, 2 or 4 bytes from an I/O port.
    fn port_read(&self, port: u16, data: &mut [u8]);
    /// Writes 1, 2 or 4 bytes to an I/O port.
    fn port_write(&self, port: u16, data: &[u8]);
    /// Reads physical memory that is not RAM.
    fn mmio_read(&self, gpa: u64, data: &mut [u8]);
    /// Writes physical memory that is not RAM.
    fn mmio_write(&self, gpa: u64, data: &[u8]);
    /// Returns the vector that the PIC would give now, if it asks.
    fn peek_pic(&self) -> Option<u8>;
    /// Runs the PIC's interrupt acknowledge cycle.
    fn acknowledge_pic(&self) -> Option<u8>;
    /// Ends the level interrupt `vector` at the I/O APIC.
    fn end_of_interrupt(&self, vector: u8);
}

/// What a virtual machine is made of before it has devices.
pub struct VmSetup<'a> {
    /// Guest RAM.
    pub ram: &'a Ram,
    /// Number of vCPUs and their model.
    pub cpus: &'a CpuConfig,
    /// The machine's clock.
    pub clock: Arc<MachineClock>,
}

/// A back end.
pub trait Hypervisor: Send + Sync {
    /// Makes a virtual machine without vCPUs.
    ///
    /// # Errors
    /// If the host refuses, or the CPU model cannot be had.
    fn create_vm(&self, setup: &VmSetup<'_>) -> Result<Arc<dyn Vm>, HvError>;
}

/// Which pages of a range were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirtyPages {
    /// First guest physical address of the range.
    pub gpa: u64,
    /// A bit for each page of 4 KiB, the first in the lowest bit.
    pub bits: Vec<u64>,
}

/// A virtual machine of a back end.
pub trait Vm: Send + Sync {
    /// Returns where message-signalled interrupts go.
    fn msi_sink(&self) -> Arc<dyn MsiSink>;

    /// Returns what the PIC wakes when it asserts INTR.
    fn intr(&self) -> Arc<dyn Wake>;

    /// Returns who follows the I/O APIC's redirection table, where the back end needs to know it.
    fn route_listener(&self) -> Option<Arc<dyn RouteListener>> {
        None
    }

    /// Connects the board; called once, before the first vCPU is made.
    fn connect(&self, board: &Arc<dyn Board>);

    /// Makes vCPU `id`, which is in the state after power-on.
    ///
    /// # Errors
    /// If the host refuses.
    fn create_vcpu(&self, id: u32, board: Arc<dyn Board>) -> Result<Box<dyn Vcpu>, HvError>;

    /// Delivers a non-maskable interrupt to every vCPU, as a front panel button would.
    fn inject_nmi(&self);

    /// Tells whether [`Vm::add_ioeventfd`] does anything.
    fn has_ioeventfds(&self) -> bool {
        false
    }

    /// Signals `event` on guest writes at `gpa` of any width instead of calling the board.
    ///
    /// # Errors
    /// If the host refuses.
    fn add_ioeventfd(&self, _gpa: u64, _event: &EventFd) -> Result<(), HvError> {
        Ok(())
    }

    /// Undoes [`Vm::add_ioeventfd`].
    ///
    /// # Errors
    /// If the host refuses.
    fn remove_ioeventfd(&self, _gpa: u64, _event: &EventFd) -> Result<(), HvError> {
        Ok(())
    }

    /// Binds `event` to a message-signalled interrupt, which the back end then sends by itself whenever somebody, be it
    /// another process or the kernel, signals the event. Back ends that cannot give `None`: their callers wait for the
    /// event and use [`Vm::msi_sink`].
    ///
    /// # Errors
    /// If the host refuses.
    fn bind_msi(&self, _event: &EventFd) -> Result<Option<Box<dyn MsiEvent>>, HvError> {
        Ok(None)
    }

    /// Starts or stops noting which pages vCPUs write; tells whether the back end can.
    ///
    /// # Errors
    /// If the host refuses.
    fn set_dirty_log(&self, _on: bool) -> Result<bool, HvError> {
        Ok(false)
    }

    /// Takes the pages that vCPUs wrote since the last call. What devices wrote is not among them:
    /// guest memory reports that itself.
    ///
    /// # Errors
    /// If the host refuses, or the log is not on.
    fn take_dirty_log(&self) -> Result<Vec<DirtyPages>, HvError> {
        Ok(Vec::new())
    }

    /// Stops guest time with the machine's clock. No vCPU runs.
    fn paused(&self) {}

    /// Lets guest time go on after the machine's clock stood still. No vCPU runs.
    fn resumed(&self) {}
}

/// An event that [`Vm::bind_msi`] bound; dropping it undoes the binding.
pub trait MsiEvent: Send + Sync {
    /// Sends `message` on each event from now on. Under `None`, which is how it starts and what a masked vector wants,
    /// events stay in their counter, and are sent as one when there is a message again.
    ///
    /// # Errors
    /// If the host refuses.
    fn set_message(&self, message: Option<MsiMessage>) -> Result<(), HvError>;
}

/// Why [`Vcpu::run`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VcpuExit {
    /// Somebody called [`Kick::kick`].
    Kicked,
    /// Triple fault.
    Shutdown,
    /// The guest asked this back end for a reset.
    Reset,
}

/// Makes a vCPU return from [`Vcpu::run`], now or at its next start. Callable from any thread.
pub trait Kick: Send + Sync {
    /// Kicks the vCPU.
    fn kick(&self);
}

/// All that a vCPU is between two instructions.
#[derive(Clone, Debug)]
pub struct VcpuState {
    /// Registers.
    pub cpu: CpuState,
    /// The local APIC.
    pub apic: SavedDevice,
    /// Waits for a start-up message from another vCPU.
    pub waits_for_sipi: bool,
}

/// One vCPU, owned by one thread.
pub trait Vcpu: Send {
    /// Returns the handle by which other threads stop [`Vcpu::run`].
    fn kicker(&self) -> Arc<dyn Kick>;

    /// Runs the guest; sleeps while the guest halts.
    ///
    /// # Errors
    /// If the host cannot go on with this guest.
    fn run(&mut self) -> Result<VcpuExit, HvError>;

    /// Puts the vCPU into `start`, or lets it wait for a start-up message, with its local APIC as
    /// after power-on.
    ///
    /// # Errors
    /// If the host refuses.
    fn reset(&mut self, start: Option<&CpuState>) -> Result<(), HvError>;

    /// Returns the vCPU's state.
    ///
    /// # Errors
    /// If the host refuses.
    fn state(&mut self) -> Result<VcpuState, HvError>;

    /// Replaces the vCPU's state.
    ///
    /// # Errors
    /// If the host refuses, or the state is not one that a vCPU can have.
    fn set_state(&mut self, state: &VcpuState) -> Result<(), HvError>;
}

#[cfg(test)]
mod tests;
