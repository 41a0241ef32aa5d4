//! Control groups: one of a pod, and one below it of each container, for limits on memory, processor time, processes and
//! devices. Both versions are used as they are mounted; what is not there is left out, with one warning.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::mount_table::MountTable;

/// Controllers of version 1 that are used where mounted.
const CONTROLLERS: [&str; 5] = ["cpu", "cpuacct", "memory", "pids", "devices"];
/// Name of the group of containers' keepers.
const KEEPERS: &str = "keepers";
/// Period in which processor time is counted.
const CPU_PERIOD_US: u64 = 100_000;
/// Least and greatest share, and least quota, that the kernel takes.
const CPU_SHARES_MIN: u64 = 2;
const CPU_SHARES_MAX: u64 = 262_144;
const CPU_QUOTA_MIN_US: u64 = 1_000;
/// Devices that every container has, as rules of version 1: nodes may be made, and the harmless ones used.
const DEVICES: [&str; 11] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
    "c 10:200 rwm",
];
/// How often a group that is still in use is tried again.
const REMOVAL_TRIES: usize = 50;

/// What a container may use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Most memory.
    pub memory_bytes: Option<u64>,
    /// Processor time when others want it too, in thousandths of a processor.
    pub cpu_request_milli: u64,
    /// Most processor time.
    pub cpu_limit_milli: Option<u64>,
    /// Most processes.
    pub pids: Option<u64>,
    /// Rules such as `c 10:232 rwm` for devices beside the usual; `None` for all devices.
    pub devices: Option<Vec<String>>,
}

/// Where control groups are mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroups {
    /// Folders of version 1, by controller.
    v1: BTreeMap<&'static str, PathBuf>,
    /// Folder of version 2, where it has controllers.
    v2: Option<PathBuf>,
    /// Folder of the hierarchy of version 1 by which an init system knows services.
    services: Option<PathBuf>,
    /// Name of the group that all of ours are in.
    parent: String,
}

/// Groups of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Folders to join.
    pub folders: Vec<PathBuf>,
    /// Folder that the keeper joins.
    pub keeper: Option<PathBuf>,
    /// File with a line `oom_kill N`.
    pub oom_counter: Option<PathBuf>,
}

impl Cgroups {
    /// Finds where control groups are mounted, for groups in one of this name. Blocks.
    ///
    /// # Errors
    ///
    /// Fails without `/proc`.
    pub fn find(parent: &str) -> io::Result<Self> {
        Ok(Self::among(&MountTable::read()?, parent))
    }

    fn among(table: &MountTable, parent: &str) -> Self {
        let mut found = Self {
            v1: BTreeMap::new(),
            v2: None,
            services: None,
            parent: parent.to_owned(),
        };
        for entry in table
            .entries
            .iter()
            .filter(|entry| entry.root == Path::new("/"))
        {
            match entry.kind.as_str() {
                "cgroup"
                    if entry
                        .options
                        .split(',')
                        .any(|option| option == "name=systemd") =>
                {
                    found.services = Some(entry.point.clone());
                }
                "cgroup" => {
                    let has = |name: &&str| entry.options.split(',').any(|option| option == *name);
                    for controller in CONTROLLERS.into_iter().filter(has) {
                        found
                            .v1
                            .entry(controller)
                            .or_insert_with(|| entry.point.clone());
                    }
                }
                "cgroup2" => found.v2 = found.v2.take().or_else(|| Some(entry.point.clone())),
                _ => {}
            }
        }
        let has_controllers = |folder: &PathBuf| {
            let controllers =
                fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
            controllers.split_whitespace().any(|name| name == "memory")
        };
        if found.services.is_none() {
            // There every group is one of services.
            found.services = found.v2.clone();
        }
        found.v2 = found.v2.filter(has_controllers);
        found
    }

    /// Makes the group of containers' keepers, which must not end with who started them. `None` where that is not to be
    /// had. Blocks.
    #[must_use]
    pub fn keepers(&self) -> Option<PathBuf> {
        let folder = self.services.as_ref()?.join(&self.parent).join(KEEPERS);
        fs::create_dir_all(&folder).is_ok().then_some(folder)
    }

    /// Makes the groups of a container, limited. What the host does not have or allow is left out, and named. Blocks.
    #[must_use]
    pub fn make(&self, pod: &str, container: &str, limits: &Limits) -> (Group, Vec<String>) {
        let mut group = Group {
            keeper: self.keepers(),
            ..Group::default()
        };
        let mut missing = Vec::new();
        if self.v1.is_empty() && self.v2.is_none() {
            missing.push("no control groups are mounted at /sys/fs/cgroup".to_owned());
        }
        for (controller, root) in &self.v1 {
            let folder = self.container_folder(root, pod, container);
            let made =
                fs::create_dir_all(&folder).and_then(|()| limit_v1(controller, &folder, limits));
            match made {
                Ok(()) if group.folders.contains(&folder) => {}
                Ok(()) => group.folders.push(folder),
                Err(error) => missing.push(format!("{controller}: {error}")),
            }
        }
        if let Some(memory) = self.v1.get("memory") {
            group.oom_counter = Some(
                self.container_folder(memory, pod, container)
                    .join("memory.oom_control"),
            );
        }
        if let Some(root) = &self.v2 {
            self.make_v2(root, pod, container, limits, &mut group, &mut missing);
        }
        (group, missing)
    }

