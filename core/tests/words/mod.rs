//! The words in which scenarios describe a shard.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use vtorc_core::gtid::{GtidSet, MariaDbBinlogState, MariaDbGtidSet, MariaDbServer};
use vtorc_core::ids::TabletAlias;
use vtorc_core::knowledge::health::{
    ProbeFailure, ProbeHistory, Reachability, RecentProbes, Stranger,
};
use vtorc_core::knowledge::memory::{Arrivals, Losses, OwnWrites};
use vtorc_core::knowledge::observe::TabletState;
use vtorc_core::knowledge::snapshot::ShardSnapshot;
use vtorc_core::status::{
    BinlogFormat, Flavor, ReceiverError, ReceiverErrorKind, ReceiverState, ReplicationStatus,
    SemiSyncStatus, ServerPlace, ServerStatus, VttabletState,
};
use vtorc_core::tablet::{MysqlAddress, PromotionRule, Tablet, TabletType};
use vtorc_core::testkit;
use vtorc_core::time::{TermStart, Timestamp};
use vtorc_core::topology::{Place, ShardRecord, ShardTopology, UnreadRecord};

/// When everything is looked at.
pub(crate) const NOW: Timestamp = Timestamp::from_millis(100_000);

pub(crate) fn uuid(letter: char) -> String {
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

pub(crate) fn snapshot(
    args: &std::collections::HashMap<String, Vec<String>>,
    input: &str,
) -> ShardSnapshot {
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
        damaged: damaged(arg("damaged"), arg("record").is_some()),
        unread_tablets: arg("damaged").map(|alias| alias.parse().unwrap()).into_iter().collect(),
        known_cells: BTreeSet::new(),
        unseen: unseen(args),
        unread_record: arg("record").map(|text| unread_record(&text)),
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

/// `damaged=zone1-9` a tablet's record; and whether the shard's own is.
fn damaged(of: Option<String>, own: bool) -> BTreeMap<String, String> {
    let paths = of.map(|alias| format!("tablets/{alias}/Tablet"));
    let paths = paths.into_iter().chain(own.then(|| "shard ks/0".to_owned()));
    paths.map(|path| (path, "garbage".to_owned())).collect()
}

/// What is known of the shard's own record that cannot be read: `record=as_before`, `record=doubtful` where those of
/// all tablets cannot be read either, `record=never_read`.
fn unread_record(text: &str) -> UnreadRecord {
    UnreadRecord::from_name(text).unwrap()
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
    let (mut seen, mut strange) = (true, false);
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
            // Its vttablet was stopped in order.
            "nowhere" => {
                (state.tablet.mysql, state.reachability) = (None, Reachability::Unseen);
                seen = false;
            }
            "host" => state.tablet.mysql.as_mut().unwrap().host = value.to_owned(),
            "term" => state.tablet.term_start = Some(term(value)),
            // With `proven` it was seen with the shard's history.
            "known" | "proven" => {
                (state.identity, state.proven) = (Some(status.identity()), key == "proven");
            }
            // What answers there was taken for a stranger, because it shares nothing with the primary.
            "stranger" => strange = true,
            // It answered after everybody else was asked.
            "heard" => {
                state.status_at = Timestamp::from_millis(value.parse::<u64>().unwrap() * 1000)
            }
            "later" => state.answered_at = Timestamp::from_millis(NOW.as_millis() + 1),
            "spoke" | "arrived" | "had" | "led" | "mute" | "served" | "forgot" | "erred" => {
                remembered(&mut state, &status, key, value);
            }
            _ => server_word(&mut status, key, value),
        }
    }
    answered(state, status, seen, strange)
}

/// What is known of it from before.
fn remembered(state: &mut TabletState, status: &ServerStatus, key: &str, value: &str) {
    match key {
        // What it said some time ago.
        "had" => state.earlier.push(earlier(status, value)),
        // It was the primary of the term before.
        "led" => state.led_before = true,
        // It acknowledges nothing since then.
        "mute" => {
            let since = Timestamp::from_millis(value.parse::<u64>().unwrap() * 1000);
            state.quiet_since = Some(since);
        }
        // What it had when it last took writes in this term.
        "served" => {
            let had = ServerStatus { gtid_executed: gtid(value), ..status.clone() };
            state.as_primary = Some(Arc::new(had));
        }
        // It was seen to get something from its source so many seconds after the beginning, and so many.
        "arrived" => {
            let seconds = |text: &str| Timestamp::from_millis(text.parse::<u64>().unwrap() * 1000);
            let (first, last) = value.split_once(',').unwrap();
            state.arrivals = Arrivals { last: Some(seconds(last)), before: Some(seconds(first)) };
        }
        // It answered last so many seconds after the beginning.
        "spoke" => {
            let at = Timestamp::from_millis(value.parse::<u64>().unwrap() * 1000);
            (state.status_at, state.answered_at) = (at, at);
        }
        // What it said some time ago, and does not have any more.
        "forgot" => state.forgotten = Some(gtid(value)),
        // It logged what it wrote itself while it followed somebody.
        "erred" => {
            let before =
                ServerStatus { binlog_state: MariaDbBinlogState::default(), ..status.clone() };
            state.own_writes.hear(&before, status);
        }
        other => panic!("unknown word {other}"),
    }
}

