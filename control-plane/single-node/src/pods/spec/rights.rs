//! Who runs a container and what that may do: the security contexts of pod and container.

use k8s_openapi::api::core::v1::{Container, PodSpec};
use rustix::thread::CapabilitySet;

use super::{SpecError, is_built_in};
use crate::sandbox::image::Image;
use crate::sandbox::spec::UserSpec;

/// Rights of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rights {
    pub(super) user: UserSpec,
    pub(super) capabilities: u64,
    pub(super) ambient_capabilities: u64,
    pub(super) no_new_privileges: bool,
    pub(super) is_privileged: bool,
    pub(super) is_root_read_only: bool,
}

/// Capabilities that container runtimes give to all.
const USUAL: [CapabilitySet; 14] = [
    CapabilitySet::CHOWN,
    CapabilitySet::DAC_OVERRIDE,
    CapabilitySet::FSETID,
    CapabilitySet::FOWNER,
    CapabilitySet::MKNOD,
    CapabilitySet::NET_RAW,
    CapabilitySet::SETGID,
    CapabilitySet::SETUID,
    CapabilitySet::SETFCAP,
    CapabilitySet::SETPCAP,
    CapabilitySet::NET_BIND_SERVICE,
    CapabilitySet::SYS_CHROOT,
    CapabilitySet::KILL,
    CapabilitySet::AUDIT_WRITE,
];

/// All capabilities that the kernel may have.
const ALL: u64 = (1 << 41) - 1;

/// Decides on the rights of a container.
pub(super) fn rights(
    spec: &PodSpec,
    container: &Container,
    image: &Image,
) -> Result<Rights, SpecError> {
    let own = container.security_context.clone().unwrap_or_default();
    let pod = spec.security_context.clone().unwrap_or_default();
    let is_privileged = own.privileged == Some(true);
    let (capabilities, added) = capabilities(container, is_privileged)?;
    let number = |field: &str, value: Option<i64>| match value.map(u32::try_from) {
        None => Ok(None),
        Some(Ok(number)) => Ok(Some(number)),
        Some(Err(_)) => Err(SpecError::Invalid(format!(
            "securityContext.{field} is out of range"
        ))),
    };
    let mut groups = Vec::new();
    for group in pod
        .supplemental_groups
        .iter()
        .flatten()
        .copied()
        .chain(pod.fs_group)
    {
        groups.extend(number("supplementalGroups", Some(group))?);
    }
    groups.sort_unstable();
    groups.dedup();
    let user = UserSpec {
        name: image.user.clone(),
        uid: number("runAsUser", own.run_as_user.or(pod.run_as_user))?,
        gid: number("runAsGroup", own.run_as_group.or(pod.run_as_group))?,
        groups,
        must_not_be_root: own.run_as_non_root.or(pod.run_as_non_root) == Some(true),
    };
    Ok(Rights {
        user,
        capabilities,
        // Programs of other images get theirs from their files; the host's programs have none there.
        ambient_capabilities: if is_built_in(image) {
            added & capabilities
        } else {
            0
        },
        no_new_privileges: own.allow_privilege_escalation == Some(false) && !is_privileged,
        is_privileged,
        is_root_read_only: own.read_only_root_filesystem == Some(true),
    })
}

/// Returns all capabilities of a container, and those among them that it asked for.
fn capabilities(container: &Container, is_privileged: bool) -> Result<(u64, u64), SpecError> {
    if is_privileged {
        return Ok((ALL, ALL));
    }
    let wanted = container
        .security_context
        .as_ref()
        .and_then(|context| context.capabilities.clone())
        .unwrap_or_default();
    let usual = USUAL.iter().fold(0, |all, one| all | one.bits());
    let dropped = masks(wanted.drop.as_deref().unwrap_or_default())?;
    let added = masks(wanted.add.as_deref().unwrap_or_default())?;
    Ok(((usual & !dropped) | added, added))
}

fn masks(names: &[String]) -> Result<u64, SpecError> {
    names
        .iter()
        .map(|name| mask(name))
        .try_fold(0, |all, one| Ok(all | one?))
}

fn mask(name: &str) -> Result<u64, SpecError> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if short == "ALL" {
        return Ok(ALL);
    }
    let found = CapabilitySet::from_name(short).filter(|found| found.bits().count_ones() == 1);
    found.map(|found| found.bits()).ok_or_else(|| {
        SpecError::Invalid(format!(
            "securityContext.capabilities: {name:?} is no capability"
        ))
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Capabilities, Container, PodSpec, SecurityContext};

    use super::{ALL, rights};
    use crate::sandbox::image::{Image, ImageRoot};

    fn image() -> Image {
        Image {
            root: ImageRoot::Host("/programs".into()),
            digest: String::new(),
            entrypoint: Vec::new(),
            cmd: Vec::new(),
            env: Vec::new(),
            user: "nobody".to_owned(),
            workdir: String::new(),
        }
    }

    fn container(context: SecurityContext) -> Container {
        Container {
            security_context: Some(context),
            ..Container::default()
        }
    }

    #[test]
    fn a_launcher_keeps_the_one_capability_that_it_asks_for() {
        let texts = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
        let context = SecurityContext {
            run_as_user: Some(107),
            run_as_non_root: Some(true),
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities {
                add: texts(&["NET_BIND_SERVICE"]),
                drop: texts(&["ALL"]),
            }),
            ..SecurityContext::default()
        };
        let found = rights(&PodSpec::default(), &container(context), &image()).unwrap();
        assert_eq!(
            (found.capabilities, found.ambient_capabilities),
            (1 << 10, 1 << 10)
        );
        assert_eq!(found.user.uid, Some(107));
        assert!(found.no_new_privileges && found.user.must_not_be_root);
    }

    #[test]
    fn what_is_no_capability_is_named() {
        let add = Some(vec!["CAP_FLY".to_owned()]);
        let context = SecurityContext {
            capabilities: Some(Capabilities { add, drop: None }),
            ..SecurityContext::default()
        };
        let error = rights(&PodSpec::default(), &container(context), &image()).unwrap_err();
        assert!(error.to_string().contains("CAP_FLY"), "{error}");
    }

    #[test]
    fn privileged_containers_have_all() {
        let context = SecurityContext {
            privileged: Some(true),
            ..SecurityContext::default()
        };
        let found = rights(&PodSpec::default(), &container(context), &image()).unwrap();
        assert_eq!(found.capabilities, ALL);
        assert!(found.is_privileged && !found.no_new_privileges);
    }
}
