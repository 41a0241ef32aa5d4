//! All plugins of a node: looks at the host when something changes, and keeps one plugin per resource.
//!
//! ```text
//!   Wanted ──┐                    ┌──────────── look ────────────┐
//!   uevents ─┼─► Schedule ──due──►│ prepare, discover, who has it │ (blocking)
//!   inotify ─┘                    └──────────────┬───────────────┘
//!                                                ▼
//!                    held (kubelet's record + Ledger) ─► plan ─► Offers ─► runners, Report
//!                                  ▲
//!   Allocate ─► choose ─► order ───┘ (blocking: one after the other, since they change the ledger)
//! ```
//!
//! One task owns all of it. What blocks is done elsewhere, and comes back as a value: a look that takes long because a
//! driver takes long to be bound does not keep anybody from getting a device that is there.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::report::{self, Report};
use crate::runner::AllocateError;
use crate::source::Host;
use crate::unit::Unit;
use crate::wanted::{Problem, Wanted};

pub(crate) use checkpoint::InUse;
use events::{Change, Events};
use faults::{About, Faults};
use grant::{Desk, Request};
use ledger::{Entry, Ledger};
use look::{Devices, Seen, Sources};
use plan::Held;
pub(crate) use plan::Offers;
use running::Running;
use schedule::Schedule;

mod checkpoint;
mod events;
mod faults;
mod grant;
mod ledger;
mod look;
mod nodes;
mod plan;
pub(crate) mod record;
mod running;
mod schedule;

/// What looks are called where they do not go well.
const LOOKING: &str = "looking at the host's devices";
/// What the ledger's file is called where it does not go well with it.
const RECORD: &str = "the record of given devices";
/// How long jobs may take to end.
const JOBS_END_MAX: Duration = Duration::from_secs(3);

/// What the plugins of a node run with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Folders of the host.
    pub host: Host,
    /// User and group of the launchers, who own devices while they have them.
    pub launcher_id: u32,
}

/// Runs the plugins until stopped. Tells in `report` what is offered and why something is missing, on every change, and
/// writes the same to [`report::FILE_NAME`] in the folder for records of our own, for as long as it runs.
pub async fn run(
    setup: Setup,
    mut wanted: watch::Receiver<Wanted>,
    report: watch::Sender<Arc<Report>>,
    stop: CancellationToken,
) {
    let (sender, mut requests) = mpsc::channel(grant::REQUESTS_MAX);
    let told = Arc::new(Notify::new());
    let running = Running::new(Desk(sender), told.clone());
    let mut plugins = Plugins::new(setup, running, report);
    plugins.begin(&wanted.borrow_and_update().clone());
    let mut is_wanted_open = true;
    loop {
        let due = plugins.due();
        tokio::select! {
            () = stop.cancelled() => break,
            change = plugins.events.next() => plugins.changed(change),
            changed = wanted.changed(), if is_wanted_open => match changed {
                Ok(()) => plugins.begin(&wanted.borrow_and_update().clone()),
                Err(_) => is_wanted_open = false,
            },
            Some(request) = requests.recv(), if plugins.has_room() => plugins.order(Order::Give(request)),
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => plugins.on_time(),
            done = plugins.jobs.join_next(), if !plugins.jobs.is_empty() => plugins.done(done),
            () = plugins.running.ended() => plugins.offer(),
            () = told.notified() => plugins.tell(),
        }
    }
    plugins.end().await;
}

/// What the task owns.
struct Plugins {
    setup: Setup,
    sources: Sources,
    problems: Vec<Problem>,
    // What was seen.
    events: Events,
    schedule: Schedule,
    /// Whether the look that is under way takes long.
    is_slow: bool,
    seen: Devices,
    in_use: Arc<Vec<InUse>>,
    // What was given. The ledger is away while a job has it.
    ledger: Option<Ledger>,
    given: Vec<Entry>,
    settle_at: Option<Instant>,
    orders: VecDeque<Order>,
    /// Requests for devices that were not there; they wait for the host to be looked at.
    waiting: Vec<Request>,
    // What follows.
    held: Vec<Held>,
    offers: Offers,
    running: Running,
    report: watch::Sender<Arc<Report>>,
    is_report_written: bool,
    is_writing: bool,
    faults: Faults,
    jobs: JoinSet<Done>,
}

