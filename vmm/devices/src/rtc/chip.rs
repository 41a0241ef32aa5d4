//! The registers of the clock at a given time.

use super::calendar::Moment;

pub(super) const RAM_BYTES: usize = 128;
pub(super) const NS_PER_S: u64 = 1_000_000_000;

const SECONDS: usize = 0x00;
const SECONDS_ALARM: usize = 0x01;
const MINUTES: usize = 0x02;
const MINUTES_ALARM: usize = 0x03;
const HOURS: usize = 0x04;
const HOURS_ALARM: usize = 0x05;
const WEEKDAY: usize = 0x06;
const DAY: usize = 0x07;
const MONTH: usize = 0x08;
const YEAR: usize = 0x09;
const REG_A: usize = 0x0a;
const REG_B: usize = 0x0b;
const REG_C: usize = 0x0c;
const REG_D: usize = 0x0d;
pub(super) const CENTURY: usize = 0x32;

const A_UPDATING: u8 = 1 << 7;
const B_SET: u8 = 1 << 7;
const B_BINARY: u8 = 1 << 2;
const B_24_HOURS: u8 = 1 << 1;
/// Interrupt enables; the flags of register C have the same bits.
const PERIODIC: u8 = 1 << 6;
const ALARM: u8 = 1 << 5;
const UPDATE: u8 = 1 << 4;
const B_SQUARE_WAVE: u8 = 1 << 3;
const C_INTERRUPT: u8 = 1 << 7;
const D_VALID: u8 = 1 << 7;
/// The update takes 1984 us and is announced 244 us ahead.
const UPDATING_NS: u64 = 2_228_000;
const CRYSTAL_HZ: u64 = 32_768;
/// An alarm byte from here on matches every value.
const ALARM_ANY: u8 = 0xc0;
const DAY_S: u64 = 86_400;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chip {
    pub(super) index: u8,
    /// Registers and battery-backed memory; the time registers count only while it is being set.
    pub(super) ram: [u8; RAM_BYTES],
    /// What the guest's clock is ahead of the host's.
    pub(super) offset_ns: i64,
    pub(super) seen_second: u64,
    pub(super) seen_period: u64,
}

impl Chip {
    pub(super) fn fresh(mut ram: [u8; RAM_BYTES], utc_ns: u64) -> Self {
        ram[REG_A] = 0x26;
        ram[REG_B] = B_24_HOURS;
        ram[REG_C] = 0;
        ram[REG_D] = D_VALID;
        let mut chip = Self {
            index: 0,
            ram,
            offset_ns: 0,
            seen_second: 0,
            seen_period: 0,
        };
        chip.forget_past(utc_ns);
        chip
    }

    /// Does what the reset pin does: time and memory stay.
    pub(super) fn reset(&mut self) {
        self.index = 0;
        self.ram[REG_B] &= !(PERIODIC | ALARM | UPDATE | B_SQUARE_WAVE);
        self.ram[REG_C] = 0;
    }

    fn guest_ns(&self, utc_ns: u64) -> u64 {
        utc_ns.saturating_add_signed(self.offset_ns)
    }

    fn is_being_set(&self) -> bool {
        self.ram[REG_B] & B_SET != 0
    }

    fn period_ticks(&self) -> Option<u64> {
        match self.ram[REG_A] & 0xf {
            0 => None,
            rate @ (1 | 2) => Some(1 << (rate + 6)),
            rate => Some(1 << (rate - 1)),
        }
    }

    fn period_at(&self, guest_ns: u64) -> u64 {
        let ticks = u128::from(guest_ns) * u128::from(CRYSTAL_HZ) / u128::from(NS_PER_S);
        let ticks = u64::try_from(ticks).unwrap_or(u64::MAX);
        self.period_ticks().map_or(0, |period| ticks / period)
    }

