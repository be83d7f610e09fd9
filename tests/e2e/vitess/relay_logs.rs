//! The stories of relay logs, told of a server that is reached through its vttablet alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mysql::prelude::Queryable;
use vtorc_clients::vttablet::{Tablets, VttabletAccess};
use vtorc_core::ports::{
    CommandError, MysqlPort, PromotionGrounds, RelayLog, ServerCommand, SourceChange,
};
use vtorc_core::status::{ReceiverState, ReplicationStatus, ServerStatus};
use vtorc_core::tablet::{TabletAddress, VttabletAddress};

use super::cluster::Way;
use crate::harness::{Cluster, PATIENCE, THREE, padded, wait_for};
use crate::partial::{at_once, create_long_ones, cut_short, has_a_part, write_a_long_transaction};
use crate::window::{ENOUGH, access, plain};
use crate::writer::{arrives, create_table, rows};

/// A shard without a daemon, whose first replica alone has received one row more.
struct Shard {
    cluster: Cluster,
    tablets: Tablets,
    runtime: tokio::runtime::Runtime,
    primary: String,
    replica: String,
    other: String,
}

impl Shard {
    fn new() -> Self {
        let mut cluster = Cluster::new(Way::Vttablets, "none", THREE);
        cluster.start_daemon(&[]);
        let primary = cluster.healthy(&[]);
        create_table(cluster.server(&primary));
        cluster.daemons.clear();
        let mut replicas = THREE.iter().map(|alias| padded(alias)).filter(|one| *one != primary);
        let (replica, other) = (replicas.next().unwrap(), replicas.next().unwrap());
        for alias in [&replica, &other] {
            arrives(cluster.server(alias), &[].into());
        }
        let vttablets = VttabletAccess {
            tls: None,
            credentials: None,
            connect_timeout: Duration::from_secs(5),
            message_max: 16 * 1024 * 1024,
            heartbeat_period: Duration::from_millis(300),
            direct: false,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let tablets = Tablets::new(access().into(), vttablets).unwrap();
        Self { cluster, tablets, runtime, primary, replica, other }
    }

    /// `before` does something to the replica before it receives the row.
    fn with_one_unapplied(before: impl Fn(&Self)) -> Self {
        let shard = Self::new();
        shard.run(&shard.other, ServerCommand::StopReceiver).unwrap();
        before(&shard);
        let insert = "INSERT INTO test.ledger VALUES (1, 'acknowledged')";
        shard.cluster.server(&shard.primary).run(&[insert]).unwrap();
        let received = || {
            let status = shard.run(&shard.replica, ServerCommand::ReadStatus).unwrap();
            (!status.unapplied().is_empty()).then_some(())
        };
        wait_for(received).expect("it was not received");
        shard.run(&shard.replica, ServerCommand::StopReceiver).unwrap();
        shard
    }

    fn address(&self, alias: &str) -> TabletAddress {
        let vttablet = self.cluster.vttablets[alias].address();
        let host = vttablet.ip().to_string();
        let vttablet = Some(VttabletAddress { host, port: vttablet.port() });
        let alias_of = alias.parse().unwrap();
        let plain = plain(&self.cluster.server(alias).address());
        TabletAddress { alias: alias_of, vttablet, ..plain }
    }

    fn run(&self, alias: &str, command: ServerCommand) -> Result<ServerStatus, CommandError> {
        self.run_within(alias, command, ENOUGH)
    }

    fn run_within(
        &self,
        alias: &str,
        command: ServerCommand,
        deadline: Duration,
    ) -> Result<ServerStatus, CommandError> {
        self.runtime.block_on(self.tablets.run(&self.address(alias), command, deadline))
    }

    fn to_the_other(&self, relay_log: RelayLog) -> Result<ServerStatus, CommandError> {
        let (source, change) = (self.address(&self.other), SourceChange::Repoint);
        let follow = ServerCommand::follow(source, false, change, relay_log);
        self.run(&self.replica, follow)
    }

    fn replication(&self) -> ReplicationStatus {
        self.run(&self.replica, ServerCommand::ReadStatus).unwrap().replication.unwrap()
    }

    fn has_a_row_in_the_way(&self) {
        let conflict = [
            "SET GLOBAL super_read_only = OFF",
            "SET sql_log_bin = 0",
            "INSERT INTO test.ledger VALUES (1, 'in the way')",
            "SET GLOBAL super_read_only = ON",
        ];
        self.cluster.server(&self.replica).run(&conflict).unwrap();
    }

    fn is_late(&self) {
        self.run(&self.replica, ServerCommand::SetDelay { seconds: 3600 }).unwrap();
    }
}

#[test]
fn a_statement_that_a_vttablet_runs_and_vtorc_gives_up_does_not_run_later() {
    let shard = Shard::new();
    let primary = shard.cluster.server(&shard.primary);
    let mut admin = primary.connect_within("admin", PATIENCE).unwrap();
    admin.query_drop("FLUSH TABLES WITH READ LOCK").unwrap();
    let limit = Duration::from_millis(1500);
    let outcome = shard.run_within(&shard.primary, ServerCommand::WriteNothing, limit);
    assert!(matches!(outcome, Err(CommandError::Unknown(_))), "{outcome:?}");
    let left = "SELECT COUNT(*) FROM information_schema.PROCESSLIST \
                WHERE INFO LIKE 'CREATE DATABASE%' AND ID <> CONNECTION_ID()";
    let ended = || {
        let count: Option<u64> = admin.query_first(left).unwrap();
        (count == Some(0)).then_some(())
    };
    wait_for(ended).expect("it waits still, and will run");
}

#[test]
fn a_delay_is_lifted_through_a_vttablet_and_nothing_is_lost() {
    for frozen in [false, true] {
        let shard = Shard::with_one_unapplied(Shard::is_late);
        let primary = shard.cluster.server(&shard.primary);
        primary.run(&["INSERT INTO test.ledger VALUES (2, 'after')"]).unwrap();
        if frozen {
            primary.freeze();
        }
        let status = shard.run(&shard.replica, ServerCommand::SetDelay { seconds: 0 }).unwrap();
        assert_eq!(status.replication.unwrap().receiver, ReceiverState::Stopped);
        let replica = shard.cluster.server(&shard.replica);
        arrives(replica, &[1].into());
        assert!(!rows(replica).contains(&2), "it received more");
        primary.thaw();
    }
}

#[test]
fn a_late_replica_with_a_vttablet_keeps_what_it_received_when_it_follows_another() {
    let shard = Shard::with_one_unapplied(Shard::is_late);
    shard.cluster.server(&shard.primary).freeze();
    shard.to_the_other(RelayLog::MustStay).unwrap();
    shard.run(&shard.replica, ServerCommand::SetDelay { seconds: 0 }).unwrap();
    arrives(shard.cluster.server(&shard.replica), &[1].into());
    shard.cluster.server(&shard.primary).thaw();
}

#[test]
fn a_replica_with_a_vttablet_that_cannot_keep_what_it_received_may_only_lose_what_it_may() {
    let shard = Shard::with_one_unapplied(Shard::has_a_row_in_the_way);
    let replication = || shard.replication();
    wait_for(|| (!replication().applier_running).then_some(())).expect("its applier goes on");
    let refused = shard.to_the_other(RelayLog::MustStay);
    let Err(CommandError::NotDone(why)) = refused else { panic!("{refused:?}") };
    assert!(why.contains("it has received") && why.contains("its applier's error"), "{why}");
    assert_eq!(replication().receiver, ReceiverState::Stopped);
    assert_eq!(replication().source, shard.address(&shard.primary).mysql);
    // What the other has as well may go.
    shard.cluster.server(&shard.other).run(&["START REPLICA"]).unwrap();
    arrives(shard.cluster.server(&shard.other), &[1].into());
    shard.to_the_other(RelayLog::MayGo).unwrap();
    assert_eq!(replication().source, shard.address(&shard.other).mysql);
}

/// Its applier fails while it is waited for: the refusal leaves the receiver as it was.
#[test]
fn a_refusal_leaves_a_replica_with_a_vttablet_receiving() {
    let shard = Shard::with_one_unapplied(|shard| {
        shard.has_a_row_in_the_way();
        shard.cluster.server(&shard.replica).run(&["STOP REPLICA SQL_THREAD"]).unwrap();
    });
    shard.cluster.server(&shard.replica).run(&["START REPLICA IO_THREAD"]).unwrap();
    let receives = || (shard.replication().receiver == ReceiverState::Running).then_some(());
    wait_for(receives).expect("it does not receive");
    let refused = shard.to_the_other(RelayLog::MustStay);
    assert!(matches!(refused, Err(CommandError::NotDone(_))), "{refused:?}");
    wait_for(receives).expect("it receives no more");
    assert_eq!(shard.replication().source, shard.address(&shard.primary).mysql);
}

/// Its source is another proxy away: the vttablet itself would wait a minute for the rest.
#[test]
fn a_part_of_a_transaction_holds_up_no_change_through_a_vttablet() {
    for promote in [true, false] {
        let shard = Shard::new();
        let (primary, replica) =
            (shard.cluster.server(&shard.primary), shard.cluster.server(&shard.replica));
        create_long_ones(primary);
        let now = Arc::new(AtomicBool::new(false));
        let proxy = cut_short(primary, now.clone());
        let (_, port) = proxy.address.rsplit_once(':').unwrap();
        let change = format!("CHANGE REPLICATION SOURCE TO SOURCE_PORT = {port}");
        replica.run(&["STOP REPLICA", &change, "START REPLICA"]).unwrap();
        primary.run(&["INSERT INTO test.ledger VALUES (1, 'acknowledged')"]).unwrap();
        arrives(replica, &[1].into());
        now.store(true, Ordering::Release);
        write_a_long_transaction(primary);
        has_a_part(replica);
        if promote {
            shard.run(&shard.replica, ServerCommand::StopReceiver).unwrap();
            let status = shard.run(&shard.replica, ServerCommand::ReadStatus).unwrap();
            let grounds = PromotionGrounds::of(&status, status.gtid_executed.clone());
            at_once("a promotion", || {
                shard.run(&shard.replica, ServerCommand::Promote { acks: 0, grounds }).unwrap();
            });
        } else {
            // Its receiver waits still.
            at_once("following another", || {
                shard.to_the_other(RelayLog::MustStay).unwrap();
            });
            assert_eq!(shard.replication().source, shard.address(&shard.other).mysql);
        }
    }
}
