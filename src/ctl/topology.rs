//! `vtorc ctl topology`: who follows whom.

use std::collections::BTreeSet;

use serde_json::Value;

use super::answer::{list, text};
use super::table;
use crate::print::say;

/// Prints a shard's replication as a tree.
pub(super) fn print(shard: &Value) {
    let findings: Vec<&str> =
        list(shard.get("findings")).iter().map(|finding| text(finding, "code")).collect();
    say(&format!(
        "{}/{}  {}  {}",
        text(shard, "keyspace"),
        text(shard, "shard"),
        text(shard, "durability_policy"),
        if findings.is_empty() { "in order".into() } else { findings.join(", ") },
    ));
    let tablets = list(shard.get("tablets"));
    let mut tree = Tree { tablets, shown: BTreeSet::new(), rows: Vec::new() };
    for root in tablets.iter().filter(|one| source(one).is_none()) {
        tree.add(root, "", "");
    }
    // Whoever is left follows in a circle.
    for left in tablets {
        tree.add(left, "", "");
    }
    table::print(&["TABLET", "TYPE", "ADDRESS", "STATE", "LAG", "TROUBLE"], tree.rows);
}

struct Tree<'a> {
    tablets: &'a [Value],
    shown: BTreeSet<&'a str>,
    rows: Vec<Vec<String>>,
}

impl<'a> Tree<'a> {
    fn add(&mut self, tablet: &'a Value, branch: &str, below: &str) {
        let alias = text(tablet, "alias");
        if !self.shown.insert(alias) {
            return;
        }
        self.rows.push(vec![
            format!("{branch}{alias}"),
            text(tablet, "type").into(),
            address(tablet),
            state(tablet),
            lag(tablet),
            trouble(tablet),
        ]);
        let followers: Vec<&'a Value> =
            self.tablets.iter().filter(|one| source(one) == Some(alias)).collect();
        for (at, follower) in followers.iter().enumerate() {
            let (branch, further) = match at + 1 == followers.len() {
                true => ("└─ ", "   "),
                false => ("├─ ", "│  "),
            };
            self.add(follower, &format!("{below}{branch}"), &format!("{below}{further}"));
        }
    }
}

fn replication(tablet: &Value) -> Option<&Value> {
    tablet.get("replication").filter(|replication| !replication.is_null())
}

fn source(tablet: &Value) -> Option<&str> {
    replication(tablet)?.get("source_tablet")?.as_str()
}

fn address(tablet: &Value) -> String {
    match (text(tablet, "mysql_host"), tablet.get("mysql_port").and_then(Value::as_u64)) {
        (host, Some(port)) if host.contains(':') => format!("[{host}]:{port}"),
        (host, Some(port)) => format!("{host}:{port}"),
        (_, None) => "-".into(),
    }
}

fn state(tablet: &Value) -> String {
    if tablet.get("reachable").and_then(Value::as_bool) != Some(true) {
        return text(tablet, "state").replace('_', " ");
    }
    let writable = tablet.get("read_only").and_then(Value::as_bool) == Some(false);
    let role = replication(tablet).map(|channel| {
        match (text(channel, "receiver"), text(channel, "applier")) {
            ("running", "running") => "replicates".to_owned(),
            ("running", applier) => format!("applier {applier}"),
            (receiver, "running") => format!("receiver {receiver}"),
            (receiver, applier) => format!("receiver {receiver}, applier {applier}"),
        }
    });
    match (writable, role) {
        (true, None) => "takes writes".into(),
        (true, Some(role)) => format!("takes writes, {role}"),
        (false, None) => "read-only, follows nobody".into(),
        (false, Some(role)) => role,
    }
}

fn lag(tablet: &Value) -> String {
    let seconds = |field| replication(tablet)?.get(field)?.as_u64();
    match (seconds("lag_seconds"), seconds("delay_seconds")) {
        (Some(lag), Some(delay)) if delay > 0 => format!("{lag} s (delayed by {delay} s)"),
        (Some(lag), _) => format!("{lag} s"),
        (None, _) => "-".into(),
    }
}

fn trouble(tablet: &Value) -> String {
    let channel = replication(tablet).unwrap_or(&Value::Null);
    let elsewhere = match (source(tablet), channel.is_null()) {
        (None, false) => {
            let port = channel.get("source_port").and_then(Value::as_u64).unwrap_or_default();
            format!("follows {}:{port}, which is no tablet's", text(channel, "source_host"))
        }
        (Some(_), _) | (None, true) => String::new(),
    };
    let errant = match text(tablet, "errant_gtids") {
        "" => String::new(),
        gtids => format!("errant GTIDs {gtids}"),
    };
    let all = [
        text(tablet, "trouble"),
        text(channel, "receiver_error"),
        text(channel, "applier_error"),
        &elsewhere,
        &errant,
    ];
    let said: Vec<&str> = all.into_iter().filter(|text| !text.is_empty()).collect();
    table::plain(&said.join("; "))
}
