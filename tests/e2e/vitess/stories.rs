//! The stories of plain servers, told of tablets with vttablets: through those alone, and with their servers
//! probed directly as well.

use super::Way;
use crate::{bringup, crash, daemon, failover, planned, repairs};

macro_rules! stories {
    ($way:expr; $($name:ident: $story:path,)*) => {
        $(
            #[test]
            fn $name() {
                $story($way.into());
            }
        )*
    };
}

mod through_vttablets_alone {
    use super::*;

    stories! {
        Way::Vttablets;
    killed: failover::killed_under_load,
        frozen: failover::frozen,
        dead_before_the_start: failover::a_primary_that_was_dead_before_the_start_is_replaced_on,
        deleted_tablet: failover::a_deleted_primary_tablet_is_replaced_once_all_others_answer_on,
        second_dead_tablet: failover::a_second_dead_tablet_is_judged_by_the_policy_on,
        rdonly_most_advanced: failover::the_most_advanced_rdonly_gives_what_it_has_and_is_not_promoted_on,
        promotion_lag: failover::a_candidate_that_lags_applies_all_it_received_first_on,
        promotion_lag_failure: failover::a_candidate_that_lags_is_not_waited_for_where_that_is_configured_on,
        stopped_applier: failover::a_stopped_applier_does_not_delay_the_failover_on,
        preferred_with_lag: failover::a_preferred_candidate_that_lags_catches_up_and_is_promoted_on,
        forbidden: failover::what_the_configuration_forbids_is_not_promoted_on,
        block_period: failover::a_second_failure_within_the_block_period_waits_for_an_acknowledgement_on,
        damage: repairs::each_damage_is_found_and_repaired,
        wrong_sources: repairs::wrong_sources_are_put_right_for_replicas_and_primaries_on,
        policy_set_later: repairs::a_policy_set_at_run_time_takes_effect_by_itself_on,
        errant_old_primary: repairs::an_errant_old_primary_is_set_aside_and_named_on,
        stuck_commits: repairs::commits_that_nobody_was_asked_to_acknowledge_are_freed_by_another_write_on,
        planned: planned::under_load,
        planned_refused: planned::a_candidate_that_cannot_catch_up_is_refused_before_writes_stop_on,
        planned_undone: planned::a_candidate_that_stalls_after_writes_stopped_is_undone_and_writes_go_on_on,
        tablet_with_data: bringup::the_tablet_with_data_is_elected_and_the_others_get_it_on,
        own_data: bringup::tablets_with_data_of_their_own_are_not_chosen_from_on,
        rdonly_alone: bringup::rdonly_tablets_alone_are_refused_on,
        two_daemons: daemon::of_two_daemons_on_one_shard_one_acts_on,
        crash_in_an_emergency: crash::emergency_through_vttablets,
        crash_in_a_planned_reparent: crash::planned_through_vttablets,
        crash_in_an_election: crash::election_through_vttablets,
        too_few_ackers: bringup::too_few_ackers_are_refused_and_counted_on,
        working_tree: bringup::a_replication_tree_that_works_is_taken_over_as_it_is_on,
    }
}

/// Those in which it matters who is asked.
mod with_direct_probes {
    use super::*;

    stories! {
        Way::Both;
    killed: failover::killed_under_load,
        frozen: failover::frozen,
        second_dead_tablet: failover::a_second_dead_tablet_is_judged_by_the_policy_on,
        promotion_lag: failover::a_candidate_that_lags_applies_all_it_received_first_on,
        stopped_applier: failover::a_stopped_applier_does_not_delay_the_failover_on,
        damage: repairs::each_damage_is_found_and_repaired,
        wrong_sources: repairs::wrong_sources_are_put_right_for_replicas_and_primaries_on,
        policy_set_later: repairs::a_policy_set_at_run_time_takes_effect_by_itself_on,
        errant_old_primary: repairs::an_errant_old_primary_is_set_aside_and_named_on,
        stuck_commits: repairs::commits_that_nobody_was_asked_to_acknowledge_are_freed_by_another_write_on,
        planned: planned::under_load,
        planned_undone: planned::a_candidate_that_stalls_after_writes_stopped_is_undone_and_writes_go_on_on,
    }
}
