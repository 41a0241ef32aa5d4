//! Looks after one launcher: its process, its answers, its domain.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::call::CommandError;
use super::launcher::SHORT;
use super::pipe::Pipe;
use super::process::Process;
use super::view::View;
use super::{on_disk, socket};
use crate::config::{HostPaths, Patience};

/// Failed attempts before a launcher is given up, whatever the clock says: it may be this process that was stopped.
const MISSES_MIN: u32 = 2;
/// Time between two questions that wrong events of a launcher can cause.
const QUESTION_SPACING: Duration = Duration::from_millis(200);

/// Looks after a launcher until it has ended, is given up or is forgotten.
pub(super) async fn mind(
    view: Arc<View>,
    process: Process,
    pipe: Pipe,
    paths: HostPaths,
    patience: Patience,
) {
    tokio::select! {
        () = view.launcher.ended().cancelled() => drop(pipe),
        () = process.gone() => {
            pipe.finish().await;
            view.process_gone();
        }
        reason = watch(&view, patience) => {
            drop(pipe);
            view.lose(reason);
            mark_unresponsive(paths, view.launcher.pod_uid.clone()).await;
        }
    }
}

/// Leaves the mark that tells who comes later that this launcher was given up.
pub(super) async fn mark_unresponsive(paths: HostPaths, pod_uid: String) {
    let marked = on_disk(move || socket::mark_unresponsive(&paths, &pod_uid)).await;
    if let Err(error) = marked {
        tracing::warn!(%error, "launcher cannot be marked as unresponsive");
    }
}

/// Returns how often a launcher is asked for a sign of life: every 11 s for the usual 30 s.
fn ping_interval(watchdog: Duration) -> Duration {
    watchdog / 3 + (watchdog / 30).min(Duration::from_secs(1))
}

/// Asks for signs of life and for the domain; returns why the launcher is given up.
async fn watch(view: &View, patience: Patience) -> String {
    let interval = ping_interval(patience.watchdog);
    let limit = SHORT.min(interval);
    let mut answered = Instant::now();
    let mut misses = 0;
    let mut next_ping = answered + scattered(interval, 50);
    let mut next_question = answered + scattered(patience.resync, 10);
    loop {
        let asks = tokio::select! {
            () = view.wished() => true,
            () = sleep_until(next_ping.min(next_question)) => Instant::now() >= next_question,
        };
        let answer = if asks {
            ask(view).await
        } else {
            view.launcher.ping_within(limit).await
        };
        let now = Instant::now();
        next_ping = now + interval;
        if asks {
            let wait = if answer.is_ok() {
                patience.resync
            } else {
                interval
            };
            next_question = now + scattered(wait, 10);
            sleep_until(now + QUESTION_SPACING).await;
        }
        let Some(error) = answer.err().filter(is_silence) else {
            (answered, misses) = (now, 0);
            continue;
        };
        misses += 1;
        tracing::debug!(vmi = %view.launcher.key, %error, misses, "launcher gives no sign of life");
        if misses >= MISSES_MIN && now - answered >= patience.watchdog {
            let silence = (now - answered).as_secs();
            return format!("launcher has not answered for {silence} s: {error}");
        }
    }
}

async fn ask(view: &View) -> Result<(), CommandError> {
    let answered = match view.ask().await {
        Ok(answer) => view.take_answer(answer).await,
        Err(error) => Err(error),
    };
    if let Err(error) = &answered {
        tracing::warn!(vmi = %view.launcher.key, %error, "launcher does not tell its domain");
    }
    answered
}

/// Whether nobody answered; a launcher that says no or nonsense lives.
fn is_silence(error: &CommandError) -> bool {
    matches!(
        error,
        CommandError::Unreachable { .. } | CommandError::TimedOut { .. }
    )
}

/// Returns a duration up to `percent` shorter, so that launchers do not get in step.
fn scattered(duration: Duration, percent: u32) -> Duration {
    let random = u32::try_from(RandomState::new().hash_one(0) % 1024).unwrap_or_default();
    duration - duration / 100 * percent * random / 1024
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{ping_interval, scattered};

    #[test]
    fn the_usual_watchdog_asks_every_11_seconds() {
        assert_eq!(
            ping_interval(Duration::from_secs(30)),
            Duration::from_secs(11)
        );
        assert_eq!(
            ping_interval(Duration::from_millis(300)),
            Duration::from_millis(110)
        );
    }

    #[test]
    fn scattered_times_stay_near() {
        for _ in 0..100 {
            let time = scattered(Duration::from_secs(300), 10);
            assert!((270..=300).contains(&time.as_secs()), "{time:?}");
        }
    }
}
