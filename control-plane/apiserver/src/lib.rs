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
mod answer;
pub mod catalog;
mod definitions;
pub mod discovery;
pub mod failure;
pub mod housekeeping;
pub mod objects;
pub mod openapi;
pub mod patch;
pub mod protobuf;
pub mod proxy;
pub mod request;
pub mod schema;
pub mod selector;
pub mod server;
pub mod store;
pub mod table;
pub mod ticks;
pub mod tls;
mod verbs;

pub use proxy::{LocalService, LocalServices};
pub use server::{ApiServer, Options, Security};
