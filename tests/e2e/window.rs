//! What is between a decision and its deed on one server: statements that run late, and promotions that fail half-way.
//!
//! These stories drive the clients themselves; a proxy before the server tells when a statement is on its way.

use std::sync::Arc;
use std::time::Duration;

use mysql::prelude::Queryable;
use tempfile::TempDir;
use vtorc_clients::mysql::{Login, MysqlAccess, Secret, WorkerPool};
use vtorc_core::ports::{
    CommandError, MysqlPort, PromotionGrounds, RelayLog, ServerCommand, Sessions, SourceChange,
};
use vtorc_core::status::{ReceiverState, ServerStatus};
use vtorc_core::tablet::{MysqlAddress, TabletAddress};
use vtorc_fleet::{Flavor, Server, ServerOptions, freeze};

use crate::harness::{PATIENCE, template, wait_for};
use crate::proxy::{Ear, Proxy};
use crate::writer::{arrives, create_table};

pub const BOTH: [Flavor; 2] = [Flavor::MySql, Flavor::MariaDb];
/// Time for a command that nothing holds up.
pub const ENOUGH: Duration = Duration::from_secs(30);

/// A few servers, and the clients of vtorc without the rest of it.
pub struct Bench {
    pub servers: Vec<Server>,
    workers: WorkerPool,
    runtime: tokio::runtime::Runtime,
    _directory: TempDir,
}

impl Bench {
    /// Servers that refuse writes, but the first; the others follow it.
    pub fn new(flavor: Flavor, count: usize) -> Self {
        let bench = Self::apart(flavor, count, access());
        create_table(&bench.servers[0]);
        for at in 1..count {
            bench.follow(at, 0, SourceChange::Repoint, RelayLog::MayGo).unwrap();
            arrives(&bench.servers[at], &[].into());
        }
        bench
    }

    /// Servers that take writes and follow nobody.
    fn apart(flavor: Flavor, count: usize, access: MysqlAccess) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let start = |at: usize| {
            let place = directory.path().join(at.to_string());
            Server::start(template(flavor), &place, ServerOptions::default()).unwrap()
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self {
            servers: (0..count).map(start).collect(),
            workers: WorkerPool::new(Arc::new(access)),
            runtime,
            _directory: directory,
        }
    }

    pub fn run(&self, at: usize, command: ServerCommand) -> Result<ServerStatus, CommandError> {
        self.run_at(&self.servers[at].address(), command, ENOUGH)
    }

    pub fn run_at(
        &self,
        address: &str,
        command: ServerCommand,
        deadline: Duration,
    ) -> Result<ServerStatus, CommandError> {
        self.runtime.block_on(self.workers.run(&plain(address), command, deadline))
    }

    pub fn status(&self, at: usize) -> ServerStatus {
        self.run(at, ServerCommand::ReadStatus).unwrap()
    }

    pub fn follow(
        &self,
        at: usize,
        source: usize,
        change: SourceChange,
        relay_log: RelayLog,
    ) -> Result<ServerStatus, CommandError> {
        let source = self.tablet(source);
        let semi_sync = false;
        self.run(at, ServerCommand::follow(source, semi_sync, change, relay_log))
    }

    /// What this server would be promoted on now.
    fn promotion(&self, at: usize) -> ServerCommand {
        let status = self.status(at);
        let grounds = PromotionGrounds::of(&status, status.gtid_executed.clone());
        ServerCommand::Promote { acks: 0, grounds }
    }

    /// What a primary is opened with, as it is now.
    pub fn opening(&self, at: usize) -> ServerCommand {
        let grounds = PromotionGrounds::of_primary(&self.status(at));
        ServerCommand::FixPrimary { acks: 0, grounds }
    }

    pub fn tablet(&self, at: usize) -> TabletAddress {
        plain(&self.servers[at].address())
    }

    pub fn is_read_only(&self, at: usize) -> bool {
        self.servers[at].value("SELECT @@GLOBAL.read_only").unwrap() == "1"
    }
}

/// How vtorc logs in.
pub fn access() -> MysqlAccess {
    MysqlAccess {
        user: "orc_client_user".into(),
        password: Secret::new("orc_client_user_password"),
        replica: Some(Login { user: "vt_repl".into(), password: Secret::new(""), tls: None }),
        replica_query: None,
        replica_tls: None,
        tls: None,
        connect_timeout: Duration::from_secs(5),
        use_super_read_only: true,
        heartbeat_period: Duration::from_millis(300),
    }
}

