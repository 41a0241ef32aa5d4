//! What is measured of machines and of this node agent, for Prometheus and for `vmstats`.
//!
//! Names and labels are upstream's, as far as it has them. All launchers are asked at once and have a short time for their answer, so one that
//! is silent costs the others nothing.

mod consoles;
mod devices;
mod families;
mod instances;
mod machine;
mod overhead;
mod phases;
mod samples;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use device_plugins::report::Report;
use futures::future::join_all;
use http::{StatusCode, header};
use proto::stats::DomainStats;
use serde_json::{Map, Value, json};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use self::phases::PhaseTimes;
use self::samples::Samples;
use crate::launchers::{Launcher, Launchers};
use crate::server::Consoles;
use crate::server::answer::{Refusal, fall_back};
use crate::store::VmiStore;

/// Time for a launcher to answer.
const ANSWER: Duration = Duration::from_millis(1500);
/// Media type of what Prometheus reads.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is measured.
#[derive(Clone, Debug)]
pub struct MetricsSetup {
    /// Name of this node.
    pub node: String,
    /// The launchers.
    pub launchers: Launchers,
    /// The instances of this node.
    pub instances: VmiStore,
    /// Who sits at a console.
    pub consoles: Consoles,
    /// What device plugins offer.
    pub devices: watch::Receiver<Arc<Report>>,
    /// Requests that are served at once.
    pub requests_max: usize,
}

/// Answers requests.
#[derive(Debug)]
struct Gauges {
    setup: MetricsSetup,
    room: Semaphore,
    phases: PhaseTimes,
}

/// What is known of one machine at the moment.
#[derive(Debug)]
struct Reading {
    launcher: Launcher,
    stats: Option<DomainStats>,
    filesystems: Option<Value>,
    process_resident_bytes: Option<u64>,
}

/// Returns the routers of metrics with health, and of machines' counters.
pub(crate) fn routers(setup: MetricsSetup) -> (Router, Router) {
    let gauges = Arc::new(Gauges {
        room: Semaphore::new(setup.requests_max.max(1)),
        phases: PhaseTimes::new(jiff::Timestamp::now()),
        setup,
    });
    let metrics = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(health));
    let counters = Router::new().route("/v1/vmstats", get(counters));
    (
        fall_back(metrics).with_state(Arc::clone(&gauges)),
        fall_back(counters).with_state(gauges),
    )
}

/// A node agent that answers is well: machines run on, whether the API server is there or not.
async fn health(State(gauges): State<Arc<Gauges>>) -> Json<Value> {
    let is_known = gauges.setup.instances.is_complete();
    let connectivity = if is_known { "ok" } else { "unknown" };
    Json(json!({"apiserver": {"connectivity": connectivity}}))
}

async fn metrics(State(gauges): State<Arc<Gauges>>) -> Result<Response, Refusal> {
    let _place = gauges.enter()?;
    let readings = gauges.read_all().await;
    let text = gauges.samples(&readings).into_text();
    Ok(([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response())
}

async fn counters(State(gauges): State<Arc<Gauges>>) -> Result<Json<Value>, Refusal> {
    let _place = gauges.enter()?;
    let asked = gauges.present().into_iter().map(count);
    let stats: Map<String, Value> = join_all(asked).await.into_iter().flatten().collect();
    Ok(Json(stats.into()))
}

impl Gauges {
    /// Takes one of the places for requests.
    fn enter(&self) -> Result<tokio::sync::SemaphorePermit<'_>, Refusal> {
        self.room.try_acquire().map_err(|_| {
            let message = "as many requests as may be are being served; try again";
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message)
        })
    }

    /// Returns the launchers that can be asked.
    fn present(&self) -> Vec<Launcher> {
        let mut launchers = self.setup.launchers.all();
        launchers.retain(|launcher| !launcher.has_ended());
        launchers
    }

    async fn read_all(&self) -> Vec<Reading> {
        let present = self.present();
        let resident = overhead::resident_bytes(&present);
        let asked = join_all(present.iter().cloned().map(read));
        let (readings, resident) = tokio::join!(asked, resident);
        let mut readings = readings;
        for (reading, resident) in readings.iter_mut().zip(resident) {
            reading.process_resident_bytes = resident;
        }
        readings
    }

    fn samples(&self, readings: &[Reading]) -> Samples {
        let setup = &self.setup;
        let mut samples = Samples::default();
        for reading in readings {
            machine::add(&mut samples, &setup.node, reading);
        }
        let instances = setup.instances.all();
        instances::add(&mut samples, setup, &instances);
        consoles::add(&mut samples, setup);
        let report = Arc::clone(&setup.devices.borrow());
        devices::add(&mut samples, &report);
        self.phases.note(&instances);
        samples.histograms(self.phases.histograms());
        samples
    }
}

/// Asks a launcher for its counters.
async fn count(launcher: Launcher) -> Option<(String, Value)> {
    let stats = timeout(ANSWER, launcher.domain_stats())
        .await
        .ok()?
        .ok()??;
    let stats = serde_json::to_value(stats).ok()?;
    Some((launcher.key.to_string(), stats))
}

/// Asks a launcher; what it does not answer in time is left out.
async fn read(launcher: Launcher) -> Reading {
    let (stats, filesystems) = tokio::join!(
        timeout(ANSWER, launcher.domain_stats()),
        timeout(ANSWER, launcher.filesystems()),
    );
    let stats = stats.ok().and_then(Result::ok).flatten();
    let filesystems = filesystems.ok().and_then(Result::ok);
    Reading {
        launcher,
        stats,
        filesystems,
        process_resident_bytes: None,
    }
}
