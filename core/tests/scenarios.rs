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
//! - for `answers at=zone1-2`, the line of `zone9-26` is what is answered; `claimed=zone1-201` whose server that is
//!   known to be, `first=zone1-1` who is named the shard's first primary only now, `silent` nothing is answered the
//!   next time; of tablets, `uuid=f` another server's, `known` it is known to be the tablet's, `stranger` it was taken
//!   for somebody else's;
//! - `logged=0-1-5.0-2-7` and `applied=0-2-7` a MariaDB's binary logs, and its position as a replica;
//! - `gtid=a:1-5,b:1` executed, `got=a:6` received and not applied; a letter stands for a server's uuid.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod prescriptions;
mod words;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use vtorc_core::admission::Switches;
use vtorc_core::analysis::{FindingKind, detect};
use vtorc_core::controls::{Controls, Entry};
use vtorc_core::ids::TabletAlias;
use vtorc_core::knowledge::health::{ProbeFailure, Reachability};
use vtorc_core::knowledge::identity::meant;
use vtorc_core::knowledge::observe::Answer;
use vtorc_core::knowledge::snapshot::ShardSnapshot;
use vtorc_core::preflight::{Grant, Inspection, concerns};
use vtorc_core::recovery::receivers::{Restart, goes_on, to_restart};
use vtorc_core::recovery::reopen;
use vtorc_core::remedy::{Wanted, wanted};
use vtorc_core::reparent::election::{Constraints, Contender, elect, possible_ackers, promised};
use vtorc_core::reparent::prognosis::{Prognosis, if_primary_died};
use vtorc_core::reparent::safety::Reach;
use vtorc_core::source_access::{LoginTrial, LoginTrouble};
use vtorc_core::tablet::{MysqlAddress, TabletType};
use vtorc_core::testkit;

use words::{NOW, snapshot, uuid};

#[test]
fn scenarios() {
    datadriven::walk("tests/scenarios", |file| {
        file.run(|case| {
            let snapshot = snapshot(&case.args, &case.input);
            match case.directive.as_str() {
                "shard" => findings(&snapshot),
                "died" => prognosis(&snapshot, &case.args),
                "check" => check(&snapshot, &case.input, &case.args),
                "elect" => election(&snapshot, &case.args),
                "answers" => answers(snapshot, &case.args),
                "receivers" => receivers(snapshot),
                "reopen" => reopened(&snapshot),
                "plan" => prescriptions::plan(&snapshot, &case.args),
                "cure" => prescriptions::cure(&snapshot, &case.args),
                "reparent" => prescriptions::reparented(&snapshot, &case.args),
                other => panic!("unknown directive {other}"),
            }
        });
    });
}

/// How long each decision takes over sets with many gaps: no thread is to be held for more than 50 ms.
/// `cargo test --release -p vtorc-core --test scenarios -- --ignored --nocapture` tells.
#[test]
#[ignore = "measures"]
#[expect(clippy::disallowed_methods, reason = "time is what it measures")]
fn decisions_over_sets_with_fifty_thousand_gaps() {
    let numbers = |first: u64| -> String {
        (0..50_000).map(|at| (2 * at + first).to_string()).collect::<Vec<_>>().join(":")
    };
    let (odd, even) = (numbers(1), numbers(2));
    let input = format!(
        "zone1-1 PRIMARY up rw waits term=5 gtid=a:1-9,e:{odd} clients=2 known\n\
         zone1-2 REPLICA up from=zone1-1 gtid=a:1-9,e:{odd} acks known\n\
         zone1-3 REPLICA up from=zone1-1 gtid=a:1-9,e:{odd},f:{even} acks known\n"
    );
    let args = [("policy".to_owned(), vec!["semi_sync".to_owned()])].into();
    let snapshot = snapshot(&args, &input);
    let settings = testkit::settings();
    let measure = |what: &str, decide: &dyn Fn()| {
        let begun = std::time::Instant::now();
        decide();
        println!("{what}: {:?}", begun.elapsed());
    };
    let controls = Controls::default();
    let switches = Switches::on(&controls);
    measure("what is found", &|| drop(detect(&snapshot, &settings)));
    measure("the forecast", &|| drop(if_primary_died(&snapshot, &settings, switches)));
    measure("check", &|| drop(concerns(&snapshot, &BTreeMap::new(), &settings, switches)));
    measure("whether it is opened", &|| drop(reopened(&snapshot)));
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
    if let Some(first) = arg("first") {
        name_first(&mut snapshot, &first.parse().unwrap());
    }
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
    let mut text = format!("{first}; {}\n", told(&snapshot, &alias));
    if args.contains_key("silent") {
        let result = Err(ProbeFailure::TimedOut);
        snapshot.take_answer(&alias, Answer { sent_at, result, claimed_by: None }, NOW);
        text.push_str(&format!("then silence; {}\n", told(&snapshot, &alias)));
    }
    text
}

fn told(snapshot: &ShardSnapshot, alias: &TabletAlias) -> &'static str {
    match meant(snapshot, snapshot.tablet(alias).unwrap()) {
        Ok(Some(_)) => "it alone is sent commands",
        Ok(None) => "whoever answers is sent commands",
        Err(_) => "no command is sent",
    }
}

/// The topology says now who the shard's first primary is.
fn name_first(snapshot: &mut ShardSnapshot, first: &TabletAlias) {
    let mut topology = snapshot.topology();
    let named = topology.tablets.get_mut(first).unwrap();
    named.tablet_type = TabletType::Primary;
    snapshot.take_topology(&topology, NOW);
}

