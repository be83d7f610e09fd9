//! Whether an automatic recovery may start now. The only module that knows the block period.
//!
//! After a reparent ended, the shard is left alone for the block period, so that a flapping cluster is not
//! reparented again and again. Repairs of single tablets neither start that period nor are stopped by it.

use std::fmt;
use std::time::Duration;

use crate::analysis::{Finding, FindingKind};
use crate::controls::{Controls, Entry};
use crate::ids::{RecoveryId, TabletAlias};
use crate::knowledge::snapshot::ShardSnapshot;
use crate::remedy::{Remedy, TIMES_GONE};
use crate::sabotage::{self, Bug};
use crate::settings::RecoverySettings;
use crate::time::Timestamp;

/// First pause after a failed attempt; it doubles up to [`BACKOFF_MAX`].
pub const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// Longest pause between failed attempts.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// The period in which a shard is not reparented again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The reparent that started it.
    pub recovery: RecoveryId,
    /// When that reparent ended.
    pub since: Timestamp,
    /// When it is over.
    pub until: Timestamp,
    /// The primary that it was to replace, if nobody knows whether it did: that may be completed at once.
    pub unfinished: Option<TabletAlias>,
}

/// What admission remembers of a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttemptMemory {
    /// The last reparent's block, until acknowledged.
    pub block: Option<Block>,
    /// Failed attempts in a row.
    pub failures: u32,
    /// No new attempt before this.
    pub not_before: Option<Timestamp>,
    /// So often in a row, what was to be repaired was gone when it was looked at under the lock.
    pub vanished: u32,
}

impl AttemptMemory {
    /// The block that is in force at `now`.
    pub fn block_at(&self, now: Timestamp) -> Option<&Block> {
        self.block.as_ref().filter(|block| now < block.until)
    }

    /// Notes an attempt that failed before it changed anything: it is tried again, more and more slowly.
    pub fn attempt_failed(&mut self, now: Timestamp) {
        let doublings = self.failures.min(5);
        let pause = (BACKOFF_FIRST * 2u32.pow(doublings)).min(BACKOFF_MAX);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(now + pause);
        self.vanished = 0;
    }

    /// Notes that what was to be repaired was gone. Now and then that is somebody else's work; what is found again and
    /// again must not take the lock all the time.
    pub fn has_vanished(&mut self, now: Timestamp) {
        let vanished = self.vanished.saturating_add(1);
        self.fresh_start();
        self.vanished = vanished;
        // What it turns into instead is not to wait.
        if vanished > TIMES_GONE && !vanished.is_multiple_of(TIMES_GONE) {
            self.not_before = Some(now + BACKOFF_FIRST);
        }
    }

    /// Makes the next attempt wait until then.
    pub fn pause_until(&mut self, until: Timestamp) {
        self.not_before = Some(until);
    }

    /// Makes the next attempt wait no longer than that.
    pub fn pause_at_most_until(&mut self, until: Timestamp) {
        self.not_before = self.not_before.map(|known| known.min(until));
    }

    /// Notes an attempt that went well, or circumstances that changed: the next attempt need not wait.
    pub fn fresh_start(&mut self) {
        self.failures = 0;
        self.not_before = None;
        self.vanished = 0;
    }

