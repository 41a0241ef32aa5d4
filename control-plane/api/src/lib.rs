//! The kubevirt.io types, defaulting and validation. Nothing here touches a file, a socket or a clock.
//!
//! Objects come in by [`manifest`], with the paths of the fields that no type of ours has;
//! [`defaulting`] fills in what they leave out and [`validate`] says what is wrong with them, field by
//! field.

pub mod access_credentials;
pub mod admission;
pub mod base64;
pub mod clock;
pub mod components;
pub mod condition;
#[cfg(feature = "schema")]
pub mod crd;
pub mod data_volume;
pub mod defaulting;
pub mod devices;
pub mod domain;
pub mod duration;
pub mod error_chain;
pub mod events;
pub mod features;
pub mod field;
pub mod guest_agent;
pub mod hyperv;
pub mod kubevirt;
pub mod labels;
pub mod launch_security;
pub mod manifest;
pub mod metadata;
pub mod migration;
pub mod networks;
pub mod object;
pub mod options;
pub mod paths;
pub mod preset;
pub mod probes;
pub mod quantity;
pub mod replica_set;
pub mod selector;
pub mod status;
pub mod validate;
pub mod version;
pub mod vm;
pub mod vmi;
pub mod volumes;

pub use defaulting::default_vmi;
pub use field::{FieldError, FieldPath, Reason};
pub use migration::Migration;
pub use preset::Preset;
pub use quantity::Quantity;
pub use replica_set::ReplicaSet;
pub use validate::validate_vmi;
pub use vm::VirtualMachine;
pub use vmi::Vmi;
