//! What a recovery is for.

use vtorc_core::analysis::Finding;
use vtorc_core::audit::Trigger;
use vtorc_core::remedy::Remedy;

use crate::messages::{ReparentKind, ReparentRequest};

/// What a recovery is for.
#[derive(Clone, Debug)]
pub(crate) enum Task {
    /// A recovery of the shard as a whole, for a finding.
    Shard(Remedy, Finding),
    /// Repairs of replicas.
    Replicas(Vec<Finding>),
    /// A reparent that somebody asked for.
    Requested(ReparentRequest),
}

impl Task {
    pub(super) fn remedy(&self) -> Remedy {
        match self {
            Self::Shard(remedy, _) => *remedy,
            Self::Replicas(_) => Remedy::FixReplica,
            Self::Requested(_) => Remedy::EmergencyReparent,
        }
    }

    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Requested(request) => match request.kind {
                ReparentKind::Planned => "PlannedReparent",
                ReparentKind::Emergency => "EmergencyReparent",
            },
            Self::Shard(..) | Self::Replicas(_) => self.remedy().name(),
        }
    }

    pub(super) fn finding(&self) -> Option<&Finding> {
        match self {
            Self::Shard(_, finding) => Some(finding),
            Self::Replicas(findings) => findings.first(),
            Self::Requested(_) => None,
        }
    }

    pub(super) fn findings(&self) -> &[Finding] {
        match self {
            Self::Shard(_, finding) => std::slice::from_ref(finding),
            Self::Replicas(findings) => findings,
            Self::Requested(_) => &[],
        }
    }

    pub(super) fn trigger(&self) -> Trigger {
        match self {
            Self::Shard(..) | Self::Replicas(_) => Trigger::Automatic,
            Self::Requested(request) => {
                Trigger::Requested { by: request.by.clone(), reason: request.reason.clone() }
            }
        }
    }
}