    /// Starts the block period after a reparent that changed, or may have changed, the primary.
    pub fn start_block(
        &mut self,
        recovery: RecoveryId,
        settings: &RecoverySettings,
        now: Timestamp,
        unfinished: Option<TabletAlias>,
    ) {
        let until = now + settings.block_period;
        self.block = Some(Block { recovery, since: now, until, unfinished });
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Go ahead.
    Admitted,
    /// Not now.
    Refused(Refusal),
}

/// Why a recovery may not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Automatic recoveries are switched off.
    Disabled,
    /// An operator switched the recoveries of this shard or keyspace off.
    SwitchedOff(Entry),
    /// An operator switched the emergency reparents of this shard or keyspace off.
    EmergencyReparentsSwitchedOff(Entry),
    /// An operator excused the tablet.
    InDowntime(Entry),
    /// The records forbid emergency reparents of this keyspace or shard.
    EmergencyReparentDisabled,
    /// `RecoverMasterClusterFilters` does not name the shard.
    Filtered,
    /// `--allow-emergency-reparent=false`: no primary is replaced.
    EmergencyReparentsForbidden,
    /// The configuration leaves the tablet's cell, or all cells of the shard, alone.
    CellLeftAlone(String),
    /// A reparent ended a short time ago.
    InBlockPeriod(Block),
    /// The last attempt failed a short time ago.
    BackingOff {
        /// When the next attempt may start.
        until: Timestamp,
    },
    /// It is found again and again, and gone each time that it is looked at under the lock.
    KeepsVanishing {
        /// How often in a row.
        times: u32,
    },
    /// vtorc doubts its own sight.
    ManagerIsolated(String),
    /// A stalled disk may go on by itself, and the configuration wants that waited for.
    WaitsForDisk,
    /// There is nothing vtorc would do about it.
    WatchOnly,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disabled => f.write_str("automatic recoveries are disabled"),
            Self::SwitchedOff(entry) => write!(
                f,
                "recoveries of this shard were switched off by {}: {}",
                entry.by, entry.comment
            ),
            Self::EmergencyReparentsSwitchedOff(entry) => write!(
                f,
                "emergency reparents of this shard were switched off by {}: {}",
                entry.by, entry.comment
            ),
            Self::InDowntime(entry) => {
                write!(f, "the tablet is in downtime, by {}: {}", entry.by, entry.comment)
            }
            Self::EmergencyReparentDisabled => {
                f.write_str("the keyspace's or shard's record disables emergency reparents")
            }
            Self::Filtered => f.write_str(
                "RecoverMasterClusterFilters does not name this shard: it is only watched",
            ),
            Self::EmergencyReparentsForbidden => {
                f.write_str("--allow-emergency-reparent=false forbids to replace primaries")
            }
            Self::CellLeftAlone(why) => f.write_str(why),
            Self::InBlockPeriod(block) => write!(
                f,
                "blocked by recovery {}, which ended a short time ago; acknowledge it to lift the block",
                block.recovery
            ),
            Self::BackingOff { .. } => {
                f.write_str("the last attempt failed; it will be tried again")
            }
            Self::KeepsVanishing { times } => write!(
                f,
                "found {times} times in a row and gone each time when every server was asked under the lock; it is \
                 looked at once a second"
            ),
            Self::ManagerIsolated(evidence) => {
                write!(f, "ManagerIsolated: {evidence}; vtorc doubts its own sight")
            }
            Self::WaitsForDisk => f.write_str(
                "the disk may go on by itself; --enable-primary-disk-stalled-recovery is off",
            ),
            Self::WatchOnly => f.write_str("a person must decide"),
        }
    }
}

/// What operators switched.
#[derive(Clone, Copy, Debug)]
pub struct Switches<'a> {
    /// Automatic recoveries are on at all.
    pub recoveries_enabled: bool,
    /// The finer switches.
    pub controls: &'a Controls,
    /// Why vtorc doubts its own sight, if it does.
    pub isolated: Option<&'a str>,
}

impl<'a> Switches<'a> {
    /// Everything is on but for what these controls say.
    pub fn on(controls: &'a Controls) -> Self {
        Self { recoveries_enabled: true, controls, isolated: None }
    }
}

/// What is to be done, and for what.
#[derive(Clone, Copy, Debug)]
pub struct Proposal<'a> {
    /// What.
    pub remedy: Remedy,
    /// For which finding.
    pub finding: FindingKind,
    /// The tablet to be repaired.
    pub tablet: Option<&'a TabletAlias>,
}

impl<'a> Proposal<'a> {
    /// To do this for a finding. A receiver is restarted for the shard's sake, and not for the primary's.
    pub fn new(remedy: Remedy, finding: &'a Finding) -> Self {
        let of_tablet = remedy != Remedy::RestartReceiver;
        let tablet = finding.tablet.as_ref().filter(|_| of_tablet);
        Self { remedy, finding: finding.kind, tablet }
    }
}

