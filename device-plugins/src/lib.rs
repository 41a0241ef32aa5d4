//! Kubelet device plugins of a node (`k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1`).
//!
//! ```text
//!  flags, usbList, KubeVirt object          sysfs, /dev            uevents, inotify
//!            │ Wanted                           │                        │
//!            └────────────► plugins: one task that owns all ◄────────────┘
//!                            │ sources find Offers │  ▲ Allocate
//!                            ▼                     ▼  │
//!                     Report (table,        runner: one per resource: serves its
//!                     metrics, node)        socket and registers with the kubelet
//! ```
//!
//! A [`source::Source`] finds devices by reading files of the host and says what a container needs to use them. It knows
//! nothing of the kubelet. The [`runner`] knows the kubelet and nothing of devices. [`plugins`] stands between them: it
//! looks again when something changes, and sees to it that no device is offered twice.

#![forbid(unsafe_code)]

pub mod char_device;
pub mod mediated;
pub mod pci;
pub mod plugins;
pub mod report;
pub mod resource;
pub mod runner;
pub mod source;
pub mod unit;
pub mod usb;
pub mod usb_list;
pub mod wanted;

mod fnv;
mod sysfs;
mod vfio;

#[cfg(test)]
pub(crate) mod tree;
