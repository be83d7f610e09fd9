//! What is shown and never repaired: the table, and how each is found.

use std::collections::BTreeMap;

use super::evidence::{Count, Evidence, Setting, Sight};
use crate::analysis::FindingKind;
use crate::analysis::facts::{STUCK_AFTER, errant_gtids};
use crate::ids::TabletAlias;
use crate::knowledge::health::{ProbeFailure, Reachability};
use crate::knowledge::observe::TabletState;
use crate::knowledge::snapshot::ShardSnapshot;
use crate::status::{NeedsPurged, ReceiverState, ReplicationStatus, ServerStatus, VttabletState};

/// Something that is shown and never repaired.
pub struct Warning {
    /// The finding.
    pub kind: FindingKind,
    /// The reason, in words.
    pub why: &'static str,
    /// On which tablets it holds, with evidence.
    pub find: fn(&ShardSnapshot) -> Vec<Occurrence>,
}

/// A tablet, or none for the shard as a whole, and the evidence.
pub type Occurrence = (Option<TabletAlias>, Vec<Evidence>);

/// What is shown and never repaired.
pub const WARNINGS: &[Warning] = &[
    Warning {
        kind: FindingKind::LockedSemiSyncPrimary,
        why: "commits wait for acknowledgements, and too few ackers are connected and hear the primary",
        find: |snapshot| locked(snapshot, true),
    },
    Warning {
        kind: FindingKind::LockedSemiSyncPrimaryHypothesis,
        why: "fewer ackers are connected than the primary waits for: the next commit will wait",
        find: |snapshot| locked(snapshot, false),
    },
    Warning {
        kind: FindingKind::PrimarySingleReplicaNotReplicating,
        why: "the only replica does not replicate",
        find: |snapshot| {
            where_replicas(snapshot, |c| c.total == 1 && c.valid == 1 && c.replicating == 0)
        },
    },
    Warning {
        kind: FindingKind::PrimarySingleReplicaDead,
        why: "the only replica cannot be reached",
        find: |snapshot| where_replicas(snapshot, |c| c.total == 1 && c.gone == 1),
    },
    Warning {
        kind: FindingKind::AllPrimaryReplicasNotReplicating,
        why: "no replica replicates",
        find: |snapshot| {
            where_replicas(snapshot, |c| c.total > 1 && c.valid == c.total && c.replicating == 0)
        },
    },
    Warning {
        kind: FindingKind::AllPrimaryReplicasNotReplicatingOrDead,
        why: "no replica replicates, and some cannot be reached",
        find: |snapshot| {
            where_replicas(snapshot, |c| {
                c.total > 1 && c.gone > 0 && c.valid + c.gone == c.total && c.replicating == 0
            })
        },
    },
    Warning {
        kind: FindingKind::NotEnoughSemiSyncReplicas,
        why: "fewer ackers can be reached than the policy demands acknowledgements",
        find: too_few_ackers,
    },
    Warning {
        kind: FindingKind::SeveralMajorVersions,
        why: "servers of several major versions: a newer one cannot be followed by an older one",
        find: several_versions,
    },
    Warning {
        kind: FindingKind::NoLogReplicaUpdates,
        why: "it does not log what it receives, so it is never promoted",
        find: |snapshot| {
            each_valid(snapshot, |_, status| !status.log_replica_updates || !status.log_bin)
        },
    },
    Warning {
        kind: FindingKind::PurgedGtids,
        why: "the primary's binary logs no longer hold what it needs: it must be cloned anew",
        find: purged,
    },
    Warning {
        kind: FindingKind::ReplicationFilters,
        why: "replication filters: it does not have everything, and is promoted only as a last resort",
        find: |snapshot| {
            each_valid(snapshot, |_, status| {
                status.replication.as_ref().is_some_and(|r| r.filtered)
            })
        },
    },
    Warning {
        kind: FindingKind::DelayedReplicasOnly,
        why: "every replica is delayed on purpose: a failover would take as long as the delay",
        find: |snapshot| {
            let Some(primary) = snapshot.primary() else { return Vec::new() };
            let mut delays = snapshot
                .replicas_of(&primary.tablet.alias)
                .filter(|state| state.tablet.tablet_type.is_promotable())
                .filter_map(|state| state.valid_status()?.replication.as_ref())
                .map(|replication| replication.delay_seconds)
                .peekable();
            let all_delayed = delays.peek().is_some() && delays.all(|delay| delay > 0);
            if all_delayed { vec![(None, Vec::new())] } else { Vec::new() }
        },
    },
    Warning {
        kind: FindingKind::LostTransactions,
        why: "it lost transactions that it wrote itself and never gets them back from others: it is never promoted, \
              and must be cloned anew",
        find: lost_transactions,
    },
    Warning {
        kind: FindingKind::MixedBinlogFormats,
        why: "servers log in different formats; set binlog_format = ROW everywhere, or a failover changes what is \
              logged",
        find: mixed_formats,
    },
    Warning {
        kind: FindingKind::ErrantGTIDDetected,
        why: "it has transactions that the primary lacks; it is not promoted unless it is named",
        find: |snapshot| {
            let Some(primary) = snapshot.primary() else { return Vec::new() };
            let each = snapshot.tablets.values().filter_map(|state| {
                let gtids = errant_gtids(state, primary)?;
                Some((Some(state.tablet.alias.clone()), vec![Sight::Errant(gtids).here()]))
            });
            each.collect()
        },
    },
    Warning {
        kind: FindingKind::InvalidReplica,
        why: "the tablet cannot be reached",
        find: |snapshot| {
            let primary = snapshot.primary().map(|state| &state.tablet.alias);
            let gone = |state: &&TabletState| {
                Some(&state.tablet.alias) != primary
                    && state.reachability.is_unreachable()
                    && !is_stranger(state)
            };
            failures(snapshot.tablets.values().filter(gone))
        },
    },
    Warning {
        kind: FindingKind::StrangerAtAddress,
        why: "somebody else's server answers at the tablet's address; it is not touched, and the tablet counts as gone: \
              correct the tablet's record, or forget the tablet",
        find: |snapshot| failures(snapshot.tablets.values().filter(is_stranger)),
    },
    Warning {
        kind: FindingKind::AccessDenied,
        why: "the server answers and turns vtorc away: check the topology user, its password and grants",
        find: |snapshot| {
            turned_away(snapshot, |failure| matches!(failure, ProbeFailure::TurnedAway(_)))
        },
    },
    Warning {
        kind: FindingKind::TooManyConnections,
        why: "the server has no connection left for vtorc, and for replicas neither: end some, or raise max_connections",
        find: |snapshot| turned_away(snapshot, |failure| matches!(failure, ProbeFailure::Full(_))),
    },
    Warning {
        kind: FindingKind::HostBlocked,
        why: "the server blocks vtorc's host, from which too many connections broke off: FLUSH HOSTS (mysqladmin \
              flush-hosts), or raise max_connect_errors",
        find: |snapshot| {
            turned_away(snapshot, |failure| matches!(failure, ProbeFailure::Blocked(_)))
        },
    },
    Warning {
        kind: FindingKind::VttabletUnreachable,
        why: "its server answers and its vttablet does not: nobody reaches it through Vitess",
        find: |snapshot| {
            let silent = |state: &TabletState| match state.valid_status()?.vttablet.as_ref()? {
                VttabletState::Silent(why) => {
                    let fails = Sight::VttabletFails(why.clone()).here();
                    Some((Some(state.tablet.alias.clone()), vec![fails]))
                }
                VttabletState::Answers { .. } | VttabletState::TooOld(_) => None,
            };
            snapshot.tablets.values().filter_map(silent).collect()
        },
    },
    Warning {
        kind: FindingKind::VttabletTooOld,
        why: "its vttablet does not know the calls by which vtorc looks at it and repairs it: upgrade it",
        find: |snapshot| {
            let old = |state: &TabletState| {
                let known = state.valid_status().and_then(|status| status.vttablet.clone());
                let why = match (known, state.reachability.failure()) {
                    (Some(VttabletState::TooOld(why)), _) => why,
                    (_, Some(ProbeFailure::TooOld(why))) => why.clone(),
                    (_, _) => return None,
                };
                Some((Some(state.tablet.alias.clone()), vec![Sight::VttabletFails(why).here()]))
            };
            snapshot.tablets.values().filter_map(old).collect()
        },
    },
    Warning {
        kind: FindingKind::NoMysqlAddress,
        why: "the tablet's record has no MySQL address",
        find: |snapshot| {
            let without = snapshot.tablets.values().filter(|state| state.tablet.mysql.is_none());
            without.map(|state| (Some(state.tablet.alias.clone()), Vec::new())).collect()
        },
    },
    Warning {
        kind: FindingKind::DamagedRecord,
        why: "a record of the shard cannot be understood; what was known before is shown, and nothing can be written there",
        find: |snapshot| {
            let damaged = snapshot.damaged.iter();
            let damaged = damaged.map(|(path, why)| Sight::Damaged(path.clone(), why.clone()));
            damaged.map(|sight| (None, vec![sight.here()])).collect()
        },
    },
    Warning {
        kind: FindingKind::UnreadTopology,
        why: "part of the topology could never be read; the shard may have tablets there",
        find: |snapshot| {
            let unread = snapshot.unseen.iter();
            let unread = unread.map(|(place, why)| Sight::Unread(place.clone(), why.clone()));
            let evidence: Vec<Evidence> = unread.map(Sight::here).collect();
            (!evidence.is_empty()).then_some((None, evidence)).into_iter().collect()
        },
    },
    Warning {
        kind: FindingKind::GtidModeOff,
        why: "GTIDs are off; the server can neither be promoted nor repaired",
        find: |snapshot| {
            let off = snapshot
                .tablets
                .values()
                .filter(|state| state.valid_status().is_some_and(|status| !status.gtid_mode_on));
            off.map(|state| (Some(state.tablet.alias.clone()), Vec::new())).collect()
        },
    },
    Warning {
        kind: FindingKind::SemiSyncPluginMissing,
        why: "the durability policy wants semi-sync and the server has no plugin for it",
        find: |snapshot| {
            let wanted =
                snapshot.durability.as_ref().is_ok_and(|policy| policy.acks_required() > 0);
            let without = snapshot.tablets.values().filter(|state| {
                wanted
                    && state.tablet.tablet_type.is_promotable()
                    && state.valid_status().is_some_and(|status| {
                        !status.semi_sync.source_available || !status.semi_sync.replica_available
                    })
            });
            without.map(|state| (Some(state.tablet.alias.clone()), Vec::new())).collect()
        },
    },
];

