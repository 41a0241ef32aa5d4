//! What is known of one launcher's domain, from its events and its answers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proto::domain::Domain;
use tokio::sync::Notify;

use super::call::CommandError;
use super::launcher::{Launcher, Told};
use super::outbox::Outbox;
use super::records::Records;
use super::{Seen, on_disk};

#[derive(Debug, Default)]
struct State {
    domain: Option<Arc<Domain>>,
    /// Counts the events: an answer to a question from before the last one is old.
    events: u64,
    /// Whether the launcher told how its domain ended.
    is_final: bool,
    /// Whether the launcher has answered how its domain is.
    was_answered: bool,
    /// Why no command reaches the launcher any more.
    end: Option<String>,
}

/// What is known of one launcher's domain.
#[derive(Debug)]
pub(super) struct View {
    pub(super) launcher: Launcher,
    records: Records,
    outbox: Arc<Outbox>,
    state: Mutex<State>,
    wish: Notify,
}

/// An answer to the question how the domain is.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) told: Told,
    events_before: u64,
}

impl View {
    pub(super) fn new(launcher: Launcher, records: Records, outbox: Arc<Outbox>) -> Self {
        Self {
            launcher,
            records,
            outbox,
            state: Mutex::default(),
            wish: Notify::new(),
        }
    }

    pub(super) fn domain(&self) -> Option<Arc<Domain>> {
        self.lock().domain.clone()
    }

    /// Why no command reaches the launcher any more.
    pub(super) fn end(&self) -> Option<String> {
        self.lock().end.clone()
    }

    /// Makes the domain be asked for soon.
    pub(super) fn wish_for_domain(&self) {
        self.wish.notify_one();
    }

    /// Returns once the domain is to be asked for.
    pub(super) async fn wished(&self) {
        self.wish.notified().await;
    }

    /// Notes that the launcher told before, to a handler before this one, how its domain ended.
    pub(super) fn expect_nothing_more(&self) {
        self.lock().is_final = true;
    }

    /// Asks the launcher how its domain is.
    pub(super) async fn ask(&self) -> Result<Answer, CommandError> {
        let events_before = self.lock().events;
        let told = self.launcher.tell_domain().await?;
        Ok(Answer {
            told,
            events_before,
        })
    }

    /// Takes an answer, unless an event came after the question.
    pub(super) async fn take_answer(&self, answer: Answer) -> Result<(), CommandError> {
        let domain = answer.told.own(&self.launcher)?;
        if let Some(domain) = &domain {
            self.keep_if_final(domain).await;
        }
        let mut state = self.lock();
        if state.events != answer.events_before {
            return Ok(());
        }
        let is_news = domain.is_some() || state.domain.is_some() || !state.was_answered;
        state.was_answered = true;
        if is_news {
            self.set(&mut state, domain);
        }
        Ok(())
    }

    /// Takes what an event says.
    pub(super) async fn take_event(&self, domain: Option<Domain>) {
        if let Some(domain) = &domain {
            self.keep_if_final(domain).await;
        }
        let mut state = self.lock();
        state.events += 1;
        self.set(&mut state, domain);
    }

    /// Passes a Kubernetes event on, and returns whether there was room for it.
    pub(super) fn pass_on(&self, event: serde_json::Value) -> bool {
        let key = self.launcher.key.clone();
        self.outbox
            .push(&self.launcher.uid, Seen::Event { key, event })
    }

    /// Gives the launcher up.
    pub(super) fn lose(&self, reason: String) {
        self.lock().end = Some(reason.clone());
        tracing::warn!(vmi = %self.launcher.key, uid = self.launcher.uid, reason, "launcher is lost");
        let key = self.launcher.key.clone();
        let uid = self.launcher.uid.clone();
        self.outbox
            .push(&self.launcher.uid, Seen::Lost { key, uid, reason });
        self.launcher.ended().cancel();
    }

    /// Notes that the launcher's process is gone.
    pub(super) fn process_gone(&self) {
        let pid = self.launcher.pid;
        if !self.lock().is_final {
            self.lose(format!(
                "launcher process {pid} is gone without a final event"
            ));
            return;
        }
        self.lock().end = Some(format!("launcher process {pid} has ended"));
        tracing::info!(vmi = %self.launcher.key, uid = self.launcher.uid, pid, "launcher has ended");
        self.launcher.ended().cancel();
    }

    fn set(&self, state: &mut State, domain: Option<Domain>) {
        let key = self.launcher.key.clone();
        let uid = self.launcher.uid.clone();
        state.domain = domain.map(Arc::new);
        let seen = match state.domain.clone() {
            Some(domain) => {
                state.is_final |= domain.meta.deletion_timestamp.is_some();
                Seen::Domain { key, uid, domain }
            }
            None => Seen::NoDomain { key, uid },
        };
        self.outbox.push(&self.launcher.uid, seen);
    }

    /// The launcher may end once its last word is acknowledged, and this handler may before it was acted on.
    async fn keep_if_final(&self, domain: &Domain) {
        if domain.meta.deletion_timestamp.is_none() {
            return;
        }
        let (records, domain) = (self.records.clone(), domain.clone());
        let uid = self.launcher.uid.clone();
        if let Err(error) = on_disk(move || records.keep_final(&uid, &domain)).await {
            tracing::error!(vmi = %self.launcher.key, %error, "domain's end is not on record");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
