//! The timer of a local APIC (SDM vol. 3 §11.5.4). One bus clock is one nanosecond.

/// Shortest period that a periodic timer fires with; a shorter one would leave its guest no time.
const MIN_PERIOD_NS: u64 = 10_000;

/// Modes in bits 17 and 18 of the timer's vector table entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    OneShot,
    Periodic,
    TscDeadline,
}

impl Mode {
    pub(super) fn of_lvt(lvt: u32) -> Self {
        match lvt >> 17 & 3 {
            0 => Self::OneShot,
            1 => Self::Periodic,
            _ => Self::TscDeadline,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Timer {
    pub(super) initial: u32,
    pub(super) divide: u32,
    /// When the count in progress began; none while it stands at zero.
    pub(super) start_ns: Option<u64>,
    /// The time-stamp counter's value to fire at; zero while disarmed.
    pub(super) tsc_deadline: u64,
}

impl Timer {
    /// Returns the factor of the divide configuration register: bits 0, 1 and 3.
    fn divisor(self) -> u64 {
        let code = self.divide & 3 | self.divide >> 1 & 4;
        if code == 7 { 1 } else { 2 << code }
    }

    fn length_ns(self, mode: Mode) -> u64 {
        let length_ns = u64::from(self.initial) * self.divisor();
        if mode == Mode::Periodic {
            length_ns.max(MIN_PERIOD_NS)
        } else {
            length_ns
        }
    }

    pub(super) fn write_initial(&mut self, initial: u32, now_ns: u64) {
        self.initial = initial;
        self.start_ns = (initial != 0).then_some(now_ns);
    }

    pub(super) fn write_divide(&mut self, divide: u32, mode: Mode, now_ns: u64) {
        let current = self.current(mode, now_ns);
        self.divide = divide & 0xb;
        // The count goes on from where it is, at the new pace.
        if self.start_ns.is_some() {
            let done = u64::from(self.initial.saturating_sub(current)) * self.divisor();
            self.start_ns = Some(now_ns.saturating_sub(done));
        }
    }

    /// Returns the current count register.
    pub(super) fn current(self, mode: Mode, now_ns: u64) -> u32 {
        let Some(start_ns) = self.start_ns else {
            return 0;
        };
        let elapsed_ns = now_ns.saturating_sub(start_ns);
        let length_ns = self.length_ns(mode);
        let left_ns = match mode {
            Mode::TscDeadline => 0,
            Mode::OneShot => length_ns.saturating_sub(elapsed_ns),
            Mode::Periodic => length_ns - elapsed_ns % length_ns,
        };
        u32::try_from(left_ns.div_ceil(self.divisor()))
            .unwrap_or(u32::MAX)
            .min(self.initial)
    }

    /// Returns when the count next reaches zero.
    pub(super) fn due_ns(self, mode: Mode) -> Option<u64> {
        Some(self.start_ns?.saturating_add(self.length_ns(mode)))
    }

    /// Moves the count on to `now_ns`; tells whether it reached zero on the way.
    pub(super) fn advance(&mut self, mode: Mode, now_ns: u64) -> bool {
        let (Some(start_ns), Some(due_ns)) = (self.start_ns, self.due_ns(mode)) else {
            return false;
        };
        if due_ns > now_ns {
            return false;
        }
        self.start_ns = (mode == Mode::Periodic).then(|| {
            let length_ns = self.length_ns(mode);
            start_ns + (now_ns - start_ns) / length_ns * length_ns
        });
        true
    }
}