/// Says whether an automatic recovery may start.
pub fn admit(
    memory: &AttemptMemory,
    proposal: Proposal<'_>,
    snapshot: &ShardSnapshot,
    settings: &RecoverySettings,
    switches: Switches<'_>,
) -> Admission {
    if let Some(refusal) = forbidden(proposal, snapshot, settings, switches) {
        return Admission::Refused(refusal);
    }
    match too_early(memory, proposal.remedy, snapshot) {
        Some(refusal) => Admission::Refused(refusal),
        None => Admission::Admitted,
    }
}

/// Why such a recovery is not wanted here at all, whatever happened before: the one rule for "may this shard fail
/// over", also for what the page promises.
pub fn forbidden(
    proposal: Proposal<'_>,
    snapshot: &ShardSnapshot,
    settings: &RecoverySettings,
    switches: Switches<'_>,
) -> Option<Refusal> {
    let Proposal { remedy, finding, tablet } = proposal;
    if remedy == Remedy::WatchOnly {
        return Some(Refusal::WatchOnly);
    }
    if !switches.recoveries_enabled {
        return Some(Refusal::Disabled);
    }
    if let Some(evidence) = switches.isolated.filter(|_| !sabotage::has(Bug::TrustOwnSight)) {
        return Some(Refusal::ManagerIsolated(evidence.to_owned()));
    }
    let (controls, now) = (switches.controls, snapshot.now);
    if let Some(entry) = controls.recoveries_off(&snapshot.shard, now) {
        return Some(Refusal::SwitchedOff(entry.clone()));
    }
    // Who is elected where nobody is primary is the shard's matter, not one tablet's.
    let left_alone = match tablet.filter(|_| remedy != Remedy::ElectPrimary) {
        Some(alias) => settings.left_alone(alias),
        None => settings.all_left_alone(snapshot.tablets.keys()),
    };
    if let Some(why) = left_alone {
        return Some(Refusal::CellLeftAlone(why));
    }
    if !settings.recovers(&snapshot.shard) {
        return Some(Refusal::Filtered);
    }
    // What was begun is finished all the same: two may be taking writes.
    let excused = tablet.and_then(|alias| controls.downtime(alias, now));
    let excusable = !matches!(remedy, Remedy::FinishReparent | Remedy::ElectPrimary);
    if let Some(entry) = excused.filter(|_| excusable && !sabotage::has(Bug::ForgetDowntime)) {
        return Some(Refusal::InDowntime(entry.clone()));
    }
    if finding == FindingKind::PrimaryDiskStalled && !settings.disk_stalled_recovery {
        return Some(Refusal::WaitsForDisk);
    }
    if !replaces(remedy) && remedy != Remedy::FinishReparent {
        return None;
    }
    if let Some(entry) = controls.emergency_off(&snapshot.shard, now) {
        return Some(Refusal::EmergencyReparentsSwitchedOff(entry.clone()));
    }
    if snapshot.emergency_reparent_disabled {
        return Some(Refusal::EmergencyReparentDisabled);
    }
    (!settings.emergency_reparents).then_some(Refusal::EmergencyReparentsForbidden)
}

fn replaces(remedy: Remedy) -> bool {
    matches!(remedy, Remedy::EmergencyReparent | Remedy::PlannedReparent)
}

