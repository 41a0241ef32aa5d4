//! Data accesses: the TLB hit in line, everything else out of it.

#![expect(
    unsafe_code,
    reason = "guest RAM is reached through host pointers that the TLB vouches for"
)]

mod sharing;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::cpu::{Cpu, SS, cr, rflags};
use crate::fault::{Fault, vector};
use crate::paging::Access;
use crate::tlb::{ENTRIES, TlbEntry, class};

/// An operand width.
pub(crate) trait Word: Copy + Default + 'static {
    const SIZE: u64;
    fn from_bytes(bytes: &[u8]) -> Self;
    fn put(self, bytes: &mut [u8]);
}

macro_rules! word {
    ($($t:ty),*) => {$(
        impl Word for $t {
            const SIZE: u64 = size_of::<$t>() as u64;
            fn from_bytes(bytes: &[u8]) -> Self {
                let mut raw = [0; size_of::<$t>()];
                raw.copy_from_slice(&bytes[..size_of::<$t>()]);
                <$t>::from_le_bytes(raw)
            }
            fn put(self, bytes: &mut [u8]) {
                bytes[..size_of::<$t>()].copy_from_slice(&self.to_le_bytes());
            }
        }
    )*};
}
word!(u8, u16, u32, u64, u128);

/// Reads guest RAM: volatile, so that other threads may write it, at any alignment.
///
/// # Safety
/// `host` is readable for the size of `T`.
#[inline(always)]
pub(crate) unsafe fn peek<T: Copy>(host: *const u8) -> T {
    #[repr(C, packed)]
    #[derive(Clone, Copy)]
    struct Unaligned<T>(T);
    // SAFETY: the caller vouches for the range; `Unaligned` has alignment 1.
    unsafe { host.cast::<Unaligned<T>>().read_volatile() }.0
}

/// Writes guest RAM, as [`peek`] reads it.
///
/// # Safety
/// `host` is writable for the size of `T`.
#[inline(always)]
pub(crate) unsafe fn poke<T: Copy>(host: *mut u8, value: T) {
    #[repr(C, packed)]
    struct Unaligned<T>(T);
    // SAFETY: the caller vouches for the range; `Unaligned` has alignment 1.
    unsafe { host.cast::<Unaligned<T>>().write_volatile(Unaligned(value)) };
}

/// Serialises atomic operations that no host instruction covers: across pages, or on a device.
static SPLIT_LOCK: Mutex<()> = Mutex::new(());

/// A slow path that [`Cpu::aside`] takes; what goes in and out is in [`Cpu::parked`], a fault in
/// [`Cpu::fault`]. Gives whether it went well.
pub(crate) type Aside = extern "C" fn(cpu: &mut Cpu, la: u64, seg: usize, size: u64) -> bool;

extern "C" fn read_aside<T: Word>(cpu: &mut Cpu, la: u64, seg: usize, _size: u64) -> bool {
    let class = cpu.class();
    let value = cpu.read_slow::<T>(la, seg, class);
    cpu.settle(value)
}

extern "C" fn write_aside<T: Word>(cpu: &mut Cpu, la: u64, seg: usize, _size: u64) -> bool {
    let (class, value) = (cpu.class(), cpu.parked_value::<T>());
    let done = cpu.write_slow(la, seg, class, value);
    cpu.settle(done.map(|()| 0u64))
}

extern "C" fn update_aside(cpu: &mut Cpu, la: u64, seg: usize, size: u64) -> bool {
    let class = cpu.class();
    let host = cpu.update_as(la, seg, size, class);
    cpu.settle(host.map(|host| host as u64))
}

/// Calls the [`Aside`] in RAX with the arguments in RDI, R10, R11 and RCX, and keeps all general
/// registers but RAX as they are.
#[unsafe(naked)]
unsafe extern "C" fn keep_registers() {
    std::arch::naked_asm!(
        "push rcx",
        "push rdx",
        "push rsi",
        "push rdi",
        "push r8",
        "push r9",
        "push r10",
        "push r11",
        "push rbp",
        "mov rbp, rsp",
        "and rsp, -16",
        "mov rsi, r10",
        "mov rdx, r11",
        "call rax",
        "mov rsp, rbp",
        "pop rbp",
        "pop r11",
        "pop r10",
        "pop r9",
        "pop r8",
        "pop rdi",
        "pop rsi",
        "pop rdx",
        "pop rcx",
        "ret",
    )
}

