//! Findings, and what they rest on.

use serde::Serialize;
use vtorc_core::analysis::{Age, Evidence, Finding};
use vtorc_core::remedy;

#[derive(Serialize)]
pub(super) struct FindingView {
    code: String,
    tablet: Option<String>,
    why: &'static str,
    evidence: Vec<EvidenceView>,
    recovery: &'static str,
}

/// One observation. Its `text` changes with its age; `sight` does not.
#[derive(Serialize)]
struct EvidenceView {
    text: String,
    sight: String,
    tablet: Option<String>,
    age_ms: Option<u64>,
}

impl EvidenceView {
    fn of(evidence: &Evidence) -> Self {
        let age = evidence.age.map(|age| match age {
            Age::Answered(age) | Age::Asked(age) | Age::Lasts(age) => age,
        });
        Self {
            text: evidence.to_string(),
            sight: evidence.steady(),
            tablet: evidence.tablet.as_ref().map(ToString::to_string),
            age_ms: age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

impl FindingView {
    pub(super) fn of(finding: &Finding) -> Self {
        Self {
            code: finding.kind.to_string(),
            tablet: finding.tablet.as_ref().map(ToString::to_string),
            why: finding.why,
            evidence: finding.evidence.iter().map(EvidenceView::of).collect(),
            recovery: remedy::remedy(finding.kind).name(),
        }
    }
}
