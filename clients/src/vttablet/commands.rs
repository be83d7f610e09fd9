//! The commands of recoveries as calls to a vttablet. Each is safe to repeat.
//!
//! What concerns the server alone is done over a direct connection where one is configured: it is quicker, and
//! works while the vttablet is down. What touches the tablet's type, its term or its serving is the vttablet's.

use std::time::Duration;

use vtorc_core::gtid::GtidSet;
use vtorc_core::ids::TabletAlias;
use vtorc_core::ports::{
    CommandError, PromotionGrounds, RelayLog, ServerCommand, Sessions, SourceChange,
};
use vtorc_core::source_access::SourceAccess;
use vtorc_core::status::{ReceiverState, ReplicationStatus, ServerStatus};
use vtorc_core::tablet::{TabletAddress, TabletType};

use super::calls::CallError;
use super::tablet_command::{MISSING, TabletCommand};
use super::{delay, fence, stopping};
use crate::interface::replicationdata::StopReplicationMode;
use crate::interface::tabletmanagerdata as messages;
use crate::interface::topodata;
use crate::mysql::{
    CREATE_DATABASE, RETRIES, SETTINGS, SemiSyncNames, Thread, name_value, once_open, quoted,
    refusal, semi_sync, semi_sync_settings,
};

/// A vttablet lets its own clients finish for 3 s (`--shutdown-grace-period`). Who holds the server up after that came
/// to it past the vttablet. Half of the time that writes may be refused is waited for at most.
const CLIENTS_PATIENCE: Duration = Duration::from_secs(4);
/// A vttablet whose server refuses writes already is waited for so long.
const DEMOTE_PATIENCE: Duration = Duration::from_secs(2);
/// A vttablet that repoints its server throws the relay log away, so what was received is applied first. Where
/// that takes longer, only the receiver is repointed, which keeps it.
const DRAIN_RELAY_LOG: Duration = Duration::from_millis(300);
/// A new primary makes the journal's table by itself; it is looked for again after this.
const JOURNAL_RETRY: Duration = Duration::from_millis(50);

/// Runs a command and answers with the server's state afterwards.
pub(crate) async fn run(
    job: &TabletCommand<'_>,
    command: ServerCommand,
) -> Result<ServerStatus, CommandError> {
    if job.direct.is_some() {
        if matches!(command, ServerCommand::ReadStatus | ServerCommand::StopReceiver) {
            return job.directly_with_word(command).await;
        }
        if concerns_the_server_alone(&command) {
            return job.directly(command).await;
        }
    }
    job.check_identity().await?;
    match command {
        ServerCommand::ReadStatus => return job.status_with_journal().await,
        ServerCommand::StopReceiver => {
            job.stop_receiver().await?;
            return job.status_with_journal().await;
        }
        ServerCommand::Demote { sessions } => {
            job.demote(sessions).await?;
            return job.status_with_journal().await;
        }
        ServerCommand::WaitForPosition { target, timeout } => job.wait(&target, timeout).await?,
        ServerCommand::StartApplier => job.start(Thread::Applier).await?,
        ServerCommand::RestartReceiver => {
            job.stop(Thread::Receiver).await?;
            job.start(Thread::Receiver).await?;
        }
        ServerCommand::WriteNothing => {
            job.caller.run("write nothing", CREATE_DATABASE).await?;
        }
        ServerCommand::CommitEmpty { gtids } => job.commit_empty(&gtids).await?,
        ServerCommand::Promote { acks, grounds } => {
            job.promote(acks, &grounds).await?;
            return once_open(job.status().await);
        }
        ServerCommand::SetDelay { seconds } => delay::set_delay(job, seconds).await?,
        ServerCommand::FixPrimary { acks, grounds } => {
            job.fix_primary(acks, &grounds).await?;
            return once_open(job.status().await);
        }
        ServerCommand::Follow { source, semi_sync, change, relay_log, access } => {
            job.follow(&source, semi_sync, change, relay_log, access).await?;
        }
        ServerCommand::ChangeType { tablet_type } => job.change_type(tablet_type).await?,
        ServerCommand::WriteJournal { action, primary, position, time_created_ns } => {
            job.write_journal(action, &primary, &position, time_created_ns).await?;
        }
    }
    job.status().await
}

