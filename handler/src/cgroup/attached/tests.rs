//! Tests of programs in the kernel, with control groups that are made for it. Devices have numbers that no driver has: who
//! may open them is told that there is none.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

use super::super::bpf::tests::{attach_one_of_many, attach_only};
use super::super::rules::DeviceKind;
use super::super::{allow_devices, rules};
use super::*;
use crate::config::HostPaths;
use crate::key::VmiKey;
use crate::launchers::Launcher;

/// Reads lines with `r` or `w` and a path, and says what comes of opening that.
const MEMBER: &str = r#"
echo $$ > "$1/cgroup.procs" || exit 1
while read -r access device; do
    case $access in
        r) message=$( (: < "$device") 2>&1 ) ;;
        w) message=$( (: > "$device") 2>&1 ) ;;
    esac
    echo "$message"
done
"#;

/// A device of a driver (that of `/dev/null`) which does not know it.
fn device(minor: u32) -> DeviceNode {
    DeviceNode {
        kind: DeviceKind::Character,
        major: 1,
        minor,
    }
}

/// Decides like a container runtime's: true for those minors of `/dev/null`'s driver and for making nodes.
fn of_a_runtime(minors: &[u32]) -> Vec<Instruction> {
    let allow = |minor: &u32| DeviceRule::allow(device(*minor));
    let mut rules: Vec<_> = minors.iter().map(allow).collect();
    rules.extend(
        runtime_rules()
            .into_iter()
            .filter(|rule| rule.access == "m"),
    );
    rules.push(DeviceRule::allow(device(3)));
    whole(&rules)
}

/// Calls the kernel (for its user's number), and denies everything but `/dev/null`.
fn opaque() -> Vec<Instruction> {
    let call = Instruction::new(0x85, 0, 0, 0, 15);
    // Register 6 keeps the request's address over the call.
    let mut program = vec![Instruction::new(0xbf, 6, 1, 0, 0), call];
    program.push(Instruction::new(0xbf, 1, 6, 0, 0));
    program.extend(whole(&[DeviceRule::allow(device(3))]));
    program
}

/// Loads a program, unless this process may not.
fn load(program: &[Instruction]) -> Option<OwnedFd> {
    match bpf::load(program) {
        Err(error) if error.to_string().contains("CAP_SYS_ADMIN") => {
            println!("skipped: {error}");
            None
        }
        loaded => Some(loaded.unwrap()),
    }
}

/// A mounted hierarchy of version 2 and what a launcher is to the handler.
struct Node {
    folder: TempDir,
    paths: HostPaths,
}

impl Node {
    fn new() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let of = |name: &str| folder.path().join(name);
        let paths = HostPaths {
            cgroup_dir: of("cgroup"),
            proc_dir: of("proc"),
            ..HostPaths::default()
        };
        fs::create_dir(&paths.cgroup_dir).unwrap();
        fs::create_dir_all(of("proc/7/root/dev/folder")).unwrap();
        let mounted = mount(
            "none",
            &paths.cgroup_dir,
            "cgroup2",
            MountFlags::empty(),
            None,
        );
        if let Err(error) = mounted {
            println!("skipped: control groups of version 2 cannot be mounted: {error}");
            return None;
        }
        Some(Self { folder, paths })
    }

    /// Puts a device into a folder.
    fn make(&self, folder: &str, minor: u32) -> PathBuf {
        let path = self.folder.path().join(folder).join(minor.to_string());
        let kind = FileType::CharacterDevice;
        mknodat(CWD, &path, kind, Mode::RWXU, makedev(1, minor)).unwrap();
        path
    }

    fn group(&self, above: Option<&Group>) -> Option<Group> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("handler-test-{}-{number}", std::process::id());
        let above = above.map_or(&self.paths.cgroup_dir, |above| &above.folder);
        let folder = above.join(name);
        if let Err(error) = fs::create_dir(&folder) {
            println!("skipped: no control group of version 2 can be made: {error}");
            return None;
        }
        Some(Group { folder })
    }

    /// Allows devices to the launcher whose group this is.
    fn allow(&self, group: &Group, minors: &[u32]) -> Result<(), CgroupError> {
        let devices: Vec<_> = minors.iter().map(|minor| device(*minor)).collect();
        self.apply(group, &rules(&devices))
    }

    fn apply(&self, group: &Group, rules: &[DeviceRule]) -> Result<(), CgroupError> {
        let path = group.folder.strip_prefix(&self.paths.cgroup_dir).unwrap();
        let path = format!("0::/{}\n", path.display());
        fs::write(self.paths.proc_dir.join("7/cgroup"), path).unwrap();
        let launcher = Launcher::at(&self.paths, VmiKey::new("default", "vm"), "u", "p", 7);
        allow_devices(&self.paths, &launcher, rules)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        unmount(&self.paths.cgroup_dir, UnmountFlags::DETACH).ok();
    }
}

