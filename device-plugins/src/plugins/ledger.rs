//! What was given to containers, and whose it was before.
//!
//! ```text
//!             give                   the kubelet's record names the container
//!  (no entry) ────► given, not seen ─────────────────────────────► seen
//!      ▲                  │ not seen within a minute                │ no longer in the record,
//!      └──────────────────┴─────────────────────────────────────────┘ or its pod is gone
//! ```
//!
//! An entry holds its devices: nobody gets them under the name of another resource. When it goes, the nodes become what
//! they were. It is in a file before a node changes its owner, so that a node agent which was killed still knows.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::report::Holder;
use crate::resource::ResourceName;
use crate::runner::AllocateError;
use crate::source::Host;
use crate::unit::{Node, Unit};

use super::checkpoint::InUse;
use super::nodes::{self, Owned};
use super::record;

/// Name of the record in the folder for those.
const FILE_NAME: &str = "device-plugins.json";
/// Version of the record's form.
const VERSION: u32 = 1;
/// Most bytes of the record.
const LEN_MAX: u64 = 8 << 20;
/// Most entries: more than a node has devices that only one container can have.
const ENTRIES_MAX: usize = 8192;
/// How long the kubelet may take from asking for a unit to writing down who has it. It does both within a second; where
/// it never does, because another device of the same container was refused, the unit is free again after this.
pub(crate) const UNSEEN_FOR_MAX: Duration = Duration::from_secs(60);

/// Name of an entry: the resource, and the unit or its copy.
type Key = (ResourceName, String);

/// What was given.
#[derive(Debug)]
pub(crate) struct Ledger {
    host: Host,
    launcher_id: u32,
    boot: String,
    entries: BTreeMap<Key, Entry>,
    is_written: bool,
}

/// A unit that was given to a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// The resource.
    pub(crate) resource: ResourceName,
    /// The unit, or one of its copies.
    pub(crate) id: String,
    /// The devices that it consists of.
    pub(crate) parts: Vec<String>,
    nodes: Vec<Given>,
    /// Who has it, by the kubelet's record; empty until it was in there.
    pub(crate) holders: Vec<Holder>,
    /// Who had it before, and may still be in the record.
    former: Vec<Holder>,
    #[serde(skip)]
    given_at: Option<Instant>,
}

/// A node that was made the launcher's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Given {
    path: PathBuf,
    /// What it was before; none where there was a plain file, which was left as it is.
    original: Option<Owned>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    version: u32,
    /// Which start of the machine it is about: afterwards nodes are others.
    boot: String,
    entries: Vec<Entry>,
}

impl Ledger {
    /// Reads what was given before; says what is wrong with the record, if anything is. Blocks.
    pub(crate) fn open(host: &Host, launcher_id: u32, now: Instant) -> (Self, Option<String>) {
        let mut ledger = Self {
            host: host.clone(),
            launcher_id,
            boot: boot(),
            entries: BTreeMap::new(),
            is_written: true,
        };
        let fault = match record::read::<Record>(&ledger.path(), LEN_MAX) {
            Ok(record) => {
                ledger.take_over(record, now);
                None
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => Some(format!(
                "{}: {error}; begins anew, and devices that were given before keep their owner",
                ledger.path().display()
            )),
        };
        (ledger, fault)
    }

    fn take_over(&mut self, record: Record, now: Instant) {
        if record.version != VERSION || record.boot != self.boot {
            return;
        }
        for mut entry in record.entries.into_iter().take(ENTRIES_MAX) {
            entry.given_at = Some(now);
            let key = (entry.resource.clone(), entry.id.clone());
            self.entries.insert(key, entry);
        }
    }

    fn path(&self) -> PathBuf {
        self.host.private_dir.join(FILE_NAME)
    }

    /// What is given at the moment.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.entries.values().cloned().collect()
    }

    /// Gives units to a container: notes them, and makes their nodes the launcher's own. Either all are given or none.
    /// Returns what is wrong with the record, if anything is; the units are given nevertheless. Blocks.
    ///
    /// # Errors
    ///
    /// Fails where a node is gone, and where the host does not allow its owner to change.
    pub(crate) fn give(
        &mut self,
        resource: &ResourceName,
        units: &[(String, Unit)],
        now: Instant,
    ) -> Result<Option<String>, AllocateError> {
        let entries = units
            .iter()
            .map(|(id, unit)| self.entry(resource, id, unit, now))
            .collect::<Result<Vec<Entry>, AllocateError>>()?;
        let before = self.note(entries)?;
        self.is_written &= before.is_empty();
        let fault = self.write();
        for (id, unit) in units {
            if let Err(error) = self.own(resource, id, unit) {
                self.undo(before);
                return Err(error);
            }
        }
        Ok(fault)
    }

