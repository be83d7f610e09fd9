//! Every hazard by its name: whatever step it strikes at, nothing that must never happen happens.

use vtorc_sim::hazards::{HAZARDS, Hazard, ODD};
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
    for hazard in HAZARDS.iter().chain(ODD) {
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

/// From the loss of a cell to the last promotion: many shards are handled at once, not one after the other.
#[test]
fn many_shards_are_failed_over_as_fast_as_one() {
    let family = HAZARDS.iter().find(|hazard| hazard.name.starts_with("a cell is lost")).unwrap();
    let mut many = family.schedules().remove(0);
    let lost_at = many.faults.first().unwrap().at;
    let slowest = |schedule: &Schedule| {
        let verdict = run(schedule, Trace::Drop);
        let firsts = verdict.promotions.iter().map(|shard| {
            *shard.iter().find(|at| **at > lost_at).expect("a shard was not failed over")
        });
        firsts.max().unwrap() - lost_at
    };
    let of_many = slowest(&many);
    many.shards.truncate(1);
    let of_one = slowest(&many);
    assert!(of_many <= of_one + of_one / 2, "{of_many} ms for many shards, {of_one} ms for one");
}
