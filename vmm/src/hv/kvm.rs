//! The KVM back end, with the split irqchip: local APICs in the kernel; PIC, I/O APIC and PIT are
//! devices of the board.

#![expect(
    unsafe_code,
    reason = "memory slots give guest RAM's addresses to the kernel"
)]

mod cpuid;
mod kick;
pub mod probe;
mod registers;
mod routes;
mod vcpu;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use devices::clock::MachineClock;
use devices::ioapic::RouteListener;
use devices::{MsiMessage, MsiSink, Wake};
use kvm_bindings::{
    KVM_CAP_SPLIT_IRQCHIP, KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY, kvm_clock_data,
    kvm_enable_cap, kvm_msi, kvm_userspace_memory_region,
};
use kvm_ioctls::{
    Cap, IoEventAddress, MsrFilterDefaultAction, MsrFilterRange, MsrFilterRangeFlags, NoDatamatch,
    VmFd,
};
use vmm_sys_util::eventfd::EventFd;
use x86::cpuid::{CpuModel, Topology};

use self::kick::Kicker;
use self::routes::Routes;
use self::vcpu::KvmVcpu;
use super::{Board, DirtyPages, HvError, Hypervisor, MsiEvent, Vcpu, Vm, VmSetup};
use crate::hv::soft::model;
use crate::memory::Ram;

const DEVICE: &str = "/dev/kvm";
/// Pages that VMX wants for itself below 4 GiB, where the board has nothing.
const IDENTITY_MAP_GPA: u64 = 0xfeff_c000;
const TSS_GPA: usize = 0xfeff_d000;

/// What a machine needs of the kernel, with the name that an error tells.
const NEEDED: [(Cap, &str); 9] = [
    (Cap::X86MsrFilter, "the MSR filter"),
    (Cap::SplitIrqchip, "the split irqchip"),
    (Cap::ImmediateExit, "the immediate exit"),
    (Cap::SignalMsi, "message-signalled interrupts"),
    (Cap::Irqfd, "interrupts by event counters"),
    (Cap::Ioeventfd, "notifications by event counters"),
    (Cap::UserMemory, "memory slots"),
    (Cap::Xsave, "XSAVE state"),
    (Cap::VcpuEvents, "event state"),
];

/// Turns the kernel's answer into an error that names the request.
fn host(request: &'static str) -> impl Fn(kvm_ioctls::Error) -> HvError {
    move |error| HvError::Host {
        request,
        source: std::io::Error::from_raw_os_error(error.errno()),
    }
}

/// The host's KVM.
#[derive(Debug)]
pub struct Kvm {
    kvm: kvm_ioctls::Kvm,
}

impl Kvm {
    /// Opens the host's KVM.
    ///
    /// # Errors
    /// If there is none, or it lacks what a machine needs.
    pub fn open() -> Result<Self, HvError> {
        let kvm = kvm_ioctls::Kvm::new().map_err(|error| HvError::Open {
            device: DEVICE,
            source: std::io::Error::from_raw_os_error(error.errno()),
        })?;
        let missing = NEEDED.iter().find(|(cap, _)| !kvm.check_extension(*cap));
        match missing {
            None => Ok(Self { kvm }),
            Some((_, missing)) => Err(HvError::Missing {
                device: DEVICE,
                missing,
            }),
        }
    }
}

impl Hypervisor for Kvm {
    fn create_vm(&self, setup: &VmSetup<'_>) -> Result<Arc<dyn Vm>, HvError> {
        let fd = self.kvm.create_vm().map_err(host("create a VM"))?;
        fd.set_identity_map_address(IDENTITY_MAP_GPA)
            .map_err(host("place the identity map"))?;
        fd.set_tss_address(TSS_GPA)
            .map_err(host("place the task state"))?;
        split_irqchip(&fd)?;
        filter_msrs(&fd)?;
        map_ram(&fd, setup.ram, 0)?;
        let fd = Arc::new(fd);
        let supported = self
            .kvm
            .get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES)
            .map_err(host("read the CPUID that KVM supports"))?;
        Ok(Arc::new(KvmVm {
            routes: Arc::new(Routes::new(Arc::clone(&fd))),
            fd,
            model: model::configured(setup.cpus)?,
            topology: model::topology(setup.cpus),
            supported,
            boot_kick: Arc::default(),
            ram: setup.ram.clone(),
            clock: Arc::clone(&setup.clock),
            guest_clock: Mutex::new(None),
        }))
    }
}