/// What changes the ledger, one after the other.
enum Order {
    /// A container is to be given devices.
    Give(Request),
    /// The kubelet's record was read, or time has passed.
    Settle(Option<Arc<Vec<InUse>>>),
}

/// What a job has done.
enum Done {
    Opened(Ledger, Option<String>),
    Looked(Seen),
    Gave(Ledger, Request, Gave),
    Settled(Ledger, Option<String>),
    Wrote(Option<String>),
}

/// How giving ended, and what is wrong with the record.
type Gave = Result<(Vec<(String, Unit)>, Option<String>), AllocateError>;

impl Plugins {
    fn new(setup: Setup, running: Running, report: watch::Sender<Arc<Report>>) -> Self {
        let mut faults = Faults::default();
        let (events, missing) = Events::open();
        faults.note("hearing of devices from the kernel", missing);
        let mut jobs = JoinSet::new();
        let (host, launcher_id) = (setup.host.clone(), setup.launcher_id);
        jobs.spawn_blocking(move || {
            let (ledger, fault) = Ledger::open(&host, launcher_id, Instant::now());
            Done::Opened(ledger, fault)
        });
        Self {
            setup,
            sources: Sources::default(),
            problems: Vec::new(),
            events,
            // What was given before must be known at the first look.
            schedule: Schedule::withheld(),
            is_slow: false,
            seen: Devices::default(),
            in_use: Arc::default(),
            ledger: None,
            given: Vec::new(),
            settle_at: None,
            orders: VecDeque::new(),
            waiting: Vec::new(),
            held: Vec::new(),
            offers: Offers::new(),
            running,
            report,
            is_report_written: true,
            is_writing: false,
            faults,
            jobs,
        }
    }

    /// Begins to look for what is wanted now.
    fn begin(&mut self, wanted: &Wanted) {
        self.sources = Arc::new(wanted.sources());
        self.problems.clone_from(&wanted.problems);
        let problems = wanted.problems.iter();
        let problems: BTreeMap<String, String> = problems
            .map(|problem| (problem.field.clone(), problem.text.clone()))
            .collect();
        self.faults.note_all(About::Setting, &problems);
        self.watch();
        self.schedule.ask_at_once(true, Instant::now());
    }

    fn watch(&mut self) {
        let targets = look::targets(&self.setup.host, &self.sources);
        let (unseen, fault) = self.events.watch(targets);
        self.faults.note("watching folders", fault);
        self.changed(unseen);
    }

    fn changed(&mut self, change: Change) {
        if change.sockets {
            self.running.sockets_changed();
        }
        if change.devices || change.holders {
            self.schedule.ask(change.devices, Instant::now());
        }
    }

    /// When there is something to do next.
    fn due(&self) -> Option<Instant> {
        let overdue = self.schedule.overdue().filter(|_| !self.is_slow);
        let times = [self.schedule.next(), self.settle_at, overdue];
        times.into_iter().flatten().min()
    }

    fn on_time(&mut self) {
        let now = Instant::now();
        if self.schedule.next().is_some_and(|at| at <= now) {
            let sight = self.schedule.begin(now);
            let (host, sources) = (self.setup.host.clone(), self.sources.clone());
            let held = look::together(&self.held);
            self.jobs
                .spawn_blocking(move || Done::Looked(look::look(&host, &sources, held, sight)));
        }
        if self.settle_at.is_some_and(|at| at <= now) {
            self.settle_at = None;
            self.schedule.ask_at_once(false, now);
        }
        if self.schedule.overdue().is_some_and(|at| at <= now) && !self.is_slow {
            self.is_slow = true;
            let fault = "takes long, so changes are not seen: a driver or a file of sysfs does not answer; see the kernel's log";
            self.faults.note(LOOKING, Some(fault.to_owned()));
            self.tell();
            self.orders.extend(self.waiting.drain(..).map(Order::Give));
            self.work_off();
        }
    }

