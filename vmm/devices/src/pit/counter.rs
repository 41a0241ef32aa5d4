//! One counter of the 8254: what its registers mean at a given time (Intel 8254 data sheet,
//! "Mode Definitions").

/// Frequency of the counters in hertz.
pub(super) const HZ: u64 = 1_193_182;

const NS_PER_S: u128 = 1_000_000_000;

pub(super) fn ticks_of_ns(ns: u64) -> u64 {
    u64::try_from(u128::from(ns) * u128::from(HZ) / NS_PER_S).unwrap_or(u64::MAX)
}

/// Returns the first nanosecond at which `ticks` have passed.
pub(super) fn ns_of_ticks(ticks: u64) -> u64 {
    u64::try_from((u128::from(ticks) * NS_PER_S).div_ceil(u128::from(HZ))).unwrap_or(u64::MAX)
}

/// What a byte on the counter's port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Low,
    High,
    LowThenHigh,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counter {
    /// 0 to 5.
    pub(super) mode: u8,
    pub(super) access: Access,
    pub(super) bcd: bool,
    /// The count register as written; 0 stands for the largest count.
    pub(super) initial: u16,
    pub(super) low_written: Option<u8>,
    pub(super) high_is_next: bool,
    pub(super) latched_count: Option<u16>,
    pub(super) latched_status: Option<u8>,
    /// A control word was written and no count since.
    pub(super) null_count: bool,
    pub(super) gate: bool,
    /// Ticks counted before `since_ns`.
    pub(super) done: u64,
    /// When counting went on; none while it is stopped.
    pub(super) since_ns: Option<u64>,
    /// Terminal counts that have been signalled.
    pub(super) signalled: u64,
}

impl Counter {
    pub(super) fn fresh(gate: bool) -> Self {
        Self {
            mode: 0,
            access: Access::LowThenHigh,
            bcd: false,
            initial: 0,
            low_written: None,
            high_is_next: false,
            latched_count: None,
            latched_status: None,
            null_count: true,
            gate,
            done: 0,
            since_ns: None,
            signalled: 0,
        }
    }

    fn repeats(&self) -> bool {
        matches!(self.mode, 2 | 3)
    }

    fn starts_by_gate(&self) -> bool {
        matches!(self.mode, 1 | 5)
    }

    /// Returns the count in ticks, 1 to 65536.
    pub(super) fn period(&self) -> u64 {
        match (self.initial, self.bcd) {
            (0, false) => 0x1_0000,
            (0, true) => 10_000,
            (initial, false) => u64::from(initial),
            (initial, true) => (0..4).rev().fold(0, |value, digit| {
                value * 10 + u64::from(initial >> (4 * digit) & 0xf)
            }),
        }
    }

    fn elapsed(&self, now_ns: u64) -> u64 {
        let ran_ns = self
            .since_ns
            .map_or(0, |since_ns| now_ns.saturating_sub(since_ns));
        self.done.saturating_add(ticks_of_ns(ran_ns))
    }

    /// Returns the counting element.
    pub(super) fn count(&self, now_ns: u64) -> u16 {
        let (period, elapsed) = (self.period(), self.elapsed(now_ns));
        let idle = self.since_ns.is_none() && self.done == 0;
        let count = match self.mode {
            _ if idle => period,
            2 => period - elapsed % period,
            3 => (period - (elapsed % period) * 2 % period) & !1,
            // The others count on, around the end, after the terminal count.
            _ => {
                let size = if self.bcd { 10_000 } else { 0x1_0000 };
                (period % size + size - elapsed % size) % size
            }
        };
        self.encode(count)
    }

    fn encode(&self, count: u64) -> u16 {
        let count = if self.bcd {
            (0..4)
                .fold((0, count), |(code, rest), digit| {
                    (code | (rest % 10) << (4 * digit), rest / 10)
                })
                .0
        } else {
            count
        };
        u16::try_from(count & 0xffff).unwrap_or(0)
    }

    /// Returns the output pin.
    pub(super) fn output(&self, now_ns: u64) -> bool {
        let (period, elapsed) = (self.period(), self.elapsed(now_ns));
        let idle = self.since_ns.is_none() && self.done == 0;
        match self.mode {
            0 => !self.null_count && elapsed >= period,
            1 => idle || elapsed >= period,
            _ if idle || !self.gate && self.repeats() => true,
            2 => elapsed % period != period - 1,
            3 => elapsed % period < period.div_ceil(2),
            _ => elapsed != period,
        }
    }