/// Why what is wanted must wait: for the end of a block, or of a pause.
fn too_early(memory: &AttemptMemory, remedy: Remedy, snapshot: &ShardSnapshot) -> Option<Refusal> {
    // What a reparent left half-done is completed at once, also within the block that it started.
    let primary = snapshot.primary().map(|state| &state.tablet.alias);
    let in_force = memory.block_at(snapshot.now).filter(|_| replaces(remedy));
    if let Some(block) =
        in_force.filter(|b| b.unfinished.is_none() || b.unfinished.as_ref() != primary)
    {
        return Some(Refusal::InBlockPeriod(block.clone()));
    }
    let until = memory.not_before.filter(|until| snapshot.now < *until)?;
    Some(match memory.vanished {
        0 => Refusal::BackingOff { until },
        times => Refusal::KeepsVanishing { times },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit;
    use crate::topology::ShardTopology;

    fn on(controls: &Controls) -> Switches<'_> {
        Switches::on(controls)
    }

    /// A proposal whose finding does not matter.
    fn to(remedy: Remedy) -> Proposal<'static> {
        Proposal { remedy, finding: FindingKind::DeadPrimary, tablet: None }
    }

    fn at(second: u64) -> Timestamp {
        Timestamp::from_millis(second * 1000)
    }

    fn snapshot(second: u64) -> ShardSnapshot {
        ShardSnapshot::unprobed(&topology(&[]), at(second))
    }

    fn topology(tablets: &[&str]) -> ShardTopology {
        let replicas: Vec<TabletAlias> = tablets.iter().map(|one| one.parse().unwrap()).collect();
        ShardTopology { durability: "semi_sync".parse(), ..testkit::shard(&replicas) }
    }

    #[test]
    fn the_block_counts_from_the_end_and_stops_only_emergency_reparents() {
        let (settings, none) = (testkit::settings(), Controls::default());
        let mut memory = AttemptMemory::default();
        memory.start_block(RecoveryId(7), &settings, at(100), None);
        let admit_at =
            |remedy, second| admit(&memory, to(remedy), &snapshot(second), &settings, on(&none));
        let blocked = admit_at(Remedy::EmergencyReparent, 159);
        assert!(matches!(blocked, Admission::Refused(Refusal::InBlockPeriod(_))));
        assert_eq!(admit_at(Remedy::EmergencyReparent, 160), Admission::Admitted);
        assert_eq!(admit_at(Remedy::FixReplica, 101), Admission::Admitted);
        assert_eq!(admit_at(Remedy::ElectPrimary, 101), Admission::Admitted);
    }

    #[test]
    fn failures_back_off_from_one_second_to_thirty() {
        let (settings, none) = (testkit::settings(), Controls::default());
        let mut memory = AttemptMemory::default();
        let mut pauses = Vec::new();
        for _ in 0..7 {
            memory.attempt_failed(at(0));
            pauses.push(memory.not_before.unwrap().as_millis() / 1000);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        let early =
            admit(&memory, to(Remedy::EmergencyReparent), &snapshot(29), &settings, on(&none));
        assert!(matches!(early, Admission::Refused(Refusal::BackingOff { .. })));
        memory.fresh_start();
        let now =
            admit(&memory, to(Remedy::EmergencyReparent), &snapshot(29), &settings, on(&none));
        assert_eq!(now, Admission::Admitted);
    }

    #[test]
    fn what_keeps_vanishing_is_looked_at_once_a_second_and_that_is_said() {
        let (settings, none) = (testkit::settings(), Controls::default());
        let mut memory = AttemptMemory::default();
        let now = |memory: &AttemptMemory| {
            admit(memory, to(Remedy::FixPrimary), &snapshot(0), &settings, on(&none))
        };
        for _ in 0..TIMES_GONE {
            memory.has_vanished(at(0));
            assert_eq!(now(&memory), Admission::Admitted);
        }
        memory.has_vanished(at(0));
        let times = TIMES_GONE + 1;
        assert_eq!(now(&memory), Admission::Refused(Refusal::KeepsVanishing { times }));
        let later = admit(&memory, to(Remedy::FixPrimary), &snapshot(1), &settings, on(&none));
        assert_eq!(later, Admission::Admitted);
        memory.fresh_start();
        assert_eq!(now(&memory), Admission::Admitted);
    }

    #[test]
    fn switches_stop_recoveries() {
        let none = Controls::default();
        let mut settings = testkit::settings();
        let memory = AttemptMemory::default();
        let mut snapshot = snapshot(0);
        let disabled = admit(
            &memory,
            to(Remedy::FixReplica),
            &snapshot,
            &settings,
            Switches { recoveries_enabled: false, controls: &none, isolated: None },
        );
        assert_eq!(disabled, Admission::Refused(Refusal::Disabled));
        snapshot.emergency_reparent_disabled = true;
        let forbidden =
            admit(&memory, to(Remedy::EmergencyReparent), &snapshot, &settings, on(&none));
        assert_eq!(forbidden, Admission::Refused(Refusal::EmergencyReparentDisabled));
        assert_eq!(
            admit(&memory, to(Remedy::FixReplica), &snapshot, &settings, on(&none)),
            Admission::Admitted
        );
        snapshot.emergency_reparent_disabled = false;
        settings.emergency_reparents = false;
        let forbidden =
            admit(&memory, to(Remedy::EmergencyReparent), &snapshot, &settings, on(&none));
        assert_eq!(forbidden, Admission::Refused(Refusal::EmergencyReparentsForbidden));
        settings.recover_filters.clear();
        for remedy in [Remedy::EmergencyReparent, Remedy::FixReplica, Remedy::ElectPrimary] {
            let watched = admit(&memory, to(remedy), &snapshot, &settings, on(&none));
            assert_eq!(watched, Admission::Refused(Refusal::Filtered));
        }
    }

    #[test]
    fn cells_are_left_alone() {
        let none = Controls::default();
        let everybody =
            ShardSnapshot::unprobed(&topology(&["zone1-1", "zone2-2"]), Timestamp::default());
        for (cells, remedy, tablet, refused) in [
            (&["zone1"][..], Remedy::EmergencyReparent, Some("zone1-1"), true),
            (&["zone1"], Remedy::EmergencyReparent, Some("zone2-2"), false),
            (&["zone2"], Remedy::FixReplica, Some("zone2-2"), true),
            (&["zone1"], Remedy::ElectPrimary, None, false),
            (&["zone1"], Remedy::ElectPrimary, Some("zone1-1"), false),
            (&["zone1", "zone2", "zone3"], Remedy::ElectPrimary, None, true),
            (&[], Remedy::ElectPrimary, None, false),
        ] {
            let mut settings = testkit::settings();
            settings.cells_no_recovery = cells.iter().map(ToString::to_string).collect();
            let tablet = tablet.map(|alias| alias.parse().unwrap());
            let proposal = Proposal { tablet: tablet.as_ref(), ..to(remedy) };
            let answer =
                admit(&AttemptMemory::default(), proposal, &everybody, &settings, on(&none));
            let left_alone = matches!(answer, Admission::Refused(Refusal::CellLeftAlone(_)));
            assert_eq!(left_alone, refused, "{cells:?} {remedy:?} {tablet:?}: {answer:?}");
        }
    }

    #[test]
    fn operators_switch_shards_and_excuse_tablets() {
        let (settings, memory) = (testkit::settings(), AttemptMemory::default());
        let entry = Entry { by: "ann".into(), comment: "disk".into(), since: at(0), until: None };
        let refusal = |control: &str, remedy, tablet: Option<&str>| {
            let mut controls = Controls::default();
            controls.set(control.parse().unwrap(), entry.clone());
            let tablet = tablet.map(|alias| alias.parse().unwrap());
            let proposal = Proposal { tablet: tablet.as_ref(), ..to(remedy) };
            match admit(&memory, proposal, &snapshot(1), &settings, on(&controls)) {
                Admission::Admitted => "admitted".to_owned(),
                Admission::Refused(refusal) => refusal.to_string(),
            }
        };
        let (fix, emergency) = (Remedy::FixReplica, Remedy::EmergencyReparent);
        assert!(refusal("recoveries-off ks", fix, None).contains("off by ann: disk"));
        assert!(refusal("emergency-reparents-off ks/0", emergency, None).contains("off by ann"));
        assert_eq!(refusal("emergency-reparents-off ks/0", fix, None), "admitted");
        assert_eq!(refusal("recoveries-off other", emergency, None), "admitted");
        assert!(refusal("downtime zone1-1", fix, Some("zone1-1")).contains("downtime"));
        assert_eq!(refusal("downtime zone1-1", fix, Some("zone1-2")), "admitted");
    }
}
