//! vtorc's commands as sequences of statements, in the order in which the real client sends them.

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep};
use vtorc_core::gtid::GtidSet;
use vtorc_core::ids::ServerIdentity;
use vtorc_core::ports::{
    CommandError, MysqlPort, PromotionGrounds, RelayLog, ServerCommand, Sessions, SourceChange,
};
use vtorc_core::preflight::Inspection;
use vtorc_core::source_access::{Login, LoginTrial, LoginTrouble};
use vtorc_core::status::{Flavor, ReceiverState, ServerStatus};
use vtorc_core::tablet::{TabletAddress, TabletType};

use super::{LOOK, Line, Outside, Sent, mariadb};
use crate::server::Server;
use crate::statements::{Reply, Statement};
use crate::vttablet::{Call, What};

/// What was received is applied so long before a vttablet repoints its server.
const DRAIN_RELAY_LOG: Duration = Duration::from_millis(300);

/// An answer that is read later than this waited for its reader.
const AWAKE: Duration = Duration::from_secs(1);

#[async_trait]
impl MysqlPort for Outside {
    async fn run(
        &self,
        address: &TabletAddress,
        command: ServerCommand,
        deadline: Duration,
    ) -> Result<ServerStatus, CommandError> {
        if matches!(command, ServerCommand::Promote { .. } | ServerCommand::FixPrimary { .. }) {
            self.check_lock_held(Server::number_of(&address.mysql));
        }
        let line = self.connect(&address.mysql, Instant::now() + deadline).await?;
        line.check_identity(address.server.as_ref()).await?;
        let promotes =
            matches!(command, ServerCommand::Promote { .. } | ServerCommand::FixPrimary { .. });
        match address.vttablet {
            Some(_) => line.run_by_vttablet(command).await?,
            None => line.run(command).await?,
        }
        let asked = Instant::now();
        let status = line.status().await?;
        // Also where it took writes before.
        if promotes && status.is_writable() {
            line.took_writes(asked.elapsed() < AWAKE);
        }
        Ok(status)
    }

    async fn login(&self, _: &TabletAddress, _: Duration) -> Result<Option<Login>, CommandError> {
        Ok(None)
    }

    async fn try_login(
        &self,
        address: &TabletAddress,
        deadline: Duration,
    ) -> Result<Option<LoginTrial>, CommandError> {
        let line = self.connect(&address.mysql, Instant::now() + deadline).await?;
        let refuses = self.universe.lock().server(line.server).ills.refuses_replicas;
        let trouble = refuses.then(|| LoginTrouble::Refused("no such user".into()));
        Ok(Some(LoginTrial { user: "vt_repl".into(), at: address.mysql.clone(), trouble }))
    }

    async fn inspect(&self, _: &TabletAddress, _: Duration) -> Result<Inspection, CommandError> {
        Err(CommandError::NotDone("simulated servers have no settings to look at".into()))
    }
}

impl Line {
    fn is_mariadb(&self) -> bool {
        self.outside.universe.lock().server(self.server).mariadb
    }

    async fn check_identity(&self, meant: Option<&ServerIdentity>) -> Result<(), CommandError> {
        let Some(meant) = meant else { return Ok(()) };
        CommandError::check_meant(meant, &self.status().await?.identity())
    }

    async fn run(&self, command: ServerCommand) -> Result<(), CommandError> {
        match command {
            ServerCommand::ReadStatus => Ok(()),
            ServerCommand::StopReceiver => self.stop_receiver().await,
            ServerCommand::Demote { sessions } => self.demote(sessions).await,
            ServerCommand::WaitForPosition { target, timeout } => self.wait(&target, timeout).await,
            ServerCommand::StartApplier => {
                if self.is_mariadb() {
                    mariadb::check_start(&self.status().await?)?;
                }
                self.tell(Statement::StartApplier).await
            }
            ServerCommand::Promote { acks, grounds } => self.promote(acks, &grounds).await,
            ServerCommand::SetDelay { seconds } => self.tell(Statement::Delay(seconds)).await,
            ServerCommand::FixPrimary { acks, grounds } => self.fix_primary(acks, &grounds).await,
            ServerCommand::Follow { source, semi_sync, change, relay_log, access: _ } => {
                let source = Server::number_of(&source.mysql);
                self.follow(source, semi_sync, (change, relay_log)).await
            }
            ServerCommand::RestartReceiver => {
                if self.is_mariadb() {
                    mariadb::check_restart(&self.status().await?)?;
                }
                self.tell(Statement::StopReceiver).await?;
                self.tell(Statement::StartReplication).await
            }
            ServerCommand::CommitEmpty { .. } | ServerCommand::ChangeType { .. } => {
                Err(CommandError::NotDone("nobody asks for it in a simulation".into()))
            }
            ServerCommand::WriteNothing => self.write(false).await,
            ServerCommand::WriteJournal { .. } => self.write(true).await,
        }
    }

