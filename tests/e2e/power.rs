//! The power fails: what was acknowledged and not applied may be on the primary alone afterwards.

use mysql::prelude::Queryable;
use vtorc_fleet::Flavor;

use crate::harness::{Cluster, Kind, THREE, others, wait_for};
use crate::writer::{arrives, create_table};

/// What a vtorc says that saw the replicas have the rows.
const HEARD: &str = "nobody who was reached";

/// Whose machines lose their power.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Struck {
    Servers,
    ServersAndVtorc,
}

/// Both replicas acknowledge rows that they cannot apply, since somebody locks the table. All machines lose their
/// power; the replicas come back first, vtorc with them, and have thrown away what they had received
/// (`relay_log_recovery`). Nobody is promoted, and it is said why, until the primary is back with every row.
fn the_replicas_come_back_first(kind: Kind, struck: Struck, why: &str) {
    let mut cluster = Cluster::new(kind, "semi_sync", THREE);
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    create_table(cluster.server(&first));
    let replicas = others(&first);
    let mut readers = Vec::new();
    for replica in &replicas {
        arrives(cluster.server(replica), &[].into());
        let mut reader = cluster.server(replica).connect("admin").unwrap();
        reader.query_drop("LOCK TABLES test.ledger READ").unwrap();
        readers.push(reader);
    }
    for id in 1..=9 {
        let insert = format!("INSERT INTO test.ledger VALUES ({id}, 'acknowledged')");
        cluster.server(&first).run(&[&insert]).unwrap();
    }
    if struck == Struck::Servers {
        // They are looked at once more meanwhile.
        std::thread::sleep(std::time::Duration::from_millis(2500));
    }
    for alias in THREE {
        cluster.server_mut(alias).kill();
    }
    if struck == Struck::ServersAndVtorc {
        cluster.daemons.clear();
    }
    drop(readers);
    for replica in &replicas {
        cluster.server_mut(replica).restart().unwrap();
    }
    if struck == Struck::ServersAndVtorc {
        cluster.start_daemon(&[]);
    }
    cluster.daemon().held_back(why);
    cluster.server_mut(&first).restart().unwrap();
    cluster.healthy(&[]);
    for alias in THREE {
        arrives(cluster.server(alias), &(1..=9).collect());
    }
}

#[test]
fn acknowledged_rows_on_a_mysql_primary_alone_are_waited_for() {
    the_replicas_come_back_first(Flavor::MySql.into(), Struck::Servers, HEARD);
}

#[test]
fn acknowledged_rows_on_a_mariadb_primary_alone_are_waited_for() {
    the_replicas_come_back_first(Flavor::MariaDb.into(), Struck::Servers, HEARD);
}

/// What a vtorc is told by its history that never heard of the rows.
const NEVER_HEARD: &str = "was restarted since that was last heard";

#[test]
fn acknowledged_rows_on_a_mysql_primary_alone_are_waited_for_by_a_vtorc_that_never_heard_of_them() {
    the_replicas_come_back_first(Flavor::MySql.into(), Struck::ServersAndVtorc, NEVER_HEARD);
}

#[test]
fn acknowledged_rows_on_a_mariadb_primary_alone_are_waited_for_by_a_vtorc_that_never_heard_of_them()
{
    the_replicas_come_back_first(Flavor::MariaDb.into(), Struck::ServersAndVtorc, NEVER_HEARD);
}

/// It is started again as its option file says: it takes writes and waits for nobody. Those who could acknowledge are
/// out of sight, and what it acknowledged alone would be lost with it: it is told to wait for them.
#[test]
fn a_primary_that_comes_back_while_no_acker_is_in_sight_waits_for_one() {
    for (flavor, variable) in [
        (Flavor::MySql, "@@rpl_semi_sync_source_enabled"),
        (Flavor::MariaDb, "@@rpl_semi_sync_master_enabled"),
    ] {
        let mut cluster = Cluster::new(flavor, "semi_sync", THREE);
        cluster.start_daemon(&[]);
        let first = cluster.healthy(&[]);
        create_table(cluster.server(&first));
        let replicas = others(&first);
        for replica in &replicas {
            arrives(cluster.server(replica), &[].into());
            cluster.server(replica).freeze();
        }
        cluster.server_mut(&first).kill();
        cluster.server_mut(&first).restart().unwrap();
        let waits = || {
            let enabled = cluster.server(&first).value(&format!("SELECT {variable}")).ok()?;
            (enabled == "1").then_some(())
        };
        wait_for(waits)
            .unwrap_or_else(|| panic!("it waits for nobody: {:#}", cluster.daemon().shard()));
        for replica in &replicas {
            cluster.server(replica).thaw();
        }
        cluster
            .server(&first)
            .run(&["INSERT INTO test.ledger VALUES (1, 'acknowledged')"])
            .unwrap();
        cluster.healthy(&[]);
        replicas.iter().for_each(|replica| arrives(cluster.server(replica), &[1].into()));
    }
}
