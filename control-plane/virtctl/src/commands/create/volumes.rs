//! Volumes of a new machine, from flags.

use api::data_volume::{
    DataVolumeSpec, DataVolumeTemplate, ImportSource, ImportSourceObject, ImportSourceRef,
};
use api::devices::Disk;
use api::metadata::{LocalObjectReference, ObjectMeta};
use api::object::Presence;
use api::volumes::{
    ContainerDiskSource, DataVolumeSource, PersistentVolumeClaimSource, SysprepSource, Volume,
};
use serde_json::{Map, Value, json};

use super::parameters::Parameters;
use super::vm::Draft;

/// Name of the volume with answer files.
const SYSPREP_DISK: &str = "sysprepdisk";
/// Name of the volume with cloud-init's data.
pub(super) const CLOUD_INIT_DISK: &str = "cloudinitdisk";

/// Adds the volume of `--volume-containerdisk`, the `index`th of them.
pub(super) fn container_disk(draft: &mut Draft, text: &str, index: usize) -> Result<(), String> {
    let parameters = Parameters::parse("volume-containerdisk", text)?;
    parameters.check(&["name", "src", "bootorder"])?;
    let source = ContainerDiskSource {
        image: parameters.required("src")?.to_owned(),
        ..ContainerDiskSource::default()
    };
    let name = match parameters.get("name") {
        Some(name) => name.to_owned(),
        None => format!("{}-containerdisk-{index}", draft.vm.metadata.name),
    };
    let volume = Volume {
        name,
        container_disk: Some(source),
        ..Volume::default()
    };
    add(draft, &parameters, volume)
}

/// Adds the volume of `--volume-pvc`.
pub(super) fn claim(draft: &mut Draft, text: &str) -> Result<(), String> {
    let parameters = Parameters::parse("volume-pvc", text)?;
    parameters.check(&["name", "src", "bootorder"])?;
    let claim_name = parameters.local_source("pvc")?;
    let volume = Volume {
        name: parameters.get("name").unwrap_or(claim_name).to_owned(),
        persistent_volume_claim: Some(PersistentVolumeClaimSource {
            claim_name: claim_name.to_owned(),
            ..PersistentVolumeClaimSource::default()
        }),
        ..Volume::default()
    };
    add(draft, &parameters, volume)
}

/// Adds the volume of `--volume-sysprep`.
pub(super) fn sysprep(draft: &mut Draft, text: &str) -> Result<(), String> {
    let parameters = Parameters::parse("volume-sysprep", text)?;
    parameters.check(&["src", "type"])?;
    let reference = LocalObjectReference {
        name: parameters.local_source("configmap or secret")?.to_owned(),
    };
    let source = match parameters.get("type").unwrap_or("configmap") {
        kind if kind.eq_ignore_ascii_case("configmap") => SysprepSource {
            config_map: Some(reference),
            secret: None,
        },
        kind if kind.eq_ignore_ascii_case("secret") => SysprepSource {
            config_map: None,
            secret: Some(reference),
        },
        kind => {
            let why = format!(
                "invalid sysprep source type {kind:?}, supported values are: configmap, secret"
            );
            return Err(parameters.wrong(&why));
        }
    };
    let volume = Volume {
        name: SYSPREP_DISK.to_owned(),
        sysprep: Some(source),
        ..Volume::default()
    };
    add(draft, &parameters, volume)
}

/// Adds the volume of `--volume-import`, and the data volume that fills it. `spare_name` is used when it has none.
pub(super) fn import(draft: &mut Draft, text: &str, spare_name: String) -> Result<(), String> {
    let parameters = Parameters::parse("volume-import", text)?;
    let mut spec = match parameters.required("type")? {
        "ds" => of_data_source(&parameters)?,
        kind => DataVolumeSpec {
            source: Some(import_source(&parameters, kind)?),
            ..DataVolumeSpec::default()
        },
    };
    let size = parameters.size()?;
    let may_lack_size = matches!(parameters.required("type")?, "ds" | "pvc" | "snapshot");
    if size.is_none() && !may_lack_size {
        return Err(parameters.wrong("size must be specified"));
    }
    spec.storage = Some(match size {
        Some(size) => json!({"resources": {"requests": {"storage": size.as_str()}}}),
        None => json!({}),
    });
    let name = parameters.get("name").map_or(spare_name, ToOwned::to_owned);
    let template = DataVolumeTemplate {
        metadata: ObjectMeta {
            name: name.clone(),
            ..ObjectMeta::default()
        },
        spec,
        ..DataVolumeTemplate::default()
    };
    let volume = Volume {
        name: name.clone(),
        data_volume: Some(DataVolumeSource {
            name,
            ..DataVolumeSource::default()
        }),
        ..Volume::default()
    };
    add(draft, &parameters, volume)?;
    draft.vm.spec.data_volume_templates.push(template);
    Ok(())
}

fn of_data_source(parameters: &Parameters<'_>) -> Result<DataVolumeSpec, String> {
    parameters.check(&["type", "name", "src", "size", "bootorder"])?;
    let (namespace, name) = parameters.source()?;
    Ok(DataVolumeSpec {
        source_ref: Some(ImportSourceRef {
            kind: "DataSource".to_owned(),
            namespace: namespace.map(ToOwned::to_owned),
            name: name.to_owned(),
        }),
        ..DataVolumeSpec::default()
    })
}

