//! One shard at one moment: what the topology says beside what the probes found.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::durability::{DurabilityPolicy, UnknownPolicy};
use crate::gtid::GtidSet;
use crate::health::{ProbeFailure, Reachability, RecentProbes};
use crate::ids::{KeyspaceShard, TabletAlias};
use crate::sabotage::{self, Bug};
use crate::status::{ReceiverState, ServerStatus, VttabletState};
use crate::tablet::{Tablet, TabletType};
use crate::time::Timestamp;
use crate::topology::{ShardRecord, ShardTopology};

/// Without a word from the source for so many heartbeat periods, a replica does not receive any more.
pub const HEARTBEATS_MISSED_MAX: u32 = 3;

/// One tablet: its record and what is known of its server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TabletState {
    /// The record.
    pub tablet: Tablet,
    /// Whether its server can be reached.
    pub reachability: Reachability,
    /// The last successful probe's answer.
    pub status: Option<ServerStatus>,
    /// When that probe was sent.
    pub status_at: Timestamp,
    /// When it was answered.
    pub answered_at: Timestamp,
    /// Some answers before, and when they came: only what somebody said before another was asked can be held
    /// against the other.
    pub earlier: Vec<Arc<(ServerStatus, Timestamp)>>,
    /// When something last arrived from the source, as far as probes could see.
    pub received_at: Option<Timestamp>,
    /// Since when commits wait for acknowledgements and none gets through, as far as probes could see.
    pub stuck_since: Option<Timestamp>,
    /// Probes failed and succeeded in the last [`crate::health::WINDOW`].
    pub recent: RecentProbes,
}

/// What a replica says about receiving from the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receiving {
    /// It is connected and hears from its source.
    Yes,
    /// It is not connected, or has not heard from its source for three heartbeats.
    No,
    /// Not asked since the question arose, or it cannot tell.
    Unknown,
}

impl TabletState {
    /// The last answer, if the last probe succeeded.
    pub fn valid_status(&self) -> Option<&ServerStatus> {
        self.status.as_ref().filter(|_| self.reachability.is_valid())
    }

    /// What this server wrote itself, lost, and `other` has: by what that answered before this one was asked, as far as
    /// it did not lose it too since. Somebody who cannot be reached any more has not forgotten it by that.
    pub fn lost_to(&self, other: &TabletState) -> Option<GtidSet> {
        let (mine, theirs) = (self.valid_status()?, other.status.as_ref()?);
        let earlier = other.earlier.iter().map(|earlier| (&earlier.0, earlier.1));
        let words = earlier.chain([(theirs, other.answered_at)]);
        let timely = words.filter(|(_, answered_at)| *answered_at <= self.status_at);
        let kept = theirs.gtid_received();
        let lost = timely.filter_map(|(theirs, _)| mine.lost_to(theirs));
        let mut still_there = lost.map(|lost| lost.subtract(&lost.subtract(&kept)));
        still_there.find(|lost| !lost.is_empty())
    }

    /// Its vttablet says that it cannot write to its disk.
    pub fn disk_stalled(&self) -> bool {
        let said = self.valid_status().and_then(|status| status.vttablet.as_ref());
        matches!(said, Some(VttabletState::Answers { disk_stalled: true, .. }))
            || self.reachability.failure() == Some(&ProbeFailure::DiskStalled)
    }

    /// Whether this replica receives from its source, judged only by answers younger than `asked_at`.
    ///
    /// A receiver that is merely idle proves nothing: without heartbeats that can be seen, a running
    /// receiver counts as receiving until the server itself notices.
    pub fn receiving(&self, asked_at: Timestamp, now: Timestamp) -> Receiving {
        let Some(status) = self.valid_status() else { return Receiving::Unknown };
        if self.status_at < asked_at {
            return Receiving::Unknown;
        }
        let Some(replication) = &status.replication else { return Receiving::No };
        match replication.receiver {
            ReceiverState::Stopped | ReceiverState::Connecting => return Receiving::No,
            ReceiverState::Running if sabotage::has(Bug::IdleIsDead) => return Receiving::No,
            ReceiverState::Running => {}
        }
        let Some(period) = replication.heartbeat_period_ms else { return Receiving::Yes };
        if !replication.marker_sees_heartbeats {
            return Receiving::Yes;
        }
        let silence_max = Duration::from_millis(period) * HEARTBEATS_MISSED_MAX;
        match self.received_at {
            Some(received_at) if received_at.age(now) >= silence_max => Receiving::No,
            Some(_) | None => Receiving::Yes,
        }
    }
}

