//! What the topology user must be allowed to do, and what fails where it is not.

use std::collections::BTreeSet;

use crate::status::{Flavor, version_numbers};

/// What a user may do, as a line of `SHOW GRANTS` says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// The privileges' names, in capitals.
    pub privileges: BTreeSet<String>,
    /// On what, without quotes and in small letters: `*.*`, `_vt.*`.
    pub on: String,
}

impl Grant {
    fn gives_any(&self, names: &[&str]) -> bool {
        let has = |name: &&str| self.privileges.contains(*name);
        ["ALL PRIVILEGES", "ALL"].iter().chain(names).any(has)
    }
}

/// Whether who has these grants may read a server's binary log as a replica.
pub fn may_replicate(grants: &[Grant]) -> bool {
    let mut everywhere = grants.iter().filter(|grant| grant.on == "*.*");
    everywhere.any(|grant| grant.gives_any(&["REPLICATION SLAVE", "REPLICATION REPLICA"]))
}

/// A privilege that is needed: its names (any is enough), on what, and what fails without it.
struct Needed {
    names: &'static [&'static str],
    scope: Scope,
    without: &'static str,
}

/// Where a privilege is needed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    Everywhere,
    Vt,
    Heartbeats,
    Appliers,
    Filters,
    Workers,
    Locks,
}

const RESTS: &str = "client sessions of a demoted primary are not ended, and hold the demotion up";

const A_MINUTE: &str =
    "the promotion of a replica that has a part of a transaction of a dead primary takes a minute";

const NOT_EVEN_ROOT: &str = "sessions of root and of others that have it are not ended, and hold a demotion up; and the \
     promotion of a replica that has a part of a transaction of a dead primary takes a minute";

/// Since 8.0.16 there is a privilege without which sessions of those who have it cannot be ended, appliers among
/// them. An older server is not asked for that, nor for what only tells more.
const NEEDED_SINCE_8_0_16: &[Needed] = &[
    Needed { names: &["SYSTEM_USER"], scope: Scope::Everywhere, without: NOT_EVEN_ROOT },
    Needed { names: &["SELECT"], scope: Scope::Appliers, without: A_MINUTE },
    Needed {
        names: &["SELECT"],
        scope: Scope::Workers,
        without: "why an applier stopped is told in its coordinator's words alone, which send the reader elsewhere",
    },
    Needed {
        names: &["SELECT"],
        scope: Scope::Locks,
        without: "a replica on which a backup holds a read lock may be promoted before another one",
    },
];

/// Since 8.3 GTIDs may have tags.
const NEEDED_SINCE_8_3: &[Needed] = &[Needed {
    names: &["TRANSACTION_GTID_TAG"],
    scope: Scope::Everywhere,
    without: "errant transactions whose GTIDs have tags cannot be made up for (--inject)",
}];

const NEEDED_MYSQL: &[Needed] = &[
    Needed {
        names: &["REPLICATION CLIENT"],
        scope: Scope::Everywhere,
        without: "its state cannot be read, and nothing is recovered",
    },
    Needed {
        names: &["REPLICATION_SLAVE_ADMIN", "SUPER"],
        scope: Scope::Everywhere,
        without: "replicas cannot be stopped, repointed or started",
    },
    Needed {
        names: &["SYSTEM_VARIABLES_ADMIN", "SUPER"],
        scope: Scope::Everywhere,
        without: "read_only and semi-sync cannot be set",
    },
    Needed {
        names: &["RELOAD"],
        scope: Scope::Everywhere,
        without: "a promotion stops half-way, at RESET REPLICA",
    },
    Needed { names: &["PROCESS"], scope: Scope::Everywhere, without: RESTS },
    Needed { names: &["CONNECTION_ADMIN", "SUPER"], scope: Scope::Everywhere, without: RESTS },
    Needed {
        names: &["SELECT"],
        scope: Scope::Heartbeats,
        without: "heartbeats cannot be seen, and a frozen primary shows late",
    },
    Needed {
        names: &["SELECT"],
        scope: Scope::Filters,
        without: "replication filters of a server that follows nobody cannot be seen",
    },
];

