//! MODE SENSE (SPC-4 §6.11, §6.12).

use super::request::Cdb;
use super::sense::Sense;
use super::spec::op;
use super::transfer::{Refusal, Step, cut};
use super::unit::Unit;

const ERROR_RECOVERY: u8 = 0x01;
const CACHING: u8 = 0x08;
const CONTROL: u8 = 0x0a;
const CD_CAPABILITIES: u8 = 0x2a;
const ALL: u8 = 0x3f;

/// Which values of a page are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Values {
    Current,
    Changeable,
    Default,
}

/// Answers MODE SENSE 6 and 10.
pub(super) fn mode_sense(unit: &Unit, cdb: &Cdb) -> Result<Step, Refusal> {
    let values = match cdb.byte(2) >> 6 {
        0 => Values::Current,
        1 => Values::Changeable,
        2 => Values::Default,
        _ => return Err(Sense::SAVING_NOT_SUPPORTED.into()),
    };
    if !matches!(cdb.byte(3), 0 | 0xff) {
        return Err(Sense::INVALID_FIELD_IN_CDB.into());
    }
    let pages = pages(unit, cdb.byte(2) & 0x3f, values).ok_or(Sense::INVALID_FIELD_IN_CDB)?;
    let is_short = cdb.op() == op::MODE_SENSE_6;
    // A CD-ROM has neither block descriptors nor a device-specific parameter (MMC-6 §7.2).
    let has_block = !unit.is_cdrom() && !cdb.bit(1, 3);
    let block = if has_block { block(unit) } else { Vec::new() };
    let mut data = header(is_short, device_parameter(unit), block.len());
    data.extend(block);
    data.extend(pages);
    fill_length(&mut data, is_short);
    let allocation = if is_short {
        cdb.byte(4).into()
    } else {
        cdb.u16(7).into()
    };
    Ok(Step::Give(cut(data, allocation)))
}

/// Returns the write protection and that FUA is known (SBC-3 §6.4.1).
fn device_parameter(unit: &Unit) -> u8 {
    if unit.is_cdrom() {
        return 0;
    }
    let medium = unit.drive.medium();
    let is_read_only = medium.is_none_or(|disk| unit.is_read_only(&*disk));
    0x10 | u8::from(is_read_only) << 7
}

fn header(is_short: bool, device_parameter: u8, block_bytes: usize) -> Vec<u8> {
    let block_bytes = u8::try_from(block_bytes).unwrap_or(0);
    if is_short {
        vec![0, 0, device_parameter, block_bytes]
    } else {
        vec![0, 0, 0, device_parameter, 0, 0, 0, block_bytes]
    }
}

/// Writes the mode data length, which does not count itself.
fn fill_length(data: &mut [u8], is_short: bool) {
    let len = data.len();
    if is_short {
        data[0] = u8::try_from(len - 1).unwrap_or(u8::MAX);
    } else {
        let len = u16::try_from(len - 2).unwrap_or(u16::MAX);
        data[..2].copy_from_slice(&len.to_be_bytes());
    }
}

/// Lays out the short block descriptor: the number of blocks and their length (SBC-3 §6.4.2).
fn block(unit: &Unit) -> Vec<u8> {
    let blocks = unit.drive.medium().map_or(0, |disk| unit.blocks(&*disk));
    let blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
    let [_, b1, b2, b3] = unit.identity.block_bytes.to_be_bytes();
    [&blocks.to_be_bytes()[..], &[0, b1, b2, b3]].concat()
}

/// Returns one page or all, if the unit has it.
fn pages(unit: &Unit, wanted: u8, values: Values) -> Option<Vec<u8>> {
    let all: &[u8] = if unit.is_cdrom() {
        &[ERROR_RECOVERY, CD_CAPABILITIES]
    } else {
        &[ERROR_RECOVERY, CACHING, CONTROL]
    };
    let chosen = all.iter().filter(|page| wanted == ALL || wanted == **page);
    let pages: Vec<u8> = chosen.flat_map(|code| page(unit, *code, values)).collect();
    (!pages.is_empty()).then_some(pages)
}

fn page(unit: &Unit, code: u8, values: Values) -> Vec<u8> {
    let mut body = match code {
        CACHING => {
            // WCE: the write cache is on.
            let mut body = vec![0; 18];
            body[0] = 0x04;
            body
        }
        CD_CAPABILITIES => cd_capabilities(unit),
        _ => vec![0; 10],
    };
    if values == Values::Changeable {
        // Nothing can be changed.
        body.fill(0);
    }
    let len = u8::try_from(body.len()).unwrap_or(u8::MAX);
    [&[code, len][..], &body].concat()
}

/// Lays out the capabilities and mechanical status (MMC-3 §6.3.11).
fn cd_capabilities(unit: &Unit) -> Vec<u8> {
    let mut body = vec![0; 20];
    // Reads CD-R, CD-RW, DVD-ROM and DVD-R; knows mode 2 and multi-session.
    body[0] = 0x1b;
    body[2] = 0x70;
    // A tray that ejects and can be locked, and whether it is.
    body[4] = 0x29 | u8::from(unit.is_locked()) << 1;
    // Speeds in kB/s: 50 times 176.
    for at in [6, 12] {
        body[at..at + 2].copy_from_slice(&8800u16.to_be_bytes());
    }
    body
}