struct Group {
    folder: PathBuf,
}

impl Group {
    /// Attaches a program, unless that is not possible here.
    #[must_use]
    fn attach(&self, program: &[Instruction]) -> Option<()> {
        attach_one_of_many(&self.open(), &load(program)?).unwrap();
        Some(())
    }

    fn open(&self) -> File {
        File::open(&self.folder).unwrap()
    }

    fn ids(&self) -> Vec<u32> {
        bpf::attached(self.open().as_fd(), false).unwrap().ids
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        fs::remove_dir(&self.folder).ok();
    }
}

/// A process in a group.
struct Member {
    process: Child,
    answers: BufReader<ChildStdout>,
}

impl Member {
    fn of(group: &Group) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", MEMBER, "sh"]).arg(&group.folder);
        shell
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = shell.spawn().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap());
        Self { process, answers }
    }

    fn may(&mut self, access: char, device: &Path) -> bool {
        let mut asked = self.process.stdin.as_ref().unwrap();
        writeln!(asked, "{access} {}", device.display()).unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        let answers = ["No such device or address", "Operation not permitted"];
        let known = answers.iter().position(|it| answer.contains(it));
        known.unwrap_or_else(|| panic!("{answer}")) == 0
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Devices 200, 201 and so on, and a member of the group that is asked for all of them.
fn check(node: &Node, member: &mut Member, expected: [bool; 3]) {
    let path = |minor: u32| node.folder.path().join(minor.to_string());
    let may = [200, 201, 202].map(|minor| {
        if !path(minor).exists() {
            node.make("", minor);
        }
        member.may('r', &path(minor))
    });
    assert_eq!(may, expected);
}

/// Runs a test, which ends early where it cannot run.
fn on_a_node(test: impl FnOnce(&Node) -> Option<()>) {
    if let Some(node) = Node::new() {
        test(&node);
    }
}

#[test]
fn devices_are_allowed_beside_what_the_runtime_allows() {
    on_a_node(|node| {
        let group = node.group(None)?;
        group.attach(&of_a_runtime(&[200]))?;
        let mut member = Member::of(&group);
        check(node, &mut member, [true, false, false]);
        node.allow(&group, &[201]).unwrap();
        check(node, &mut member, [true, true, false]);
        let ids = group.ids();
        assert_eq!(ids.len(), 1);
        node.allow(&group, &[201]).unwrap();
        assert_eq!(group.ids(), ids, "nothing changed");
        node.allow(&group, &[202]).unwrap();
        check(node, &mut member, [true, false, true]);
        assert_eq!(group.ids().len(), 1);
        Some(())
    });
}

#[test]
fn every_one_of_several_programs_is_extended() {
    on_a_node(|node| {
        let group = node.group(None)?;
        group.attach(&of_a_runtime(&[200]))?;
        group.attach(&of_a_runtime(&[200, 201]))?;
        let mut member = Member::of(&group);
        check(node, &mut member, [true, false, false]);
        node.allow(&group, &[202]).unwrap();
        check(node, &mut member, [true, false, true]);
        assert_eq!(group.ids().len(), 2);
        Some(())
    });
}

#[test]
fn the_only_program_that_a_group_may_have_is_extended() {
    on_a_node(|node| {
        let group = node.group(None)?;
        attach_only(&group.open(), &load(&of_a_runtime(&[200]))?).unwrap();
        node.allow(&group, &[202]).unwrap();
        check(node, &mut Member::of(&group), [true, false, true]);
        assert_eq!(group.ids().len(), 1);
        Some(())
    });
}

#[test]
fn a_program_that_cannot_be_extended_is_replaced_by_a_whole_list() {
    on_a_node(|node| {
        let group = node.group(None)?;
        node.make("proc/7/root/dev/folder", 200);
        group.attach(&opaque())?;
        let mut member = Member::of(&group);
        check(node, &mut member, [false, false, false]);
        node.allow(&group, &[201]).unwrap();
        check(node, &mut member, [true, true, false]);
        assert_eq!(group.ids().len(), 1);
        node.allow(&group, &[202]).unwrap();
        check(node, &mut member, [true, true, true]);
        Some(())
    });
}

#[test]
fn one_of_several_programs_that_cannot_be_extended_is_an_error_that_changes_nothing() {
    on_a_node(|node| {
        let group = node.group(None)?;
        group.attach(&of_a_runtime(&[200]))?;
        group.attach(&opaque())?;
        let ids = group.ids();
        let error = node.allow(&group, &[201]).unwrap_err();
        assert!(
            matches!(error, CgroupError::Opaque { count: 2, .. }),
            "{error}"
        );
        assert_eq!(group.ids(), ids);
        Some(())
    });
}

#[test]
fn what_a_group_above_denies_is_an_error() {
    on_a_node(|node| {
        let above = node.group(None)?;
        above.attach(&of_a_runtime(&[200, 202]))?;
        let group = node.group(Some(&above))?;
        group.attach(&of_a_runtime(&[200]))?;
        let error = node.allow(&group, &[201]).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("\"c 1:201 rwm\"") && text.contains("above"),
            "{text}"
        );
        node.allow(&group, &[202]).unwrap();
        check(node, &mut Member::of(&group), [true, false, true]);
        assert_eq!((above.ids().len(), group.ids().len()), (1, 1));
        Some(())
    });
}