    fn make_v2(
        &self,
        root: &Path,
        pod: &str,
        container: &str,
        limits: &Limits,
        group: &mut Group,
        missing: &mut Vec<String>,
    ) {
        let folder = self.container_folder(root, pod, container);
        if let Err(error) = fs::create_dir_all(&folder) {
            missing.push(format!("control groups of version 2: {error}"));
            return;
        }
        for above in [root, &root.join(&self.parent), &self.pod_folder(root, pod)] {
            for controller in ["+cpu", "+memory", "+pids"] {
                if let Err(error) = fs::write(above.join("cgroup.subtree_control"), controller) {
                    missing.push(format!("{controller} in {}: {error}", above.display()));
                }
            }
        }
        if let Err(error) = limit_v2(&folder, limits) {
            missing.push(error.to_string());
        }
        group
            .oom_counter
            .get_or_insert_with(|| folder.join("memory.events"));
        group.folders.push(folder);
    }

    /// Sets a pod's share of processor time when others want it too, in thousandths of a processor. A pod without groups
    /// is left alone. Blocks.
    ///
    /// # Errors
    ///
    /// Fails when the host does not allow it.
    pub fn weigh(&self, pod: &str, milli: u64) -> io::Result<()> {
        let of_v1 = self
            .v1
            .get("cpu")
            .map(|root| (root, "cpu.shares", shares(milli)));
        let of_v2 = self
            .v2
            .as_ref()
            .map(|root| (root, "cpu.weight", weight(milli)));
        for (root, name, value) in of_v1.into_iter().chain(of_v2) {
            let written = fs::write(self.pod_folder(root, pod).join(name), value.to_string());
            written.or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            })?;
        }
        Ok(())
    }

    fn pod_folder(&self, root: &Path, pod: &str) -> PathBuf {
        root.join(&self.parent).join(format!("pod{pod}"))
    }

    fn container_folder(&self, root: &Path, pod: &str, container: &str) -> PathBuf {
        self.pod_folder(root, pod).join(container)
    }

    /// Kills what still runs in a pod's groups, and removes them. Waits for the processes' end. Blocks.
    ///
    /// # Errors
    ///
    /// Fails when a group is still in use after a while.
    pub fn remove(&self, pod: &str) -> io::Result<()> {
        let mut roots: Vec<_> = self.v1.values().chain(&self.v2).collect();
        roots.dedup();
        for root in roots {
            let folder = self.pod_folder(root, pod);
            if folder.exists() {
                remove_tree(&folder)?;
            }
            // The last one leaves the place as it was.
            let _others_are_there = fs::remove_dir(root.join(&self.parent));
        }
        self.remove_keepers();
        Ok(())
    }

    fn remove_keepers(&self) {
        if let Some(root) = &self.services {
            // Where keepers live, their group stays.
            let _in_use = fs::remove_dir(root.join(&self.parent).join(KEEPERS));
            let _in_use = fs::remove_dir(root.join(&self.parent));
        }
    }

    /// Returns the processes in a pod's groups. Blocks.
    #[must_use]
    pub fn processes(&self, pod: &str) -> Vec<i32> {
        let folders = self
            .v1
            .values()
            .chain(&self.v2)
            .map(|root| self.pod_folder(root, pod));
        let mut found: Vec<_> = folders.flat_map(|folder| processes(&folder)).collect();
        found.sort_unstable();
        found.dedup();
        found
    }
}

fn limit_v1(controller: &str, folder: &Path, limits: &Limits) -> io::Result<()> {
    let write = |name: &str, value: String| {
        fs::write(folder.join(name), value)
            .map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))
    };
    match controller {
        "cpu" => {
            write("cpu.shares", shares(limits.cpu_request_milli).to_string())?;
            limits.cpu_limit_milli.map_or(Ok(()), |milli| {
                write("cpu.cfs_quota_us", cpu_quota(milli).to_string())
            })
        }
        "memory" => limits.memory_bytes.map_or(Ok(()), |bytes| {
            write("memory.limit_in_bytes", bytes.to_string())
        }),
        "pids" => limits
            .pids
            .map_or(Ok(()), |pids| write("pids.max", pids.to_string())),
        "devices" => {
            let Some(devices) = &limits.devices else {
                return Ok(());
            };
            write("devices.deny", "a".to_owned())?;
            let all = DEVICES
                .into_iter()
                .chain(devices.iter().map(String::as_str));
            // The kernel takes one rule per write.
            all.into_iter()
                .try_for_each(|rule| write("devices.allow", rule.to_owned()))
        }
        _ => Ok(()),
    }
}

