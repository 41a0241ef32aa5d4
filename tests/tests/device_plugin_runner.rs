//! One device plugin alone: what it does for the kubelet whatever devices it has. Whom it asks for devices is a fake here.

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io;
    use std::os::unix::net::UnixListener as StdListener;
    use std::path::PathBuf;
    use std::sync::{Arc, Mutex};
    use std::time::{Duration, Instant};

    use device_plugins::resource::ResourceName;
    use device_plugins::runner::{
        self, AllocateError, Giver, PluginSetup, Registration, socket_name,
    };
    use device_plugins::unit::{Health, Offer, Unit};
    use futures::FutureExt;
    use futures::future::BoxFuture;
    use hyper_util::rt::TokioIo;
    use proto::deviceplugin::v1beta1::device_plugin_client::DevicePluginClient;
    use proto::deviceplugin::v1beta1::{
        AllocateRequest, ContainerAllocateRequest, ContainerAllocateResponse, Empty,
    };
    use tests::kubelet::{Kubelet, KubeletError, Mode, SOCKET};
    use tokio::net::{UnixListener, UnixSocket, UnixStream};
    use tokio::sync::watch;
    use tokio::task::JoinHandle;
    use tokio::time::timeout;
    use tokio_util::sync::CancellationToken;
    use tonic::transport::{Channel, Endpoint};
    use tonic::{Code, Status};
    use tower::service_fn;
    use tracing_subscriber::fmt::MakeWriter;

    const PATIENCE: Duration = Duration::from_secs(20);
    const RESOURCE: &str = "kubevirt.io/device";

    /// Gives what is asked for, except the unit `gone`.
    struct FakeGiver;

    impl Giver for FakeGiver {
        fn give(
            &self,
            resource: &ResourceName,
            ids: Vec<String>,
        ) -> BoxFuture<'static, Result<ContainerAllocateResponse, AllocateError>> {
            let resource = resource.clone();
            async move {
                if ids.iter().any(|id| id == "gone") {
                    return Err(AllocateError::Gone {
                        resource,
                        id: "gone".to_owned(),
                        reason: "it was unplugged".to_owned(),
                    });
                }
                let mut response = ContainerAllocateResponse::default();
                response.envs.insert("IDS".to_owned(), ids.join(","));
                Ok(response)
            }
            .boxed()
        }
    }

    /// A plugin that runs beside a kubelet.
    struct Bench {
        dir: tempfile::TempDir,
        kubelet: Kubelet,
        offer: watch::Sender<Arc<Offer>>,
        folder: watch::Sender<u64>,
        registration: watch::Receiver<Registration>,
        stop: CancellationToken,
        running: JoinHandle<()>,
    }

    impl Bench {
        /// Starts a plugin with these units. There is no folder and no kubelet.
        fn new(units: Vec<Unit>) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let kubelet = Kubelet::new(dir.path());
            let offer = watch::Sender::new(Arc::new(offer(units)));
            let folder = watch::Sender::new(0);
            let (registration, told) = watch::channel(Registration::default());
            let stop = CancellationToken::new();
            let setup = PluginSetup {
                resource: ResourceName::new(RESOURCE).unwrap(),
                plugin_dir: kubelet.plugin_dir(),
                offer: offer.subscribe(),
                folder_changed: folder.subscribe(),
                giver: Arc::new(FakeGiver),
                registration,
                stop: stop.clone(),
            };
            Self {
                dir,
                kubelet,
                offer,
                folder,
                registration: told,
                stop,
                running: tokio::spawn(runner::run(setup)),
            }
        }

        /// Starts a plugin and a kubelet that takes it.
        async fn registered(units: Vec<Unit>) -> Self {
            let count = units.len();
            let mut bench = Self::new(units);
            bench.start(Mode::Takes);
            let connected = bench.kubelet.until(PATIENCE, "it is registered", |node| {
                let resource = node.resources.get(RESOURCE);
                resource.is_some_and(|resource| resource.is_connected)
            });
            connected.await.unwrap();
            bench.shows(count).await;
            bench
        }

        fn start(&mut self, mode: Mode) {
            self.kubelet.start(mode).unwrap();
            self.folder_changes();
        }

        fn folder_changes(&self) {
            self.folder.send_modify(|count| *count += 1);
        }

        async fn shows(&self, count: usize) {
            let shown = self.kubelet.until_counts(PATIENCE, RESOURCE, count, count);
            shown.await.unwrap_or_else(|error| panic!("{error}"));
        }

        async fn is_told(&mut self, is_so: impl FnMut(&Registration) -> bool) {
            let told = timeout(PATIENCE, self.registration.wait_for(is_so)).await;
            told.expect("it is told in time").unwrap();
        }

        fn socket(&self) -> PathBuf {
            let name = socket_name(&ResourceName::new(RESOURCE).unwrap());
            self.kubelet.plugin_dir().join(name)
        }

        async fn stop(&mut self) -> Duration {
            let began = Instant::now();
            self.stop.cancel();
            let ended = timeout(PATIENCE, &mut self.running).await;
            ended.expect("it ends in time").unwrap();
            began.elapsed()
        }

        /// Connects as the kubelet does.
        async fn client(&self) -> DevicePluginClient<Channel> {
            let path = self.socket();
            let connector = service_fn(move |_| {
                let path = path.clone();
                async move { UnixStream::connect(path).await.map(TokioIo::new) }
            });
            let endpoint = Endpoint::from_static("http://plugin");
            let channel = endpoint.connect_with_connector(connector).await.unwrap();
            DevicePluginClient::new(channel)
        }
    }

    fn unit(id: &str, numa_node: Option<u32>) -> Unit {
        Unit {
            id: id.to_owned(),
            copies: 1,
            parts: vec![id.to_owned()],
            health: Health::Healthy,
            numa_node,
            nodes: Vec::new(),
            addresses: Vec::new(),
        }
    }

    fn offer(units: Vec<Unit>) -> Offer {
        Offer {
            resource: ResourceName::new(RESOURCE).unwrap(),
            variable: None,
            units,
            left_out: Vec::new(),
        }
    }

    /// What is logged while a guard lives, by threads that run this test.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Log {
        fn begin() -> (Self, tracing::subscriber::DefaultGuard) {
            let log = Self::default();
            let subscriber = tracing_subscriber::fmt()
                .with_ansi(false)
                .with_writer(log.clone());
            let guard = tracing::subscriber::set_default(subscriber.finish());
            (log, guard)
        }

        /// The lines with a word.
        fn lines(&self, word: &str) -> Vec<String> {
            let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            let lines = text.lines().filter(|line| line.contains(word));
            lines.map(str::to_owned).collect()
        }
    }

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Log {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    #[tokio::test]
    async fn a_kubelet_that_drops_the_stream_and_runs_on_is_asked_again() {
        let bench = Bench::registered(vec![unit("a", None)]).await;
        for times in 2..5 {
            bench.kubelet.drop_streams();
            let again = bench
                .kubelet
                .until(PATIENCE, "it has registered again", |node| {
                    let resource = &node.resources[RESOURCE];
                    resource.registrations == times && resource.is_connected
                });
            again.await.unwrap();
            bench.shows(1).await;
        }
        assert_eq!(*bench.registration.borrow(), Registration::Registered);
    }

    #[tokio::test]
    async fn a_socket_that_is_not_listened_at_yet_is_tried_again_soon() {
        let mut bench = Bench::new(Vec::new());
        fs::create_dir_all(bench.kubelet.plugin_dir()).unwrap();
        let socket = UnixSocket::new_stream().unwrap();
        socket
            .bind(bench.kubelet.plugin_dir().join(SOCKET))
            .unwrap();
        bench.folder_changes();
        let served = async {
            while fs::symlink_metadata(bench.socket()).is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, served).await.unwrap();
        let kubelet: UnixListener = socket.listen(1).unwrap();
        let began = Instant::now();
        timeout(PATIENCE, kubelet.accept()).await.unwrap().unwrap();
        assert!(
            began.elapsed() < Duration::from_secs(2),
            "{:?}",
            began.elapsed()
        );
        // It has not failed in a way that anybody need hear of.
        assert!(!bench.registration.has_changed().unwrap());
        bench.stop().await;
    }

    #[tokio::test]
    async fn a_fault_is_logged_once_and_so_is_its_end() {
        let (log, _guard) = Log::begin();
        let mut bench = Bench::new(Vec::new());
        fs::create_dir_all(bench.kubelet.plugin_dir()).unwrap();
        // A kubelet that was killed leaves a socket at which nobody listens.
        drop(StdListener::bind(bench.kubelet.plugin_dir().join(SOCKET)).unwrap());
        bench.folder_changes();
        bench
            .is_told(|told| matches!(told, Registration::Failed(_)))
            .await;
        // Tries go on at growing distances, three of them in this time.
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(
            log.lines("is not registered").len(),
            1,
            "{:?}",
            log.lines("")
        );
        let [line] = log
            .lines("see whether the kubelet runs")
            .try_into()
            .unwrap();
        assert!(line.contains(RESOURCE), "{line}");
        bench.start(Mode::Takes);
        bench
            .is_told(|told| *told == Registration::Registered)
            .await;
        assert_eq!(
            log.lines("all is well again").len(),
            1,
            "{:?}",
            log.lines("")
        );
    }

    #[tokio::test]
    async fn only_changes_that_the_kubelet_sees_are_sent() {
        let bench = Bench::registered(vec![unit("a", None), unit("b", None)]).await;
        let lists = || bench.kubelet.node().borrow().resources[RESOURCE].lists;
        assert_eq!(lists(), 1);
        let mut same = unit("b", None);
        same.addresses.push("1:9".to_owned());
        bench
            .offer
            .send_replace(Arc::new(offer(vec![unit("a", None), same])));
        bench
            .offer
            .send_replace(Arc::new(offer(vec![unit("a", None)])));
        bench.shows(1).await;
        assert_eq!(lists(), 2);
    }

    #[tokio::test]
    async fn devices_of_one_numa_node_are_given_together() {
        let near = [("a", 0), ("b", 1), ("c", 1)];
        let units = near.map(|(id, node)| unit(id, Some(node)));
        let bench = Bench::registered(units.into()).await;
        bench.kubelet.add_pod("pod").unwrap();
        let given = bench
            .kubelet
            .allocate("pod", "compute", RESOURCE, 2)
            .await
            .unwrap();
        assert_eq!(given.ids, ["b", "c"]);
        assert_eq!(given.response.envs["IDS"], "b,c");
        let entries = bench.kubelet.entries();
        assert_eq!(entries[0].ids.keys().copied().collect::<Vec<i64>>(), [1]);
    }

    #[tokio::test]
    async fn why_a_device_cannot_be_given_reaches_the_kubelet() {
        let bench = Bench::registered(vec![unit("gone", None)]).await;
        bench.kubelet.add_pod("pod").unwrap();
        let given = bench.kubelet.allocate("pod", "compute", RESOURCE, 1).await;
        let Err(KubeletError::Refused { reason, .. }) = given else {
            panic!("{given:?}");
        };
        assert_eq!(
            reason,
            "kubevirt.io/device has no unit gone: it was unplugged"
        );
    }

    #[tokio::test]
    async fn calls_out_of_bounds_are_refused() {
        let bench = Bench::registered(Vec::new()).await;
        let mut client = bench.client().await;
        let mut allocate = async |containers: usize, ids: usize| -> Result<(), Status> {
            let wanted = ContainerAllocateRequest {
                devices_ids: vec!["a".to_owned(); ids],
            };
            let request = AllocateRequest {
                container_requests: vec![wanted; containers],
            };
            client.allocate(request).await.map(drop)
        };
        assert!(allocate(0, 0).await.is_ok());
        assert!(allocate(64, 10).await.is_ok());
        let many = allocate(65, 0).await.unwrap_err();
        assert_eq!(many.code(), Code::InvalidArgument);
        assert!(many.message().contains("container_requests"), "{many:?}");
        let many = allocate(1, 40_001).await.unwrap_err();
        assert!(many.message().contains("devices_ids"), "{many:?}");
        // More than a message may have.
        let long = allocate(1, 3 << 20).await.unwrap_err();
        assert_eq!(long.code(), Code::OutOfRange, "{long:?}");
        bench.shows(0).await;
    }

    #[tokio::test]
    async fn more_connections_than_are_allowed_wait() {
        let bench = Bench::registered(Vec::new()).await;
        let mut silent = Vec::new();
        for _ in 0..7 {
            silent.push(UnixStream::connect(bench.socket()).await.unwrap());
        }
        let mut client = bench.client().await;
        let mut asked = Box::pin(client.get_device_plugin_options(Empty {}));
        let waited = timeout(Duration::from_millis(300), &mut asked).await;
        assert!(waited.is_err(), "the ninth connection waits");
        silent.pop();
        timeout(PATIENCE, asked).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_plugin_that_stops_leaves_the_socket_of_its_successor() {
        let mut bench = Bench::registered(Vec::new()).await;
        fs::remove_file(bench.socket()).unwrap();
        let _successor = StdListener::bind(bench.socket()).unwrap();
        bench.stop().await;
        assert!(bench.socket().exists());
    }

    #[tokio::test]
    async fn nobody_who_hangs_keeps_a_plugin_from_stopping() {
        let mut bench = Bench::registered(vec![unit("a", None)]).await;
        // Somebody asks for the list and never reads on.
        let mut client = bench.client().await;
        let lists = client.list_and_watch(Empty {}).await.unwrap();
        bench.start(Mode::Hangs);
        let took = bench.stop().await;
        assert!(took < Duration::from_secs(2), "{took:?}");
        assert!(!bench.socket().exists());
        drop(lists);
    }

    #[tokio::test]
    async fn a_folder_with_a_long_path_is_no_hindrance() {
        let mut bench = Bench::new(vec![unit("a", None)]);
        bench.stop().await;
        let dir = bench.dir.path().join("x".repeat(100));
        let mut kubelet = Kubelet::new(&dir);
        kubelet.start(Mode::Takes).unwrap();
        let (registration, _told) = watch::channel(Registration::default());
        let setup = PluginSetup {
            resource: ResourceName::new(RESOURCE).unwrap(),
            plugin_dir: kubelet.plugin_dir(),
            offer: bench.offer.subscribe(),
            folder_changed: bench.folder.subscribe(),
            giver: Arc::new(FakeGiver),
            registration,
            stop: CancellationToken::new(),
        };
        let running = tokio::spawn(runner::run(setup));
        kubelet
            .until_counts(PATIENCE, RESOURCE, 1, 1)
            .await
            .unwrap();
        running.abort();
    }

    /// Time that this thread was on a CPU.
    fn thread_time() -> Duration {
        let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        let first = text.split(' ').next().unwrap();
        Duration::from_nanos(first.parse().unwrap())
    }

    #[tokio::test]
    async fn a_plugin_that_has_nothing_to_do_uses_no_cpu() {
        let bench = Bench::registered(vec![unit("a", None)]).await;
        // What follows a registration is over by then.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let before = thread_time();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let used = thread_time() - before;
        println!("figure: CPU time of an idle plugin and the kubelet's stand-in in 2 s: {used:?}");
        assert!(used < Duration::from_millis(5), "{used:?}");
        drop(bench);
    }
}