/// A plain server at this address.
pub fn plain(address: &str) -> TabletAddress {
    let (host, port) = address.rsplit_once(':').unwrap();
    let mysql = MysqlAddress { host: host.into(), port: port.parse().unwrap() };
    TabletAddress {
        alias: "zone1-101".parse().unwrap(),
        mysql,
        vttablet: None,
        server: None,
        channel: String::new(),
    }
}

/// Passes everything on to a server, and does something before a client's words with these in them.
fn before(server: &Server, words: &'static str, act: impl Fn() + Send + Sync + 'static) -> String {
    let act = Arc::new(act);
    let ear = move || -> Ear {
        let act = act.clone();
        Box::new(move |bytes| {
            if String::from_utf8_lossy(bytes).contains(words) {
                act();
            }
        })
    };
    Proxy::with_ears(server.address(), ear).address
}

/// Waits until no session of vtorc's is left: whatever it sent was run, or never will be.
fn vtorc_is_gone(server: &Server) {
    let left = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = 'orc_client_user'";
    let gone = || (server.value(left).unwrap() == "0").then_some(());
    wait_for(gone).expect("a session of vtorc's is still there");
}

#[test]
fn a_promotion_that_fails_after_the_server_was_opened_is_not_called_undone() {
    for flavor in BOTH {
        let bench = Bench::new(flavor, 2);
        let revoke = [
            "SET GLOBAL read_only = OFF",
            "SET sql_log_bin = 0",
            "REVOKE RELOAD ON *.* FROM orc_client_user@'%'",
            "SET GLOBAL read_only = ON",
        ];
        bench.servers[1].run(&revoke).unwrap();
        let promoted = bench.run(1, bench.promotion(1));
        let Err(CommandError::Unknown(why)) = promoted else { panic!("{flavor:?}: {promoted:?}") };
        assert!(why.contains("it may take writes already; forget the source"), "{why}");
        assert!(!bench.is_read_only(1), "{flavor:?}: it was not opened at all");
        // What is refused before that is known not to have happened.
        let stopped = ["STOP REPLICA", "SET GLOBAL read_only = ON"];
        bench.servers[1].run(&stopped).unwrap();
        let fixed = bench.run(1, bench.opening(1));
        assert!(matches!(fixed, Err(CommandError::NotDone(_))), "{flavor:?}: {fixed:?}");
        assert!(bench.is_read_only(1), "{flavor:?}");
    }
}

#[test]
fn a_server_that_wakes_up_after_the_deadline_does_not_take_writes() {
    for flavor in BOTH {
        let bench = Bench::new(flavor, 2);
        let server = &bench.servers[1];
        let log = ["SET GLOBAL log_output = 'TABLE'", "SET GLOBAL general_log = ON"];
        server.run(&log).unwrap();
        let pid = server.pid();
        // The statement waits in the socket of a server that stands still.
        let proxy = before(server, "SET GLOBAL read_only = IF", move || freeze(pid));
        for command in [bench.promotion(1), bench.opening(1)] {
            let outcome = bench.run_at(&proxy, command, Duration::from_millis(1500));
            server.thaw();
            assert!(matches!(outcome, Err(CommandError::Unknown(_))), "{flavor:?}: {outcome:?}");
            vtorc_is_gone(server);
            assert!(
                bench.is_read_only(1),
                "{flavor:?}: it was opened when nobody reckoned with it"
            );
            let super_too = flavor == Flavor::MariaDb
                || server.value("SELECT @@GLOBAL.super_read_only").unwrap() == "1";
            assert!(super_too, "{flavor:?}: super_read_only was taken off");
        }
        let ran = "SELECT COUNT(*) FROM mysql.general_log \
                   WHERE argument LIKE 'SET GLOBAL read\\_only = IF%'";
        assert_eq!(server.value(ran).unwrap(), "2", "{flavor:?}: it was not run at all");
        // In time it is opened.
        bench.run(1, bench.opening(1)).unwrap();
        assert!(!bench.is_read_only(1), "{flavor:?}");
    }
}

