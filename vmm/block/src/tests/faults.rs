//! Broken images, full disks and crashes.