    /// What touches the tablet's type, its term or its serving is its vttablet's; the rest is SQL that it runs.
    async fn run_by_vttablet(&self, command: ServerCommand) -> Result<(), CommandError> {
        match command {
            ServerCommand::Promote { acks, grounds } => {
                grounds.check(&self.status().await?)?;
                match self.call(What::Promote { acks }).await {
                    // It may have gone half of its way.
                    Err(CommandError::NotDone(why)) => Err(CommandError::Unknown(why)),
                    other => other,
                }
            }
            ServerCommand::FixPrimary { acks, grounds } => {
                grounds.check(&self.status().await?)?;
                self.fix_primary_by_vttablet(acks).await
            }
            ServerCommand::Follow { source, semi_sync, change, relay_log, access: _ } => {
                let source = Server::number_of(&source.mysql);
                self.follow_by_vttablet(source, semi_sync, (change, relay_log)).await
            }
            ServerCommand::ChangeType { tablet_type } => {
                self.call(What::ChangeType(tablet_type)).await
            }
            ServerCommand::Demote { sessions: Sessions::EndAfter(_) } => {
                self.demote_in_peace().await
            }
            other @ (ServerCommand::ReadStatus
            | ServerCommand::StopReceiver
            | ServerCommand::Demote { sessions: Sessions::EndAll }
            | ServerCommand::WaitForPosition { .. }
            | ServerCommand::StartApplier
            | ServerCommand::SetDelay { .. }
            | ServerCommand::RestartReceiver
            | ServerCommand::WriteNothing
            | ServerCommand::CommitEmpty { .. }
            | ServerCommand::WriteJournal { .. }) => self.run(other).await,
        }
    }

