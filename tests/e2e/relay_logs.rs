//! What a replica has received and not applied is there still when it follows another, or applies at another pace.

use vtorc_core::ports::{CommandError, RelayLog, ServerCommand, SourceChange};
use vtorc_core::status::{ReceiverState, ReplicationStatus};
use vtorc_fleet::Flavor;

use crate::harness::wait_for;
use crate::window::{BOTH, Bench};
use crate::writer::{arrives, rows};

impl Bench {
    fn replication(&self, at: usize) -> ReplicationStatus {
        self.status(at).replication.unwrap()
    }

    /// The second server alone receives one row more and does not apply it: it is late, or its applier is stopped by an
    /// error. Then its receiver stands.
    fn with_one_unapplied(flavor: Flavor, trouble: Trouble) -> Self {
        let bench = Self::new(flavor, 3);
        bench.run(2, ServerCommand::StopReceiver).unwrap();
        match trouble {
            Trouble::Late => {
                bench.run(1, ServerCommand::SetDelay { seconds: 3600 }).unwrap();
            }
            Trouble::Stopped => bench.servers[1].run(&["STOP REPLICA SQL_THREAD"]).unwrap(),
            Trouble::Failed => {
                let conflict = [
                    "SET GLOBAL read_only = OFF",
                    "SET sql_log_bin = 0; ",
                    "INSERT INTO test.ledger VALUES (1, 'in the way')",
                    "SET GLOBAL read_only = ON",
                ];
                bench.servers[1].run(&conflict).unwrap();
            }
        }
        bench.servers[0].run(&["INSERT INTO test.ledger VALUES (1, 'acknowledged')"]).unwrap();
        let received = || {
            let status = bench.status(1);
            let has = !status.gtid_received().subtract(&status.gtid_executed).is_empty();
            let stands = trouble != Trouble::Failed || !bench.replication(1).applier_running;
            (has && stands).then_some(())
        };
        wait_for(received).expect("it was not received");
        bench.run(1, ServerCommand::StopReceiver).unwrap();
        bench
    }

    fn is_refused(&self, command: ServerCommand) {
        let before = self.replication(1);
        let refused = self.run(1, command);
        let Err(CommandError::NotDone(why)) = refused else { panic!("{refused:?}") };
        assert!(why.contains("it has received") && why.contains("not applied it"), "{why}");
        let after = self.replication(1);
        assert_eq!(
            (after.source, after.receiver, after.applier_running, after.retrieved),
            (before.source, before.receiver, before.applier_running, before.retrieved)
        );
    }

