//! Launchers on record from before the handler started: they run, or they ended meanwhile.

use std::io;
use std::sync::Arc;

use tokio::time::{Instant, sleep};

use super::minder::mark_unresponsive;
use super::node::Node;
use super::records::Ghost;
use super::{AttachError, VmiIdentity};

/// Attaches to a launcher on record; tells that it is lost when that cannot be done in the watchdog's time.
pub(super) async fn adopt(node: Arc<Node>, ghost: Ghost) {
    let stop = node.stop.clone();
    let _ = stop
        .run_until_cancelled(try_until_settled(&node, &ghost))
        .await;
}

async fn try_until_settled(node: &Node, ghost: &Ghost) {
    let began = Instant::now();
    let vmi = VmiIdentity {
        key: ghost.key.clone(),
        uid: ghost.uid.clone(),
        pod_uids: vec![ghost.pod_uid.clone()],
    };
    loop {
        let turn = node.turn(&ghost.uid);
        let has_turn = turn.lock().await;
        if node.known(&vmi).is_some() {
            return;
        }
        let Err(error) = node.attach(ghost).await else {
            return;
        };
        let is_patient = began.elapsed() < node.patience.watchdog;
        if !is_gone(&error) && is_patient {
            drop(has_turn);
            sleep(node.patience.watchdog / 10).await;
            continue;
        }
        tracing::debug!(vmi = %ghost.key, %error, "launcher on record cannot be attached to");
        node.bury(ghost, epitaph(&error)).await;
        if matches!(error, AttachError::Silent { .. }) {
            mark_unresponsive(node.paths.clone(), ghost.pod_uid.clone()).await;
        }
        return;
    }
}

/// Whether nobody is behind the socket any more.
fn is_gone(error: &AttachError) -> bool {
    match error {
        AttachError::NotYet(_) => true,
        AttachError::Connect { source, .. } => matches!(
            source.kind(),
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
        ),
        _ => false,
    }
}

fn epitaph(error: &AttachError) -> String {
    match error {
        AttachError::NotYet(_) => {
            "launcher is gone without a final event: its command socket is not there".to_owned()
        }
        error if is_gone(error) => {
            "launcher is gone without a final event: nobody listens on its command socket"
                .to_owned()
        }
        error => format!(
            "launcher from before the handler's start cannot be taken over: failed to {error}"
        ),
    }
}
