//! What a plugin does next, from what it sees and what it did.

use std::time::{Duration, Instant};

use super::socket::Mark;
use super::streams::Streams;

/// Time in which the kubelet asks for the list once it has taken a plugin.
pub(super) const ASKED_WITHIN: Duration = Duration::from_secs(10);

/// What there is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// Whether the own socket is where it was made.
    pub(super) is_served: bool,
    /// The kubelet's socket.
    pub(super) kubelet: Option<Mark>,
    /// The kubelet's streams.
    pub(super) streams: Streams,
    /// The time.
    pub(super) now: Instant,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Past {
    /// When the own socket may be made again.
    pub(super) serve_at: Option<Instant>,
    /// Whom was asked last.
    pub(super) asked: Option<Mark>,
    /// When the same may be asked again.
    pub(super) ask_at: Option<Instant>,
    /// The kubelet's consent, if it was the last answer.
    pub(super) taken: Option<Taken>,
}

/// The kubelet's consent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    /// Streams before it was asked.
    pub(super) opened_before: u64,
    /// When it said so.
    pub(super) at: Instant,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Make the own socket.
    Serve,
    /// Ask the kubelet.
    Register(Mark),
    /// The kubelet's stream has ended, or none came: find that the consent is void.
    Doubt,
    /// Nobody is there to ask; wait for a change.
    AwaitKubelet,
    /// Wait for a change or a time.
    Wait(Option<Instant>),
}

/// Says what to do.
pub(super) fn plan(seen: &Seen, past: &Past) -> Step {
    let due = |at: Option<Instant>| at.is_none_or(|at| at <= seen.now);
    if !seen.is_served {
        return match due(past.serve_at) {
            true => Step::Serve,
            false => Step::Wait(past.serve_at),
        };
    }
    let Some(kubelet) = seen.kubelet else {
        return Step::AwaitKubelet;
    };
    if past.asked != Some(kubelet) {
        return Step::Register(kubelet);
    }
    match past.taken {
        Some(taken) => stay(seen, taken),
        None if due(past.ask_at) => Step::Register(kubelet),
        None => Step::Wait(past.ask_at),
    }
}

fn stay(seen: &Seen, taken: Taken) -> Step {
    let was_asked = seen.streams.opened > taken.opened_before;
    let until = taken.at + ASKED_WITHIN;
    match (seen.streams.open, was_asked) {
        (0, false) if seen.now < until => Step::Wait(Some(until)),
        (0, _) => Step::Doubt,
        _ => Step::Wait(None),
    }
}