fn answered(
    mut state: TabletState,
    mut status: ServerStatus,
    seen: bool,
    strange: bool,
) -> TabletState {
    if status.flavor == Flavor::MariaDb {
        in_mariadbs_words(&mut status);
        state.identity = state.identity.map(|_| status.identity());
    }
    let status = Arc::new(status);
    if strange {
        let since = Timestamp::from_millis(98_000);
        let why = ProbeFailure::Stranger(Stranger::SharesNothing);
        state.reachability = Reachability::Unreachable { since, why };
        state.stranger = Some(status.clone());
    }
    state.status = (seen && !strange).then_some(status);
    state
}

/// No sets, no uuids, and what is logged beside what was applied.
fn in_mariadbs_words(status: &mut ServerStatus) {
    let none = MariaDbGtidSet::default();
    let applied = match &status.gtid_executed {
        GtidSet::MariaDb(applied) => applied.clone(),
        GtidSet::MySql(_) => none.clone(),
    };
    let told = MariaDbServer {
        server_id: status.server_id,
        applied: &applied,
        written: &none,
        state: &status.binlog_state,
        logs_what_it_applies: status.log_replica_updates,
    };
    let has = MariaDbGtidSet::of_server(&told);
    let executed = GtidSet::MariaDb(has.clone());
    (status.server_uuid, status.super_read_only) = (None, status.read_only);
    let anywhere = || ServerPlace {
        hostname: format!("h{}", status.server_id),
        port: 3306,
        datadir: "/var/lib/mysql/".into(),
    };
    status.place = Some(status.place.take().unwrap_or_else(anywhere));
    status.gtid_purged = GtidSet::empty_mariadb();
    if let Some(channel) = &mut status.replication {
        channel.source_uuid = None;
        let got = match &channel.retrieved {
            GtidSet::MariaDb(got) => GtidSet::MariaDb(got.last_ones()),
            GtidSet::MySql(_) => GtidSet::empty_mariadb(),
        };
        channel.retrieved = GtidSet::MariaDb(has.last_ones()).union(&got);
    }
    status.gtid_executed = executed;
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
        "backup" => status.backup_runs = true,
        "offline" => status.offline = true,
        "locked" => status.writes_wait = true,
        "free" => status.free_connections = Some(value.parse().unwrap()),
        "ro" => (status.read_only, status.super_read_only) = (true, true),
        // Only those with SUPER could write.
        "supers" => status.super_read_only = false,
        "filtered" => match &mut status.replication {
            Some(replication) => replication.filtered = true,
            None => status.would_filter = true,
        },
        "noapply" => {
            let channel = status.replication.as_mut().unwrap();
            channel.applier_running = false;
            channel.applier_error = Some(value.to_owned()).filter(|error| !error.is_empty());
        }
        "waits" => (status.semi_sync.source_enabled, status.semi_sync.wait_count) = (true, 1),
        // What is seen of it was acknowledged.
        "acked" => {
            (status.semi_sync.source_active, status.semi_sync.seen_is_acknowledged) = (true, true);
        }
        "acks" => {
            status.semi_sync.replica_enabled = true;
            let connected =
                |channel: &ReplicationStatus| channel.receiver == ReceiverState::Running;
            let idle = value == "idle";
            status.semi_sync.replica_active =
                !idle && status.replication.as_ref().is_some_and(connected);
        }
        "gtid" => status.gtid_executed = gtid(value),
        // `gtid_binlog_state`, with dots between the transactions; the last one is the last that was logged.
        "logged" => {
            status.flavor = Flavor::MariaDb;
            status.binlog_state = value.replace('.', ",").parse().unwrap();
        }
        // `gtid_slave_pos`, after that.
        "applied" => status.gtid_executed = GtidSet::parse_mariadb(value).unwrap(),
        "got" | "pulls" => received_word(status, key, value),
        "journal" => status.journal_length = value.parse().ok(),
        "uptime" => status.uptime = value.parse().ok().map(Duration::from_secs),
        "lag" => status.replication.as_mut().unwrap().lag_seconds = value.parse().ok(),
        "clients" => status.semi_sync.clients = value.parse().unwrap(),
        "version" => status.version = value.to_owned(),
        "vttablet" => status.vttablet = Some(vttablet(value)),
        "nolog" => status.log_replica_updates = false,
        "format" => status.binlog_format = BinlogFormat::from_name(value),
        "past" | "opens" | "fast" | "early" | "skew" | "nettimeout" | "ungranted" | "noentry"
        | "tlsonly" => {}
        "uuid" => status.server_uuid = Some(uuid(value.chars().next().unwrap())),
        "machine" => {
            let (port, datadir) = (3306, "/var/lib/mysql/".into());
            status.place = Some(ServerPlace { hostname: value.to_owned(), port, datadir });
        }
        "id" => status.server_id = value.parse().unwrap(),
        "purged" => status.gtid_purged = gtid(value),
        other => channel_word(status.replication.as_mut().unwrap(), other, value),
    }
}

