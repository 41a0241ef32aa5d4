//! What a guest asks of, or tells, the whole machine.

/// Which register a guest reset the machine with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetSource {
    /// The keyboard controller's pulse command.
    Keyboard,
    /// Port 0x92.
    Port92,
    /// The reset control register, port 0xcf9.
    ResetControl,
}

/// An event of the machine as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlatformEvent {
    /// The guest wants to start anew.
    Reset(ResetSource),
    /// The guest has entered the soft-off state, S5.
    PowerOff,
    /// The guest's kernel has panicked.
    Panicked,
    /// The guest's kernel has panicked and starts its crash kernel.
    CrashLoaded,
    /// The guest's firmware or kernel reports an orderly end.
    ShutDown,
}

/// Takes events of the machine. Called on a vCPU thread with no lock held; must not block.
pub trait PlatformSink: Send + Sync {
    /// Takes one event.
    fn notify(&self, event: PlatformEvent);
}