impl Cpu {
    /// Host pointer for reading `size` bytes at `la`, or null when the TLB has no answer.
    #[inline(always)]
    pub(crate) fn hit_read(&self, la: u64, size: u64) -> *mut u8 {
        let entry = self.entry_now(la);
        if la.wrapping_add(size - 1) & !0xfff | self.tlb_tag == entry.read {
            la.wrapping_add(entry.addend) as *mut u8
        } else {
            std::ptr::null_mut()
        }
    }

    /// As [`Cpu::hit_read`], for writing.
    #[inline(always)]
    pub(crate) fn hit_write(&self, la: u64, size: u64) -> *mut u8 {
        let entry = self.entry_now(la);
        if la.wrapping_add(size - 1) & !0xfff | self.tlb_tag == entry.write {
            la.wrapping_add(entry.addend) as *mut u8
        } else {
            std::ptr::null_mut()
        }
    }

    #[inline(always)]
    fn entry_now(&self, la: u64) -> &TlbEntry {
        let entry = self
            .tlb_now
            .wrapping_add((la >> 12) as usize & (ENTRIES - 1));
        // SAFETY: `tlb_now` is an array of `ENTRIES` entries of this CPU's TLB.
        unsafe { &*entry }
    }
}

impl Cpu {
    /// Takes a slow path without the registers of the fast one being saved on both: to the compiler it
    /// is one instruction that changes RAX.
    #[inline(always)]
    pub(crate) fn aside(
        &mut self,
        la: u64,
        seg: usize,
        size: u64,
        slow: Aside,
    ) -> Result<(), Fault> {
        let good: u64;
        // SAFETY: the red zone is skipped, and the callee keeps all other general registers and aligns
        // its stack; it gets what its signature asks for.
        unsafe {
            std::arch::asm!(
                "lea rsp, [rsp - 128]", "call {keep}", "lea rsp, [rsp + 128]",
                keep = sym keep_registers,
                inout("rax") slow as usize => good,
                in("rdi") std::ptr::from_mut(self), in("r10") la, in("r11") seg, in("rcx") size,
                out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _,
                out("xmm5") _, out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _,
                out("xmm10") _, out("xmm11") _, out("xmm12") _, out("xmm13") _, out("xmm14") _,
                out("xmm15") _, options(nostack)
            );
        }
        if good & 0xff != 0 {
            return Ok(());
        }
        Err(self.fault.take().unwrap_or(Fault::GP0))
    }

    /// Ends an [`Aside`] with its result.
    pub(crate) fn settle<T: Word>(&mut self, result: Result<T, Fault>) -> bool {
        match result {
            Ok(value) => self.park(value),
            Err(fault) => self.fault = Some(fault),
        }
        result.is_ok()
    }

    /// Leaves a value for an [`Aside`].
    #[inline(always)]
    pub(crate) fn park<T: Word>(&mut self, value: T) {
        // SAFETY: no `Word` is wider than `parked`.
        unsafe { (&raw mut self.parked).cast::<T>().write(value) };
    }

    /// The value that was left by, or for, an [`Aside`].
    #[inline(always)]
    pub(crate) fn parked_value<T: Word>(&self) -> T {
        // SAFETY: no `Word` is wider than `parked`, and any bits are a valid integer.
        unsafe { (&raw const self.parked).cast::<T>().read() }
    }

    /// Reads at a linear address with the current privilege. `seg` decides #SS or #GP.
    #[inline(always)]
    pub(crate) fn read<T: Word>(&mut self, la: u64, seg: usize) -> Result<T, Fault> {
        let host = self.hit_read(la, T::SIZE);
        if host.is_null() {
            self.aside(la, seg, T::SIZE, read_aside::<T>)?;
            return Ok(self.parked_value());
        }
        // SAFETY: the TLB vouches for the page, and the access stays inside it.
        Ok(unsafe { peek(host) })
    }

