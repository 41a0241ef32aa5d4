//! One virtual machine from one configuration.
