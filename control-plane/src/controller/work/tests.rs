use std::sync::Arc;

use serde_json::{Value, json};
use tokio::time::{Duration, timeout};

use super::Work;
use crate::controller::Options;
use crate::controller::api_server::ApiError;
use crate::controller::cache::Cache;
use crate::controller::events::Recorder;
use crate::controller::fake::Fake;
use crate::controller::key::{Key, Kind};
use crate::controller::queue::Queue;

struct Scene {
    fake: Fake,
    work: Arc<Work>,
}

impl Scene {
    fn new() -> Self {
        Self::on(Fake::default())
    }

    /// Makes a controller that knows nothing yet of what an API server has.
    fn on(fake: Fake) -> Self {
        let options = Options {
            namespace: "kubevirt".to_owned(),
            identity: "test".to_owned(),
            leader_election: false,
            launcher_image: "launcher".to_owned(),
            launcher_arguments: Vec::new(),
        };
        let recorder = Recorder::start(fake.server(), "test".to_owned());
        let work = Work::new(
            options,
            fake.server(),
            Cache::default(),
            Queue::default(),
            recorder,
        );
        Self {
            fake,
            work: Arc::new(work),
        }
    }

    /// Puts an object at the API server, and into the cache.
    fn put(&self, kind: Kind, mut object: Value) -> Key {
        object["metadata"]["namespace"] = json!("ns");
        let key = Key::of(kind, &object).unwrap();
        let object = self.fake.put(&key.path(None), object);
        self.work.cache.put(kind, object);
        key
    }

    async fn look_at(&self, key: &Key) -> Result<(), ApiError> {
        self.work.look_at(key).await
    }

    /// Takes all keys that are due.
    async fn queued(&self) -> Vec<Key> {
        let mut keys = Vec::new();
        while let Ok(key) = timeout(Duration::from_millis(1), self.work.queue.next()).await {
            self.work.queue.done(&key);
            keys.push(key);
        }
        keys
    }
}

fn vm() -> Value {
    json!({
        "metadata": {
            "name": "vm", "uid": "vm-uid", "generation": 1,
            "finalizers": ["kubevirt.io/virtualMachineControllerFinalize"],
        },
        "spec": {"runStrategy": "Always", "template": {"spec": {"domain": {"firmware": {"uuid": "u"}}}}},
    })
}

fn pod(owner: &str) -> Value {
    json!({"metadata": {"name": "p", "uid": "pod-uid", "ownerReferences": [
        {"kind": "VirtualMachineInstance", "name": "vm", "uid": owner, "controller": true},
    ]}})
}

#[tokio::test]
async fn an_instance_that_was_made_is_looked_at_without_waiting_for_the_watch() {
    let scene = Scene::new();
    let vm = scene.put(Kind::Machine, vm());
    scene.look_at(&vm).await.unwrap();
    let instance = vm.sibling(Kind::Instance, "vm");
    assert!(scene.fake.get(&instance.path(None)).is_some());
    let queued = scene.queued().await;
    assert!(
        queued.contains(&instance) && queued.contains(&vm),
        "{queued:?}"
    );
    // Deciding anew makes no second one, although no watch has told.
    scene.fake.writes();
    scene.look_at(&vm).await.unwrap();
    assert_eq!(scene.fake.writes(), [format!("PATCH {}", vm.path(None))]);
}

#[tokio::test]
async fn a_new_virtual_machine_is_decided_on_once_it_is_prepared() {
    let scene = Scene::new();
    let mut vm = vm();
    vm["metadata"]["finalizers"] = json!([]);
    vm["spec"]["runStrategy"] = json!("Halted");
    let vm = scene.put(Kind::Machine, vm);
    scene.look_at(&vm).await.unwrap();
    // The watch tells of the change as well, and by then it is no news.
    assert!(scene.queued().await.contains(&vm));
    scene.look_at(&vm).await.unwrap();
    let told = scene.fake.get(&vm.path(None)).unwrap();
    assert_eq!(told["status"]["printableStatus"], "Stopped");
    scene.queued().await;
    scene.look_at(&vm).await.unwrap();
    assert_eq!(scene.queued().await, []);
}