    /// Writes at a linear address with the current privilege.
    #[inline(always)]
    pub(crate) fn write<T: Word>(&mut self, la: u64, seg: usize, value: T) -> Result<(), Fault> {
        let host = self.hit_write(la, T::SIZE);
        if host.is_null() {
            self.park(value);
            return self.aside(la, seg, T::SIZE, write_aside::<T>);
        }
        // SAFETY: as in `read`.
        unsafe { poke(host, value) };
        Ok(())
    }

    /// Reads as the processor itself does (descriptor tables, TSS): with supervisor rights.
    pub(crate) fn read_sys<T: Word>(&mut self, la: u64) -> Result<T, Fault> {
        self.read_as(la, crate::cpu::DS, class::KERNEL)
    }

    /// Writes as the processor itself does.
    pub(crate) fn write_sys<T: Word>(&mut self, la: u64, value: T) -> Result<(), Fault> {
        self.write_as(la, crate::cpu::DS, class::KERNEL, value)
    }

    /// Reads with the rights of `class`, whatever CPL is.
    pub(crate) fn read_as<T: Word>(
        &mut self,
        la: u64,
        seg: usize,
        class: usize,
    ) -> Result<T, Fault> {
        let entry = self.tlb.entry(class, la);
        if la.wrapping_add(T::SIZE - 1) & !0xfff | self.tlb_tag != entry.read {
            return self.read_slow(la, seg, class);
        }
        let host = la.wrapping_add(entry.addend) as *const u8;
        // SAFETY: the TLB vouches for the page, and the access stays inside it.
        Ok(unsafe { peek(host) })
    }

    /// Writes with the rights of `class`, whatever CPL is.
    pub(crate) fn write_as<T: Word>(
        &mut self,
        la: u64,
        seg: usize,
        class: usize,
        value: T,
    ) -> Result<(), Fault> {
        let entry = self.tlb.entry(class, la);
        if la.wrapping_add(T::SIZE - 1) & !0xfff | self.tlb_tag != entry.write {
            return self.write_slow(la, seg, class, value);
        }
        let host = la.wrapping_add(entry.addend) as *mut u8;
        // SAFETY: as in `read_as`.
        unsafe { poke(host, value) };
        Ok(())
    }

    /// Sets bits of a byte of a descriptor in one atomic step; gives the byte as it was.
    pub(crate) fn set_bits_sys(&mut self, la: u64, bits: u8) -> Result<u8, Fault> {
        let host = self.update_as(la, crate::cpu::DS, 1, class::KERNEL)?;
        if host.is_null() {
            let old = self.read_sys::<u8>(la)?;
            self.write_sys(la, old | bits)?;
            return Ok(old);
        }
        // SAFETY: `host` is one byte of RAM.
        Ok(unsafe { AtomicU8::from_ptr(host) }.fetch_or(bits, Ordering::AcqRel))
    }

    /// Clears bits of a byte of a descriptor in one atomic step.
    pub(crate) fn clear_bits_sys(&mut self, la: u64, bits: u8) -> Result<(), Fault> {
        let host = self.update_as(la, crate::cpu::DS, 1, class::KERNEL)?;
        if host.is_null() {
            let old = self.read_sys::<u8>(la)?;
            return self.write_sys(la, old & !bits);
        }
        // SAFETY: `host` is one byte of RAM.
        unsafe { AtomicU8::from_ptr(host) }.fetch_and(!bits, Ordering::AcqRel);
        Ok(())
    }

    /// The privilege class of ordinary data accesses now.
    pub(crate) fn class(&self) -> usize {
        if self.cpl == 3 {
            let aligned = self.cr0 & cr::CR0_AM != 0 && self.rflags & rflags::AC != 0;
            return if aligned || self.watching() {
                class::NEVER
            } else {
                class::USER
            };
        }
        if self.watching() {
            class::NEVER
        } else if self.rflags & rflags::AC != 0 && self.cr4 & cr::CR4_SMAP != 0 {
            class::KERNEL_AC
        } else {
            class::KERNEL
        }
    }

    /// Whether a data breakpoint is armed (SDM vol. 3 §18.2.4).
    fn watching(&self) -> bool {
        (0..4).any(|n| self.dr7 >> (2 * n) & 3 != 0 && self.dr7 >> (16 + 4 * n) & 1 != 0)
    }

