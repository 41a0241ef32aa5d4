//! What may become of a call to a launcher.

use std::error::Error;
use std::time::Duration;

use api::error_chain::chain;
use tonic::{Code, Status};

/// Bytes of a launcher's message that are kept: it may end up in a condition.
const MESSAGE_LEN_MAX_BYTES: usize = 1024;

/// Why a launcher did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// There is no connection to the launcher.
    #[error("reach the launcher for {call}: {reason}")]
    Unreachable {
        /// The call.
        call: &'static str,
        /// What the transport says.
        reason: String,
    },
    /// The launcher did not answer in time.
    #[error("wait for the launcher's answer to {call}: none within {} s", after.as_secs_f32())]
    TimedOut {
        /// The call.
        call: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// The launcher does not know the call: it is older than this handler.
    #[error("call {call}: the launcher does not know it")]
    Unimplemented {
        /// The call.
        call: &'static str,
    },
    /// The launcher says no.
    #[error("call {call}: the launcher answers: {message}")]
    Refused {
        /// The call.
        call: &'static str,
        /// Why, in the launcher's words.
        message: String,
    },
    /// The launcher's answer makes no sense.
    #[error("read the launcher's answer to {call}: {reason}")]
    BadAnswer {
        /// The call.
        call: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl CommandError {
    /// Tells by a gRPC status why `call`, which had the time `limit`, failed.
    pub(super) fn from_status(call: &'static str, limit: Duration, status: &Status) -> Self {
        let message = bounded(status.message());
        // What travelled over the wire has no source; what this end's transport says has one.
        if let Some(source) = status.source() {
            let reason = bounded(&chain(source));
            return Self::Unreachable { call, reason };
        }
        match status.code() {
            Code::Unimplemented => Self::Unimplemented { call },
            Code::DeadlineExceeded | Code::Cancelled => Self::TimedOut { call, after: limit },
            Code::Unavailable => Self::Unreachable {
                call,
                reason: message,
            },
            Code::OutOfRange => Self::BadAnswer {
                call,
                reason: message,
            },
            _ => Self::Refused { call, message },
        }
    }

    /// Makes the error of an answer that has no success in it.
    pub(super) fn refused(call: &'static str, message: &str) -> Self {
        Self::Refused {
            call,
            message: bounded(message),
        }
    }

    /// Makes the error of an answer that makes no sense.
    pub(super) fn bad(call: &'static str, reason: impl std::fmt::Display) -> Self {
        Self::BadAnswer {
            call,
            reason: bounded(&reason.to_string()),
        }
    }
}

/// Returns the text, cut where it gets too long.
pub(super) fn bounded(text: &str) -> String {
    if text.len() <= MESSAGE_LEN_MAX_BYTES {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(MESSAGE_LEN_MAX_BYTES);
    format!("{}…", &text[..end])
}
