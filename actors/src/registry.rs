//! Knows which shards there are, starts and stops their actors, and hands requests to them.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use actix::{Actor, Addr, AsyncContext, Context, Handler, Supervised};
use slog::{error, info, warn};
use vtorc_core::audit::AuditEntry;
use vtorc_core::controls::Entry;
use vtorc_core::ids::KeyspaceShard;
use vtorc_core::ports::TopoError;
use vtorc_core::topology::{ShardTopology, TopologyRead, merge};

use crate::guardian::start_guarded;
use crate::messages::{
    Acknowledge, Audit, ChangeControl, ControlChange, Rejected, RequestRecovery,
    ShardTopologyWasRead, SwitchRecoveries, TopologyWasRead,
};
use crate::meters::{Meter, Who};
use crate::services::Services;
use crate::shard::{Retire, ShardActor};
use crate::topo_watcher::TopoWatcher;

/// The root of the actors.
pub struct Registry {
    services: Services,
    topologies: BTreeMap<KeyspaceShard, ShardTopology>,
    shards: BTreeMap<KeyspaceShard, (Addr<ShardActor>, Arc<Meter>)>,
    watcher: Option<Addr<TopoWatcher>>,
    meter: Arc<Meter>,
}

impl Registry {
    /// Starts everything.
    pub fn launch(services: Services) -> Addr<Self> {
        let meter = services.board.meters.register(Who::Registry);
        let registry = Self {
            services,
            topologies: BTreeMap::new(),
            shards: BTreeMap::new(),
            watcher: None,
            meter: meter.clone(),
        };
        start_guarded(registry, 64, meter)
    }

    fn take(&mut self, read: TopologyRead) {
        let troubles = read.troubles().into_iter();
        self.note_system(None, troubles.map(|(what, why)| (what, why.to_string())).collect());
        self.topologies = merge(&self.topologies, read);
        let gone: Vec<KeyspaceShard> = self
            .shards
            .keys()
            .filter(|name| !self.topologies.contains_key(name))
            .cloned()
            .collect();
        for name in gone {
            warn!(self.services.log, "shard no longer watched: its record is gone"; "shard" => %name);
            if let Some((actor, _)) = self.shards.remove(&name) {
                actor.do_send(Retire);
            }
        }
        for (name, topology) in self.topologies.clone() {
            let services = &self.services;
            let (actor, meter) = self.shards.entry(name.clone()).or_insert_with(|| {
                info!(services.log, "watching"; "keyspace" => &name.keyspace, "shard" => &name.shard);
                ShardActor::launch(services, topology.clone())
            });
            meter.sent();
            actor.do_send(ShardTopologyWasRead(topology));
        }
        self.services.board.set_ready();
    }

    fn note_system(&self, error: Option<&TopoError>, warnings: BTreeMap<String, String>) {
        let before = self.services.board.system();
        let text = error.map(ToString::to_string);
        if text != before.topology_error {
            match &text {
                Some(why) => {
                    error!(self.services.log, "the topology cannot be read: no recovery is possible \
                    until it answers"; "error" => why)
                }
                None => info!(self.services.log, "the topology can be read again"),
            }
        }
        for (what, why) in
            warnings.iter().filter(|(what, _)| !before.topology_warnings.contains_key(*what))
        {
            warn!(self.services.log, "part of the topology cannot be read; what was known of it stays in use";
                "what" => what, "error" => why);
        }
        self.services.board.update_system(|system| {
            system.topology_read |= text.is_none();
            system.topology_error = text;
            if error.is_none() {
                system.topology_warnings = warnings;
            }
        });
    }
}

impl Actor for Registry {
    type Context = Context<Self>;
    fn started(&mut self, context: &mut Context<Self>) {
        if self.watcher.is_none() {
            let meter = self.services.board.meters.register(Who::TopoWatcher);
            let watcher = TopoWatcher::new(
                self.services.clone(),
                context.address().recipient(),
                meter.clone(),
            );
            self.watcher = Some(start_guarded(watcher, 8, meter));
        }
    }
}

