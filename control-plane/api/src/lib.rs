//! The kubevirt.io types, defaulting and validation.