/// On servers of every flavour.
const NEEDED_FOR_JOURNAL: &[Needed] = &[
    Needed { names: &["SELECT"], scope: Scope::Vt, without: NO_JOURNAL },
    Needed { names: &["INSERT"], scope: Scope::Vt, without: NO_JOURNAL },
    Needed { names: &["CREATE"], scope: Scope::Vt, without: NO_JOURNAL },
];

const NO_JOURNAL: &str = "there is no reparent journal, and a reparent ends as unclear";

const NEEDED_MARIADB: &[Needed] = &[
    Needed {
        names: &["REPLICA MONITOR", "SLAVE MONITOR", "SUPER"],
        scope: Scope::Everywhere,
        without: "its state cannot be read, and nothing is recovered",
    },
    Needed {
        names: &["BINLOG MONITOR", "REPLICATION CLIENT"],
        scope: Scope::Everywhere,
        without: "its position cannot be read",
    },
    Needed {
        names: &["REPLICATION SLAVE ADMIN", "REPLICATION REPLICA ADMIN", "SUPER"],
        scope: Scope::Everywhere,
        without: "replicas cannot be stopped, repointed or started",
    },
    Needed {
        names: &["READ_ONLY ADMIN", "READ ONLY ADMIN", "SUPER"],
        scope: Scope::Everywhere,
        without: "read_only cannot be set",
    },
    Needed {
        names: &["REPLICATION MASTER ADMIN", "SUPER"],
        scope: Scope::Everywhere,
        without: "semi-sync cannot be set",
    },
    Needed {
        names: &["RELOAD"],
        scope: Scope::Everywhere,
        without: "a promotion stops half-way, at RESET SLAVE",
    },
    Needed { names: &["PROCESS"], scope: Scope::Everywhere, without: RESTS },
    Needed { names: &["CONNECTION ADMIN", "SUPER"], scope: Scope::Everywhere, without: RESTS },
];

/// The privileges that these grants do not give, and what fails without each.
pub fn missing_grants(
    grants: &[Grant],
    flavor: Flavor,
    version: &str,
) -> Vec<(String, &'static str)> {
    // Nothing was read: nothing can be said.
    if grants.is_empty() {
        return Vec::new();
    }
    let gives = |needed: &Needed| {
        grants.iter().any(|grant| grant.gives_any(needed.names) && covers(&grant.on, needed.scope))
    };
    let needed = match flavor {
        Flavor::MySql => NEEDED_MYSQL,
        Flavor::MariaDb => NEEDED_MARIADB,
    };
    let since = |first: [u32; 3], needed: &'static [Needed]| match flavor {
        Flavor::MySql if version_numbers(version) >= first => needed,
        Flavor::MySql | Flavor::MariaDb => &[],
    };
    let newer = since([8, 0, 16], NEEDED_SINCE_8_0_16).iter();
    let newest = since([8, 3, 0], NEEDED_SINCE_8_3).iter();
    let needed = needed.iter().chain(newer).chain(newest).chain(NEEDED_FOR_JOURNAL);
    let missing = needed.filter(|needed| !gives(needed));
    let named = |needed: &Needed| {
        let first = needed.names.first().copied().unwrap_or_default();
        match needed.scope {
            Scope::Everywhere => format!("{first} ON *.*"),
            Scope::Vt => format!("{first} ON _vt.*"),
            Scope::Filters => {
                format!("{first} ON performance_schema.replication_applier_global_filters")
            }
            Scope::Locks => format!("{first} ON performance_schema.metadata_locks"),
            Scope::Workers => {
                format!("{first} ON performance_schema.replication_applier_status_by_worker")
            }
            Scope::Appliers => format!(
                "{first} ON performance_schema.replication_applier_status_by_coordinator and threads"
            ),
            Scope::Heartbeats => {
                format!(
                    "{first} ON performance_schema.replication_connection_status and …_configuration"
                )
            }
        }
    };
    missing.map(|needed| (named(needed), needed.without)).collect()
}