    fn forget_past(&mut self, utc_ns: u64) {
        let guest_ns = self.guest_ns(utc_ns);
        self.seen_second = guest_ns / NS_PER_S;
        self.seen_period = self.period_at(guest_ns);
    }

    /// Sets the flags of what happened since the last look.
    pub(super) fn advance(&mut self, utc_ns: u64) {
        let guest_ns = self.guest_ns(utc_ns);
        let (second, period) = (guest_ns / NS_PER_S, self.period_at(guest_ns));
        if period != self.seen_period {
            self.ram[REG_C] |= PERIODIC;
        }
        if second > self.seen_second && !self.is_being_set() {
            self.ram[REG_C] |= UPDATE;
            let first = (self.seen_second + 1).max(second.saturating_sub(DAY_S));
            if (first..=second).any(|second| self.is_alarm(second)) {
                self.ram[REG_C] |= ALARM;
            }
        }
        (self.seen_second, self.seen_period) = (second, period);
        self.settle();
    }

    fn settle(&mut self) {
        let asks = self.ram[REG_C] & self.ram[REG_B] & (PERIODIC | ALARM | UPDATE) != 0;
        self.ram[REG_C] = self.ram[REG_C] & !C_INTERRUPT | if asks { C_INTERRUPT } else { 0 };
    }

    pub(super) fn irq(&self) -> bool {
        self.ram[REG_C] & C_INTERRUPT != 0
    }

    fn is_alarm(&self, second: u64) -> bool {
        let fields = [
            (SECONDS_ALARM, self.encode(second % 60)),
            (MINUTES_ALARM, self.encode(second / 60 % 60)),
            (HOURS_ALARM, self.encode_hour(second / 3600 % 24)),
        ];
        fields
            .iter()
            .all(|(at, now)| self.ram[*at] >= ALARM_ANY || self.ram[*at] == *now)
    }

    /// Returns how long after `utc_ns` something may interrupt that [`Chip::advance`] has not seen.
    pub(super) fn next_event_after_ns(&self, utc_ns: u64) -> Option<u64> {
        if self.irq() {
            return None;
        }
        let enabled = self.ram[REG_B];
        let ticks = self.period_ticks().filter(|_| enabled & PERIODIC != 0);
        let periodic_ns = ticks.map(|ticks| {
            let next = u128::from(self.seen_period.saturating_add(1)) * u128::from(ticks);
            let next_ns = (next * u128::from(NS_PER_S)).div_ceil(u128::from(CRYSTAL_HZ));
            u64::try_from(next_ns).unwrap_or(u64::MAX)
        });
        let counts_seconds = enabled & (ALARM | UPDATE) != 0 && !self.is_being_set();
        let second_ns =
            counts_seconds.then(|| self.seen_second.saturating_add(1).saturating_mul(NS_PER_S));
        let next_ns = periodic_ns.into_iter().chain(second_ns).min()?;
        Some(next_ns.saturating_sub(self.guest_ns(utc_ns)))
    }

    pub(super) fn read(&mut self, utc_ns: u64) -> u8 {
        self.advance(utc_ns);
        let at = usize::from(self.index);
        match at {
            REG_A => {
                let is_updating = !self.is_being_set()
                    && self.guest_ns(utc_ns) % NS_PER_S >= NS_PER_S - UPDATING_NS;
                self.ram[REG_A] | if is_updating { A_UPDATING } else { 0 }
            }
            REG_C => std::mem::take(&mut self.ram[REG_C]),
            _ if is_time(at) && !self.is_being_set() => {
                let now = Moment::of_unix(self.guest_ns(utc_ns) / NS_PER_S);
                self.time_register(at, now)
            }
            _ => self.ram[at],
        }
    }

