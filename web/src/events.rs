//! The stream of all that changes, as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::web::Bytes;
use futures::stream::{self, Stream};
use serde_json::json;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;
use vtorc_actors::board::Event;
use vtorc_actors::services::Services;

use crate::asker::Reader;
use crate::context::OpenStream;
use crate::error::ApiError;
use crate::system::system_json;
use crate::views::{RecoveryView, ShardView};

/// A comment keeps the connection open, so often.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

pub(crate) async fn events(reader: Reader) -> Result<HttpResponse, ApiError> {
    let room = reader.streams.open();
    let room = room.ok_or_else(|| ApiError::unavailable("too many streams of events are open"))?;
    let changes = reader.services.board.subscribe();
    let changes = changes.ok_or_else(|| ApiError::unavailable("there are no events"))?;
    Ok(HttpResponse::Ok()
        .insert_header(("Content-Type", "text/event-stream"))
        .insert_header(("Cache-Control", "no-store"))
        // Compression would hold events back.
        .insert_header(("Content-Encoding", "identity"))
        .streaming(stream(reader.services.clone(), changes, room)))
}

fn stream(
    services: Services,
    changes: Receiver<Event>,
    room: OpenStream,
) -> impl Stream<Item = Result<Bytes, Infallible>> {
    stream::unfold(Some((services, changes, room, true)), |state| async move {
        let (services, mut changes, room, first) = state?;
        if first {
            let hello = message("system", &system_json(&services));
            return Some((Ok(Bytes::from(hello)), Some((services, changes, room, false))));
        }
        let text = next(&services, &mut changes).await?;
        Some((Ok(Bytes::from(text)), Some((services, changes, room, false))))
    })
}

/// The next change as text; none when the process ends.
async fn next(services: &Services, changes: &mut Receiver<Event>) -> Option<String> {
    match timeout(KEEP_ALIVE, changes.recv()).await {
        Ok(Ok(event)) => Some(render(services, &event)),
        // Too slow to be told everything: read it all anew.
        Ok(Err(RecvError::Lagged(_))) => Some(message("resync", &json!({}))),
        Ok(Err(RecvError::Closed)) => None,
        Err(_elapsed) if services.is_ending() => None,
        Err(_elapsed) => Some(": still here\n\n".into()),
    }
}

fn render(services: &Services, event: &Event) -> String {
    match event {
        Event::Shard(report) => message("shard", &ShardView::of(report)),
        Event::ShardGone(name) => {
            message("shard-gone", &json!({ "keyspace": name.keyspace, "shard": name.shard }))
        }
        Event::Recovery(record) => message("recovery", &RecoveryView::of(record)),
        Event::System => message("system", &system_json(services)),
    }
}

fn message(kind: &str, data: &impl serde::Serialize) -> String {
    // Views are plain data: they always serialise.
    let data = serde_json::to_string(data).unwrap_or_default();
    format!("event: {kind}\ndata: {data}\n\n")
}
