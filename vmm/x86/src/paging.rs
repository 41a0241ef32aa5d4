//! Linear to physical translation (SDM vol. 3 chapter 4): none, 32-bit, PAE and 4-level paging.

#![expect(
    unsafe_code,
    reason = "page table entries are read and marked in guest RAM"
)]

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::cpu::{Cpu, cr};
use crate::fault::Fault;
use crate::tlb::{Mapping, class};

/// Width of a physical address, as CPUID leaf 0x8000_0008 tells the guest.
pub(crate) const PHYS_BITS: u32 = 46;

const P: u64 = 1;
const RW: u64 = 1 << 1;
const US: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const PS: u64 = 1 << 7;
const XD: u64 = 1 << 63;
const ADDRESS: u64 = ((1 << PHYS_BITS) - 1) & !0xfff;
const RESERVED: u64 = ((1 << 52) - 1) & !((1 << PHYS_BITS) - 1);

/// Page fault error code bits (SDM vol. 3 §4.7).
mod code {
    pub(super) const PRESENT: u32 = 1;
    pub(super) const WRITE: u32 = 2;
    pub(super) const USER: u32 = 4;
    pub(super) const RESERVED: u32 = 8;
    pub(super) const FETCH: u32 = 16;
}

/// What an access wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
    Fetch,
}

/// Rights gathered over the levels.
#[derive(Clone, Copy)]
struct Rights {
    write: bool,
    user: bool,
    no_execute: bool,
}

struct Leaf {
    entry_gpa: u64,
    entry: u64,
    shift: u8,
    /// 8-byte entries.
    wide: bool,
    rights: Rights,
    base: u64,
}

impl Cpu {
    /// Translates `la` for an access of `class`; sets accessed and dirty bits.
    pub(crate) fn translate(
        &self,
        la: u64,
        access: Access,
        class: usize,
    ) -> Result<Mapping, Fault> {
        if self.cr0 & cr::CR0_PG == 0 {
            return Ok(Mapping {
                gpa: la & 0xffff_ffff,
                shift: 12,
                writable: true,
            });
        }
        let user = self.class_is_user(class);
        let dirty = access == Access::Write;
        let leaf = loop {
            let leaf = self.walk(la, access, user)?;
            self.check(&leaf, la, access, user, class)?;
            if self.mark(&leaf, if dirty { ACCESSED | DIRTY } else { ACCESSED }) {
                break leaf;
            }
        };
        let mask = (1u64 << leaf.shift) - 1;
        let writable = (leaf.rights.write || !user && self.cr0 & cr::CR0_WP == 0)
            && (dirty || leaf.entry & DIRTY != 0);
        Ok(Mapping {
            gpa: leaf.base & !mask | la & mask,
            shift: leaf.shift,
            writable,
        })
    }

    fn class_is_user(&self, class: usize) -> bool {
        class == class::USER || class == class::NEVER && self.cpl == 3
    }

    fn walk(&self, la: u64, access: Access, user: bool) -> Result<Leaf, Fault> {
        if self.cr4 & cr::CR4_PAE == 0 {
            return self.walk_32(la, access, user);
        }
        let long = self.is_long();
        let mut rights = Rights {
            write: true,
            user: true,
            no_execute: false,
        };
        let mut table = if long {
            self.cr3 & ADDRESS
        } else {
            self.cr3 & 0xffff_ffe0
        };
        let mut level = if long { 3u8 } else { 2 };
        loop {
            let shift = 12 + 9 * level;
            let index = la >> shift & if level == 2 && !long { 3 } else { 0x1ff };
            let entry_gpa = table + index * 8;
            let entry = self.table_read(entry_gpa);
            if entry & P == 0 {
                return Err(self.page_fault(la, access, user, 0));
            }
            let pdpte = level == 2 && !long;
            let large = level > 0 && level < 3 && !pdpte && entry & PS != 0;
            if self.reserved(entry, level, large, pdpte) {
                return Err(self.page_fault(la, access, user, code::RESERVED | code::PRESENT));
            }
            let leaf = level == 0 || large;
            if !leaf && !pdpte && !self.set_bits(entry_gpa, entry, ACCESSED, true) {
                continue;
            }
            if !pdpte {
                rights.write &= entry & RW != 0;
                rights.user &= entry & US != 0;
                rights.no_execute |= entry & XD != 0;
            }
            if leaf {
                let base = entry & ADDRESS;
                return Ok(Leaf {
                    entry_gpa,
                    entry,
                    shift,
                    wide: true,
                    rights,
                    base,
                });
            }
            table = entry & ADDRESS;
            level -= 1;
        }
    }

    fn reserved(&self, entry: u64, level: u8, large: bool, pdpte: bool) -> bool {
        let mut mask = RESERVED;
        if self.msr.efer & cr::EFER_NXE == 0 {
            mask |= XD;
        }
        if pdpte {
            mask |= 0x1e6 | XD;
        }
        if large {
            mask |= if level == 2 { 0x3fff_e000 } else { 0x1f_e000 };
        }
        if level == 3 {
            mask |= PS;
        }
        entry & mask != 0
    }

