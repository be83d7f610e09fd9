//! `vtorc demo`: what it prints works, and it leaves nothing behind.

use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use vtorc_fleet::Child;

use crate::harness::{PATIENCE, request, wait_for};

#[test]
fn the_demo_shows_a_failover_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("out");
    let mut command = Command::new(env!("CARGO_BIN_EXE_vtorc"));
    command.args(["demo", "--mysqld", "/usr/sbin/mariadbd", "--console-port", "0"]);
    command.env("TMPDIR", directory.path());
    let mut demo = Child::start(&mut command, &log).unwrap();
    let text = || std::fs::read_to_string(&log).unwrap_or_default();
    wait_for(|| text().contains("Ctrl-C ends everything").then_some(()))
        .unwrap_or_else(|| panic!("the demo did not get ready: {}", text()));
    let after = |mark: &str| {
        let said = text();
        let rest =
            said.split_once(mark).unwrap_or_else(|| panic!("no {mark:?} in {said}")).1.trim_start();
        rest.split([' ', '\n', '\'']).next().unwrap().to_owned()
    };
    let url = after("The status page:");
    let shards = request("GET", &format!("{url}/api/v1/shards"), None, &[]).1;
    let primary = |shards: &Value, at: usize| shards[at]["primary"].as_str().map(str::to_owned);
    assert_eq!(shards.as_array().unwrap().len(), 2, "{shards:#}");
    let first = primary(&shards, 0).unwrap();
    // The first thing to try, as printed.
    let victim: i32 = after("kill -9").parse().unwrap();
    kill_process(Pid::from_raw(victim).unwrap(), Signal::KILL).unwrap();
    let replaced = wait_for(|| {
        let now = request("GET", &format!("{url}/api/v1/shards"), None, &[]).1;
        primary(&now, 0).filter(|alias| *alias != first)
    });
    assert!(replaced.is_some(), "{}", text());
    wait_for(|| text().contains("EmergencyReparent succeeded").then_some(()))
        .expect("it does not tell");
    // The second one, as printed.
    let curl = text();
    let curl = curl.split_once("curl -X POST").unwrap().1.split_once("\n\n").unwrap().0;
    let output =
        Command::new("sh").args(["-c", &format!("curl -sS -X POST {curl}")]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("succeeded"), "{output:?}");
    // Ctrl-C.
    let servers: Vec<String> = text()
        .lines()
        .filter_map(|line| Some(line.split_once("(process ")?.1.trim_end_matches(')').to_owned()))
        .collect();
    assert_eq!(servers.len(), 6);
    demo.signal(Signal::INT);
    assert_eq!(demo.wait(PATIENCE), Some(0), "{}", text());
    for pid in servers {
        assert!(!std::path::Path::new("/proc").join(&pid).exists(), "server {pid} is left");
    }
    let left: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(left, ["out"]);
}
