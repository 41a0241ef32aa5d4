//! Bodies of requests to the subresources of virtual machines and instances.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;

use crate::devices::Disk;
use crate::field::{FieldError, FieldPath};
use crate::object::object;
use crate::volumes::{DataVolumeSource, PersistentVolumeClaimSource};

/// The one value of `dryRun`.
pub const DRY_RUN_ALL: &str = "All";

/// A request of a subresource has a few fields; longer bodies are none.
pub const MAX_OPTIONS_LEN: usize = 64 << 10;

object! {
    /// How to start a virtual machine.
    pub struct StartOptions {
        /// Whether its processors stay stopped.
        pub paused: Option<bool>,
        /// `All` changes nothing.
        pub dry_run: Vec<String>,
    }

    /// How to stop a virtual machine.
    pub struct StopOptions {
        /// Seconds between the power button and the pulled plug.
        pub grace_period: Option<i64>,
        /// `All` changes nothing.
        pub dry_run: Vec<String>,
    }

    /// How to restart a virtual machine.
    pub struct RestartOptions {
        /// Seconds between the power button and the pulled plug; 0 is the only number allowed.
        pub grace_period_seconds: Option<i64>,
        /// `All` changes nothing.
        pub dry_run: Vec<String>,
    }

    /// How to move an instance.
    pub struct MigrateOptions {
        /// Labels that the new node must have beside those that the instance asks for.
        pub added_node_selector: BTreeMap<String, String>,
        /// `All` changes nothing.
        pub dry_run: Vec<String>,
    }

    /// How to stop an instance's processors.
    pub struct PauseOptions {
        /// `All` changes nothing.
        pub dry_run: Vec<String>,
    }

    /// How to let an instance's processors go on.
    pub struct UnpauseOptions {
        /// `All` changes nothing.
        pub dry_run: Vec<String>,
    }

    /// A volume to plug.
    pub struct AddVolumeOptions {
        /// Name of the volume and of its disk.
        pub name: String,
        /// The disk.
        pub disk: Option<Disk>,
        /// The volume.
        pub volume_source: Option<HotplugVolumeSource>,
        /// `All` changes nothing.
        pub dry_run: Vec<String>,
    }

    /// Where the data of a plugged volume come from; one of the fields is set.
    pub struct HotplugVolumeSource {
        /// A claim.
        pub persistent_volume_claim: Option<PersistentVolumeClaimSource>,
        /// A claim that a data volume fills.
        pub data_volume: Option<DataVolumeSource>,
    }

    /// A volume to unplug.
    pub struct RemoveVolumeOptions {
        /// Name of the volume.
        pub name: String,
        /// `All` changes nothing.
        pub dry_run: Vec<String>,
    }

    /// How to let file systems stand still.
    pub struct FreezeUnfreezeTimeout {
        /// When they go on by themselves, `5m0s`.
        pub unfreeze_timeout: String,
    }

    /// How to give an evacuation up.
    pub struct EvacuateCancelOptions {
        /// Node that was to be left.
        pub evacuation_node_name: String,
        /// `All` changes nothing.
        pub dry_run: Vec<String>,
    }
}

/// A body whose `dryRun` says whether anything is to be changed.
pub trait Options: DeserializeOwned + Default {
    /// Returns the values of `dryRun`.
    fn dry_run(&self) -> &[String];
}

macro_rules! options {
    ($($name:ident),*) => { $(
        impl Options for $name {
            fn dry_run(&self) -> &[String] {
                &self.dry_run
            }
        }
    )* };
}
options!(
    StartOptions,
    StopOptions,
    RestartOptions,
    MigrateOptions,
    PauseOptions,
    UnpauseOptions,
    AddVolumeOptions,
    RemoveVolumeOptions,
    EvacuateCancelOptions
);

