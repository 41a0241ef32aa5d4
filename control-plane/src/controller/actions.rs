//! What a decision comes to.

use jiff::Timestamp;
use json_patch::Patch;
use serde_json::Value;

use super::change;
use super::events::Event;
use super::key::{Key, Kind};

/// One thing to do; a decision's actions are done in their order, each only when the one before it succeeded.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// Creates an object. That there is one already is no failure.
    Create {
        /// The object's key.
        key: Key,
        /// The object.
        object: Value,
    },
    /// Changes an object.
    Patch {
        /// The object's key.
        key: Key,
        /// The part that is written by itself, such as `status`.
        part: Option<&'static str>,
        /// The change.
        patch: Patch,
    },
    /// Deletes an object. That there is none is no failure.
    Delete {
        /// The object's key.
        key: Key,
        /// Its uid; whichever when empty.
        uid: String,
        /// Seconds that it is given, where that isn't its own.
        grace_seconds: Option<u64>,
    },
    /// Tells of something.
    Tell(Event),
    /// Decides anew at a time, if nothing happens before.
    LookAgain(Timestamp),
    /// Decides about another object.
    LookAt(Key),
}

impl Action {
    /// Changes an object, and nothing when it stays as it is.
    pub(crate) fn change(
        key: &Key,
        part: Option<&'static str>,
        old: &Value,
        new: &Value,
    ) -> Option<Self> {
        let patch = change::patch(old, new)?;
        Some(Self::Patch {
            key: key.clone(),
            part,
            patch,
        })
    }

    /// Deletes an object unless that is under way.
    pub(crate) fn delete(kind: Kind, object: &Value) -> Option<Self> {
        if change::is_deleted(object) {
            return None;
        }
        Some(Self::Delete {
            key: Key::of(kind, object)?,
            uid: super::cache::uid(object).to_owned(),
            grace_seconds: None,
        })
    }
}
