use api::admission::{self, Cluster, Requester};
use api::defaulting::admission::{Fresh, default_vm};
use api::kubevirt::Configuration;
use clap::Parser;
use serde_json::Value;

use super::{CreateVm, Material, object};

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    create: CreateVm,
}

fn attempt(line: &[&str]) -> Result<Value, String> {
    let line = std::iter::once("vm").chain(line.iter().copied());
    let line = Line::try_parse_from(line).map_err(|error| error.to_string())?;
    let material = Material {
        namespace: None,
        password: line
            .create
            .guest
            .password_file
            .as_ref()
            .map(|_| "a: 'b\"".to_owned()),
        suffix: || "xxxxx".to_owned(),
    };
    line.create.machine(&material).map(|vm| object(&vm))
}

/// Makes a machine, and has the API server's checks accept what is printed of it.
fn create(line: &[&str]) -> Value {
    let vm = attempt(line).unwrap_or_else(|error| panic!("{line:?}: {error}"));
    let yaml = crate::yaml::text(&vm).unwrap();
    let mut documents = api::manifest::documents(&yaml).unwrap();
    let mut read = documents.pop().unwrap();
    assert_eq!(read, vm, "{yaml}");
    let config = Configuration::default();
    read["metadata"]["namespace"] = "default".into();
    let fresh = Fresh {
        uuid: "f2b1ce17-0bd4-4c73-8a2a-0a8a5a3c2c8e".to_owned(),
        serial: "s".to_owned(),
        now: "2026-01-01T00:00:00Z".to_owned(),
    };
    default_vm(&mut read, &config, true, &fresh);
    let cluster = Cluster {
        config: &config,
        namespace: "kubevirt",
        requester: Requester::default(),
    };
    let verdict = admission::create_vm(&read, &cluster);
    assert!(verdict.is_granted(), "{yaml}\n{:?}", verdict.errors);
    vm
}

fn volumes(vm: &Value) -> &Vec<Value> {
    vm["spec"]["template"]["spec"]["volumes"]
        .as_array()
        .unwrap()
}

#[test]
fn without_flags_there_is_a_machine_with_a_made_up_name() {
    let vm = create(&[]);
    assert_eq!(vm["metadata"]["name"], "vm-xxxxx");
    assert_eq!(vm["spec"]["runStrategy"], "Always");
    let spec = &vm["spec"]["template"]["spec"];
    assert_eq!(spec["domain"]["memory"]["guest"], "512Mi");
    assert_eq!(spec["terminationGracePeriodSeconds"], 180);
    assert!(spec["volumes"].is_null());
}

#[test]
fn name_strategy_and_size_are_taken() {
    let vm = create(&[
        "--name=a",
        "--run-strategy=halted",
        "--memory=1Gi",
        "--cpu=2",
    ]);
    assert_eq!(vm["metadata"]["name"], "a");
    assert_eq!(vm["spec"]["runStrategy"], "Halted");
    assert_eq!(
        vm["spec"]["template"]["spec"]["domain"]["memory"]["guest"],
        "1Gi"
    );
    assert_eq!(vm["spec"]["template"]["spec"]["domain"]["cpu"]["cores"], 2);
}

#[test]
fn volumes_come_in_the_documented_order() {
    let vm = create(&[
        "--memory=1Gi",
        "--volume-import=type:blank,size:1Gi,name:empty",
        "--volume-blank=size:2Gi,name:old",
        "--volume-pvc=src:claim",
        "--volume-containerdisk=src:host:5000/a:b",
        "--volume-containerdisk=src:c,name:second,bootorder:1",
        "--volume-sysprep=src:answers",
    ]);
    let names: Vec<&str> = volumes(&vm)
        .iter()
        .map(|v| v["name"].as_str().unwrap())
        .collect();
    let expected = [
        "vm-xxxxx-containerdisk-0",
        "second",
        "claim",
        "old",
        "empty",
        "sysprepdisk",
    ];
    assert_eq!(names, expected);
    assert_eq!(volumes(&vm)[0]["containerDisk"]["image"], "host:5000/a:b");
    let disk = &vm["spec"]["template"]["spec"]["domain"]["devices"]["disks"][0];
    assert_eq!(
        (&disk["name"], &disk["bootOrder"]),
        (&"second".into(), &1.into())
    );
    let template = &vm["spec"]["dataVolumeTemplates"][1];
    assert_eq!(
        template["spec"]["storage"]["resources"]["requests"]["storage"],
        "1Gi"
    );
}

#[test]
fn imports_have_their_sources() {
    let import = |text: &str| {
        let flag = format!("--volume-import={text}");
        let vm = create(&["--memory=1Gi", &flag]);
        vm["spec"]["dataVolumeTemplates"][0]["spec"].clone()
    };
    let spec = import("type:http,url:http://h/a,size:1Gi,extraheaders:a;b");
    assert_eq!(spec["source"]["http"]["url"], "http://h/a");
    assert_eq!(spec["source"]["http"]["extraHeaders"][1], "b");
    let spec = import("type:pvc,src:ns/claim");
    assert_eq!(spec["source"]["pvc"]["namespace"], "ns");
    let spec = import("type:ds,src:os");
    assert_eq!(spec["sourceRef"]["kind"], "DataSource");
    let spec = import("type:registry,url:docker://h/a:b,size:1Gi,pullmethod:node");
    assert_eq!(spec["source"]["registry"]["pullMethod"], "node");
    let spec = import("type:imageio,url:u,diskid:d,size:1Gi");
    assert_eq!(spec["source"]["imageio"]["diskId"], "d");
}

