//! From a pod's container to what is run.

mod rights;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, VolumeMount};

use super::devices::Allocation;
use super::environment::{expand, milli, units};
use super::options::Options;
use super::status::{oom_score_adj, qos_class};
use super::volumes::Ready;
use crate::sandbox::cgroup::{Group, Limits};
use crate::sandbox::image::{Image, ImageRoot};
use crate::sandbox::spec::{ContainerSpec, Device, Mount, Namespaces};

/// Search path of programs when neither image nor pod gives one.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Where last words are written unless the container says otherwise.
pub(super) const MESSAGE_PATH: &str = "/dev/termination-log";
/// Most processes of a container; as many as a host with a moderate number of pods spares.
const PIDS_MAX: u64 = 16_384;
/// Name of a pod's hosts file in its folder.
const HOSTS: &str = "etc-hosts";

/// Why a container cannot be made from what the pod says.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpecError {
    /// What the pod asks for is not possible.
    #[error("{0}")]
    Invalid(String),
    /// The host refuses.
    #[error("{what}: {source}")]
    Host { what: String, source: io::Error },
}

/// What a container is made of.
pub(super) struct Parts<'a> {
    pub(super) options: &'a Options,
    pub(super) pod: &'a Pod,
    pub(super) container: &'a Container,
    pub(super) image: &'a Image,
    pub(super) volumes: &'a BTreeMap<String, Ready>,
    pub(super) allocation: &'a Allocation,
    pub(super) variables: Vec<(String, String)>,
    pub(super) namespaces: Namespaces,
    pub(super) shm: Option<PathBuf>,
    pub(super) run: u32,
}

