//! Why nothing is done: every decision not to act, kept with its reason, its age and how often it was taken.

use std::time::Duration;

use crate::admission::Refusal;
use crate::analysis::{Finding, FindingKind};
use crate::ids::TabletAlias;
use crate::time::Timestamp;

/// So many are kept of a shard; the oldest go first.
const KEPT_MAX: usize = 20;

/// What is decided again within this, for the same reason, was tried in vain in between: it is the same decision.
const RESUMED_WITHIN: Duration = Duration::from_secs(60);

/// The kind of reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Inaction {
    /// Automatic recoveries are switched off everywhere.
    RecoveriesDisabled,
    /// An operator, a record or the configuration says that this shard or tablet is to be left alone.
    SwitchedOff,
    /// A reparent ended within the block period.
    Blocked,
    /// vtorc doubts its own sight.
    ManagerIsolated,
    /// A recovery looked, and refused: it was not safe, or a program said no.
    Refused,
    /// A recovery failed, for example because somebody else holds the lock; it will be tried again.
    Failed,
    /// There is nothing that vtorc would do about it.
    WatchOnly,
}

impl Inaction {
    /// The name in metrics and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::RecoveriesDisabled => "recoveries_disabled",
            Self::SwitchedOff => "switched_off",
            Self::Blocked => "blocked",
            Self::ManagerIsolated => "manager_isolated",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::WatchOnly => "watch_only",
        }
    }
}

impl From<&Refusal> for Inaction {
    fn from(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::Disabled => Self::RecoveriesDisabled,
            Refusal::SwitchedOff(_)
            | Refusal::EmergencyReparentsSwitchedOff(_)
            | Refusal::InDowntime(_)
            | Refusal::EmergencyReparentDisabled
            | Refusal::EmergencyReparentsForbidden
            | Refusal::Filtered
            | Refusal::CellLeftAlone(_) => Self::SwitchedOff,
            Refusal::InBlockPeriod(_) => Self::Blocked,
            Refusal::ManagerIsolated(_) => Self::ManagerIsolated,
            Refusal::BackingOff { .. } | Refusal::KeepsVanishing { .. } => Self::Failed,
            Refusal::WaitsForDisk => Self::SwitchedOff,
            Refusal::WatchOnly => Self::WatchOnly,
        }
    }
}

/// One reason not to act on one finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldBack {
    /// The kind of reason.
    pub inaction: Inaction,
    /// What is not acted on.
    pub finding: FindingKind,
    /// On which tablet.
    pub tablet: Option<TabletAlias>,
    /// The reason in words.
    pub reason: String,
}

impl HeldBack {
    /// Why nothing is done about this finding.
    pub fn new(inaction: Inaction, finding: &Finding, reason: impl Into<String>) -> Self {
        let (kind, tablet) = (finding.kind, finding.tablet.clone());
        Self { inaction, finding: kind, tablet, reason: reason.into() }
    }
}

/// A reason, and since when and how often it held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The reason.
    pub held: HeldBack,
    /// When it was first decided so.
    pub since: Timestamp,
    /// When it was last decided so.
    pub last: Timestamp,
    /// When it was over; none while it stands.
    pub until: Option<Timestamp>,
    /// How often.
    pub count: u64,
}

/// The decisions of one shard, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decisions(Vec<Decision>);

/// What a round of deciding says anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Something begins, ends, or has another reason.
    pub changed: bool,
    /// The decisions that stand since now: what is not acted on, and the kind of reason.
    pub begun: Vec<(FindingKind, Inaction)>,
}