fn is_stranger(state: &&TabletState) -> bool {
    matches!(state.reachability.failure(), Some(ProbeFailure::Stranger(_)))
}

/// Tablets whose server answers, and turns vtorc away like this.
fn turned_away(snapshot: &ShardSnapshot, like_this: fn(&ProbeFailure) -> bool) -> Vec<Occurrence> {
    let denied = snapshot.tablets.values().filter(|state| {
        let turned_away = matches!(state.reachability, Reachability::TurnedAway { .. });
        turned_away && state.reachability.failure().is_some_and(like_this)
    });
    failures(denied)
}

fn failures<'a>(states: impl Iterator<Item = &'a TabletState>) -> Vec<Occurrence> {
    let seen = |state: &TabletState| {
        let failure = state.reachability.failure().cloned();
        failure.map(|why| Sight::Unusable(why).here()).into_iter().collect()
    };
    states.map(|state| (Some(state.tablet.alias.clone()), seen(state))).collect()
}

/// Tablets whose server answered and for which this holds.
fn each_valid(
    snapshot: &ShardSnapshot,
    holds: impl Fn(&TabletState, &ServerStatus) -> bool,
) -> Vec<Occurrence> {
    let managed = snapshot.tablets.values().filter(|state| state.tablet.tablet_type.is_managed());
    managed
        .filter(|state| state.valid_status().is_some_and(|status| holds(state, status)))
        .map(|state| (Some(state.tablet.alias.clone()), Vec::new()))
        .collect()
}

