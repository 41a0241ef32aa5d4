//! A record of changes to a file.

use std::sync::Mutex;

/// One change.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Write { offset: u64, bytes: Vec<u8> },
    Zero { offset: u64, len_bytes: u64 },
    SetLen { len_bytes: u64 },
    Sync,
}

/// The changes, if somebody wants them.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    pub(crate) steps: Mutex<Option<Vec<Step>>>,
}

impl Journal {
    pub(super) fn note(&self, step: impl FnOnce() -> Step) {
        if let Some(steps) = &mut *self.steps.lock().unwrap() {
            steps.push(step());
        }
    }
}
