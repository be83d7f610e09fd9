//! What an operator does to the topology: adding, showing and deleting cells, keyspaces, shards, tablets.

use vtorc_core::durability::DurabilityPolicy;
use vtorc_core::ids::{KeyspaceShard, TabletAlias, check_name};
use vtorc_core::ports::TopoError;
use vtorc_core::tablet::Tablet;
use vtorc_core::topology::ShardRecord;

use super::conn::TopoConn;
use super::records::{self, CellInfo, Record, decode};
use super::store::TopoStore;
use super::{paths, tablets, translate};

impl TopoStore {
    /// Adds a cell: where its own topology is.
    pub async fn add_cell(
        &self,
        cell: &str,
        server_address: &str,
        root: &str,
    ) -> Result<(), TopoError> {
        check_name(cell).map_err(invalid)?;
        let info = CellInfo { server_address: server_address.to_owned(), root: root.to_owned() };
        self.global.create(&paths::cell_info(cell), &prost::Message::encode_to_vec(&info)).await
    }

    /// Says anew where a cell's topology is; what is not given stays. A record that cannot be understood needs both.
    pub async fn update_cell(
        &self,
        cell: &str,
        server_address: Option<&str>,
        root: Option<&str>,
    ) -> Result<(), TopoError> {
        let path = paths::cell_info(cell);
        let (bytes, version) = self.global.get(&path).await?;
        let mut record = match (decode::<CellInfo>(&path, &bytes), server_address, root) {
            (Ok(record), _, _) => record,
            (Err(_), Some(_), Some(_)) => Record::default(),
            (Err(error), _, _) => return Err(error),
        };
        if let Some(address) = server_address {
            address.clone_into(&mut record.message.server_address);
        }
        if let Some(root) = root {
            root.clone_into(&mut record.message.root);
        }
        self.global.update(&path, &record.encode(), version).await
    }

    /// Adds a keyspace with a durability policy.
    pub async fn add_keyspace(
        &self,
        name: &str,
        policy: DurabilityPolicy,
    ) -> Result<(), TopoError> {
        check_name(name).map_err(invalid)?;
        let record = records::Keyspace {
            durability_policy: policy.name().to_owned(),
            sidecar_db_name: "_vt".to_owned(),
            vtorc_state: None,
        };
        self.global.create(&paths::keyspace(name), &prost::Message::encode_to_vec(&record)).await
    }

    /// Sets a keyspace's durability policy. The name is stored as it is, whether it is known or not.
    pub async fn set_durability(&self, name: &str, policy: &str) -> Result<(), TopoError> {
        self.modify::<records::Keyspace>(self.global.as_ref(), &paths::keyspace(name), |record| {
            record.durability_policy = policy.to_owned();
            true
        })
        .await
    }

    /// Forbids or allows emergency reparents of a keyspace, or of one shard, as Vitess's
    /// SetVtorcEmergencyReparent does.
    pub async fn set_emergency_reparents(
        &self,
        name: &str,
        allowed: bool,
    ) -> Result<(), TopoError> {
        let state = (!allowed).then_some(records::VtorcState { disable_emergency_reparent: true });
        let global = self.global.as_ref();
        if !name.contains('/') {
            let path = paths::keyspace(name);
            return self
                .modify::<records::Keyspace>(global, &path, |record| {
                    record.vtorc_state.clone_from(&state);
                    true
                })
                .await;
        }
        let shard: KeyspaceShard = name.parse().map_err(invalid)?;
        self.modify::<records::Shard>(global, &paths::shard(&shard), |record| {
            record.vtorc_state.clone_from(&state);
            true
        })
        .await
    }

    /// Adds a shard to a keyspace that exists.
    pub async fn add_shard(&self, shard: &KeyspaceShard) -> Result<(), TopoError> {
        self.global.get(&paths::keyspace(&shard.keyspace)).await?;
        let record = records::Shard {
            primary_alias: None,
            key_range: translate::key_range_to_record(shard),
            is_primary_serving: true,
            primary_term_start_time: None,
            vtorc_state: None,
        };
        self.global.create(&paths::shard(shard), &prost::Message::encode_to_vec(&record)).await
    }

    /// Adds a tablet to a shard and a cell that exist, and to the cell's list of the shard's tablets.
    pub async fn add_tablet(&self, tablet: &Tablet) -> Result<(), TopoError> {
        self.global.get(&paths::shard(&tablet.shard)).await?;
        let conn = self.cell(&tablet.alias.cell).await?;
        let record = translate::new_tablet(tablet);
        conn.create(&paths::tablet(&tablet.alias), &prost::Message::encode_to_vec(&record)).await?;
        let node = records::ShardReplicationNode {
            tablet_alias: Some(translate::alias_to_record(&tablet.alias)),
        };
        let path = paths::shard_replication(&tablet.shard);
        let first = records::ShardReplication { nodes: vec![node.clone()] };
        match conn.create(&path, &prost::Message::encode_to_vec(&first)).await {
            Err(TopoError::NodeExists(_)) => {}
            other => return other,
        }
        self.modify::<records::ShardReplication>(conn.as_ref(), &path, |list| {
            let missing = !list.nodes.contains(&node);
            if missing {
                list.nodes.push(node.clone());
            }
            missing
        })
        .await
    }