/// Whose receivers are restarted because the primary cannot be reached and some replicas are broken, where heartbeats
/// cannot be seen; and who goes on after a reparent in vain.
fn receivers(mut snapshot: ShardSnapshot) -> String {
    let statuses = snapshot.tablets.values_mut().filter_map(|state| state.status.as_mut());
    for status in statuses.map(Arc::make_mut) {
        status.replication.iter_mut().for_each(|channel| channel.marker_sees_heartbeats = false);
    }
    let finding = FindingKind::UnreachablePrimaryWithBrokenReplicas;
    let names = |round: Vec<Restart<'_>>| {
        let names = round.iter().map(|one| one.replica.tablet.alias.to_string());
        names.collect::<Vec<_>>().join(", ")
    };
    let rounds: Vec<String> = to_restart(&snapshot, finding).into_iter().map(names).collect();
    let restarted = match rounds.is_empty() {
        true => "nobody".to_owned(),
        false => rounds.join("; then "),
    };
    let on = snapshot.tablets.keys().filter(|alias| goes_on(&snapshot, alias));
    let on: Vec<String> = on.map(ToString::to_string).collect();
    let list = |names: Vec<String>| match names.is_empty() {
        true => "nobody".to_owned(),
        false => names.join(", "),
    };
    format!("restarted: {restarted}\ngoes on: {}\n", list(on))
}

/// Whether the primary may take writes again.
fn reopened(snapshot: &ShardSnapshot) -> String {
    let policy = *snapshot.durability.as_ref().unwrap();
    match reopen::check(snapshot, policy) {
        Ok(()) => "it may take writes again\n".into(),
        Err(why) => format!("{why}\n"),
    }
}

fn check(
    snapshot: &ShardSnapshot,
    input: &str,
    args: &std::collections::HashMap<String, Vec<String>>,
) -> String {
    let mut text = String::new();
    let mut settings = testkit::settings();
    settings.cells_no_recovery = args.get("cells_no_recovery").cloned().unwrap_or_default();
    let controls = controls(args);
    let switches = Switches::on(&controls);
    for one in concerns(snapshot, &inspections(input), &settings, switches) {
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
            let grants = |privileges: &[&str]| {
                let privileges = privileges.iter().map(|one| (*one).to_owned()).collect();
                vec![Grant { privileges, on: "*.*".into() }]
            };
            let mut seen =
                Inspection { grants: grants(&["ALL PRIVILEGES"]), ..Inspection::default() };
            for word in words {
                let (key, value) = word.split_once('=').unwrap_or((word, ""));
                match key {
                    "opens" => seen.read_only_at_start = Some(false),
                    "fast" => seen.commits_are_durable = Some(false),
                    "early" => seen.readers_see_unacknowledged = Some(true),
                    "past" => seen.past_read_only = value.split('+').map(str::to_owned).collect(),
                    "skew" => seen.clock_ahead_ms = value.parse().ok(),
                    "nettimeout" => seen.net_timeout_s = value.parse().ok(),
                    "noentry" | "tlsonly" => {
                        let at = MysqlAddress { host: value.to_owned(), port: 3306 };
                        let words = "access denied".to_owned();
                        let trouble = Some(match key {
                            "noentry" => LoginTrouble::Refused(words),
                            _ => LoginTrouble::TlsOnly(words),
                        });
                        let user = "repl".to_owned();
                        seen.login_trial = Some(LoginTrial { user, at, trouble });
                    }
                    "ungranted" => seen.grants = grants(&["RELOAD", "PROCESS"]),
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
    let refused = alias("refused").into_iter().collect();
    let mut settings = testkit::settings();
    settings.prevent_cross_cell_failover = args.contains_key("prevent_cross_cell");
    let contenders: Vec<Contender> =
        Contender::of(snapshot).into_iter().map(|one| one.by_its_memory(snapshot, NOW)).collect();
    let reached = contenders.iter().map(|one| one.tablet.alias.clone()).collect();
    let policy = *snapshot.durability.as_ref().unwrap();
    let reach = Reach::of(snapshot, policy, &reached);
    let writer = old.as_ref().and_then(|old| snapshot.tablet(old));
    let promised = promised(policy, writer);
    let constraints = Constraints {
        old_primary: old.as_ref(),
        wanted: want.as_ref(),
        avoid: avoid.as_ref(),
        last_known: writer.and_then(|state| state.status.as_deref()),
        promised: promised.as_ref(),
        complete: !args.contains_key("incomplete"),
        refused: &refused,
        ackers: possible_ackers(&reach, writer, &contenders),
        ..Constraints::plain(policy, &settings, &unread)
    };
    let mut text = String::new();
    match elect(&contenders, &constraints) {
        Ok(election) => {
            for (at, one) in election.candidates.iter().enumerate() {
                let place = if at == 0 { "winner" } else { "or" };
                let sources = one.sources.iter().map(|source| format!(" from {source}"));
                let lesser = one.lesser_sources.iter();
                let lesser = lesser.map(|source| format!(" at least from {source}"));
                let sources: String = sources.chain(lesser).collect();
                writeln!(text, "{place} {}{sources}", one.alias).unwrap();
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
        let entry = Entry { by, comment, since: NOW, until: None };
        controls.set(text.replace('_', " ").parse().unwrap(), entry);
    }
    controls
}

/// Uuids as their letters again.
fn short(text: &str) -> String {
    ('a'..='f')
        .fold(text.to_owned(), |text, letter| text.replace(&uuid(letter), &letter.to_string()))
}
