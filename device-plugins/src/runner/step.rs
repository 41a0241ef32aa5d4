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
    /// When the own socket may be made again beside the same kubelet.
    pub(super) serve_at: Option<Instant>,
    /// Which kubelet's socket was there when it was made.
    pub(super) served_beside: Option<Mark>,
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
        // A kubelet that comes or goes is a good reason for the socket to be gone.
        let is_new = past.served_beside != seen.kubelet;
        return match is_new || due(past.serve_at) {
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

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{ASKED_WITHIN, Past, Seen, Step, Taken, plan};
    use crate::runner::socket::Mark;
    use crate::runner::streams::Streams;

    /// What is seen of a plugin that is served beside a kubelet.
    fn seen(kubelet: Option<Mark>, streams: (usize, u64)) -> Seen {
        let (open, opened) = streams;
        Seen {
            is_served: true,
            kubelet,
            streams: Streams { open, opened },
            now: Instant::now(),
        }
    }

    fn kubelet(number: u64) -> Mark {
        Mark::numbered(number)
    }

    /// What was done by a plugin that was taken after so many streams.
    fn taken(kubelet: Mark, opened_before: u64, at: Instant) -> Past {
        Past {
            asked: Some(kubelet),
            taken: Some(Taken { opened_before, at }),
            ..Past::default()
        }
    }

    #[test]
    fn a_plugin_is_served_before_it_registers() {
        let mut seen = seen(Some(kubelet(1)), (0, 0));
        assert_eq!(plan(&seen, &Past::default()), Step::Register(kubelet(1)));
        seen.is_served = false;
        assert_eq!(plan(&seen, &Past::default()), Step::Serve);
        seen.kubelet = None;
        assert_eq!(plan(&seen, &Past::default()), Step::Serve);
        seen.is_served = true;
        assert_eq!(plan(&seen, &Past::default()), Step::AwaitKubelet);
    }

    #[test]
    fn a_socket_that_is_taken_away_is_made_again_after_a_while_or_beside_another_kubelet_at_once() {
        let mut seen = seen(Some(kubelet(1)), (1, 1));
        seen.is_served = false;
        let later = seen.now + Duration::from_secs(1);
        let past = Past {
            serve_at: Some(later),
            served_beside: Some(kubelet(1)),
            ..Past::default()
        };
        assert_eq!(plan(&seen, &past), Step::Wait(Some(later)));
        seen.kubelet = Some(kubelet(2));
        assert_eq!(plan(&seen, &past), Step::Serve);
        seen.kubelet = Some(kubelet(1));
        seen.now = later;
        assert_eq!(plan(&seen, &past), Step::Serve);
    }

    #[test]
    fn another_kubelet_is_asked_at_once_and_the_same_when_its_time_has_come() {
        let mut seen = seen(Some(kubelet(1)), (0, 0));
        let later = seen.now + Duration::from_secs(1);
        let past = Past {
            asked: Some(kubelet(1)),
            ask_at: Some(later),
            ..Past::default()
        };
        assert_eq!(plan(&seen, &past), Step::Wait(Some(later)));
        seen.now = later;
        assert_eq!(plan(&seen, &past), Step::Register(kubelet(1)));
        seen.now = later - Duration::from_millis(1);
        seen.kubelet = Some(kubelet(2));
        assert_eq!(plan(&seen, &past), Step::Register(kubelet(2)));
    }

    #[test]
    fn a_consent_lasts_as_long_as_the_kubelet_listens() {
        let followed = seen(Some(kubelet(1)), (1, 4));
        let past = taken(kubelet(1), 3, followed.now);
        assert_eq!(plan(&followed, &past), Step::Wait(None));
        // Its stream has ended.
        let mut left = followed;
        left.streams.open = 0;
        assert_eq!(plan(&left, &past), Step::Doubt);
        // It has not begun yet, and then never does.
        left.streams.opened = 3;
        let until = past.taken.unwrap().at + ASKED_WITHIN;
        assert_eq!(plan(&left, &past), Step::Wait(Some(until)));
        left.now = until;
        assert_eq!(plan(&left, &past), Step::Doubt);
    }
}