    /// Deletes a tablet's record and its place in the shard's list.
    pub async fn delete_tablet(&self, alias: &TabletAlias) -> Result<(), TopoError> {
        let conn = self.cell(&alias.cell).await?;
        let path = paths::tablet(alias);
        let (bytes, _) = conn.get(&path).await?;
        let shard = decode::<records::Tablet>(&path, &bytes)
            .and_then(|record| {
                translate::tablet(alias, &record.message).map_err(TopoError::Invalid)
            })
            .map(|tablet| tablet.shard);
        conn.delete(&path).await?;
        let Ok(shard) = shard else { return Ok(()) };
        let node = translate::alias_to_record(alias);
        let listed = self
            .modify::<records::ShardReplication>(
                conn.as_ref(),
                &paths::shard_replication(&shard),
                |list| {
                    let before = list.nodes.len();
                    list.nodes.retain(|one| one.tablet_alias.as_ref() != Some(&node));
                    list.nodes.len() != before
                },
            )
            .await;
        match listed {
            Err(TopoError::NoNode(_)) => Ok(()),
            other => other,
        }
    }

    /// Deletes a shard that has no tablets.
    pub async fn delete_shard(&self, shard: &KeyspaceShard) -> Result<(), TopoError> {
        for cell in self.global.list(paths::CELLS).await? {
            for (alias, tablet) in self.tablets_of_cell(&cell).await? {
                if tablet.is_ok_and(|tablet| tablet.shard == *shard) {
                    return Err(TopoError::Invalid(format!(
                        "{shard} still has tablet {alias}; delete it first"
                    )));
                }
            }
        }
        self.global.delete(&paths::shard(shard)).await
    }

    /// Deletes a keyspace that has no shards.
    pub async fn delete_keyspace(&self, name: &str) -> Result<(), TopoError> {
        if let Some(shard) = self.global.list(&paths::shards(name)).await?.first() {
            return Err(TopoError::Invalid(format!(
                "{name} still has shard {shard}; delete it first"
            )));
        }
        self.global.delete(&paths::keyspace(name)).await
    }

    /// Deletes a cell that has no tablets.
    pub async fn delete_cell(&self, cell: &str) -> Result<(), TopoError> {
        if let Some((alias, _)) = self.tablets_of_cell(cell).await?.first() {
            return Err(TopoError::Invalid(format!(
                "{cell} still has tablet {alias}; delete it first"
            )));
        }
        self.global.delete(&paths::cell_info(cell)).await
    }

    /// The cells and where their topologies are; the record of one may be damaged.
    pub async fn cells(&self) -> Result<Vec<(String, Result<CellInfo, TopoError>)>, TopoError> {
        let mut cells = Vec::new();
        for cell in self.global.list(paths::CELLS).await? {
            let path = paths::cell_info(&cell);
            let read = self.global.get(&path).await;
            let info = read.and_then(|(bytes, _)| Ok(decode::<CellInfo>(&path, &bytes)?.message));
            cells.push((cell, info));
        }
        Ok(cells)
    }

    /// The keyspaces and their policies as stored; the record of one may be damaged.
    pub async fn keyspaces(&self) -> Result<Vec<(String, Result<String, TopoError>)>, TopoError> {
        let mut keyspaces = Vec::new();
        for name in self.global.list(paths::KEYSPACES).await? {
            let path = paths::keyspace(&name);
            let policy = match self.global.get(&path).await {
                Ok((bytes, _)) => decode::<records::Keyspace>(&path, &bytes)
                    .map(|record| record.message.durability_policy),
                Err(TopoError::NoNode(_)) => Ok(String::new()),
                Err(error) => return Err(error),
            };
            keyspaces.push((name, policy));
        }
        Ok(keyspaces)
    }

    /// The shards of a keyspace.
    pub async fn shards(&self, keyspace: &str) -> Result<Vec<KeyspaceShard>, TopoError> {
        let names = self.global.list(&paths::shards(keyspace)).await?;
        Ok(names.iter().filter_map(|name| KeyspaceShard::new(keyspace, name).ok()).collect())
    }

    /// The tablets of a cell, with those whose record is damaged.
    pub async fn tablets(
        &self,
        cell: &str,
    ) -> Result<Vec<(TabletAlias, Result<Tablet, TopoError>)>, TopoError> {
        let mut tablets = self.tablets_of_cell(cell).await?;
        tablets.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(tablets)
    }

    /// A shard's record.
    pub async fn shard_record(&self, shard: &KeyspaceShard) -> Result<ShardRecord, TopoError> {
        let path = paths::shard(shard);
        let (bytes, _) = self.global.get(&path).await?;
        Ok(translate::shard(&decode::<records::Shard>(&path, &bytes)?.message))
    }

    /// One tablet.
    pub async fn tablet(&self, alias: &TabletAlias) -> Result<Tablet, TopoError> {
        let conn = self.cell(&alias.cell).await?;
        let (_, read) = tablets::read(conn.as_ref(), alias.clone()).await;
        read.map_err(|misread| misread.error)
    }

    /// Writes raw bytes at a path of the global cell or of a cell; for tests and repairs.
    pub async fn put_raw(
        &self,
        cell: Option<&str>,
        path: &str,
        bytes: &[u8],
    ) -> Result<(), TopoError> {
        let conn: std::sync::Arc<dyn TopoConn> = match cell {
            Some(cell) => self.cell(cell).await?,
            None => self.global.clone(),
        };
        match conn.get(path).await {
            Ok((_, version)) => conn.update(path, bytes, version).await,
            Err(TopoError::NoNode(_)) => conn.create(path, bytes).await,
            Err(error) => Err(error),
        }
    }
}

fn invalid(error: vtorc_core::ids::NameError) -> TopoError {
    TopoError::Invalid(error.to_string())
}