    fn walk_32(&self, la: u64, access: Access, user: bool) -> Result<Leaf, Fault> {
        let dir_gpa = (self.cr3 & 0xffff_f000) + (la >> 22 & 0x3ff) * 4;
        let dir = self.table_read_32(dir_gpa);
        if dir & P == 0 {
            return Err(self.page_fault(la, access, user, 0));
        }
        let mut rights = Rights {
            write: dir & RW != 0,
            user: dir & US != 0,
            no_execute: false,
        };
        if dir & PS != 0 && self.cr4 & cr::CR4_PSE != 0 {
            if dir & 1 << 21 != 0 {
                return Err(self.page_fault(la, access, user, code::RESERVED | code::PRESENT));
            }
            let base = dir & 0xffc0_0000 | (dir >> 13 & 0xff) << 32;
            return Ok(Leaf {
                entry_gpa: dir_gpa,
                entry: dir,
                shift: 22,
                wide: false,
                rights,
                base,
            });
        }
        if !self.set_bits(dir_gpa, dir, ACCESSED, false) {
            return self.walk_32(la, access, user);
        }
        let entry_gpa = (dir & 0xffff_f000) + (la >> 12 & 0x3ff) * 4;
        let entry = self.table_read_32(entry_gpa);
        if entry & P == 0 {
            return Err(self.page_fault(la, access, user, 0));
        }
        rights.write &= entry & RW != 0;
        rights.user &= entry & US != 0;
        let base = entry & 0xffff_f000;
        Ok(Leaf {
            entry_gpa,
            entry,
            shift: 12,
            wide: false,
            rights,
            base,
        })
    }

    fn check(
        &self,
        leaf: &Leaf,
        la: u64,
        access: Access,
        user: bool,
        class: usize,
    ) -> Result<(), Fault> {
        let rights = leaf.rights;
        let ok = match access {
            Access::Fetch if user => rights.user && !rights.no_execute,
            Access::Fetch => !rights.no_execute && (!rights.user || self.cr4 & cr::CR4_SMEP == 0),
            Access::Read if user => rights.user,
            Access::Write if user => rights.user && rights.write,
            Access::Read => self.smap_allows(rights, class),
            Access::Write => {
                (rights.write || self.cr0 & cr::CR0_WP == 0) && self.smap_allows(rights, class)
            }
        };
        if ok {
            Ok(())
        } else {
            Err(self.page_fault(la, access, user, code::PRESENT))
        }
    }

    fn smap_allows(&self, rights: Rights, class: usize) -> bool {
        !rights.user
            || self.cr4 & cr::CR4_SMAP == 0
            || class == class::KERNEL_AC
            || class == class::NEVER && self.rflags & crate::cpu::rflags::AC != 0
    }

    fn page_fault(&self, la: u64, access: Access, user: bool, bits: u32) -> Fault {
        let mut error = bits;
        if access == Access::Write {
            error |= code::WRITE;
        }
        if user {
            error |= code::USER;
        }
        let nx = self.msr.efer & cr::EFER_NXE != 0 && self.cr4 & cr::CR4_PAE != 0;
        if access == Access::Fetch && (nx || self.cr4 & cr::CR4_SMEP != 0) {
            error |= code::FETCH;
        }
        Fault::page(error, la)
    }

    fn mark(&self, leaf: &Leaf, bits: u64) -> bool {
        self.set_bits(leaf.entry_gpa, leaf.entry, bits, leaf.wide)
    }

    fn table_read(&self, gpa: u64) -> u64 {
        let Some(host) = self.memory.host(gpa) else {
            return 0;
        };
        // SAFETY: `host` is inside guest RAM and 8-byte aligned, because `gpa` is.
        let word = unsafe { AtomicU64::from_ptr(host.cast()) };
        word.load(Ordering::Acquire)
    }

    fn table_read_32(&self, gpa: u64) -> u64 {
        let Some(host) = self.memory.host(gpa) else {
            return 0;
        };
        // SAFETY: `host` is inside guest RAM and 4-byte aligned, because `gpa` is.
        let word = unsafe { AtomicU32::from_ptr(host.cast()) };
        u64::from(word.load(Ordering::Acquire))
    }

    /// Sets bits of a table entry that was found to be `entry`; false when it is another by now. What is no
    /// RAM stays as it is.
    fn set_bits(&self, gpa: u64, entry: u64, bits: u64, wide: bool) -> bool {
        let (old, new) = (entry, entry | bits);
        if old == new {
            return true;
        }
        let Some(region) = self.memory.region(gpa).filter(|r| !r.read_only) else {
            return true;
        };
        let host = region.host.wrapping_add((gpa - region.gpa) as usize);
        if wide {
            // SAFETY: as in `table_read`.
            let word = unsafe { AtomicU64::from_ptr(host.cast()) };
            return word
                .compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire)
                .is_ok();
        }
        // SAFETY: as in `table_read_32`.
        let word = unsafe { AtomicU32::from_ptr(host.cast()) };
        word.compare_exchange(old as u32, new as u32, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }
}