/// Shares of version 1 for thousandths of a processor.
fn shares(milli: u64) -> u64 {
    (milli.saturating_mul(1024) / 1000).clamp(CPU_SHARES_MIN, CPU_SHARES_MAX)
}

/// The weight of version 2: 2 to 262144 shares are 1 to 10000 (KEP-2254).
fn weight(milli: u64) -> u64 {
    1 + (shares(milli) - CPU_SHARES_MIN) * 9999 / (CPU_SHARES_MAX - CPU_SHARES_MIN)
}

fn cpu_quota(milli: u64) -> u64 {
    (milli * CPU_PERIOD_US / 1000).max(CPU_QUOTA_MIN_US)
}

fn limit_v2(folder: &Path, limits: &Limits) -> io::Result<()> {
    let write = |name: &str, value: String| {
        fs::write(folder.join(name), value)
            .map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))
    };
    write("cpu.weight", weight(limits.cpu_request_milli).to_string())?;
    if let Some(milli) = limits.cpu_limit_milli {
        write("cpu.max", format!("{} {CPU_PERIOD_US}", cpu_quota(milli)))?;
    }
    if let Some(bytes) = limits.memory_bytes {
        write("memory.max", bytes.to_string())?;
    }
    limits
        .pids
        .map_or(Ok(()), |pids| write("pids.max", pids.to_string()))
}

/// Returns the processes of a group and of those below it.
fn processes(folder: &Path) -> Vec<i32> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let listed = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        found.extend(
            listed
                .lines()
                .filter_map(|pid| pid.parse::<i32>().ok())
                .filter(|pid| *pid > 0),
        );
        folders.extend(subfolders(&folder));
    }
    found
}

fn subfolders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

fn remove_tree(folder: &Path) -> io::Result<()> {
    const BETWEEN_TRIES: std::time::Duration = std::time::Duration::from_millis(20);
    for tried in 0.. {
        for pid in processes(folder) {
            // One that has ended meanwhile needs no signal.
            let _gone = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid),
                nix::sys::signal::Signal::SIGKILL,
            );
        }
        match remove_folders(folder) {
            Err(error)
                if error.raw_os_error() == Some(rustix::io::Errno::BUSY.raw_os_error())
                    && tried < REMOVAL_TRIES =>
            {
                // Groups tell nobody that their last process was reaped.
                std::thread::park_timeout(BETWEEN_TRIES);
            }
            done => return done,
        }
    }
    Ok(())
}

/// Removes a group with those below it. Their files go with the folders.
fn remove_folders(folder: &Path) -> io::Result<()> {
    for below in subfolders(folder) {
        remove_folders(&below)?;
    }
    match fs::remove_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Cgroups, cpu_quota, shares, weight};
    use crate::sandbox::mount_table::{MountEntry, MountTable};

    fn mounted(kind: &str, point: &str, options: &str) -> MountEntry {
        MountEntry {
            point: point.into(),
            root: "/".into(),
            is_shared: false,
            kind: kind.to_owned(),
            options: options.to_owned(),
        }
    }

    #[test]
    fn controllers_are_found_where_they_are_mounted() {
        let table = MountTable {
            entries: vec![
                mounted("cgroup", "/sys/fs/cgroup/cpu,cpuacct", "rw,cpu,cpuacct"),
                mounted("cgroup", "/sys/fs/cgroup/memory", "rw,memory"),
                mounted("cgroup", "/sys/fs/cgroup/systemd", "rw,name=systemd"),
                mounted("cgroup2", "/nowhere", "rw"),
            ],
        };
        let found = Cgroups::among(&table, "ferrovirt");
        let controllers: Vec<_> = found.v1.keys().copied().collect();
        assert_eq!(controllers, ["cpu", "cpuacct", "memory"]);
        assert_eq!(found.v2, None);
    }

    #[test]
    fn a_pod_is_weighed_where_it_has_a_group() {
        let root = tempfile::tempdir().unwrap();
        let point = root.path().to_string_lossy().into_owned();
        let table = MountTable {
            entries: vec![mounted("cgroup", &point, "rw,cpu")],
        };
        let groups = Cgroups::among(&table, "ferrovirt");
        groups.weigh("gone", 500).unwrap();
        let folder = root.path().join("ferrovirt/podone");
        std::fs::create_dir_all(&folder).unwrap();
        groups.weigh("one", 500).unwrap();
        let shares = std::fs::read_to_string(folder.join("cpu.shares")).unwrap();
        assert_eq!(shares, "512");
    }

    #[test]
    fn shares_and_weights_are_what_the_kernel_takes() {
        assert_eq!([0, 1000, u64::MAX / 1024].map(shares), [2, 1024, 262_144]);
        assert_eq!([0, 1000, u64::MAX / 1024].map(weight), [1, 39, 10_000]);
    }

    #[test]
    fn quotas_are_as_large_as_the_kernel_takes() {
        assert_eq!(cpu_quota(1500), 150_000);
        assert_eq!(cpu_quota(1), 1_000);
    }
}
