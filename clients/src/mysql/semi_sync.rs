//! Semi-synchronous replication, switched on and off on both sides.
//!
//! A source never falls back to asynchronous by itself: what was acknowledged to a client is on another server.

use vtorc_core::ports::CommandError;
use vtorc_core::status::{SemiSyncStatus, ServerStatus};

use super::dialect::{SemiSyncNames, name_value};
use super::session::Session;

/// Waits so long for acknowledgements that it never degrades to asynchronous by itself (one year).
const SEMI_SYNC_TIMEOUT_MS: u64 = 365 * 24 * 3600 * 1000;

/// Sets how many acknowledgements the server waits for when it is a source; only what differs.
pub(crate) fn set_source_semi_sync(
    session: &mut Session<'_>,
    status: &ServerStatus,
    acks: u32,
) -> Result<(), CommandError> {
    let now = &status.semi_sync;
    if acks == 0 && !now.source_enabled {
        return Ok(());
    }
    let names = semi_sync_names(session)?;
    let (Some(mut wanted), Some(source)) = (semi_sync_settings(names, now, acks), names.source)
    else {
        return Err(CommandError::NotDone(
            "the durability policy wants semi-sync and the server has no plugin for it".into(),
        ));
    };
    if now.source_enabled != (acks > 0) {
        wanted.push(format!("GLOBAL rpl_semi_sync_{source}_enabled = {}", u8::from(acks > 0)));
    }
    if wanted.is_empty() {
        return Ok(());
    }
    session.run("set semi-sync as a source", &format!("SET {}", wanted.join(", ")))
}

/// What a source must have set, beside being switched on, to wait for so many acknowledgements and never fall
/// back; only what differs. None where the server has no plugin.
pub(crate) fn semi_sync_settings(
    names: SemiSyncNames,
    now: &SemiSyncStatus,
    acks: u32,
) -> Option<Vec<String>> {
    let source = names.source?;
    let mut wanted = Vec::new();
    if acks == 0 {
        return Some(wanted);
    }
    if let Some(variable) = names.wait_count_variable().filter(|_| now.wait_count != acks) {
        wanted.push(format!("GLOBAL {variable} = {acks}"));
    }
    if let Some(variable) = names.wait_alone_variable().filter(|_| now.falls_back_alone) {
        wanted.push(format!("GLOBAL {variable} = ON"));
    }
    if now.timeout_ms != SEMI_SYNC_TIMEOUT_MS {
        wanted.push(format!("GLOBAL rpl_semi_sync_{source}_timeout = {SEMI_SYNC_TIMEOUT_MS}"));
    }
    Some(wanted)
}

/// Sets whether the server acknowledges when it is a replica; answers whether that was a change.
pub(crate) fn set_replica_semi_sync(
    session: &mut Session<'_>,
    status: &ServerStatus,
    enabled: bool,
) -> Result<bool, CommandError> {
    if status.semi_sync.replica_enabled == enabled {
        return Ok(false);
    }
    let names = semi_sync_names(session)?;
    // Without the plugin there is nothing to switch; that is a finding of its own, not a reason to fail.
    let Some(replica) = names.replica else { return Ok(false) };
    let statement = format!("SET GLOBAL rpl_semi_sync_{replica}_enabled = {}", u8::from(enabled));
    session.run("set semi-sync as a replica", &statement)?;
    Ok(true)
}

pub(crate) fn semi_sync_names(session: &mut Session<'_>) -> Result<SemiSyncNames, CommandError> {
    let [_, _, variables, ..] = session.dialect.probe_statements();
    let rows = session.rows("read the semi-sync variables", variables)?;
    Ok(SemiSyncNames::of(&name_value(&rows)))
}