#[test]
fn rules_are_about_some_accesses_and_may_deny_what_the_runtime_allows() {
    on_a_node(|node| {
        let group = node.group(None)?;
        group.attach(&of_a_runtime(&[200]))?;
        let readable = DeviceRule {
            access: "r",
            ..DeviceRule::allow(device(201))
        };
        let denied = DeviceRule {
            access: "w",
            is_allowed: false,
            ..DeviceRule::allow(device(200))
        };
        let mut member = Member::of(&group);
        check(node, &mut member, [true, false, false]);
        assert!(member.may('w', &node.folder.path().join("200")));
        node.apply(&group, &[readable, denied]).unwrap();
        check(node, &mut member, [true, true, false]);
        for minor in ["200", "201", "202"] {
            let path = node.folder.path().join(minor);
            assert!(!member.may('w', &path), "{minor}");
        }
        Some(())
    });
}

#[test]
fn a_program_that_is_attached_above_as_well_denies_there() {
    on_a_node(|node| {
        let (above, program) = (node.group(None)?, load(&of_a_runtime(&[200]))?);
        let group = node.group(Some(&above))?;
        attach_one_of_many(&above.open(), &program).unwrap();
        attach_one_of_many(&group.open(), &program).unwrap();
        let error = node.allow(&group, &[201]).unwrap_err();
        assert!(matches!(error, CgroupError::Above { .. }), "{error}");
        Some(())
    });
}

#[test]
fn a_group_without_programs_stays_so() {
    on_a_node(|node| {
        let group = node.group(None)?;
        node.allow(&group, &[200]).unwrap();
        check(node, &mut Member::of(&group), [true, true, true]);
        assert_eq!(group.ids(), [] as [u32; 0]);
        Some(())
    });
}

#[test]
fn a_folder_that_is_no_group_is_an_error_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let error = allow(folder.path(), folder.path(), &[]).unwrap_err();
    assert!(matches!(error, CgroupError::Programs { .. }), "{error}");
    let gone = folder.path().join("gone");
    let error = allow(&gone, folder.path(), &[]).unwrap_err();
    assert!(error.to_string().contains("/gone"), "{error}");
}

#[test]
fn thousands_of_devices_fit_into_a_program_and_its_length_is_bounded() {
    let rules: Vec<_> = (0..2000)
        .map(|minor| DeviceRule::allow(device(minor)))
        .collect();
    let program = of_a_runtime(&[200]);
    let plan = |rules: &[DeviceRule]| plan(&[&program], rules, &[]);
    let planned = plan(&rules).unwrap();
    let _loaded = load(&planned[0]);
    let many = rules.repeat(10);
    assert!(matches!(plan(&many), Err(Refusal::TooLong(_))));
}