    /// Whether another order can be taken.
    fn has_room(&self) -> bool {
        self.orders.len() < grant::REQUESTS_MAX
    }

    fn order(&mut self, order: Order) {
        self.orders.push_back(order);
        self.work_off();
    }

    /// Begins with the next order, if the ledger is there.
    fn work_off(&mut self) {
        while let Some(ledger) = self.ledger.take() {
            match self.orders.pop_front() {
                None => {
                    self.ledger = Some(ledger);
                    return;
                }
                Some(Order::Settle(in_use)) => self.settle(ledger, in_use),
                Some(Order::Give(request)) => self.give(ledger, request),
            }
        }
    }

    fn settle(&mut self, mut ledger: Ledger, in_use: Option<Arc<Vec<InUse>>>) {
        let pods_dir = self.setup.host.pods_dir.clone();
        self.jobs.spawn_blocking(move || {
            let is_there = |pod_uid: &str| checkpoint::is_pod_there(&pods_dir, pod_uid);
            let in_use = in_use.as_ref().map(|in_use| in_use.as_slice());
            let fault = ledger.settle(in_use, is_there, Instant::now());
            Done::Settled(ledger, fault)
        });
    }

    fn give(&mut self, mut ledger: Ledger, request: Request) {
        let offer = self.offers.get(&request.resource).map(Arc::as_ref);
        match grant::choose(&request.resource, &request.ids, offer, &self.held) {
            Ok(units) => {
                self.jobs.spawn_blocking(move || {
                    let given = ledger.give(&request.resource, &units, Instant::now());
                    Done::Gave(ledger, request, given.map(|fault| (units, fault)))
                });
            }
            Err(error) => {
                self.ledger = Some(ledger);
                self.refuse(request, error);
            }
        }
    }

    /// Answers that devices cannot be given. Where they are gone, looks once more before.
    fn refuse(&mut self, mut request: Request, error: AllocateError) {
        let is_gone = matches!(error, AllocateError::Gone { .. });
        if is_gone && request.after.is_none() && self.can_wait() {
            request.after = Some(self.schedule.ask_at_once(true, Instant::now()));
            self.waiting.push(request);
            return;
        }
        tracing::warn!(resource = %request.resource, ids = ?request.ids, %error, "devices were not given");
        // A kubelet that went away needs no answer.
        request.answer.send(Err(error)).ok();
    }

    /// Whether a request can wait for the host to be looked at.
    fn can_wait(&mut self) -> bool {
        // A kubelet that went away waits no more.
        self.waiting.retain(|request| !request.answer.is_closed());
        self.waiting.len() < grant::REQUESTS_MAX && !self.is_slow
    }

    fn done(&mut self, done: Option<Result<Done, tokio::task::JoinError>>) {
        match done {
            Some(Ok(Done::Opened(ledger, fault))) => {
                self.faults.note(RECORD, fault);
                self.take_back(ledger);
                self.schedule.end();
            }
            Some(Ok(Done::Looked(seen))) => self.looked(seen),
            Some(Ok(Done::Gave(ledger, request, gave))) => {
                self.gave(request, gave);
                self.take_back(ledger);
            }
            Some(Ok(Done::Settled(ledger, fault))) => {
                self.faults.note(RECORD, fault);
                self.take_back(ledger);
            }
            Some(Ok(Done::Wrote(fault))) => self.wrote(fault),
            Some(Err(error)) => {
                tracing::error!(%error, "a job of the device plugins broke off");
            }
            None => {}
        }
    }

    /// Takes the ledger back from a job.
    fn take_back(&mut self, ledger: Ledger) {
        let given = ledger.entries();
        // What is over and was not settled waits for the kubelet to write down something.
        self.settle_at = ledger.next_end().filter(|at| *at > Instant::now());
        self.ledger = Some(ledger);
        if given != self.given {
            self.given = given;
            self.offer();
        }
        self.work_off();
    }

