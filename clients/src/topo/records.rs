//! Vitess's topology records (package `topodata`), with the fields that vtorc reads or writes.
//!
//! Other fields must survive a rewrite, also those that did not exist when this was written: [`Record`]
//! keeps the bytes of every field it does not know and writes them back.

use std::collections::BTreeMap;

use prost::Message;
use prost::bytes::Buf;
use prost::encoding::{DecodeContext, WireType, decode_key, skip_field};
use vtorc_core::ports::TopoError;

/// `vttime.Time`
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Time {
    #[prost(int64, tag = "1")]
    pub(crate) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(crate) nanoseconds: i32,
}

/// `topodata.TabletAlias`
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TabletAlias {
    #[prost(string, tag = "1")]
    pub(crate) cell: String,
    #[prost(uint32, tag = "2")]
    pub(crate) uid: u32,
}

/// `topodata.KeyRange`
#[derive(Clone, PartialEq, Message)]
pub(crate) struct KeyRange {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) start: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) end: Vec<u8>,
}

/// `topodata.Tablet`
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Tablet {
    #[prost(message, optional, tag = "1")]
    pub(crate) alias: Option<TabletAlias>,
    #[prost(string, tag = "2")]
    pub(crate) hostname: String,
    #[prost(btree_map = "string, int32", tag = "4")]
    pub(crate) port_map: BTreeMap<String, i32>,
    #[prost(string, tag = "5")]
    pub(crate) keyspace: String,
    #[prost(string, tag = "6")]
    pub(crate) shard: String,
    #[prost(message, optional, tag = "7")]
    pub(crate) key_range: Option<KeyRange>,
    #[prost(int32, tag = "8")]
    pub(crate) tablet_type: i32,
    #[prost(btree_map = "string, string", tag = "10")]
    pub(crate) tags: BTreeMap<String, String>,
    #[prost(string, tag = "12")]
    pub(crate) mysql_hostname: String,
    #[prost(int32, tag = "13")]
    pub(crate) mysql_port: i32,
    #[prost(message, optional, tag = "14")]
    pub(crate) primary_term_start_time: Option<Time>,
    #[prost(message, optional, tag = "18")]
    pub(crate) tablet_shutdown_time: Option<Time>,
}

/// `topodata.Shard`
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Shard {
    #[prost(message, optional, tag = "1")]
    pub(crate) primary_alias: Option<TabletAlias>,
    #[prost(message, optional, tag = "2")]
    pub(crate) key_range: Option<KeyRange>,
    #[prost(bool, tag = "7")]
    pub(crate) is_primary_serving: bool,
    #[prost(message, optional, tag = "8")]
    pub(crate) primary_term_start_time: Option<Time>,
    #[prost(message, optional, tag = "9")]
    pub(crate) vtorc_state: Option<VtorcState>,
}

/// `vtorcdata.Keyspace` and `vtorcdata.Shard`, which are alike
#[derive(Clone, PartialEq, Message)]
pub(crate) struct VtorcState {
    #[prost(bool, tag = "1")]
    pub(crate) disable_emergency_reparent: bool,
}

/// `topodata.Keyspace`
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Keyspace {
    #[prost(string, tag = "8")]
    pub(crate) durability_policy: String,
    #[prost(string, tag = "10")]
    pub(crate) sidecar_db_name: String,
    #[prost(message, optional, tag = "11")]
    pub(crate) vtorc_state: Option<VtorcState>,
}

/// `topodata.ShardReplication`
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ShardReplication {
    #[prost(message, repeated, tag = "1")]
    pub(crate) nodes: Vec<ShardReplicationNode>,
}

/// `topodata.ShardReplication.Node`
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ShardReplicationNode {
    #[prost(message, optional, tag = "1")]
    pub(crate) tablet_alias: Option<TabletAlias>,
}

/// `topodata.CellInfo`: where a cell's own topology is.
#[derive(Clone, PartialEq, Message)]
pub struct CellInfo {
    /// Address of the cell's topology server.
    #[prost(string, tag = "1")]
    pub server_address: String,
    /// Root of the cell's records there.
    #[prost(string, tag = "2")]
    pub root: String,
}

/// A message, and the bytes of the fields that it does not declare.
#[derive(Default)]
pub(crate) struct Record<M> {
    pub(crate) message: M,
    unknown: Vec<u8>,
}

/// Says which fields a message declares, so that the rest can be kept.
pub(crate) trait Declared: Message + Default {
    const TAGS: &'static [u32];
}

impl Declared for Tablet {
    const TAGS: &'static [u32] = &[1, 2, 4, 5, 6, 7, 8, 10, 12, 13, 14, 18];
}
impl Declared for Shard {
    const TAGS: &'static [u32] = &[1, 2, 7, 8, 9];
}
impl Declared for Keyspace {
    const TAGS: &'static [u32] = &[8, 10, 11];
}
impl Declared for ShardReplication {
    const TAGS: &'static [u32] = &[1];
}
impl Declared for CellInfo {
    const TAGS: &'static [u32] = &[1, 2];
}

impl<M: Declared> Record<M> {
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let message = M::decode(bytes).map_err(|error| error.to_string())?;
        let unknown = unknown_fields(bytes, M::TAGS).map_err(|error| error.to_string())?;
        Ok(Self { message, unknown })
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = self.message.encode_to_vec();
        bytes.extend_from_slice(&self.unknown);
        bytes
    }
}

