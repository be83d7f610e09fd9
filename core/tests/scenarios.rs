//! Shards described in words, and what core finds, wants and elects. A new case is a few lines in a file of
//! `tests/scenarios`; `REWRITE=1 cargo test -p vtorc-core --test scenarios` writes the answers. Commit them
//! only if you understand and want them.
//!
//! `shard policy=semi_sync [term=5] [primary=zone1-1]`, then one tablet a line:
//! `zone1-1 PRIMARY up rw waits gtid=a:1-5 term=5` with
//!
//! - `up`, `down`, `suspect`, `denied` or `unseen`; `rw` or `ro`;
//! - `from=X` receives from X, `lost=X` cannot connect to X, `halted=X` was stopped, `quiet=X` is connected
//!   to X and has heard nothing for five seconds, `noapply` its applier stands; without any it follows nobody;
//! - `waits` and `acks`: the two sides of semi-sync; `journal=N` reparents that it knows of;
//! - for `check`, what the server says besides: `opens` it starts writable, `fast` its commits are not
//!   durable, `early` readers see what is not acknowledged, `skew=MS`, `format=ROW`, `ungranted`;
//! - for `answers at=zone1-2 [claimed=zone1-201]`, `uuid=f` another server's, `known` it is known to be the tablet's;
//!   the line of `zone9-26` is what is answered;
//! - `gtid=a:1-5,b:1` executed, `got=a:6` received and not applied; a letter stands for a server's uuid.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use vtorc_core::admission::Switches;
use vtorc_core::analysis::detect;
use vtorc_core::controls::{Controls, Grounds};
use vtorc_core::gtid::GtidSet;
use vtorc_core::ids::TabletAlias;
use vtorc_core::knowledge::health::{ProbeFailure, ProbeHistory, Reachability, RecentProbes};
use vtorc_core::knowledge::identity::meant;
use vtorc_core::knowledge::observe::{Answer, TabletState};
use vtorc_core::knowledge::snapshot::ShardSnapshot;
use vtorc_core::preflight::{Inspection, LoginTrial, concerns};
use vtorc_core::remedy::{Wanted, wanted};
use vtorc_core::reparent::election::{Constraints, Contender, elect, possible_ackers, promised};
use vtorc_core::reparent::prognosis::{Prognosis, if_primary_died};
use vtorc_core::reparent::safety::Reach;
use vtorc_core::status::{
    BinlogFormat, ReceiverError, ReceiverErrorKind, ReceiverState, ReplicationStatus,
    SemiSyncStatus, ServerStatus, VttabletState,
};
use vtorc_core::tablet::{MysqlAddress, PromotionRule, Tablet, TabletType};
use vtorc_core::testkit;
use vtorc_core::time::{TermStart, Timestamp};
use vtorc_core::topology::{Place, ShardRecord, ShardTopology};

const NOW: Timestamp = Timestamp::from_millis(100_000);

#[test]
fn scenarios() {
    datadriven::walk("tests/scenarios", |file| {
        file.run(|case| {
            let snapshot = snapshot(&case.args, &case.input);
            match case.directive.as_str() {
                "shard" => findings(&snapshot),
                "died" => prognosis(&snapshot, &case.args),
                "check" => check(&snapshot, &case.input),
                "elect" => election(&snapshot, &case.args),
                "answers" => answers(snapshot, &case.args),
                other => panic!("unknown directive {other}"),
            }
        });
    });
}

/// The last tablet's line is what a server answers at its address, after what was known of it before.
fn answers(
    mut snapshot: ShardSnapshot,
    args: &std::collections::HashMap<String, Vec<String>>,
) -> String {
    let arg = |name: &str| args.get(name).and_then(|values| values.first());
    let claimed_by = arg("claimed").map(|owner| owner.parse().unwrap());
    let alias: TabletAlias = arg("at").unwrap().parse().unwrap();
    let answer: TabletAlias = "zone9-26".parse().unwrap();
    let status = snapshot.tablets.remove(&answer).unwrap().status.unwrap();
    let before = snapshot.tablet(&alias).unwrap().identity.clone();
    let sent_at = NOW;
    snapshot.take_answer(&alias, Answer { sent_at, result: Ok(status), claimed_by }, NOW);
    let state = snapshot.tablet(&alias).unwrap();
    let first = match (&state.reachability, &state.identity) {
        (Reachability::Valid, Some(now)) if before.as_ref() == Some(now) => "as before".to_owned(),
        (Reachability::Valid, Some(_)) => "the tablet's own".to_owned(),
        (Reachability::Valid, None) => "believed until more is known".to_owned(),
        (Reachability::Unreachable { why, .. }, _) => why.to_string(),
        (other, _) => panic!("{other:?}"),
    };
    let told = match meant(&snapshot, state) {
        Ok(Some(_)) => "it alone is sent commands",
        Ok(None) => "whoever answers is sent commands",
        Err(_) => "no command is sent",
    };
    format!("{first}; {told}\n")
}