#[tokio::test]
async fn a_virtual_machine_hears_of_what_was_written_to_its_instance() {
    let scene = Scene::new();
    let vm = scene.put(Kind::Machine, vm());
    scene.look_at(&vm).await.unwrap();
    let instance = vm.sibling(Kind::Instance, "vm");
    scene.look_at(&instance).await.unwrap();
    let pods = scene.work.cache.all(Kind::Pod);
    assert_eq!(pods.len(), 1);
    scene.queued().await;
    let mut running = pods[0].as_ref().clone();
    running["spec"]["nodeName"] = json!("n");
    running["status"] = json!({
        "phase": "Running",
        "containerStatuses": [{"name": "compute", "state": {"running": {}}}],
    });
    scene.put(Kind::Pod, running);
    scene.look_at(&instance).await.unwrap();
    let told = scene.fake.get(&instance.path(None)).unwrap();
    assert_eq!(told["status"]["phase"], "Scheduled");
    assert!(scene.queued().await.contains(&vm));
}

#[tokio::test]
async fn a_change_of_something_outdated_is_decided_anew_from_what_is_there() {
    let scene = Scene::new();
    let vm = scene.put(Kind::Machine, vm());
    scene.look_at(&vm).await.unwrap();
    let path = vm.path(None);
    let mut changed = scene.fake.get(&path).unwrap();
    changed["metadata"]["labels"] = json!({"somebody": "else"});
    scene.fake.put(&path, changed);
    let refused = scene.look_at(&vm).await;
    assert!(matches!(refused, Err(ApiError::Outdated(_))), "{refused:?}");
    scene.look_at(&vm).await.unwrap();
    let told = scene.fake.get(&path).unwrap();
    assert_eq!(told["metadata"]["labels"]["somebody"], "else");
    assert_eq!(told["status"]["printableStatus"], "Starting");
}

#[tokio::test]
async fn a_pod_that_is_there_already_is_taken_over() {
    let scene = Scene::new();
    let vm = scene.put(Kind::Machine, vm());
    scene.look_at(&vm).await.unwrap();
    let instance = vm.sibling(Kind::Instance, "vm");
    scene.look_at(&instance).await.unwrap();
    let made = scene.work.cache.all(Kind::Pod);
    // As after a restart of the controller whose last answer was lost.
    let key = Key::of(Kind::Pod, &made[0]).unwrap();
    let later = Scene::on(scene.fake.clone());
    for (kind, of) in [(Kind::Machine, &vm), (Kind::Instance, &instance)] {
        later
            .work
            .cache
            .put(kind, scene.fake.get(&of.path(None)).unwrap());
    }
    let again = later.look_at(&instance).await;
    assert!(matches!(again, Err(ApiError::Outdated(_))), "{again:?}");
    assert_eq!(later.work.cache.all(Kind::Pod).len(), 1);
    later.look_at(&instance).await.unwrap();
    assert!(scene.fake.get(&key.path(None)).is_some());
}

#[tokio::test]
async fn a_pod_whose_instance_is_gone_is_deleted_once_the_api_server_says_so() {
    let scene = Scene::new();
    let pod_key = scene.put(Kind::Pod, pod("old"));
    let instance = pod_key.sibling(Kind::Instance, "vm");
    // The cache is behind: the instance is there.
    let there = json!({"metadata": {"name": "vm", "namespace": "ns", "uid": "old"}});
    scene.fake.put(&instance.path(None), there);
    scene.look_at(&instance).await.unwrap();
    assert!(scene.fake.get(&pod_key.path(None)).is_some());
    let other = json!({"metadata": {"name": "vm", "namespace": "ns", "uid": "new"}});
    scene.fake.put(&instance.path(None), other);
    scene.look_at(&instance).await.unwrap();
    assert!(scene.fake.get(&pod_key.path(None)).is_none());
}

