//! What the agent's answers decode to. Lists and texts are cut: a guest does not decide how much memory it takes here.

mod cut;

use std::fmt;
use std::marker::PhantomData;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::{Error as _, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::report::{
    Address, AgentCommand, ExecOutcome, Filesystem, FilesystemDisk, FreezeStatus, Interface,
    OsInfo, Timezone, User,
};
use super::{AgentError, wire};

pub(super) use self::cut::Cut;

/// Most bytes of a name, path or description.
const MAX_TEXT_BYTES: usize = 1024;
/// Most commands, of which today's agent has about 60.
const MAX_COMMANDS: usize = 512;
/// Most file systems, users and interfaces of a report; hosts of many containers have hundreds.
const MAX_ENTRIES: usize = 512;
/// Most addresses of an interface and disks of a file system.
const MAX_PARTS: usize = 32;

/// A text that was cut to [`MAX_TEXT_BYTES`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Text(pub(super) String);

struct TextVisitor;

impl Visitor<'_> for TextVisitor {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E>(self, text: &str) -> Result<Text, E> {
        let end = text.floor_char_boundary(MAX_TEXT_BYTES);
        Ok(Text(text[..end].to_owned()))
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor)
    }
}

/// A list that was cut to `N` entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Few<T, const N: usize>(pub(super) Vec<T>);

impl<T, const N: usize> Default for Few<T, N> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T, const N: usize> Few<T, N> {
    fn map<U>(self, convert: impl Fn(T) -> U) -> Vec<U> {
        self.0.into_iter().map(convert).collect()
    }
}

struct FewVisitor<T, const N: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for FewVisitor<T, N> {
    type Value = Few<T, N>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut taken = Vec::new();
        while taken.len() < N {
            match entries.next_element()? {
                Some(entry) => taken.push(entry),
                None => return Ok(Few(taken)),
            }
        }
        while entries.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Few(taken))
    }
}

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for Few<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(FewVisitor(PhantomData))
    }
}

/// `guest-ping` and others that return an empty object.
#[derive(Debug, Deserialize)]
pub(super) struct Nothing {}

/// `guest-info`.
#[derive(Debug, Deserialize)]
pub(super) struct Info {
    version: Text,
    #[serde(default)]
    supported_commands: Few<Command, MAX_COMMANDS>,
}

#[derive(Debug, Deserialize)]
struct Command {
    name: Text,
    #[serde(default)]
    enabled: bool,
}

impl Info {
    pub(super) fn into_parts(self) -> (String, Vec<AgentCommand>) {
        let commands = self.supported_commands.map(|command| AgentCommand {
            name: command.name.0,
            enabled: command.enabled,
        });
        (self.version.0, commands)
    }
}

/// `guest-get-osinfo`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[derive(Default)]
pub(super) struct Os {
    id: Text,
    name: Text,
    pretty_name: Text,
    version: Text,
    version_id: Text,
    machine: Text,
    kernel_release: Text,
    kernel_version: Text,
}

impl From<Os> for OsInfo {
    fn from(os: Os) -> Self {
        Self {
            id: os.id.0,
            name: os.name.0,
            pretty_name: os.pretty_name.0,
            version: os.version.0,
            version_id: os.version_id.0,
            machine: os.machine.0,
            kernel_release: os.kernel_release.0,
            kernel_version: os.kernel_version.0,
        }
    }
}

/// `guest-get-host-name`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct HostName {
    pub(super) host_name: Text,
}

/// `guest-get-timezone`.
#[derive(Debug, Deserialize)]
pub(super) struct Zone {
    #[serde(default)]
    zone: Text,
    offset: i64,
}

impl From<Zone> for Timezone {
    fn from(zone: Zone) -> Self {
        Self {
            zone: zone.zone.0,
            offset_secs: zone.offset,
        }
    }
}

/// `guest-get-users`.
#[derive(Debug, Deserialize)]
pub(super) struct Users(Few<LoggedIn, MAX_ENTRIES>);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct LoggedIn {
    user: Text,
    #[serde(default)]
    domain: Text,
    #[serde(default)]
    login_time: f64,
}

impl From<Users> for Vec<User> {
    fn from(users: Users) -> Self {
        users.0.map(|user| User {
            name: user.user.0,
            domain: user.domain.0,
            login_time_secs: user.login_time,
        })
    }
}