fn check(snapshot: &ShardSnapshot, input: &str) -> String {
    let mut text = String::new();
    for one in concerns(snapshot, &inspections(input), &testkit::settings()) {
        let tablet = one.tablet.map(|alias| format!("{alias} ")).unwrap_or_default();
        writeln!(text, "{} {tablet}{}: {}", one.severity, one.code, short(&one.what)).unwrap();
        writeln!(text, "  -> {}", one.cure).unwrap();
    }
    if text.is_empty() { "in order\n".into() } else { text }
}

fn inspections(input: &str) -> BTreeMap<TabletAlias, Inspection> {
    let lines = input.lines().filter(|line| !line.trim().is_empty());
    lines
        .map(|line| {
            let mut words = line.split_whitespace();
            let alias = words.next().unwrap().parse().unwrap();
            let all = "GRANT ALL PRIVILEGES ON *.* TO `o`@`%`".to_owned();
            let mut seen = Inspection { grants: vec![all], ..Inspection::default() };
            for word in words {
                let (key, value) = word.split_once('=').unwrap_or((word, ""));
                match key {
                    "opens" => seen.read_only_at_start = Some(false),
                    "fast" => seen.commits_are_durable = Some(false),
                    "early" => seen.readers_see_unacknowledged = Some(true),
                    "skew" => seen.clock_ahead_ms = value.parse().ok(),
                    "nettimeout" => seen.net_timeout_s = value.parse().ok(),
                    "noentry" => {
                        let at = MysqlAddress { host: value.to_owned(), port: 3306 };
                        let trouble = Some("access denied".to_owned());
                        let user = "repl".to_owned();
                        seen.login_trial = Some(LoginTrial { user, at, trouble });
                    }
                    "ungranted" => {
                        seen.grants = vec!["GRANT RELOAD, PROCESS ON *.* TO `o`@`%`".into()];
                    }
                    _ => {}
                }
            }
            (alias, seen)
        })
        .collect()
}

fn findings(snapshot: &ShardSnapshot) -> String {
    let found = detect(snapshot, &testkit::settings());
    let mut text = String::new();
    for finding in &found {
        writeln!(text, "{finding}").unwrap();
    }
    match wanted(&found, snapshot, &testkit::settings()) {
        Wanted::Nothing => text.push_str("wanted: nothing\n"),
        Wanted::Shard(remedy, finding) => {
            writeln!(text, "wanted: {} for {finding}", remedy.name()).unwrap()
        }
        Wanted::Replicas(all) => {
            let names: Vec<String> = all.iter().map(ToString::to_string).collect();
            writeln!(text, "wanted: repair {}", names.join(", ")).unwrap();
        }
    }
    text
}

