//! INQUIRY, REPORT LUNS and REQUEST SENSE (SPC-4 §6.6, §6.33, §6.39).

use super::ScsiKind;
use super::request::Cdb;
use super::sense::Sense;
use super::spec::{MAX_TRANSFER_BYTES, MAX_UNMAP_BYTES, MAX_UNMAP_DESCRIPTORS};
use super::transfer::{Refusal, Step, cut};
use super::unit::Identity;

const VENDOR: &[u8; 8] = b"FERROVRT";
const REVISION: &[u8; 4] = b"1.0 ";
/// Peripheral device type of a unit that is not there (SPC-4 §6.6.2).
const NO_UNIT: u8 = 0x7f;
/// Peripheral device type of a well-known logical unit.
const WELL_KNOWN: u8 = 0x1e;

/// Pages of vital product data (SPC-4 §7.8, SBC-3 §6.6).
mod page {
    pub(super) const SUPPORTED: u8 = 0x00;
    pub(super) const SERIAL: u8 = 0x80;
    pub(super) const IDENTIFICATION: u8 = 0x83;
    pub(super) const BLOCK_LIMITS: u8 = 0xb0;
    pub(super) const CHARACTERISTICS: u8 = 0xb1;
    pub(super) const PROVISIONING: u8 = 0xb2;
}

fn device_type(kind: ScsiKind) -> u8 {
    match kind {
        ScsiKind::Disk => 0x00,
        ScsiKind::Cdrom => 0x05,
    }
}

fn product(kind: ScsiKind) -> &'static [u8; 16] {
    match kind {
        ScsiKind::Disk => b"DISK            ",
        ScsiKind::Cdrom => b"CD-ROM          ",
    }
}

/// Answers INQUIRY to a unit.
pub(super) fn inquiry(identity: &Identity, cdb: &Cdb) -> Result<Step, Refusal> {
    let data = match (cdb.bit(1, 0), cdb.byte(2)) {
        _ if cdb.bit(1, 1) => return Err(Sense::INVALID_FIELD_IN_CDB.into()),
        (false, 0) => standard(
            device_type(identity.kind),
            identity.kind == ScsiKind::Cdrom,
            product(identity.kind),
        ),
        (false, _) => return Err(Sense::INVALID_FIELD_IN_CDB.into()),
        (true, page) => vital(identity, page).ok_or(Sense::INVALID_FIELD_IN_CDB)?,
    };
    Ok(Step::Give(cut(data, cdb.u16(3).into())))
}

/// Answers INQUIRY to a unit number without a unit, or to the well-known unit for REPORT LUNS.
pub(super) fn inquiry_elsewhere(cdb: &Cdb, is_well_known: bool) -> Result<Step, Refusal> {
    if cdb.byte(1) & 3 != 0 || cdb.byte(2) != 0 {
        return Err(Sense::INVALID_FIELD_IN_CDB.into());
    }
    let kind = if is_well_known { WELL_KNOWN } else { NO_UNIT };
    let data = standard(kind, false, b"                ");
    Ok(Step::Give(cut(data, cdb.u16(3).into())))
}

/// Lays out the standard data (§6.6.2).
fn standard(device_type: u8, is_removable: bool, product: &[u8; 16]) -> Vec<u8> {
    let mut data = vec![0; 36];
    data[0] = device_type;
    data[1] = u8::from(is_removable) << 7;
    // SPC-4; the response data format is 2; hierarchical unit numbers.
    data[2] = 6;
    data[3] = 0x12;
    data[4] = 31;
    // CMDQUE: the unit queues commands.
    data[7] = 0x02;
    data[8..16].copy_from_slice(VENDOR);
    data[16..32].copy_from_slice(product);
    data[32..36].copy_from_slice(REVISION);
    data
}

