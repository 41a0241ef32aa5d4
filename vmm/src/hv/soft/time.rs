//! Guest time: the time-stamp counter and KVM's paravirtual clock (Linux `virt/kvm/x86/msr.rst`).

#![expect(unsafe_code, reason = "reads the host's time-stamp counter")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use devices::apic::GuestTsc;
use devices::clock::{Clock, MachineClock, UtcClock};

/// How long the counter's frequency is measured where the host does not tell it.
const MEASURE: Duration = Duration::from_millis(10);
const NS_PER_S: u64 = 1_000_000_000;
/// The counters of all vCPUs agree.
const FLAG_STABLE: u8 = 1;

/// Reads the host's time-stamp counter, which is the guest's as well.
pub(super) fn tsc() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, and no host of ours forbids it to users.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Relates the guest's time-stamp counter to the machine's clock.
#[derive(Debug)]
pub(super) struct GuestTime {
    clock: Arc<MachineClock>,
    khz: u64,
    /// Counter and clock at one moment since which the clock has not stood still.
    anchor: Mutex<(u64, u64)>,
}

impl GuestTime {
    pub(super) fn new(clock: Arc<MachineClock>) -> Self {
        let now = (tsc(), clock.now_ns());
        Self {
            clock,
            khz: host_khz(),
            anchor: Mutex::new(now),
        }
    }

    /// Returns the counter's frequency in kHz.
    pub(super) fn khz(&self) -> u64 {
        self.khz
    }

    /// Returns the machine's clock in nanoseconds.
    pub(super) fn now_ns(&self) -> u64 {
        self.clock.now_ns()
    }

    /// Relates counter and clock anew: after the clock stood still.
    pub(super) fn anchor(&self) {
        let now = (tsc(), self.clock.now_ns());
        *self.anchor.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    /// Returns `struct pvclock_vcpu_time_info` with the given version.
    fn pvclock(&self, version: u32, tsc_offset: u64) -> [u8; 32] {
        let (tsc, ns) = *self.anchor.lock().unwrap_or_else(PoisonError::into_inner);
        let (mul, shift) = scale(self.khz);
        let mut info = [0; 32];
        info[0..4].copy_from_slice(&version.to_le_bytes());
        info[8..16].copy_from_slice(&tsc.wrapping_add(tsc_offset).to_le_bytes());
        info[16..24].copy_from_slice(&ns.to_le_bytes());
        info[24..28].copy_from_slice(&mul.to_le_bytes());
        info[28..29].copy_from_slice(&shift.to_le_bytes());
        info[29] = FLAG_STABLE;
        info
    }

    /// Returns `struct pvclock_wall_clock` with the given version: when the machine's clock read 0.
    pub(super) fn wall_clock(&self, version: u32) -> [u8; 12] {
        let start_ns = UtcClock.now_ns().saturating_sub(self.clock.now_ns());
        let part = |value: u64| u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes();
        let mut wall = [0; 12];
        wall[0..4].copy_from_slice(&version.to_le_bytes());
        wall[4..8].copy_from_slice(&part(start_ns / NS_PER_S));
        wall[8..12].copy_from_slice(&part(start_ns % NS_PER_S));
        wall
    }
}

/// The time-stamp counter of one vCPU: the host's and an offset.
#[derive(Debug)]
pub(super) struct VcpuTsc {
    time: Arc<GuestTime>,
    offset: AtomicU64,
}

impl VcpuTsc {
    pub(super) fn new(time: Arc<GuestTime>) -> Self {
        Self {
            time,
            offset: AtomicU64::new(0),
        }
    }

    pub(super) fn time(&self) -> &GuestTime {
        &self.time
    }

    /// Learns what the guest's counter is ahead of the host's, modulo 2^64.
    pub(super) fn set_offset(&self, offset: u64) {
        self.offset.store(offset, Ordering::Relaxed);
    }

