//! The control plane: `virt-controller` and `virt-api`.
//!
//! Both hold no state but what the API server has. Status and other changes go out as patches, never as objects that
//! were decoded into types of ours, so that fields which we do not know survive.

pub mod admission;
pub mod controller;
mod program;
pub mod virt_api;
