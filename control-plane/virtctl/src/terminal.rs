//! The terminal while keys go to a guest as they are.

use std::sync::{Mutex, Once, PoisonError};

use rustix::stdio::stdin;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcsetattr};

use crate::failure::Failure;

/// How the terminal was; kept outside of any value, as a panic that aborts runs no destructor.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);
static HOOK: Once = Once::new();

/// A terminal in raw mode; it is as before when this is dropped, and when the program panics.
#[derive(Debug)]
pub(crate) struct Raw {
    _private: (),
}

/// Whether somebody types.
pub(crate) fn is_interactive() -> bool {
    isatty(stdin())
}

impl Raw {
    /// Puts the terminal of standard input into raw mode; does nothing when it is none.
    ///
    /// # Errors
    ///
    /// Fails when the terminal refuses.
    pub(crate) fn enter() -> Result<Option<Self>, Failure> {
        if !is_interactive() {
            return Ok(None);
        }
        let refused = |error: rustix::io::Errno| Failure::Local {
            attempt: "put the terminal into raw mode".to_owned(),
            source: error.into(),
        };
        let before = tcgetattr(stdin()).map_err(refused)?;
        let mut raw = before.clone();
        raw.make_raw();
        HOOK.call_once(restore_on_panic);
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        tcsetattr(stdin(), OptionalActions::Now, &raw).map_err(refused)?;
        Ok(Some(Self { _private: () }))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

/// Makes the terminal what it was.
fn restore() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(before) = before {
        // A terminal that has been closed needs no restoring.
        let _closed = tcsetattr(stdin(), OptionalActions::Drain, &before);
    }
}

fn restore_on_panic() {
    let previous = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // The thread that panics may hold the lock: then it is on its way to restore the terminal itself.
        let before = BEFORE.try_lock().ok().and_then(|mut before| before.take());
        if let Some(before) = before {
            let _closed = tcsetattr(stdin(), OptionalActions::Now, &before);
        }
        previous(panic);
    }));
}
