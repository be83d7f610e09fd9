//! The power fails: what was acknowledged and not applied may be on the primary alone afterwards.

use mysql::prelude::Queryable;
use vtorc_fleet::Flavor;

use crate::harness::{Cluster, Kind, THREE, others};
use crate::writer::{arrives, create_table};

/// Both replicas acknowledge rows that they cannot apply, since somebody locks the table. All machines lose their
/// power; the replicas come back first, and have thrown away what they had received (`relay_log_recovery`).
fn the_replicas_come_back_first(kind: Kind) {
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
    // They are looked at once more meanwhile.
    std::thread::sleep(std::time::Duration::from_millis(2500));
    for alias in THREE {
        cluster.server_mut(alias).kill();
    }
    drop(readers);
    for replica in &replicas {
        cluster.server_mut(replica).restart().unwrap();
    }
    cluster.daemon().held_back("nobody who was reached");
    cluster.server_mut(&first).restart().unwrap();
    cluster.healthy(&[]);
    for alias in THREE {
        arrives(cluster.server(alias), &(1..=9).collect());
    }
}

#[test]
fn acknowledged_rows_on_a_mysql_primary_alone_are_waited_for() {
    the_replicas_come_back_first(Flavor::MySql.into());
}

#[test]
fn acknowledged_rows_on_a_mariadb_primary_alone_are_waited_for() {
    the_replicas_come_back_first(Flavor::MariaDb.into());
}

/// The machines of all servers and of vtorc lose their power. The replicas and vtorc come back first: both replicas
/// threw away what they had acknowledged and not applied, and this vtorc never heard of it.
fn vtorc_and_the_replicas_come_back_first(kind: Kind) {
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
    for alias in THREE {
        cluster.server_mut(alias).kill();
    }
    cluster.daemons.clear();
    drop(readers);
    for replica in &replicas {
        cluster.server_mut(replica).restart().unwrap();
    }
    cluster.start_daemon(&[]);
    cluster.daemon().held_back("was restarted since that was last heard");
    cluster.server_mut(&first).restart().unwrap();
    cluster.healthy(&[]);
    for alias in THREE {
        arrives(cluster.server(alias), &(1..=9).collect());
    }
}

#[test]
fn acknowledged_rows_on_a_mysql_primary_alone_are_waited_for_by_a_vtorc_that_never_heard_of_them() {
    vtorc_and_the_replicas_come_back_first(Flavor::MySql.into());
}

#[test]
fn acknowledged_rows_on_a_mariadb_primary_alone_are_waited_for_by_a_vtorc_that_never_heard_of_them()
{
    vtorc_and_the_replicas_come_back_first(Flavor::MariaDb.into());
}
