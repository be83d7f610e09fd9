//! `vtorc ctl`: asks a running daemon, over its HTTP interface, to show or do something.

mod answer;
mod reach;
mod recovery;
mod table;
mod topology;

use std::path::Path;

use serde_json::{Value, json};

use crate::Failure;
use crate::cli::ctl::{CtlCommand, CtlOptions, Reparent};
use crate::print::say;

use self::answer::{list, number, pretty, text};
use self::reach::Reach;
use self::table::Columns;

/// Runs one command.
pub(crate) fn run(options: CtlOptions, config: Option<&Path>) -> Result<(), Failure> {
    let daemon = Daemon { reach: Reach::of(&options, config)?, json: options.json };
    daemon.run(options.command)
}

struct Daemon {
    reach: Reach,
    /// Print what the daemon answers, as it is.
    json: bool,
}

impl Daemon {
    fn run(&self, command: CtlCommand) -> Result<(), Failure> {
        match command {
            CtlCommand::Shards => self.shards(),
            CtlCommand::Show { shard } => self.show(&format!("/api/v1/shards/{shard}")),
            CtlCommand::Topology { shard } => self.topology(shard.as_deref()),
            CtlCommand::Check { shard } => {
                self.table(&format!("/api/v1/shards/{shard}/check"), CONCERNS)
            }
            CtlCommand::WhyNot { shard } => self.why_not(shard.as_deref()),
            CtlCommand::PlannedReparent(planned) if planned.dry_run => {
                self.preview(&planned.reparent)
            }
            CtlCommand::PlannedReparent(planned) => {
                self.reparent("planned-reparent", &planned.reparent)
            }
            CtlCommand::EmergencyReparent(reparent) => {
                self.reparent("emergency-reparent", &reparent)
            }
            CtlCommand::Forget { shard, tablet, reason } => {
                let body = json!({"tablet": tablet, "reason": reason});
                self.outcome(&format!("/api/v1/shards/{shard}/forget?wait=true"), body)
            }
            CtlCommand::Acknowledge { shard, comment } => {
                let path = format!("/api/v1/shards/{shard}/acknowledge");
                self.post(&path, json!({"comment": comment}))
            }
            CtlCommand::Recoveries => self.recoveries(),
            CtlCommand::Recovery { id } => self.recovery(id),
            CtlCommand::Findings => self.table("/api/v1/findings?limit=50", FINDINGS),
            CtlCommand::Audit => self.table("/api/v1/audit?limit=50", AUDIT),
            CtlCommand::Pause { comment } => {
                self.post("/api/v1/recoveries/disable", json!({"comment": comment}))
            }
            CtlCommand::Resume { comment } => {
                self.post("/api/v1/recoveries/enable", json!({"comment": comment}))
            }
            CtlCommand::Controls => self.table("/api/v1/controls", CONTROLS),
            CtlCommand::Set { control, comment, minutes } => {
                let seconds = minutes.map(|minutes| minutes.saturating_mul(60));
                let control = control.join(" ");
                let body = json!({"control": control, "comment": comment, "seconds": seconds});
                self.post("/api/v1/controls/set", body)
            }
            CtlCommand::Lift { control } => {
                self.post("/api/v1/controls/lift", json!({"control": control.join(" ")}))
            }
            CtlCommand::ErrantGtids { shard, drain, inject, reason } => {
                let cure = drain.map(|tablet| ("drain", tablet));
                let cure = cure.or(inject.map(|tablet| ("inject", tablet)));
                self.errant(shard.as_deref(), cure, &reason)
            }
        }
    }

    /// Shows errant GTIDs, or does something about those of one tablet.
    fn errant(
        &self,
        shard: Option<&str>,
        cure: Option<(&str, String)>,
        reason: &str,
    ) -> Result<(), Failure> {
        match (cure, shard) {
            (Some((cure, tablet)), Some(shard)) => {
                let body = json!({"tablet": tablet, "cure": cure, "reason": reason});
                self.outcome(&format!("/api/v1/shards/{shard}/errant-gtids?wait=true"), body)
            }
            (Some(_) | None, _) => self.errant_gtids(shard),
        }
    }

    fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Result<Value, Failure> {
        self.reach.ask(method, path, body.as_ref())
    }

    fn show(&self, path: &str) -> Result<(), Failure> {
        say(&pretty(&self.ask("GET", path, None)?));
        Ok(())
    }

    /// Shows a list as a table.
    fn table(&self, path: &str, columns: Columns) -> Result<(), Failure> {
        let answer = self.ask("GET", path, None)?;
        match self.json {
            true => say(&pretty(&answer)),
            false => table::print_list(&answer, columns),
        }
        Ok(())
    }

    fn topology(&self, shard: Option<&str>) -> Result<(), Failure> {
        let shards = self.some_shards(shard)?;
        match self.json {
            true => say(&pretty(&Value::Array(shards))),
            false => shards.iter().for_each(topology::print),
        }
        Ok(())
    }

    fn recovery(&self, id: u64) -> Result<(), Failure> {
        let answer = self.ask("GET", &format!("/api/v1/recoveries/{id}"), None)?;
        match self.json {
            true => say(&pretty(&answer)),
            false => recovery::print(&answer),
        }
        Ok(())
    }

    /// Says what a planned reparent would do.
    fn preview(&self, reparent: &Reparent) -> Result<(), Failure> {
        let path = format!("/api/v1/shards/{}/planned-reparent/preview", reparent.shard);
        let answer = self.ask("POST", &path, Some(reparent_body(reparent)))?;
        match self.json {
            true => say(&pretty(&answer)),
            false => recovery::print_preview(&answer)?,
        }
        Ok(())
    }

    fn post(&self, path: &str, body: Value) -> Result<(), Failure> {
        say(&pretty(&self.ask("POST", path, Some(body))?));
        Ok(())
    }

    fn reparent(&self, kind: &str, reparent: &Reparent) -> Result<(), Failure> {
        let path = format!("/api/v1/shards/{}/{kind}?wait=true", reparent.shard);
        self.outcome(&path, reparent_body(reparent))
    }

    /// Asks for a recovery and tells how it ended.
    fn outcome(&self, path: &str, body: Value) -> Result<(), Failure> {
        let answer = self.ask("POST", path, Some(body))?;
        say(&format!(
            "recovery {}: {}: {}",
            number(&answer, "id"),
            text(&answer, "outcome"),
            text(&answer, "text")
        ));
        Ok(())
    }

    fn shards(&self) -> Result<(), Failure> {
        for shard in list(Some(&self.ask("GET", "/api/v1/shards", None)?)) {
            let findings: Vec<&str> =
                list(shard.get("findings")).iter().map(|finding| text(finding, "code")).collect();
            let would = shard.get("if_primary_died").unwrap_or(&Value::Null);
            let would = match text(would, "outcome") {
                "promotes" => format!("would promote {}", text(would, "new_primary")),
                "refuses" => {
                    let each = would.get("not").and_then(Value::as_object).into_iter().flatten();
                    let each = each.map(|(alias, why)| {
                        format!("; {alias}: {}", why.as_str().unwrap_or_default())
                    });
                    let each: String = each.collect();
                    format!("no failover possible: {}{each}", text(would, "why"))
                }
                _ => "no primary that could die".into(),
            };
            let held = shard.get("held_back").and_then(Value::as_str);
            say(&format!(
                "{}/{}  primary {}  {}  {would}{}",
                text(shard, "keyspace"),
                text(shard, "shard"),
                shard.get("primary").and_then(Value::as_str).unwrap_or("none"),
                if findings.is_empty() { "in order".into() } else { findings.join(", ") },
                held.map(|why| format!("  not recovering: {why}")).unwrap_or_default(),
            ));
        }
        Ok(())
    }

    fn some_shards(&self, shard: Option<&str>) -> Result<Vec<Value>, Failure> {
        Ok(match shard {
            Some(shard) => vec![self.ask("GET", &format!("/api/v1/shards/{shard}"), None)?],
            None => list(Some(&self.ask("GET", "/api/v1/shards", None)?)).to_vec(),
        })
    }

