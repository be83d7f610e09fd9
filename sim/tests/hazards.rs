//! Every hazard by its name: whatever step it strikes at, nothing that must never happen happens.

use vtorc_sim::hazards::HAZARDS;
use vtorc_sim::run::{Trace, run};

#[test]
fn hazards_met_in_the_field_are_survived() {
    let mut bad = Vec::new();
    for hazard in HAZARDS {
        for schedule in hazard.schedules() {
            let verdict = run(&schedule, Trace::Drop);
            if let Some(violation) = verdict.violations.first() {
                let step = schedule.strikes.first().map(|(step, _)| *step);
                bad.push(format!("{} (step {step:?}): {violation}", hazard.name));
            }
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}