#[tokio::test]
async fn an_instance_whose_machine_is_gone_is_deleted_once_the_api_server_says_so() {
    let scene = Scene::new();
    let owner =
        json!([{"kind": "VirtualMachine", "name": "vm", "uid": "vm-uid", "controller": true}]);
    let instance =
        json!({"metadata": {"name": "vm", "uid": "u", "ownerReferences": owner}, "spec": {}});
    let key = scene.put(Kind::Instance, instance);
    let machine = key.sibling(Kind::Machine, "vm");
    scene.fake.put(
        &machine.path(None),
        json!({"metadata": {"name": "vm", "namespace": "ns", "uid": "vm-uid"}}),
    );
    scene.look_at(&key).await.unwrap();
    assert!(scene.fake.get(&key.path(None)).is_some());
    scene.fake.put(
        &machine.path(None),
        json!({"metadata": {"name": "vm", "namespace": "ns", "uid": "another"}}),
    );
    scene.look_at(&key).await.unwrap();
    assert!(scene.fake.get(&key.path(None)).is_none());
}

#[tokio::test]
async fn a_pod_asks_for_the_devices_of_its_networks_once_they_are_defined() {
    let scene = Scene::new();
    let key = scene.put(
        Kind::Instance,
        json!({
            "metadata": {"name": "vm", "uid": "vmi-uid"},
            "spec": {
                "domain": {"devices": {"interfaces": [{"name": "n", "sriov": {}}]}, "memory": {"guest": "64Mi"}},
                "networks": [{"name": "n", "multus": {"networkName": "vf"}}],
            },
        }),
    );
    scene.look_at(&key).await.unwrap();
    let instance = scene.fake.get(&key.path(None)).unwrap();
    let told = instance["status"]["conditions"].to_string();
    assert!(told.contains("definition ns/vf of network n"), "{told}");
    assert!(scene.work.cache.owned(Kind::Pod, "vmi-uid").is_empty());
    let resource = json!({"k8s.v1.cni.cncf.io/resourceName": "intel.com/vf"});
    let definition =
        json!({"metadata": {"name": "vf", "namespace": "ns", "annotations": resource}});
    let path = Key::new(Kind::NetworkAttachment, "ns", "vf").path(None);
    scene.fake.put(&path, definition);
    scene.look_at(&key).await.unwrap();
    let pod = scene.work.cache.owned(Kind::Pod, "vmi-uid");
    let pod = Key::of(Kind::Pod, pod.first().unwrap()).unwrap();
    let pod = scene.fake.get(&pod.path(None)).unwrap();
    let resources = &pod["spec"]["containers"][0]["resources"];
    assert_eq!(resources["requests"]["intel.com/vf"], "1");
}

#[test]
fn who_wants_devices_is_looked_at_when_the_permitted_ones_change() {
    let scene = Cache::default();
    let instance = |name: &str, devices: &Value, node: &str| {
        let metadata = json!({"name": name, "namespace": "ns", "uid": name});
        let spec = json!({"domain": {"devices": devices}});
        json!({"metadata": metadata, "spec": spec, "status": {"nodeName": node}})
    };
    let gpus = json!({"gpus": [{"name": "g", "deviceName": "v/gpu"}]});
    for (name, devices, node) in [("a", &gpus, ""), ("b", &gpus, "n1"), ("c", &json!({}), "")] {
        scene.put(Kind::Instance, instance(name, devices, node));
    }
    let kubevirt = json!({"metadata": {"name": "kubevirt", "namespace": "kubevirt"}});
    let concerned = crate::controller::watch::concerned(Kind::KubeVirt, &kubevirt, &scene);
    assert_eq!(concerned, [Key::new(Kind::Instance, "ns", "a")]);
}
