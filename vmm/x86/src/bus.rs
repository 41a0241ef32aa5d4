//! The seam to the board: what a CPU asks of the machine around it.

/// The machine as one CPU sees it. Calls may block briefly; none comes back into the CPU.
pub trait Bus {
    /// Reads `size` (1, 2 or 4) bytes from an I/O port.
    fn port_in(&mut self, port: u16, size: u8) -> u32;
    /// Writes `size` (1, 2 or 4) bytes to an I/O port.
    fn port_out(&mut self, port: u16, size: u8, value: u32);
    /// Reads physical memory that is not RAM; unclaimed addresses read as ones.
    fn mmio_read(&mut self, gpa: u64, data: &mut [u8]);
    /// Writes physical memory that is not RAM.
    fn mmio_write(&mut self, gpa: u64, data: &[u8]);
    /// Reads an MSR that the CPU core does not hold itself (APIC base, x2APIC, TSC deadline,
    /// paravirtual clock). `None` raises #GP.
    fn msr_read(&mut self, index: u32) -> Option<u64>;
    /// Writes such an MSR. `None` raises #GP.
    fn msr_write(&mut self, index: u32, value: u64) -> Option<()>;
    /// Reads the task priority (CR8).
    fn cr8(&mut self) -> u8;
    /// Sets the task priority (CR8), 0 to 15.
    fn set_cr8(&mut self, value: u8);
    /// Answers CPUID. The CPU itself puts in what follows from its control registers (OSXSAVE, the size of
    /// the XSAVE area in use).
    fn cpuid(&mut self, leaf: u32, subleaf: u32) -> [u32; 4];
    /// Whether an interrupt could be acknowledged now.
    fn interrupt_pending(&mut self) -> bool;
    /// Acknowledges the highest pending interrupt and gives its vector.
    fn acknowledge_interrupt(&mut self) -> Option<u8>;
    /// Takes a pending NMI.
    fn take_nmi(&mut self) -> bool;
    /// The guest moved its time stamp counter: it is now the host's plus `offset`, modulo 2^64.
    fn tsc_offset_changed(&mut self, _offset: u64) {}
    /// Runs timers that are due; called whenever a slice of instructions is over.
    fn tick(&mut self);
}

/// Why [`crate::Vcpu::run`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// HLT with nothing pending: sleep until the board wakes this CPU.
    Halt,
    /// Triple fault.
    Shutdown,
    /// The owner asked through [`crate::memory::Attention`].
    Kicked,
}
