//! How a replica gets in at its source: as whom, and by TLS or without.

use std::fmt;

use crate::secret::Secret;
use crate::tablet::MysqlAddress;

/// What a server is told of it when it is to follow another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceAccess {
    /// Whom to log in as; where nobody is given, as the configuration or its channel says.
    pub login: Option<Login>,
    /// How to protect the connection; where nothing is given, as the configuration or its channel says.
    pub tls: Option<ChannelTls>,
}

/// What a channel says of TLS. Files are on the replica's own machine. What is empty is not said: a channel keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChannelTls {
    /// The source must speak TLS.
    pub required: bool,
    /// Certificate authorities to trust.
    pub ca_file: String,
    /// A directory of them.
    pub ca_path: String,
    /// The replica's certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
    /// The source's certificate must be for the host that is followed; none where nobody says.
    pub verifies_host: Option<bool>,
}

/// Whom a replica logs in as at its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The user.
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// How this user comes, where an operator's query says.
    pub tls: Option<ChannelTls>,
}

/// An attempt, from this machine, to log in where and as a replica would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginTrial {
    /// As whom.
    pub user: String,
    /// Where.
    pub at: MysqlAddress,
    /// Why it does not do for replication, if so.
    pub trouble: Option<LoginTrouble>,
}

/// Why a replica would not be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginTrouble {
    /// It is turned away, in the server's words.
    Refused(String),
    /// It is let in by TLS alone, which its channel does not use; the server's words without it.
    TlsOnly(String),
    /// It may log in, and may not replicate.
    LacksGrant,
}

impl LoginTrouble {
    /// What a person does about it.
    pub fn cure(&self) -> &'static str {
        match self {
            Self::Refused(_) | Self::LacksGrant => {
                "create the user there with REPLICATION SLAVE, or correct MySQLReplicaUser and its password; set \
                 TryReplicaLogin to false where that user may only come from the replicas' hosts"
            }
            Self::TlsOnly(_) => {
                "set MySQLReplicaUseSSL or MySQLReplicaSSLCAFile, or SOURCE_SSL = 1 (MariaDB: MASTER_SSL = 1) of the \
                 channels by hand"
            }
        }
    }
}

impl fmt::Display for LoginTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(words) => f.write_str(words),
            Self::TlsOnly(words) => {
                write!(f, "{words} (by TLS it is let in, and the channel does not use it)")
            }
            Self::LacksGrant => f.write_str("it lacks REPLICATION SLAVE"),
        }
    }
}
