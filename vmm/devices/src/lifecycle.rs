//! What every device can do: reset, pause, resume, save and restore.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The saved form of one device, with the kind and version of the state in `data`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedDevice {
    /// The device's kind, such as `i8254`.
    pub kind: String,
    /// The version of the state's layout.
    pub version: u32,
    /// The state.
    pub data: serde_json::Value,
}

impl SavedDevice {
    /// Wraps a device's state.
    ///
    /// # Errors
    /// If the state has no JSON form.
    pub fn new<T: Serialize>(kind: &str, version: u32, state: &T) -> Result<Self, SaveError> {
        let data = serde_json::to_value(state).map_err(|source| SaveError::Encode {
            kind: kind.to_owned(),
            source,
        })?;
        Ok(Self {
            kind: kind.to_owned(),
            version,
            data,
        })
    }

    /// Unwraps a device's state after checking its kind and version.
    ///
    /// # Errors
    /// If kind or version are not the expected ones, or the state does not parse.
    pub fn open<T: DeserializeOwned>(&self, kind: &str, version: u32) -> Result<T, RestoreError> {
        if self.kind != kind {
            return Err(RestoreError::Kind {
                expected: kind.to_owned(),
                found: self.kind.clone(),
            });
        }
        if self.version != version {
            return Err(RestoreError::Version {
                kind: kind.to_owned(),
                expected: version,
                found: self.version,
            });
        }
        serde_json::from_value(self.data.clone()).map_err(|source| RestoreError::Decode {
            kind: kind.to_owned(),
            source,
        })
    }
}

/// Why a device's state could not be saved.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The state has no JSON form.
    #[error("encode the state of {kind}")]
    Encode {
        /// The device's kind.
        kind: String,
        /// The cause.
        source: serde_json::Error,
    },
    /// The device cannot be saved now.
    #[error("save {name}: {reason}")]
    Busy {
        /// The device's name.
        name: String,
        /// Why not.
        reason: &'static str,
    },
}

/// Why a device's state could not be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The state is that of another kind of device.
    #[error("restore {expected}: the state is of kind {found}")]
    Kind {
        /// The device's kind.
        expected: String,
        /// The state's kind.
        found: String,
    },
    /// The state's layout is of another version.
    #[error("restore {kind}: version {found} is not {expected}")]
    Version {
        /// The device's kind.
        kind: String,
        /// The device's version.
        expected: u32,
        /// The state's version.
        found: u32,
    },
    /// The state does not parse.
    #[error("decode the state of {kind}")]
    Decode {
        /// The device's kind.
        kind: String,
        /// The cause.
        source: serde_json::Error,
    },
    /// A field holds a value that the device cannot have.
    #[error("restore {kind}: field {field} is out of range")]
    Field {
        /// The device's kind.
        kind: String,
        /// The field.
        field: &'static str,
    },
}

/// A device of the board. Every method may be called from any thread.
pub trait Device: Send + Sync {
    /// Returns the device's name, unique on the board.
    fn name(&self) -> &str;

    /// Puts the device into its state after power-on.
    fn reset(&self);

    /// Stops the device's own threads and in-flight requests; returns when it is quiet.
    fn pause(&self) {}

    /// Undoes [`Device::pause`].
    fn resume(&self) {}

    /// Returns the device's state; call it only while paused.
    ///
    /// # Errors
    /// If the state cannot be encoded or the device cannot be saved now.
    fn save(&self) -> Result<SavedDevice, SaveError>;

    /// Replaces the device's state.
    ///
    /// # Errors
    /// If the state is not one of this device. The device then keeps the state it had.
    fn restore(&self, saved: &SavedDevice) -> Result<(), RestoreError>;
}