    /// Points the handlers at the TLB array of the current class. To be called after a change of CPL,
    /// RFLAGS.AC, CR0.AM, CR4.SMAP or DR7.
    pub(crate) fn class_changed(&mut self) {
        let class = self.class();
        self.tlb_now = self.tlb.array(class);
        self.jump_tag_changed();
    }

    fn check_canonical(&self, la: u64, seg: usize) -> Result<u64, Fault> {
        if !self.is_long() {
            return Ok(la & 0xffff_ffff);
        }
        if (la as i64) << 16 >> 16 == la as i64 {
            Ok(la)
        } else {
            Err(if seg == SS { Fault::SS0 } else { Fault::GP0 })
        }
    }

    /// Checks what only the slow path checks: canonical form, alignment and watchpoints.
    fn check_address(
        &mut self,
        la: u64,
        seg: usize,
        size: u64,
        write: bool,
        class: usize,
    ) -> Result<u64, Fault> {
        let la = self.check_canonical(la, seg)?;
        self.check_canonical(la.wrapping_add(size - 1), seg)?;
        if size > 1
            && la & (size - 1).min(15) != 0
            && class >= class::USER
            && self.cpl == 3
            && self.cr0 & cr::CR0_AM != 0
            && self.rflags & rflags::AC != 0
        {
            return Err(Fault {
                vector: vector::AC,
                error: Some(0),
                address: 0,
            });
        }
        if self.watching() {
            self.note_watchpoint(la, size, write);
        }
        Ok(la)
    }

