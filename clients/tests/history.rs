//! The history store: what is kept comes back, also after a restart, and a damaged file is moved aside.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use vtorc_clients::history::SqliteHistory;
use vtorc_core::admission::Block;
use vtorc_core::analysis::FindingKind;
use vtorc_core::audit::{
    AuditEntry, FindingSpan, Outcome, RecoveryRecord, StepOutcome, StepRecord, Trigger,
};
use vtorc_core::ids::{KeyspaceShard, RecoveryId};
use vtorc_core::ports::{FindingsChange, HistoryPort, LockToken, RecoveryFilter};
use vtorc_core::recovery::kind::RecoveryKind;
use vtorc_core::recovery::step::StepKind;
use vtorc_core::time::Timestamp;

fn record(id: u64, shard: &str) -> RecoveryRecord {
    let at = Timestamp::from_millis(1_000 + id);
    let trigger = Trigger::Requested { by: "ann".into(), reason: "it's \"time\"".into() };
    let mut record = RecoveryRecord::begin(
        RecoveryId(id),
        shard.parse().unwrap(),
        RecoveryKind::PlannedReparent,
        trigger,
        None,
        at,
    );
    record.evidence = vec!["one".into(), "two".into()];
    record.new_primary = Some("zone1-7".parse().unwrap());
    record.write_outage_ms = Some(42);
    record.steps = vec![StepRecord {
        kind: StepKind::Promote,
        tablet: Some("zone1-7".parse().unwrap()),
        started_at: at,
        duration_ms: Some(5),
        outcome: Some(StepOutcome::Unknown("no answer".into())),
    }];
    record
}

fn ended(id: u64, shard: &str) -> RecoveryRecord {
    let outcome = Some(Outcome::Undone("as before".into()));
    RecoveryRecord { ended_at: Some(Timestamp::from_millis(9_000)), outcome, ..record(id, shard) }
}

fn all() -> RecoveryFilter {
    RecoveryFilter { limit: 100, ..RecoveryFilter::default() }
}

#[tokio::test]
async fn what_is_kept_survives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("history.sqlite3");
    let shard: KeyspaceShard = "ks/-80".parse().unwrap();
    let block = Block {
        unfinished: Some("zone1-7".parse().unwrap()),
        recovery: RecoveryId(1),
        since: Timestamp::from_millis(5),
        until: Timestamp::from_millis(3_600_005),
    };
    let first = SqliteHistory::open(Some(&file)).unwrap().history;
    assert_eq!(first.next_recovery_id().await.unwrap(), RecoveryId(1));
    first.save_recovery(ended(1, "ks/-80")).await.unwrap();
    first.save_recovery(record(2, "other/0")).await.unwrap();
    first.save_block(&shard, Some(block.clone())).await.unwrap();
    first.save_recoveries_enabled(false).await.unwrap();
    drop(first);
    let second = SqliteHistory::open(Some(&file)).unwrap();
    assert!(second.moved_aside.is_none());
    let second = second.history;
    // Number 2 was given from memory, and is not given again.
    assert_eq!(second.next_recovery_id().await.unwrap(), RecoveryId(3));
    assert_eq!(second.recovery(RecoveryId(1)).await.unwrap(), Some(ended(1, "ks/-80")));
    // What still ran when the process ended will not end any more.
    let interrupted = second.recovery(RecoveryId(2)).await.unwrap().unwrap();
    assert_eq!(interrupted.outcome, Some(Outcome::Interrupted));
    assert_eq!(second.block(&shard).await.unwrap(), Some(block));
    assert!(!second.recoveries_enabled().await.unwrap());
    second.save_block(&shard, None).await.unwrap();
    assert_eq!(second.block(&shard).await.unwrap(), None);
    let of_ks = RecoveryFilter { keyspace: Some("ks".into()), ..all() };
    assert_eq!(second.recoveries(of_ks).await.unwrap().len(), 1);
    let newest_first: Vec<u64> =
        second.recoveries(all()).await.unwrap().iter().map(|record| record.id.0).collect();
    assert_eq!(newest_first, [2, 1]);
}

#[tokio::test]
async fn a_lock_is_left_behind_by_a_process_that_ended_and_by_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("history.sqlite3");
    let shard: KeyspaceShard = "ks/-80".parse().unwrap();
    let token = |text: &str| Some(LockToken(text.into()));
    let first = SqliteHistory::open(Some(&file)).unwrap().history;
    first.save_lock(&shard, token("one")).await.unwrap();
    assert_eq!(first.lock_left_behind(&shard).await.unwrap(), None, "it holds it itself");
    drop(first);
    let second = SqliteHistory::open(Some(&file)).unwrap().history;
    assert_eq!(second.lock_left_behind(&shard).await.unwrap(), token("one"));
    assert_eq!(second.lock_left_behind(&"ks/80-".parse().unwrap()).await.unwrap(), None);
    second.save_lock(&shard, token("two")).await.unwrap();
    assert_eq!(second.lock_left_behind(&shard).await.unwrap(), None, "it holds it itself");
    second.save_lock(&shard, None).await.unwrap();
    drop(second);
    let third = SqliteHistory::open(Some(&file)).unwrap().history;
    assert_eq!(third.lock_left_behind(&shard).await.unwrap(), None);
}