impl Supervised for Registry {}

impl Handler<TopologyWasRead> for Registry {
    type Result = ();
    fn handle(&mut self, TopologyWasRead(read): TopologyWasRead, _: &mut Context<Self>) {
        self.meter.handled();
        match read {
            Ok(read) => self.take(read),
            Err(error) => self.note_system(Some(&error), BTreeMap::new()),
        }
        self.meter.doing(format!("{} shards", self.shards.len()));
    }
}

impl Handler<RequestRecovery> for Registry {
    type Result = ();
    fn handle(&mut self, message: RequestRecovery, _: &mut Context<Self>) {
        self.meter.handled();
        match self.shards.get(&message.shard) {
            Some((actor, meter)) => {
                meter.sent();
                actor.do_send(message);
            }
            None => {
                let rejected = Rejected::UnknownShard(message.shard);
                // The asker may have gone away.
                let _ = message.reply.send(Err(rejected));
            }
        }
    }
}

impl Handler<Acknowledge> for Registry {
    type Result = ();
    fn handle(&mut self, message: Acknowledge, _: &mut Context<Self>) {
        self.meter.handled();
        let entry = AuditEntry {
            at: self.services.clock.now(),
            shard: Some(message.shard.clone()),
            action: "acknowledge".into(),
            by: message.by.clone(),
            comment: message.comment.clone(),
        };
        match self.shards.get(&message.shard) {
            Some((actor, meter)) => {
                self.services.auditor.do_send(Audit::Act(entry));
                meter.sent();
                actor.do_send(message);
            }
            None => {
                let rejected = Rejected::UnknownShard(message.shard);
                let _ = message.reply.send(Err(rejected));
            }
        }
    }
}

impl Handler<ChangeControl> for Registry {
    type Result = ();
    fn handle(&mut self, message: ChangeControl, _: &mut Context<Self>) {
        self.meter.handled();
        let ChangeControl { control, change, by, comment, kept } = message;
        let now = self.services.clock.now();
        let mut controls = self.services.controls();
        controls.prune(now);
        let action = match change {
            ControlChange::Set(lasts) => {
                let until = lasts.map(|lasts| now + lasts);
                let entry = Entry { by: by.clone(), comment: comment.clone(), since: now, until };
                controls.set(control.clone(), entry);
                format!("set {control}")
            }
            ControlChange::Lift => {
                controls.lift(&control);
                format!("lift {control}")
            }
        };
        warn!(self.services.log, "control changed"; "action" => &action, "by" => &by,
            "comment" => &comment);
        *self.services.controls.write().unwrap_or_else(PoisonError::into_inner) = controls.clone();
        self.services.auditor.do_send(Audit::Controls(controls, kept));
        let entry = AuditEntry { at: now, shard: None, action, by, comment };
        self.services.auditor.do_send(Audit::Act(entry));
        self.services.board.system_changed();
    }
}

impl Handler<SwitchRecoveries> for Registry {
    type Result = ();
    fn handle(&mut self, message: SwitchRecoveries, _: &mut Context<Self>) {
        self.meter.handled();
        let SwitchRecoveries { enabled, by, comment, kept } = message;
        warn!(self.services.log, "automatic recoveries switched"; "enabled" => enabled, "by" => &by,
            "comment" => &comment);
        self.services.recoveries_enabled.store(enabled, Ordering::Release);
        self.services.auditor.do_send(Audit::RecoveriesEnabled(enabled, kept));
        let action = if enabled { "enable-recoveries" } else { "disable-recoveries" };
        let at = self.services.clock.now();
        let entry = AuditEntry { at, shard: None, action: action.into(), by, comment };
        self.services.auditor.do_send(Audit::Act(entry));
        self.services.board.system_changed();
    }
}