    pub(super) fn write(&mut self, value: u8, utc_ns: u64) {
        self.advance(utc_ns);
        let at = usize::from(self.index);
        match at {
            REG_A => {
                self.ram[REG_A] = value & !A_UPDATING;
                self.forget_past(utc_ns);
            }
            REG_B => self.write_b(value, utc_ns),
            REG_C | REG_D => {}
            _ if is_time(at) && !self.is_being_set() => {
                self.freeze(utc_ns);
                self.ram[at] = value;
                self.thaw(utc_ns, self.guest_ns(utc_ns) % NS_PER_S);
            }
            _ => self.ram[at] = value,
        }
    }

    fn write_b(&mut self, value: u8, utc_ns: u64) {
        let was_being_set = self.is_being_set();
        if value & B_SET != 0 && !was_being_set {
            self.freeze(utc_ns);
        }
        self.ram[REG_B] = value;
        if was_being_set && value & B_SET == 0 {
            self.thaw(utc_ns, 0);
        }
        self.settle();
    }

    /// Copies the time into the registers.
    fn freeze(&mut self, utc_ns: u64) {
        let now = Moment::of_unix(self.guest_ns(utc_ns) / NS_PER_S);
        for at in [SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR, CENTURY] {
            self.ram[at] = self.time_register(at, now);
        }
    }

    /// Goes on from the time in the registers, `fraction_ns` into its second.
    fn thaw(&mut self, utc_ns: u64, fraction_ns: u64) {
        let century = self.decode(self.ram[CENTURY]);
        let century = if (19..24).contains(&century) {
            century
        } else {
            20
        };
        let set = Moment {
            year: century * 100 + self.decode(self.ram[YEAR]),
            month: self.decode(self.ram[MONTH]),
            day: self.decode(self.ram[DAY]),
            hour: self.decode_hour(self.ram[HOURS]),
            minute: self.decode(self.ram[MINUTES]),
            second: self.decode(self.ram[SECONDS]),
        };
        let guest_ns = set
            .to_unix()
            .saturating_mul(NS_PER_S)
            .saturating_add(fraction_ns);
        // Two moments of this era are less than 292 years, an i64 of nanoseconds, apart.
        self.offset_ns = i64::try_from(i128::from(guest_ns) - i128::from(utc_ns)).unwrap_or(0);
        self.forget_past(utc_ns);
    }

    fn time_register(&self, at: usize, now: Moment) -> u8 {
        match at {
            SECONDS => self.encode(now.second),
            MINUTES => self.encode(now.minute),
            HOURS => self.encode_hour(now.hour),
            WEEKDAY => self.encode(now.weekday()),
            DAY => self.encode(now.day),
            MONTH => self.encode(now.month),
            YEAR => self.encode(now.year % 100),
            _ => self.encode(now.year / 100),
        }
    }

    fn encode(&self, value: u64) -> u8 {
        let code = if self.ram[REG_B] & B_BINARY != 0 {
            value
        } else {
            ((value / 10 % 10) << 4) | (value % 10)
        };
        u8::try_from(code & 0xff).unwrap_or(0)
    }

    fn decode(&self, code: u8) -> u64 {
        let code = u64::from(code);
        if self.ram[REG_B] & B_BINARY != 0 {
            code
        } else {
            (code >> 4) * 10 + (code & 0xf)
        }
    }

    fn encode_hour(&self, hour: u64) -> u8 {
        if self.ram[REG_B] & B_24_HOURS != 0 {
            return self.encode(hour);
        }
        let afternoon = if hour >= 12 { 0x80 } else { 0 };
        self.encode((hour + 11) % 12 + 1) | afternoon
    }

    fn decode_hour(&self, code: u8) -> u64 {
        if self.ram[REG_B] & B_24_HOURS != 0 {
            return self.decode(code);
        }
        let afternoon = if code & 0x80 != 0 { 12 } else { 0 };
        self.decode(code & 0x7f) % 12 + afternoon
    }
}

fn is_time(at: usize) -> bool {
    matches!(at, SECONDS | MINUTES | HOURS | WEEKDAY..=YEAR | CENTURY)
}
