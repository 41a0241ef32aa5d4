//! `virtctl create vm`.

use std::path::PathBuf;

use api::Quantity;
use api::domain::{Cpu, Memory};
use api::manifest::{API_VERSION, VM_KIND};
use api::vm::{InstancetypeMatcher, VirtualMachine};
use api::volumes::Volume;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::super::Session;
use super::guest::{self, DataSource, UserData};
use super::inference::{self, Wish};
use super::parameters::{prefixed, wrong};
use super::volumes;
use crate::failure::Failure;
use crate::{argument, local_file, report, yaml};

/// Letters of made-up names: no vowels, so that they say nothing.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Letters of a made-up name.
const SUFFIX_LEN: usize = 5;
/// Memory of a machine whose user does not care.
const MEMORY: &str = "512Mi";

/// Create a VirtualMachine manifest.
///
/// Without boot orders, volumes boot in the order: container disks, claims, data sources, cloned claims, blank volumes,
/// imported volumes.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # A virtual machine from a container disk, started at once:
  virtctl create vm --name=myvm --memory=1Gi --volume-containerdisk=src:quay.io/containerdisks/debian:13 | kubectl apply -f -

  # With a user, a key, and a disk of its own:
  virtctl create vm --volume-pvc=src:mydisk --user=jdoe --ssh-key=\"$(cat ~/.ssh/id_ed25519.pub)\"

  # With an instance type, a preference, and an imported disk:
  virtctl create vm --instancetype=u1.small --preference=debian --volume-import=type:http,url:http://example.org/a.qcow2,size:10Gi

  # With keys from a secret, given to user jdoe by the guest agent:
  virtctl create vm --volume-pvc=src:mydisk --access-cred=type:ssh,src:mykeys,user:jdoe")]
pub(crate) struct CreateVm {
    /// Name of the virtual machine [default: a random one]
    #[arg(long, value_parser = argument::name)]
    name: Option<String>,
    /// When it runs
    #[arg(
        long,
        value_name = "STRATEGY",
        value_enum,
        ignore_case = true,
        default_value = "Always"
    )]
    run_strategy: RunStrategy,
    /// Seconds for its guest to shut down
    #[arg(long, value_name = "SECONDS", default_value_t = 180)]
    termination_grace_period: u64,
    #[command(flatten)]
    size: SizeFlags,
    #[command(flatten)]
    volumes: VolumeFlags,
    #[command(flatten)]
    guest: GuestFlags,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RunStrategy {
    #[value(name = "Always")]
    Always,
    #[value(name = "Manual")]
    Manual,
    #[value(name = "Halted")]
    Halted,
    #[value(name = "Once")]
    Once,
    #[value(name = "RerunOnFailure")]
    RerunOnFailure,
}

/// How large the machine is.
#[derive(Debug, Args)]
#[command(next_help_heading = "Size")]
struct SizeFlags {
    /// Memory [default: 512Mi]
    #[arg(long, conflicts_with_all = ["instancetype", "infer_instancetype", "infer_instancetype_from"])]
    memory: Option<Quantity>,
    /// Number of processor cores [default: 1]
    #[arg(long, value_name = "CORES", value_parser = clap::value_parser!(u32).range(1..), conflicts_with_all = ["instancetype", "infer_instancetype", "infer_instancetype_from"])]
    cpu: Option<u32>,
    /// Instance type, NAME or KIND/NAME
    #[arg(long, value_name = "TYPE", conflicts_with_all = ["infer_instancetype", "infer_instancetype_from"])]
    instancetype: Option<String>,
    /// Take the instance type from the volume that boots first
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", conflicts_with = "infer_instancetype_from")]
    infer_instancetype: Option<bool>,
    /// Take the instance type from a volume
    #[arg(long, value_name = "VOLUME")]
    infer_instancetype_from: Option<String>,
    /// Preference, NAME or KIND/NAME
    #[arg(long, conflicts_with_all = ["infer_preference", "infer_preference_from"])]
    preference: Option<String>,
    /// Take the preference from the volume that boots first
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", conflicts_with = "infer_preference_from")]
    infer_preference: Option<bool>,
    /// Take the preference from a volume
    #[arg(long, value_name = "VOLUME")]
    infer_preference_from: Option<String>,
}

