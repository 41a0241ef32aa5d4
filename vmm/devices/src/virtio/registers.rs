//! The common configuration structure and the device status (virtio 1.3 §2.1, §2.2, §4.1.4.3).

use serde::{Deserialize, Serialize};
use virtio_queue::QueueState;

use super::spec::{NO_VECTOR, common, feature, status};

/// What the transport must do after a register was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing.
    None,
    /// Reset the device.
    Reset,
    /// Look at status and queues again.
    Settle,
    /// Stop this queue and forget its positions.
    ResetQueue(u16),
}

/// The registers of one virtqueue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct QueueRegisters {
    max_size: u16,
    size: u16,
    vector: u16,
    enabled: bool,
    desc_gpa: u64,
    driver_gpa: u64,
    device_gpa: u64,
    next_avail: u16,
    next_used: u16,
}

impl QueueRegisters {
    fn new(max_size: u16) -> Self {
        Self {
            max_size,
            size: max_size,
            vector: NO_VECTOR,
            enabled: false,
            desc_gpa: 0,
            driver_gpa: 0,
            device_gpa: 0,
            next_avail: 0,
            next_used: 0,
        }
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.enabled
    }

    pub(super) fn set_positions(&mut self, (next_avail, next_used): (u16, u16)) {
        self.next_avail = next_avail;
        self.next_used = next_used;
    }

    pub(super) fn ring_state(&self, event_idx_enabled: bool) -> QueueState {
        QueueState {
            max_size: self.max_size,
            next_avail: self.next_avail,
            next_used: self.next_used,
            event_idx_enabled,
            size: self.size,
            ready: self.enabled,
            desc_table: self.desc_gpa,
            avail_ring: self.driver_gpa,
            used_ring: self.device_gpa,
        }
    }

    fn is_size(&self, size: u16) -> bool {
        size.is_power_of_two() && size <= self.max_size
    }
}

/// The registers of a device.
///
/// ```text
/// 0 -- driver: ACKNOWLEDGE, DRIVER --> features --FEATURES_OK--> queues --DRIVER_OK--> runs
/// any state -- driver: FAILED --> stopped          any state -- device: NEEDS_RESET --> stopped
/// any state -- driver: 0 --> 0
/// ```
#[derive(Clone, Debug)]
pub(super) struct Registers {
    offered: u64,
    vectors: u16,
    device_feature_select: u32,
    driver_feature_select: u32,
    accepted: u64,
    config_vector: u16,
    status: u8,
    queue_select: u16,
    pub(super) queues: Vec<QueueRegisters>,
}

/// The saved form of [`Registers`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RegistersState {
    device_feature_select: u32,
    driver_feature_select: u32,
    driver_features: u64,
    config_vector: u16,
    status: u8,
    queue_select: u16,
    queues: Vec<QueueRegisters>,
}

impl Registers {
    pub(super) fn new(offered: u64, vectors: u16, queue_sizes: &[u16]) -> Self {
        Self {
            offered,
            vectors,
            device_feature_select: 0,
            driver_feature_select: 0,
            accepted: 0,
            config_vector: NO_VECTOR,
            status: 0,
            queue_select: 0,
            queues: queue_sizes
                .iter()
                .copied()
                .map(QueueRegisters::new)
                .collect(),
        }
    }

    /// Puts every register back to its value after reset.
    pub(super) fn reset(&mut self) {
        let sizes: Vec<u16> = self.queues.iter().map(|queue| queue.max_size).collect();
        *self = Self::new(self.offered, self.vectors, &sizes);
    }

    /// Returns the features that driver and device agreed on.
    pub(super) fn features(&self) -> u64 {
        self.accepted
    }

    pub(super) fn has(&self, feature: u64) -> bool {
        self.accepted & feature != 0
    }

    /// Tells whether the driver wants the device to run.
    pub(super) fn wants_to_run(&self) -> bool {
        self.status & (status::DRIVER_OK | status::FAILED) == status::DRIVER_OK
    }

    pub(super) fn is_driver_ok(&self) -> bool {
        self.status & status::DRIVER_OK != 0
    }

    pub(super) fn config_vector(&self) -> u16 {
        self.config_vector
    }

    pub(super) fn queue_vectors(&self) -> impl Iterator<Item = u16> {
        self.queues.iter().map(|queue| queue.vector)
    }

    /// Forgets everything about a queue but its largest size (§2.6.1).
    pub(super) fn reset_queue(&mut self, index: u16) {
        if let Some(queue) = self.queues.get_mut(usize::from(index)) {
            *queue = QueueRegisters::new(queue.max_size);
        }
    }

