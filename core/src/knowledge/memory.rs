//! What stays known of a server though its next answer does not say it.

use std::collections::BTreeSet;

use crate::gtid::GtidSet;
use crate::ids::TabletAlias;
use crate::status::{Flavor, ReceiverState, ReplicationStatus, ServerStatus};
use crate::time::Timestamp;

/// What a server was seen to have lost of what it wrote. It may write under the same GTIDs again, and then has them
/// without the data that others have. MySQL only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    doubted: Option<GtidSet>,
    certain: Option<GtidSet>,
}

impl Losses {
    /// Takes in what an answer lacks. One answer alone proves nothing: a vttablet reads the position before it reads
    /// whether the server takes writes.
    pub fn hear(&mut self, lacks: GtidSet) {
        if let (GtidSet::MySql(_), Some(doubted)) = (&lacks, &self.doubted) {
            let both = lacks.intersect(doubted);
            if !both.is_empty() {
                let known = self.certain.take();
                self.certain = Some(known.map_or(both.clone(), |known| known.union(&both)));
            }
        }
        self.doubted = Some(lacks).filter(|lacks| !lacks.is_empty());
    }

    /// Takes in what anybody else still has. Where nobody has what was lost, its GTIDs are free: whoever has them
    /// later has what was written anew.
    pub fn keep(&mut self, held: &GtidSet) {
        let kept = self.certain.take().map(|lost| lost.intersect(held));
        self.certain = kept.filter(|lost| !lost.is_empty());
    }

    /// What is lost for certain.
    pub fn certain(&self) -> Option<&GtidSet> {
        self.certain.as_ref()
    }

    /// What a server lost of what it wrote and another one has, by what both say or by what was seen before.
    pub fn lost(&self, own: &ServerStatus, other: &ServerStatus) -> Option<GtidSet> {
        own.lost_to(other).or_else(|| self.kept_in(&other.gtid_received()))
    }

    /// What of that is there still, with somebody who has received this.
    pub fn kept_in(&self, received: &GtidSet) -> Option<GtidSet> {
        let kept = self.certain.as_ref()?.intersect(received);
        Some(kept).filter(|kept| !kept.is_empty())
    }
}

/// What a MariaDB wrote itself while it followed somebody: by somebody's mistake. Its position does not tell of that
/// any more once it has received something later, and its binary logs do not tell when it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnWrites(Option<GtidSet>);

impl OwnWrites {
    /// Takes in an answer and the one before it, of the same server. One that was made anew does not have it any more.
    pub fn hear(&mut self, before: &ServerStatus, now: &ServerStatus) {
        if now.flavor == Flavor::MySql {
            return;
        }
        let (then, own) = (before.logged_itself(), now.logged_itself());
        let known = self.0.take().map(|known| known.intersect(&own));
        let followed = before.replication.is_some() && now.replication.is_some();
        let new = followed.then(|| own.subtract(&then));
        let all = match (known, new) {
            (Some(known), Some(new)) => Some(known.union(&new)),
            (known, new) => known.or(new),
        };
        self.0 = all.filter(|all| !all.is_empty());
    }

    /// This was seen to be written.
    pub fn seen(all: Option<GtidSet>) -> Self {
        Self(all)
    }

    /// All that was seen to be written.
    pub fn all(&self) -> Option<&GtidSet> {
        self.0.as_ref()
    }

    /// What of it none of these others has logged. Whoever logged it got it from this server, as from a primary.
    pub fn unknown_to<'a>(
        &self,
        own: &ServerStatus,
        others: impl Iterator<Item = &'a ServerStatus>,
    ) -> Option<GtidSet> {
        let all = self.0.clone()?;
        let left =
            others.fold(all, |left, other| left.subtract(&other.binlog_state.of(own.server_id)));
        Some(left).filter(|left| !left.is_empty())
    }
}

/// When something arrived from a source, by two answers after each other: the receiver ran, and had the same source.
/// (A start of the server in between looks like an arrival.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrivals {
    /// The last time.
    pub last: Option<Timestamp>,
    /// The time before.
    pub before: Option<Timestamp>,
}

impl Arrivals {
    /// Takes in an answer and the one before it.
    pub fn hear(&mut self, before: &ServerStatus, now: &ServerStatus, at: Timestamp) {
        let (Some(then), Some(channel)) = (&before.replication, &now.replication) else { return };
        let runs = |one: &ReplicationStatus| one.receiver == ReceiverState::Running;
        if runs(then)
            && runs(channel)
            && then.has_source_of(channel)
            && then.received_marker != channel.received_marker
        {
            self.before = self.last.replace(at);
        }
    }
}

/// A server's reparent journal when it was last read in this term. No probe reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journal {
    /// How many rows it had. It has no fewer now.
    pub length: u64,
    /// What the server had committed then. With the same, its journal is the same.
    pub executed: GtidSet,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_answers_make_a_loss_certain() {
        let set = |text: &str| GtidSet::parse_mysql(text).unwrap();
        let (uuid, none) = ("3e11fa47-71ca-11e1-9e33-c80aa9429562", GtidSet::empty_mysql());
        let mut losses = Losses::default();
        losses.hear(set(&format!("{uuid}:5-9")));
        assert_eq!(losses.certain(), None);
        losses.hear(none.clone());
        losses.hear(set(&format!("{uuid}:5-9")));
        assert_eq!(losses.certain(), None, "it was there in between");
        losses.hear(set(&format!("{uuid}:7-12")));
        assert_eq!(losses.certain(), Some(&set(&format!("{uuid}:7-9"))));
        losses.hear(none);
        assert_eq!(losses.certain(), Some(&set(&format!("{uuid}:7-9"))));
        let kept = losses.kept_in(&set(&format!("{uuid}:1-8")));
        assert_eq!(kept, Some(set(&format!("{uuid}:7-8"))));
        assert_eq!(losses.kept_in(&set(&format!("{uuid}:1-6"))), None);
        losses.keep(&set(&format!("{uuid}:1-8")));
        assert_eq!(losses.certain(), Some(&set(&format!("{uuid}:7-8"))));
        losses.keep(&set(&format!("{uuid}:1-6")));
        assert_eq!(losses.kept_in(&set(&format!("{uuid}:1-9"))), None, "it was written anew");
    }
}

/// When a primary last answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastHeard {
    /// Which primary.
    pub primary: TabletAlias,
    /// When.
    pub at: Timestamp,
    /// Who acknowledged by what they said last. A process that comes later may have to know that of a tablet that it
    /// never hears, whatever type that has by then.
    pub ackers: BTreeSet<TabletAlias>,
}
