//! What becomes of a tablet that has transactions which its primary lacks, where somebody asked for it or
//! the configuration wants it. Nothing is rewound.

use vtorc_core::analysis::errant_gtids;
use vtorc_core::gtid::GtidSet;
use vtorc_core::ports::{RelayLog, ServerCommand, SourceChange};
use vtorc_core::recovery::made_up;
use vtorc_core::recovery::planned;
use vtorc_core::recovery::promotion;
use vtorc_core::recovery::step::StepKind;
use vtorc_core::tablet::{Tablet, TabletType};

use super::job::{Locked, Stopped};
use crate::messages::{CureErrantRequest, ErrantCure};

impl Locked<'_> {
    /// Does what was asked for, if the tablet still has errant GTIDs.
    pub(super) async fn cure_errant(&self, request: &CureErrantRequest) -> Result<String, Stopped> {
        let tablet = self.tablet(&request.tablet)?.clone();
        let state = self.fresh.tablet(&tablet.alias);
        let primary = self.primary()?;
        let errant = state.and_then(|state| errant_gtids(state, primary));
        let Some(errant) = errant else {
            return Err(Stopped::Refused(format!(
                "{} has nothing that {} lacks, as far as it can be told",
                tablet.alias, primary.tablet.alias
            )));
        };
        self.check_lock().await?;
        match request.cure {
            ErrantCure::Drain => self.drain_errant(&tablet, &errant).await,
            ErrantCure::Inject => {
                // On a primary that does not serve, it would look as if that had what it lacks.
                let serves = planned::in_charge(self.basis());
                serves.map_err(Stopped::refused)?;
                self.inject(&primary.tablet, &errant).await
            }
        }
    }

    /// Takes the tablet out of service; it goes on following, and acknowledges no more.
    pub(super) async fn drain_errant(
        &self,
        tablet: &Tablet,
        errant: &GtidSet,
    ) -> Result<String, Stopped> {
        let done = self.set_aside(tablet, errant).await?;
        let primary = &self.primary()?.tablet;
        if promotion::follows(&self.fresh, tablet, primary)
            && let Some(source) = primary.address()
        {
            let (change, relay_log) = (SourceChange::Keep, RelayLog::MustStay);
            let follow = ServerCommand::follow(source, false, change, relay_log);
            let timeout = self.job.settings.command_timeout;
            // That it acknowledges is a finding of its own as long as it does.
            let _ = self.job.on(StepKind::StopAcknowledging, tablet, follow, timeout).await;
        }
        Ok(done)
    }

    async fn inject(&self, primary: &Tablet, errant: &GtidSet) -> Result<String, Stopped> {
        let gtids = made_up::empty_transactions(errant).map_err(Stopped::refused)?;
        let count = gtids.len();
        let commit = ServerCommand::CommitEmpty { gtids };
        let timeout = self.job.settings.command_timeout;
        match self.job.on(StepKind::CommitEmpty, primary, commit, timeout).await {
            Ok(_) => {
                Ok(format!("{count} empty transaction(s) on {}: {}", primary.alias, errant.shown()))
            }
            Err(error) => Err(Stopped::Failed(format!("{}: {error}", primary.alias))),
        }
    }

    /// Makes the record say that the tablet is out of service.
    pub(super) async fn set_aside(
        &self,
        tablet: &Tablet,
        errant: &GtidSet,
    ) -> Result<String, Stopped> {
        let (step, drained) = (StepKind::SetAside, TabletType::Drained);
        if tablet.vttablet.is_some() {
            // It publishes its type itself.
            let change = ServerCommand::ChangeType { tablet_type: drained };
            let changed =
                self.job.on(step, tablet, change, self.job.settings.command_timeout).await;
            changed.map_err(|error| Stopped::Failed(error.to_string()))?;
        } else {
            let set = self.job.services.topo.set_tablet_type(&tablet.alias, drained, None);
            self.write_record(step, &tablet.alias, set).await?;
        }
        Ok(format!("is DRAINED: it has transactions that the primary lacks: {}", errant.shown()))
    }
}