fn covers(scope: &str, needed: Scope) -> bool {
    match needed {
        _ if scope == "*.*" => true,
        Scope::Everywhere => false,
        Scope::Vt => scope == "_vt.*",
        Scope::Filters => {
            scope == "performance_schema.*"
                || scope == "performance_schema.replication_applier_global_filters"
        }
        Scope::Locks => {
            scope == "performance_schema.*" || scope == "performance_schema.metadata_locks"
        }
        Scope::Workers => {
            scope == "performance_schema.*"
                || scope == "performance_schema.replication_applier_status_by_worker"
        }
        // `init_db.sql` grants both tables of a kind together.
        Scope::Appliers => {
            scope == "performance_schema.*"
                || scope == "performance_schema.replication_applier_status_by_coordinator"
        }
        Scope::Heartbeats => {
            scope == "performance_schema.*"
                || scope == "performance_schema.replication_connection_status"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `REPLICATION SLAVE, RELOAD ON *.*`, a line each.
    fn held(text: &str) -> Vec<Grant> {
        let grant = |line: &str| {
            let (privileges, on) = line.split_once(" ON ").unwrap();
            let privileges = privileges.split(", ").map(ToOwned::to_owned).collect();
            Grant { privileges, on: on.to_owned() }
        };
        text.lines().map(|line| grant(line.trim())).collect()
    }

    fn missing(text: &str, flavor: Flavor, version: &str) -> Vec<String> {
        let missing = missing_grants(&held(text), flavor, version);
        missing.into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn what_is_missing_is_named() {
        let mysql = "RELOAD, PROCESS, REPLICATION SLAVE, REPLICATION CLIENT ON *.*
            CONNECTION_ADMIN, REPLICATION_SLAVE_ADMIN, SYSTEM_USER, SYSTEM_VARIABLES_ADMIN, TRANSACTION_GTID_TAG ON *.*
            SELECT, INSERT, CREATE ON _vt.*
            SELECT ON performance_schema.replication_connection_status
            SELECT ON performance_schema.replication_applier_status_by_coordinator
            SELECT ON performance_schema.replication_applier_status_by_worker
            SELECT ON performance_schema.metadata_locks
            SELECT ON performance_schema.replication_applier_global_filters";
        assert_eq!(missing(mysql, Flavor::MySql, "8.4.6"), [""; 0]);
        let fewer = mysql.replace("RELOAD, ", "").replace("INSERT, ", "");
        let two = ["RELOAD ON *.*", "INSERT ON _vt.*"];
        assert_eq!(missing(&fewer, Flavor::MySql, "8.4.6"), two);
        for flavor in [Flavor::MySql, Flavor::MariaDb] {
            assert_eq!(missing("ALL PRIVILEGES ON *.*", flavor, "8.4.6"), [""; 0]);
        }
        let mariadb = "RELOAD, PROCESS, BINLOG MONITOR, CONNECTION ADMIN, READ_ONLY ADMIN ON *.*
            REPLICATION MASTER ADMIN, REPLICATION SLAVE ADMIN, SLAVE MONITOR ON *.*
            SELECT, INSERT, CREATE ON _vt.*";
        assert_eq!(missing(mariadb, Flavor::MariaDb, "10.11.6"), [""; 0]);
        assert_eq!(missing("USAGE ON *.*", Flavor::MySql, "8.4.6").len(), 16);
        assert!(missing_grants(&[], Flavor::MySql, "8.4.6").is_empty(), "nothing was read");
        let old = mysql.replace("SYSTEM_USER, ", "");
        for version in ["5.7.44-log", "8.0.15", ""] {
            assert_eq!(missing(&old, Flavor::MySql, version), [""; 0], "{version}");
        }
        for version in ["8.0.16-debug", "9.7.4-2"] {
            assert_eq!(missing(&old, Flavor::MySql, version)[0], "SYSTEM_USER ON *.*", "{version}");
        }
    }

    #[test]
    fn who_may_replicate() {
        for (text, may) in [
            ("REPLICATION SLAVE ON *.*", true),
            ("REPLICATION REPLICA ON *.*", true),
            ("ALL PRIVILEGES ON *.*", true),
            // These set replicas up, and do not read a binary log.
            ("REPLICATION SLAVE ADMIN ON *.*", false),
            ("REPLICATION REPLICA ADMIN, REPLICATION_SLAVE_ADMIN ON *.*", false),
            ("ALL PRIVILEGES ON test.*", false),
        ] {
            assert_eq!(may_replicate(&held(text)), may, "{text}");
        }
    }
}