/// What the machine's disks hold.
#[derive(Debug, Args)]
#[command(next_help_heading = "Volumes (each flag may be repeated)")]
struct VolumeFlags {
    /// Image inside a container image: src:IMAGE[,name:NAME][,bootorder:N]
    #[arg(long, value_name = "PARAMS")]
    volume_containerdisk: Vec<String>,
    /// Claim: src:CLAIM[,name:NAME][,bootorder:N]
    #[arg(long, value_name = "PARAMS")]
    volume_pvc: Vec<String>,
    /// Data volume: type:TYPE,size:SIZE[,name:NAME][,bootorder:N] with
    /// blank; ds, pvc or snapshot,src:[NAMESPACE/]NAME; http, gcs, s3, imageio, vddk or registry,url:URL and more
    #[arg(long, value_name = "PARAMS")]
    volume_import: Vec<String>,
    /// Windows answer files: src:NAME[,type:configmap|secret]
    #[arg(long, value_name = "PARAMS")]
    volume_sysprep: Option<String>,
    /// Use --volume-import=type:ds
    #[arg(long, hide = true)]
    volume_datasource: Vec<String>,
    /// Use --volume-import=type:pvc
    #[arg(long, hide = true)]
    volume_clone_pvc: Vec<String>,
    /// Use --volume-import=type:blank
    #[arg(long, hide = true)]
    volume_blank: Vec<String>,
}

/// What the guest is told.
#[derive(Debug, Args)]
#[command(next_help_heading = "Guest")]
struct GuestFlags {
    /// User that cloud-init makes
    #[arg(long, conflicts_with = "cloud_init_user_data")]
    user: Option<String>,
    /// File with the user's password, which the manifest then has in clear
    #[arg(long, value_name = "FILE", conflicts_with = "cloud_init_user_data")]
    password_file: Option<PathBuf>,
    /// Public key that may log in; may be repeated
    #[arg(
        long,
        value_name = "KEY",
        value_delimiter = ',',
        conflicts_with = "cloud_init_user_data"
    )]
    ssh_key: Vec<String>,
    /// Let SELinux allow the guest agent to write keys
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", conflicts_with = "cloud_init_user_data")]
    ga_manage_ssh: Option<bool>,
    /// Keys or passwords in a secret: src:SECRET[,type:ssh|password][,method:ga|nocloud|configdrive][,user:USER]; may be repeated
    #[arg(long, value_name = "PARAMS")]
    access_cred: Vec<String>,
    /// How cloud-init gets its data [default: nocloud]
    #[arg(long, value_name = "SOURCE", value_enum, ignore_case = true)]
    cloud_init: Option<DataSource>,
    /// User data of cloud-init, in base64
    #[arg(long, value_name = "BASE64")]
    cloud_init_user_data: Option<String>,
    /// Network data of cloud-init, in base64
    #[arg(long, value_name = "BASE64")]
    cloud_init_network_data: Option<String>,
}

/// A machine that is being put together.
#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    pub(super) vm: VirtualMachine,
}

impl Draft {
    /// Adds a volume.
    ///
    /// # Errors
    ///
    /// Fails when there is one of that name.
    pub(super) fn add(&mut self, volume: Volume) -> Result<(), String> {
        let volumes = &mut self.vm.spec.template.spec.volumes;
        if volumes.iter().any(|other| other.name == volume.name) {
            return Err(format!(
                "there is already a volume with name {:?}",
                volume.name
            ));
        }
        volumes.push(volume);
        Ok(())
    }
}

/// What a manifest is made of beside flags.
struct Material {
    namespace: Option<String>,
    password: Option<String>,
    /// Makes up the end of a name.
    suffix: fn() -> String,
}

impl CreateVm {
    /// Prints the manifest.
    pub(super) fn run(&self, session: &Session) -> Result<(), Failure> {
        let material = Material {
            namespace: session.connection.namespace.clone(),
            password: self.password()?,
            suffix,
        };
        for warning in self.warnings() {
            report::problem(&warning);
        }
        let vm = self.machine(&material).map_err(Failure::Argument)?;
        report::text(&yaml::text(&object(&vm))?)
    }

    fn password(&self) -> Result<Option<String>, Failure> {
        let Some(path) = &self.guest.password_file else {
            return Ok(None);
        };
        let text = local_file::read_text(path)?;
        let password = text.trim();
        Ok((!password.is_empty()).then(|| password.to_owned()))
    }

