//! Disk images: raw, qcow2, overlays and ISO 9660.
//!
//! [`open()`] gives a [`Disk`] for a raw or qcow2 image in a file or on a block device, [`overlay`] puts a
//! copy-on-write layer over a disk that must stay as it is, [`create_empty`] makes a sparse new image,
//! and [`iso9660`] writes the small read-only volumes that carry configuration into a guest.
//!
//! Every byte of an image may come from a stranger: sizes are bounded before anything is allocated,
//! tables are read through a cache of fixed size, and what cannot be is an error that names the file
//! and the field. An image never makes this crate open another file unless the caller allowed it.

#![forbid(unsafe_code)]

mod create;
mod disk;
#[doc(hidden)]
pub mod fuzz;
mod host_file;
pub mod iso9660;
mod open;
mod qcow2;
mod raw;
#[cfg(test)]
mod tests;
mod width;

pub use create::{CreateError, create_empty};
pub use disk::{Disk, DiskError};
pub use open::{
    CacheMode, Format, OpenError, OpenOptions, open, open_or_create_overlay, open_overlay, overlay,
    resize,
};