impl Parts<'_> {
    fn spec(&self) -> PodSpec {
        self.pod.spec.clone().unwrap_or_default()
    }

    fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }

    /// Puts the container together, and makes the files that only it has. Blocks.
    pub(super) fn assemble(&self, group: &Group) -> Result<ContainerSpec, SpecError> {
        let spec = self.spec();
        let rights = rights::rights(&spec, self.container, self.image)?;
        let variables = self.environment();
        let memory = self.amount("memory").map_or(0, |(request, _)| request);
        Ok(ContainerSpec {
            image_id: self.image.digest.clone(),
            root: self.image.root.clone(),
            is_root_read_only: rights.is_root_read_only,
            namespaces: self.namespaces.clone(),
            cgroups: group.folders.clone(),
            keeper_cgroup: group.keeper.clone(),
            oom_counter: group.oom_counter.clone(),
            mounts: self.mounts()?,
            devices: self.devices()?,
            shm: self.shm.clone(),
            argv: self.argv(&variables),
            env: variables,
            workdir: self
                .container
                .working_dir
                .clone()
                .unwrap_or_else(|| self.image.workdir.clone()),
            user: rights.user,
            capabilities: rights.capabilities,
            ambient_capabilities: rights.ambient_capabilities,
            no_new_privileges: rights.no_new_privileges,
            is_privileged: rights.is_privileged,
            has_terminal: self.container.tty == Some(true),
            log: self.log(),
            oom_score_adj: oom_score_adj(qos_class(&spec), memory, host_memory_bytes()),
        })
    }

    fn log(&self) -> PathBuf {
        let metadata = &self.pod.metadata;
        let [namespace, name] =
            [&metadata.namespace, &metadata.name].map(|text| text.as_deref().unwrap_or_default());
        let folder = self.options.log_dir(namespace, name, self.uid());
        folder
            .join(&self.container.name)
            .join(format!("{}.log", self.run))
    }

    fn environment(&self) -> Vec<(String, String)> {
        let mut variables = self.variables.clone();
        let has = |variables: &[(String, String)], name: &str| {
            variables.iter().any(|(known, _)| known == name)
        };
        variables.extend(self.allocation.env.iter().cloned());
        if !has(&variables, "PATH") {
            variables.insert(0, ("PATH".to_owned(), PATH_DEFAULT.to_owned()));
        }
        if !has(&variables, "HOSTNAME") {
            variables.insert(0, ("HOSTNAME".to_owned(), hostname(self.pod)));
        }
        if self.container.tty == Some(true) && !has(&variables, "TERM") {
            variables.push(("TERM".to_owned(), "xterm".to_owned()));
        }
        variables
    }

    /// The pod's command replaces the image's program, and with it the image's arguments.
    fn argv(&self, variables: &[(String, String)]) -> Vec<String> {
        let known = |name: &str| {
            variables
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.clone())
        };
        let expanded = |texts: &[String]| {
            texts
                .iter()
                .map(|text| expand(text, known))
                .collect::<Vec<_>>()
        };
        let command = self
            .container
            .command
            .as_deref()
            .filter(|command| !command.is_empty());
        let args = self
            .container
            .args
            .as_deref()
            .filter(|args| !args.is_empty());
        let mut argv = command.map_or_else(|| self.image.entrypoint.clone(), expanded);
        match (command, args) {
            (_, Some(args)) => argv.extend(expanded(args)),
            (None, None) => argv.extend(self.image.cmd.iter().cloned()),
            (Some(_), None) => {}
        }
        argv
    }

    /// Returns request and limit of a resource.
    fn amount(&self, name: &str) -> Option<(u64, Option<u64>)> {
        amount(self.container, name)
    }

    /// Returns what the container may use.
    pub(super) fn limits(&self, is_privileged: bool) -> Result<Limits, SpecError> {
        let (cpu_request_milli, cpu_limit_milli) = self.amount("cpu").unwrap_or_default();
        let devices = self.devices()?;
        let rules = devices.iter().filter_map(|device| rule(device).transpose());
        Ok(Limits {
            memory_bytes: self.amount("memory").and_then(|(_, limit)| limit),
            cpu_request_milli,
            cpu_limit_milli,
            pids: Some(PIDS_MAX),
            devices: if is_privileged {
                None
            } else {
                Some(rules.collect::<Result<_, _>>()?)
            },
        })
    }

    fn devices(&self) -> Result<Vec<Device>, SpecError> {
        let mut devices = self.allocation.devices.clone();
        for wanted in self.container.volume_devices.iter().flatten() {
            let ready = self
                .volumes
                .get(&wanted.name)
                .filter(|ready| ready.is_block);
            let ready = ready.ok_or_else(|| {
                SpecError::Invalid(format!(
                    "volumeDevices: volume {:?} is no block volume",
                    wanted.name
                ))
            })?;
            let permissions = if ready.is_read_only { "r" } else { "rw" };
            devices.push(Device {
                source: ready.path.clone(),
                target: wanted.device_path.clone(),
                permissions: permissions.to_owned(),
            });
        }
        Ok(devices)
    }

    fn mounts(&self) -> Result<Vec<Mount>, SpecError> {
        let mut mounts = self.allocation.mounts.clone();
        for wanted in self.container.volume_mounts.iter().flatten() {
            mounts.push(self.mount(wanted)?);
        }
        let pod_dir = self.options.pod_dir(self.uid());
        for name in ["hosts", "hostname", "resolv.conf"] {
            let target = format!("/etc/{name}");
            if !mounts.iter().any(|mount| mount.target == target) {
                mounts.push(file_mount(pod_dir.join(format!("etc-{name}")), target));
            }
        }
        mounts.push(self.message_file(&pod_dir)?);
        // A mount must not hide one inside it that was made before.
        mounts.sort_by_key(|mount| Path::new(&mount.target).components().count());
        Ok(mounts)
    }

    fn mount(&self, wanted: &VolumeMount) -> Result<Mount, SpecError> {
        let name = &wanted.name;
        let invalid =
            |reason: String| SpecError::Invalid(format!("volumeMounts: volume {name:?} {reason}"));
        let ready = self
            .volumes
            .get(name)
            .ok_or_else(|| invalid("is not among the pod's volumes".to_owned()))?;
        if ready.is_block {
            return Err(invalid(
                "is a block device: name it in volumeDevices".to_owned(),
            ));
        }
        let follows_host = match wanted.mount_propagation.as_deref() {
            None | Some("None") => false,
            Some("HostToContainer") => true,
            Some(other) => {
                return Err(invalid(format!(
                    "has mountPropagation {other}, which this node does not provide: use HostToContainer"
                )));
            }
        };
        let sub_path = match (&wanted.sub_path_expr, &wanted.sub_path) {
            (Some(text), _) => {
                let known = |name: &str| {
                    self.variables
                        .iter()
                        .find(|(known, _)| known == name)
                        .map(|(_, value)| value.clone())
                };
                Some(expand(text, known))
            }
            (None, path) => path.clone(),
        };
        Ok(Mount {
            source: ready.path.clone(),
            sub_path,
            target: wanted.mount_path.clone(),
            is_read_only: ready.is_read_only || wanted.read_only == Some(true),
            follows_host,
        })
    }

    /// Makes the file for the container's last words.
    fn message_file(&self, pod_dir: &Path) -> Result<Mount, SpecError> {
        let path = message_path(pod_dir, &self.container.name, self.run);
        let failed = |source| SpecError::Host {
            what: format!("make {}", path.display()),
            source,
        };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        fs::write(&path, "").map_err(failed)?;
        let all = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        fs::set_permissions(&path, all).map_err(failed)?;
        let target = self
            .container
            .termination_message_path
            .as_deref()
            .unwrap_or(MESSAGE_PATH);
        Ok(file_mount(path, target.to_owned()))
    }
}