    fn note_watchpoint(&mut self, la: u64, size: u64, write: bool) {
        for n in 0..4u32 {
            let kind = self.dr7 >> (16 + 4 * n) & 3;
            let on = self.dr7 >> (2 * n) & 3 != 0 && (kind == 3 || kind == 1 && write);
            let len = [1, 2, 8, 4][(self.dr7 >> (18 + 4 * n) & 3) as usize];
            let start = self.dr[n as usize] & !(len - 1);
            if on && la < start + len && start < la + size {
                self.pending_debug |= 1 << n;
                self.bell.raise(crate::memory::ask::SELF);
            }
        }
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn read_slow<T: Word>(
        &mut self,
        la: u64,
        seg: usize,
        class: usize,
    ) -> Result<T, Fault> {
        let la = self.check_address(la, seg, T::SIZE, false, class)?;
        let mut bytes = [0; 16];
        let first = (0x1000 - (la & 0xfff)).min(T::SIZE) as usize;
        let one = self.page_for_read(la, class)?;
        let two = match first as u64 == T::SIZE {
            true => None,
            false => Some(self.page_for_read(self.wrap(la + first as u64), class)?),
        };
        self.read_phys(one, &mut bytes[..first]);
        if let Some(two) = two {
            self.read_phys(two, &mut bytes[first..T::SIZE as usize]);
        } else if let Some(host) = self.memory.host(one) {
            // SAFETY: the access lies in one page of RAM. Read again in one piece, to be atomic.
            return Ok(unsafe { peek(host) });
        }
        Ok(T::from_bytes(&bytes))
    }

    fn wrap(&self, la: u64) -> u64 {
        if self.is_long() { la } else { la & 0xffff_ffff }
    }

    fn page_for_read(&mut self, la: u64, class: usize) -> Result<u64, Fault> {
        let map = self.translate(la, Access::Read, class)?;
        if let Some(host) = self.memory.host(map.gpa) {
            let mut map = map;
            map.writable &= self.may_write_directly(map.gpa);
            self.tlb.fill(class, self.tlb_tag, la, &map, host as u64);
        }
        Ok(map.gpa)
    }

    fn may_write_directly(&self, gpa: u64) -> bool {
        self.memory.region(gpa).is_some_and(|r| !r.read_only)
            && self.memory.code().grant_write(gpa >> 12, self.id)
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn write_slow<T: Word>(
        &mut self,
        la: u64,
        seg: usize,
        class: usize,
        value: T,
    ) -> Result<(), Fault> {
        let la = self.check_address(la, seg, T::SIZE, true, class)?;
        let mut bytes = [0; 16];
        value.put(&mut bytes);
        let first = (0x1000 - (la & 0xfff)).min(T::SIZE) as usize;
        let one = self.page_for_write(la, class)?;
        if first as u64 == T::SIZE {
            self.write_phys(one, value, &bytes[..first]);
            return Ok(());
        }
        let two = self.page_for_write(self.wrap(la + first as u64), class)?;
        self.write_phys_bytes(one, &bytes[..first]);
        self.write_phys_bytes(two, &bytes[first..T::SIZE as usize]);
        Ok(())
    }

    fn page_for_write(&mut self, la: u64, class: usize) -> Result<u64, Fault> {
        let mut map = self.translate(la, Access::Write, class)?;
        if let Some(host) = self.memory.host(map.gpa) {
            map.writable = self.may_write_directly(map.gpa);
            self.tlb.fill(class, self.tlb_tag, la, &map, host as u64);
        }
        Ok(map.gpa)
    }

    fn write_phys<T: Word>(&mut self, gpa: u64, value: T, bytes: &[u8]) {
        match self
            .memory
            .region(gpa)
            .map(|r| (r.read_only, r.host as u64 + (gpa - r.gpa)))
        {
            Some((false, host)) => {
                self.make_room_in_code(gpa, T::SIZE);
                // SAFETY: the access lies in one page of RAM.
                unsafe { poke(host as *mut u8, value) };
            }
            Some((true, _)) => {}
            None => self.on_board(|bus| bus.mmio_write(gpa, bytes)),
        }
    }

    fn write_phys_bytes(&mut self, gpa: u64, bytes: &[u8]) {
        if self.memory.host(gpa).is_none() {
            return self.on_board(|bus| bus.mmio_write(gpa, bytes));
        }
        for (n, &byte) in bytes.iter().enumerate() {
            self.write_phys(gpa + n as u64, byte, &[byte]);
        }
    }

    /// Reads physical memory that lies in one page.
    pub(crate) fn read_phys(&mut self, gpa: u64, bytes: &mut [u8]) {
        let Some(host) = self.memory.host(gpa) else {
            return self.on_board(|bus| bus.mmio_read(gpa, bytes));
        };
        for (n, byte) in bytes.iter_mut().enumerate() {
            // SAFETY: the bytes lie in one page of RAM.
            *byte = unsafe { peek(host.wrapping_add(n)) };
        }
    }

    /// Host pointer for a read-modify-write of `size` bytes at `la` by one host instruction; null where
    /// there can be none (device memory, ROM, two pages) and [`Cpu::modify`] has to do it.
    #[inline(always)]
    pub(crate) fn pointer_for_update(
        &mut self,
        la: u64,
        seg: usize,
        size: u64,
    ) -> Result<*mut u8, Fault> {
        let host = self.hit_write(la, size);
        if host.is_null() {
            self.aside(la, seg, size, update_aside)?;
            Ok(self.parked_value::<u64>() as *mut u8)
        } else {
            Ok(host)
        }
    }

    #[cold]
    #[inline(never)]
    fn update_as(
        &mut self,
        la: u64,
        seg: usize,
        size: u64,
        class: usize,
    ) -> Result<*mut u8, Fault> {
        let la = self.check_address(la, seg, size, true, class)?;
        let gpa = self.page_for_write(la, class)?;
        if (la & 0xfff) + size > 0x1000 {
            self.page_for_write(self.wrap(la + size - 1), class)?;
            return Ok(std::ptr::null_mut());
        }
        match self.memory.region(gpa) {
            Some(region) if !region.read_only => {
                self.make_room_in_code(gpa, size);
                Ok(self.memory.host(gpa).unwrap_or(std::ptr::null_mut()))
            }
            _ => Ok(std::ptr::null_mut()),
        }
    }

    /// Read-modify-write where no host instruction can do it, one at a time in the whole process.
    #[cold]
    #[inline(never)]
    pub(crate) fn modify<T: Word>(
        &mut self,
        la: u64,
        seg: usize,
        change: &mut dyn FnMut(T) -> T,
    ) -> Result<(), Fault> {
        let guard = SPLIT_LOCK
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let class = self.class();
        let old = self.read_slow(la, seg, class)?;
        let done = self.write_slow(la, seg, class, change(old));
        drop(guard);
        done
    }
}