    fn warnings(&self) -> Vec<String> {
        let volumes = &self.volumes;
        let deprecated = [
            ("volume-datasource", "ds", volumes.volume_datasource.len()),
            ("volume-clone-pvc", "pvc", volumes.volume_clone_pvc.len()),
            ("volume-blank", "blank", volumes.volume_blank.len()),
        ];
        let deprecated = deprecated.into_iter().filter(|(_, _, count)| *count > 0);
        let mut warnings: Vec<String> = deprecated
            .map(|(flag, kind, _)| {
                format!(
                    "Flag --{flag} has been deprecated, use --volume-import=type:{kind} instead"
                )
            })
            .collect();
        if self.guest.password_file.is_some() {
            let text = "WARNING: --password-file: The password is stored in cleartext in the VM definition!";
            warnings.push(text.to_owned());
        }
        if self.guest.cloud_init == Some(DataSource::Off) && self.guest.says_something() {
            let text = "WARNING: --cloud-init: was set to none, not creating a data source although other cloud-init options were set";
            warnings.push(text.to_owned());
        }
        warnings
    }

    /// Puts the machine together.
    fn machine(&self, material: &Material) -> Result<VirtualMachine, String> {
        let mut draft = Draft::default();
        self.describe(&mut draft.vm, material);
        self.size.apply(&mut draft.vm)?;
        self.volumes.add(&mut draft, material)?;
        self.guest.apply(&mut draft, material)?;
        self.size.infer(&mut draft.vm)?;
        Ok(draft.vm)
    }

    fn describe(&self, vm: &mut VirtualMachine, material: &Material) {
        API_VERSION.clone_into(&mut vm.api_version);
        VM_KIND.clone_into(&mut vm.kind);
        vm.metadata.name = match &self.name {
            Some(name) => name.clone(),
            None => format!("vm-{}", (material.suffix)()),
        };
        vm.metadata.namespace = material.namespace.clone().unwrap_or_default();
        let strategy = self.run_strategy.to_possible_value();
        vm.spec.run_strategy = strategy.map(|strategy| strategy.get_name().to_owned());
        vm.spec.template.spec.termination_grace_period_seconds =
            Some(self.termination_grace_period);
    }
}

impl SizeFlags {
    fn apply(&self, vm: &mut VirtualMachine) -> Result<(), String> {
        vm.spec.instancetype = matcher(
            "instancetype",
            self.instancetype.as_deref(),
            [
                "virtualmachineinstancetype",
                "virtualmachineclusterinstancetype",
            ],
        )?;
        vm.spec.preference = matcher(
            "preference",
            self.preference.as_deref(),
            [
                "virtualmachinepreference",
                "virtualmachineclusterpreference",
            ],
        )?;
        let domain = &mut vm.spec.template.spec.domain;
        domain.cpu = self.cpu.map(|cores| Cpu {
            cores: Some(cores),
            ..Cpu::default()
        });
        if self.instancetype.is_none() {
            let memory = self.memory.clone().or_else(|| MEMORY.parse().ok());
            domain.memory = Some(Memory {
                guest: memory,
                ..Memory::default()
            });
        }
        Ok(())
    }

    /// Takes from volumes what is not given.
    fn infer(&self, vm: &mut VirtualMachine) -> Result<(), String> {
        let is_sized = self.memory.is_some() || self.cpu.is_some() || self.instancetype.is_some();
        if !is_sized && self.infer_instancetype != Some(false) {
            let is_explicit =
                self.infer_instancetype.is_some() || self.infer_instancetype_from.is_some();
            let wish = Wish {
                from: self.infer_instancetype_from.as_deref(),
                is_explicit,
            };
            vm.spec.instancetype = inference::matcher(vm, wish)?;
            if is_explicit {
                vm.spec.template.spec.domain.memory = None;
            }
        }
        if self.preference.is_none() && self.infer_preference != Some(false) {
            let wish = Wish {
                from: self.infer_preference_from.as_deref(),
                is_explicit: self.infer_preference.is_some()
                    || self.infer_preference_from.is_some(),
            };
            vm.spec.preference = inference::matcher(vm, wish)?;
        }
        Ok(())
    }
}

/// Reads `NAME` or `KIND/NAME`.
fn matcher(
    flag: &str,
    text: Option<&str>,
    kinds: [&str; 2],
) -> Result<Option<InstancetypeMatcher>, String> {
    let Some(text) = text else {
        return Ok(None);
    };
    let (kind, name) = prefixed(text).map_err(|error| wrong(flag, &error))?;
    let kind = kind.unwrap_or_default().to_ascii_lowercase();
    if !kind.is_empty() && !kinds.contains(&kind.as_str()) {
        let why = format!(
            "invalid {flag} kind {kind:?}, supported values are: {}",
            kinds.join(", ")
        );
        return Err(wrong(flag, &why));
    }
    Ok(Some(InstancetypeMatcher {
        name: name.to_owned(),
        kind,
        ..InstancetypeMatcher::default()
    }))
}

