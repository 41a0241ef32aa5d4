//! The kubevirt.io types, defaulting and validation. Nothing here touches a file, a socket or a clock.
//!
//! Objects come in by [`manifest`], with the paths of the fields that no type of ours has;
//! [`defaulting`] fills in what they leave out and [`validate`] says what is wrong with them, field by
//! field.

pub mod access_credentials;
pub mod base64;
pub mod components;
pub mod condition;
pub mod defaulting;
pub mod devices;
pub mod domain;
pub mod duration;
pub mod events;
pub mod field;
pub mod guest_agent;
pub mod kubevirt;
pub mod labels;
pub mod manifest;
pub mod metadata;
pub mod migration;
pub mod networks;
pub mod object;
pub mod paths;
pub mod probes;
pub mod quantity;
pub mod selector;
pub mod status;
pub mod validate;
pub mod vm;
pub mod vmi;
pub mod volumes;

pub use defaulting::default_vmi;
pub use field::{FieldError, FieldPath};
pub use quantity::Quantity;
pub use validate::validate_vmi;
pub use vmi::Vmi;
