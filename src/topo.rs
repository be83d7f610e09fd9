//! `vtorc topo`: looking at the topology and changing it without Vitess's own tools.

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::time::Duration;

use vtorc_clients::mysql::{Discovered, MysqlAccess, discover};
use vtorc_clients::topo::TopoStore;
use vtorc_core::durability::DurabilityPolicy;
use vtorc_core::ids::{KeyspaceShard, TabletAlias, WatchList};
use vtorc_core::ports::{TopoError, TopoPort};
use vtorc_core::tablet::{MysqlAddress, Tablet, TabletType, VttabletAddress};
use vtorc_core::topology::Trouble;

use crate::cli::{DaemonOptions, TopoCommand, TopoImplementation};
use crate::print::say;
use crate::{Failure, config, wiring};

/// One server of a tree gets so long to answer.
const DISCOVER_TIMEOUT: Duration = Duration::from_secs(5);
/// A tree is not larger than this.
const TREE_MAX: usize = 1000;

impl From<TopoError> for Failure {
    fn from(error: TopoError) -> Self {
        Self(error.to_string())
    }
}

/// Runs one command.
pub(crate) fn run(options: DaemonOptions, command: TopoCommand) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::while_doing("start", error))?;
    runtime.block_on(execute(options, command))
}

async fn execute(options: DaemonOptions, command: TopoCommand) -> Result<(), Failure> {
    let store = wiring::topo_store(&options, DurabilityPolicy::None)?;
    match command {
        TopoCommand::AddCell { cell, server_address, root } => {
            let (address, root) = cell_place(&options, &cell, server_address, root)?;
            store.add_cell(&cell, &address, &root).await?;
            say(&format!("added cell {cell} at {root}"));
        }
        TopoCommand::UpdateCell { cell, server_address, root } => {
            store.update_cell(&cell, server_address.as_deref(), root.as_deref()).await?;
            say(&format!("updated cell {cell}"));
        }
        TopoCommand::AddKeyspace { keyspace, durability_policy } => {
            store.add_keyspace(&keyspace, policy(&durability_policy)?).await?;
            say(&format!("added keyspace {keyspace} with durability policy {durability_policy}"));
        }
        TopoCommand::SetDurability { keyspace, policy: name } => {
            policy(&name)?;
            store.set_durability(&keyspace, &name).await?;
            say(&format!("{keyspace} has durability policy {name}"));
        }
        TopoCommand::SetEmergencyReparents { name, switch } => {
            store.set_emergency_reparents(&name, switch == "on").await?;
            say(&format!("emergency reparents of {name} are {switch}"));
        }
        TopoCommand::AddShard { shard } => {
            store.add_shard(&parse(&shard)?).await?;
            say(&format!("added shard {shard}"));
        }
        TopoCommand::AddTablet { alias, shard, mysql, tablet_type, vttablet } => {
            let at = (mysql.as_str(), vttablet.as_deref());
            let tablet = new_tablet(&alias, &shard, at, &tablet_type)?;
            check_address(&store, &tablet).await?;
            store.add_tablet(&tablet).await?;
            say(&format!("added tablet {}", tablet.alias));
        }
        TopoCommand::SetType { alias, tablet_type } => {
            set_type(&store, &parse(&alias)?, type_of(&tablet_type)?).await?;
        }
        TopoCommand::List => list(&store).await?,
        TopoCommand::Show { name } => show(&store, &name).await?,
        TopoCommand::Delete { name } => delete(&store, &name).await?,
        TopoCommand::Import {
            address: first,
            keyspace,
            shard,
            cell,
            first_uid,
            durability_policy,
        } => {
            let config = config::load(options.config.as_deref())?.config;
            let access = config.mysql_access()?;
            let shard = KeyspaceShard::new(&keyspace, &shard).map_err(named)?;
            let found = walk(&access, address(&first)?).await?;
            prepare(&options, &store, &shard, &cell, policy(&durability_policy)?).await?;
            register(&store, &shard, &cell, first_uid, found).await?;
        }
    }
    Ok(())
}