    pub(super) fn status(&self, now_ns: u64) -> u8 {
        let access = match self.access {
            Access::Low => 1,
            Access::High => 2,
            Access::LowThenHigh => 3,
        };
        u8::from(self.output(now_ns)) << 7
            | u8::from(self.null_count) << 6
            | access << 4
            | self.mode << 1
            | u8::from(self.bcd)
    }

    pub(super) fn latch_count(&mut self, now_ns: u64) {
        if self.latched_count.is_none() {
            self.latched_count = Some(self.count(now_ns));
        }
    }

    pub(super) fn latch_status(&mut self, now_ns: u64) {
        if self.latched_status.is_none() {
            self.latched_status = Some(self.status(now_ns));
        }
    }

    /// Takes the mode, access and coding of a control word.
    pub(super) fn write_control(&mut self, value: u8) {
        let mode = value >> 1 & 7;
        *self = Self {
            mode: if mode > 5 { mode & 3 } else { mode },
            access: match value >> 4 & 3 {
                1 => Access::Low,
                2 => Access::High,
                _ => Access::LowThenHigh,
            },
            bcd: value & 1 != 0,
            ..Self::fresh(self.gate)
        };
    }

    pub(super) fn write(&mut self, value: u8, now_ns: u64) {
        match (self.access, self.low_written) {
            (Access::Low, _) => self.load(u16::from(value), now_ns),
            (Access::High, _) => self.load(u16::from(value) << 8, now_ns),
            (Access::LowThenHigh, None) => {
                self.low_written = Some(value);
                // In mode 0 the first byte stops the count.
                if self.mode == 0 {
                    self.stop(now_ns);
                }
            }
            (Access::LowThenHigh, Some(low)) => {
                self.low_written = None;
                self.load(u16::from_le_bytes([low, value]), now_ns);
            }
        }
    }

    fn load(&mut self, initial: u16, now_ns: u64) {
        self.initial = initial;
        // A BCD count with digits past 9 could come to nothing.
        if self.period() == 0 {
            self.initial = 0;
        }
        self.null_count = false;
        if !self.starts_by_gate() {
            self.start(now_ns);
        }
    }

    fn start(&mut self, now_ns: u64) {
        self.done = 0;
        self.signalled = 0;
        let runs = self.gate || self.starts_by_gate();
        self.since_ns = runs.then_some(now_ns);
    }

    fn stop(&mut self, now_ns: u64) {
        self.done = self.elapsed(now_ns);
        self.since_ns = None;
    }

    /// Sets the gate pin ("Gate Pin Operations Summary").
    pub(super) fn set_gate(&mut self, gate: bool, now_ns: u64) {
        let rises = gate && !self.gate;
        let falls = !gate && self.gate;
        self.gate = gate;
        if self.null_count {
            return;
        }
        match self.mode {
            0 | 4 if rises => self.since_ns = Some(now_ns),
            0 | 2..=4 if falls => self.stop(now_ns),
            _ if rises => self.start(now_ns),
            _ => {}
        }
    }

    pub(super) fn read(&mut self, now_ns: u64) -> u8 {
        if let Some(status) = self.latched_status.take() {
            return status;
        }
        let [low, high] = self
            .latched_count
            .unwrap_or_else(|| self.count(now_ns))
            .to_le_bytes();
        let reads_high = match self.access {
            Access::Low => false,
            Access::High => true,
            Access::LowThenHigh => {
                self.high_is_next = !self.high_is_next;
                !self.high_is_next
            }
        };
        if reads_high || self.access == Access::Low {
            self.latched_count = None;
        }
        if reads_high { high } else { low }
    }

    /// Returns when the output next rises after a terminal count that was not signalled.
    pub(super) fn next_rise_ns(&self) -> Option<u64> {
        if self.null_count || !self.repeats() && self.signalled > 0 {
            return None;
        }
        let ticks = self
            .period()
            .saturating_mul(self.signalled + 1)
            .checked_sub(self.done)?;
        Some(self.since_ns?.saturating_add(ns_of_ticks(ticks)))
    }

    /// Notes the terminal counts up to `now_ns`; tells whether there was one.
    pub(super) fn signal(&mut self, now_ns: u64) -> bool {
        let is_due = self.next_rise_ns().is_some_and(|due_ns| due_ns <= now_ns);
        if is_due {
            let periods = self.elapsed(now_ns) / self.period();
            self.signalled = if self.repeats() {
                periods.max(self.signalled + 1)
            } else {
                1
            };
        }
        is_due
    }
}
