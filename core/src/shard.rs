//! A shard's memory: events go in, effects come out. The shard actor is a shell around it.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::analysis::{self, Finding};
use crate::ids::{KeyspaceShard, TabletAlias};
use crate::knowledge::health::Reachability;
use crate::knowledge::memory::LastHeard;
use crate::knowledge::observe::{Answer, TabletState};
use crate::knowledge::snapshot::ShardSnapshot;
use crate::remedy::{self, Remedy, Wanted};
use crate::settings::RecoverySettings;
use crate::status::{ReceiverState, ServerStatus};
use crate::tablet::{TabletAddress, TabletType};
use crate::time::Timestamp;
use crate::topology::ShardTopology;

/// What can happen to a shard.
#[derive(Clone, Debug)]
pub enum ShardEvent {
    /// The topology was read.
    TopologyRead(Box<ShardTopology>),
    /// A probe ended.
    Probed {
        /// Of which tablet.
        alias: TabletAlias,
        /// How it ended.
        answer: Box<Answer>,
    },
    /// Reparent journals were read, under the shard's lock: what those servers said.
    JournalsRead(Vec<(TabletAlias, ServerStatus)>),
    /// What an earlier process knew of the shard was read.
    HistoryRead(LastHeard),
    /// Time passed.
    Tick,
    /// A recovery of this shard ended: what was probed before it says nothing about now.
    RecoveryEnded,
}

/// How a tablet's server is to be probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeTarget {
    /// Which tablet, and where.
    pub address: TabletAddress,
    /// Listen between the probes, so that its death shows at once.
    pub attentive: bool,
}

/// How often to probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As configured.
    Calm,
    /// Again and again, until the doubt is settled.
    Alert,
}

/// What the shard wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Probe exactly these tablets from now on.
    ProbeThese(Vec<ProbeTarget>),
    /// Probe at this pace from now on; at a change to `Alert`, everybody at once.
    SetPace(Pace),
    /// Something is to be repaired, repeated as long as it stands; or nothing any more.
    Recover(Wanted),
    /// These findings came and went.
    FindingsChanged {
        /// New ones.
        appeared: Vec<Finding>,
        /// Those that are gone.
        gone: Vec<Finding>,
    },
    /// More or fewer tablets can be reached, or the topology changed: what was refused may go now.
    CircumstancesChanged,
}

/// All that is known about one shard.
pub struct ShardState {
    known: Arc<ShardSnapshot>,
    settings: RecoverySettings,
    findings: Vec<Finding>,
    targets: Vec<ProbeTarget>,
    pace: Pace,
    valid: BTreeSet<TabletAlias>,
    wants_something: bool,
    fresh_after: Timestamp,
}

impl ShardState {
    /// A shard of which nothing but its name is known.
    pub fn new(topology: ShardTopology, settings: RecoverySettings) -> Self {
        let mut empty = topology;
        empty.tablets.clear();
        Self {
            known: Arc::new(ShardSnapshot::unprobed(&empty, Timestamp::default())),
            settings,
            findings: Vec::new(),
            targets: Vec::new(),
            pace: Pace::Calm,
            valid: BTreeSet::new(),
            wants_something: false,
            fresh_after: Timestamp::default(),
        }
    }

    /// The shard's name.
    pub fn name(&self) -> &KeyspaceShard {
        &self.known.shard
    }

    /// Takes new settings.
    pub fn configure(&mut self, settings: RecoverySettings) {
        self.settings = settings;
    }

    /// The settings in force.
    pub fn settings(&self) -> &RecoverySettings {
        &self.settings
    }

