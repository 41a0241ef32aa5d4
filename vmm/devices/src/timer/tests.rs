use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use super::{BoardTimer, MAX_SOURCES, TimerSource, TooManyTimers};
use crate::clock::{Clock, MachineClock, ManualClock};

struct OneShot {
    due_ns: AtomicU64,
    fired: mpsc::SyncSender<u64>,
}

impl TimerSource for OneShot {
    fn next_event_ns(&self) -> Option<u64> {
        Some(self.due_ns.load(Ordering::SeqCst)).filter(|due_ns| *due_ns != 0)
    }
    fn fire(&self, now_ns: u64) {
        self.due_ns.store(0, Ordering::SeqCst);
        self.fired.send(now_ns).unwrap();
    }
}

fn one_shot(due_ns: u64) -> (Arc<OneShot>, mpsc::Receiver<u64>) {
    let (fired, receiver) = mpsc::sync_channel(4);
    (
        Arc::new(OneShot {
            due_ns: AtomicU64::new(due_ns),
            fired,
        }),
        receiver,
    )
}

#[test]
fn events_fire_once_when_due() {
    let clock = Arc::new(ManualClock::new(10));
    let timer = BoardTimer::new(clock.clone());
    let (source, fired) = one_shot(25);
    timer.add(source).unwrap();
    timer.run_due();
    assert!(fired.try_recv().is_err());
    clock.advance_ns(20);
    timer.run_due();
    timer.run_due();
    assert_eq!(fired.try_recv(), Ok(30));
    assert!(fired.try_recv().is_err());
}

#[test]
fn the_thread_notices_a_reprogrammed_timer() {
    let clock = Arc::new(MachineClock::new());
    let timer = BoardTimer::new(clock.clone());
    let (source, fired) = one_shot(0);
    timer.add(source.clone()).unwrap();
    timer.start().unwrap();
    source.due_ns.store(clock.now_ns() + 1, Ordering::SeqCst);
    timer.waker().wake();
    assert!(fired.recv().is_ok());
}

#[test]
fn a_paused_timer_fires_after_resume() {
    let timer = BoardTimer::new(Arc::new(MachineClock::new()));
    let (source, fired) = one_shot(1);
    timer.pause();
    timer.add(source).unwrap();
    timer.start().unwrap();
    assert!(fired.try_recv().is_err());
    timer.resume();
    assert!(fired.recv().is_ok());
}

#[test]
fn the_number_of_timers_is_bounded() {
    let timer = BoardTimer::new(Arc::new(ManualClock::default()));
    for _ in 0..MAX_SOURCES {
        timer.add(one_shot(0).0).unwrap();
    }
    assert_eq!(timer.add(one_shot(0).0), Err(TooManyTimers));
}
