//! Whether the records' primary, which refuses writes, may take them again.

use std::collections::BTreeSet;

use crate::durability::DurabilityPolicy;
use crate::ids::TabletAlias;
use crate::knowledge::observe::TabletState;
use crate::knowledge::snapshot::ShardSnapshot;
use crate::reparent::election::{Contender, PrimaryPosition, Witnesses, position_of_primary};
use crate::reparent::safety::{Reach, Unsafe};

/// Checks that nobody out of sight can have taken its place. Checks also that nobody out of sight was last seen with what
/// the primary lacks and what may have been acknowledged. (Of those in sight the findings tell.)
pub fn check(snapshot: &ShardSnapshot, policy: DurabilityPolicy) -> Result<(), Unsafe> {
    let answered = snapshot.tablets.values().filter(|state| state.valid_status().is_some());
    let reached: BTreeSet<TabletAlias> = answered.map(|state| state.tablet.alias.clone()).collect();
    Reach::of(snapshot, policy, &reached).check_incumbent()?;
    let Some(primary) = snapshot.primary().map(|state| &state.tablet.alias) else { return Ok(()) };
    let hidden = |state: &&TabletState| state.valid_status().is_none();
    let heard = Contender::heard(snapshot);
    for holder in snapshot.tablets.values().filter(hidden).map(|state| &state.tablet.alias) {
        let in_question =
            |one: &&Contender| reached.contains(&one.tablet.alias) || one.tablet.alias == *holder;
        let everybody: Vec<Contender> = heard.iter().filter(in_question).cloned().collect();
        let position = position_of_primary(primary, &everybody, policy, Witnesses::All);
        if position == PrimaryPosition::Behind {
            let (holder, primary) = (holder.clone(), primary.clone());
            return Err(Unsafe::AheadOutOfSight { holder, primary });
        }
    }
    Ok(())
}