/// A shard as it is known at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardSnapshot {
    /// Which shard.
    pub shard: KeyspaceShard,
    /// The policy, or the name that nobody knows.
    pub durability: Result<DurabilityPolicy, UnknownPolicy>,
    /// The shard's record.
    pub record: ShardRecord,
    /// The keyspace or the shard forbids emergency reparents.
    pub emergency_reparent_disabled: bool,
    /// Its tablets.
    pub tablets: BTreeMap<TabletAlias, TabletState>,
    /// Records that could not be understood, by path, and why.
    pub damaged: BTreeMap<String, String>,
    /// Some tablets' records could not be read: what is not seen is not known to be gone.
    pub incomplete: bool,
    /// Since when the primary's term is known here; none where everybody was asked since.
    pub term_known_since: Option<Timestamp>,
    /// The moment.
    pub now: Timestamp,
}

impl ShardSnapshot {
    /// A snapshot of a shard of which nothing is known but the topology.
    pub fn unprobed(topology: &ShardTopology, now: Timestamp) -> Self {
        let tablets = topology.tablets.iter().map(|(alias, tablet)| {
            let state = TabletState {
                tablet: tablet.clone(),
                reachability: Reachability::Unseen,
                status: None,
                status_at: Timestamp::default(),
                answered_at: Timestamp::default(),
                earlier: Vec::new(),
                received_at: None,
                stuck_since: None,
                recent: RecentProbes::default(),
            };
            (alias.clone(), state)
        });
        Self {
            shard: topology.shard.clone(),
            durability: topology.durability.clone(),
            record: topology.record.clone(),
            emergency_reparent_disabled: topology.emergency_reparent_disabled,
            tablets: tablets.collect(),
            damaged: topology.damaged.clone(),
            incomplete: topology.incomplete,
            term_known_since: None,
            now,
        }
    }

    /// This snapshot with the topology and every server asked anew.
    ///
    /// A server that does not answer now is what it was held for before; one that was fine a moment ago is
    /// in doubt, which is no ground for anything.
    pub fn refreshed(
        &self,
        topology: &ShardTopology,
        answers: BTreeMap<TabletAlias, Result<ServerStatus, ProbeFailure>>,
        asked_at: Timestamp,
        now: Timestamp,
    ) -> Self {
        let mut fresh = Self::unprobed(topology, now);
        let mut answers = answers;
        for (alias, state) in &mut fresh.tablets {
            let before = self.tablets.get(alias);
            state.received_at = before.and_then(|before| before.received_at);
            state.stuck_since = before.and_then(|before| before.stuck_since);
            state.recent = before.map(|before| before.recent).unwrap_or_default();
            match answers.remove(alias) {
                Some(Ok(status)) => {
                    let marker = |status: &ServerStatus| {
                        status.replication.as_ref().map(|r| r.received_marker.clone())
                    };
                    let known = before.and_then(|before| before.status.as_ref()).and_then(marker);
                    if known.is_none() || known != marker(&status) {
                        state.received_at = Some(now);
                    }
                    state.reachability = Reachability::Valid;
                    let known = before.and_then(|before| {
                        let status = before.status.clone()?;
                        Some(Arc::new((status, before.answered_at)))
                    });
                    state.earlier = known.into_iter().collect();
                    state.status = Some(status);
                    state.status_at = asked_at;
                    state.answered_at = now;
                }
                Some(Err(why)) => {
                    state.status = before.and_then(|before| before.status.clone());
                    state.status_at = before.map(|before| before.status_at).unwrap_or_default();
                    state.reachability = match before.map(|before| &before.reachability) {
                        Some(Reachability::Unreachable { since, .. }) => {
                            Reachability::Unreachable { since: *since, why }
                        }
                        // It answers as much as it did before.
                        Some(Reachability::TurnedAway { since, .. })
                            if why == ProbeFailure::DiskStalled =>
                        {
                            Reachability::TurnedAway { since: *since, why }
                        }
                        // That its disk stalls is not over because it is slow to say so again.
                        Some(_) if before.is_some_and(TabletState::disk_stalled) => {
                            let why = ProbeFailure::DiskStalled;
                            Reachability::TurnedAway { since: asked_at, why }
                        }
                        Some(_) | None => Reachability::Suspect { since: asked_at, why },
                    };
                }
                None => {}
            }
        }
        fresh
    }