/// `guest-get-fsinfo`.
#[derive(Debug, Deserialize)]
pub(super) struct Filesystems(Few<Mounted, MAX_ENTRIES>);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Mounted {
    name: Text,
    mountpoint: Text,
    #[serde(rename = "type")]
    kind: Text,
    used_bytes: Option<u64>,
    total_bytes: Option<u64>,
    #[serde(default)]
    disk: Few<Below, MAX_PARTS>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Below {
    serial: Option<Text>,
    #[serde(default)]
    bus_type: Text,
    dev: Option<Text>,
}

impl From<Filesystems> for Vec<Filesystem> {
    fn from(mounted: Filesystems) -> Self {
        mounted.0.map(|mounted| Filesystem {
            name: mounted.name.0,
            mountpoint: mounted.mountpoint.0,
            kind: mounted.kind.0,
            used_bytes: mounted.used_bytes,
            total_bytes: mounted.total_bytes,
            disks: mounted.disk.map(|disk| FilesystemDisk {
                serial: disk.serial.map(|text| text.0),
                bus: disk.bus_type.0,
                device: disk.dev.map(|text| text.0),
            }),
        })
    }
}

/// `guest-network-get-interfaces`.
#[derive(Debug, Deserialize)]
pub(super) struct Interfaces(Few<Network, MAX_ENTRIES>);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Network {
    name: Text,
    hardware_address: Option<Text>,
    #[serde(default)]
    ip_addresses: Few<NetworkAddress, MAX_PARTS>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct NetworkAddress {
    ip_address: Text,
    #[serde(default)]
    ip_address_type: Text,
    #[serde(default)]
    prefix: u8,
}

impl From<Interfaces> for Vec<Interface> {
    fn from(interfaces: Interfaces) -> Self {
        interfaces.0.map(|interface| Interface {
            name: interface.name.0,
            mac: interface.hardware_address.map(|text| text.0),
            addresses: interface.ip_addresses.map(|address| Address {
                ip: address.ip_address.0,
                is_ipv6: address.ip_address_type.0 == "ipv6",
                prefix_len: address.prefix,
            }),
        })
    }
}

/// `guest-fsfreeze-status`.
#[derive(Debug)]
pub(super) struct Freeze(pub(super) FreezeStatus);

impl<'de> Deserialize<'de> for Freeze {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Text::deserialize(deserializer)?.0.as_str() {
            "thawed" => Ok(Self(FreezeStatus::Thawed)),
            "frozen" => Ok(Self(FreezeStatus::Frozen)),
            other => Err(D::Error::unknown_variant(other, &["thawed", "frozen"])),
        }
    }
}

/// `guest-get-load`.
#[derive(Debug, Deserialize)]
pub(super) struct Load {
    load1m: f64,
    load5m: f64,
    load15m: f64,
}

impl From<Load> for [f64; 3] {
    fn from(load: Load) -> Self {
        [load.load1m, load.load5m, load.load15m]
    }
}

/// `guest-get-vcpus`.
#[derive(Debug, Deserialize)]
pub(super) struct Vcpus(Few<Vcpu, MAX_ENTRIES>);

#[derive(Debug, Deserialize)]
struct Vcpu {
    online: bool,
}

impl Vcpus {
    pub(super) fn online(&self) -> u32 {
        let online = self.0.0.iter().filter(|vcpu| vcpu.online).count();
        u32::try_from(online).unwrap_or(u32::MAX)
    }
}

/// `guest-exec`.
#[derive(Debug, Deserialize)]
pub(super) struct ExecStarted {
    pub(super) pid: i64,
}

/// `guest-exec-status`. Output is as long as a line lets it be.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct ExecStatus {
    exited: bool,
    exitcode: Option<i32>,
    signal: Option<i32>,
    #[serde(default)]
    out_data: String,
    #[serde(default)]
    err_data: String,
    #[serde(default)]
    out_truncated: bool,
    #[serde(default)]
    err_truncated: bool,
}

impl ExecStatus {
    /// Returns how the program ended, or `None` while it runs.
    pub(super) fn outcome(self, command: &'static str) -> Result<Option<ExecOutcome>, AgentError> {
        if !self.exited {
            return Ok(None);
        }
        let decode = |text: &str| {
            let source = |error| AgentError::Answer {
                command,
                source: serde_json::Error::custom(error),
            };
            BASE64.decode(text).map_err(source)
        };
        let signalled = || self.signal.map_or(0, |number| number.saturating_add(128));
        Ok(Some(ExecOutcome {
            exit_code: self.exitcode.unwrap_or_else(signalled),
            stdout: decode(&self.out_data)?,
            stderr: decode(&self.err_data)?,
            truncated: self.out_truncated || self.err_truncated,
        }))
    }
}

/// Decodes a line as each of the answers.
pub(super) fn fuzz(line: &[u8]) {
    let _results = (
        wire::answer::<Info>(line).map(Info::into_parts).is_ok(),
        wire::answer::<Os>(line).is_ok(),
        wire::answer::<HostName>(line).is_ok(),
        wire::answer::<Zone>(line).is_ok(),
        wire::answer::<Users>(line).map(Vec::<User>::from).is_ok(),
        wire::answer::<Filesystems>(line)
            .map(Vec::<Filesystem>::from)
            .is_ok(),
        wire::answer::<Interfaces>(line)
            .map(Vec::<Interface>::from)
            .is_ok(),
        wire::answer::<Freeze>(line).is_ok(),
        wire::answer::<Load>(line).is_ok(),
        wire::answer::<Vcpus>(line)
            .map(|vcpus| vcpus.online())
            .is_ok(),
        wire::answer::<Cut>(line).is_ok(),
        wire::answer::<ExecStarted>(line).is_ok(),
        wire::answer::<ExecStatus>(line)
            .map(|status| status.outcome("fuzz").is_ok())
            .is_ok(),
    );
}
