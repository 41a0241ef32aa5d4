//! The saved form of a local APIC.

use serde::{Deserialize, Serialize};

use super::chip::{Chip, lvt};
use super::timer::Timer;
use super::vector_set::VectorSet;
use crate::lifecycle::{RestoreError, SaveError, SavedDevice};

const KIND: &str = "local-apic";
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChipState {
    id: u32,
    base: u64,
    tpr: u8,
    ldr: u32,
    dfr: u32,
    svr: u32,
    isr: [u32; 8],
    tmr: [u32; 8],
    irr: [u32; 8],
    esr: u32,
    errors: u32,
    icr: u64,
    lvt: [u32; lvt::COUNT],
    timer_initial: u32,
    timer_divide: u32,
    timer_start_ns: Option<u64>,
    tsc_deadline: u64,
    nmi: bool,
    init: bool,
    sipi: Option<u8>,
}

pub(super) fn save(chip: &Chip) -> Result<SavedDevice, SaveError> {
    let state = ChipState {
        id: chip.id,
        base: chip.base,
        tpr: chip.tpr,
        ldr: chip.ldr,
        dfr: chip.dfr,
        svr: chip.svr,
        isr: chip.isr.0,
        tmr: chip.tmr.0,
        irr: chip.irr.0,
        esr: chip.esr,
        errors: chip.errors,
        icr: chip.icr,
        lvt: chip.lvt,
        timer_initial: chip.timer.initial,
        timer_divide: chip.timer.divide,
        timer_start_ns: chip.timer.start_ns,
        tsc_deadline: chip.timer.tsc_deadline,
        nmi: chip.nmi,
        init: chip.init,
        sipi: chip.sipi,
    };
    SavedDevice::new(KIND, VERSION, &state)
}

pub(super) fn restore(id: u32, saved: &SavedDevice) -> Result<Chip, RestoreError> {
    let state: ChipState = saved.open(KIND, VERSION)?;
    if state.id != id {
        return Err(RestoreError::Field {
            kind: KIND.to_owned(),
            field: "id",
        });
    }
    Ok(Chip {
        id: state.id,
        base: state.base,
        tpr: state.tpr,
        ldr: state.ldr,
        dfr: state.dfr,
        svr: state.svr,
        isr: VectorSet(state.isr),
        tmr: VectorSet(state.tmr),
        irr: VectorSet(state.irr),
        esr: state.esr,
        errors: state.errors,
        icr: state.icr,
        lvt: state.lvt,
        timer: Timer {
            initial: state.timer_initial,
            divide: state.timer_divide & 0xb,
            start_ns: state.timer_start_ns,
            tsc_deadline: state.tsc_deadline,
        },
        nmi: state.nmi,
        init: state.init,
        sipi: state.sipi,
    })
}
