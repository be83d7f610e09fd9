//! What every handler is given.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use actix::Addr;
use vtorc_actors::registry::Registry;
use vtorc_actors::services::Services;

use crate::access::Access;

/// What the handlers need.
#[derive(Clone)]
pub struct WebContext {
    /// The board, the history, the settings.
    pub services: Services,
    /// Where requests go.
    pub registry: Addr<Registry>,
    /// Who may do what.
    pub access: Access,
    /// The configuration in force, without its secrets.
    pub config: serde_json::Value,
    /// When the process began.
    pub started: Instant,
    /// The console's files, if not the embedded ones.
    pub console_directory: Option<PathBuf>,
    /// Those who are told all that changes.
    pub streams: Streams,
}

/// The streams of events that are open. Each is a connection for as long as its reader likes.
#[derive(Clone, Debug)]
pub struct Streams {
    open: Arc<AtomicUsize>,
    most: usize,
}

/// An open stream; it makes room when it is dropped.
#[derive(Debug)]
pub(crate) struct OpenStream(Arc<AtomicUsize>);

impl Streams {
    /// So many may be open at once.
    pub fn at_most(most: usize) -> Self {
        Self { open: Arc::default(), most }
    }

    /// Opens one, if there is room.
    pub(crate) fn open(&self) -> Option<OpenStream> {
        let before = self.open.fetch_add(1, Ordering::AcqRel);
        let opened = OpenStream(self.open.clone());
        (before < self.most).then_some(opened)
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_goes_makes_room() {
        let streams = Streams::at_most(2);
        let (first, second) = (streams.open(), streams.open());
        assert!(first.is_some() && second.is_some() && streams.open().is_none());
        drop(first);
        assert!(streams.open().is_some());
        assert!(streams.open().is_some(), "one that was refused takes no room");
    }
}
