//! A logical unit: what it is, and what it remembers between commands.

use std::collections::VecDeque;
use std::sync::Arc;

use block::Disk;
use serde::{Deserialize, Serialize};

use super::bus::Bus;
use super::sense::Sense;
use super::spec::{control, event};
use super::{OnEject, ScsiDiskOptions, ScsiKind};
use crate::lock::Lock;
use crate::virtio::disk::{Drive, TellGuest};

const CDROM_BLOCK_BYTES: u32 = 2048;
/// Longest serial number, as Linux shows it whole.
const MAX_SERIAL_BYTES: usize = 36;
/// Unit attention conditions that wait: each kind once.
const MAX_ATTENTIONS: usize = 4;

/// What a unit is.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) name: String,
    pub(super) kind: ScsiKind,
    pub(super) serial: String,
    pub(super) block_bytes: u32,
    /// Logical blocks in a physical one, as a power of two.
    pub(super) physical_exponent: u8,
    pub(super) discards: bool,
}

impl Identity {
    pub(super) fn new(options: &ScsiDiskOptions, medium: Option<&dyn Disk>) -> Self {
        let is_good = |bytes: &u32| bytes.is_power_of_two() && (512..=1 << 20).contains(bytes);
        let own = medium.map_or(512, |disk| disk.logical_block_bytes().max(512));
        let block_bytes = match options.kind {
            ScsiKind::Cdrom => CDROM_BLOCK_BYTES,
            ScsiKind::Disk => options.logical_block_bytes.filter(is_good).unwrap_or(own),
        };
        let physical = options.physical_block_bytes.filter(is_good);
        let ratio = physical.map_or(1, |physical| physical / block_bytes).max(1);
        let is_read_only = medium.is_none_or(|disk| disk.is_read_only());
        Self {
            name: options.name.clone(),
            kind: options.kind,
            serial: printable(&options.serial),
            block_bytes,
            // The field has four bits.
            physical_exponent: u8::try_from(ratio.ilog2().min(15)).unwrap_or(0),
            discards: options.discard && options.kind == ScsiKind::Disk && !is_read_only,
        }
    }
}

/// SCSI strings are printable ASCII (SPC-4 §4.4.1).
fn printable(text: &str) -> String {
    let is_good = |c: char| c.is_ascii_graphic() || c == ' ';
    let good = text.chars().map(|c| if is_good(c) { c } else { '_' });
    good.take(MAX_SERIAL_BYTES).collect()
}

/// What a unit remembers, also in its saved form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UnitState {
    attentions: VecDeque<Sense>,
    is_tray_open: bool,
    is_locked: bool,
    /// The media event that a poll will find (MMC-6 §6.6.2.6), or zero.
    media_event: u8,
    /// Asynchronous notifications that the driver wants.
    subscribed: u32,
}

impl UnitState {
    fn power_on() -> Self {
        Self {
            attentions: VecDeque::from([Sense::POWER_ON]),
            is_tray_open: false,
            is_locked: false,
            media_event: 0,
            subscribed: 0,
        }
    }

    pub(super) fn is_valid(&self) -> bool {
        let attentions = &self.attentions;
        attentions.len() <= MAX_ATTENTIONS && attentions.iter().all(|sense| sense.is_attention())
    }

    fn attend(&mut self, sense: Sense) {
        if !self.attentions.contains(&sense) && self.attentions.len() < MAX_ATTENTIONS {
            self.attentions.push_back(sense);
        }
    }
}

/// Media events (MMC-6 §6.6.2.6).
const EJECT_REQUEST_NONE: u8 = 0;
const NEW_MEDIA: u8 = 2;
const MEDIA_REMOVAL: u8 = 3;

/// A logical unit.
pub(super) struct Unit {
    pub(super) target: u8,
    pub(super) identity: Identity,
    pub(super) drive: Arc<Drive>,
    on_eject: OnEject,
    state: Lock<UnitState>,
}

impl Unit {
    pub(super) fn new(
        target: u8,
        identity: Identity,
        drive: Arc<Drive>,
        on_eject: OnEject,
    ) -> Self {
        Self {
            target,
            identity,
            drive,
            on_eject,
            state: Lock::new(UnitState::power_on()),
        }
    }

    pub(super) fn is_cdrom(&self) -> bool {
        self.identity.kind == ScsiKind::Cdrom
    }