    fn selected(&self) -> Option<&QueueRegisters> {
        self.queues.get(usize::from(self.queue_select))
    }

    fn offered_half(&self) -> u32 {
        half_of(self.offered, self.device_feature_select)
    }

    /// Reads any bytes; `needs_reset` and `generation` belong to the device.
    pub(super) fn read(&self, offset: u64, data: &mut [u8], needs_reset: bool, generation: u8) {
        let image = self.image(needs_reset, generation);
        super::read_config(&image, offset, data);
    }

    /// Lays the structure out as the driver sees it.
    fn image(&self, needs_reset: bool, generation: u8) -> [u8; 0x40] {
        let mut image = [0; 0x40];
        let mut put = |at: u64, value: &[u8]| {
            for (slot, byte) in image
                .iter_mut()
                .skip(usize::try_from(at).unwrap_or(0))
                .zip(value)
            {
                *slot = *byte;
            }
        };
        put(
            common::DEVICE_FEATURE_SELECT,
            &self.device_feature_select.to_le_bytes(),
        );
        put(common::DEVICE_FEATURE, &self.offered_half().to_le_bytes());
        put(
            common::DRIVER_FEATURE_SELECT,
            &self.driver_feature_select.to_le_bytes(),
        );
        let accepted = half_of(self.accepted, self.driver_feature_select);
        put(common::DRIVER_FEATURE, &accepted.to_le_bytes());
        put(
            common::CONFIG_MSIX_VECTOR,
            &self.config_vector.to_le_bytes(),
        );
        let queues = u16::try_from(self.queues.len()).unwrap_or(u16::MAX);
        put(common::NUM_QUEUES, &queues.to_le_bytes());
        let needs_reset = if needs_reset { status::NEEDS_RESET } else { 0 };
        put(common::DEVICE_STATUS, &[self.status | needs_reset]);
        put(common::CONFIG_GENERATION, &[generation]);
        put(common::QUEUE_SELECT, &self.queue_select.to_le_bytes());
        put(common::QUEUE_MSIX_VECTOR, &NO_VECTOR.to_le_bytes());
        if let Some(queue) = self.selected() {
            put(common::QUEUE_SIZE, &queue.size.to_le_bytes());
            put(common::QUEUE_MSIX_VECTOR, &queue.vector.to_le_bytes());
            put(common::QUEUE_ENABLE, &[u8::from(queue.enabled)]);
            put(common::QUEUE_NOTIFY_OFF, &self.queue_select.to_le_bytes());
            put(common::QUEUE_DESC, &queue.desc_gpa.to_le_bytes());
            put(common::QUEUE_DRIVER, &queue.driver_gpa.to_le_bytes());
            put(common::QUEUE_DEVICE, &queue.device_gpa.to_le_bytes());
            put(
                common::QUEUE_NOTIF_CONFIG_DATA,
                &self.queue_select.to_le_bytes(),
            );
        }
        image
    }

