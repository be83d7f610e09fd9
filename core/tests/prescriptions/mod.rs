//! What recoveries prescribe for a shard described in words.

use std::collections::HashMap;
use std::fmt::Write;

use vtorc_core::analysis::FindingKind;
use vtorc_core::ids::TabletAlias;
use vtorc_core::knowledge::observe::TabletState;
use vtorc_core::knowledge::snapshot::ShardSnapshot;
use vtorc_core::ports::{RelayLog, SourceChange};
use vtorc_core::recovery::care::{self, Care};
use vtorc_core::recovery::planned::{self, Move};
use vtorc_core::recovery::promotion::{self, Turn};
use vtorc_core::recovery::reparent::{self, Halted};
use vtorc_core::recovery::replica::{self, Case, Cure};
use vtorc_core::recovery::request::{ReparentKind, ReparentRequest};
use vtorc_core::reparent::choice::{Basis, Wish};
use vtorc_core::reparent::election::NOBODY;
use vtorc_core::tablet::Tablet;
use vtorc_core::testkit;

use crate::short;

type Args = HashMap<String, Vec<String>>;

fn alias(args: &Args, name: &str) -> Option<TabletAlias> {
    let value = args.get(name).and_then(|values| values.first());
    value.map(|text| text.parse().unwrap())
}

fn names(tablets: impl IntoIterator<Item = TabletAlias>) -> String {
    let names: Vec<String> = tablets.into_iter().map(|one| one.to_string()).collect();
    if names.is_empty() { "nobody".into() } else { names.join(", ") }
}

/// Where a planned reparent goes, with `want=` and `avoid=`.
pub(crate) fn plan(snapshot: &ShardSnapshot, args: &Args) -> String {
    let request = ReparentRequest {
        kind: ReparentKind::Planned,
        new_primary: alias(args, "want"),
        avoid_primary: alias(args, "avoid"),
        reason: "test".into(),
        by: "ann".into(),
        ignore_block: false,
        seen: vtorc_core::recovery::request::SeenPrimary::NotLooked,
    };
    let settings = testkit::settings();
    let policy = *snapshot.durability.as_ref().unwrap();
    let basis = Basis { snapshot, policy, settings: &settings, refused: &NOBODY };
    let force = planned::may_use_force(basis);
    let mut text = String::new();
    match planned::plan(basis, &request) {
        Ok(Move::NotNeeded) => text.push_str("nothing to do\n"),
        Ok(Move::From(primary, election)) => {
            let first = election.first().unwrap();
            writeln!(text, "from {} to {}", primary.alias, first.alias).unwrap();
            for one in election.others(&first.alias) {
                writeln!(text, "not {}: {}", one.alias, short(&one.reason.to_string())).unwrap();
            }
        }
        Err(why) => writeln!(text, "refused: {}", short(&why.to_string())).unwrap(),
    }
    let may = if force { "may" } else { "may not" };
    writeln!(text, "by force it {may} be replaced").unwrap();
    text
}

/// What becomes of the tablet `at=` with the finding `for=`, once it refuses writes.
pub(crate) fn cure(snapshot: &ShardSnapshot, args: &Args) -> String {
    let at = alias(args, "at").unwrap();
    let finding = args.get("for").and_then(|values| values.first()).unwrap();
    let finding = FindingKind::from_name(finding).unwrap();
    let state = snapshot.tablet(&at).unwrap();
    match care::care(finding, &state.tablet, snapshot) {
        Care::NothingMore => return "nothing more\n".into(),
        Care::Drain(errant) => return format!("drained for {}\n", short(&errant.to_string())),
        Care::Gone => return "it has no errant GTIDs any more\n".into(),
        Care::Cure => {}
    }
    let primary = snapshot.primary_in_sight().unwrap();
    let case = Case {
        finding,
        policy: *snapshot.durability.as_ref().unwrap(),
        primary: &primary.tablet,
        source: primary.valid_status().unwrap(),
        tablet: &state.tablet,
        status: state.valid_status().unwrap(),
        snapshot,
    };
    match replica::cure(case) {
        Cure::SetAside(errant) => format!("set aside for {}\n", short(&errant.to_string())),
        Cure::KeepFor(lost) => format!("kept for {}\n", short(&lost.to_string())),
        Cure::Follow { semi_sync, change, relay_log } => {
            let acks = if semi_sync { "acknowledges" } else { "does not acknowledge" };
            let change = match change {
                SourceChange::Keep => "keeps its source",
                SourceChange::Repoint => "is pointed at the primary",
            };
            let log = match relay_log {
                RelayLog::MayGo => "its relay log may go",
                RelayLog::MustStay => "its relay log must stay",
            };
            format!("{change}; {acks}; {log}\n")
        }
    }
}

/// Who is stopped for a reparent, and when each follows `winner=`; or whom all follow already.
pub(crate) fn reparented(snapshot: &ShardSnapshot, args: &Args) -> String {
    let policy = *snapshot.durability.as_ref().unwrap();
    if snapshot.primary().is_none() {
        match reparent::adoption(snapshot, policy) {
            Ok(Some(tree)) => {
                let followers = names(tree.followers.into_iter().map(|one| one.alias));
                return format!("{} is followed already, by {followers}\n", tree.primary.alias);
            }
            Err(why) => return format!("refused: {why}\n"),
            Ok(None) => {}
        }
    }
    let settings = testkit::settings();
    let basis = Basis { snapshot, policy, settings: &settings, refused: &NOBODY };
    let (wanted, avoid) = (alias(args, "want"), alias(args, "avoid"));
    let wish = Wish { wanted: wanted.as_ref(), avoid: avoid.as_ref() };
    if let Err(why) = reparent::check_worthwhile(basis, wish) {
        return format!("refused before anybody is stopped: {}\n", short(&why.to_string()));
    }
    let stopped = reparent::to_be_stopped(snapshot);
    let winner = alias(args, "winner");
    let when = |turn: Turn| {
        let others = stopped.iter().filter(|one| Some(&one.alias) != winner.as_ref());
        let of_turn = others.filter(|one| promotion::turn(snapshot, &one.alias) == turn);
        names(of_turn.map(|one: &Tablet| one.alias.clone()))
    };
    let refuses = |one: &&Tablet| {
        let status = snapshot.tablet(&one.alias).and_then(TabletState::valid_status);
        status.is_some_and(|status| reparent::halted(one, status) == Halted::MustRefuseWrites)
    };
    let demoted = names(stopped.iter().filter(refuses).map(|one| one.alias.clone()));
    let all = names(stopped.iter().map(|one| one.alias.clone()));
    let (now, later) = (when(Turn::AtOnce), when(Turn::Afterwards));
    format!(
        "stopped: {all}\ndemoted: {demoted}\nrepointed at once: {now}\nrepointed afterwards: {later}\n"
    )
}
