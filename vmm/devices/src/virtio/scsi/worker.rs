//! Serves the request queues.

use std::sync::Arc;

use super::bus::Bus;
use super::request::{Address, Answer, REPORT_LUNS_WELL_KNOWN, Request};
use super::sense::Sense;
use super::spec::{op, response};
use super::transfer::{Command, Refusal, Step};
use super::unit::Unit;
use super::{inquiry, mode};
use crate::memory::GuestMemory;
use crate::virtio::chain::{Chain, Segments};
use crate::virtio::disk::{DiskAction, Engine, Outcome};
use crate::virtio::ring::{RingError, Rings, Served};
use crate::virtio::worker::{QueueWorker, Turn};

/// Serves one queue. While a request is held it serves nothing.
pub(super) struct ScsiWorker {
    bus: Arc<Bus>,
    engine: Engine,
    holds: bool,
}

impl ScsiWorker {
    pub(super) fn new(bus: Arc<Bus>) -> Self {
        Self {
            bus,
            engine: Engine::default(),
            holds: false,
        }
    }

    fn serve_chain(&mut self, memory: &GuestMemory, chain: Chain) -> Result<Served, RingError> {
        let (sense_bytes, cdb_bytes) = self.bus.sizes();
        let request = Request::read(memory, chain, sense_bytes, cdb_bytes)?;
        let buffer_bytes = request.data_in.len_bytes() + request.data_out.len_bytes();
        let Some(answer) = self.answer(memory, &request)? else {
            self.holds = true;
            return Ok(Served::Held);
        };
        let written_bytes = request.place.put(memory, &answer, buffer_bytes)?;
        Ok(Served::Used(written_bytes))
    }

    /// Returns the answer to a request, or nothing if it is to be tried again after a pause.
    fn answer(
        &mut self,
        memory: &GuestMemory,
        request: &Request,
    ) -> Result<Option<Answer>, RingError> {
        if request.is_malformed {
            return Ok(Some(Answer::of_host(response::FAILURE)));
        }
        let unit = request
            .address
            .and_then(|address| Some((address, self.bus.unit(address.target)?)));
        let Some((Address { lun, .. }, unit)) = unit else {
            return Ok(Some(Answer::of_host(response::BAD_TARGET)));
        };
        let command = Command {
            unit: &unit,
            cdb: request.cdb,
            memory,
            data_out: request.data_out.clone(),
            data_in: request.data_in.clone(),
        };
        let step = match lun {
            0 => step(command),
            _ => step_elsewhere(&command, lun),
        };
        match step {
            Ok(step) => self.take(memory, &unit, step, &request.data_in),
            Err(Refusal::Check(sense)) => Ok(Some(Answer::check(sense))),
            Err(Refusal::Overrun) => Ok(Some(Answer::of_host(response::OVERRUN))),
            Err(Refusal::Ring(error)) => Err(error),
        }
    }

    fn take(
        &mut self,
        memory: &GuestMemory,
        unit: &Unit,
        step: Step,
        data_in: &Segments,
    ) -> Result<Option<Answer>, RingError> {
        let (disk, operation, moved_bytes) = match step {
            Step::Done => return Ok(Some(Answer::good(0, 0))),
            Step::Give(data) => {
                let given = data.len().min(data_in.len_bytes());
                data_in.write(memory, 0, &data[..given])?;
                return Ok(Some(Answer::good(given, given)));
            }
            Step::Disk {
                disk,
                operation,
                moved_bytes,
            } => (disk, operation, moved_bytes),
        };
        let outcome = self.engine.run(memory, &unit.drive, &*disk, &operation)?;
        Ok(match outcome {
            Outcome::Done(given_bytes) => Some(Answer::good(moved_bytes, given_bytes)),
            Outcome::Failed { no_space: true, .. } => Some(Answer::check(Sense::NO_SPACE)),
            Outcome::Failed {
                action: DiskAction::Read,
                ..
            } => Some(Answer::check(Sense::READ_ERROR)),
            Outcome::Failed { .. } => Some(Answer::check(Sense::WRITE_ERROR)),
            Outcome::Differs => Some(Answer::check(Sense::MISCOMPARE)),
            Outcome::Held => None,
        })
    }
}

