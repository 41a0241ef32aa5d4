//! The translation look-aside buffer: guest linear pages to host pointers.
//!
//! Direct-mapped, one array per *class* of access, so that a privilege change is a change of pointer.
//! A tag is the linear page with the number of the address space in its low 12 bits; a CR3 write is a
//! change of that number, and old entries die by never matching again.

/// Privilege classes, each with an array of its own.
pub(crate) mod class {
    /// Supervisor, user pages out of bounds while SMAP is on.
    pub(crate) const KERNEL: usize = 0;
    /// Supervisor with RFLAGS.AC set: user pages allowed under SMAP.
    pub(crate) const KERNEL_AC: usize = 1;
    /// User.
    pub(crate) const USER: usize = 2;
    /// Always empty: every access takes the slow path, which checks alignment and watchpoints.
    pub(crate) const NEVER: usize = 3;
    pub(crate) const COUNT: usize = 4;
}

/// Entries per class: 4 MiB of reach, 32 KiB of host cache.
pub(crate) const ENTRIES: usize = 1024;
const TAG_INVALID: u64 = u64::MAX;
const TAG_LAST: u64 = 0xffe;
const PAGE: u64 = !0xfff;

/// One entry. `read` and `write` are compared with `page | tag`.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
pub(crate) struct TlbEntry {
    pub(crate) read: u64,
    pub(crate) write: u64,
    /// Host address minus linear address.
    pub(crate) addend: u64,
    /// Physical page; bits 0..=5 log2 of the size of the mapping.
    pub(crate) frame: u64,
}

const EMPTY: TlbEntry = TlbEntry {
    read: TAG_INVALID,
    write: TAG_INVALID,
    addend: 0,
    frame: 0,
};

/// What a page walk found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mapping {
    /// Physical address of the byte asked for.
    pub(crate) gpa: u64,
    /// log2 of the page size.
    pub(crate) shift: u8,
    /// Whether a store is allowed without another walk (writable and dirty).
    pub(crate) writable: bool,
}

/// The arrays and the bookkeeping of address space numbers.
pub(crate) struct Tlb {
    arrays: Box<[[TlbEntry; ENTRIES]; class::COUNT]>,
    /// Numbers of recently used PCIDs.
    pcids: [(u16, u64); 16],
    next_pcid_slot: usize,
    next_tag: u64,
    /// Grows whenever an entry may have died early; part of the jump cache's tag.
    pub(crate) generation: u64,
    large: bool,
}

impl Tlb {
    pub(crate) fn new() -> Self {
        let arrays: Box<[[TlbEntry; ENTRIES]]> =
            vec![[EMPTY; ENTRIES]; class::COUNT].into_boxed_slice();
        let arrays = arrays
            .try_into()
            .unwrap_or_else(|_| unreachable!("COUNT arrays were made"));
        Self {
            arrays,
            pcids: [(0, 0); 16],
            next_pcid_slot: 0,
            next_tag: 1,
            generation: 1,
            large: false,
        }
    }

    pub(crate) fn array(&mut self, class: usize) -> *mut TlbEntry {
        self.arrays[class].as_mut_ptr()
    }

    /// The entry where the page of `la` would be.
    pub(crate) fn entry(&self, class: usize, la: u64) -> &TlbEntry {
        &self.arrays[class][(la >> 12) as usize & (ENTRIES - 1)]
    }

    /// A number that no live entry has.
    pub(crate) fn fresh_tag(&mut self) -> u64 {
        if self.next_tag > TAG_LAST {
            self.clear();
        }
        self.next_tag += 1;
        self.next_tag - 1
    }

    fn clear(&mut self) {
        self.arrays.iter_mut().for_each(|a| a.fill(EMPTY));
        self.pcids = [(0, 0); 16];
        self.next_tag = 1;
        self.generation += 1;
        self.large = false;
    }

    /// Forgets everything, for all address spaces; gives the number for the current one.
    pub(crate) fn flush_all(&mut self) -> u64 {
        self.pcids = [(0, 0); 16];
        self.fresh_tag()
    }

    /// The number of a PCID: the one it had if `keep`, else a new one.
    pub(crate) fn pcid_tag(&mut self, pcid: u16, keep: bool) -> u64 {
        let known = self
            .pcids
            .iter()
            .position(|&(p, tag)| p == pcid && tag != 0);
        if let (Some(slot), true) = (known, keep) {
            return self.pcids[slot].1;
        }
        let tag = self.fresh_tag();
        let slot = self
            .pcids
            .iter()
            .position(|&(p, t)| p == pcid && t != 0)
            .unwrap_or_else(|| {
                self.next_pcid_slot = (self.next_pcid_slot + 1) % self.pcids.len();
                self.next_pcid_slot
            });
        self.pcids[slot] = (pcid, tag);
        tag
    }

    /// Forgets the number of a PCID.
    pub(crate) fn drop_pcid(&mut self, pcid: u16) {
        self.pcids
            .iter_mut()
            .filter(|(p, _)| *p == pcid)
            .for_each(|slot| slot.1 = 0);
    }

    /// Drops the mapping of one linear page in every class and address space.
    pub(crate) fn invalidate(&mut self, la: u64) {
        let index = (la >> 12) as usize & (ENTRIES - 1);
        let large = self.large;
        for array in self.arrays.iter_mut() {
            if array[index].read & PAGE == la & PAGE {
                array[index] = EMPTY;
            }
            if large {
                array
                    .iter_mut()
                    .filter(|e| e.covers(la))
                    .for_each(|e| *e = EMPTY);
            }
        }
        self.generation += 1;
    }

    /// Enters a mapping. `writable` already says whether stores may go straight to the host page.
    pub(crate) fn fill(&mut self, class: usize, tag: u64, la: u64, map: &Mapping, host: u64) {
        if class == class::NEVER {
            return;
        }
        self.large |= map.shift > 12;
        let entry = &mut self.arrays[class][(la >> 12) as usize & (ENTRIES - 1)];
        let page = la & PAGE;
        entry.read = page | tag;
        entry.write = if map.writable {
            page | tag
        } else {
            TAG_INVALID
        };
        entry.addend = host.wrapping_sub(la);
        entry.frame = map.gpa & PAGE | u64::from(map.shift);
    }

    /// Takes write permission for a physical page from every entry.
    pub(crate) fn revoke_write(&mut self, frame: u64) {
        for entry in self.arrays.iter_mut().flatten() {
            if entry.frame >> 12 == frame {
                entry.write = TAG_INVALID;
            }
        }
    }

    /// Takes write permission for all pages from every entry.
    pub(crate) fn revoke_all_writes(&mut self) {
        self.arrays
            .iter_mut()
            .flatten()
            .for_each(|e| e.write = TAG_INVALID);
    }
}

impl TlbEntry {
    fn covers(&self, la: u64) -> bool {
        let shift = self.frame & 0x3f;
        self.read != TAG_INVALID && shift > 12 && self.read >> shift == la >> shift
    }
}