/// Lays out a page of vital product data, if the unit has it.
fn vital(identity: &Identity, page: u8) -> Option<Vec<u8>> {
    let is_disk = identity.kind == ScsiKind::Disk;
    let body = match page {
        page::SUPPORTED => supported(identity.kind),
        page::SERIAL => identity.serial.clone().into_bytes(),
        page::IDENTIFICATION => identification(identity),
        page::BLOCK_LIMITS if is_disk => block_limits(identity),
        page::CHARACTERISTICS if is_disk => {
            // Medium rotation rate 1: it does not rotate.
            let mut body = vec![0; 60];
            body[1] = 1;
            body
        }
        page::PROVISIONING if is_disk => provisioning(identity),
        _ => return None,
    };
    let len = u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes();
    let header = [device_type(identity.kind), page, len[0], len[1]];
    Some([&header[..], &body].concat())
}

fn supported(kind: ScsiKind) -> Vec<u8> {
    let all = [
        page::SUPPORTED,
        page::SERIAL,
        page::IDENTIFICATION,
        page::BLOCK_LIMITS,
        page::CHARACTERISTICS,
        page::PROVISIONING,
    ];
    match kind {
        ScsiKind::Disk => all.to_vec(),
        ScsiKind::Cdrom => all[..3].to_vec(),
    }
}

/// Lays out a T10 vendor ID designator: vendor, product and serial number, or name (§7.8.6.4).
fn identification(identity: &Identity) -> Vec<u8> {
    let own = if identity.serial.is_empty() {
        identity.name.bytes().take(36).collect()
    } else {
        identity.serial.clone().into_bytes()
    };
    let designator = [&VENDOR[..], product(identity.kind), &own].concat();
    let len = u8::try_from(designator.len()).unwrap_or(u8::MAX);
    // Code set ASCII; it names the logical unit.
    [&[0x02, 0x01, 0, len][..], &designator].concat()
}

/// Lays out the block limits (SBC-3 §6.6.4).
fn block_limits(identity: &Identity) -> Vec<u8> {
    let mut body = vec![0; 60];
    let mut put = |at: usize, value: &[u8]| body[at - 4..][..value.len()].copy_from_slice(value);
    let most = MAX_TRANSFER_BYTES / identity.block_bytes;
    let granularity = 1u16 << identity.physical_exponent;
    // WSNZ: WRITE SAME of zero blocks is refused.
    put(4, &[1]);
    put(6, &granularity.to_be_bytes());
    put(8, &most.to_be_bytes());
    if identity.discards {
        put(20, &(MAX_UNMAP_BYTES / identity.block_bytes).to_be_bytes());
        put(24, &MAX_UNMAP_DESCRIPTORS.to_be_bytes());
        put(28, &u32::from(granularity).to_be_bytes());
    }
    put(36, &u64::from(most).to_be_bytes());
    body
}

/// Lays out the logical block provisioning (SBC-3 §6.6.7).
fn provisioning(identity: &Identity) -> Vec<u8> {
    if identity.discards {
        // UNMAP and both WRITE SAME unmap; the unit is thin provisioned.
        vec![0, 0xe0, 2, 0]
    } else {
        vec![0; 4]
    }
}

/// Answers REPORT LUNS of a target with logical unit 0.
pub(super) fn report_luns(cdb: &Cdb) -> Result<Step, Refusal> {
    let units: &[[u8; 8]] = match cdb.byte(2) {
        0 | 2 => &[[0; 8]],
        // The well-known units are not listed.
        1 => &[],
        _ => return Err(Sense::INVALID_FIELD_IN_CDB.into()),
    };
    let mut data = vec![0; 8];
    let len = u32::try_from(units.as_flattened().len()).unwrap_or(0);
    data[..4].copy_from_slice(&len.to_be_bytes());
    data.extend(units.as_flattened());
    Ok(Step::Give(cut(data, cdb.u32(6))))
}

/// Answers REQUEST SENSE in the format that the DESC bit chooses.
pub(super) fn request_sense(cdb: &Cdb, sense: Sense) -> Step {
    let data = if cdb.bit(1, 0) {
        sense.descriptor().to_vec()
    } else {
        sense.fixed().to_vec()
    };
    Step::Give(cut(data, cdb.byte(4).into()))
}
