use std::sync::Arc;

use super::Rng;
use crate::virtio::driver::{BUFFERS_GPA, Driver, readable, writable};

#[test]
fn requests_are_filled_with_random_bytes() {
    let driver = Driver::new(Arc::new(Rng));
    let mut queues = driver.start(0, &[8]);
    let chain = [writable(BUFFERS_GPA, 40), writable(BUFFERS_GPA + 100, 24)];
    assert_eq!(queues[0].ask(&driver, &chain), 64);
    let first = driver.bytes(BUFFERS_GPA, 40);
    assert_ne!(first, [0; 40]);
    assert_ne!(driver.bytes(BUFFERS_GPA + 100, 24), [0; 24]);
    queues[0].ask(&driver, &chain);
    assert_ne!(driver.bytes(BUFFERS_GPA, 40), first);
}

#[test]
fn odd_requests_are_answered_within_bounds() {
    let driver = Driver::new(Arc::new(Rng));
    let mut queues = driver.start(0, &[8]);
    assert_eq!(
        queues[0].ask(&driver, &[writable(BUFFERS_GPA, 1 << 20)]),
        4096
    );
    assert_eq!(queues[0].ask(&driver, &[readable(BUFFERS_GPA, 64)]), 0);
    assert_eq!(queues[0].ask(&driver, &[writable(BUFFERS_GPA, 0)]), 0);
}