/// Reads a request's body; an empty one says nothing but defaults. `apiVersion`, `kind` and fields that
/// are not known are passed over, as upstream does.
///
/// # Errors
///
/// Fails when the body is too long, no JSON object, or holds something of the wrong type.
pub fn parse<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, FieldError> {
    let of_body = |message: String| FieldError::invalid(FieldPath::new("body"), message);
    if body.len() > MAX_OPTIONS_LEN {
        let text = format!(
            "{} bytes are too many: send at most {MAX_OPTIONS_LEN}",
            body.len()
        );
        return Err(of_body(text));
    }
    let body = body.trim_ascii();
    if body.is_empty() || body == b"null" {
        return Ok(T::default());
    }
    let json = &mut serde_json::Deserializer::from_slice(body);
    serde_path_to_error::deserialize(json).map_err(|error| {
        let path = error.path().to_string();
        let text = format!("{}: send a JSON object or nothing", error.inner());
        if path == "." {
            of_body(text)
        } else {
            FieldError::invalid(FieldPath::new(&path), text)
        }
    })
}

/// Reads a request's body together with whether it is a dry run.
///
/// # Errors
///
/// Fails as [`parse`] does, and on a `dryRun` other than `All`.
pub fn parse_with_dry_run<T: Options>(body: &[u8]) -> Result<(T, bool), FieldError> {
    let options: T = parse(body)?;
    match options
        .dry_run()
        .iter()
        .position(|value| value != DRY_RUN_ALL)
    {
        Some(index) => {
            let text = format!(
                "{:?} is not known: use {DRY_RUN_ALL} or leave dryRun out",
                options.dry_run()[index]
            );
            let path = FieldPath::new("dryRun").index(index);
            Err(FieldError::not_supported(path, text))
        }
        None => {
            let is_dry = !options.dry_run().is_empty();
            Ok((options, is_dry))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        AddVolumeOptions, FreezeUnfreezeTimeout, MAX_OPTIONS_LEN, MigrateOptions, RestartOptions,
        StartOptions, StopOptions, parse, parse_with_dry_run,
    };

    #[test]
    fn an_empty_body_means_the_defaults() {
        for body in ["", " \n", "null", "{}"] {
            assert_eq!(
                parse(body.as_bytes()),
                Ok(StartOptions::default()),
                "{body:?}"
            );
        }
    }

    #[test]
    fn bodies_of_virtctl_are_read() {
        let start = br#"{"kind":"StartOptions","apiVersion":"kubevirt.io/v1","paused":true,"dryRun":["All"]}"#;
        let (start, is_dry) = parse_with_dry_run::<StartOptions>(start).unwrap();
        assert!(is_dry && start.paused == Some(true));
        let stop = parse::<StopOptions>(br#"{"gracePeriod":0}"#).unwrap();
        assert_eq!(stop.grace_period, Some(0));
        let restart = parse::<RestartOptions>(br#"{"gracePeriodSeconds":0}"#).unwrap();
        assert_eq!(restart.grace_period_seconds, Some(0));
        let migrate = parse::<MigrateOptions>(br#"{"addedNodeSelector":{"zone":"a"}}"#).unwrap();
        assert_eq!(migrate.added_node_selector["zone"], "a");
        let freeze = parse::<FreezeUnfreezeTimeout>(br#"{"unfreezeTimeout":"5m0s"}"#).unwrap();
        assert_eq!(freeze.unfreeze_timeout, "5m0s");
        let add = br#"{"name":"v","disk":{"disk":{"bus":"scsi"}},"volumeSource":{"dataVolume":{"name":"d"}}}"#;
        let add = parse::<AddVolumeOptions>(add).unwrap();
        assert_eq!(add.volume_source.unwrap().data_volume.unwrap().name, "d");
    }

    #[test]
    fn wrong_bodies_are_refused_with_the_field() {
        let error = parse::<StopOptions>(br#"{"gracePeriod":"soon"}"#).unwrap_err();
        assert_eq!(error.path.as_str(), "gracePeriod");
        let error = parse::<StopOptions>(b"[1").unwrap_err();
        assert_eq!(error.path.as_str(), "body");
        let error = parse::<StopOptions>(&vec![b' '; MAX_OPTIONS_LEN + 1]).unwrap_err();
        assert!(error.message.contains("too many"));
        let error = parse_with_dry_run::<StopOptions>(br#"{"dryRun":["All","Some"]}"#).unwrap_err();
        assert_eq!(error.path.as_str(), "dryRun[1]");
    }
}
