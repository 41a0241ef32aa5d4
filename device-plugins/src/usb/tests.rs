//! Sharing and naming.