    /// Returns `struct pvclock_vcpu_time_info` with the given version.
    pub(super) fn pvclock(&self, version: u32) -> [u8; 32] {
        self.time
            .pvclock(version, self.offset.load(Ordering::Relaxed))
    }
}

impl GuestTsc for VcpuTsc {
    fn ns_when(&self, deadline: u64) -> u64 {
        let now_ns = self.time.now_ns();
        let now_ticks = tsc().wrapping_add(self.offset.load(Ordering::Relaxed));
        // A caller compares with a time that it read before: what has passed was long ago.
        let Some(ticks) = deadline.checked_sub(now_ticks) else {
            return 0;
        };
        let ticks = u128::from(ticks);
        let left_ns = ticks * 1_000_000 / u128::from(self.time.khz);
        now_ns.saturating_add(u64::try_from(left_ns).unwrap_or(u64::MAX))
    }
}

/// Returns multiplier and shift such that `ns = (ticks << shift) * mul >> 32`.
fn scale(khz: u64) -> (u32, i8) {
    let mut shift = 0_i8;
    let mut hz = u128::from(khz) * 1000;
    while hz > u128::from(NS_PER_S) * 2 {
        hz >>= 1;
        shift -= 1;
    }
    while hz <= u128::from(NS_PER_S) && hz > 0 {
        hz <<= 1;
        shift += 1;
    }
    let mul = (u128::from(NS_PER_S) << 32) / hz.max(1);
    (u32::try_from(mul).unwrap_or(u32::MAX), shift)
}

/// Returns the frequency of the host's time-stamp counter in kHz.
pub(crate) fn host_khz() -> u64 {
    let told = kvm_ioctls::Kvm::new()
        .and_then(|kvm| kvm.create_vm())
        .and_then(|vm| vm.create_vcpu(0))
        .and_then(|vcpu| vcpu.get_tsc_khz());
    match told {
        Ok(khz) if khz > 0 => u64::from(khz),
        _ => measured_khz(),
    }
}

fn measured_khz() -> u64 {
    let (first, start) = sample();
    while start.elapsed() < MEASURE {
        std::hint::spin_loop();
    }
    let (last, end) = sample();
    let ns = end.duration_since(start).as_nanos().max(1);
    let khz = u128::from(last.wrapping_sub(first)) * 1_000_000 / ns;
    u64::try_from(khz).unwrap_or(u64::MAX).max(1)
}

/// Reads counter and clock at one moment: the closest of several pairs.
fn sample() -> (u64, Instant) {
    let pairs = (0..16).map(|_| {
        let before = tsc();
        let now = Instant::now();
        let after = tsc();
        let width = after.wrapping_sub(before);
        (width, before.wrapping_add(width / 2), now)
    });
    pairs
        .min_by_key(|(width, ..)| *width)
        .map_or_else(|| (tsc(), Instant::now()), |(_, tsc, now)| (tsc, now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scaled_ticks_are_nanoseconds() {
        for khz in [500_000, 1_000_000, 2_299_998, 4_100_000] {
            let (mul, shift) = scale(khz);
            let ticks = u128::from(khz) * 1000;
            let shifted = if shift < 0 {
                ticks >> shift.unsigned_abs()
            } else {
                ticks << shift.unsigned_abs()
            };
            let ns = (shifted * u128::from(mul)) >> 32;
            assert!(ns.abs_diff(u128::from(NS_PER_S)) < 10, "{khz} kHz: {ns}");
        }
    }

    #[test]
    fn a_deadline_in_the_past_is_now_and_one_ahead_is_later() {
        let time = Arc::new(GuestTime::new(Arc::new(MachineClock::new())));
        let counter = VcpuTsc::new(Arc::clone(&time));
        assert!(counter.ns_when(tsc() - 1000) <= time.now_ns());
        let ahead = counter.ns_when(tsc() + time.khz() * 1000);
        let left = ahead.saturating_sub(time.now_ns());
        assert!(left > NS_PER_S / 2 && left < NS_PER_S * 2, "{left}");
    }
}
