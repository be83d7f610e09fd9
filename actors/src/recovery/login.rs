//! Finding out whom a server is to log in as at its source.

use std::time::Duration;

use vtorc_core::ports::CommandError;
use vtorc_core::recovery::login;
use vtorc_core::source_access::Login;
use vtorc_core::tablet::{Tablet, TabletAddress};

use super::job::{Job, Locked, Stopped};
use crate::locked::lock;

/// One server is asked for so long.
const PATIENCE: Duration = Duration::from_secs(2);

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

impl Locked<'_> {
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
