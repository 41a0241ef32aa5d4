//! How CPUs that write and CPUs that decode keep out of each other's way: see [`crate::code_map`].

use std::sync::Arc;

use crate::cpu::Cpu;
use crate::memory::{Attention, Letter};

impl Cpu {
    /// Makes sure that no CPU runs what was decoded from these bytes before they changed. Whoever decodes
    /// them from now on waits until this CPU reads its mail, which is after the store.
    pub(super) fn make_room_in_code(&mut self, gpa: u64, len: u64) {
        let (page, first) = (gpa >> 12, gpa & 0xfff);
        let memory = Arc::clone(&self.memory);
        let last = first + len - 1;
        while memory.code().announce_write(page, self.id, first, last) {
            self.forget_code(page);
            memory.code().forget(page, || {
                let others = memory.mailboxes().iter().enumerate();
                others
                    .filter(|&(id, _)| id != self.id)
                    .for_each(|(_, mailbox)| mailbox.post(Letter::Forget(page)));
            });
        }
    }

    /// Reads the mailbox: forgets traces and write permissions that others asked to give up.
    pub(crate) fn read_mail(&mut self) {
        while let Some(mail) = self.bell.take_mail() {
            if mail.everything {
                self.tlb.revoke_all_writes();
                self.forget_all_code();
            }
            for letter in mail.letters {
                let (Letter::Forget(page) | Letter::Revoke(page)) = letter;
                if letter == Letter::Forget(page) {
                    self.forget_code(page);
                }
                self.give_up_write(page);
            }
        }
    }

    fn give_up_write(&mut self, page: u64) {
        self.tlb.revoke_write(page);
        self.memory.code().revoke_write(page, self.id);
    }

    /// Takes write permission for a page from all CPUs before this one decodes it.
    pub(crate) fn revoke_writers(&mut self, page: u64, writers: u64) {
        if writers & 1 << self.id != 0 {
            self.give_up_write(page);
        }
        let memory = Arc::clone(&self.memory);
        for (id, mailbox) in memory.mailboxes().iter().enumerate() {
            if id != self.id && writers & 1 << id != 0 {
                mailbox.post(Letter::Revoke(page));
                self.wait_for(mailbox);
            }
        }
    }

    /// Waits until a CPU has read its mail or is where it must read it before it goes on.
    fn wait_for(&mut self, mailbox: &Attention) {
        while mailbox.has_mail() && !mailbox.is_outside() {
            if self.bell.has_mail() {
                self.read_mail();
            }
            std::thread::yield_now();
        }
    }
}
