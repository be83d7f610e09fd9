//! Probing: one persistent connection a tablet, one round trip a probe, one deadline around it all.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mysql_async::prelude::Queryable;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;
use vtorc_core::knowledge::health::ProbeFailure;
use vtorc_core::ports::{ProbeConnection, ProbePort};
use vtorc_core::status::ServerStatus;
use vtorc_core::tablet::{MysqlAddress, TabletAddress};

use super::access::MysqlAccess;
use super::dialect::{Dialect, MAY_BE_MISSING, Row};
use super::{errors, status};

/// Probes servers with the topology user.
pub struct AsyncProber {
    access: Arc<MysqlAccess>,
}

impl AsyncProber {
    /// A prober that logs in as configured.
    pub fn new(access: Arc<MysqlAccess>) -> Self {
        Self { access }
    }
}

#[async_trait]
impl ProbePort for AsyncProber {
    async fn connect(
        &self,
        address: &TabletAddress,
        deadline: Duration,
    ) -> Result<Box<dyn ProbeConnection>, ProbeFailure> {
        let work = async {
            let mut conn = self.open(&address.mysql).await.map_err(failure)?;
            let dialect = detect(&mut conn).await.map_err(failure)?;
            Ok(LiveConnection { conn: Some(conn), dialect, address: address.mysql.clone() })
        };
        let limit = deadline.min(self.access.connect_timeout);
        match timeout(limit, work).await {
            Ok(Ok(connection)) => Ok(Box::new(connection)),
            Ok(Err(failure)) => Err(failure),
            Err(_elapsed) => Err(silent(&address.mysql).await),
        }
    }
}

impl AsyncProber {
    async fn open(&self, address: &MysqlAddress) -> Result<mysql_async::Conn, mysql_async::Error> {
        let opts = self.access.async_opts(address);
        let mixed = self.access.tls.as_ref().is_some_and(|tls| tls.mixed);
        match mysql_async::Conn::new(opts.clone()).await {
            Err(mysql_async::Error::Driver(
                mysql_async::DriverError::NoClientSslFlagFromServer,
            )) if mixed => mysql_async::Conn::new(opts.ssl_opts(None)).await,
            other => other,
        }
    }
}

/// A connection that exists only between successes.
struct LiveConnection {
    conn: Option<mysql_async::Conn>,
    dialect: Dialect,
    address: MysqlAddress,
}

#[async_trait]
impl ProbeConnection for LiveConnection {
    async fn probe(&mut self, deadline: Duration) -> Result<ServerStatus, ProbeFailure> {
        let mut conn = self.take()?;
        let dialect = self.dialect;
        let statements = dialect.probe_statements().join(";");
        let answers = match timeout(deadline, ask(&mut conn, &statements)).await {
            Ok(Ok(answers)) => answers,
            Ok(Err(error)) => return Err(failure(error)),
            Err(_elapsed) => return Err(silent(&self.address).await),
        };
        self.conn = Some(conn);
        status::read(dialect, &answers, "").map_err(ProbeFailure::Garbled)
    }

    async fn listen(&mut self, pause: Duration, grace: Duration) -> Result<(), ProbeFailure> {
        let mut conn = self.take()?;
        let question = format!("DO SLEEP({:.3})", pause.as_secs_f64());
        match timeout(pause + grace, conn.query_drop(question)).await {
            Ok(Ok(())) => {
                self.conn = Some(conn);
                Ok(())
            }
            Ok(Err(error)) => Err(failure(error)),
            Err(_elapsed) => Err(ProbeFailure::TimedOut),
        }
    }
}

/// A server is pinged for so long.
const PING_PATIENCE: Duration = Duration::from_millis(200);

/// What a server's silence is: one that still greets whoever connects is there, and too busy to answer.
async fn silent(address: &MysqlAddress) -> ProbeFailure {
    let greeting = async {
        let mut stream =
            tokio::net::TcpStream::connect((address.host.as_str(), address.port)).await?;
        stream.read_u8().await
    };
    match timeout(PING_PATIENCE, greeting).await {
        Ok(Ok(_)) => ProbeFailure::Overloaded,
        Ok(Err(_)) | Err(_) => ProbeFailure::TimedOut,
    }
}

impl LiveConnection {
    fn take(&mut self) -> Result<mysql_async::Conn, ProbeFailure> {
        self.conn.take().ok_or_else(|| ProbeFailure::Refused("the connection was given up".into()))
    }
}

async fn detect(conn: &mut mysql_async::Conn) -> Result<Dialect, mysql_async::Error> {
    let version: Option<String> = conn.query_first("SELECT VERSION()").await?;
    match Dialect::of_version(&version.unwrap_or_default()) {
        Some(dialect) => Ok(dialect),
        None => Dialect::of_trial(conn.query_drop(Dialect::TRIAL).await, code),
    }
}

fn code(error: &mysql_async::Error) -> Option<u16> {
    if let mysql_async::Error::Server(error) = error { Some(error.code) } else { None }
}

async fn ask(
    conn: &mut mysql_async::Conn,
    statements: &str,
) -> Result<status::Answers, mysql_async::Error> {
    let mut result = conn.query_iter(statements).await?;
    let mut answers = Vec::new();
    // The last ones may be refused (no grant on performance_schema, no such table); the ones before them count.
    while !result.is_empty() {
        match result.collect::<mysql_async::Row>().await {
            Ok(rows) => answers.push(rows.into_iter().map(text_row).collect()),
            Err(mysql_async::Error::Server(_)) if answers.len() >= MAY_BE_MISSING => break,
            Err(error) => return Err(error),
        }
    }
    Ok(answers)
}

fn text_row(row: mysql_async::Row) -> Row {
    let names: Vec<String> =
        row.columns_ref().iter().map(|column| column.name_str().to_ascii_lowercase()).collect();
    names.into_iter().zip(row.unwrap().into_iter().map(text_value)).collect()
}

fn text_value(value: mysql_async::Value) -> Option<String> {
    match value {
        mysql_async::Value::NULL => None,
        mysql_async::Value::Bytes(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        mysql_async::Value::Int(number) => Some(number.to_string()),
        mysql_async::Value::UInt(number) => Some(number.to_string()),
        mysql_async::Value::Float(number) => Some(number.to_string()),
        mysql_async::Value::Double(number) => Some(number.to_string()),
        mysql_async::Value::Date(..) | mysql_async::Value::Time(..) => Some(value.as_sql(false)),
    }
}

/// What an error says of the server that was probed.
#[expect(clippy::wildcard_enum_match_arm, reason = "the enum is not ours and may grow")]
fn failure(error: mysql_async::Error) -> ProbeFailure {
    match error {
        mysql_async::Error::Server(error) => errors::turned_away(error.code, &error.message),
        mysql_async::Error::Io(error) => ProbeFailure::Refused(error.to_string()),
        mysql_async::Error::Driver(error) => match error {
            mysql_async::DriverError::ConnectionClosed => {
                ProbeFailure::Refused("the connection was closed".into())
            }
            other => ProbeFailure::TurnedAway(other.to_string()),
        },
        other @ (mysql_async::Error::Other(_) | mysql_async::Error::Url(_)) => {
            ProbeFailure::Garbled(other.to_string())
        }
    }
}