fn election(
    snapshot: &ShardSnapshot,
    args: &std::collections::HashMap<String, Vec<String>>,
) -> String {
    let alias = |name: &str| {
        args.get(name)
            .and_then(|values| values.first())
            .map(|text| text.parse::<TabletAlias>().unwrap())
    };
    let (old, want, avoid) = (alias("old"), alias("want"), alias("avoid"));
    let unread = alias("unread_record").into_iter().collect();
    let mut settings = testkit::settings();
    settings.prevent_cross_cell_failover = args.contains_key("prevent_cross_cell");
    let contenders = Contender::of(snapshot);
    let reached = contenders.iter().map(|one| one.tablet.alias.clone()).collect();
    let policy = *snapshot.durability.as_ref().unwrap();
    let reach = Reach::of(snapshot, policy, &reached);
    let writer = old.as_ref().and_then(|old| snapshot.tablet(old));
    let promised = promised(policy, writer);
    let constraints = Constraints {
        policy,
        settings: &settings,
        old_primary: old.as_ref(),
        wanted: want.as_ref(),
        avoid: avoid.as_ref(),
        last_known: old
            .as_ref()
            .and_then(|old| snapshot.tablet(old))
            .and_then(|state| state.status.as_deref()),
        promised: promised.as_ref(),
        complete: !args.contains_key("incomplete"),
        ackers: possible_ackers(&reach, writer, &contenders),
        unread: &unread,
    };
    let mut text = String::new();
    match elect(&contenders, &constraints) {
        Ok(election) => {
            for (at, one) in election.candidates.iter().enumerate() {
                let place = if at == 0 { "winner" } else { "or" };
                let sources = one.sources.iter().map(|source| format!(" from {source}"));
                writeln!(text, "{place} {}{}", one.alias, sources.collect::<String>()).unwrap();
            }
            if election.required != election.target && !election.required.is_empty() {
                writeln!(text, "at least {}", short(&election.required.to_string())).unwrap();
            }
            for one in election.passed_over {
                writeln!(text, "not {}: {}", one.alias, short(&one.reason.to_string())).unwrap();
            }
        }
        Err(none) => writeln!(text, "nobody: {}", short(&none.to_string())).unwrap(),
    }
    text
}

fn prognosis(
    snapshot: &ShardSnapshot,
    args: &std::collections::HashMap<String, Vec<String>>,
) -> String {
    let mut settings = testkit::settings();
    settings.cells_no_recovery = args.get("cells_no_recovery").cloned().unwrap_or_default();
    let mut text = String::new();
    let others = match if_primary_died(snapshot, &settings, Switches::on(&controls(args))) {
        Prognosis::NoPrimary => return "no primary\n".into(),
        Prognosis::Promotes { winner, catches_up_from, passed_over, may_lose } => {
            writeln!(text, "promotes {winner}").unwrap();
            if let Some(from) = catches_up_from {
                writeln!(text, "catches up from {from}").unwrap();
            }
            writeln!(text, "may lose: {}", may_lose.as_deref().unwrap_or("nothing")).unwrap();
            passed_over
        }
        Prognosis::Refuses { why, passed_over } => {
            writeln!(text, "refuses: {}", short(&why)).unwrap();
            passed_over
        }
    };
    for one in others {
        writeln!(text, "not {}: {}", one.alias, short(&one.reason.to_string())).unwrap();
    }
    text
}

/// `control=emergency-reparents-off_ks` what an operator switched.
fn controls(args: &std::collections::HashMap<String, Vec<String>>) -> Controls {
    let mut controls = Controls::default();
    for text in args.get("control").into_iter().flatten() {
        let (by, comment) = ("ann".to_owned(), "disk".to_owned());
        let grounds = Grounds { by, comment, since: NOW, until: None };
        controls.set(text.replace('_', " ").parse().unwrap(), grounds);
    }
    controls
}

/// Uuids as their letters again.
fn short(text: &str) -> String {
    ('a'..='f')
        .fold(text.to_owned(), |text, letter| text.replace(&uuid(letter), &letter.to_string()))
}

fn uuid(letter: char) -> String {
    let eight: String = std::iter::repeat_n(letter, 8).collect();
    format!("{eight}-0000-0000-0000-000000000000")
}

fn gtid(text: &str) -> GtidSet {
    let parts: Vec<String> = text
        .split(',')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (letter, intervals) = part.split_once(':').unwrap();
            format!("{}:{intervals}", uuid(letter.chars().next().unwrap()))
        })
        .collect();
    GtidSet::parse_mysql(&parts.join(",")).unwrap()
}

fn term(text: &str) -> TermStart {
    TermStart { seconds: text.parse().unwrap(), nanos: 0 }
}

/// A tablet's server by its number: 1 is `a`, 2 is `b`.
fn letter(alias: &TabletAlias) -> char {
    char::from(b'a' + u8::try_from(alias.uid).unwrap() - 1)
}