impl Decisions {
    /// Takes a round of deciding: what is in it stands, what is not is over. Findings that are only watched
    /// are a round of their own. Answers what that says anew.
    pub fn observe(&mut self, only_watched: bool, round: &[HeldBack], now: Timestamp) -> Observed {
        let mut news = Observed::default();
        let ours = |held: &HeldBack| (held.inaction == Inaction::WatchOnly) == only_watched;
        let same = |one: &HeldBack, other: &HeldBack| {
            (one.inaction, one.finding, &one.tablet)
                == (other.inaction, other.finding, &other.tablet)
        };
        for known in self.0.iter_mut().filter(|known| known.until.is_none() && ours(&known.held)) {
            if !round.iter().any(|held| same(held, &known.held)) {
                known.until = Some(now);
                news.changed = true;
            }
        }
        for held in round {
            let resumes = |known: &Decision| {
                known.held.reason == held.reason
                    && known.until.is_some_and(|until| until.age(now) <= RESUMED_WITHIN)
            };
            let position = |fits: &dyn Fn(&Decision) -> bool| {
                self.0.iter().position(|known| same(held, &known.held) && fits(known))
            };
            let at = position(&|known| known.until.is_none()).or_else(|| position(&resumes));
            match at.and_then(|at| self.0.get_mut(at)) {
                Some(known) => {
                    let resumed = known.until.take().is_some();
                    news.changed |= resumed || known.held.reason != held.reason;
                    known.held.reason.clone_from(&held.reason);
                    known.last = now;
                    known.count = known.count.saturating_add(1);
                }
                None => {
                    news.changed = true;
                    news.begun.push((held.finding, held.inaction));
                    let (since, last) = (now, now);
                    self.0.insert(
                        0,
                        Decision { held: held.clone(), since, last, until: None, count: 1 },
                    );
                }
            }
        }
        while self.0.len() > KEPT_MAX {
            let over = self.0.iter().rposition(|known| known.until.is_some());
            self.0.remove(over.unwrap_or(self.0.len() - 1));
        }
        news
    }

    /// All that are kept, newest first.
    pub fn iter(&self) -> impl Iterator<Item = &Decision> {
        self.0.iter()
    }

    /// Those that stand now.
    pub fn standing(&self) -> impl Iterator<Item = &Decision> {
        self.0.iter().filter(|known| known.until.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(inaction: Inaction, reason: &str) -> HeldBack {
        let (finding, tablet) = (FindingKind::DeadPrimary, "zone1-101".parse().ok());
        HeldBack { inaction, finding, tablet, reason: reason.into() }
    }

    fn at(second: u64) -> Timestamp {
        Timestamp::from_millis(second * 1000)
    }

    #[test]
    fn a_decision_grows_old_is_counted_and_ends() {
        let mut all = Decisions::default();
        assert!(all.observe(false, &[held(Inaction::Blocked, "a")], at(1)).changed);
        assert!(!all.observe(false, &[held(Inaction::Blocked, "a")], at(2)).changed);
        assert!(all.observe(false, &[held(Inaction::Blocked, "b")], at(3)).changed);
        let one = all.standing().next().unwrap();
        assert_eq!((one.since, one.last, one.count), (at(1), at(3), 3));
        assert_eq!(one.held.reason, "b");
        // Another kind of reason is another decision; the first is over.
        assert!(all.observe(false, &[held(Inaction::Refused, "c")], at(4)).changed);
        assert_eq!(all.standing().count(), 1);
        assert_eq!(all.iter().last().unwrap().until, Some(at(4)));
        // What is only watched is a round of its own.
        assert!(all.observe(true, &[held(Inaction::WatchOnly, "d")], at(5)).changed);
        assert!(!all.observe(true, &[held(Inaction::WatchOnly, "d")], at(6)).changed);
        assert_eq!(all.standing().count(), 2);
        assert!(all.observe(false, &[], at(7)).changed && all.standing().count() == 1);
    }

    #[test]
    fn what_is_tried_in_vain_again_and_again_is_one_decision() {
        let mut all = Decisions::default();
        let refused = [held(Inaction::Refused, "nobody is left")];
        assert_eq!(all.observe(false, &refused, at(1)).begun.len(), 1);
        all.observe(false, &[], at(2));
        let again = all.observe(false, &refused, at(3));
        assert!(again.changed && again.begun.is_empty());
        let one = all.standing().next().unwrap();
        assert_eq!((all.iter().count(), one.since, one.last, one.count), (1, at(1), at(3), 2));
        // For another reason, or long afterwards, it is another one.
        all.observe(false, &[], at(4));
        all.observe(false, &[held(Inaction::Refused, "somebody is away")], at(5));
        all.observe(false, &[], at(6));
        all.observe(false, &refused, at(70));
        assert_eq!(all.iter().count(), 3);
    }

    #[test]
    fn only_the_newest_are_kept_and_standing_ones_first() {
        let mut all = Decisions::default();
        all.observe(true, &[held(Inaction::WatchOnly, "w")], at(0));
        for second in 1..=60 {
            let inaction = if second % 2 == 0 { Inaction::Refused } else { Inaction::Failed };
            all.observe(false, &[held(inaction, &format!("{second}"))], at(second));
        }
        assert_eq!(all.iter().count(), KEPT_MAX);
        assert_eq!(all.standing().count(), 2);
    }
}
