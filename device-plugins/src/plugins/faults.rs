//! What does not work at the moment, told once.

use std::collections::BTreeMap;

/// What a fault is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum About {
    /// Something of our own that others lean on.
    Own,
    /// What was asked for.
    Setting,
    /// A device that is not offered.
    Device,
}

/// The faults that last. One that begins or changes is logged as a warning, one that is over as information.
#[derive(Debug, Default)]
pub(crate) struct Faults(BTreeMap<(About, String), String>);

impl Faults {
    /// Notes how something of our own stands: its fault, or that it is well.
    pub(crate) fn note(&mut self, what: &str, fault: Option<String>) {
        self.set((About::Own, what.to_owned()), fault);
    }

    /// Notes all faults of one sort, by what they are about. Whatever is not among them is well.
    pub(crate) fn note_all(&mut self, about: About, faults: &BTreeMap<String, String>) {
        let of_sort = self.0.keys().filter(|(sort, _)| *sort == about);
        let over: Vec<_> = of_sort
            .filter(|(_, what)| !faults.contains_key(what))
            .cloned()
            .collect();
        for key in over {
            self.set(key, None);
        }
        for (what, fault) in faults {
            self.set((about, what.clone()), Some(fault.clone()));
        }
    }

    fn set(&mut self, key: (About, String), fault: Option<String>) {
        let before = self.0.get(&key);
        if before == fault.as_ref() {
            return;
        }
        let (about, what) = (key.0, &key.1);
        match (&fault, about) {
            (None, About::Own) => tracing::info!(what, "works again"),
            (None, About::Setting) => tracing::info!(setting = what, "is no longer wrong"),
            (None, About::Device) => tracing::info!(device = what, "is no longer left out"),
            (Some(reason), About::Own) => tracing::warn!(what, reason, "does not work"),
            (Some(reason), About::Setting) => {
                tracing::warn!(setting = what, reason, "makes no sense and is left out");
            }
            (Some(reason), About::Device) => {
                tracing::warn!(device = what, reason, "is asked for and not offered");
            }
        }
        match fault {
            Some(fault) => self.0.insert(key, fault),
            None => self.0.remove(&key),
        };
    }

    /// The faults of our own, each as a sentence.
    pub(crate) fn own(&self) -> impl Iterator<Item = String> + '_ {
        let own = self.0.iter().filter(|((about, _), _)| *about == About::Own);
        own.map(|((_, what), fault)| format!("{what}: {fault}"))
    }
}

#[cfg(test)]
mod tests {
    use super::{About, Faults};
    use std::collections::BTreeMap;

    #[test]
    fn a_fault_lasts_until_it_is_over() {
        let mut faults = Faults::default();
        faults.note("table", Some("no space".to_owned()));
        faults.note("table", Some("read-only".to_owned()));
        assert_eq!(faults.own().collect::<Vec<_>>(), ["table: read-only"]);
        faults.note("table", None);
        assert_eq!(faults.own().count(), 0);
    }

    #[test]
    fn what_is_not_named_again_is_well() {
        let mut faults = Faults::default();
        let named = |names: &[&str]| -> BTreeMap<String, String> {
            let names = names.iter().map(|name| ((*name).to_owned(), String::new()));
            names.collect()
        };
        faults.note_all(About::Device, &named(&["1-1", "1-2"]));
        faults.note_all(About::Setting, &named(&["1-1"]));
        faults.note_all(About::Device, &named(&["1-2"]));
        let left: Vec<_> = faults.0.keys().cloned().collect();
        let expected = [(About::Setting, "1-1"), (About::Device, "1-2")];
        assert_eq!(left, expected.map(|(about, what)| (about, what.to_owned())));
    }
}
