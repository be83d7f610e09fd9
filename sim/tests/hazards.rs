//! Every hazard by its name: whatever step it strikes at, nothing that must never happen happens.

use vtorc_sim::hazards::{HAZARDS, Hazard};
use vtorc_sim::run::{Trace, run};
use vtorc_sim::schedule::Schedule;

#[test]
fn hazards_met_in_the_field_are_survived() {
    survived(Hazard::schedules);
}

#[test]
fn hazards_met_in_the_field_are_survived_with_vttablets() {
    survived(Hazard::schedules_with_vttablets);
}

fn survived(schedules: impl Fn(&Hazard) -> Vec<Schedule>) {
    let mut bad = Vec::new();
    for hazard in HAZARDS {
        for schedule in schedules(hazard) {
            let verdict = run(&schedule, Trace::Drop);
            if let Some(violation) = verdict.violations.first() {
                let step = schedule.strikes.first().map(|(step, _)| *step);
                bad.push(format!("{} (step {step:?}): {violation}", hazard.name));
            }
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}
