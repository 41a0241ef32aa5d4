//! Lifecycle requests and questions about the guest.

use handler::cluster::Event;

use crate::site::{Site, instance, key, machine, path};
use crate::stand_in::Script;

#[tokio::test]
async fn changes_reach_the_launcher() {
    let mut site = Site::new().await;
    let running = site.launch("vm", machine("vm", "Running")).await;
    let paused = site.launch("other", machine("other", "Paused")).await;
    for (name, action, body) in [
        ("vm", "freeze", r#"{"unfreezeTimeout": "5m0s"}"#),
        ("vm", "unfreeze", "{}"),
        ("vm", "pause", r#"{"dryRun": ["All"]}"#),
        ("vm", "pause", ""),
        ("vm", "reset", ""),
        ("other", "unpause", "{}"),
    ] {
        let answer = site.ask("PUT", &path(name, action), body).await;
        assert_eq!(
            (answer.code, answer.body.len()),
            (202, 0),
            "{action}: {answer:?}"
        );
    }
    let asked = [
        "freeze for 300",
        "unfreeze_virtual_machine",
        "pause_virtual_machine",
    ];
    assert_eq!(running.asked.lock().unwrap()[..3], asked);
    assert_eq!(
        running.asked.lock().unwrap()[3..],
        ["reset_virtual_machine"]
    );
    assert_eq!(*paused.asked.lock().unwrap(), ["unpause_virtual_machine"]);
}

#[tokio::test]
async fn changes_are_decided_by_what_the_launcher_says_now() {
    let mut site = Site::new().await;
    site.launch("vm", machine("vm", "Running")).await;
    for (action, code) in [
        ("pause", 202),
        ("pause", 409),
        ("unpause", 202),
        ("unpause", 409),
        ("softreboot", 202),
        ("pause", 202),
        ("softreboot", 409),
    ] {
        let answer = site.ask("PUT", &path("vm", action), "").await;
        assert_eq!(answer.code, code, "{action}: {answer:?}");
    }
}

#[tokio::test]
async fn a_soft_reboot_is_an_event_once_the_launcher_has_agreed() {
    let mut site = Site::new().await;
    site.launch("vm", machine("vm", "Running")).await;
    let unwilling = Script {
        refusal: Some("no ACPI".to_owned()),
        ..machine("other", "Running")
    };
    site.launch("other", unwilling).await;
    for (name, body, code) in [
        ("other", "", 500),
        ("vm", r#"{"dryRun": ["All"]}"#, 202),
        ("vm", "", 202),
    ] {
        let answer = site.ask("PUT", &path(name, "softreboot"), body).await;
        assert_eq!(answer.code, code, "{name} {body}: {answer:?}");
    }
    let text = "VirtualMachineInstance soft rebooted";
    let expected = Event::normal(&key("vm"), "u-vm", "SoftRebooted", text);
    assert_eq!(site.events.try_recv(), Ok(expected));
    assert!(site.events.try_recv().is_err());
}

#[tokio::test]
async fn what_cannot_be_done_is_told() {
    let mut site = Site::new().await;
    let old = Script {
        is_old: true,
        ..machine("vm", "Running")
    };
    site.launch("vm", old).await;
    site.launch("paused", machine("paused", "Paused")).await;
    site.launch("none", Script::default()).await;
    site.store.put(instance("waiting"));
    for (name, action, body, code, reason, part) in [
        (
            "nobody",
            "pause",
            "",
            404,
            "NotFound",
            "is not on this node",
        ),
        (
            "waiting",
            "pause",
            "",
            409,
            "Conflict",
            "has no launcher here",
        ),
        ("none", "pause", "", 409, "Conflict", "not running"),
        (
            "paused",
            "pause",
            "",
            409,
            "Conflict",
            "VMI is already paused",
        ),
        ("vm", "unpause", "", 409, "Conflict", "VMI is not paused"),
        (
            "paused",
            "softreboot",
            "",
            409,
            "Conflict",
            "unpause it first",
        ),
        (
            "vm",
            "softreboot",
            "",
            501,
            "NotImplemented",
            "does not know it",
        ),
        ("vm", "freeze", "", 400, "BadRequest", "unfreezeTimeout"),
        (
            "vm",
            "freeze",
            r#"{"unfreezeTimeout":"-5"}"#,
            400,
            "BadRequest",
            "unfreezeTimeout",
        ),
        (
            "vm",
            "freeze",
            r#"{"unfreezeTimeout":5}"#,
            400,
            "BadRequest",
            "unfreezeTimeout",
        ),
        ("vm", "pause", "{", 400, "BadRequest", "no JSON"),
        ("vm", "backup", "", 501, "NotImplemented", "backups"),
        (
            "nobody",
            "backup",
            "",
            404,
            "NotFound",
            "is not on this node",
        ),
        ("vm", "console", "", 405, "MethodNotAllowed", "method"),
        ("vm", "addvolume", "", 404, "NotFound", "nothing"),
    ] {
        let answer = site.ask("PUT", &path(name, action), body).await;
        let message = answer.refusal(code, reason);
        assert!(message.contains(part), "{name} {action}: {message}");
    }
    let vnc = site.ask("GET", &path("vm", "vnc"), "").await;
    let message = vnc.refusal(501, "NotImplemented");
    assert!(message.contains("no display"), "{message}");
    let console = site.ask("GET", &path("vm", "console"), "").await;
    assert!(console.refusal(400, "BadRequest").contains("WebSocket"));
}

#[tokio::test]
async fn a_launcher_that_says_no_is_quoted() {
    let mut site = Site::new().await;
    let mut script = machine("vm", "Running");
    script.refusal = Some("the disk is \"full\"".to_owned());
    site.launch("vm", script).await;
    let answer = site.ask("PUT", &path("vm", "pause"), "").await;
    let message = answer.refusal(500, "InternalError");
    assert!(message.ends_with("the disk is \"full\""), "{message}");
}

#[tokio::test]
async fn hostile_requests_are_refused() {
    let mut site = Site::new().await;
    let script = site.launch("vm", machine("vm", "Running")).await;
    let long = "x".repeat(70_000);
    let answer = site.ask("PUT", &path("vm", "pause"), &long).await;
    answer.refusal(413, "RequestEntityTooLarge");
    for name in [
        "..%2f..%2fetc",
        "%2e%2e",
        "a%00b",
        "vm%2fpause",
        "%ff",
        &"y".repeat(3000),
    ] {
        let answer = site.ask("PUT", &path(name, "pause"), "").await;
        assert!([400, 404].contains(&answer.code), "{name}: {answer:?}");
        assert_eq!(answer.json()["kind"], "Status");
        assert!(answer.body.len() < 4096);
    }
    assert!(script.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn the_guest_is_told_of() {
    let mut site = Site::new().await;
    let mut script = machine("vm", "Running");
    script.filesystems = r#"[{"diskName":"vda1","mountPoint":"/","fileSystemType":"ext4","usedBytes":1,"totalBytes":2}]"#.to_owned();
    site.launch("vm", script).await;
    let info = site.ask("GET", &path("vm", "guestosinfo"), "").await;
    assert_eq!(info.json()["hostname"], "engine");
    let users = site.ask("GET", &path("vm", "userlist"), "").await.json();
    assert_eq!(users["kind"], "VirtualMachineInstanceGuestOSUserList");
    assert_eq!(users["items"][0]["userName"], "ada");
    let filesystems = site
        .ask("GET", &path("vm", "filesystemlist"), "")
        .await
        .json();
    assert_eq!(filesystems["kind"], "VirtualMachineInstanceFileSystemList");
    assert_eq!(filesystems["items"][0]["mountPoint"], "/");
}

#[tokio::test]
async fn a_list_that_makes_no_sense_is_the_launchers_fault() {
    let mut site = Site::new().await;
    let mut script = machine("vm", "Running");
    script.filesystems = r#"{"items": 5}"#.to_owned();
    site.launch("vm", script).await;
    let answer = site.ask("GET", &path("vm", "filesystemlist"), "").await;
    answer.refusal(502, "InternalError");
}