    /// Returns the medium, or the sense data that say where it is not.
    pub(super) fn medium(&self) -> Result<Arc<dyn Disk>, Sense> {
        if self.is_tray_open() {
            return Err(Sense::NOT_PRESENT_OPEN);
        }
        self.drive.medium().ok_or(Sense::NOT_PRESENT_CLOSED)
    }

    pub(super) fn is_read_only(&self, medium: &dyn Disk) -> bool {
        self.is_cdrom() || medium.is_read_only()
    }

    /// Returns the number of whole blocks.
    pub(super) fn blocks(&self, medium: &dyn Disk) -> u64 {
        medium.len_bytes() / u64::from(self.identity.block_bytes)
    }

    /// Takes the unit attention condition that waited longest.
    pub(super) fn take_attention(&self) -> Option<Sense> {
        self.state.get().attentions.pop_front()
    }

    pub(super) fn is_tray_open(&self) -> bool {
        self.state.get().is_tray_open
    }

    pub(super) fn is_locked(&self) -> bool {
        self.state.get().is_locked
    }

    /// Locks the medium in, or lets it out.
    pub(super) fn set_locked(&self, locked: bool) {
        self.state.get().is_locked = locked;
    }

    /// Takes the media event for a poll.
    pub(super) fn take_media_event(&self) -> u8 {
        std::mem::replace(&mut self.state.get().media_event, EJECT_REQUEST_NONE)
    }

    /// Opens the tray unless the guest locked it.
    pub(super) fn eject(&self) -> Result<(), Sense> {
        {
            let mut state = self.state.get();
            if state.is_locked {
                return Err(Sense::REMOVAL_PREVENTED);
            }
            if state.is_tray_open {
                return Ok(());
            }
            state.is_tray_open = true;
            state.media_event = MEDIA_REMOVAL;
        }
        (self.on_eject)(&self.identity.name);
        Ok(())
    }

    /// Closes the tray.
    pub(super) fn load(&self) {
        let has_medium = self.drive.medium().is_some();
        let mut state = self.state.get();
        if std::mem::take(&mut state.is_tray_open) && has_medium {
            state.media_event = NEW_MEDIA;
            state.attend(Sense::MEDIUM_CHANGED);
        }
    }

    /// Takes which asynchronous notifications the driver wants; returns those that it gets.
    pub(super) fn subscribe(&self, wanted: u32) -> u32 {
        let subscribed = wanted & self.notifications();
        self.state.get().subscribed = subscribed;
        subscribed
    }

    /// Returns the asynchronous notifications that the unit knows.
    pub(super) fn notifications(&self) -> u32 {
        if self.is_cdrom() {
            control::MEDIA_CHANGE
        } else {
            0
        }
    }

    /// Returns to the state after power-on.
    pub(super) fn power_on(&self) {
        *self.state.get() = UnitState::power_on();
    }

    /// Does a logical unit reset (SAM-5 §6.3.3), which the tray survives.
    pub(super) fn reset(&self) {
        let mut state = self.state.get();
        state.is_locked = false;
        state.attentions.clear();
        state.attend(Sense::UNIT_RESET);
    }

    pub(super) fn save(&self) -> UnitState {
        self.state.get().clone()
    }

    pub(super) fn restore(&self, state: UnitState) {
        *self.state.get() = state;
    }
}

/// Tells the guest what the host did to a unit.
pub(super) struct Notice {
    unit: Arc<Unit>,
    bus: Arc<Bus>,
}

impl Notice {
    pub(super) fn new(unit: Arc<Unit>, bus: Arc<Bus>) -> Self {
        Self { unit, bus }
    }
}

impl TellGuest for Notice {
    fn resized(&self) {
        let sense = Sense::CAPACITY_CHANGED;
        self.unit.state.get().attend(sense);
        let reason = u32::from(sense.asc) | u32::from(sense.ascq) << 8;
        self.bus
            .report(event::PARAM_CHANGE, self.unit.target, reason);
    }

    fn is_removable(&self) -> bool {
        self.unit.is_cdrom()
    }

    fn medium_changed(&self) {
        let has_medium = self.unit.drive.medium().is_some();
        let is_subscribed = {
            let mut state = self.unit.state.get();
            state.is_tray_open = false;
            state.media_event = if has_medium { NEW_MEDIA } else { MEDIA_REMOVAL };
            state.attend(Sense::MEDIUM_CHANGED);
            state.subscribed & control::MEDIA_CHANGE != 0
        };
        if is_subscribed {
            self.bus
                .report(event::ASYNC_NOTIFY, self.unit.target, control::MEDIA_CHANGE);
        }
    }
}
