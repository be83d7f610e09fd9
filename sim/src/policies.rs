//! Who acknowledges by which policy, as the judge and the oracle understand Vitess's documentation ("Durability
//! policies"). They do not ask the program that they judge.

use vtorc_core::durability::DurabilityPolicy;
use vtorc_core::tablet::{Tablet, TabletType};

/// So many acknowledgements a commit waits for.
pub const fn acks_required(policy: DurabilityPolicy) -> u32 {
    match policy {
        DurabilityPolicy::None => 0,
        DurabilityPolicy::SemiSync
        | DurabilityPolicy::SemiSyncWithRdonlyAck
        | DurabilityPolicy::CrossCell
        | DurabilityPolicy::CrossCellWithRdonlyAck => 1,
    }
}

/// Whether an RDONLY tablet acknowledges by it.
pub const fn counts_rdonly(policy: DurabilityPolicy) -> bool {
    matches!(
        policy,
        DurabilityPolicy::SemiSyncWithRdonlyAck | DurabilityPolicy::CrossCellWithRdonlyAck
    )
}

/// Whether the policy has this tablet acknowledge what that primary writes.
pub fn is_acker(policy: DurabilityPolicy, primary: &Tablet, tablet: &Tablet) -> bool {
    let (rdonly_too, other_cell_only) = match policy {
        DurabilityPolicy::None => return false,
        DurabilityPolicy::SemiSync => (false, false),
        DurabilityPolicy::SemiSyncWithRdonlyAck => (true, false),
        DurabilityPolicy::CrossCell => (false, true),
        DurabilityPolicy::CrossCellWithRdonlyAck => (true, true),
    };
    let by_type = match tablet.tablet_type {
        TabletType::Primary | TabletType::Replica => true,
        TabletType::Rdonly => rdonly_too,
        TabletType::Unknown
        | TabletType::Spare
        | TabletType::Experimental
        | TabletType::Backup
        | TabletType::Restore
        | TabletType::Drained => false,
    };
    let far_enough = !other_cell_only || tablet.alias.cell != primary.alias.cell;
    tablet.alias != primary.alias && by_type && far_enough
}

#[cfg(test)]
mod tests {
    use vtorc_core::ids::TabletAlias;
    use vtorc_core::testkit;

    use super::*;

    const POLICIES: [DurabilityPolicy; 5] = [
        DurabilityPolicy::None,
        DurabilityPolicy::SemiSync,
        DurabilityPolicy::SemiSyncWithRdonlyAck,
        DurabilityPolicy::CrossCell,
        DurabilityPolicy::CrossCellWithRdonlyAck,
    ];

    /// Two readings of one text, written down apart.
    #[test]
    fn the_program_reads_the_policies_in_the_same_way() {
        let tablet = |cell: &str, uid, tablet_type| {
            testkit::tablet(TabletAlias { cell: cell.into(), uid }, tablet_type)
        };
        let primary = tablet("zone1", 1, TabletType::Primary);
        let types =
            [TabletType::Replica, TabletType::Rdonly, TabletType::Drained, TabletType::Backup];
        for policy in POLICIES {
            assert_eq!(acks_required(policy), policy.acks_required());
            assert!(!is_acker(policy, &primary, &primary));
            for tablet_type in types {
                for cell in ["zone1", "zone2"] {
                    let one = tablet(cell, 2, tablet_type);
                    let (mine, theirs) =
                        (is_acker(policy, &primary, &one), policy.is_acker(&primary, &one));
                    assert_eq!(mine, theirs, "{policy:?}, {tablet_type} in {cell}");
                }
            }
        }
    }
}
