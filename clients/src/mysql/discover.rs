//! Walking a replication tree: who is this server, and who follows it.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use vtorc_core::ports::CommandError;
use vtorc_core::status::ServerStatus;
use vtorc_core::tablet::MysqlAddress;

use super::access::MysqlAccess;
use super::session::Session;

/// A server and those that follow it.
#[derive(Clone, Debug)]
pub struct Discovered {
    /// Where it was reached.
    pub address: MysqlAddress,
    /// Its state.
    pub status: ServerStatus,
    /// Where its replicas say that they can be reached (`report_host`, else where they connect from).
    pub replicas: Vec<MysqlAddress>,
}

/// Asks one server.
pub fn discover(
    access: &MysqlAccess,
    address: &MysqlAddress,
    patience: Duration,
) -> Result<Discovered, CommandError> {
    let never = AtomicBool::new(false);
    let mut session = Session::open(access, address, Instant::now() + patience, &never)?;
    let status = session.status()?;
    let statement =
        format!("SHOW {}", if session.is_mariadb() { "SLAVE HOSTS" } else { "REPLICAS" });
    let rows = session.rows("list the replicas", &statement);
    let rows = match rows {
        Err(CommandError::NotDone(_)) => session.rows("list the replicas", "SHOW SLAVE HOSTS")?,
        other => other?,
    };
    let replicas = rows.iter().filter_map(|row| {
        let host = row.get("host").cloned().flatten().filter(|host| !host.is_empty());
        let port = row.get("port").cloned().flatten().and_then(|port| port.parse().ok());
        // Without report_host a replica can only be on the same host as far as anybody can tell.
        Some(MysqlAddress { host: host.unwrap_or_else(|| address.host.clone()), port: port? })
    });
    Ok(Discovered { address: address.clone(), replicas: replicas.collect(), status })
}