    /// The shard's primary: the tablet of type PRIMARY with the newest term.
    pub fn primary(&self) -> Option<&TabletState> {
        let primaries =
            self.tablets.values().filter(|state| state.tablet.tablet_type == TabletType::Primary);
        primaries.max_by_key(|state| (state.tablet.term_start, state.tablet.alias.clone()))
    }

    /// One tablet.
    pub fn tablet(&self, alias: &TabletAlias) -> Option<&TabletState> {
        self.tablets.get(alias)
    }

    /// The managed tablets other than `primary`.
    pub fn replicas_of<'a>(
        &'a self,
        primary: &'a TabletAlias,
    ) -> impl Iterator<Item = &'a TabletState> {
        let managed = self.tablets.values().filter(|state| state.tablet.tablet_type.is_managed());
        managed.filter(move |state| state.tablet.alias != *primary)
    }

    /// Tablets that vtorc leaves alone and that acknowledge all the same, as far as they ever answered; one
    /// that never did may.
    pub fn stray_ackers(&self) -> std::collections::BTreeSet<TabletAlias> {
        let unmanaged =
            self.tablets.values().filter(|state| !state.tablet.tablet_type.is_managed());
        unmanaged
            .filter(|state| state.tablet.mysql.is_some())
            .filter(|state| {
                let status = state.status.as_ref();
                status.is_none_or(|status| {
                    status.semi_sync.replica_enabled && status.replication.is_some()
                })
            })
            .map(|state| state.tablet.alias.clone())
            .collect()
    }

    /// Tells whether a replica's source is a tablet of the shard that could be primary and does not answer.
    pub fn follows_lost_tablet(&self, replica: &TabletState) -> bool {
        let replication = replica.valid_status().and_then(|status| status.replication.as_ref());
        let Some(replication) = replication else { return false };
        let lost = self.tablets.values().filter(|other| {
            other.tablet.tablet_type.is_promotable() && other.valid_status().is_none()
        });
        lost.into_iter().any(|other| {
            let address = other.tablet.mysql.as_ref();
            let known = other.status.as_ref();
            address == Some(&replication.source)
                || known.is_some_and(|status| status.is_source_of(replication, address))
        })
    }

    /// Whether a tablet lost what it wrote, by what anybody else was seen to have.
    pub fn has_lost_own(&self, alias: &TabletAlias) -> bool {
        let Some(state) = self.tablet(alias).filter(|_| !sabotage::has(Bug::TrustSurvivors)) else {
            return false;
        };
        let mut others = self.tablets.values().filter(|other| other.tablet.alias != *alias);
        others.any(|other| state.lost_to(other).is_some())
    }

    /// The newest term that any record of the shard names.
    pub fn newest_term(&self) -> Option<crate::time::TermStart> {
        let tablets = self.tablets.values().filter_map(|state| state.tablet.term_start);
        tablets.chain(self.record.term_start).max()
    }

    /// The term that this primary's record names, if it can stand. Not where the shard's record knows a later one, as
    /// after two who had the lock one after the other, and wrote as if each had it alone: a record never goes back.
    pub fn settled_term(&self, primary: &Tablet) -> Option<crate::time::TermStart> {
        primary.term_start.filter(|term| self.record.term_start.is_none_or(|known| known <= *term))
    }
}