#[test]
fn cloud_init_gets_user_password_and_keys() {
    let vm = create(&[
        "--user=jdoe",
        "--password-file=x",
        "--ssh-key=ssh-rsa A,ssh-rsa B",
    ]);
    let text = volumes(&vm)[0]["cloudInitNoCloud"]["userData"]
        .as_str()
        .unwrap();
    assert!(text.starts_with("#cloud-config\n"));
    let config = api::manifest::documents(text).unwrap().remove(0);
    assert_eq!(config["user"], "jdoe");
    assert_eq!(config["password"], "a: 'b\"");
    assert_eq!(config["chpasswd"]["expire"], false);
    assert_eq!(config["ssh_authorized_keys"][1], "ssh-rsa B");

    let vm = create(&[
        "--cloud-init=configdrive",
        "--cloud-init-user-data=I2Nsb3VkLWNvbmZpZw==",
    ]);
    let source = &volumes(&vm)[0]["cloudInitConfigDrive"];
    assert_eq!(source["userDataBase64"], "I2Nsb3VkLWNvbmZpZw==");
    let vm = create(&["--cloud-init=none", "--user=jdoe"]);
    assert!(vm["spec"]["template"]["spec"]["volumes"].is_null());
}

#[test]
fn credentials_bring_along_what_they_need() {
    let vm = create(&["--user=jdoe", "--access-cred=src:keys"]);
    let credential = &vm["spec"]["template"]["spec"]["accessCredentials"][0]["sshPublicKey"];
    assert_eq!(credential["source"]["secret"]["secretName"], "keys");
    assert_eq!(
        credential["propagationMethod"]["qemuGuestAgent"]["users"][0],
        "jdoe"
    );
    let text = volumes(&vm)[0]["cloudInitNoCloud"]["userData"]
        .as_str()
        .unwrap();
    assert!(text.contains("virt_qemu_ga_manage_ssh"));

    let vm = create(&["--access-cred=src:keys,method:configdrive"]);
    assert!(volumes(&vm)[0]["cloudInitConfigDrive"].is_object());
    let vm = create(&["--access-cred=type:password,src:p"]);
    let credential = &vm["spec"]["template"]["spec"]["accessCredentials"][0]["userPassword"];
    assert!(credential["propagationMethod"]["qemuGuestAgent"].is_object());
}

#[test]
fn types_are_given_or_taken_from_volumes() {
    let vm = attempt(&[
        "--instancetype=virtualmachineinstancetype/small",
        "--preference=p",
    ])
    .unwrap();
    assert_eq!(vm["spec"]["instancetype"]["name"], "small");
    assert_eq!(
        vm["spec"]["instancetype"]["kind"],
        "virtualmachineinstancetype"
    );
    assert!(vm["spec"]["template"]["spec"]["domain"]["memory"].is_null());
    let vm = attempt(&["--volume-pvc=src:c"]).unwrap();
    assert_eq!(vm["spec"]["instancetype"]["inferFromVolume"], "c");
    assert_eq!(
        vm["spec"]["preference"]["inferFromVolumeFailurePolicy"],
        "Ignore"
    );
    let vm = attempt(&[
        "--volume-pvc=src:c",
        "--infer-instancetype",
        "--infer-preference=false",
    ]);
    let vm = vm.unwrap();
    assert!(vm["spec"]["instancetype"]["inferFromVolumeFailurePolicy"].is_null());
    assert!(vm["spec"]["preference"].is_null());
}

#[test]
fn what_makes_no_sense_is_refused_with_the_flag() {
    let refused: [(&[&str], &str); 14] = [
        (&["--volume-pvc=name:a"], "src must be specified"),
        (
            &["--volume-pvc=src:n/a"],
            "not allowed to specify namespace",
        ),
        (
            &["--volume-pvc=src:a", "--volume-pvc=src:a"],
            "already a volume",
        ),
        (&["--volume-pvc=src:a,bootorder:0"], "greater than 0"),
        (&["--volume-pvc=src:a,bootorder:x"], "bootorder"),
        (&["--volume-pvc=src:a,x:y"], "unknown param"),
        (
            &["--volume-import=type:http,url:u"],
            "size must be specified",
        ),
        (
            &["--volume-import=type:x,size:1Gi"],
            "invalid volume import type",
        ),
        (&["--volume-import=type:blank,size:many"], "size"),
        (&["--access-cred=src:keys"], "user must be specified"),
        (
            &[
                "--access-cred=src:k,method:nocloud",
                "--cloud-init=configdrive",
            ],
            "have to match",
        ),
        (&["--infer-instancetype"], "at least one volume"),
        (&["--memory=much"], "--memory"),
        (&["--instancetype=a", "--memory=1Gi"], "cannot be used"),
    ];
    for (line, expected) in refused {
        let error = attempt(line).unwrap_err();
        assert!(error.contains(expected), "{line:?}: {error}");
    }
}
