//! What is kept of a recovery: why it ran, each step with its time, how it ended.

use std::fmt;

use crate::analysis::{Finding, FindingKind};
use crate::ids::{KeyspaceShard, RecoveryId, TabletAlias};
use crate::recovery::kind::RecoveryKind;
use crate::recovery::step::StepKind;
use crate::time::Timestamp;

/// The whole story of one recovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryRecord {
    /// Its number in the history store.
    pub id: RecoveryId,
    /// The shard.
    pub shard: KeyspaceShard,
    /// What was done.
    pub kind: RecoveryKind,
    /// Who or what asked for it.
    pub trigger: Trigger,
    /// The finding that started it; none for a requested one.
    pub finding: Option<FindingKind>,
    /// The tablet that the finding is about.
    pub finding_tablet: Option<TabletAlias>,
    /// The observations that the finding rested on.
    pub evidence: Vec<String>,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended; none while it runs.
    pub ended_at: Option<Timestamp>,
    /// How it ended; none while it runs.
    pub outcome: Option<Outcome>,
    /// The primary before.
    pub old_primary: Option<TabletAlias>,
    /// The primary after, if it changed.
    pub new_primary: Option<TabletAlias>,
    /// How long no server took writes, where that is known.
    pub write_outage_ms: Option<u64>,
    /// Its steps, in the order in which they began.
    pub steps: Vec<StepRecord>,
}

impl RecoveryRecord {
    /// A record of a recovery that begins.
    pub fn begin(
        id: RecoveryId,
        shard: KeyspaceShard,
        kind: RecoveryKind,
        trigger: Trigger,
        finding: Option<&Finding>,
        now: Timestamp,
    ) -> Self {
        Self {
            id,
            shard,
            kind,
            trigger,
            finding: finding.map(|finding| finding.kind),
            finding_tablet: finding.and_then(|finding| finding.tablet.clone()),
            evidence: finding.map(Finding::evidence_lines).unwrap_or_default(),
            started_at: now,
            ended_at: None,
            outcome: None,
            old_primary: None,
            new_primary: None,
            write_outage_ms: None,
            steps: Vec::new(),
        }
    }
}

/// Who or what asked for a recovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// vtorc itself, for a finding.
    Automatic,
    /// A person or program, over HTTP.
    Requested {
        /// Who, as far as known.
        by: String,
        /// The reason given.
        reason: String,
    },
}

/// One step of a recovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepRecord {
    /// What was done.
    pub kind: StepKind,
    /// On which tablet; none where it is about the shard.
    pub tablet: Option<TabletAlias>,
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took; none while it runs.
    pub duration_ms: Option<u64>,
    /// How it ended; none while it runs.
    pub outcome: Option<StepOutcome>,
}

/// How a step ended. What may or may not have happened is neither done nor not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepOutcome {
    /// It happened; a note where there is something to say.
    Done(String),
    /// It certainly did not happen.
    NotDone(String),
    /// It may have happened: no answer came.
    Unknown(String),
}

impl StepOutcome {
    /// Tells whether it certainly happened.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done(_))
    }

    /// The name in the history.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Done(_) => "done",
            Self::NotDone(_) => "not_done",
            Self::Unknown(_) => "unknown",
        }
    }

    /// The note or reason.
    pub fn text(&self) -> &str {
        match self {
            Self::Done(text) | Self::NotDone(text) | Self::Unknown(text) => text,
        }
    }
}

impl fmt::Display for StepOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text() {
            "" => f.write_str(self.name()),
            text => write!(f, "{}: {text}", self.name()),
        }
    }
}

/// How a recovery ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It did what it was for.
    Succeeded(String),
    /// Under the lock the finding was gone: somebody else repaired it, or what it was judged by shows otherwise now.
    AlreadyFixed,
    /// It was refused before anything was changed.
    Refused(String),
    /// It went wrong before the primary was changed.
    Failed(String),
    /// It was taken back; everything is as before.
    Undone(String),
    /// It went wrong after the primary may have been changed.
    Unclear(String),
    /// A more urgent recovery took its place.
    Preempted,
    /// vtorc ended while it ran.
    Interrupted,
}