fn snapshot(args: &std::collections::HashMap<String, Vec<String>>, input: &str) -> ShardSnapshot {
    let arg = |name: &str| args.get(name).and_then(|values| values.first()).cloned();
    let topology = ShardTopology {
        shard: "ks/0".parse().unwrap(),
        durability: arg("policy").unwrap_or_else(|| "none".into()).parse(),
        record: ShardRecord {
            primary_alias: arg("primary").map(|alias| alias.parse().unwrap()),
            term_start: arg("term").map(|text| term(&text)),
            emergency_reparent_disabled: false,
        },
        emergency_reparent_disabled: false,
        tablets: BTreeMap::new(),
        damaged: BTreeMap::new(),
        known_cells: BTreeSet::new(),
        unseen: unseen(args),
    };
    let mut snapshot = ShardSnapshot::unprobed(&topology, NOW);
    let known = arg("known").map(|seconds| seconds.parse::<u64>().unwrap() * 1000);
    snapshot.term_known_since = known.map(Timestamp::from_millis);
    for line in input.lines().filter(|line| !line.trim().is_empty()) {
        let state = tablet(line);
        snapshot.tablets.insert(state.tablet.alias.clone(), state);
    }
    snapshot
}

/// `unread=zone3` a cell that was never read, `unread=zone3-9` a record.
fn unseen(args: &std::collections::HashMap<String, Vec<String>>) -> BTreeMap<Place, String> {
    let places = args.get("unread").into_iter().flatten();
    let place = |text: &String| match text.parse() {
        Ok(alias) => Place::Record(alias),
        Err(_) => Place::Cell(text.clone()),
    };
    places.map(|text| (place(text), "no answer".to_owned())).collect()
}

fn tablet(line: &str) -> TabletState {
    let mut words = line.split_whitespace();
    let alias: TabletAlias = words.next().unwrap().parse().unwrap();
    let tablet_type = TabletType::from_name(words.next().unwrap()).unwrap();
    let mut state = unprobed(&alias, tablet_type);
    let mut status = server(&alias);
    let mut seen = true;
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        match key {
            "up" => {}
            "down" | "suspect" | "denied" | "stalled" => state.reachability = failing(key),
            "unseen" => {
                state.reachability = Reachability::Unseen;
                seen = false;
            }
            "from" | "lost" | "halted" | "quiet" => {
                status.replication = Some(replication(key, value));
                if key == "quiet" {
                    state.received_at = Some(Timestamp::from_millis(95_000));
                }
            }
            "stuck" => {
                status.semi_sync.waiting_sessions = 1;
                let ago = Duration::from_secs(value.parse().unwrap());
                state.stuck_since = Some(Timestamp::from_millis(
                    NOW.as_millis() - u64::try_from(ago.as_millis()).unwrap(),
                ));
            }
            "timeouts" => state.recent.timed_out = value.parse().unwrap(),
            "pings" => {
                let pinged = value.parse().unwrap();
                state.recent = RecentProbes { timed_out: pinged, pinged, succeeded: 2 };
            }
            "prefer" | "neutral" | "prefer_not" | "must_not" => {
                state.tablet.promotion_rule = PromotionRule::from_name(key);
            }
            "host" => state.tablet.mysql.as_mut().unwrap().host = value.to_owned(),
            "term" => state.tablet.term_start = Some(term(value)),
            "known" => state.identity = Some(status.identity()),
            // It answered after everybody else was asked.
            "later" => state.answered_at = Timestamp::from_millis(NOW.as_millis() + 1),
            // What it said some time ago.
            "had" => state.earlier.push(earlier(&status, value)),
            _ => server_word(&mut status, key, value),
        }
    }
    state.status = seen.then(|| Arc::new(status));
    state
}

fn failing(how: &str) -> Reachability {
    let since = Timestamp::from_millis(98_000);
    let refused = ProbeFailure::Refused("refused".into());
    match how {
        "down" => Reachability::Unreachable { since, why: refused },
        "suspect" => Reachability::Suspect { since, why: refused },
        "denied" => {
            Reachability::TurnedAway { since, why: ProbeFailure::TurnedAway("1045".into()) }
        }
        _ => Reachability::TurnedAway { since, why: ProbeFailure::DiskStalled },
    }
}

fn earlier(status: &ServerStatus, had: &str) -> (Arc<ServerStatus>, Timestamp) {
    (Arc::new(ServerStatus { gtid_executed: gtid(had), ..status.clone() }), NOW)
}

/// What its vttablet says of itself.
fn vttablet(word: &str) -> VttabletState {
    match word {
        "silent" => VttabletState::Silent("its vttablet did not answer in time".into()),
        "old" => {
            VttabletState::TooOld("its vttablet is too old: it does not know FullStatus".into())
        }
        other => VttabletState::Answers {
            tablet_type: TabletType::from_name(other.trim_end_matches("-stalled")).unwrap(),
            disk_stalled: other.ends_with("-stalled"),
            semi_sync_blocked: false,
        },
    }
}