/// Reads a record; the error names its path.
pub(crate) fn decode<M: Declared>(path: &str, bytes: &[u8]) -> Result<Record<M>, TopoError> {
    Record::decode(bytes).map_err(|why| TopoError::Damaged { path: path.to_owned(), why })
}

fn unknown_fields(bytes: &[u8], declared: &[u32]) -> Result<Vec<u8>, prost::DecodeError> {
    let mut rest = bytes;
    let mut unknown = Vec::new();
    while rest.has_remaining() {
        let before = rest;
        let (tag, wire_type): (u32, WireType) = decode_key(&mut rest)?;
        skip_field(wire_type, tag, &mut rest, DecodeContext::default())?;
        if !declared.contains(&tag) {
            let length = before.len() - rest.len();
            unknown.extend_from_slice(before.get(..length).unwrap_or_default());
        }
    }
    Ok(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let hex: String = hex.chars().filter(char::is_ascii_hexdigit).collect();
        (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect()
    }

    const TABLET: &str = "0a090a057a6f6e65311064 12026831 22090a046772706310e47d 22070a02767410fc75 \
        2a08636f6d6d65726365 320130 4001 62026831 68cc8501 720808a09c90cd061005 8001ff01";

    #[test]
    fn vitess_records_are_read_and_written_unchanged() {
        let tablet = Record::<Tablet>::decode(&bytes(TABLET)).unwrap();
        assert_eq!(tablet.message.hostname, "h1");
        assert_eq!(tablet.message.port_map.get("grpc"), Some(&16100));
        assert_eq!(tablet.message.mysql_port, 17100);
        assert_eq!(tablet.message.tablet_type, 1);
        assert_eq!(tablet.encode(), bytes(TABLET));
        let keyspace = bytes("42 09 73656d695f73796e63 52 03 5f7674");
        let decoded = Record::<Keyspace>::decode(&keyspace).unwrap();
        assert_eq!(decoded.message.durability_policy, "semi_sync");
        assert_eq!(decoded.encode(), keyspace);
    }

    #[test]
    fn unknown_fields_survive_a_change() {
        let shard = bytes("0a090a057a6f6e65311064 3801 420808a09c90cd061005 a20603616263");
        let mut record = Record::<Shard>::decode(&shard).unwrap();
        record.message.primary_alias = Some(TabletAlias { cell: "zone1".into(), uid: 101 });
        let again = Record::<Shard>::decode(&record.encode()).unwrap();
        assert_eq!(again.message.primary_alias.unwrap().uid, 101);
        assert!(record.encode().ends_with(&bytes("a20603616263")));
    }

    /// The fields that a message writes, as numbers.
    fn written(message: &impl Message) -> Vec<u32> {
        let bytes = message.encode_to_vec();
        let mut rest = bytes.as_slice();
        let mut tags = Vec::new();
        while rest.has_remaining() {
            let (tag, wire_type): (u32, WireType) = decode_key(&mut rest).unwrap();
            skip_field(wire_type, tag, &mut rest, DecodeContext::default()).unwrap();
            tags.push(tag);
        }
        tags
    }

    /// The tags are those that the message writes; what is written again and again does not grow.
    fn keeps<M: Declared + PartialEq + std::fmt::Debug>(full: &M) {
        assert_eq!(written(full), M::TAGS, "{full:?}");
        let first = full.encode_to_vec();
        let mut bytes = first.clone();
        for _ in 0..2 {
            let record = Record::<M>::decode(&bytes).unwrap();
            assert!(record.message == *full, "{full:?}");
            bytes = record.encode();
        }
        assert_eq!(bytes, first, "{full:?}");
    }

    /// No field is left out here: whoever declares one more fills it as well, or this is not compiled.
    #[test]
    fn every_declared_field_has_its_tag() {
        let alias = TabletAlias { cell: "zone1".into(), uid: 100 };
        let range = KeyRange { start: vec![0x40], end: vec![0x80] };
        let time = Time { seconds: 1, nanoseconds: 2 };
        let state = VtorcState { disable_emergency_reparent: true };
        let node = ShardReplicationNode { tablet_alias: Some(alias.clone()) };
        keeps(&Tablet {
            alias: Some(alias.clone()),
            hostname: "h".into(),
            port_map: BTreeMap::from([("grpc".into(), 1)]),
            keyspace: "ks".into(),
            shard: "40-80".into(),
            key_range: Some(range.clone()),
            tablet_type: 1,
            tags: BTreeMap::from([("promotion_rule".into(), "must_not".into())]),
            mysql_hostname: "h".into(),
            mysql_port: 3306,
            primary_term_start_time: Some(time.clone()),
            tablet_shutdown_time: Some(time.clone()),
        });
        keeps(&Shard {
            primary_alias: Some(alias),
            key_range: Some(range),
            is_primary_serving: true,
            primary_term_start_time: Some(time.clone()),
            vtorc_state: Some(state.clone()),
        });
        keeps(&Keyspace {
            durability_policy: "none".into(),
            sidecar_db_name: "_vt".into(),
            vtorc_state: Some(state.clone()),
        });
        keeps(&ShardReplication { nodes: vec![node] });
        keeps(&CellInfo { server_address: "h:1".into(), root: "/vitess/zone1".into() });
    }

    #[test]
    fn an_empty_record_is_legal_and_garbage_is_not() {
        assert!(Record::<Keyspace>::decode(&[]).is_ok());
        for garbage in ["ff", "0a05", "0aff01ffff", "3d00"] {
            assert!(Record::<Tablet>::decode(&bytes(garbage)).is_err(), "{garbage}");
        }
    }
}