/// What a word says of what it got.
fn received_word(status: &mut ServerStatus, key: &str, value: &str) {
    match key {
        "got" => {
            let got = match value.contains(':') {
                true => gtid(value),
                // Of a MariaDB: `gtid_io_pos`.
                false => GtidSet::parse_mariadb(value).unwrap(),
            };
            status.replication.as_mut().unwrap().retrieved = got;
        }
        // What it got by another channel, from elsewhere.
        "pulls" => {
            let elsewhere = testkit::replication(MysqlAddress { host: "dw".into(), port: 3306 });
            let (source_uuid, retrieved) = (None, gtid(value));
            status.channels.push(ReplicationStatus { source_uuid, retrieved, ..elsewhere });
        }
        other => panic!("unknown word {other}"),
    }
}

/// What a word says of its channel.
fn channel_word(channel: &mut ReplicationStatus, key: &str, value: &str) {
    match key {
        // Its source lets it in no more; it was connected to another one before (`once`).
        "turned" => {
            channel.receiver = ReceiverState::Connecting;
            let text = "Access denied for user 'repl'".to_owned();
            let kind = ReceiverErrorKind::Denied;
            channel.receiver_error = Some(ReceiverError { number: 1045, kind, text });
        }
        "once" => {
            let once = uuid(value.chars().next().unwrap());
            channel.source_uuid = Some(once);
        }
        "refused" => {
            let text = "histories differ".to_owned();
            let kind = ReceiverErrorKind::Diverged;
            let error = Some(ReceiverError { number: 1236, kind, text });
            channel.receiver_error = error;
        }
        // Its source says that it purged what it needs.
        "purges" => {
            let text = "purged".to_owned();
            let kind = ReceiverErrorKind::Purged;
            channel.receiver_error = Some(ReceiverError { number: 1236, kind, text });
        }
        // Its source lets it in and cannot send it what is next.
        "oversized" => {
            channel.receiver = ReceiverState::Stopped;
            let text = "log event entry exceeded max_allowed_packet".to_owned();
            let kind = ReceiverErrorKind::PacketTooLarge;
            channel.receiver_error = Some(ReceiverError { number: 1236, kind, text });
        }
        "gives_up" => {
            let after = value.parse().ok();
            channel.gives_up_after_s = after;
        }
        "beats" => {
            let period = value.parse().ok();
            channel.heartbeat_period_ms = period;
        }
        "delay" => {
            channel.delay_seconds = value.parse().unwrap();
        }
        other => panic!("unknown word {other}"),
    }
}

fn unprobed(alias: &TabletAlias, tablet_type: TabletType) -> TabletState {
    TabletState {
        proven: false,
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
        stranger: None,
        reachability: Reachability::Valid,
        status: None,
        status_at: NOW,
        asked_at: NOW,
        history: ProbeHistory::default(),
        answered_at: NOW,
        earlier: Vec::new(),
        received_at: Some(NOW),
        arrivals: Arrivals::default(),
        stuck_since: None,
        journal: None,
        as_primary: None,
        led_before: false,
        moved: false,
        channel_tls: None,
        quiet_since: None,
        losses: Losses::default(),
        own_writes: OwnWrites::default(),
        forgotten: None,
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
        uptime: None,
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