/// The replicas of a primary that is in order, counted.
#[derive(Default)]
struct ReplicaCounts {
    total: usize,
    valid: usize,
    gone: usize,
    replicating: usize,
}

/// Tells of the shard where its replicas, all together, are like this.
fn where_replicas(
    snapshot: &ShardSnapshot,
    holds: impl Fn(&ReplicaCounts) -> bool,
) -> Vec<Occurrence> {
    let Some(primary) = snapshot.primary().filter(|state| state.valid_status().is_some()) else {
        return Vec::new();
    };
    let mut counts = ReplicaCounts::default();
    for replica in snapshot.replicas_of(&primary.tablet.alias) {
        counts.total += 1;
        counts.gone += usize::from(replica.reachability.is_unreachable());
        let Some(status) = replica.valid_status() else { continue };
        counts.valid += 1;
        let healthy = status.replication.as_ref().is_some_and(ReplicationStatus::is_healthy);
        counts.replicating += usize::from(healthy);
    }
    if !holds(&counts) {
        return Vec::new();
    }
    let ReplicaCounts { total, valid: answer, gone, replicating: replicate } = counts;
    let count = Count::Replicas { total, answer, replicate, gone };
    vec![(Some(primary.tablet.alias.clone()), vec![count.here()])]
}

/// A primary that waits for more acknowledgements than ackers are connected.
fn locked(snapshot: &ShardSnapshot, stuck: bool) -> Vec<Occurrence> {
    let Some(primary) = snapshot.primary() else { return Vec::new() };
    let Some(status) = primary.valid_status() else { return Vec::new() };
    let semi_sync = &status.semi_sync;
    let is_stuck = primary.stuck_since.is_some_and(|since| since.age(snapshot.now) >= STUCK_AFTER);
    let silent = if is_stuck { silent_ackers(snapshot, primary) } else { Vec::new() };
    let connected = semi_sync.clients.saturating_sub(u32::try_from(silent.len()).unwrap_or(0));
    let short = semi_sync.source_enabled && connected < semi_sync.wait_count;
    if !short || is_stuck != stuck {
        return Vec::new();
    }
    let ackers = Count::Ackers {
        connected: semi_sync.clients,
        wanted: semi_sync.wait_count,
        sessions: semi_sync.waiting_sessions,
    };
    let silent = silent.iter().map(|alias| Sight::from(Count::SilentAcker).of(alias));
    let evidence = std::iter::once(ackers.here()).chain(silent).collect();
    vec![(Some(primary.tablet.alias.clone()), evidence)]
}

