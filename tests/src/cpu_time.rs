//! CPU time of another process, with its threads and the children that it waited for (proc(5),
//! `/proc/pid/stat`).

use std::time::Duration;

/// CPU time that a process has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTime {
    /// In user mode.
    pub user: Duration,
    /// In the host kernel.
    pub system: Duration,
}

impl CpuTime {
    /// User and system time together.
    #[must_use]
    pub fn total(self) -> Duration {
        self.user + self.system
    }

    /// Time used since an earlier reading.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
        }
    }
}

/// `USER_HZ`: the unit of `/proc/pid/stat`, fixed at 100 by the x86 ABI whatever the kernel's own tick.
const TICK: Duration = Duration::from_millis(10);

/// Reads the CPU time of a process, running or not yet reaped; `None` when there is none.
#[must_use]
pub fn cpu_time(pid: u32) -> Option<CpuTime> {
    parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse(stat: &str) -> Option<CpuTime> {
    // The command name in parentheses may hold spaces and parentheses itself: fields count from the last one.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let mut ticks = || fields.next()?.parse::<u32>().ok().map(|count| TICK * count);
    let (user, system, child_user, child_system) = (ticks()?, ticks()?, ticks()?, ticks()?);
    Some(CpuTime {
        user: user + child_user,
        system: system + child_system,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_count_from_the_last_parenthesis() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194304 100 0 0 0 200 30 50 1 20 0 3 0 5 6 7";
        let time = parse(stat).unwrap();
        assert_eq!(time.user, Duration::from_millis(2500));
        assert_eq!(time.system, Duration::from_millis(310));
    }

    #[test]
    fn own_process_has_a_reading() {
        assert!(cpu_time(std::process::id()).is_some());
        assert!(cpu_time(u32::MAX).is_none());
    }
}
