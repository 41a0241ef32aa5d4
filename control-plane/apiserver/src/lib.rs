//! The embedded Kubernetes API server of a single node.
//!
//! ```text
//!   request ─▶ access (who, may they) ─▶ verbs ─▶ admission ─▶ store ─▶ watchers
//!                                          │
//!                catalog (kinds, schemas) ─┴─ patch, table, openapi, discovery
//! ```
//!
//! Objects are JSON values throughout: what a kind looks like is data ([`catalog`], [`schema`]), so built-in kinds and
//! custom ones take the same path, and fields that nobody here knows survive.

pub mod access;
pub mod admission;
pub mod catalog;
pub mod discovery;
pub mod failure;
pub mod openapi;
pub mod patch;
pub mod proxy;
pub mod schema;
pub mod store;
pub mod table;
pub mod tls;

pub use proxy::{LocalService, LocalServices};
