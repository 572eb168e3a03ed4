//! One event to one instance, and its replies to their stream, before anything is acknowledged.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout};
use weft_proto::{Error, ErrorKind, QualifiedName, Reason};

use crate::delivery::{InstanceId, Outcome, Place};
use crate::port::Mesh;
use crate::push::{Delivery, Target};

/// Longest wait until replies are stored; the event is then tried again later.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(30);

/// Everything one push needs.
pub(super) struct Push {
    pub(super) place: Place,
    pub(super) instance: InstanceId,
    pub(super) target: Arc<Target>,
    pub(super) event: Bytes,
    pub(super) delivery: Delivery,
    pub(super) function: QualifiedName,
    pub(super) reply_to: Option<QualifiedName>,
    pub(super) mesh: Arc<dyn Mesh>,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Pushed {
    pub(super) place: Place,
    pub(super) instance: InstanceId,
    pub(super) attempt: u32,
    pub(super) outcome: Outcome,
    pub(super) error: Option<String>,
    pub(super) replies: usize,
    pub(super) took: Duration,
}

pub(super) async fn deliver(push: Push) -> Pushed {
    let started = Instant::now();
    let answer = push.target.push(&push.event, &push.delivery, &push.function).await;
    let mut pushed = Pushed {
        place: push.place,
        instance: push.instance,
        attempt: push.delivery.attempt,
        outcome: answer.outcome,
        error: answer.error,
        replies: 0,
        took: started.elapsed(),
    };
    let Some(stream) = push.reply_to.filter(|_| !answer.replies.is_empty()) else { return pushed };
    let count = answer.replies.len();
    match publish(push.mesh.as_ref(), &stream, answer.replies).await {
        Ok(()) => pushed.replies = count,
        Err(error) => {
            // What can never be stored blocks the event; anything else is our trouble, not the
            // function's, and burns no attempt.
            pushed.outcome = match error.kind() {
                ErrorKind::Invalid => Outcome::Refused,
                _ => Outcome::ReplyFailed,
            };
            let message = error.message();
            pushed.error = Some(format!("the reply could not be stored in {stream}: {message}"));
        }
    }
    pushed
}

async fn publish(
    mesh: &dyn Mesh,
    stream: &QualifiedName,
    replies: Vec<Bytes>,
) -> Result<(), Error> {
    let late = |_| Error::new(Reason::DeadlineExceeded, "no answer in time");
    let results = timeout(PUBLISH_TIMEOUT, mesh.publish(stream, replies)).await.map_err(late)??;
    for result in results {
        match result {
            // An earlier attempt stored an event with this source and id: by the rules of
            // CloudEvents it is the same event.
            Err(error) if error.reason() == Reason::AlreadyExists => {}
            other => other?,
        }
    }
    Ok(())
}