/// Parameters of sources that are addresses: parameter, field, whether it must be there.
type Fields = &'static [(&'static str, &'static str, bool)];
const HTTP: Fields = &[
    ("url", "url", true),
    ("secretref", "secretRef", false),
    ("certconfigmap", "certConfigMap", false),
    ("extraheaders", "extraHeaders", false),
    ("secretextraheaders", "secretExtraHeaders", false),
];
const GCS: Fields = &[("url", "url", true), ("secretref", "secretRef", false)];
const S3: Fields = &[
    ("url", "url", true),
    ("secretref", "secretRef", false),
    ("certconfigmap", "certConfigMap", false),
];
const IMAGEIO: Fields = &[
    ("url", "url", true),
    ("diskid", "diskId", true),
    ("secretref", "secretRef", false),
    ("certconfigmap", "certConfigMap", false),
];
const REGISTRY: Fields = &[
    ("url", "url", false),
    ("imagestream", "imageStream", false),
    ("pullmethod", "pullMethod", false),
    ("secretref", "secretRef", false),
    ("certconfigmap", "certConfigMap", false),
];
const VDDK: Fields = &[
    ("url", "url", true),
    ("uuid", "uuid", true),
    ("thumbprint", "thumbprint", true),
    ("secretref", "secretRef", true),
    ("backingfile", "backingFile", true),
    ("initimageurl", "initImageURL", false),
];

fn import_source(parameters: &Parameters<'_>, kind: &str) -> Result<ImportSource, String> {
    let mut source = ImportSource::default();
    match kind {
        "blank" => {
            parameters.check(&["type", "name", "size", "bootorder"])?;
            source.blank = Some(Presence {});
        }
        "pvc" => source.pvc = Some(other_object(parameters, "pvc")?),
        "snapshot" => source.snapshot = Some(other_object(parameters, "snapshot")?),
        "http" => source.http = Some(address(parameters, HTTP)?),
        "gcs" => source.gcs = Some(address(parameters, GCS)?),
        "s3" => source.s3 = Some(address(parameters, S3)?),
        "imageio" => source.imageio = Some(address(parameters, IMAGEIO)?),
        "vddk" => source.vddk = Some(address(parameters, VDDK)?),
        "registry" => source.registry = Some(registry(parameters)?),
        _ => {
            let why = format!(
                "invalid volume import type {kind:?}: use blank, ds, gcs, http, imageio, pvc, registry, s3, snapshot or vddk"
            );
            return Err(parameters.wrong(&why));
        }
    }
    Ok(source)
}

fn registry(parameters: &Parameters<'_>) -> Result<Value, String> {
    if parameters.get("url").is_some() == parameters.get("imagestream").is_some() {
        return Err(parameters.wrong("exactly one of url or imagestream must be defined"));
    }
    if !matches!(parameters.get("pullmethod"), None | Some("pod" | "node")) {
        return Err(parameters.wrong("pullmethod must be set to pod or node"));
    }
    address(parameters, REGISTRY)
}

fn address(parameters: &Parameters<'_>, fields: Fields) -> Result<Value, String> {
    let mut known = vec!["type", "name", "size", "bootorder"];
    known.extend(fields.iter().map(|(parameter, ..)| *parameter));
    parameters.check(&known)?;
    let mut source = Map::new();
    for (parameter, field, is_required) in fields {
        if *is_required {
            parameters.required(parameter)?;
        }
        let Some(value) = parameters.get(parameter) else {
            continue;
        };
        let is_list = parameter.ends_with("headers");
        let value = if is_list {
            json!(value.split(';').collect::<Vec<_>>())
        } else {
            json!(value)
        };
        source.insert((*field).to_owned(), value);
    }
    Ok(source.into())
}

fn other_object(parameters: &Parameters<'_>, what: &str) -> Result<ImportSourceObject, String> {
    parameters.check(&["type", "name", "src", "size", "bootorder"])?;
    match parameters.source()? {
        (Some(namespace), name) => Ok(ImportSourceObject {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }),
        (None, name) => Err(parameters.wrong(&format!(
            "namespace of {what} {name:?} must be specified: src:NAMESPACE/{name}"
        ))),
    }
}

/// Adds a volume, and its disk where its place in the boot order is given.
fn add(draft: &mut Draft, parameters: &Parameters<'_>, volume: Volume) -> Result<(), String> {
    let name = volume.name.clone();
    crate::argument::namespace(&name).map_err(|_| {
        parameters.wrong(&format!(
            "invalid name {name:?}: use lower-case letters, digits and '-', at most 63"
        ))
    })?;
    let boot_order = parameters.parsed::<u32>("bootorder")?;
    draft
        .add(volume)
        .map_err(|error| parameters.wrong(&error))?;
    let Some(boot_order) = boot_order else {
        return Ok(());
    };
    if boot_order == 0 {
        return Err(parameters.wrong("bootorder must be greater than 0"));
    }
    let disks = &mut draft.vm.spec.template.spec.domain.devices.disks;
    if disks.iter().any(|disk| disk.boot_order == Some(boot_order)) {
        let why = format!("bootorder {boot_order} was specified multiple times");
        return Err(parameters.wrong(&why));
    }
    disks.push(Disk {
        name,
        boot_order: Some(boot_order),
        ..Disk::default()
    });
    Ok(())
}