impl QueueWorker for ScsiWorker {
    fn start(&mut self, _features: u64) {
        self.holds = false;
    }

    fn serve(&mut self, rings: &mut Rings, turn: &Turn<'_>) -> Result<(), RingError> {
        match rings.get(0) {
            Some(ring) if !self.holds => {
                ring.drain(turn, |memory, chain| self.serve_chain(memory, chain))
            }
            _ => Ok(()),
        }
    }
}

/// Tells whether a command is done even while a unit attention condition waits (SPC-4 §5.14,
/// MMC-6 §4.1.8).
fn ignores_attention(operation_code: u8) -> bool {
    matches!(
        operation_code,
        op::INQUIRY
            | op::REPORT_LUNS
            | op::REQUEST_SENSE
            | op::GET_CONFIGURATION
            | op::GET_EVENT_STATUS_NOTIFICATION
    )
}

/// Understands a command to logical unit 0.
fn step(command: Command<'_>) -> Result<Step, Refusal> {
    let Command { unit, cdb, .. } = command;
    if !ignores_attention(cdb.op())
        && let Some(sense) = unit.take_attention()
    {
        return Err(sense.into());
    }
    match cdb.op() {
        op::TEST_UNIT_READY => {
            unit.medium()?;
            Ok(Step::Done)
        }
        op::REQUEST_SENSE => {
            let own = || unit.medium().err().unwrap_or(Sense::NONE);
            let sense = unit.take_attention().unwrap_or_else(own);
            Ok(inquiry::request_sense(&cdb, sense))
        }
        op::INQUIRY => inquiry::inquiry(&unit.identity, &cdb),
        op::REPORT_LUNS => inquiry::report_luns(&cdb),
        op::MODE_SENSE_6 | op::MODE_SENSE_10 => mode::mode_sense(unit, &cdb),
        op::READ_6 | op::READ_10 | op::READ_12 | op::READ_16 => command.read(),
        op::WRITE_6 | op::WRITE_10 | op::WRITE_12 | op::WRITE_16 => command.write(),
        op::WRITE_AND_VERIFY_10 | op::WRITE_AND_VERIFY_16 => command.write(),
        op::VERIFY_10 | op::VERIFY_12 | op::VERIFY_16 => command.verify(),
        op::SYNCHRONIZE_CACHE_10 | op::SYNCHRONIZE_CACHE_16 => command.synchronize(),
        op::READ_CAPACITY_10 => command.read_capacity_10(),
        op::START_STOP_UNIT => command.start_stop(),
        op::PREVENT_ALLOW_MEDIUM_REMOVAL => {
            unit.set_locked(unit.is_cdrom() && cdb.bit(4, 0));
            Ok(Step::Done)
        }
        _ if unit.is_cdrom() => command.disc(),
        op::SERVICE_ACTION_IN_16 => command.read_capacity_16(),
        op::WRITE_SAME_10 | op::WRITE_SAME_16 => command.write_same(),
        op::UNMAP => command.unmap(),
        _ => Err(Sense::INVALID_OPCODE.into()),
    }
}

/// Understands a command to a unit number that has no unit, or to the well-known unit for REPORT
/// LUNS (SPC-4 §8.2).
fn step_elsewhere(command: &Command<'_>, lun: u16) -> Result<Step, Refusal> {
    let cdb = &command.cdb;
    let is_well_known = lun == REPORT_LUNS_WELL_KNOWN;
    match cdb.op() {
        op::INQUIRY => inquiry::inquiry_elsewhere(cdb, is_well_known),
        op::REPORT_LUNS => inquiry::report_luns(cdb),
        op::REQUEST_SENSE if is_well_known => Ok(inquiry::request_sense(cdb, Sense::NONE)),
        op::REQUEST_SENSE => Ok(inquiry::request_sense(cdb, Sense::NO_LOGICAL_UNIT)),
        op::TEST_UNIT_READY if is_well_known => Ok(Step::Done),
        _ if is_well_known => Err(Sense::INVALID_OPCODE.into()),
        _ => Err(Sense::NO_LOGICAL_UNIT.into()),
    }
}