    fn why_not(&self, shard: Option<&str>) -> Result<(), Failure> {
        let mut any = false;
        for shard in self.some_shards(shard)? {
            for one in list(shard.get("why_not")) {
                any = true;
                let until = one.get("until").and_then(Value::as_str);
                say(&format!(
                    "{}/{}  {} {}  {}: {}  ({} to {}, {} times)",
                    text(&shard, "keyspace"),
                    text(&shard, "shard"),
                    text(one, "finding"),
                    text(one, "tablet"),
                    text(one, "why"),
                    text(one, "reason"),
                    text(one, "since"),
                    until.unwrap_or("now"),
                    number(one, "count"),
                ));
            }
        }
        if !any {
            say("nothing was left undone");
        }
        Ok(())
    }

    fn recoveries(&self) -> Result<(), Failure> {
        for one in list(Some(&self.ask("GET", "/api/v1/recoveries?limit=20", None)?)) {
            say(&format!(
                "{}  {}  {}/{}  {}  {}: {}",
                number(one, "id"),
                text(one, "started_at"),
                text(one, "keyspace"),
                text(one, "shard"),
                text(one, "kind"),
                one.get("outcome").and_then(Value::as_str).unwrap_or("running"),
                text(one, "outcome_text"),
            ));
        }
        Ok(())
    }

    fn errant_gtids(&self, shard: Option<&str>) -> Result<(), Failure> {
        let shards = self.some_shards(shard)?;
        let (mut any, mut has_mariadb) = (false, false);
        for shard in &shards {
            for tablet in list(shard.get("tablets")) {
                has_mariadb |= tablet.get("flavor").and_then(Value::as_str) == Some("mariadb");
                let Some(errant) = tablet.get("errant_gtids").and_then(Value::as_str) else {
                    continue;
                };
                any = true;
                say(&format!(
                    "{}/{}  {} {}  {errant}",
                    text(shard, "keyspace"),
                    text(shard, "shard"),
                    text(tablet, "alias"),
                    text(tablet, "type"),
                ));
            }
        }
        say(if any { WAYS_OUT } else { "no replica has transactions that its primary lacks" });
        if has_mariadb {
            say(OF_MARIADBS);
        }
        Ok(())
    }
}

const CONCERNS: Columns = Columns {
    columns: &[
        ("SEVERITY", "severity"),
        ("CODE", "code"),
        ("TABLET", "tablet"),
        ("WHAT", "what"),
        ("CURE", "cure"),
    ],
    nothing: "nothing would go wrong, as far as that can be seen beforehand",
};
const FINDINGS: Columns = Columns {
    columns: &[
        ("SINCE", "since"),
        ("UNTIL", "until"),
        ("KEYSPACE", "keyspace"),
        ("SHARD", "shard"),
        ("FINDING", "code"),
        ("TABLET", "tablet"),
    ],
    nothing: "nothing was found yet",
};
const AUDIT: Columns = Columns {
    columns: &[
        ("AT", "at"),
        ("SHARD", "shard"),
        ("BY", "by"),
        ("ACT", "action"),
        ("COMMENT", "comment"),
    ],
    nothing: "nobody did anything yet",
};
const CONTROLS: Columns = Columns {
    columns: &[
        ("CONTROL", "control"),
        ("BY", "by"),
        ("SINCE", "since"),
        ("UNTIL", "until"),
        ("COMMENT", "comment"),
    ],
    nothing: "no control is set",
};
const OF_MARIADBS: &str =
    "Of a MariaDB, only what was written while vtorc watched is known: its position does not tell.";
const WAYS_OUT: &str = "Such a tablet is never promoted by itself. Three ways out:
  1. Clone it anew from the primary or a healthy replica: what it has of its own is gone. Until then, take it
     out of service: vtorc ctl errant-gtids KS/SHARD --drain TABLET
  2. If what it has is harmless, commit empty transactions with the same GTIDs on the primary: then they are no
     longer its own. vtorc ctl errant-gtids KS/SHARD --inject TABLET
  3. If what it has is wanted, write it again through the primary, and then do one of the above.";

fn reparent_body(reparent: &Reparent) -> Value {
    json!({
        "new_primary": reparent.new_primary,
        "avoid_primary": reparent.avoid_primary,
        "reason": reparent.reason,
        "ignore_block": reparent.ignore_block,
    })
}
