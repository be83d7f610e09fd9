//! How a replica gets in at its source: as whom, and by TLS or without.

use crate::secret::Secret;

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
