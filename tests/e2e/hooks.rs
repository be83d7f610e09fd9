//! The operator's programs: run when they should be, told what they need, kept in the story, able to say no.

use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};
use vtorc_fleet::Flavor;

use crate::failover::tablet;
use crate::harness::{Cluster, THREE, padded, wait_for};

/// A program that adds its hook's name and what it was told to a file.
fn note(file: &Path, hook: &str) -> Value {
    let told = "{failureType} {failedAlias} {successorAlias} {isSuccessful}";
    json!([format!(
        "echo \"{hook} {told}\" $ORC_FAILURE_CLUSTER >> {}; echo noted",
        file.display()
    )])
}

fn with_notes(cluster: &Cluster, more: &[(&str, Value)]) -> std::path::PathBuf {
    let file = cluster.directory.path().join("notes");
    let hooks = [
        "OnFailureDetectionProcesses",
        "PreGracefulTakeoverProcesses",
        "PreFailoverProcesses",
        "PostMasterFailoverProcesses",
        "PostFailoverProcesses",
        "PostUnsuccessfulFailoverProcesses",
        "PostGracefulTakeoverProcesses",
    ];
    let mut changes: Vec<(&str, Value)> =
        hooks.iter().map(|hook| (*hook, note(&file, hook.trim_end_matches("Processes")))).collect();
    changes.extend_from_slice(more);
    cluster.configure(&changes);
    file
}

fn notes(file: &Path, last: &str) -> Vec<String> {
    let complete = wait_for(|| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let lines: Vec<String> = text.lines().map(ToOwned::to_owned).collect();
        lines.iter().any(|line| line.starts_with(last)).then_some(lines)
    });
    complete.unwrap_or_else(|| panic!("{last} was not run: {:?}", std::fs::read_to_string(file)))
}

#[test]
fn programs_run_around_failovers_and_are_told_of_them() {
    let mut cluster = Cluster::new(Flavor::MariaDb, "semi_sync", THREE);
    let file = with_notes(&cluster, &[]);
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    let elected = notes(&file, "PostFailover");
    assert!(elected.iter().any(|line| line.contains("ClusterHasNoPrimary")), "{elected:?}");
    std::fs::remove_file(&file).unwrap();

    cluster.server_mut(&first).kill();
    let second = cluster.healthy(&[&first]);
    let mut told = notes(&file, "PostFailover");
    // Nobody waits for the detection's; it may be anywhere.
    let detected = format!("OnFailureDetection DeadPrimary {first}  false ks/0");
    assert!(told.contains(&detected), "{told:?}");
    told.retain(|line| !line.starts_with("OnFailureDetection"));
    assert_eq!(
        told,
        [
            format!("PreFailover DeadPrimary {first}  false ks/0"),
            format!("PostMasterFailover DeadPrimary {first} {second} true ks/0"),
            format!("PostFailover DeadPrimary {first} {second} true ks/0"),
        ]
    );
    let story = cluster.daemon().recovery(|one| {
        one["finding"] == "DeadPrimary" && one["steps"].to_string().contains("PostFailover")
    });
    let step =
        story["steps"].as_array().unwrap().iter().find(|one| one["name"] == "PreFailoverProcesses");
    assert!(step.unwrap().to_string().contains("noted"), "{story:#}");
}

#[test]
fn a_program_before_a_planned_failover_can_say_no_and_a_slow_one_does() {
    let mut cluster = Cluster::new(Flavor::MariaDb, "semi_sync", THREE);
    let veto = json!(["echo not tonight; exit 7"]);
    let file = with_notes(&cluster, &[("PreGracefulTakeoverProcesses", veto)]);
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    std::fs::remove_file(&file).ok();
    let planned = |cluster: &Cluster| {
        cluster.daemon().post("/api/v1/shards/ks/0/planned-reparent", json!({}));
    };
    planned(&cluster);
    let refused = cluster.daemon().recovery(|one| one["outcome"] == "refused");
    let why = refused["outcome_text"].as_str().unwrap();
    assert!(
        why.contains("PreGracefulTakeoverProcesses vetoed it") && why.contains("not tonight"),
        "{why}"
    );
    let told = notes(&file, "PostUnsuccessfulFailover");
    assert!(!told.iter().any(|line| line.starts_with("PreFailover")), "{told:?}");
    let shard = cluster.daemon().shard();
    assert!(shard["primary"] == first && tablet(&shard, &first)["read_only"] == false);

    // Taken at once; one that does not end in time is a no as well.
    let slow = json!(["sleep 60"]);
    with_notes(&cluster, &[("PreFailoverProcesses", slow), ("HookTimeoutSeconds", json!(0.3))]);
    let before = cluster.daemon().recoveries().len();
    cluster.daemon().child.signal(Signal::HUP);
    let slow_one = wait_for(|| {
        planned(&cluster);
        let all = cluster.daemon().recoveries();
        let newest = all.iter().take(all.len() - before);
        let mut late = newest.filter(|one| one["outcome_text"].to_string().contains("time limit"));
        late.next().cloned()
    });
    assert_eq!(slow_one.expect("the slow one was not ended")["outcome"], "refused");
    assert_eq!(padded(cluster.daemon().shard()["primary"].as_str().unwrap()), first);
}

/// As its own documentation has them: the failover is done for a `DeadMaster`, whatever else is told beside that.
#[test]
fn programs_of_an_orchestrators_file_find_orchestrators_names() {
    let mut cluster = Cluster::new(Flavor::MySql, "semi_sync", THREE);
    let file = cluster.directory.path().join("notes");
    let tests = format!(
        "if [ \"{{failureType}}\" = DeadMaster ]; then echo \"dead {{failedAlias}} $VTORC_FAILURE_TYPE\" >> {}; fi",
        file.display()
    );
    cluster.configure(&[
        ("PostFailoverProcesses", json!([tests])),
        // Only Orchestrator has a use for it.
        ("BackendDB", json!("sqlite")),
    ]);
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    cluster.server_mut(&first).kill();
    cluster.healthy(&[&first]);
    let told = notes(&file, "dead");
    let expected = format!("dead {first} DeadPrimary");
    assert!(told.iter().any(|line| line.starts_with(&expected)), "{told:?}");
}
