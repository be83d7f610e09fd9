//! What a recovery is for.

use super::kind::RecoveryKind;
use super::request::{
    CureErrantRequest, ErrantCure, ForgetRequest, ReparentKind, ReparentRequest, Request,
};
use crate::admission::attempts::Approved;
use crate::admission::requested::BlockRule;
use crate::analysis::Finding;
use crate::audit::Trigger;
use crate::ids::TabletAlias;

/// What a recovery is for.
#[derive(Clone, Debug)]
pub enum Task {
    /// A recovery of the shard as a whole, for a finding.
    Shard(RecoveryKind, Finding),
    /// Repairs of replicas.
    Replicas(Vec<Finding>),
    /// A reparent that somebody asked for.
    Requested(ReparentRequest),
    /// An end to errant GTIDs that somebody asked for.
    CureErrant(CureErrantRequest),
    /// A tablet that somebody says is gone for good.
    Forget(ForgetRequest),
}

impl From<Request> for Task {
    fn from(request: Request) -> Self {
        match request {
            Request::Reparent(request) => Self::Requested(request),
            Request::CureErrant(request) => Self::CureErrant(request),
            Request::Forget(request) => Self::Forget(request),
        }
    }
}

impl From<Approved> for Task {
    fn from(approved: Approved) -> Self {
        match approved {
            Approved::Shard(kind, finding) => Self::Shard(kind, finding),
            Approved::Replicas(findings) => Self::Replicas(findings),
        }
    }
}

impl Task {
    /// The kind of recovery that it is.
    pub fn kind(&self) -> RecoveryKind {
        match self {
            Self::Shard(kind, _) => *kind,
            Self::Replicas(_) => RecoveryKind::FixReplica,
            Self::Requested(request) => match request.kind {
                ReparentKind::Planned => RecoveryKind::PlannedReparent,
                ReparentKind::Emergency => RecoveryKind::EmergencyReparent,
            },
            Self::CureErrant(request) => match request.cure {
                ErrantCure::Drain => RecoveryKind::DrainErrant,
                ErrantCure::Inject => RecoveryKind::InjectErrant,
            },
            Self::Forget(_) => RecoveryKind::Forget,
        }
    }

    /// The finding that the history and the hooks name as its reason.
    pub fn finding(&self) -> Option<&Finding> {
        match self {
            Self::Shard(_, finding) => Some(finding),
            Self::Replicas(findings) => findings.first(),
            Self::Requested(_) | Self::CureErrant(_) | Self::Forget(_) => None,
        }
    }

    /// The findings that it is for.
    pub fn findings(&self) -> &[Finding] {
        match self {
            Self::Shard(_, finding) => std::slice::from_ref(finding),
            Self::Replicas(findings) => findings,
            Self::Requested(_) | Self::CureErrant(_) | Self::Forget(_) => &[],
        }
    }

    /// A reparent does not wait for a repair: the repair is called off, and starts again if it is still needed.
    pub fn goes_before(&self, running: &Self) -> bool {
        self.kind().is_reparent() && !running.kind().is_reparent()
    }

    /// Somebody asked for it.
    pub fn is_requested(&self) -> bool {
        match self {
            Self::Requested(_) | Self::CureErrant(_) | Self::Forget(_) => true,
            Self::Shard(..) | Self::Replicas(_) => false,
        }
    }

    /// The tablets that a request names.
    pub fn named(&self) -> Vec<&TabletAlias> {
        match self {
            Self::Requested(request) => {
                [&request.new_primary, &request.avoid_primary].into_iter().flatten().collect()
            }
            Self::CureErrant(request) => vec![&request.tablet],
            Self::Forget(request) => vec![&request.tablet],
            Self::Shard(..) | Self::Replicas(_) => Vec::new(),
        }
    }

    /// Whether a block stands in its way.
    pub fn block_rule(&self) -> BlockRule {
        let honours = match self {
            Self::Requested(request) => {
                request.kind == ReparentKind::Emergency && !request.ignore_block
            }
            Self::CureErrant(_) | Self::Forget(_) | Self::Shard(..) | Self::Replicas(_) => false,
        };
        if honours { BlockRule::Honoured } else { BlockRule::Ignored }
    }

    /// Why it was begun.
    pub fn trigger(&self) -> Trigger {
        match self {
            Self::Shard(..) | Self::Replicas(_) => Trigger::Automatic,
            Self::Requested(ReparentRequest { by, reason, .. })
            | Self::CureErrant(CureErrantRequest { by, reason, .. })
            | Self::Forget(ForgetRequest { by, reason, .. }) => {
                Trigger::Requested { by: by.clone(), reason: reason.clone() }
            }
        }
    }
}
