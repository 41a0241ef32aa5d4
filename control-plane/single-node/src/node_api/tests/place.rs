//! A pod that is not run by a runner, and the service for it on a port.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use axum::body::Body;
use http::{Request, StatusCode};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;

use crate::node_api::{Pods, serve};
use crate::pods::ContainerHandle;
use crate::sandbox::process::ProcessId;
use crate::sandbox::record::{self, Ended, Started};

pub(super) type Socket = WebSocketStream<TcpStream>;

struct Pod {
    folder: PathBuf,
    network: Mutex<Option<PathBuf>>,
    ferrovirt: PathBuf,
}

impl Pods for Pod {
    fn container(&self, namespace: &str, pod: &str, container: &str) -> Option<ContainerHandle> {
        let is_known = (namespace, pod) == ("ns", "pod") && ["c", "waiting"].contains(&container);
        is_known.then(|| ContainerHandle {
            pid: (container == "c").then_some(1),
            folder: self.folder.join("c"),
            log_path: self.folder.join("logs/0.log"),
            previous_log_path: None,
            network: None,
            has_terminal: false,
            has_ended: false,
        })
    }

    fn network(&self, namespace: &str, pod: &str) -> Option<Option<PathBuf>> {
        ((namespace, pod) == ("ns", "pod")).then(|| self.network.lock().unwrap().clone())
    }

    fn ferrovirt(&self) -> PathBuf {
        self.ferrovirt.clone()
    }
}

pub(super) struct Place {
    folder: tempfile::TempDir,
    pub(super) address: String,
    pod: Arc<Pod>,
    /// Stands for the container's keeper.
    keeper: Mutex<Child>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.end_container();
    }
}

impl Place {
    pub(super) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("logs")).unwrap();
        fs::create_dir_all(folder.path().join("c")).unwrap();
        fs::write(folder.path().join("logs/0.log"), "").unwrap();
        let keeper = Command::new("sleep")
            .arg("1000")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let process = ProcessId::of(i32::try_from(keeper.id()).unwrap()).unwrap();
        let started = Started {
            process: process.clone(),
            keeper: process,
            at: Timestamp::now(),
        };
        record::write(&folder.path().join("c"), record::SPEC, &"not looked at").unwrap();
        record::write(&folder.path().join("c"), record::STARTED, &started).unwrap();
        let pod = Arc::new(Pod {
            folder: folder.path().to_owned(),
            network: Mutex::new(None),
            ferrovirt: folder.path().join("ferrovirt"),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(listen(listener, Arc::clone(&pod)));
        Self {
            folder,
            address,
            pod,
            keeper: Mutex::new(keeper),
        }
    }

    /// A place where programs run, not in containers but as they are: what is tested is who talks to them.
    pub(super) async fn with_programs() -> Self {
        let place = Self::start().await;
        let script = "#!/bin/sh\nshift 3\nexec \"$@\"\n";
        let path = place.folder.path().join("ferrovirt");
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        place
    }

    pub(super) fn write_log(&self, lines: &[&str]) {
        let path = self.folder.path().join("logs/0.log");
        let mut file = fs::File::options()
            .create(true)
            .append(true)
            .open(path)
            .unwrap();
        for line in lines {
            writeln!(file, "{:.9} stdout F {line}", Timestamp::now()).unwrap();
        }
    }

    pub(super) fn rotate_log(&self) {
        let path = self.folder.path().join("logs/0.log");
        fs::rename(&path, self.folder.path().join("logs/0.log.1")).unwrap();
    }

    pub(super) fn end_container(&self) {
        let mut keeper = self.keeper.lock().unwrap();
        keeper.kill().unwrap();
        keeper.wait().unwrap();
        let ended = Ended::unseen(Timestamp::now());
        record::write(&self.folder.path().join("c"), record::ENDED, &ended).unwrap();
    }

    /// Counts the programs that this process has started for the pod.
    pub(super) fn programs() -> usize {
        let own = std::process::id().to_string();
        let is_program = |path: PathBuf| {
            let stat = fs::read_to_string(path.join("stat")).unwrap_or_default();
            let mut fields = stat
                .rsplit(')')
                .next()
                .unwrap_or_default()
                .split(' ')
                .skip(1);
            let is_alive = fields.next() != Some("Z");
            let command = fs::read(path.join("cmdline")).unwrap_or_default();
            is_alive && fields.next() == Some(own.as_str()) && command == b"sleep\x001001\0"
        };
        let processes = fs::read_dir("/proc").unwrap().map(|it| it.unwrap().path());
        processes.filter(|it| is_program(it.clone())).count()
    }

    /// Gives the pod a network of its own, which lives as long as the process that is returned.
    pub(super) fn isolate(&self) -> Isolated {
        let process = Command::new("unshare")
            .args(["-n", "sleep", "1000"])
            .spawn()
            .unwrap();
        let path = PathBuf::from(format!("/proc/{}/ns/net", process.id()));
        let host = fs::read_link("/proc/self/ns/net").unwrap();
        while fs::read_link(&path).unwrap() == host {
            std::thread::yield_now();
        }
        *self.pod.network.lock().unwrap() = Some(path);
        Isolated(process)
    }

    pub(super) async fn get(&self, path: &str) -> (StatusCode, String) {
        let connection = TcpStream::connect(&self.address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(connection))
                .await
                .unwrap();
        tokio::spawn(connection);
        let request = Request::builder()
            .uri(path)
            .header("host", "node")
            .body(Body::empty())
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        let status = response.status();
        let whole = http_body_util::BodyExt::collect(response.into_body())
            .await
            .unwrap()
            .to_bytes();
        (status, String::from_utf8(whole.to_vec()).unwrap())
    }
}

pub(super) struct Isolated(Child);

impl Drop for Isolated {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

async fn listen(listener: TcpListener, pod: Arc<Pod>) {
    let service = serve(pod);
    while let Ok((connection, _)) = listener.accept().await {
        let service = Arc::clone(&service);
        let answer = service_fn(move |request: Request<hyper::body::Incoming>| {
            let answered = service(request.map(Body::new));
            async { Ok::<_, std::convert::Infallible>(answered.await) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(connection), answer);
        tokio::spawn(connection.with_upgrades());
    }
}

/// Opens a WebSocket to the service.
pub(super) async fn socket(place: &Place, path: &str, protocol: &str) -> Result<Socket, String> {
    let mut request = format!("ws://{}{path}", place.address)
        .into_client_request()
        .unwrap();
    request.headers_mut().insert(
        "sec-websocket-protocol",
        HeaderValue::from_str(protocol).unwrap(),
    );
    let connection = TcpStream::connect(&place.address).await.unwrap();
    let opened = tokio_tungstenite::client_async(request, connection).await;
    let (socket, response) = opened.map_err(|error| error.to_string())?;
    assert_eq!(response.headers()["sec-websocket-protocol"], protocol);
    Ok(socket)
}