    fn looked(&mut self, seen: Seen) {
        let number = self.schedule.end();
        self.is_slow = false;
        self.faults.note(LOOKING, None);
        self.faults.note("the kubelet's record", seen.fault);
        if let Some(devices) = seen.devices {
            self.seen = devices;
        }
        let in_use = seen.in_use.map(Arc::new);
        if let Some(in_use) = &in_use {
            self.in_use.clone_from(in_use);
        }
        self.offer();
        self.watch();
        self.orders.push_back(Order::Settle(in_use));
        let is_ready = |request: &mut Request| request.after.is_none_or(|after| after <= number);
        let ready = self.waiting.extract_if(.., is_ready);
        self.orders.extend(ready.map(Order::Give));
        self.work_off();
    }

    fn gave(&mut self, request: Request, gave: Gave) {
        match gave {
            Ok((units, fault)) => {
                self.faults.note(RECORD, fault);
                let offer = self.offers.get(&request.resource);
                let response = offer
                    .map(|offer| grant::response(offer, &units))
                    .ok_or(AllocateError::Ending);
                tracing::debug!(resource = %request.resource, ids = ?request.ids, "gave devices");
                request.answer.send(response).ok();
            }
            Err(error) => self.refuse(request, error),
        }
    }

    /// Decides what is offered, and has the plugins offer it.
    fn offer(&mut self) {
        self.held = plan::held(&self.in_use, &self.given, &self.seen.found, &self.offers);
        if look::together(&self.held) != self.seen.beside {
            // Which devices make a unit may depend on what containers have.
            self.schedule.ask_at_once(true, Instant::now());
        }
        let offers = plan::plan(&self.seen.found, &self.held, &self.offers);
        if offers != self.offers {
            self.note_left_out(&offers);
        }
        self.offers = offers;
        self.running
            .follow(&self.offers, &self.setup.host.plugin_dir);
        self.tell();
    }

    fn note_left_out(&mut self, offers: &Offers) {
        let left_out = offers.iter().flat_map(|(resource, offer)| {
            let left_out = offer.left_out.iter();
            left_out.map(move |left| (format!("{resource} {}", left.device), left.reason.clone()))
        });
        self.faults.note_all(About::Device, &left_out.collect());
    }

    /// Tells what is offered, if that is something new.
    fn tell(&mut self) {
        let problems = self.problems.iter();
        let mut problems: Vec<String> = problems.map(ToString::to_string).collect();
        problems.extend(self.seen.refusals.iter().cloned());
        problems.extend(self.faults.own());
        let registration = |resource: &_| self.running.registration(resource);
        let now = report::report(&self.offers, &self.in_use, registration, problems);
        if **self.report.borrow() != now {
            self.report.send_replace(Arc::new(now));
            self.is_report_written = false;
        }
        self.write_report();
    }

    fn write_report(&mut self) {
        if self.is_report_written || self.is_writing {
            return;
        }
        self.is_report_written = true;
        self.is_writing = true;
        let path = self.setup.host.private_dir.join(report::FILE_NAME);
        let report = self.report.borrow().clone();
        self.jobs.spawn_blocking(move || {
            let written = report.write(&path);
            Done::Wrote(written.err().map(|error| error.to_string()))
        });
    }

    fn wrote(&mut self, fault: Option<String>) {
        self.faults.note("table of devices", fault);
        self.is_writing = false;
        self.write_report();
    }

    /// Ends the plugins. What containers have stays theirs.
    async fn end(mut self) {
        self.running.end().await;
        let finishing = async {
            while let Some(done) = self.jobs.join_next().await {
                self.done(Some(done));
            }
        };
        // What is under way is noted, but a driver that never answers must not keep the node agent from ending.
        tokio::time::timeout(JOBS_END_MAX, finishing).await.ok();
        let path = self.setup.host.private_dir.join(report::FILE_NAME);
        let removing = tokio::task::spawn_blocking(move || std::fs::remove_file(path));
        // Where it was never written, there is nothing to remove.
        removing.await.ok();
    }
}

#[cfg(test)]
mod tests;