fn split_irqchip(fd: &VmFd) -> Result<(), HvError> {
    let mut cap = kvm_enable_cap {
        cap: KVM_CAP_SPLIT_IRQCHIP,
        ..kvm_enable_cap::default()
    };
    cap.args[0] = 24;
    fd.enable_cap(&cap).map_err(host("split the irqchip"))
}

/// Hides the registers of paravirtual features that no CPU model has: accesses raise #GP.
fn filter_msrs(fd: &VmFd) -> Result<(), HvError> {
    /// Bits of the range's map: 0 denies.
    const DENIED: [u8; 1] = [0];
    let hidden = |base, msr_count| MsrFilterRange {
        flags: MsrFilterRangeFlags::READ | MsrFilterRangeFlags::WRITE,
        base,
        msr_count,
        bitmap: &DENIED,
    };
    // The clock of old guests; asynchronous page faults, steal time and what came after them.
    let ranges = [hidden(0x11, 2), hidden(0x4b56_4d02, 7)];
    fd.set_msr_filter(MsrFilterDefaultAction::ALLOW, &ranges)
        .map_err(host("filter MSRs"))
}

/// Gives the kernel a slot for each range of RAM, or changes the flags of those that it has.
fn map_ram(fd: &VmFd, ram: &Ram, flags: u32) -> Result<(), HvError> {
    for (slot, (range, host_address)) in (0..).zip(ram.mappings()) {
        let region = kvm_userspace_memory_region {
            slot,
            flags: if range.read_only {
                KVM_MEM_READONLY
            } else {
                flags
            },
            guest_phys_addr: range.gpa,
            memory_size: range.len_bytes,
            userspace_addr: host_address.addr() as u64,
        };
        // SAFETY: the mapping is as long as the slot says, and the VM and each of its vCPUs keep a
        // `Ram` as long as they live, so that the mapping outlives the slot's users.
        unsafe { fd.set_user_memory_region(region) }.map_err(host("map guest RAM"))?;
    }
    Ok(())
}

struct KvmVm {
    fd: Arc<VmFd>,
    routes: Arc<Routes>,
    model: CpuModel,
    topology: Topology,
    supported: kvm_bindings::CpuId,
    /// Reaches the boot processor, which takes the PIC's interrupts.
    boot_kick: Arc<OnceLock<Arc<Kicker>>>,
    /// Keeps the mappings that the memory slots name.
    ram: Ram,
    clock: Arc<MachineClock>,
    guest_clock: Mutex<Option<kvm_clock_data>>,
}

/// Sends messages to the kernel's local APICs.
struct Messages(Arc<VmFd>);

fn halves(value: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    (
        u32::from_le_bytes([a, b, c, d]),
        u32::from_le_bytes([e, f, g, h]),
    )
}

impl MsiSink for Messages {
    fn send_msi(&self, msi: MsiMessage) {
        let (address_lo, address_hi) = halves(msi.address);
        let message = kvm_msi {
            address_lo,
            address_hi,
            data: msi.data,
            ..kvm_msi::default()
        };
        // A message that no local APIC takes is the guest's mistake.
        if let Err(error) = self.0.signal_msi(message) {
            tracing::debug!(%error, ?msi, "a message-signalled interrupt was not taken");
        }
    }
}

/// Makes the boot processor look at the PIC.
struct Intr(Arc<OnceLock<Arc<Kicker>>>);