/// A tablet as it was typed: where its server is, and its vttablet if it has one.
fn new_tablet(
    alias: &str,
    shard: &str,
    (mysql, vttablet): (&str, Option<&str>),
    tablet_type: &str,
) -> Result<Tablet, Failure> {
    let vttablet = vttablet.map(address).transpose()?;
    Ok(Tablet {
        alias: parse(alias)?,
        shard: parse(shard)?,
        tablet_type: type_of(tablet_type)?,
        mysql: Some(address(mysql)?),
        term_start: None,
        vttablet: vttablet.map(|at| VttabletAddress { host: at.host, port: at.port }),
        promotion_rule: None,
    })
}

fn named(error: vtorc_core::ids::NameError) -> Failure {
    Failure(error.to_string())
}

fn parse<T: std::str::FromStr<Err = vtorc_core::ids::NameError>>(text: &str) -> Result<T, Failure> {
    text.parse().map_err(named)
}

fn policy(name: &str) -> Result<DurabilityPolicy, Failure> {
    name.parse().map_err(|error: vtorc_core::durability::UnknownPolicy| Failure(error.to_string()))
}

fn type_of(name: &str) -> Result<TabletType, Failure> {
    TabletType::from_name(name).ok_or_else(|| Failure(format!("{name:?} is not a tablet type")))
}

fn address(text: &str) -> Result<MysqlAddress, Failure> {
    let bad = || Failure(format!("{text:?} is not host:port"));
    let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
    let host = host.trim_matches(['[', ']']);
    if host.is_empty() {
        return Err(bad());
    }
    Ok(MysqlAddress { host: host.to_owned(), port: port.parse().map_err(|_| bad())? })
}

/// Where a new cell's records are: on the global server, beside the global root, unless said otherwise.
fn cell_place(
    options: &DaemonOptions,
    cell: &str,
    server_address: Option<String>,
    root: Option<String>,
) -> Result<(String, String), Failure> {
    let address = server_address.unwrap_or_else(|| options.topo_global_server_address.clone());
    let beside = Path::new(&options.topo_global_root).parent().map(|parent| parent.join(cell));
    let root = match (root, options.topo_implementation) {
        (Some(root), _) => root,
        (None, TopoImplementation::Zk2 | TopoImplementation::Etcd2) => {
            beside.unwrap_or_else(|| PathBuf::from("/").join(cell)).display().to_string()
        }
        // Consul's keys have no leading slash.
        (None, TopoImplementation::Consul) => {
            beside.unwrap_or_else(|| PathBuf::from(cell)).display().to_string()
        }
        (None, TopoImplementation::Local) => {
            let root = Path::new(&options.topo_global_root).with_file_name(cell);
            let failure = |error| Failure::while_doing("find the cell's directory", error);
            std::path::absolute(root).map_err(failure)?.display().to_string()
        }
    };
    Ok((address, root))
}

/// What can be read is listed; what cannot is named at the end, with what to do, and the listing has failed.
async fn list(store: &TopoStore) -> Result<(), Failure> {
    let read = store.read(&WatchList::default()).await?;
    for (cell, info) in store.cells().await? {
        match info {
            Ok(info) => say(&format!("cell {cell} at {} {}", info.server_address, info.root)),
            Err(_) => say(&format!("cell {cell} at -")),
        }
    }
    for (keyspace, durability) in store.keyspaces().await? {
        let durability = durability.unwrap_or_default();
        say(&format!("keyspace {keyspace} durability_policy={}", or_dash(&durability)));
        for topology in read.shards.values().filter(|one| one.shard.keyspace == keyspace) {
            let primary = topology.record.primary_alias.as_ref().map(ToString::to_string);
            let primary = primary.unwrap_or_default();
            say(&format!("  shard {} primary={}", topology.shard, or_dash(&primary)));
            for tablet in topology.tablets.values() {
                say(&format!("    {}", line(tablet)));
            }
        }
    }
    let troubles = read
        .troubles()
        .into_iter()
        .map(|(what, Trouble { why, cure })| format!("{what} cannot be read: {why}\n  -> {cure}"));
    let troubles: Vec<String> = troubles.collect();
    match troubles.is_empty() {
        true => Ok(()),
        false => Err(Failure(troubles.join("\n"))),
    }
}