    /// Writes one register, or an aligned half of a 64-bit one (§4.1.3.1). Writes of another width,
    /// and values that the register cannot hold, change nothing.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        match *data {
            [value] if offset == common::DEVICE_STATUS => return self.write_status(value),
            [low, high] => return self.write_u16(offset, u16::from_le_bytes([low, high])),
            [a, b, c, d] => self.write_u32(offset, u32::from_le_bytes([a, b, c, d])),
            [a, b, c, d, e, f, g, h] => {
                self.write_u32(offset, u32::from_le_bytes([a, b, c, d]));
                self.write_u32(offset + 4, u32::from_le_bytes([e, f, g, h]));
            }
            _ => {}
        }
        Effect::None
    }

    fn write_status(&mut self, value: u8) -> Effect {
        if value == 0 {
            return Effect::Reset;
        }
        let mut set = value & !status::NEEDS_RESET;
        if self.status & status::FEATURES_OK == 0 && !self.features_are_good() {
            set &= !status::FEATURES_OK;
        }
        // A driver only adds bits (§2.1.1); features must be settled before it is ready.
        let next = self.status | set;
        if next & status::FEATURES_OK == 0 {
            set &= !status::DRIVER_OK;
        }
        self.status |= set;
        Effect::Settle
    }

    /// Checks the driver's choice (§2.2.2, §6.2): offered features only, and no legacy driver.
    fn features_are_good(&self) -> bool {
        self.accepted & !self.offered == 0 && self.has(feature::VERSION_1)
    }

    fn write_u32(&mut self, offset: u64, value: u32) {
        match offset {
            common::DEVICE_FEATURE_SELECT => self.device_feature_select = value,
            common::DRIVER_FEATURE_SELECT => self.driver_feature_select = value,
            common::DRIVER_FEATURE if self.status & status::FEATURES_OK == 0 => {
                set_half(&mut self.accepted, self.driver_feature_select, value);
            }
            common::QUEUE_DESC..0x38 if offset.is_multiple_of(4) => {
                self.write_address(offset, value);
            }
            _ => {}
        }
    }

    fn write_address(&mut self, offset: u64, value: u32) {
        let half = u32::from(!offset.is_multiple_of(8));
        let Some(queue) = self.queues.get_mut(usize::from(self.queue_select)) else {
            return;
        };
        if queue.enabled {
            return;
        }
        let address = match offset & !7 {
            common::QUEUE_DESC => &mut queue.desc_gpa,
            common::QUEUE_DRIVER => &mut queue.driver_gpa,
            _ => &mut queue.device_gpa,
        };
        set_half(address, half, value);
    }

    fn write_u16(&mut self, offset: u64, value: u16) -> Effect {
        // A vector that the device does not have reads back as none (§4.1.5.1.2.1).
        let vector = if value < self.vectors {
            value
        } else {
            NO_VECTOR
        };
        match offset {
            common::CONFIG_MSIX_VECTOR => self.config_vector = vector,
            common::QUEUE_SELECT => {
                self.queue_select = value;
                return Effect::None;
            }
            _ => return self.write_queue(offset, value, vector),
        }
        Effect::Settle
    }

    fn write_queue(&mut self, offset: u64, value: u16, vector: u16) -> Effect {
        let can_reset = self.has(feature::RING_RESET) && self.is_driver_ok();
        let index = self.queue_select;
        let Some(queue) = self.queues.get_mut(usize::from(index)) else {
            return Effect::None;
        };
        match offset {
            common::QUEUE_SIZE if !queue.enabled && queue.is_size(value) => queue.size = value,
            common::QUEUE_MSIX_VECTOR => queue.vector = vector,
            common::QUEUE_ENABLE if value == 1 && !queue.enabled => queue.enabled = true,
            common::QUEUE_RESET if value == 1 && can_reset => return Effect::ResetQueue(index),
            _ => return Effect::None,
        }
        Effect::Settle
    }

    /// Returns the saved form.
    pub(super) fn save(&self) -> RegistersState {
        RegistersState {
            device_feature_select: self.device_feature_select,
            driver_feature_select: self.driver_feature_select,
            driver_features: self.accepted,
            config_vector: self.config_vector,
            status: self.status,
            queue_select: self.queue_select,
            queues: self.queues.clone(),
        }
    }

    /// Takes a saved form.
    ///
    /// # Errors
    /// With the name of the field that this device cannot have.
    pub(super) fn restore(&mut self, state: &RegistersState) -> Result<(), &'static str> {
        self.check(state)?;
        self.device_feature_select = state.device_feature_select;
        self.driver_feature_select = state.driver_feature_select;
        self.accepted = state.driver_features;
        self.config_vector = state.config_vector;
        self.status = state.status;
        self.queue_select = state.queue_select;
        self.queues.clone_from(&state.queues);
        Ok(())
    }

    fn check(&self, state: &RegistersState) -> Result<(), &'static str> {
        let is_vector = |vector: u16| vector == NO_VECTOR || vector < self.vectors;
        let settled = state.status & status::FEATURES_OK != 0;
        let foreign = state.driver_features & !self.offered != 0;
        if settled && (foreign || state.driver_features & feature::VERSION_1 == 0) {
            return Err("driver_features");
        }
        if state.status & status::NEEDS_RESET != 0
            || state.status & status::DRIVER_OK != 0 && !settled
        {
            return Err("status");
        }
        if state.queues.len() != self.queues.len() {
            return Err("queues");
        }
        let mut pairs = state.queues.iter().zip(&self.queues);
        if !pairs.all(|(queue, own)| queue.max_size == own.max_size && own.is_size(queue.size)) {
            return Err("queues.size");
        }
        let mut vectors = state.queues.iter().map(|queue| queue.vector);
        if !is_vector(state.config_vector) || !vectors.all(is_vector) {
            return Err("vector");
        }
        Ok(())
    }
}

/// Returns the 32 bits numbered `select`; there are only two such halves.
fn half_of(value: u64, select: u32) -> u32 {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    match select {
        0 => u32::from_le_bytes([a, b, c, d]),
        1 => u32::from_le_bytes([e, f, g, h]),
        _ => 0,
    }
}

fn set_half(value: &mut u64, select: u32, half: u32) {
    match select {
        0 => *value = *value & 0xffff_ffff_0000_0000 | u64::from(half),
        1 => *value = *value & 0xffff_ffff | u64::from(half) << 32,
        _ => {}
    }
}
