//! The entropy device (virtio 1.3 §5.4).

use super::ring::{RingError, Rings, Served};
use super::worker::{QueueWorker, Turn, WorkerPlan};
use super::{DeviceType, VirtioDevice};

const QUEUE_SIZE: u16 = 64;
/// Most bytes that one request is given; a driver asks again. Linux asks for 64 at a time.
const MOST_BYTES: usize = 4096;

/// An entropy device that hands on the host's random numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rng;

impl VirtioDevice for Rng {
    fn device_type(&self) -> DeviceType {
        DeviceType::ENTROPY
    }

    fn class(&self) -> [u8; 3] {
        [0x00, 0xff, 0x00]
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE]
    }

    fn take_workers(&self) -> Vec<WorkerPlan> {
        vec![WorkerPlan {
            suffix: "q0".to_owned(),
            queues: vec![0],
            worker: Box::new(RngWorker),
            thread: None,
        }]
    }

    fn config_read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }
}

struct RngWorker;

impl QueueWorker for RngWorker {
    fn serve(&mut self, rings: &mut Rings, turn: &Turn<'_>) -> Result<(), RingError> {
        let Some(ring) = rings.get(0) else {
            return Ok(());
        };
        ring.drain(turn, |memory, chain| {
            // Requests consist of writable buffers only (§5.4.6.1); what is readable is not looked at.
            let mut bytes = vec![0; chain.writable.len_bytes().min(MOST_BYTES)];
            if let Err(error) = getrandom::fill(&mut bytes) {
                tracing::error!(%error, "the host gives no random numbers");
                return Ok(Served::Used(0));
            }
            chain.writable.write(memory, 0, &bytes)?;
            Ok(Served::Used(u32::try_from(bytes.len()).unwrap_or(0)))
        })
    }
}

#[cfg(test)]
mod tests;
