//! A scripted Kubernetes API endpoint: a stand-in for the API server where a test needs one that fails on command.
//!
//! It keeps any object of any kind in memory, with resource versions, label selectors, JSON and merge patches and
//! watches; it checks no schema and no rights. A test makes it go away, answer with an error, or close its watches.

mod http;
mod store;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use self::store::Store;
pub use self::store::{ObjectKey, Resource};

/// How the endpoint misbehaves.
#[derive(Clone, Debug, Default)]
struct Faults {
    /// Answers still to be given instead of the true ones.
    answers: Vec<(u16, Which)>,
}

/// Requests that a fault concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All of them.
    All,
    /// Those that change objects.
    Writes,
}

/// What the connections share.
struct Shared {
    store: Store,
    faults: Mutex<Faults>,
    requests: AtomicU64,
    writes: AtomicU64,
    /// Changes whenever watches are to end.
    watch_round: tokio::sync::watch::Sender<u64>,
}

impl Shared {
    /// Takes the next answer that a fault wants for such a request.
    fn fault(&self, is_write: bool) -> Option<u16> {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let at = faults
            .answers
            .iter()
            .position(|(_, which)| is_write || *which == Which::All)?;
        Some(faults.answers.remove(at).0)
    }
}

/// A running endpoint; it ends when it is dropped.
pub struct ApiEndpoint {
    shared: Arc<Shared>,
    address: SocketAddr,
    runtime: Runtime,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

impl ApiEndpoint {
    /// Starts an endpoint on a free port of the loopback.
    ///
    /// # Errors
    ///
    /// When the host has no port or thread to give.
    pub fn start() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("api-endpoint")
            .enable_all()
            .build()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let endpoint = Self {
            address: listener.local_addr()?,
            shared: Arc::new(Shared {
                store: Store::default(),
                faults: Mutex::default(),
                requests: AtomicU64::new(0),
                writes: AtomicU64::new(0),
                watch_round: tokio::sync::watch::Sender::new(0),
            }),
            accepting: Mutex::default(),
            runtime,
        };
        endpoint.accept(listener);
        Ok(endpoint)
    }

    fn accept(&self, listener: TcpListener) {
        let task = self
            .runtime
            .spawn(serve(listener, Arc::clone(&self.shared)));
        *self.slot() = Some(task);
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<JoinHandle<()>>> {
        self.accepting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes away: the port is closed and every connection broken.
    pub fn go_away(&self) {
        let Some(task) = self.slot().take() else {
            return;
        };
        task.abort();
        // The task's end closes the port; nothing else is to be told.
        drop(self.runtime.block_on(task));
    }

    /// Comes back on the same port with the objects it had.
    ///
    /// # Errors
    ///
    /// When the port was taken meanwhile.
    pub fn come_back(&self) -> io::Result<()> {
        let listener = self.runtime.block_on(TcpListener::bind(self.address))?;
        self.accept(listener);
        Ok(())
    }

    /// Answers the next `times` requests of that sort with a status code.
    pub fn answer(&self, code: u16, which: Which, times: usize) {
        let mut faults = self
            .shared
            .faults
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        faults.answers.extend(vec![(code, which); times]);
    }

    /// Ends every watch, as an API server does when it restarts.
    pub fn close_watches(&self) {
        self.shared.watch_round.send_modify(|round| *round += 1);
    }

    /// Forgets the history of changes: watches from an old resource version are answered with 410.
    pub fn compact(&self) {
        self.shared.store.compact();
    }

    /// Returns how many requests came in, and how many of them were to change something.
    #[must_use]
    pub fn requests(&self) -> (u64, u64) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (count(&self.shared.requests), count(&self.shared.writes))
    }

    /// Returns the endpoint's address as a URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Writes a kubeconfig for the endpoint into a folder and returns its path.
    ///
    /// # Errors
    ///
    /// When the folder does not take it.
    pub fn kubeconfig(&self, folder: &Path) -> io::Result<PathBuf> {
        let path = folder.join("kubeconfig");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "endpoint",
            "clusters": [{"name": "endpoint", "cluster": {"server": self.url()}}],
            "users": [{"name": "tester", "user": {}}],
            "contexts": [{"name": "endpoint", "context": {"cluster": "endpoint", "user": "tester"}}],
        });
        std::fs::write(&path, config.to_string())?;
        Ok(path)
    }

    /// Creates or replaces an object.
    ///
    /// # Panics
    ///
    /// When the object has no name.
    pub fn put(&self, resource: &Resource, object: Value) -> Value {
        self.shared.store.put(resource, object)
    }

    /// Returns an object.
    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> Option<Value> {
        self.shared.store.get(key)
    }

    /// Changes an object, as another client would.
    pub fn change(&self, key: &ObjectKey, edit: impl FnOnce(&mut Value)) -> Option<Value> {
        self.shared.store.change(key, edit)
    }

    /// Removes an object at once.
    pub fn remove(&self, key: &ObjectKey) -> Option<Value> {
        self.shared.store.remove(key)
    }

    /// Returns all objects of a resource.
    #[must_use]
    pub fn list(&self, resource: &Resource) -> Vec<Value> {
        self.shared.store.list(resource)
    }

    /// Waits until an object is as wanted and returns it.
    ///
    /// # Errors
    ///
    /// The last state of the object when the time is over.
    pub fn wait_for(
        &self,
        key: &ObjectKey,
        patience: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value, Option<Value>> {
        let deadline = Instant::now() + patience;
        self.shared
            .store
            .wait(deadline, |store| {
                store.get(key).filter(|object| wanted(object))
            })
            .ok_or_else(|| self.get(key))
    }

    /// Waits until some object of a resource is as wanted and returns it; `None` when the time is over.
    pub fn wait_for_any(
        &self,
        resource: &Resource,
        patience: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Option<Value> {
        let deadline = Instant::now() + patience;
        let store = &self.shared.store;
        store.wait(deadline, |store| store.find(resource, &wanted))
    }
}

impl Drop for ApiEndpoint {
    fn drop(&mut self) {
        self.go_away();
    }
}

/// Accepts connections until it is aborted; its connections end with it.
async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                connections.spawn(connection(stream, Arc::clone(&shared)));
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    let service =
        hyper::service::service_fn(move |request| http::answer(Arc::clone(&shared), request));
    let io = hyper_util::rt::TokioIo::new(stream);
    // A client that breaks off is its own affair.
    drop(
        hyper::server::conn::http1::Builder::new()
            .serve_connection(io, service)
            .await,
    );
}

#[cfg(test)]
mod tests;