fn file_mount(source: PathBuf, target: String) -> Mount {
    Mount {
        source,
        sub_path: None,
        target,
        is_read_only: false,
        follows_host: false,
    }
}

/// Returns where a container's last words are on the host.
pub(super) fn message_path(pod_dir: &Path, container: &str, run: u32) -> PathBuf {
    pod_dir
        .join("containers")
        .join(container)
        .join(run.to_string())
}

/// Returns a device's rule for control groups of version 1.
fn rule(device: &Device) -> Result<Option<String>, SpecError> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let failed = |source| SpecError::Host {
        what: format!("device {}", device.source.display()),
        source,
    };
    let found = fs::metadata(&device.source).map_err(failed)?;
    let kind = match found.file_type() {
        kind if kind.is_char_device() => 'c',
        kind if kind.is_block_device() => 'b',
        _ => return Ok(None),
    };
    let (major, minor) = (
        rustix::fs::major(found.rdev()),
        rustix::fs::minor(found.rdev()),
    );
    Ok(Some(format!(
        "{kind} {major}:{minor} {}",
        device.permissions
    )))
}

/// Whether the container's image is the host's own programs.
pub(super) fn is_built_in(image: &Image) -> bool {
    matches!(image.root, ImageRoot::Host(_))
}

/// Returns a pod's host name.
pub(super) fn hostname(pod: &Pod) -> String {
    let spec = pod.spec.as_ref();
    if spec.is_some_and(|spec| spec.host_network == Some(true)) {
        let own = rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned();
        return own;
    }
    let wanted = spec
        .and_then(|spec| spec.hostname.clone())
        .filter(|name| !name.is_empty());
    let name = wanted
        .or_else(|| pod.metadata.name.clone())
        .unwrap_or_default();
    let cut: String = name.chars().take(63).collect();
    cut.trim_end_matches(['-', '.']).to_owned()
}

fn host_memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(info.mem_unit.into())
}

/// Writes the files of `/etc` that all containers of a pod share. Blocks.
pub(super) fn write_etc(pod_dir: &Path, pod: &Pod) -> io::Result<()> {
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let name = hostname(pod);
    fs::create_dir_all(pod_dir)?;
    fs::write(pod_dir.join(HOSTS), hosts(spec, &name))?;
    fs::write(pod_dir.join("etc-hostname"), format!("{name}\n"))?;
    fs::write(pod_dir.join("etc-resolv.conf"), resolver(spec))
}

fn hosts(spec: &PodSpec, name: &str) -> String {
    if spec.host_network == Some(true)
        && let Ok(own) = fs::read_to_string("/etc/hosts")
    {
        return own;
    }
    let mut text = format!(
        "# Made for this pod.\n127.0.0.1\tlocalhost {name}\n::1\tlocalhost ip6-localhost ip6-loopback\n"
    );
    for alias in spec.host_aliases.iter().flatten() {
        let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        text.push_str(&format!("{}\t{names}\n", alias.ip));
    }
    text
}

fn resolver(spec: &PodSpec) -> String {
    let is_none = spec.dns_policy.as_deref() == Some("None");
    let mut text = if is_none {
        String::new()
    } else {
        fs::read_to_string("/etc/resolv.conf").unwrap_or_default()
    };
    let Some(config) = &spec.dns_config else {
        return text;
    };
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    for server in config.nameservers.iter().flatten() {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if let Some(searches) = config
        .searches
        .as_ref()
        .filter(|searches| !searches.is_empty())
    {
        text.push_str(&format!("search {}\n", searches.join(" ")));
    }
    let option = |name: &Option<String>, value: &Option<String>| {
        let name = name.clone().unwrap_or_default();
        value
            .as_ref()
            .map_or(name.clone(), |value| format!("{name}:{value}"))
    };
    let options: Vec<_> = config
        .options
        .iter()
        .flatten()
        .map(|it| option(&it.name, &it.value))
        .collect();
    if !options.is_empty() {
        text.push_str(&format!("options {}\n", options.join(" ")));
    }
    text
}

/// Returns what a container asks for and how much it may use of a resource: CPU in thousandths, others in units.
fn amount(container: &Container, name: &str) -> Option<(u64, Option<u64>)> {
    let resources = container.resources.as_ref()?;
    let read = if name == "cpu" { milli } else { units };
    let limits = resources.limits.as_ref();
    let limit = limits.and_then(|limits| limits.get(name)).map(read);
    let requests = resources.requests.as_ref();
    let request = requests.and_then(|requests| requests.get(name)).map(read);
    Some((request.or(limit).unwrap_or(0), limit))
}

/// Returns the processor time that a pod's containers ask for, in thousandths of a processor.
pub(super) fn cpu_request(pod: &Pod) -> u64 {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let asked = containers.filter_map(|container| Some(amount(container, "cpu")?.0));
    asked.fold(0, u64::saturating_add)
}