/// Two records of one server are a mistake.
async fn check_address(store: &TopoStore, tablet: &Tablet) -> Result<(), Failure> {
    let read = store.read_shard(&tablet.shard).await?;
    let members = read.shards.values().flat_map(|shard| shard.tablets.values());
    let mut others = members.filter(|other| other.alias != tablet.alias);
    match others.find(|other| other.mysql.is_some() && other.mysql == tablet.mysql) {
        Some(other) => Err(Failure(format!(
            "{} has the address of {}: give it its own, or delete the other record first (vtorc topo delete {})",
            tablet.alias,
            line(other),
            other.alias
        ))),
        None => Ok(()),
    }
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

fn line(tablet: &Tablet) -> String {
    let address =
        tablet.mysql.as_ref().map(ToString::to_string).unwrap_or_else(|| "no address".into());
    format!("{} {} {address}", tablet.alias, tablet.tablet_type)
}

async fn show(store: &TopoStore, name: &str) -> Result<(), Failure> {
    if let Ok(shard) = name.parse::<KeyspaceShard>() {
        let record = store.shard_record(&shard).await?;
        let primary = record.primary_alias.map(|alias| alias.to_string()).unwrap_or_default();
        let term = record.term_start.map(|term| term.to_string()).unwrap_or_default();
        say(&format!(
            "shard {shard}\n  primary: {}\n  term start: {}",
            or_dash(&primary),
            or_dash(&term)
        ));
        return Ok(());
    }
    if let Some(alias) = existing_tablet(store, name).await {
        let tablet = store.tablet(&alias).await?;
        let term = tablet.term_start.map(|term| term.to_string()).unwrap_or_default();
        say(&format!(
            "tablet {}\n  shard: {}\n  term start: {}",
            line(&tablet),
            tablet.shard,
            or_dash(&term)
        ));
        return Ok(());
    }
    if let Some((_, info)) = store.cells().await?.into_iter().find(|(cell, _)| cell == name) {
        let info = info?;
        say(&format!(
            "cell {name}\n  server: {}\n  root: {}",
            or_dash(&info.server_address),
            info.root
        ));
        return Ok(());
    }
    let keyspace = store.keyspaces().await?.into_iter().find(|(keyspace, _)| keyspace == name);
    let (_, durability) = keyspace.ok_or_else(|| nothing(name))?;
    say(&format!("keyspace {name}\n  durability policy: {}", or_dash(&durability?)));
    Ok(())
}

fn nothing(name: &str) -> Failure {
    Failure(format!("there is no cell, keyspace, shard or tablet {name}"))
}

async fn delete(store: &TopoStore, name: &str) -> Result<(), Failure> {
    if let Ok(shard) = name.parse::<KeyspaceShard>() {
        store.delete_shard(&shard).await?;
    } else if let Some(alias) = existing_tablet(store, name).await {
        store.delete_tablet(&alias).await?;
    } else if store.cells().await?.iter().any(|(cell, _)| cell == name) {
        store.delete_cell(name).await?;
    } else if store.keyspaces().await?.iter().any(|(keyspace, _)| keyspace == name) {
        store.delete_keyspace(name).await?;
    } else {
        return Err(nothing(name));
    }
    say(&format!("deleted {name}"));
    Ok(())
}

/// Changes a tablet's type in its record. Who is primary is decided by a reparent alone; but where two records say
/// PRIMARY, one of them may be taken back.
async fn set_type(
    store: &TopoStore,
    alias: &TabletAlias,
    tablet_type: TabletType,
) -> Result<(), Failure> {
    let tablet = store.tablet(alias).await?;
    let shard = &tablet.shard;
    if tablet_type == TabletType::Primary {
        return Err(Failure(format!(
            "who is primary is decided by a reparent: vtorc ctl planned-reparent {shard} --new-primary {alias}"
        )));
    }
    if let Some(vttablet) = &tablet.vttablet {
        return Err(Failure(format!(
            "{alias} is recorded by its vttablet at {}:{}, which would write its own type again: vtctldclient \
             ChangeTabletType {alias} {tablet_type}",
            vttablet.host, vttablet.port
        )));
    }
    if tablet.tablet_type == TabletType::Primary && !has_another_primary(store, &tablet).await? {
        return Err(Failure(format!(
            "{alias} is the only PRIMARY of {shard}: move its writes away first: vtorc ctl planned-reparent {shard}"
        )));
    }
    store.set_tablet_type(alias, tablet_type, None).await?;
    say(&format!("{alias} was {} and is {tablet_type}", tablet.tablet_type));
    Ok(())
}

async fn has_another_primary(store: &TopoStore, tablet: &Tablet) -> Result<bool, Failure> {
    for (cell, _) in store.cells().await? {
        for (_, read) in store.tablets(&cell).await? {
            let is_another = |other: &Tablet| {
                other.shard == tablet.shard
                    && other.alias != tablet.alias
                    && other.tablet_type == TabletType::Primary
            };
            if read.as_ref().is_ok_and(is_another) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

async fn existing_tablet(store: &TopoStore, name: &str) -> Option<TabletAlias> {
    let alias: TabletAlias = name.parse().ok()?;
    let found = store.tablet(&alias).await;
    // A damaged record can be deleted as well.
    matches!(found, Ok(_) | Err(TopoError::Damaged { .. })).then_some(alias)
}

/// Asks a server for its source and its replicas, and each of those in turn.
async fn walk(access: &MysqlAccess, first: MysqlAddress) -> Result<Vec<Discovered>, Failure> {
    let mut waiting = VecDeque::from([first.clone()]);
    let mut asked = BTreeSet::new();
    let mut found: Vec<Discovered> = Vec::new();
    while let Some(address) = waiting.pop_front() {
        if !asked.insert(address.clone()) || found.len() >= TREE_MAX {
            continue;
        }
        say(&format!("asking {address}"));
        let (access, one) = (access.clone(), address.clone());
        let work = move || discover(&access, &one, DISCOVER_TIMEOUT);
        let answer = tokio::task::spawn_blocking(work).await;
        let answer =
            answer.map_err(|error| Failure::while_doing(&format!("ask {address}"), error))?;
        let server = match answer {
            Ok(server) => server,
            Err(error) if address == first => {
                return Err(Failure::while_doing(&format!("ask {address}"), error));
            }
            Err(error) => {
                say(&format!("  {address} is left out: {error}"));
                continue;
            }
        };
        let same = |known: &Discovered| {
            known.status.server_uuid == server.status.server_uuid
                && known.status.server_id == server.status.server_id
        };
        if found.iter().any(same) {
            continue;
        }
        waiting.extend(server.replicas.iter().cloned());
        waiting.extend(server.status.replication.as_ref().map(|r| r.source.clone()));
        found.push(server);
    }
    // The source first, so that it gets the first alias.
    found.sort_by_key(|server| server.status.replication.is_some());
    Ok(found)
}

async fn prepare(
    options: &DaemonOptions,
    store: &TopoStore,
    shard: &KeyspaceShard,
    cell: &str,
    durability: DurabilityPolicy,
) -> Result<(), Failure> {
    let exists_already = |outcome: Result<(), TopoError>| match outcome {
        Err(TopoError::NodeExists(_)) => Ok(()),
        other => other,
    };
    let (address, root) = cell_place(options, cell, None, None)?;
    exists_already(store.add_cell(cell, &address, &root).await)?;
    exists_already(store.add_keyspace(&shard.keyspace, durability).await)?;
    exists_already(store.add_shard(shard).await)?;
    Ok(())
}

async fn register(
    store: &TopoStore,
    shard: &KeyspaceShard,
    cell: &str,
    first_uid: u32,
    found: Vec<Discovered>,
) -> Result<(), Failure> {
    let known = store.tablets(cell).await?;
    let mut taken: BTreeSet<u32> = known.iter().map(|(alias, _)| alias.uid).collect();
    let addresses: BTreeSet<MysqlAddress> =
        known.into_iter().filter_map(|(_, tablet)| tablet.ok()?.mysql).collect();
    for server in found {
        if addresses.contains(&server.address) {
            say(&format!("{} is registered already", server.address));
            continue;
        }
        let free = (first_uid..).find(|uid| !taken.contains(uid));
        let uid = free.ok_or_else(|| Failure("no free tablet number is left".into()))?;
        taken.insert(uid);
        let tablet = Tablet {
            alias: TabletAlias { cell: cell.to_owned(), uid },
            shard: shard.clone(),
            tablet_type: TabletType::Replica,
            mysql: Some(server.address),
            term_start: None,
            vttablet: None,
            promotion_rule: None,
        };
        store.add_tablet(&tablet).await?;
        say(&format!("added {}", line(&tablet)));
    }
    Ok(())
}
