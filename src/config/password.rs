//! Passwords of the configuration, and where they come from.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};
use vtorc_clients::mysql::Secret;

use super::option_file::client_option;
use crate::Failure;

/// A password as configured; `${NAME}` stands for an environment variable. Never shows when printed.
#[derive(Clone, Default, Deserialize, PartialEq)]
#[serde(transparent)]
pub(crate) struct Password(pub(super) String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "(empty)" } else { "(hidden)" })
    }
}

impl Serialize for Password {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{self:?}"))
    }
}

impl Password {
    /// The password itself.
    pub(super) fn resolve(&self, key: &str) -> Result<Secret, Failure> {
        let Some(name) = self.0.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) else {
            return Ok(Secret::new(self.0.clone()));
        };
        let unset =
            |_| Failure(format!("{key} names the environment variable {name}, which is not set"));
        std::env::var(name).map(Secret::new).map_err(unset)
    }
}

/// MySQL takes no longer one for a replication channel (error 1470). Manual, "CHANGE REPLICATION SOURCE TO".
const REPLICA_PASSWORD_MAX: usize = 32;

/// A password that no replica of MySQL could be told.
pub(super) fn warn_of_length(password: &Secret) -> Option<String> {
    let length = password.reveal().chars().count();
    (length > REPLICA_PASSWORD_MAX).then(|| {
        format!(
            "MySQLReplicaPassword has {length} characters; MySQL takes at most {REPLICA_PASSWORD_MAX} for a replica: \
             give the replica user a shorter one"
        )
    })
}

/// User and password, from the credentials file (`[client]` with `user=` and `password=`) where one is given.
pub(super) fn credentials(
    what: &str,
    (user, password): (&str, &Password),
    file: &str,
) -> Result<(String, Secret), Failure> {
    if file.is_empty() {
        return Ok((user.to_owned(), password.resolve(&format!("{what}Password"))?));
    }
    let failure =
        |error| Failure::while_doing(&format!("read {what}CredentialsConfigFile {file}"), error);
    let text = std::fs::read_to_string(file).map_err(failure)?;
    let value = |name: &str| client_option(&text, name);
    let user = value("user").unwrap_or_else(|| user.to_owned());
    let password = Password(value("password").unwrap_or_default());
    Ok((user, password.resolve(&format!("{what}CredentialsConfigFile"))?))
}