    fn to_the_third(&self, relay_log: RelayLog) -> ServerCommand {
        ServerCommand::follow(self.tablet(2), false, SourceChange::Repoint, relay_log)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Late,
    Stopped,
    Failed,
}

#[test]
fn a_late_replica_keeps_what_it_received_when_it_follows_another() {
    let bench = Bench::with_one_unapplied(Flavor::MySql, Trouble::Late);
    // Nobody else can send it.
    bench.servers[0].freeze();
    bench.run(1, bench.to_the_third(RelayLog::MustStay)).unwrap();
    bench.run(1, ServerCommand::SetDelay { seconds: 0 }).unwrap();
    arrives(&bench.servers[1], &[1].into());
    bench.servers[0].thaw();
}

#[test]
fn a_replica_whose_applier_was_stopped_applies_what_it_received_and_follows_another() {
    let bench = Bench::with_one_unapplied(Flavor::MySql, Trouble::Stopped);
    bench.servers[0].freeze();
    bench.run(1, bench.to_the_third(RelayLog::MustStay)).unwrap();
    arrives(&bench.servers[1], &[1].into());
    bench.servers[0].thaw();
}

#[test]
fn a_replica_that_cannot_keep_what_it_received_follows_another_only_where_it_may_lose_it() {
    let table = [
        (Flavor::MySql, Trouble::Failed),
        (Flavor::MariaDb, Trouble::Failed),
        (Flavor::MariaDb, Trouble::Stopped),
        (Flavor::MariaDb, Trouble::Late),
    ];
    for (flavor, trouble) in table {
        println!("{flavor:?} {trouble:?}");
        let bench = Bench::with_one_unapplied(flavor, trouble);
        bench.is_refused(bench.to_the_third(RelayLog::MustStay));
        bench.run(1, bench.to_the_third(RelayLog::MayGo)).unwrap();
        assert_eq!(bench.replication(1).source, bench.tablet(2).mysql);
    }
}

/// MariaDB throws its relay log away whenever a thread starts while none runs.
#[test]
fn a_mariadb_whose_applier_stands_keeps_what_it_received() {
    let bench = Bench::with_one_unapplied(Flavor::MariaDb, Trouble::Stopped);
    bench.is_refused(ServerCommand::StartApplier);
    bench.is_refused(ServerCommand::RestartReceiver);
    let keep =
        ServerCommand::follow(bench.tablet(0), false, SourceChange::Keep, RelayLog::MustStay);
    bench.is_refused(keep);
}

/// While its receiver runs, its applier is started first, and nothing is lost.
#[test]
fn a_mariadb_that_still_receives_applies_before_it_follows_another() {
    let bench = Bench::new(Flavor::MariaDb, 3);
    bench.servers[1].run(&["STOP SLAVE SQL_THREAD"]).unwrap();
    bench.servers[0].run(&["INSERT INTO test.ledger VALUES (1, 'acknowledged')"]).unwrap();
    let received = || {
        let status = bench.status(1);
        (!status.unapplied().is_empty()).then_some(())
    };
    wait_for(received).expect("it was not received");
    bench.servers[0].freeze();
    bench.run(1, bench.to_the_third(RelayLog::MustStay)).unwrap();
    assert!(rows(&bench.servers[1]).contains(&1));
    bench.servers[0].thaw();
}

/// Its source is frozen, gone, or well: what was received is applied, and nothing more is received.
#[test]
fn a_delay_is_lifted_and_nothing_is_lost() {
    for source in ["well", "frozen", "gone"] {
        let mut bench = Bench::with_one_unapplied(Flavor::MySql, Trouble::Late);
        bench.servers[0].run(&["INSERT INTO test.ledger VALUES (2, 'after')"]).unwrap();
        match source {
            "frozen" => bench.servers[0].freeze(),
            "gone" => bench.servers[0].kill(),
            _ => {}
        }
        let status = bench.run(1, ServerCommand::SetDelay { seconds: 0 }).unwrap();
        assert_eq!(status.replication.unwrap().receiver, ReceiverState::Stopped, "{source}");
        arrives(&bench.servers[1], &[1].into());
        assert!(!rows(&bench.servers[1]).contains(&2), "{source}: it received more");
        assert_eq!(bench.replication(1).delay_seconds, 0);
        bench.servers[0].thaw();
    }
}

#[test]
fn a_delay_that_mariadb_would_lift_with_a_loss_stays() {
    let bench = Bench::with_one_unapplied(Flavor::MariaDb, Trouble::Late);
    bench.is_refused(ServerCommand::SetDelay { seconds: 0 });
}

#[test]
fn a_delay_is_set_and_lifted_where_everything_is_applied() {
    for flavor in BOTH {
        let bench = Bench::new(flavor, 2);
        for seconds in [3600, 0] {
            bench.run(1, ServerCommand::SetDelay { seconds }).unwrap();
            let replication = bench.replication(1);
            assert!(replication.applier_running && replication.receiver != ReceiverState::Stopped);
            assert_eq!(replication.delay_seconds, seconds, "{flavor:?}");
        }
        bench.servers[0].run(&["INSERT INTO test.ledger VALUES (1, 'soon')"]).unwrap();
        arrives(&bench.servers[1], &[1].into());
    }
}