/// What a word says of the server alone.
fn server_word(status: &mut ServerStatus, key: &str, value: &str) {
    match key {
        "rw" => (status.read_only, status.super_read_only) = (false, false),
        "ro" => (status.read_only, status.super_read_only) = (true, true),
        // Only those with SUPER could write.
        "supers" => status.super_read_only = false,
        "filtered" => match &mut status.replication {
            Some(replication) => replication.filtered = true,
            None => status.would_filter = true,
        },
        "noapply" => status.replication.as_mut().unwrap().applier_running = false,
        "waits" => (status.semi_sync.source_enabled, status.semi_sync.wait_count) = (true, 1),
        // What is seen of it was acknowledged.
        "acked" => {
            (status.semi_sync.source_active, status.semi_sync.seen_is_acknowledged) = (true, true);
        }
        "acks" => status.semi_sync.replica_enabled = true,
        "gtid" => status.gtid_executed = gtid(value),
        "got" => status.replication.as_mut().unwrap().retrieved = gtid(value),
        "journal" => status.journal_length = value.parse().ok(),
        "lag" => status.replication.as_mut().unwrap().lag_seconds = value.parse().ok(),
        "gives_up" => {
            let after = value.parse().ok();
            status.replication.as_mut().unwrap().gives_up_after_s = after;
        }
        "beats" => {
            let period = value.parse().ok();
            status.replication.as_mut().unwrap().heartbeat_period_ms = period;
        }
        "delay" => {
            status.replication.as_mut().unwrap().delay_seconds = value.parse().unwrap();
        }
        "clients" => status.semi_sync.clients = value.parse().unwrap(),
        "version" => status.version = value.to_owned(),
        "vttablet" => status.vttablet = Some(vttablet(value)),
        "nolog" => status.log_replica_updates = false,
        "refused" => {
            let text = "histories differ".to_owned();
            let kind = ReceiverErrorKind::Diverged;
            let error = Some(ReceiverError { number: 1236, kind, text });
            status.replication.as_mut().unwrap().receiver_error = error;
        }
        "format" => status.binlog_format = BinlogFormat::from_name(value),
        "opens" | "fast" | "early" | "skew" | "nettimeout" | "ungranted" | "noentry" => {}
        "uuid" => status.server_uuid = Some(uuid(value.chars().next().unwrap())),
        "id" => status.server_id = value.parse().unwrap(),
        "purged" => status.gtid_purged = gtid(value),
        other => panic!("unknown word {other}"),
    }
}

fn unprobed(alias: &TabletAlias, tablet_type: TabletType) -> TabletState {
    TabletState {
        tablet: Tablet {
            mysql: Some(address(alias)),
            shard: "ks/0".parse().unwrap(),
            alias: alias.clone(),
            tablet_type,
            term_start: None,
            vttablet: None,
            promotion_rule: None,
        },
        identity: None,
        reachability: Reachability::Valid,
        status: None,
        status_at: NOW,
        asked_at: NOW,
        history: ProbeHistory::default(),
        answered_at: NOW,
        earlier: Vec::new(),
        received_at: Some(NOW),
        stuck_since: None,
        recent: RecentProbes::default(),
    }
}

fn address(alias: &TabletAlias) -> MysqlAddress {
    MysqlAddress { host: format!("h{}", alias.uid), port: 3306 }
}

fn server(alias: &TabletAlias) -> ServerStatus {
    ServerStatus {
        server_id: alias.uid,
        server_uuid: Some(uuid(letter(alias))),
        semi_sync: SemiSyncStatus {
            source_available: true,
            replica_available: true,
            falls_back_alone: false,
            timeout_ms: Duration::from_secs(365 * 86_400).as_millis() as u64,
            ..SemiSyncStatus::default()
        },
        journal_length: Some(0),
        ..testkit::status()
    }
}

fn replication(kind: &str, source: &str) -> ReplicationStatus {
    let source: TabletAlias = source.parse().unwrap();
    ReplicationStatus {
        source_uuid: Some(uuid(letter(&source))),
        source_server_id: Some(source.uid),
        receiver: match kind {
            "lost" => ReceiverState::Connecting,
            "halted" => ReceiverState::Stopped,
            _ => ReceiverState::Running,
        },
        ..testkit::replication(address(&source))
    }
}
