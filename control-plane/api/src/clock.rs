//! `spec.domain.clock`: what time it is for the guest, and by which timers it tells.

use crate::object::object;

object! {
    /// The clock that the guest starts with; at most one of `utc` and `timezone` is set.
    pub struct Clock {
        /// Time in UTC.
        pub utc: Option<UtcClock>,
        /// Time in this zone, `Europe/Vienna`.
        pub timezone: Option<String>,
        /// Timers.
        pub timer: Option<Timers>,
    }

    /// A clock in UTC.
    pub struct UtcClock {
        /// Seconds that it is ahead.
        pub offset_seconds: Option<i64>,
    }

    /// Timers.
    pub struct Timers {
        /// High precision event timer.
        pub hpet: Option<TickTimer>,
        /// KVM's paravirtual clock.
        pub kvm: Option<Timer>,
        /// Programmable interval timer.
        pub pit: Option<TickTimer>,
        /// Real-time clock.
        pub rtc: Option<RtcTimer>,
        /// Hyper-V's paravirtual clock.
        pub hyperv: Option<Timer>,
    }

    /// A timer.
    pub struct Timer {
        /// Whether it is there; `true` when unset.
        pub present: Option<bool>,
    }

    /// A timer with ticks that a busy host can miss.
    pub struct TickTimer {
        /// What happens to missed ticks: `delay`, `catchup`, `merge` or `discard`.
        pub tick_policy: String,
        /// Whether it is there; `true` when unset.
        pub present: Option<bool>,
    }

    /// The real-time clock.
    pub struct RtcTimer {
        /// What happens to missed ticks: `delay` or `catchup`.
        pub tick_policy: String,
        /// Whether it is there; `true` when unset.
        pub present: Option<bool>,
        /// Whose time it follows: `guest` or `wall`.
        pub track: String,
    }
}