fn concerns_the_server_alone(command: &ServerCommand) -> bool {
    matches!(
        command,
        ServerCommand::WaitForPosition { .. }
            | ServerCommand::StartApplier
            | ServerCommand::SetDelay { .. }
            | ServerCommand::RestartReceiver
            | ServerCommand::WriteNothing
            | ServerCommand::CommitEmpty { .. }
    )
}

impl TabletCommand<'_> {
    async fn stop_receiver(&self) -> Result<(), CommandError> {
        let mut client = self.caller.client.clone();
        let stop_replication_mode = StopReplicationMode::Iothreadonly.into();
        let message = messages::StopReplicationAndGetStatusRequest { stop_replication_mode };
        let sent = client.stop_replication_and_get_status(self.caller.request(message));
        let answer = match self.caller.answer("StopReplicationAndGetStatus", sent).await {
            Ok(answer) => answer,
            // It follows nobody: there is nothing to stop.
            Err(CallError::Failed(why)) if why.contains("no replication status") => return Ok(()),
            Err(error) => return Err(error.into_command_error()),
        };
        // A vttablet leaves a receiver alone that is not healthy, and that one may connect again.
        let after = answer.status.and_then(|status| status.after);
        if after.is_none_or(|after| after.io_state != STOPPED) {
            self.stop(Thread::Receiver).await?;
        }
        Ok(())
    }

    pub(super) async fn stop(&self, thread: Thread) -> Result<(), CommandError> {
        if thread != Thread::Receiver {
            stopping::end_applier(self).await;
        }
        self.threads("STOP", thread).await
    }

    pub(super) async fn start(&self, thread: Thread) -> Result<(), CommandError> {
        self.threads("START", thread).await
    }

    async fn threads(&self, verb: &str, thread: Thread) -> Result<(), CommandError> {
        let words = thread.words();
        let what = format!("{verb}{words}");
        // The latter before 8.0.22.
        let (new, old) = (format!("{verb} REPLICA{words}"), format!("{verb} SLAVE{words}"));
        self.caller.run_either(&what, &new, &old).await
    }

    /// Refuses writes first where clients must not be told of what they wrote, then lets the vttablet stop
    /// serving. A server that refuses writes already is not opened again by a vttablet that gives up.
    async fn demote(&self, sessions: Sessions) -> Result<(), CommandError> {
        let force = sessions == Sessions::EndAll;
        let refuses = match (force, self.direct) {
            (true, Some(_)) => {
                self.directly(ServerCommand::Demote { sessions }).await?;
                true
            }
            (true, None) => {
                fence::refuse_writes(&self.caller).await?;
                true
            }
            (false, _) => false,
        };
        let mut client = self.caller.client.clone();
        let message = messages::DemotePrimaryRequest { force };
        let sent = client.demote_primary(self.caller.request(message));
        let answered = self.caller.answer("DemotePrimary", sent);
        let demoted = if refuses {
            let limited = tokio::time::timeout(DEMOTE_PATIENCE, answered).await;
            limited.unwrap_or(Err(CallError::TimedOut))
        } else {
            // What is left after that must do for ending them, and for the last position.
            let patience = CLIENTS_PATIENCE.min(self.caller.left() / 2);
            fence::ending_sessions_after(&self.caller, patience, answered).await
        };
        match demoted {
            Ok(_) => Ok(()),
            Err(_) if refuses => Ok(()),
            // Its vttablet is gone, the server is not.
            Err(CallError::Unreachable(_)) if self.direct.is_some() => {
                self.directly(ServerCommand::Demote { sessions }).await.map(|_| ())
            }
            Err(error) => Err(error.into_command_error()),
        }
    }

    async fn wait(&self, target: &GtidSet, patience: Duration) -> Result<(), CommandError> {
        if target.is_empty() {
            return Ok(());
        }
        let message = messages::WaitForPositionRequest { position: target.to_vitess_position() };
        let mut request = self.caller.request(message);
        request.set_timeout(patience.min(self.caller.left()));
        let mut client = self.caller.client.clone();
        let answered = self.caller.answer("WaitForPosition", client.wait_for_position(request));
        let waited = tokio::time::timeout(patience, answered).await;
        if let Ok(Ok(_)) = waited {
            return Ok(());
        }
        // Waiting may have failed for another reason than what was waited for.
        if self.status().await?.gtid_executed.contains(target) {
            return Ok(());
        }
        Err(CommandError::NotDone(match waited {
            Ok(Err(error)) if error != CallError::TimedOut => error.to_string(),
            _ => format!(
                "it did not apply everything of {} within {} ms",
                target.shown(),
                patience.as_millis()
            ),
        }))
    }

    /// What takes time comes first; then it is looked again whether the server is still the one that was chosen, as
    /// the last thing before it is opened. A promotion that failed may have gone half of its way.
    async fn promote(&self, acks: u32, grounds: &PromotionGrounds) -> Result<(), CommandError> {
        grounds.check(&self.status_with_journal().await?)?;
        self.set_source_up(acks).await?;
        stopping::end_applier(self).await;
        grounds.check(&self.status_with_journal().await?)?;
        let mut client = self.caller.client.clone();
        let message = messages::PromoteReplicaRequest { semi_sync: acks > 0 };
        let sent = client.promote_replica(self.caller.request(message));
        match self.caller.answer("PromoteReplica", sent).await {
            Ok(_) => Ok(()),
            Err(error) if error.last_word().is_some() && self.stays_closed().await => {
                Err(CommandError::NotDone(error.to_string()))
            }
            Err(error) => Err(error.into_error_of_opening()),
        }
    }

    /// Its server refuses writes, and its vttablet takes itself for no primary. Where the call has ended, nothing opens
    /// it any more. (Vitess, `rpc_replication.go`, `PromoteReplica`: the record says PRIMARY before writes are taken.)
    async fn stays_closed(&self) -> bool {
        let closed = self.status().await.is_ok_and(|status| !status.is_writable());
        closed && self.word().await.is_some_and(|word| word.is_no_primary())
    }

    /// How many acknowledgements to wait for, and never to fall back: a vttablet only switches semi-sync on.
    async fn set_source_up(&self, acks: u32) -> Result<(), CommandError> {
        if acks == 0 {
            return Ok(());
        }
        let variables = self.caller.rows(SETTINGS).await;
        let variables = name_value(&variables.map_err(CallError::into_command_error)?);
        let now = semi_sync(&variables, &variables);
        let Some(wanted) = semi_sync_settings(SemiSyncNames::of(&variables), &now, acks) else {
            return Err(CommandError::NotDone(
                "the durability policy wants semi-sync and the server has no plugin for it".into(),
            ));
        };
        for setting in wanted {
            self.caller.run("set semi-sync as a source", &format!("SET {setting}")).await?;
        }
        Ok(())
    }

    async fn fix_primary(&self, acks: u32, grounds: &PromotionGrounds) -> Result<(), CommandError> {
        let mut client = self.caller.client.clone();
        let status = self.status_with_journal().await?;
        grounds.check(&status)?;
        if let Some(replication) = status.replication {
            stopping::stop_receiver(self, &replication).await?;
            let message = messages::ResetReplicationParametersRequest {};
            let sent = client.reset_replication_parameters(self.caller.request(message));
            let answer = self.caller.answer("ResetReplicationParameters", sent).await;
            answer.map_err(CallError::into_command_error)?;
        }
        self.set_source_up(acks).await?;
        grounds.check(&self.status_with_journal().await?)?;
        let message = messages::UndoDemotePrimaryRequest { semi_sync: acks > 0 };
        let sent = client.undo_demote_primary(self.caller.request(message));
        let answer = self.caller.answer("UndoDemotePrimary", sent).await;
        answer.map_err(CallError::into_error_of_opening)?;
        // By that it becomes PRIMARY only where its record says so. (Vitess, `rpc_replication.go`,
        // `UndoDemotePrimary`.)
        if self.word().await.is_some_and(|word| word.is_no_primary()) {
            once_open(self.change_type(TabletType::Primary).await)?;
        }
        Ok(())
    }

    /// A vttablet that takes itself for the primary becomes a replica by this, but its server would go on
    /// taking writes: so those are refused first.
    async fn follow(
        &self,
        source: &TabletAddress,
        semi_sync: bool,
        change: SourceChange,
        relay_log: RelayLog,
        access: SourceAccess,
    ) -> Result<(), CommandError> {
        let status = self.status().await?;
        if status.is_writable() {
            self.demote(Sessions::EndAll).await?;
        }
        if source.vttablet.is_none() && self.direct.is_some() {
            // A vttablet asks the vttablet of whom it is to follow for its position.
            let source = source.clone();
            let follow = ServerCommand::Follow { source, semi_sync, change, relay_log, access };
            return self.directly(follow).await.map(|_| ());
        }
        let follows = status.replication.as_ref();
        if let Some(replication) = follows.filter(|one| self.is_sound(one, change)) {
            let anew = status.semi_sync.replica_enabled != semi_sync
                || (semi_sync && !status.semi_sync.replica_active);
            return self.start_replication(replication, semi_sync, anew).await;
        }
        if let Some(replication) = follows
            && !self.has_applied(&status, replication, relay_log).await?
        {
            return self.repoint_receiver(source, replication, semi_sync, relay_log).await;
        }
        let received = match follows {
            Some(replication) => stopping::stop_receiver(self, replication).await?,
            None => false,
        };
        let message = messages::SetReplicationSourceRequest {
            parent: Some(alias(&source.alias)),
            time_created_ns: 0,
            force_start_replication: true,
            wait_position: String::new(),
            semi_sync,
            heartbeat_interval: self.heartbeat_period.as_secs_f64(),
        };
        let mut client = self.caller.client.clone();
        let sent = client.set_replication_source(self.caller.request(message));
        match self.caller.answer("SetReplicationSource", sent).await {
            Ok(_) => Ok(()),
            // Its vttablet is gone, the server is not.
            Err(CallError::Unreachable(_)) if self.direct.is_some() => {
                let source = source.clone();
                let follow = ServerCommand::Follow { source, semi_sync, change, relay_log, access };
                self.directly(follow).await.map(|_| ())
            }
            Err(error) => {
                if received && matches!(error, CallError::Failed(_)) {
                    // It goes on as before, if it can; why it was refused is what matters.
                    let _ = self.start(Thread::Both).await;
                }
                Err(error.into_command_error())
            }
        }
    }

    /// It follows the right source and hears from it often enough: nothing but its threads and semi-sync is to be
    /// seen to. (A vttablet refuses to set the source of a replica with errant GTIDs, even to what it is.)
    fn is_sound(&self, replication: &ReplicationStatus, change: SourceChange) -> bool {
        let too_rare = replication.heartbeats_too_rare(self.heartbeat_period);
        change == SourceChange::Keep && too_rare == Some(false)
    }

    /// Starts what stands; with `anew` the receiver logs in again, to acknowledge as it is told.
    async fn start_replication(
        &self,
        replication: &ReplicationStatus,
        semi_sync: bool,
        anew: bool,
    ) -> Result<(), CommandError> {
        if anew && replication.receiver != ReceiverState::Stopped {
            self.stop(Thread::Receiver).await?;
        }
        let mut client = self.caller.client.clone();
        let message = messages::StartReplicationRequest { semi_sync };
        let sent = client.start_replication(self.caller.request(message));
        let answer = self.caller.answer("StartReplication", sent).await;
        answer.map(|_| ()).map_err(CallError::into_command_error)
    }

    /// Tells whether nothing is lost where the relay log is thrown away: everything that was received is applied, for
    /// which it waits a little, or may go. Refuses where it can neither be applied nor go.
    async fn has_applied(
        &self,
        status: &ServerStatus,
        replication: &ReplicationStatus,
        relay_log: RelayLog,
    ) -> Result<bool, CommandError> {
        let received = &replication.retrieved;
        if status.gtid_executed.contains(received) {
            return Ok(true);
        }
        if !replication.applier_running && replication.applier_error.is_some() {
            return match relay_log {
                // It is asked of the new source again.
                RelayLog::MayGo => Ok(true),
                RelayLog::MustStay => Err(refusal(status, THROWN_AWAY)),
            };
        }
        if replication.receiver != ReceiverState::Stopped {
            self.stop(Thread::Receiver).await?;
        }
        if !replication.applier_running {
            self.start(Thread::Applier).await?;
        }
        Ok(self.wait(received, DRAIN_RELAY_LOG).await.is_ok())
    }

    /// The applier goes on with what was received; the credentials stay as they are. Where that is refused, it
    /// receives as it did `before`.
    async fn repoint_receiver(
        &self,
        source: &TabletAddress,
        before: &ReplicationStatus,
        semi_sync: bool,
        relay_log: RelayLog,
    ) -> Result<(), CommandError> {
        let status = self.status().await?;
        let stands = status.replication.as_ref().is_none_or(|one| !one.applier_running);
        if stands && relay_log == RelayLog::MustStay && !status.unapplied().is_empty() {
            if before.receiver != ReceiverState::Stopped {
                self.start(Thread::Receiver).await?;
            }
            return Err(refusal(&status, THROWN_AWAY));
        }
        let rows = self.caller.rows(SETTINGS).await;
        let rows = rows.map_err(CallError::into_command_error)?;
        if let Some(replica) = SemiSyncNames::of(&name_value(&rows)).replica {
            let switch =
                format!("SET GLOBAL rpl_semi_sync_{replica}_enabled = {}", u8::from(semi_sync));
            self.caller.run("set semi-sync as a replica", &switch).await?;
        }
        let settings = |word: &str| {
            format!(
                "{word}_HOST = {}, {word}_PORT = {}, {word}_RETRY_COUNT = {RETRIES}, \
                 {word}_HEARTBEAT_PERIOD = {:.3}",
                quoted(&source.mysql.host),
                source.mysql.port,
                self.heartbeat_period.as_secs_f64()
            )
        };
        let what = format!("follow {}", source.mysql);
        let new = format!("CHANGE REPLICATION SOURCE TO {}", settings("SOURCE"));
        // Before 8.0.23.
        let old = format!("CHANGE MASTER TO {}", settings("MASTER"));
        self.caller.run_either(&what, &new, &old).await?;
        self.start(Thread::Receiver).await
    }

    async fn change_type(&self, tablet_type: TabletType) -> Result<(), CommandError> {
        let mut client = self.caller.client.clone();
        let tablet_type = tablet_type.number();
        let message = messages::ChangeTypeRequest { tablet_type, semi_sync: false };
        let sent = client.change_type(self.caller.request(message));
        let answer = self.caller.answer("ChangeType", sent).await;
        answer.map(|_| ()).map_err(CallError::into_command_error)
    }

    async fn commit_empty(&self, gtids: &[String]) -> Result<(), CommandError> {
        let mut statements = Vec::new();
        for gtid in gtids {
            statements.push(format!("SET SESSION gtid_next = {}", quoted(gtid)));
            statements.extend(["BEGIN".to_owned(), "COMMIT".to_owned()]);
        }
        statements.push("SET SESSION gtid_next = 'AUTOMATIC'".to_owned());
        self.caller.run_all("commit empty transactions", &statements).await
    }

    /// Waits for the table, which a new primary makes by itself, and for an acknowledgement.
    async fn write_journal(
        &self,
        action_name: String,
        primary: &TabletAlias,
        position: &GtidSet,
        time_created_ns: u64,
    ) -> Result<(), CommandError> {
        loop {
            let message = messages::PopulateReparentJournalRequest {
                time_created_ns: i64::try_from(time_created_ns).unwrap_or(i64::MAX),
                action_name: action_name.clone(),
                primary_alias: Some(alias(primary)),
                replication_position: position.to_vitess_position(),
            };
            let mut client = self.caller.client.clone();
            let sent = client.populate_reparent_journal(self.caller.request(message));
            match self.caller.answer("PopulateReparentJournal", sent).await {
                Ok(_) => return Ok(()),
                // Written by a first attempt whose answer was lost.
                Err(error) if error.is_refusal(&[DUPLICATE]) => return Ok(()),
                Err(error) if error.is_refusal(MISSING) => {
                    if self.caller.left() <= JOURNAL_RETRY {
                        return Err(error.into_command_error());
                    }
                    tokio::time::sleep(JOURNAL_RETRY).await;
                }
                Err(error) => return Err(error.into_command_error()),
            }
        }
    }
}

/// Why a repoint is refused.
const THROWN_AWAY: &str = "would throw it away, since its applier stands";

/// A thread that stands, in a vttablet's answer.
const STOPPED: i32 = 1;

/// `ER_DUP_ENTRY`.
const DUPLICATE: u16 = 1062;

fn alias(alias: &TabletAlias) -> topodata::TabletAlias {
    topodata::TabletAlias { cell: alias.cell.clone(), uid: alias.uid }
}
