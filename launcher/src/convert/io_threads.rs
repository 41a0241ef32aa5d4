//! Which disks share a worker thread.

use api::devices::Disk;
use api::domain::DomainSpec;

/// Threads for disks under the policy `auto`, per processor.
const AUTO_THREADS_PER_VCPU: u32 = 2;

/// Hands out worker threads to disks in turn.
#[derive(Debug)]
pub(super) struct IoThreads {
    /// Numbers that are handed out; none when each disk has threads of its own.
    count: u16,
    next: u16,
}

impl IoThreads {
    /// Counts the threads that disks share under `ioThreadsPolicy`: one under `shared`, two per processor
    /// less one for each dedicated one under `auto`, as many as are asked for under `supplementalPool`.
    pub(super) fn new(domain: &DomainSpec, vcpus: u32) -> Self {
        let disks = domain.devices.disks.iter();
        let dedicated = disks.filter(|disk| is_dedicated(disk)).count();
        let dedicated = u32::try_from(dedicated).unwrap_or(u32::MAX);
        let count = match domain.io_threads_policy.as_deref() {
            Some("auto") => vcpus
                .saturating_mul(AUTO_THREADS_PER_VCPU)
                .saturating_sub(dedicated)
                .max(1),
            Some("supplementalPool") => pool_size(domain).max(1),
            Some("shared") => 1,
            // Without a policy, a dedicated thread for one disk leaves the others with one.
            _ => u32::from(dedicated > 0),
        };
        Self {
            count: u16::try_from(count).unwrap_or(u16::MAX),
            next: 0,
        }
    }

    /// Returns the number of a disk's thread; `None` is a disk with threads of its own.
    pub(super) fn of(&mut self, disk: &Disk) -> Option<u16> {
        if self.count == 0 || is_dedicated(disk) {
            return None;
        }
        let number = self.next;
        self.next = (number + 1) % self.count;
        Some(number)
    }
}

fn is_dedicated(disk: &Disk) -> bool {
    disk.dedicated_io_thread.unwrap_or(false)
}

fn pool_size(domain: &DomainSpec) -> u32 {
    let threads = domain.io_threads.as_ref();
    threads
        .and_then(|threads| threads.supplemental_pool_thread_count)
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use api::domain::DomainSpec;
    use serde_json::{Value, json};

    use super::IoThreads;

    fn threads(domain: Value, vcpus: u32) -> Vec<Option<u16>> {
        let domain: DomainSpec = serde_json::from_value(domain).unwrap();
        let mut threads = IoThreads::new(&domain, vcpus);
        let disks = domain.devices.disks.iter();
        disks.map(|disk| threads.of(disk)).collect()
    }

    fn disks() -> Value {
        let dedicated = json!({"name": "b", "dedicatedIOThread": true});
        json!({"disks": [{"name": "a"}, dedicated, {"name": "c"}, {"name": "d"}]})
    }

    #[test]
    fn disks_share_as_the_policy_says_and_dedicated_ones_never() {
        for (policy, expected) in [
            ("shared", [Some(0), None, Some(0), Some(0)]),
            ("auto", [Some(0), None, Some(0), Some(0)]),
            ("supplementalPool", [Some(0), None, Some(1), Some(2)]),
        ] {
            let pool = json!({"supplementalPoolThreadCount": 3});
            let domain = json!({"ioThreadsPolicy": policy, "ioThreads": pool, "devices": disks()});
            assert_eq!(threads(domain, 1), expected, "{policy}");
        }
        let auto = json!({"ioThreadsPolicy": "auto", "devices": disks()});
        assert_eq!(threads(auto, 4), [Some(0), None, Some(1), Some(2)]);
    }

    #[test]
    fn without_a_policy_disks_are_alone_unless_one_asks_for_it() {
        let plain = json!({"devices": {"disks": [{"name": "a"}, {"name": "b"}]}});
        assert_eq!(threads(plain, 2), [None, None]);
        let one = threads(json!({"devices": disks()}), 2);
        assert_eq!(one, [Some(0), None, Some(0), Some(0)]);
    }
}