#[test]
fn a_server_is_not_opened_without_what_it_was_chosen_for() {
    let bench = Bench::new(Flavor::MySql, 2);
    let (server, command) = (&bench.servers[1], bench.promotion(1));
    let socket = server.socket().display().to_string();
    // It loses everything between the last look and the statement that opens it.
    let proxy = before(server, "SET GLOBAL read_only = IF", move || {
        let opts = mysql::OptsBuilder::new().user(Some("admin")).socket(Some(&socket));
        let mut admin = mysql::Conn::new(opts).unwrap();
        admin.query_drop("RESET BINARY LOGS AND GTIDS").unwrap();
    });
    let outcome = bench.run_at(&proxy, command, ENOUGH);
    let Err(CommandError::NotDone(why)) = outcome else { panic!("{outcome:?}") };
    assert!(why.contains("without what it was chosen for"), "{why}");
    assert!(bench.is_read_only(1));
}

#[test]
fn a_server_whose_receiver_is_started_meanwhile_is_not_opened() {
    for flavor in BOTH {
        let bench = Bench::new(flavor, 2);
        bench.run(1, ServerCommand::StopReceiver).unwrap();
        let (server, command) = (&bench.servers[1], bench.promotion(1));
        let socket = server.socket().display().to_string();
        let asked = Arc::new(std::sync::atomic::AtomicU32::new(0));
        // Replication is stopped by then; the second time of asking is the last before it is opened.
        let proxy = before(server, "@@global.server_id AS server_id", move || {
            if asked.fetch_add(1, std::sync::atomic::Ordering::AcqRel) == 1 {
                let opts = mysql::OptsBuilder::new().user(Some("admin")).socket(Some(&socket));
                mysql::Conn::new(opts).unwrap().query_drop("START REPLICA").unwrap();
            }
        });
        let outcome = bench.run_at(&proxy, command, ENOUGH);
        let Err(CommandError::NotDone(why)) = outcome else { panic!("{flavor:?}: {outcome:?}") };
        assert!(why.contains("its receiver was started"), "{why}");
        assert!(bench.is_read_only(1), "{flavor:?}");
    }
}

#[test]
fn a_statement_that_is_given_up_does_not_run_later() {
    for flavor in BOTH {
        let bench = Bench::new(flavor, 1);
        let server = &bench.servers[0];
        let mut client = server.connect_within("app", PATIENCE).unwrap();
        client.query_drop("LOCK TABLES test.ledger WRITE").unwrap();
        let demote = ServerCommand::Demote { sessions: Sessions::EndAfter(60_000) };
        let outcome = bench.run_at(&server.address(), demote, Duration::from_millis(1500));
        assert!(matches!(outcome, Err(CommandError::Unknown(_))), "{flavor:?}: {outcome:?}");
        vtorc_is_gone(server);
        client.query_drop("INSERT INTO test.ledger VALUES (1, 'locked')").unwrap();
        client.query_drop("UNLOCK TABLES").unwrap();
        client.query_drop("INSERT INTO test.ledger VALUES (2, 'free')").unwrap();
        assert!(!bench.is_read_only(0), "{flavor:?}");
    }
}

/// Passwords may hold anything, and a server may read backslashes in its own way.
#[test]
fn a_password_with_quotes_and_backslashes_is_told_as_it_is() {
    let password = "it's \\ 'so\\";
    for flavor in BOTH {
        let replica =
            Some(Login { user: "vt_repl".into(), password: Secret::new(password), tls: None });
        let bench = Bench::apart(flavor, 2, MysqlAccess { replica, ..access() });
        create_table(&bench.servers[0]);
        let set = [
            "SET sql_mode = 'NO_BACKSLASH_ESCAPES'".to_owned(),
            "SET sql_log_bin = 0".to_owned(),
            format!("ALTER USER vt_repl@'%' IDENTIFIED BY '{}'", password.replace('\'', "''")),
        ];
        bench.servers[0].run(&set.each_ref().map(String::as_str)).unwrap();
        for mode in ["NO_BACKSLASH_ESCAPES,ANSI_QUOTES", "STRICT_TRANS_TABLES"] {
            bench.servers[1].run(&[&format!("SET GLOBAL sql_mode = '{mode}'")]).unwrap();
            bench.follow(1, 0, SourceChange::Repoint, RelayLog::MayGo).unwrap();
            let receives = || {
                let replication = bench.status(1).replication?;
                (replication.receiver == ReceiverState::Running).then_some(())
            };
            wait_for(receives)
                .unwrap_or_else(|| panic!("{flavor:?} {mode}: {:?}", bench.status(1)));
        }
    }
}
