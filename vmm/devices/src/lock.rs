//! The lock of a chip's attachment.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Guards a chip's state; a panic elsewhere does not take the device down with it.
#[derive(Debug, Default)]
pub(crate) struct Lock<T>(Mutex<T>);

impl<T> Lock<T> {
    /// Wraps a chip.
    pub(crate) fn new(chip: T) -> Self {
        Self(Mutex::new(chip))
    }

    /// Waits for the chip. The guard must be dropped before any call out of the module.
    pub(crate) fn get(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