    async fn call(&self, what: What) -> Result<(), CommandError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let now = self.outside.universe.lock().now;
        let until = now + u64::try_from(left.as_millis()).unwrap_or(0);
        self.tell(Statement::Call(Call { what, until })).await
    }

    /// A vttablet that takes itself for a replica, as its record does, is told that it is the primary.
    async fn fix_primary_by_vttablet(&self, acks: u32) -> Result<(), CommandError> {
        self.call(What::UndoDemote { acks }).await?;
        let word = self.status().await?.vttablet;
        if word.is_some_and(|word| word.is_no_primary()) {
            self.call(What::ChangeType(TabletType::Primary)).await?;
        }
        Ok(())
    }

    /// Without force nobody's session is ended.
    async fn demote_in_peace(&self) -> Result<(), CommandError> {
        while !matches!(self.ask(Statement::RefuseWrites).await?, Reply::Done) {
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// What was received and is not applied soon is kept: then only the receiver is repointed.
    async fn follow_by_vttablet(
        &self,
        source: u8,
        semi_sync: bool,
        (change, relay_log): (SourceChange, RelayLog),
    ) -> Result<(), CommandError> {
        let status = self.status().await?;
        if status.is_writable() {
            self.demote(Sessions::EndAll).await?;
        }
        let kept = status.replication.as_ref().filter(|_| change == SourceChange::Keep);
        if let Some(replication) = kept {
            let anew = status.semi_sync.replica_enabled != semi_sync
                || (semi_sync && !status.semi_sync.replica_active);
            if anew && replication.receiver != ReceiverState::Stopped {
                self.tell(Statement::StopReceiver).await?;
            }
            return self.call(What::Start { semi_sync }).await;
        }
        let repoints = status.replication.as_ref().filter(|_| change == SourceChange::Repoint);
        if let Some(replication) = repoints
            && !status.gtid_executed.contains(&replication.retrieved)
        {
            if replication.receiver != ReceiverState::Stopped {
                self.tell(Statement::StopReceiver).await?;
            }
            if !replication.applier_running {
                self.tell(Statement::StartApplier).await?;
            }
            if self.wait(&replication.retrieved, DRAIN_RELAY_LOG).await.is_err() {
                keeps_relay_log(&status, relay_log)?;
                self.tell(Statement::Acknowledge(semi_sync)).await?;
                self.tell(Statement::ChangeSource(source)).await?;
                return self.tell(Statement::StartReplication).await;
            }
        }
        self.call(What::SetSource { source, semi_sync, change }).await
    }

    pub(super) async fn tell(&self, statement: Statement) -> Result<(), CommandError> {
        let mut sent = Sent::First;
        loop {
            match self.send(statement.clone(), sent).await? {
                Reply::Refused(why) => return Err(CommandError::NotDone(why.to_owned())),
                Reply::Status(_) | Reply::Done | Reply::Begun(_) => return Ok(()),
                Reply::Pending => sleep(LOOK).await,
            }
            sent = Sent::Waits;
        }
    }

    pub(super) async fn status(&self) -> Result<ServerStatus, CommandError> {
        match self.ask(Statement::Status).await? {
            Reply::Status(status) => Ok(*status),
            Reply::Done | Reply::Pending | Reply::Begun(_) | Reply::Refused(_) => {
                Err(CommandError::NotDone("no status".into()))
            }
        }
    }

    async fn stop_receiver(&self) -> Result<(), CommandError> {
        let status = self.status().await?;
        let stopped = ReceiverState::Stopped;
        if status.replication.is_some_and(|replication| replication.receiver != stopped) {
            self.tell(Statement::StopReceiver).await?;
        }
        Ok(())
    }

    /// Asks until nothing is in flight any more; ends sessions when patience is over.
    async fn demote(&self, sessions: Sessions) -> Result<(), CommandError> {
        let patience = match sessions {
            Sessions::EndAll => Duration::ZERO,
            Sessions::EndAfter(ms) => Duration::from_millis(ms),
        };
        let started = Instant::now();
        loop {
            match self.ask(Statement::RefuseWrites).await? {
                Reply::Done => return Ok(()),
                Reply::Status(_) | Reply::Pending | Reply::Begun(_) | Reply::Refused(_) => {}
            }
            if started.elapsed() >= patience {
                self.tell(Statement::EndSessions).await?;
            }
            sleep(LOOK).await;
        }
    }

    pub(super) async fn wait(
        &self,
        target: &GtidSet,
        timeout: Duration,
    ) -> Result<(), CommandError> {
        let started = Instant::now();
        loop {
            if self.status().await?.gtid_executed.contains(target) {
                return Ok(());
            }
            if started.elapsed() >= timeout {
                return Err(CommandError::NotDone("it did not apply everything".into()));
            }
            sleep(LOOK).await;
        }
    }

    async fn promote(&self, acks: u32, grounds: &PromotionGrounds) -> Result<(), CommandError> {
        let status = self.status().await?;
        grounds.check(&status)?;
        if status.replication.is_some() {
            self.tell(Statement::StopReplication).await?;
        }
        self.set_semi_sync(&status, acks, false).await?;
        if status.read_only {
            self.tell(Statement::TakeWrites).await?;
        }
        if status.replication.is_some() {
            self.tell(Statement::ForgetSource).await?;
        }
        Ok(())
    }

    async fn fix_primary(&self, acks: u32, grounds: &PromotionGrounds) -> Result<(), CommandError> {
        let status = self.status().await?;
        grounds.check(&status)?;
        if status.replication.is_some() {
            self.tell(Statement::StopReplication).await?;
            self.tell(Statement::ForgetSource).await?;
        }
        self.set_semi_sync(&status, acks, false).await?;
        if status.read_only {
            grounds.check(&self.status().await?)?;
            self.tell(Statement::TakeWrites).await?;
        }
        Ok(())
    }

    async fn set_semi_sync(
        &self,
        status: &ServerStatus,
        acks_wanted: u32,
        acknowledges: bool,
    ) -> Result<(), CommandError> {
        let now = &status.semi_sync;
        let differs = now.source_enabled != (acks_wanted > 0)
            || (acks_wanted > 0 && now.wait_count != acks_wanted);
        if differs {
            self.tell(Statement::WaitForAcks(acks_wanted)).await?;
        }
        if now.replica_enabled != acknowledges {
            self.tell(Statement::Acknowledge(acknowledges)).await?;
        }
        Ok(())
    }

    async fn follow(
        &self,
        source: u8,
        semi_sync: bool,
        (change, relay_log): (SourceChange, RelayLog),
    ) -> Result<(), CommandError> {
        let status = self.status().await?;
        if status.is_writable() {
            self.demote(Sessions::EndAll).await?;
        } else if !status.super_read_only {
            self.demote(Sessions::EndAfter(1000)).await?;
        }
        let acks_changed = status.semi_sync.replica_enabled != semi_sync;
        if acks_changed {
            self.tell(Statement::Acknowledge(semi_sync)).await?;
        }
        let anew = acks_changed || (semi_sync && !status.semi_sync.replica_active);
        match (change, status.flavor) {
            (SourceChange::Repoint, Flavor::MariaDb) => {
                self.repoint_mariadb(source, &status, relay_log).await?;
            }
            (SourceChange::Repoint, Flavor::MySql) => {
                self.repoint(source, &status, relay_log).await?;
            }
            (SourceChange::Keep, Flavor::MariaDb) => {
                self.resume_mariadb(&status, anew, relay_log).await?;
            }
            (SourceChange::Keep, Flavor::MySql) => {
                if anew {
                    self.tell(Statement::StopReceiver).await?;
                }
                self.tell(Statement::StartReplication).await?;
            }
        }
        if status.semi_sync.source_enabled {
            self.tell(Statement::WaitForAcks(0)).await?;
        }
        Ok(())
    }

    /// With its applier running a server keeps its relay log; what must stay is not given up where that cannot run.
    async fn repoint(
        &self,
        source: u8,
        status: &ServerStatus,
        relay_log: RelayLog,
    ) -> Result<(), CommandError> {
        if let Some(replication) = &status.replication {
            if replication.receiver != ReceiverState::Stopped {
                self.tell(Statement::StopReceiver).await?;
            }
            if !replication.applier_running && replication.applier_error.is_none() {
                self.tell(Statement::StartApplier).await?;
            }
            keeps_relay_log(status, relay_log)?;
        }
        self.tell(Statement::ChangeSource(source)).await?;
        self.tell(Statement::StartReplication).await
    }

    async fn write(&self, is_journal: bool) -> Result<(), CommandError> {
        let txn = loop {
            match self.ask(Statement::OwnWrite { is_journal }).await? {
                Reply::Begun(txn) => break txn,
                Reply::Refused(why) => return Err(CommandError::NotDone(why.to_owned())),
                Reply::Status(_) | Reply::Done => return Ok(()),
                Reply::Pending => sleep(LOOK).await,
            }
        };
        loop {
            match self.ask(Statement::IsCommitted(txn)).await? {
                Reply::Pending => sleep(LOOK).await,
                Reply::Status(_) | Reply::Done | Reply::Begun(_) | Reply::Refused(_) => {
                    return Ok(());
                }
            }
        }
    }
}

/// What was received and must stay is not given up where its applier stands.
fn keeps_relay_log(status: &ServerStatus, relay_log: RelayLog) -> Result<(), CommandError> {
    let replication = status.replication.as_ref();
    let stands = replication.is_some_and(|channel| channel.applier_error.is_some());
    if stands && relay_log == RelayLog::MustStay && !status.unapplied().is_empty() {
        let why = "it would throw away what it received, since its applier stands";
        return Err(CommandError::NotDone(why.into()));
    }
    Ok(())
}
