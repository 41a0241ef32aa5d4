//! Health and metrics over HTTP.

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use axum::Router;
use axum::routing::get;
use http::StatusCode;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Whether this controller holds the lease.
pub(super) static LEADS: AtomicBool = AtomicBool::new(false);
/// Whether this controller knows the cluster.
pub(super) static IS_READY: AtomicBool = AtomicBool::new(false);
/// Decisions so far, and how many of them failed.
pub(super) static DECISIONS: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

/// Serves `/healthz`, `/leader` and `/metrics` until told to stop.
pub(super) async fn serve(listener: TcpListener, stop: CancellationToken) {
    let router = Router::new()
        .route("/healthz", get(async || "ok"))
        .route("/leader", get(leader))
        .route("/metrics", get(async || metrics()));
    let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = served.await {
        warn!(%error, "health and metrics are no longer served");
    }
}

async fn leader() -> (StatusCode, &'static str) {
    if LEADS.load(Ordering::Relaxed) {
        (StatusCode::OK, "leader")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "follower")
    }
}

fn metrics() -> String {
    let mut text = String::new();
    let flag = |flag: &AtomicBool| u64::from(flag.load(Ordering::Relaxed));
    for (name, kind, help, value) in [
        (
            "kubevirt_virt_controller_leading_status",
            "gauge",
            "Whether this virt-controller leads.",
            flag(&LEADS),
        ),
        (
            "kubevirt_virt_controller_ready_status",
            "gauge",
            "Whether this virt-controller can lead.",
            flag(&IS_READY),
        ),
        (
            "ferrovirt_controller_decisions_total",
            "counter",
            "Objects looked at.",
            DECISIONS[0].load(Ordering::Relaxed),
        ),
        (
            "ferrovirt_controller_failures_total",
            "counter",
            "Objects looked at in vain.",
            DECISIONS[1].load(Ordering::Relaxed),
        ),
    ] {
        let _infallible = writeln!(
            text,
            "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}"
        );
    }
    text
}
