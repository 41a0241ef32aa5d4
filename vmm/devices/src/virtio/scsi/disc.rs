//! Commands of CD-ROM drives (MMC-6).

use super::sense::Sense;
use super::spec::op;
use super::transfer::{Command, Refusal, Step, cut};

/// Most blocks of a CD: what is longer is a DVD (80 minutes and a bit).
const CD_BLOCKS: u64 = 80 * 60 * 75 + 10_000;
const LEAD_OUT: u8 = 0xaa;

/// Profiles (MMC-6 §5.3.1).
const NO_PROFILE: u16 = 0x0000;
const CD_ROM: u16 = 0x0008;
const DVD_ROM: u16 = 0x0010;

/// Features (MMC-6 §5.3), each with its version, whether it is persistent, and its data.
const PROFILE_LIST: u16 = 0x0000;
const CORE: u16 = 0x0001;
const REMOVABLE_MEDIUM: u16 = 0x0003;
const RANDOM_READABLE: u16 = 0x0010;
const CD_READ: u16 = 0x001e;
const DVD_READ: u16 = 0x001f;

impl Command<'_> {
    /// Does a command that only CD-ROM drives know.
    pub(super) fn disc(&self) -> Result<Step, Refusal> {
        match self.cdb.op() {
            op::READ_TOC => self.read_toc(),
            op::GET_CONFIGURATION => Ok(self.get_configuration()),
            op::GET_EVENT_STATUS_NOTIFICATION => self.event_status(),
            op::READ_DISC_INFORMATION => self.disc_information(),
            op::MECHANISM_STATUS => {
                // Door open, no changer.
                let mut data = vec![0; 8];
                data[1] = u8::from(self.unit.is_tray_open()) << 4;
                Ok(Step::Give(cut(data, self.cdb.u16(8).into())))
            }
            _ => Err(Sense::INVALID_OPCODE.into()),
        }
    }

    /// Answers READ TOC/PMA/ATIP (§6.26): one data track and the lead-out.
    fn read_toc(&self) -> Result<Step, Refusal> {
        let disk = self.unit.medium()?;
        let blocks = u32::try_from(self.unit.blocks(&*disk)).unwrap_or(u32::MAX);
        let is_msf = self.cdb.bit(1, 1);
        // Old drivers give the format in the last byte.
        let format = match self.cdb.byte(2) & 0x0f {
            0 => self.cdb.byte(9) >> 6,
            format => format,
        };
        let first_track = self.cdb.byte(6);
        let body = match format {
            0 => toc(first_track, blocks, is_msf).ok_or(Sense::INVALID_FIELD_IN_CDB)?,
            1 => [&[0, 0x14, 1, 0][..], &place(0, is_msf)].concat(),
            2 if first_track <= 1 => full_toc(blocks),
            _ => return Err(Sense::INVALID_FIELD_IN_CDB.into()),
        };
        let len = u16::try_from(body.len() + 2).unwrap_or(u16::MAX);
        // The first and last track, or session.
        let data = [&len.to_be_bytes()[..], &[1, 1], &body].concat();
        Ok(Step::Give(cut(data, self.cdb.u16(7).into())))
    }

    /// Answers GET CONFIGURATION (§6.6).
    fn get_configuration(&self) -> Step {
        let profile = self.profile();
        let (wanted, first) = (self.cdb.byte(1) & 3, self.cdb.u16(2));
        let mut features = Vec::new();
        for (code, is_current, bytes) in self.features(profile) {
            let is_wanted = match wanted {
                2 => code == first,
                1 => code >= first && is_current,
                _ => code >= first,
            };
            if is_wanted {
                features.extend(bytes);
            }
        }
        let len = u32::try_from(features.len() + 4).unwrap_or(u32::MAX);
        let mut data = len.to_be_bytes().to_vec();
        data.extend([0, 0]);
        data.extend(profile.to_be_bytes());
        data.extend(features);
        Step::Give(cut(data, self.cdb.u16(7).into()))
    }

    fn profile(&self) -> u16 {
        match self.unit.medium() {
            Err(_) => NO_PROFILE,
            Ok(disk) if self.unit.blocks(&*disk) <= CD_BLOCKS => CD_ROM,
            Ok(_) => DVD_ROM,
        }
    }

    /// Lists the features: code, whether it is current, and its descriptor.
    fn features(&self, profile: u16) -> Vec<(u16, bool, Vec<u8>)> {
        let (is_cd, is_dvd) = (profile == CD_ROM, profile == DVD_ROM);
        let has_medium = profile != NO_PROFILE;
        let block = self.unit.identity.block_bytes.to_be_bytes();
        let profiles = [DVD_ROM, CD_ROM].map(|code| {
            let [high, low] = code.to_be_bytes();
            [high, low, u8::from(code == profile), 0]
        });
        let readable = [&block[..], &[0, 1, 0, 0]].concat();
        // The physical interface is SCSI; the mechanism is a tray that ejects and locks.
        let list: [(u16, u8, bool, bool, &[u8]); 6] = [
            (PROFILE_LIST, 0, true, true, profiles.as_flattened()),
            (CORE, 2, true, true, &[0, 0, 0, 1, 1, 0, 0, 0]),
            (REMOVABLE_MEDIUM, 0, true, true, &[0x29, 0, 0, 0]),
            (RANDOM_READABLE, 0, false, has_medium, &readable),
            (CD_READ, 2, false, is_cd, &[0, 0, 0, 0]),
            (DVD_READ, 1, false, is_dvd, &[0, 0, 0, 0]),
        ];
        let feature = |(code, version, persistent, current, data): (u16, u8, bool, bool, &[u8])| {
            let [high, low] = code.to_be_bytes();
            let flags = version << 2 | u8::from(persistent) << 1 | u8::from(current);
            let len = u8::try_from(data.len()).unwrap_or(u8::MAX);
            (code, current, [&[high, low, flags, len][..], data].concat())
        };
        list.into_iter().map(feature).collect()
    }

    /// Answers GET EVENT STATUS NOTIFICATION (§6.7) for the media class, polled.
    fn event_status(&self) -> Result<Step, Refusal> {
        const MEDIA: u8 = 4;
        if !self.cdb.bit(1, 0) {
            return Err(Sense::INVALID_FIELD_IN_CDB.into());
        }
        let supported = 1 << MEDIA;
        let data = if self.cdb.byte(4) & supported == 0 {
            // No event is available.
            vec![0, 2, 0x80, supported]
        } else {
            let is_open = self.unit.is_tray_open();
            let is_present = self.unit.drive.medium().is_some() && !is_open;
            let state = u8::from(is_present) << 1 | u8::from(is_open);
            vec![
                0,
                6,
                MEDIA,
                supported,
                self.unit.take_media_event(),
                state,
                0,
                0,
            ]
        };
        Ok(Step::Give(cut(data, self.cdb.u16(7).into())))
    }

    /// Answers READ DISC INFORMATION (§6.22): a complete disc of one session and one track.
    fn disc_information(&self) -> Result<Step, Refusal> {
        if self.cdb.byte(1) & 7 != 0 {
            return Err(Sense::INVALID_FIELD_IN_CDB.into());
        }
        self.unit.medium()?;
        let mut data = vec![0; 34];
        data[1] = 32;
        data[2] = 0x0e;
        data[3..7].fill(1);
        // Unrestricted use.
        data[7] = 0x20;
        Ok(Step::Give(cut(data, self.cdb.u16(7).into())))
    }

    /// Does START STOP UNIT (SBC-3 §5.25): opens and closes a tray, and is otherwise done, for a
    /// disk of the host is always started.
    pub(super) fn start_stop(&self) -> Result<Step, Refusal> {
        let (starts, loads) = (self.cdb.bit(4, 0), self.cdb.bit(4, 1));
        let is_power_condition = self.cdb.byte(4) >> 4 != 0;
        if is_power_condition || !loads {
            return Ok(Step::Done);
        }
        if !self.unit.is_cdrom() {
            return Err(Sense::INVALID_FIELD_IN_CDB.into());
        }
        if starts {
            self.unit.load();
        } else {
            self.unit.eject()?;
        }
        Ok(Step::Done)
    }
}