impl VolumeFlags {
    fn add(&self, draft: &mut Draft, material: &Material) -> Result<(), String> {
        for (index, text) in self.volume_containerdisk.iter().enumerate() {
            volumes::container_disk(draft, text, index)?;
        }
        for text in &self.volume_pvc {
            volumes::claim(draft, text)?;
        }
        let of_kind = |kind: &'static str, texts: &[String]| {
            let with_kind = |text: &String| format!("type:{kind},{text}");
            texts.iter().map(with_kind).collect::<Vec<String>>()
        };
        let mut imports = of_kind("ds", &self.volume_datasource);
        imports.extend(of_kind("pvc", &self.volume_clone_pvc));
        imports.extend(of_kind("blank", &self.volume_blank));
        imports.extend(self.volume_import.iter().cloned());
        for text in &imports {
            let spare_name = format!("imported-volume-{}", (material.suffix)());
            volumes::import(draft, text, spare_name)?;
        }
        match &self.volume_sysprep {
            Some(text) => volumes::sysprep(draft, text),
            None => Ok(()),
        }
    }
}

impl GuestFlags {
    /// Whether cloud-init would have something to do.
    fn says_something(&self) -> bool {
        self.password_file.is_some()
            || !self.ssh_key.is_empty()
            || self.ga_manage_ssh.is_some()
            || self.cloud_init_user_data.is_some()
            || self.cloud_init_network_data.is_some()
    }

    fn apply(&self, draft: &mut Draft, material: &Material) -> Result<(), String> {
        let mut data_source = self.cloud_init;
        let mut agent_manages_ssh = self.ga_manage_ssh;
        for text in &self.access_cred {
            let credential = guest::credential(text, self.user.as_deref())?;
            if let Some(needed) = credential.data_source {
                match data_source {
                    Some(given) if given != needed => {
                        let why = "method param and value passed to --cloud-init have to match";
                        return Err(wrong("access-cred", why));
                    }
                    _ => data_source = Some(needed),
                }
            }
            if credential.needs_agent_for_ssh {
                agent_manages_ssh = agent_manages_ssh.or(Some(true));
            }
            let spec = &mut draft.vm.spec.template.spec;
            spec.access_credentials.push(credential.credential);
        }
        let user_data = UserData {
            user: self.user.clone(),
            password: material.password.clone(),
            ssh_keys: self.ssh_key.clone(),
            agent_manages_ssh: agent_manages_ssh.unwrap_or(false),
        };
        self.add_cloud_init(draft, data_source, &user_data)
    }

    fn add_cloud_init(
        &self,
        draft: &mut Draft,
        data_source: Option<DataSource>,
        user_data: &UserData,
    ) -> Result<(), String> {
        let user_data_base64 = self.cloud_init_user_data.as_deref();
        let network_data_base64 = self.cloud_init_network_data.as_deref();
        let is_empty =
            user_data.is_empty() && user_data_base64.is_none() && network_data_base64.is_none();
        if data_source == Some(DataSource::Off) || (data_source.is_none() && is_empty) {
            return Ok(());
        }
        let data_source = data_source.unwrap_or(DataSource::NoCloud);
        let volume = guest::volume(
            data_source,
            user_data,
            user_data_base64,
            network_data_base64,
        );
        draft.add(volume)
    }
}

/// Returns a machine as it is written: what is not set is left out, except an empty template.
fn object(vm: &VirtualMachine) -> Value {
    let mut object = json!(vm);
    for path in [
        "/spec/template/spec/domain",
        "/spec/template/spec/domain/devices",
    ] {
        let (parent, field) = path.rsplit_once('/').expect("the paths have slashes");
        if let Some(parent) = object.pointer_mut(parent)
            && parent[field].is_null()
        {
            parent[field] = json!({});
        }
    }
    object
}

/// Makes up the end of a name.
pub(super) fn suffix() -> String {
    let mut random = [0; SUFFIX_LEN];
    // Without randomness, names are not unique, which the API server tells.
    let _predictable = getrandom::fill(&mut random);
    let letter = |byte: &u8| char::from(LETTERS[usize::from(*byte) % LETTERS.len()]);
    random.iter().map(letter).collect()
}

#[cfg(test)]
mod tests;
