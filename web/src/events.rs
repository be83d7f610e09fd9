//! The stream of all that changes, as server-sent events.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;

use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse, web};
use futures::stream::{self, Stream};
use serde_json::json;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;
use vtorc_actors::board::Event;
use vtorc_actors::world::World;

use crate::error::ApiError;
use crate::server::WebContext;
use crate::system::system_json;
use crate::views::{RecoveryView, ShardView};

/// A comment keeps the connection open, so often.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Changes that come so close together are sent together.
const TOGETHER: Duration = Duration::from_millis(30);

pub(crate) async fn events(
    request: HttpRequest,
    context: web::Data<WebContext>,
) -> Result<HttpResponse, ApiError> {
    context.access.may_read(&request)?;
    let changes = context.world.board.subscribe();
    let changes = changes.ok_or_else(|| ApiError::unavailable("there are no events"))?;
    Ok(HttpResponse::Ok()
        .insert_header(("Content-Type", "text/event-stream"))
        .insert_header(("Cache-Control", "no-store"))
        // Compression would hold events back.
        .insert_header(("Content-Encoding", "identity"))
        .streaming(stream(context.world.clone(), changes)))
}

fn stream(world: World, changes: Receiver<Event>) -> impl Stream<Item = Result<Bytes, Infallible>> {
    stream::unfold(Some((world, changes, true)), |state| async move {
        let (world, mut changes, first) = state?;
        if first {
            let hello = message("system", &system_json(&world));
            return Some((Ok(Bytes::from(hello)), Some((world, changes, false))));
        }
        let text = next(&world, &mut changes).await?;
        Some((Ok(Bytes::from(text)), Some((world, changes, false))))
    })
}

/// The next changes as text; none when the process ends.
async fn next(world: &World, changes: &mut Receiver<Event>) -> Option<String> {
    let mut seen = BTreeSet::new();
    let mut text = String::new();
    let first = match timeout(KEEP_ALIVE, changes.recv()).await {
        Ok(Ok(event)) => event,
        Ok(Err(RecvError::Lagged(_))) => return Some(message("resync", &json!({}))),
        Ok(Err(RecvError::Closed)) => return None,
        Err(_elapsed) if world.is_ending() => return None,
        Err(_elapsed) => return Some(": still here\n\n".into()),
    };
    let mut event = Some(first);
    while let Some(change) = event.take() {
        let key = format!("{change:?}");
        if seen.insert(key) {
            text.push_str(&render(world, &change));
        }
        event = match timeout(TOGETHER, changes.recv()).await {
            Ok(Ok(event)) if text.len() < 1 << 20 => Some(event),
            Ok(Err(RecvError::Lagged(_))) => return Some(message("resync", &json!({}))),
            Ok(Ok(_) | Err(RecvError::Closed)) | Err(_) => None,
        };
    }
    Some(text)
}

fn render(world: &World, event: &Event) -> String {
    match event {
        Event::Shard(name) => match world.board.shard(name) {
            Some(report) => message("shard", &ShardView::of(&report)),
            None => String::new(),
        },
        Event::ShardGone(name) => {
            message("shard-gone", &json!({ "keyspace": name.keyspace, "shard": name.shard }))
        }
        Event::Recovery(id) => match world.board.recovery(*id) {
            Some(record) => message("recovery", &RecoveryView::of(&record)),
            None => String::new(),
        },
        Event::System => message("system", &system_json(world)),
    }
}

fn message(kind: &str, data: &impl serde::Serialize) -> String {
    // Views are plain data: they always serialise.
    let data = serde_json::to_string(data).unwrap_or_default();
    format!("event: {kind}\ndata: {data}\n\n")
}