/// Ackers that are connected and silent.
fn silent_ackers(snapshot: &ShardSnapshot, primary: &TabletState) -> Vec<TabletAlias> {
    let connected = |replica: &&TabletState| {
        let Some(status) = replica.valid_status() else { return false };
        let channel = status.replication.as_ref().filter(|_| status.semi_sync.replica_enabled);
        channel.is_some_and(|channel| {
            channel.receiver == ReceiverState::Running && primary.is_source_of(channel)
        })
    };
    let replicas = snapshot.replicas_of(&primary.tablet.alias).filter(connected);
    let silent = replicas.filter(|one| snapshot.is_silent(one, primary));
    silent.map(|replica| replica.tablet.alias.clone()).collect()
}

fn too_few_ackers(snapshot: &ShardSnapshot) -> Vec<Occurrence> {
    let (Ok(policy), Some(primary)) = (&snapshot.durability, snapshot.primary()) else {
        return Vec::new();
    };
    let ackers = snapshot
        .replicas_of(&primary.tablet.alias)
        .filter(|state| state.reachability.is_valid())
        .filter(|state| {
            policy.wants_ack_of(&primary.tablet, &state.tablet, state.status.as_deref())
        });
    let (found, required) = (ackers.count(), policy.acks_required() as usize);
    let undecided = snapshot.tablets.values().any(|state| {
        matches!(state.reachability, Reachability::Unseen | Reachability::Suspect { .. })
    });
    if found >= required || undecided {
        return Vec::new();
    }
    vec![(None, vec![Count::TooFewAckers { found, required, policy: *policy }.here()])]
}

fn several_versions(snapshot: &ShardSnapshot) -> Vec<Occurrence> {
    let mut versions: BTreeMap<_, Vec<TabletAlias>> = BTreeMap::new();
    for state in snapshot.tablets.values() {
        let Some(status) = state.valid_status() else { continue };
        versions.entry(status.major_version()).or_default().push(state.tablet.alias.clone());
    }
    if versions.len() < 2 {
        return Vec::new();
    }
    let each = versions.into_iter().map(|(version, who)| Count::Version(version, who).here());
    vec![(None, each.collect())]
}

fn mixed_formats(snapshot: &ShardSnapshot) -> Vec<Occurrence> {
    let mut formats: BTreeMap<_, Vec<TabletAlias>> = BTreeMap::new();
    for state in snapshot.tablets.values() {
        let format = state.valid_status().and_then(|status| status.binlog_format);
        if let Some(format) = format.filter(|_| state.tablet.tablet_type.is_promotable()) {
            formats.entry(format).or_default().push(state.tablet.alias.clone());
        }
    }
    if formats.len() < 2 {
        return Vec::new();
    }
    let each = formats.into_iter().map(|(format, who)| Count::LogsIn(format, who).here());
    vec![(None, each.collect())]
}

/// Whoever lacks what it wrote itself and the primary has.
fn lost_transactions(snapshot: &ShardSnapshot) -> Vec<Occurrence> {
    let Some(primary) = snapshot.primary() else { return Vec::new() };
    let others =
        snapshot.tablets.values().filter(|state| state.tablet.alias != primary.tablet.alias);
    let found = others.filter_map(|state| {
        let lost = state.lost_to(primary)?;
        Some((Some(state.tablet.alias.clone()), vec![Sight::Lost(lost, None).here()]))
    });
    found.collect()
}

/// Replicas that would need what the primary has purged.
fn purged(snapshot: &ShardSnapshot) -> Vec<Occurrence> {
    let Some(primary) = snapshot.primary() else { return Vec::new() };
    let Some(source) = primary.valid_status() else { return Vec::new() };
    snapshot
        .replicas_of(&primary.tablet.alias)
        .filter_map(|state| {
            let evidence = match state.valid_status()?.needs_purged(source)? {
                NeedsPurged::Of(missing) => Sight::LacksPurged(missing).here(),
                NeedsPurged::Told(error) => Setting::ReceiverFails(error.clone()).here(),
            };
            Some((Some(state.tablet.alias.clone()), vec![evidence]))
        })
        .collect()
}