#[tokio::test]
async fn a_damaged_file_is_moved_aside_and_a_new_one_begun() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("history.sqlite3");
    std::fs::write(&file, "this is no database, though it is long enough to look like one")
        .unwrap();
    let opened = SqliteHistory::open(Some(&file)).unwrap();
    let aside = opened.moved_aside.unwrap();
    assert!(std::fs::read_to_string(aside).unwrap().starts_with("this is no database"));
    opened.history.save_recovery(ended(1, "ks/0")).await.unwrap();
    assert_eq!(opened.history.recoveries(all()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn findings_and_acts_are_kept_over_time_and_removed_when_they_are_old() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("history.sqlite3");
    let at = Timestamp::from_millis;
    let finding = || (FindingKind::DeadPrimary, Some("zone1-7".parse().unwrap()));
    let change = |millis, appeared, gone| FindingsChange {
        shard: "ks/0".parse().unwrap(),
        at: at(millis),
        appeared,
        gone,
    };
    let first = SqliteHistory::open(Some(&file)).unwrap().history;
    first.save_findings(change(10, vec![finding()], vec![])).await.unwrap();
    first.save_findings(change(30, vec![], vec![finding()])).await.unwrap();
    first
        .save_findings(change(50, vec![finding(), (FindingKind::UnreadTopology, None)], vec![]))
        .await
        .unwrap();
    let times = |spans: &[FindingSpan]| -> Vec<(FindingKind, Timestamp, Option<Timestamp>)> {
        spans.iter().map(|span| (span.finding, span.since, span.until)).collect()
    };
    let standing = first.findings(all()).await.unwrap();
    let dead = |since, until: Option<u64>| (FindingKind::DeadPrimary, at(since), until.map(at));
    assert_eq!(times(&standing)[1..], [dead(50, None), dead(10, Some(30))]);
    let elsewhere = RecoveryFilter { keyspace: Some("other".into()), ..all() };
    assert!(first.findings(elsewhere).await.unwrap().is_empty());
    let act = AuditEntry {
        at: at(20),
        shard: Some("ks/0".parse().unwrap()),
        action: "acknowledge".into(),
        by: "ann".into(),
        comment: "seen".into(),
    };
    first.save_audit(act.clone()).await.unwrap();
    assert_eq!(first.audit(10).await.unwrap(), [act]);
    drop(first);
    // What stood when the process ended is found anew, if it still stands.
    let second = SqliteHistory::open(Some(&file)).unwrap().history;
    assert!(second.findings(all()).await.unwrap().iter().all(|span| span.until.is_some()));
    second.save_recovery(ended(1, "ks/0")).await.unwrap();
    second.purge(at(40)).await.unwrap();
    assert_eq!(second.findings(all()).await.unwrap().len(), 2);
    assert!(second.audit(10).await.unwrap().is_empty());
    assert_eq!(second.recoveries(all()).await.unwrap().len(), 1);
    second.purge(at(10_000)).await.unwrap();
    assert!(second.recoveries(all()).await.unwrap().is_empty());
}

/// A process whose history did not answer at its start begins with number 1.
#[tokio::test]
async fn a_number_from_memory_overwrites_no_older_recovery() {
    let history = SqliteHistory::open(None).unwrap().history;
    for id in 1..=3 {
        assert_eq!(history.next_recovery_id().await.unwrap(), RecoveryId(id));
        history.save_recovery(ended(id, "ks/-80")).await.unwrap();
    }
    let from_memory = |id| RecoveryRecord {
        started_at: Timestamp::from_millis(8_000 + id),
        id: RecoveryId(id),
        ..record(id, "ks/-80")
    };
    history.save_recovery(from_memory(1)).await.unwrap();
    // It is kept again when it has ended.
    let outcome = Some(Outcome::AlreadyFixed);
    let end =
        RecoveryRecord { ended_at: Some(Timestamp::from_millis(9_000)), outcome, ..from_memory(1) };
    history.save_recovery(end.clone()).await.unwrap();
    assert_eq!(history.recovery(RecoveryId(1)).await.unwrap(), Some(ended(1, "ks/-80")));
    let kept = history.recovery(RecoveryId(4)).await.unwrap();
    assert_eq!(kept, Some(RecoveryRecord { id: RecoveryId(4), ..end }));
    assert_eq!(history.recoveries(all()).await.unwrap().len(), 4);
    assert_eq!(history.next_recovery_id().await.unwrap(), RecoveryId(5));
}

/// Another version of vtorc may know other kinds of recovery: what it wrote must not hide the rest.
#[tokio::test]
async fn a_recovery_of_an_unknown_kind_hides_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("history.sqlite3");
    let first = SqliteHistory::open(Some(&file)).unwrap().history;
    for id in 1..=3 {
        assert_eq!(first.next_recovery_id().await.unwrap(), RecoveryId(id));
        first.save_recovery(ended(id, "ks/-80")).await.unwrap();
    }
    drop(first);
    let db = rusqlite::Connection::open(&file).unwrap();
    let changed =
        db.execute("UPDATE recoveries SET kind = 'of tomorrow' WHERE id = 2", []).unwrap();
    assert_eq!(changed, 1);
    drop(db);
    let second = SqliteHistory::open(Some(&file)).unwrap().history;
    let listed = second.recoveries(all()).await.unwrap();
    assert_eq!(listed, [ended(3, "ks/-80"), ended(1, "ks/-80")]);
    assert_eq!(second.recovery(RecoveryId(2)).await.unwrap(), None);
}