    /// What is wrong with the shard.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Takes in an event and says what is to be done, in this order.
    pub fn step(&mut self, event: ShardEvent, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            ShardEvent::TopologyRead(topology) => self.take_topology(*topology, now, &mut effects),
            ShardEvent::Probed { alias, answer } => {
                Arc::make_mut(&mut self.known).take_answer(&alias, *answer, now);
            }
            ShardEvent::JournalsRead(said) => {
                let known = Arc::make_mut(&mut self.known);
                said.iter().for_each(|(alias, status)| known.take_journal(alias, status));
            }
            ShardEvent::HistoryRead(heard) => {
                Arc::make_mut(&mut self.known).heard_before = Some(heard);
            }
            ShardEvent::Tick => {}
            ShardEvent::RecoveryEnded => {
                self.fresh_after = now;
                // Once nothing is wanted any more, that is told, whatever was told while the recovery ran.
                self.wants_something = true;
            }
        }
        Arc::make_mut(&mut self.known).judge(now);
        let snapshot = self.latest();
        self.aim(&snapshot, &mut effects);
        self.review(&snapshot, &mut effects);
        effects
    }

    /// The shard as it was known after the last event.
    pub fn latest(&self) -> Arc<ShardSnapshot> {
        self.known.clone()
    }

    /// The shard as it is known now.
    pub fn at(&self, now: Timestamp) -> ShardSnapshot {
        self.known.at(now)
    }

    fn take_topology(
        &mut self,
        topology: ShardTopology,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let before = self.known.topology();
        if topology == before {
            return;
        }
        Arc::make_mut(&mut self.known).take_topology(&topology, now);
        // Records that come and go out of sight are no reason to try again at once what failed.
        if !topology.says_the_same(&before) {
            effects.push(Effect::CircumstancesChanged);
        }
    }

    /// Which servers to probe, and how eagerly.
    fn aim(&mut self, snapshot: &ShardSnapshot, effects: &mut Vec<Effect>) {
        let primary = snapshot.primary().map(|state| state.tablet.alias.clone());
        let targets: Vec<ProbeTarget> = snapshot
            .tablets
            .values()
            .filter_map(|state| {
                let attentive = Some(&state.tablet.alias) == primary.as_ref();
                Some(ProbeTarget { address: state.tablet.address()?, attentive })
            })
            .collect();
        if targets != self.targets {
            self.targets.clone_from(&targets);
            effects.push(Effect::ProbeThese(targets));
        }
        let pace = if in_doubt(snapshot) { Pace::Alert } else { Pace::Calm };
        if pace != self.pace {
            self.pace = pace;
            effects.push(Effect::SetPace(pace));
        }
    }

    fn review(&mut self, snapshot: &ShardSnapshot, effects: &mut Vec<Effect>) {
        self.note_circumstances(snapshot, effects);
        if self.awaits_news() {
            return;
        }
        let findings = analysis::detect(snapshot, &self.settings);
        let same =
            |one: &Finding, other: &Finding| one.kind == other.kind && one.tablet == other.tablet;
        let missing_from =
            |list: &[Finding], finding: &&Finding| !list.iter().any(|f| same(f, finding));
        let appeared: Vec<Finding> =
            findings.iter().filter(|f| missing_from(&self.findings, f)).cloned().collect();
        let gone: Vec<Finding> =
            self.findings.iter().filter(|f| missing_from(&findings, f)).cloned().collect();
        self.findings.clone_from(&findings);
        if !appeared.is_empty() || !gone.is_empty() {
            effects.push(Effect::FindingsChanged { appeared, gone });
        }
        let wanted = remedy::wanted(&findings, snapshot, &self.settings);
        if wanted == Wanted::Nothing {
            // Told once, so that a reason for not recovering goes with what was to be recovered.
            if std::mem::take(&mut self.wants_something) {
                effects.push(Effect::Recover(wanted));
            }
        } else if self.ready_for(&wanted, snapshot) {
            self.wants_something = true;
            effects.push(Effect::Recover(wanted));
        }
    }

    fn note_circumstances(&mut self, snapshot: &ShardSnapshot, effects: &mut Vec<Effect>) {
        let valid: BTreeSet<TabletAlias> = snapshot
            .tablets
            .values()
            .filter(|state| state.reachability.is_valid())
            .map(|state| state.tablet.alias.clone())
            .collect();
        if valid != self.valid {
            self.valid = valid;
            effects.push(Effect::CircumstancesChanged);
        }
    }

    /// Tells whether what is known may be what the last recovery changed: nothing is found and nothing is started on
    /// it.
    pub fn awaits_news(&self) -> bool {
        self.known.is_from_before(self.fresh_after)
    }

    /// No first primary is chosen while it is open whether a tablet answers.
    fn ready_for(&self, wanted: &Wanted, snapshot: &ShardSnapshot) -> bool {
        let managed = || snapshot.tablets.values().filter(|s| s.tablet.tablet_type.is_managed());
        let elects = matches!(wanted, Wanted::Shard(Remedy::ElectPrimary, _));
        let undecided = |state: &&TabletState| {
            state.tablet.mysql.is_some()
                && matches!(state.reachability, Reachability::Unseen | Reachability::Suspect { .. })
        };
        if elects && managed().any(|state| undecided(&state)) {
            return false;
        }
        // Where heartbeats are seen, a dead connection shows by itself; a receiver that is restarted on a
        // frozen source only becomes slow to stop.
        let restarts = matches!(wanted, Wanted::Shard(Remedy::RestartReceiver, _));
        let blind = |state: &TabletState| {
            let replication = state.channel();
            replication.is_some_and(|replication| !replication.marker_sees_heartbeats)
        };
        !restarts || managed().any(blind)
    }
}

/// The primary fails, or a replica lost it: time to look closely.
fn in_doubt(snapshot: &ShardSnapshot) -> bool {
    let Some(primary) = snapshot.primary() else {
        return snapshot.tablets.values().any(|state| state.reachability == Reachability::Unseen);
    };
    match &primary.reachability {
        Reachability::Suspect { .. } => return true,
        Reachability::Unreachable { .. } => return worth_hurrying(snapshot),
        Reachability::Unseen | Reachability::TurnedAway { .. } | Reachability::Valid => {}
    }
    // The replica's side may notice first.
    snapshot.replicas_of(&primary.tablet.alias).any(|replica| {
        let replication = replica.channel();
        primary.tablet.tablet_type == TabletType::Primary
            && replication.is_some_and(|r| r.receiver == ReceiverState::Connecting)
            && replica.status_at.age(snapshot.now) < HURRY_MAX
            && primary.status_at < replica.status_at
    })
}

/// A primary that is gone for longer than this is not going to be replaced sooner by asking more often.
const HURRY_MAX: std::time::Duration = std::time::Duration::from_secs(10);

fn worth_hurrying(snapshot: &ShardSnapshot) -> bool {
    let since = snapshot.primary().and_then(|primary| primary.reachability.failing_since());
    since.is_some_and(|since| since.age(snapshot.now) < HURRY_MAX)
}
