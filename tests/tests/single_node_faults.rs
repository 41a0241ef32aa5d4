//! A node whose process is killed: no write that was acknowledged is lost, machines run on, and nothing is left behind.

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, PostParams};
    use kube::config::{KubeConfigOptions, Kubeconfig};
    use kube::{Client, Config};
    use serde_json::{Value, json};
    use tests::demo::BOOT;
    use tests::guests::repository;
    use tests::single_node::SingleNode;

    /// Objects of a storm, and writers at the same time.
    const OBJECTS: usize = 200;
    const WRITERS: usize = 8;
    /// Acknowledged writes after which the node is killed, in one storm after the other.
    const KILLED_AFTER: [usize; 3] = [7, 150, 430];
    /// Time for what follows a restart.
    const SETTLE: Duration = Duration::from_secs(30);

    /// What was acknowledged of an object last: its value, or `None` after its deletion.
    type Acknowledged = BTreeMap<String, Option<String>>;

    async fn config_maps(node: &SingleNode) -> Api<ConfigMap> {
        let file = Kubeconfig::read_from(node.kubeconfig()).expect("read the kubeconfig");
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
        Api::namespaced(
            Client::try_from(config.expect("read the kubeconfig")).expect("make a client"),
            "default",
        )
    }

    fn object(name: &str, value: &str) -> ConfigMap {
        ConfigMap {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                ..ObjectMeta::default()
            },
            data: Some([("value".to_owned(), value.to_owned())].into()),
            ..ConfigMap::default()
        }
    }

    /// Creates, updates and deletes a share of the objects until the node is gone; returns what was acknowledged, and the
    /// names whose last write was not.
    async fn write(
        api: Api<ConfigMap>,
        round: usize,
        writer: usize,
        written: &AtomicUsize,
    ) -> (Acknowledged, Vec<String>) {
        let (mut known, mut unsure) = (Acknowledged::new(), Vec::new());
        for index in (writer..OBJECTS).step_by(WRITERS) {
            let name = format!("storm-{round}-{index}");
            let parameters = PostParams::default();
            let Ok(made) = api.create(&parameters, &object(&name, "new")).await else {
                unsure.push(name);
                return (known, unsure);
            };
            known.insert(name.clone(), Some("new".to_owned()));
            written.fetch_add(1, Ordering::Relaxed);
            let mut changed = made;
            changed.data = object(&name, "changed").data;
            if api.replace(&name, &parameters, &changed).await.is_err() {
                unsure.push(name);
                return (known, unsure);
            }
            known.insert(name.clone(), Some("changed".to_owned()));
            written.fetch_add(1, Ordering::Relaxed);
            if index % 3 == 0 {
                if api.delete(&name, &DeleteParams::default()).await.is_err() {
                    unsure.push(name);
                    return (known, unsure);
                }
                known.insert(name, None);
                written.fetch_add(1, Ordering::Relaxed);
            }
        }
        (known, unsure)
    }

    /// Writes until so many writes were acknowledged, and kills the node in the middle of it.
    async fn storm(
        node: &mut SingleNode,
        round: usize,
        kill_after: usize,
    ) -> (Acknowledged, Vec<String>) {
        let api = config_maps(node).await;
        let written = std::sync::Arc::new(AtomicUsize::new(0));
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (api, written) = (api.clone(), written.clone());
                tokio::spawn(async move { write(api, round, writer, &written).await })
            })
            .collect();
        while written.load(Ordering::Relaxed) < kill_after
            && writers.iter().any(|it| !it.is_finished())
        {
            tokio::task::yield_now().await;
        }
        node.kill().expect("kill the node");
        let (mut known, mut unsure) = (Acknowledged::new(), Vec::new());
        for writer in writers {
            let (more, open) = writer.await.expect("a writer ends");
            known.extend(more);
            unsure.extend(open);
        }
        (known, unsure)
    }

    async fn stored(node: &SingleNode) -> BTreeMap<String, String> {
        let listed = config_maps(node)
            .await
            .list(&ListParams::default())
            .await
            .expect("list the objects");
        let named = listed.into_iter().filter_map(|it| {
            let value = it.data?.get("value")?.clone();
            Some((it.metadata.name?, value))
        });
        named.collect()
    }

    fn uid(object: &Value) -> &str {
        object["metadata"]["uid"].as_str().unwrap_or_default()
    }

    #[test]
    fn a_killed_node_loses_no_write_and_no_machine() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build();
        let runtime = runtime.unwrap();
        let Some(mut node) = SingleNode::new("soft") else {
            return;
        };
        node.start().unwrap();
        node.import_demo_images().unwrap();
        let manifest = repository().join("images/demo/vm.yaml");
        let kubeconfig = node.kubeconfig().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(manifest)
            .unwrap()
            .replace("runStrategy: Manual", "runStrategy: Always");
        let file = node.state().join("always.yaml");
        std::fs::write(&file, text).unwrap();
        node.ferrovirt(&[
            "apply",
            "-f",
            &file.to_string_lossy(),
            "--kubeconfig",
            &kubeconfig,
        ])
        .unwrap();
        let is_running = |vmi: &Value| vmi["status"]["phase"] == "Running";
        let before = node.wait_for("vmi", "demo", "running", BOOT, is_running);
        for (round, kill_after) in KILLED_AFTER.into_iter().enumerate() {
            let (known, unsure) = runtime.block_on(storm(&mut node, round, kill_after));
            assert!(
                known.len() >= kill_after.min(OBJECTS) / 3,
                "the storm was cut short: {}",
                known.len()
            );
            node.start().unwrap();
            let found = runtime.block_on(stored(&node));
            for (name, value) in known.iter().filter(|(name, _)| !unsure.contains(name)) {
                assert_eq!(
                    found.get(name),
                    value.as_ref(),
                    "{name} is not as it was acknowledged"
                );
            }
        }
        let after = node.wait_for("vmi", "demo", "running", SETTLE, is_running);
        assert_eq!(uid(&before), uid(&after), "the machine runs on");
        assert_eq!(
            after["status"]["phaseTransitionTimestamps"],
            before["status"]["phaseTransitionTimestamps"]
        );
        node.ferrovirt(&["down"]).unwrap();
        assert_eq!(node.leftovers(), Vec::<String>::new());
    }

    #[test]
    fn a_machine_that_was_lost_comes_back_and_one_that_runs_is_found_by_down() {
        let Some(mut node) = SingleNode::new("soft") else {
            return;
        };
        node.start().unwrap();
        node.import_demo_images().unwrap();
        let kubeconfig = node.kubeconfig().to_string_lossy().into_owned();
        let manifest = repository().join("images/demo/vm.yaml");
        node.ferrovirt(&[
            "apply",
            "-f",
            &manifest.to_string_lossy(),
            "--kubeconfig",
            &kubeconfig,
        ])
        .unwrap();
        node.virtctl(&["start", "demo"]).unwrap();
        let is_running = |vmi: &Value| vmi["status"]["phase"] == "Running";
        node.wait_for("vmi", "demo", "running", BOOT, is_running);
        node.kill().unwrap();
        assert_ne!(
            node.leftovers(),
            Vec::<String>::new(),
            "the machine runs on"
        );
        // No node runs: down ends what it left.
        node.ferrovirt(&["down"]).unwrap();
        assert_eq!(node.leftovers(), Vec::<String>::new());
        // The next node sees that the machine is gone, and says so.
        node.start().unwrap();
        node.wait_for("vm", "demo", "stopped", SETTLE, |vm| {
            vm["status"]["printableStatus"] == json!("Stopped")
        });
        node.ferrovirt(&["delete", "vm", "demo", "--kubeconfig", &kubeconfig])
            .unwrap();
        node.wait_for("vm", "demo", "gone", SETTLE, Value::is_null);
    }

    #[test]
    fn a_second_node_in_the_same_folder_is_refused() {
        let Some(mut node) = SingleNode::new("soft") else {
            return;
        };
        node.start().unwrap();
        let refused = node.ferrovirt(&["up"]).unwrap_err().to_string();
        assert!(refused.contains("a node runs in"), "{refused}");
        let status = node.ferrovirt(&["status"]).unwrap();
        assert!(status.contains("runs (process"), "{status}");
        node.ferrovirt(&["reset", "--yes"]).unwrap();
        assert!(!node.state().exists());
    }
}
