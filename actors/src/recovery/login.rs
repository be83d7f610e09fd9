//! Finding out whom a server is to log in as at its source, and whether it could.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future;
use tokio::time::timeout;
use vtorc_core::ids::TabletAlias;
use vtorc_core::ports::CommandError;
use vtorc_core::recovery::login::{self, LoginRefused};
use vtorc_core::recovery::step::StepKind;
use vtorc_core::source_access::Login;
use vtorc_core::tablet::{Tablet, TabletAddress};

use super::job::{Job, Locked, Stopped};
use crate::locked::lock;

/// One server is asked for so long.
const PATIENCE: Duration = Duration::from_secs(2);
/// In an emergency somebody logs in at a candidate for so long at most.
const LOGIN_PATIENCE: Duration = Duration::from_millis(250);

impl Job {
    /// Whom a server is to log in as, asked once a recovery; none where the configuration or its channel says.
    pub(super) async fn login_for(&self, tablet: &Tablet) -> Result<Option<Login>, CommandError> {
        let known = self.known();
        if !login::needs_login(known, tablet, &self.settings) {
            return Ok(None);
        }
        if let Some(login) = lock(&self.logins).get(&tablet.alias) {
            return Ok(Some(login.clone()));
        }
        for one in login::who_may_know(known, tablet) {
            let Some(address) = one.address() else { continue };
            let address = TabletAddress { channel: known.channel_of(&one.alias), ..address };
            // The next one may know it.
            if let Ok(Some(login)) = self.services.mysql.login(&address, PATIENCE).await {
                lock(&self.logins).insert(tablet.alias.clone(), login.clone());
                return Ok(Some(login));
            }
        }
        match tablet.vttablet {
            Some(_) => Ok(None),
            None => Err(CommandError::NotDone(login::UNKNOWN.into())),
        }
    }
}

/// What came of trying to log in as replicas do.
pub(super) enum NoLogin {
    /// They could not.
    Refused(LoginRefused),
    /// It could not be tried.
    Unknown(CommandError),
}

impl Locked<'_> {
    /// Logs in at a server as its replicas would.
    pub(super) async fn try_login(
        &self,
        candidate: &Tablet,
        patience: Duration,
    ) -> Result<(), NoLogin> {
        let Some(address) = candidate.address() else { return Ok(()) };
        let channel = self.fresh.channel_of(&candidate.alias);
        let address = TabletAddress { channel, ..address };
        let trial = self.job.services.mysql.try_login(&address, patience).await;
        let trial = trial.map_err(NoLogin::Unknown)?;
        login::check(candidate, trial).map_err(NoLogin::Refused)
    }

    /// At whom of those who answer replicas could not log in. In an emergency that is tried while the receivers are
    /// stopped, and hardly waited for.
    pub(super) async fn refuse_replicas(&self) -> BTreeSet<TabletAlias> {
        if !login::is_tried(self.basis()) {
            return BTreeSet::new();
        }
        let states = self.fresh.tablets.values().filter(|state| state.reachability.is_valid());
        let candidates = states.filter(|state| state.tablet.tablet_type.is_promotable());
        let tries = candidates.map(|state| async {
            let tried = self.try_login(&state.tablet, LOGIN_PATIENCE);
            match timeout(LOGIN_PATIENCE, tried).await {
                Ok(Ok(())) => Some(Ok(())),
                Ok(Err(NoLogin::Refused(why))) => Some(Err(why)),
                Ok(Err(NoLogin::Unknown(_))) | Err(_) => None,
            }
        });
        let tried = future::join_all(tries).await.into_iter().flatten().collect();
        let told = login::refusals(tried).into_iter().map(|why| {
            self.job.decided(StepKind::TryLogin, Some(&why.at), why.to_string());
            why.at
        });
        told.collect()
    }

    /// Makes sure, before anything is stopped, that these can be told whom to log in as once they follow another.
    pub(super) async fn check_logins(&self, tablets: &[Tablet]) -> Result<(), Stopped> {
        for tablet in tablets {
            if let Err(error) = self.job.login_for(tablet).await {
                return Err(Stopped::Refused(format!("{}: {error}", tablet.alias)));
            }
        }
        Ok(())
    }
}