impl Wake for Intr {
    fn wake(&self) {
        if let Some(kicker) = self.0.get() {
            kicker.interrupt();
        }
    }
}

impl Vm for KvmVm {
    fn msi_sink(&self) -> Arc<dyn MsiSink> {
        Arc::new(Messages(Arc::clone(&self.fd)))
    }

    fn intr(&self) -> Arc<dyn Wake> {
        Arc::new(Intr(Arc::clone(&self.boot_kick)))
    }

    fn route_listener(&self) -> Option<Arc<dyn RouteListener>> {
        Some(Arc::clone(&self.routes) as Arc<dyn RouteListener>)
    }

    fn connect(&self, _board: &Arc<dyn Board>) {}

    fn create_vcpu(&self, id: u32, board: Arc<dyn Board>) -> Result<Box<dyn Vcpu>, HvError> {
        let apic_id = self.topology.apic_id(id);
        let fd = self
            .fd
            .create_vcpu(u64::from(apic_id))
            .map_err(host("create a vCPU"))?;
        let cpuid = cpuid::table(&self.model, &self.topology, apic_id, &self.supported, &fd)?;
        fd.set_cpuid2(&cpuid).map_err(host("set CPUID"))?;
        let vcpu = KvmVcpu::new(id, fd, board, self.ram.clone())?;
        if id == 0 {
            self.boot_kick.get_or_init(|| vcpu.kicker_handle());
        }
        Ok(Box::new(vcpu))
    }

    fn inject_nmi(&self) {
        // Every local APIC: broadcast, NMI delivery mode.
        let nmi = MsiMessage {
            address: 0xfeef_f000,
            data: 0x400,
        };
        Messages(Arc::clone(&self.fd)).send_msi(nmi);
    }

    fn has_ioeventfds(&self) -> bool {
        true
    }

    fn add_ioeventfd(&self, gpa: u64, event: &EventFd) -> Result<(), HvError> {
        self.fd
            .register_ioevent(event, &IoEventAddress::Mmio(gpa), NoDatamatch)
            .map_err(host("register a notification"))
    }

    fn remove_ioeventfd(&self, gpa: u64, event: &EventFd) -> Result<(), HvError> {
        self.fd
            .unregister_ioevent(event, &IoEventAddress::Mmio(gpa), NoDatamatch)
            .map_err(host("unregister a notification"))
    }

    fn bind_msi(&self, event: &EventFd) -> Result<Option<Box<dyn MsiEvent>>, HvError> {
        Routes::bind(&self.routes, event).map(Some)
    }

    fn set_dirty_log(&self, on: bool) -> Result<bool, HvError> {
        let flags = if on { KVM_MEM_LOG_DIRTY_PAGES } else { 0 };
        map_ram(&self.fd, &self.ram, flags)?;
        Ok(true)
    }

    fn take_dirty_log(&self) -> Result<Vec<DirtyPages>, HvError> {
        let slots = (0..).zip(self.ram.ranges());
        slots
            .filter(|(_, range)| !range.read_only)
            .map(|(slot, range)| {
                let len = usize::try_from(range.len_bytes).unwrap_or(usize::MAX);
                let bits = self.fd.get_dirty_log(slot, len);
                Ok(DirtyPages {
                    gpa: range.gpa,
                    bits: bits.map_err(host("read the dirty log"))?,
                })
            })
            .collect()
    }

    fn paused(&self) {
        let clock = self.fd.get_clock().ok();
        *self
            .guest_clock
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = clock;
    }

    fn resumed(&self) {
        let clock = self
            .guest_clock
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(clock) = clock else { return };
        let clock = kvm_clock_data {
            clock: clock.clock,
            ..kvm_clock_data::default()
        };
        if let Err(error) = self.fd.set_clock(&clock) {
            let now_ns = devices::clock::Clock::now_ns(self.clock.as_ref());
            tracing::warn!(%error, now_ns, "the guest's clock jumps over the pause");
        }
    }
}