/// How a recovery ended, without what there is to say about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OutcomeKind {
    /// See [`Outcome::Succeeded`].
    Succeeded,
    /// See [`Outcome::AlreadyFixed`].
    AlreadyFixed,
    /// See [`Outcome::Refused`].
    Refused,
    /// See [`Outcome::Failed`].
    Failed,
    /// See [`Outcome::Undone`].
    Undone,
    /// See [`Outcome::Unclear`].
    Unclear,
    /// See [`Outcome::Preempted`].
    Preempted,
    /// See [`Outcome::Interrupted`].
    Interrupted,
}

impl OutcomeKind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Succeeded,
        Self::AlreadyFixed,
        Self::Refused,
        Self::Failed,
        Self::Undone,
        Self::Unclear,
        Self::Preempted,
        Self::Interrupted,
    ];

    /// The name in the history, on the page and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::AlreadyFixed => "already_fixed",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Undone => "undone",
            Self::Unclear => "unclear",
            Self::Preempted => "preempted",
            Self::Interrupted => "interrupted",
        }
    }
}

impl Outcome {
    /// Which of them it is.
    pub fn kind(&self) -> OutcomeKind {
        match self {
            Self::Succeeded(_) => OutcomeKind::Succeeded,
            Self::AlreadyFixed => OutcomeKind::AlreadyFixed,
            Self::Refused(_) => OutcomeKind::Refused,
            Self::Failed(_) => OutcomeKind::Failed,
            Self::Undone(_) => OutcomeKind::Undone,
            Self::Unclear(_) => OutcomeKind::Unclear,
            Self::Preempted => OutcomeKind::Preempted,
            Self::Interrupted => OutcomeKind::Interrupted,
        }
    }

    /// The name in the history, on the page and in metrics.
    pub fn name(&self) -> &'static str {
        self.kind().name()
    }

    /// What there is to say about it.
    pub fn text(&self) -> &str {
        match self {
            Self::Succeeded(text)
            | Self::Refused(text)
            | Self::Failed(text)
            | Self::Undone(text)
            | Self::Unclear(text) => text,
            Self::AlreadyFixed => "it was gone when the shard was looked at under the lock",
            Self::Preempted => "a more urgent recovery took its place",
            Self::Interrupted => "vtorc ended while it ran",
        }
    }

    /// Puts name and text together again, as the history store keeps them.
    pub fn from_parts(name: &str, text: &str) -> Option<Self> {
        let text = text.to_owned();
        let kind = OutcomeKind::ALL.into_iter().find(|kind| kind.name() == name)?;
        Some(match kind {
            OutcomeKind::Succeeded => Self::Succeeded(text),
            OutcomeKind::AlreadyFixed => Self::AlreadyFixed,
            OutcomeKind::Refused => Self::Refused(text),
            OutcomeKind::Failed => Self::Failed(text),
            OutcomeKind::Undone => Self::Undone(text),
            OutcomeKind::Unclear => Self::Unclear(text),
            OutcomeKind::Preempted => Self::Preempted,
            OutcomeKind::Interrupted => Self::Interrupted,
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text() {
            "" => f.write_str(self.name()),
            text => write!(f, "{}: {text}", self.name()),
        }
    }
}

/// An operator's act that is kept beside the recoveries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// When.
    pub at: Timestamp,
    /// Which shard; none for the whole process.
    pub shard: Option<KeyspaceShard>,
    /// What: `acknowledge`, `disable-recoveries`, ...
    pub action: String,
    /// Who, as far as known.
    pub by: String,
    /// The comment given.
    pub comment: String,
}

/// A finding as it is kept: from when it appeared until it was gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FindingSpan {
    /// The shard.
    pub shard: KeyspaceShard,
    /// What was found.
    pub finding: FindingKind,
    /// The tablet that it is about.
    pub tablet: Option<TabletAlias>,
    /// When it appeared.
    pub since: Timestamp,
    /// When it was gone, or vtorc was; none while it stands.
    pub until: Option<Timestamp>,
}
