//! Requests about virtual machines: start, stop, restart, migrate.

mod power;

use api::options::{MigrateOptions, RestartOptions, StartOptions, StopOptions};
use axum::body::Body;
use axum::extract::State;
use axum::routing::put;
use http::StatusCode;
use serde_json::{Value, json};

use super::answer::Refusal;
use super::objects::{Kind, ObjectName, text};
use super::request::{Desk, Named, Route, options};
use power::{Plan, Target, Write};

/// Times that a change is made anew because its object changed meanwhile.
const ATTEMPTS: usize = 5;

/// Returns who answers which action.
pub(super) fn routes() -> Vec<Route> {
    vec![
        ("start", put(start)),
        ("stop", put(stop)),
        ("restart", put(restart)),
        ("migrate", put(migrate)),
    ]
}

async fn start(State(desk): State<Desk>, named: Named, body: Body) -> Result<StatusCode, Refusal> {
    let (options, is_dry) = options::<StartOptions>(body).await?;
    let plan = |vm: &Value, vmi: Option<&Value>| power::start(vm, vmi, &options);
    carry_out(&desk, &named, is_dry, plan).await
}

async fn stop(State(desk): State<Desk>, named: Named, body: Body) -> Result<StatusCode, Refusal> {
    let (options, is_dry) = options::<StopOptions>(body).await?;
    let plan = |vm: &Value, vmi: Option<&Value>| power::stop(vm, vmi, &options);
    carry_out(&desk, &named, is_dry, plan).await
}

async fn restart(
    State(desk): State<Desk>,
    named: Named,
    body: Body,
) -> Result<StatusCode, Refusal> {
    let (options, is_dry) = options::<RestartOptions>(body).await?;
    power::check_restart(&options)?;
    let plan = |vm: &Value, vmi: Option<&Value>| power::restart(vm, vmi, &options);
    carry_out(&desk, &named, is_dry, plan).await
}

/// Reads, plans and writes, again when somebody else wrote in between.
async fn carry_out(
    desk: &Desk,
    named: &Named,
    is_dry: bool,
    plan: impl Fn(&Value, Option<&Value>) -> Plan,
) -> Result<StatusCode, Refusal> {
    let machine = named.object(Kind::Machine);
    for attempt in 1..=ATTEMPTS {
        let vm = desk.objects.get(&machine).await?;
        let vmi = desk.objects.find(&named.object(Kind::Instance)).await?;
        match write(desk, named, plan(&vm, vmi.as_ref())?, is_dry).await {
            Ok(()) => break,
            Err(refusal) if refusal.is_outdated() && attempt < ATTEMPTS => {}
            Err(refusal) if refusal.is_outdated() => {
                let why = format!("it keeps changing: try again ({})", refusal.message());
                return Err(Refusal::conflict(Kind::Machine, &named.name, &why));
            }
            Err(refusal) => return Err(refusal),
        }
    }
    Ok(StatusCode::ACCEPTED)
}

/// Writes in turn; when a write fails, those before it are taken back.
async fn write(
    desk: &Desk,
    named: &Named,
    writes: Vec<Write>,
    is_dry: bool,
) -> Result<(), Refusal> {
    let mut undo: Vec<(ObjectName, &'static str, json_patch::Patch)> = Vec::new();
    for write in writes {
        let (object, part) = match write.target {
            Target::Machine => (named.object(Kind::Machine), ""),
            Target::MachineStatus => (named.object(Kind::Machine), "status"),
            Target::Instance => (named.object(Kind::Instance), ""),
        };
        let done = desk
            .objects
            .patch(&object, part, &write.patch, is_dry)
            .await;
        if let Err(refusal) = done {
            for (object, part, patch) in undo {
                if let Err(refusal) = desk.objects.patch(&object, part, &patch, is_dry).await {
                    tracing::warn!(
                        ?object,
                        error = refusal.message(),
                        "cannot take back a change"
                    );
                }
            }
            return Err(refusal);
        }
        undo.extend(write.undo.map(|patch| (object, part, patch)));
    }
    Ok(())
}

async fn migrate(
    State(desk): State<Desk>,
    named: Named,
    body: Body,
) -> Result<StatusCode, Refusal> {
    let (options, is_dry) = options::<MigrateOptions>(body).await?;
    desk.objects.get(&named.object(Kind::Machine)).await?;
    let vmi = desk.objects.get(&named.object(Kind::Instance)).await?;
    if text(&vmi, "/status/phase") != "Running" {
        let why = power::NOT_RUNNING;
        return Err(Refusal::conflict(Kind::Machine, &named.name, why));
    }
    let mut migration = json!({
        "apiVersion": api::manifest::API_VERSION,
        "kind": api::migration::MIGRATION_KIND,
        "metadata": {"generateName": "kubevirt-migrate-vm-"},
        "spec": {"vmiName": named.name},
    });
    if !options.added_node_selector.is_empty() {
        migration["spec"]["addedNodeSelector"] = json!(options.added_node_selector);
    }
    let namespace = &named.namespace;
    desk.objects
        .create(Kind::Migration, namespace, &migration, is_dry)
        .await?;
    Ok(StatusCode::ACCEPTED)
}