    /// Notes entries, and returns what was there before under their names.
    fn note(&mut self, entries: Vec<Entry>) -> Result<Vec<(Key, Option<Entry>)>, AllocateError> {
        let entries = entries.into_iter().filter(Entry::is_worth_noting);
        let entries: Vec<Entry> = entries.collect();
        if let Some(first) = entries.first()
            && self.entries.len() + entries.len() > ENTRIES_MAX
        {
            let reason = "too many devices are given already";
            return Err(refused(&first.resource, &first.id, reason));
        }
        let noted = entries.into_iter().map(|entry| {
            let key = (entry.resource.clone(), entry.id.clone());
            let before = self.entries.insert(key.clone(), entry);
            (key, before)
        });
        Ok(noted.collect())
    }

    /// What is to be noted of a unit that is about to be given.
    fn entry(
        &self,
        resource: &ResourceName,
        id: &str,
        unit: &Unit,
        now: Instant,
    ) -> Result<Entry, AllocateError> {
        let mut given = Vec::new();
        for node in &unit.nodes {
            let found = self.find(resource, id, node)?;
            if node.is_owned {
                given.push(found);
            }
        }
        let former = self.entries.get(&(resource.clone(), id.to_owned()));
        let former = former.map(|entry| [&entry.holders[..], &entry.former[..]].concat());
        Ok(Entry {
            resource: resource.clone(),
            id: id.to_owned(),
            parts: unit.parts.clone(),
            nodes: given,
            holders: Vec::new(),
            former: former.unwrap_or_default(),
            given_at: Some(now),
        })
    }

    /// Finds a node and whose it was before anything was given.
    fn find(&self, resource: &ResourceName, id: &str, node: &Node) -> Result<Given, AllocateError> {
        let path = node.path.clone();
        if !node.is_owned {
            return match fs::metadata(self.host.node(&path)) {
                Ok(_) => Ok(Given {
                    path,
                    original: None,
                }),
                Err(error) => Err(unreached(resource, id, &path, &error)),
            };
        }
        let reached = nodes::reach(&self.host, &path);
        let owned = reached.map_err(|error| unreached(resource, id, &path, &error))?;
        let original = owned.owned.map(|owned| self.original(&path, owned));
        Ok(Given { path, original })
    }

    /// What a node was before it was first given: by the ledger, else what it is.
    fn original(&self, path: &Path, now: Owned) -> Owned {
        let given = self.entries.values().flat_map(|entry| &entry.nodes);
        let mut known = given.filter(|given| given.path == path);
        let original = known.find_map(|given| given.original.filter(|one| one.is_same_node(&now)));
        original.unwrap_or(now)
    }

    fn own(&self, resource: &ResourceName, id: &str, unit: &Unit) -> Result<(), AllocateError> {
        for node in unit.nodes.iter().filter(|node| node.is_owned) {
            let reached = nodes::reach(&self.host, &node.path);
            let reached = reached.map_err(|error| unreached(resource, id, &node.path, &error))?;
            if reached.owned.is_none() {
                tracing::warn!(node = %node.path.display(), "is a plain file where a device was expected; its owner stays");
            }
            reached.give(self.launcher_id).map_err(|error| {
                let node = node.path.display();
                let cure = "the node agent must run as root with the capabilities CHOWN and FOWNER";
                refused(
                    resource,
                    id,
                    &format!("change the owner of {node}: {error}; {cure}"),
                )
            })?;
        }
        Ok(())
    }

    fn undo(&mut self, before: Vec<(Key, Option<Entry>)>) {
        for (key, entry) in before {
            match entry {
                Some(entry) => self.entries.insert(key, entry),
                None => {
                    let given = self.entries.remove(&key);
                    given.iter().for_each(|given| self.give_back(given));
                    given
                }
            };
        }
        self.is_written = false;
        self.write();
    }