/// Returns an address as a block number or as minute, second and frame.
fn place(lba: u32, is_msf: bool) -> [u8; 4] {
    if !is_msf {
        return lba.to_be_bytes();
    }
    let frames = u64::from(lba) + 150;
    let byte = |value: u64| u8::try_from(value).unwrap_or(u8::MAX);
    [
        0,
        byte(frames / 75 / 60),
        byte(frames / 75 % 60),
        byte(frames % 75),
    ]
}

/// Lays out the tracks from `first` on, if there are such.
fn toc(first: u8, blocks: u32, is_msf: bool) -> Option<Vec<u8>> {
    let track = |number: u8, lba: u32| [&[0, 0x14, number, 0][..], &place(lba, is_msf)].concat();
    match first {
        0 | 1 => Some([track(1, 0), track(LEAD_OUT, blocks)].concat()),
        LEAD_OUT => Some(track(LEAD_OUT, blocks)),
        _ => None,
    }
}

/// Lays out the lead-in's entries: first and last track, lead-out, and the track.
fn full_toc(blocks: u32) -> Vec<u8> {
    let entry = |point: u8, [_, minute, second, frame]: [u8; 4]| {
        [1, 0x14, 0, point, 0, 0, 0, 0, minute, second, frame]
    };
    [
        entry(0xa0, [0, 1, 0, 0]),
        entry(0xa1, [0, 1, 0, 0]),
        entry(0xa2, place(blocks, true)),
        entry(1, place(0, true)),
    ]
    .concat()
}