    /// Takes note of what the kubelet says is in use (none where it says nothing), and gives back what nobody has any more.
    /// Returns what is wrong with the record, if anything is. A node that cannot be given back keeps its owner, which is
    /// logged. Blocks.
    pub(crate) fn settle(
        &mut self,
        in_use: Option<&[InUse]>,
        is_pod_there: impl Fn(&str) -> bool,
        now: Instant,
    ) -> Option<String> {
        let mut over = Vec::new();
        for (key, entry) in &mut self.entries {
            let before = entry.holders.len() + entry.former.len();
            if entry.is_over(in_use, &is_pod_there, now) {
                over.push(key.clone());
            }
            self.is_written &= before == entry.holders.len() + entry.former.len();
        }
        let over: Vec<Entry> = over
            .iter()
            .filter_map(|key| self.entries.remove(key))
            .collect();
        self.is_written &= over.is_empty();
        for entry in &over {
            self.give_back(entry);
        }
        self.write()
    }

    /// Gives the nodes of an entry back that no other entry has.
    fn give_back(&self, entry: &Entry) {
        let others = self.entries.values().flat_map(|entry| &entry.nodes);
        let kept: BTreeSet<&Path> = others.map(|given| given.path.as_path()).collect();
        for given in &entry.nodes {
            let Some(original) = given.original.filter(|_| !kept.contains(&*given.path)) else {
                continue;
            };
            // A node that is gone needs no owner.
            let Ok(reached) = nodes::reach(&self.host, &given.path) else {
                continue;
            };
            if let Err(error) = reached.give_back(&original, self.launcher_id) {
                let node = given.path.display();
                tracing::warn!(%node, %error, "is not given back and keeps its owner");
            }
        }
    }

    /// When an entry that the kubelet's record does not name is over, if there is one.
    pub(crate) fn next_end(&self) -> Option<Instant> {
        let unseen = self.entries.values();
        let unseen = unseen.filter(|entry| entry.holders.is_empty());
        unseen.filter_map(Entry::unseen_until).min()
    }

    fn write(&mut self) -> Option<String> {
        if self.is_written {
            return None;
        }
        let record = Record {
            version: VERSION,
            boot: self.boot.clone(),
            entries: self.entries(),
        };
        let Err(error) = record::write(&self.path(), &record) else {
            self.is_written = true;
            return None;
        };
        Some(format!(
            "{}: {error}; after a restart nobody will know whose the given devices were",
            self.path().display()
        ))
    }
}

impl Entry {
    /// Whether anything has to be known of it later: what can be shared and stays whose it is needs no entry.
    fn is_worth_noting(&self) -> bool {
        !self.parts.is_empty() || !self.nodes.is_empty()
    }

    fn unseen_until(&self) -> Option<Instant> {
        self.given_at.map(|at| at + UNSEEN_FOR_MAX)
    }

    /// Takes note of who has it, and says whether nobody has it any more.
    fn is_over(
        &mut self,
        in_use: Option<&[InUse]>,
        is_pod_there: impl Fn(&str) -> bool,
        now: Instant,
    ) -> bool {
        let Some(in_use) = in_use else {
            let mut holders = self.holders.iter();
            return !self.holders.is_empty() && !holders.any(|one| is_pod_there(&one.pod_uid));
        };
        let named = in_use
            .iter()
            .filter(|one| one.resource == self.resource && one.id == self.id);
        let named: Vec<Holder> = named.map(|one| one.holder.clone()).collect();
        self.former.retain(|one| named.contains(one));
        let holders = named.into_iter().filter(|one| !self.former.contains(one));
        let holders: Vec<Holder> = holders.collect();
        if !holders.is_empty() {
            self.holders = holders;
            return false;
        }
        !self.holders.is_empty() || self.unseen_until().is_none_or(|until| now >= until)
    }
}

/// Which start of the machine this is.
fn boot() -> String {
    let read = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    read.map(|text| text.trim().to_owned()).unwrap_or_default()
}

fn unreached(resource: &ResourceName, id: &str, path: &Path, error: &io::Error) -> AllocateError {
    let (resource, id) = (resource.clone(), id.to_owned());
    let node = path.display();
    if error.kind() == io::ErrorKind::NotFound {
        let reason = format!("its device node {node} is gone; was the device unplugged?");
        return AllocateError::Gone {
            resource,
            id,
            reason,
        };
    }
    let reason = format!("reach {node}: {error}");
    AllocateError::Refused {
        resource,
        id,
        reason,
    }
}

fn refused(resource: &ResourceName, id: &str, reason: &str) -> AllocateError {
    AllocateError::Refused {
        resource: resource.clone(),
        id: id.to_owned(),
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests;
