//! Readings in which something does not answer, or cannot be understood.

mod memory;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tokio::time::{Instant, sleep};
use vtorc_core::durability::DurabilityPolicy;
use vtorc_core::ids::{KeyspaceShard, TabletAlias, WatchList};
use vtorc_core::ports::TopoPort;
use vtorc_core::tablet::{MysqlAddress, Tablet, TabletType};
use vtorc_core::time::TermStart;
use vtorc_core::topology::{TopologyRead, UnreadRecord, merge};

use super::conn::TopoConn;
use super::{CellInfo, TopoStore, paths, records};
use memory::Memory;

/// An installation in memory.
struct World {
    global: Arc<Memory>,
    cells: BTreeMap<String, Arc<Memory>>,
    store: TopoStore,
}

fn shard(name: &str) -> KeyspaceShard {
    name.parse().unwrap()
}

fn alias(name: &str) -> TabletAlias {
    name.parse().unwrap()
}

impl World {
    /// Cells of these names, each with a server of its own, and keyspace `ks` with shards `0` and `1`.
    async fn with(names: &[&str]) -> Self {
        let global = Arc::new(Memory::default());
        let cells: BTreeMap<String, Arc<Memory>> =
            names.iter().map(|name| ((*name).to_owned(), Arc::default())).collect();
        let servers = cells.clone();
        let dial = Arc::new(move |cell: &str, info: &CellInfo| {
            let server = match info.root.as_str() {
                "/wrong" => Arc::new(Memory::without_root()),
                _ => servers[cell].clone(),
            };
            server as Arc<dyn TopoConn>
        });
        let store = TopoStore::new(global.clone(), dial, DurabilityPolicy::None);
        for name in names {
            store.add_cell(name, &format!("{name}:2181"), "/vitess").await.unwrap();
        }
        store.add_keyspace("ks", DurabilityPolicy::SemiSync).await.unwrap();
        for name in ["ks/0", "ks/1"] {
            store.add_shard(&shard(name)).await.unwrap();
        }
        Self { global, cells, store }
    }

    async fn add(&self, name: &str, of: &str) {
        let tablet = Tablet {
            alias: alias(name),
            shard: shard(of),
            tablet_type: TabletType::Replica,
            mysql: Some(MysqlAddress { host: "h".into(), port: 3306 }),
            term_start: None,
            vttablet: None,
            promotion_rule: None,
        };
        self.store.add_tablet(&tablet).await.unwrap();
    }

    /// The same installation, by a process that was just started.
    fn anew(self) -> Self {
        let servers = self.cells.clone();
        let dial =
            Arc::new(move |cell: &str, _: &CellInfo| servers[cell].clone() as Arc<dyn TopoConn>);
        let store = TopoStore::new(self.global.clone(), dial, DurabilityPolicy::None);
        Self { store, ..self }
    }

    /// What a reading says, and how long it took.
    async fn read(&self) -> (TopologyRead, Duration) {
        let started = Instant::now();
        let read = self.store.read(&WatchList::default()).await.unwrap();
        (read, started.elapsed())
    }

    async fn read_shard(&self, name: &str) -> (TopologyRead, Duration) {
        let started = Instant::now();
        let read = self.store.read_shard(&shard(name)).await.unwrap();
        (read, started.elapsed())
    }

    /// Writes a tablet's record as it should not be.
    fn spoil(&self, name: &str, bytes: &[u8]) {
        let alias = alias(name);
        self.cells[&alias.cell].put(&paths::tablet(&alias), bytes);
    }
}

fn tablets(read: &TopologyRead) -> usize {
    read.shards.values().map(|shard| shard.tablets.len()).sum()
}

#[tokio::test(start_paused = true)]
async fn a_silent_cell_costs_a_reading_a_second_and_those_after_it_nothing() {
    let world = World::with(&["zone1", "zone2"]).await;
    world.add("zone1-1", "ks/0").await;
    world.add("zone2-1", "ks/0").await;
    // It takes longer to connect than anybody waits.
    world.cells["zone2"].connects_in(Duration::from_secs(3));
    let (read, took) = world.read().await;
    assert!(took >= Duration::from_secs(1) && took < Duration::from_millis(1100), "{took:?}");
    assert_eq!((tablets(&read), read.is_partial()), (1, true));
    let said = read.troubles()["cell zone2"].to_string();
    for words in ["no answer yet", "zone2:2181", "update-cell zone2"] {
        assert!(said.contains(words), "{said}");
    }
    for _ in 0..3 {
        let (read, took) = world.read().await;
        assert_eq!((tablets(&read), took), (1, Duration::ZERO));
        let (read, took) = world.read_shard("ks/0").await;
        assert_eq!((tablets(&read), took), (1, Duration::ZERO));
        assert!(read.unread_cells.contains_key("zone2"));
    }
    // What was begun goes on, and is there for the next reading.
    sleep(Duration::from_secs(3)).await;
    let (read, took) = world.read().await;
    assert_eq!((tablets(&read), read.is_partial(), took), (2, false, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn under_a_lock_a_silent_cell_costs_a_second_as_well() {
    let world = World::with(&["zone1", "zone2"]).await;
    world.add("zone1-1", "ks/0").await;
    world.cells["zone2"].connects_in(Duration::from_secs(3600));
    let (read, took) = world.read_shard("ks/0").await;
    assert!(took >= Duration::from_secs(1) && took < Duration::from_millis(1100), "{took:?}");
    assert_eq!(tablets(&read), 1);
    let (read, took) = world.read().await;
    assert_eq!((tablets(&read), took), (1, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn cells_are_read_side_by_side_and_one_that_answers_is_waited_for() {
    let names = ["zone1", "zone2", "zone3", "zone4", "zone5"];
    let world = World::with(&names).await;
    for name in names {
        world.add(&format!("{name}-1"), "ks/0").await;
        // Longer than a silent one is waited for, in all.
        world.cells[name].answers_in(Duration::from_millis(800));
    }
    let (read, took) = world.read().await;
    assert_eq!((tablets(&read), took), (5, Duration::from_millis(1600)));
    let (read, took) = world.read_shard("ks/0").await;
    assert_eq!((tablets(&read), took), (5, Duration::from_millis(1600)));
}

#[tokio::test(start_paused = true)]
async fn a_cell_that_moved_is_read_at_its_new_place_although_the_old_one_is_still_silent() {
    let world = World::with(&["zone1"]).await;
    world.add("zone1-1", "ks/0").await;
    world.cells["zone1"].connects_in(Duration::from_secs(3600));
    assert_eq!(tablets(&world.read().await.0), 0);
    world.cells["zone1"].connects_in(Duration::ZERO);
    world.store.update_cell("zone1", Some("elsewhere:2181"), None).await.unwrap();
    assert_eq!(tablets(&world.read().await.0), 1);
}

#[tokio::test(start_paused = true)]
async fn a_mistyped_or_damaged_cell_is_unread_and_what_to_do_is_said() {
    let world = World::with(&["zone1", "zone2"]).await;
    world.add("zone1-1", "ks/0").await;
    let update = |address: &'static str, root: &'static str| {
        let info = CellInfo { server_address: address.into(), root: root.into() };
        world.global.put(&paths::cell_info("zone2"), &info.encode_to_vec());
    };
    let unread = || async {
        let (read, took) = world.read().await;
        assert_eq!((tablets(&read), took), (1, Duration::ZERO), "the others go on");
        assert!(!read.is_partial(), "trying again does not help");
        let (under_lock, _) = world.read_shard("ks/0").await;
        assert_eq!(under_lock.unread_cells, read.unread_cells);
        read.troubles()["cell zone2"].to_string()
    };
    update("zone2:2181", "/wrong");
    let said = unread().await;
    assert!(said.contains("no root") && said.contains("zone2:2181 /wrong"), "{said}");
    assert!(said.contains("update-cell zone2 --root"), "{said}");
    world.global.put(&paths::cell_info("zone2"), b"\xff\xff");
    let said = unread().await;
    assert!(said.contains("cells/zone2/CellInfo") && said.contains("update-cell zone2"), "{said}");
    // As it says: both must be given.
    assert!(world.store.update_cell("zone2", Some("zone2:2181"), None).await.is_err());
    world.store.update_cell("zone2", Some("zone2:2181"), Some("/vitess")).await.unwrap();
    assert!(world.read().await.0.troubles().is_empty());
}

#[tokio::test]
async fn a_damaged_record_is_the_shards_that_it_was_read_for_names_or_is_listed_for() {
    let world = World::with(&["zone1"]).await;
    for (name, of) in [("zone1-1", "ks/0"), ("zone1-2", "ks/1"), ("zone1-3", "ks/0")] {
        world.add(name, of).await;
    }
    let whose = |read: &TopologyRead, name: &str| {
        read.unread_tablets[&alias(name)].shard.as_ref().map(ToString::to_string)
    };
    let (ks0, ks1) = (Some("ks/0".to_owned()), Some("ks/1".to_owned()));
    // It was read before.
    world.read().await;
    world.spoil("zone1-2", b"\xff");
    let list = paths::shard_replication(&shard("ks/1"));
    world.cells["zone1"].put(&list, b"");
    assert_eq!(whose(&world.read().await.0, "zone1-2"), ks1);
    // Nothing tells, for whoever starts now.
    let world = world.anew();
    assert_eq!(whose(&world.read().await.0, "zone1-2"), None);
    // It is listed, by one shard, then by two.
    let node = records::ShardReplicationNode {
        tablet_alias: Some(records::TabletAlias { cell: "zone1".into(), uid: 2 }),
    };
    let listing = records::ShardReplication { nodes: vec![node] }.encode_to_vec();
    world.cells["zone1"].put(&list, &listing);
    assert_eq!(whose(&world.read().await.0, "zone1-2"), ks1);
    assert_eq!(whose(&world.read_shard("ks/1").await.0, "zone1-2"), ks1);
    assert!(world.read_shard("ks/0").await.0.unread_tablets.is_empty(), "it is another's");
    world.cells["zone1"].put(&paths::shard_replication(&shard("ks/0")), &listing);
    assert_eq!(whose(&world.read().await.0, "zone1-2"), None);
    // It can be decoded and names its shard, but another tablet, or no port.
    let wrong = records::Tablet {
        alias: Some(records::TabletAlias { cell: "zone1".into(), uid: 9 }),
        keyspace: "ks".into(),
        shard: "0".into(),
        ..Default::default()
    };
    world.spoil("zone1-2", &wrong.encode_to_vec());
    let (read, _) = world.read().await;
    assert_eq!(whose(&read, "zone1-2"), ks0);
    assert_eq!(tablets(&read), 2, "those that can be read are");
}

#[tokio::test]
async fn a_damaged_shard_or_keyspace_hides_no_tablet() {
    let world = World::with(&["zone1"]).await;
    world.add("zone1-1", "ks/0").await;
    let name = shard("ks/0");
    for (path, of_shard) in [(paths::shard(&name), true), (paths::keyspace("ks"), false)] {
        let (good, _) = world.global.get(&path).await.unwrap();
        let before = merge(&BTreeMap::new(), world.read().await.0);
        world.global.put(&path, b"\xff\xff");
        for read in [world.read().await.0, world.read_shard("ks/0").await.0] {
            assert_eq!(read.shards[&name].tablets.len(), 1, "{path}");
            assert!(read.troubles().values().any(|one| one.why.contains(&path)), "{path}");
            let known = merge(&before, read.clone()).remove(&name).unwrap();
            assert_eq!(known.durability, Ok(DurabilityPolicy::SemiSync));
            assert_eq!(known.unread_record, of_shard.then_some(UnreadRecord::AsBefore));
            // For whoever starts now.
            let known = merge(&BTreeMap::new(), read).remove(&name).unwrap();
            assert_eq!(known.unread_record, of_shard.then_some(UnreadRecord::Never));
            assert_eq!(known.durability.is_ok(), of_shard);
        }
        world.global.put(&path, &good);
    }
}

#[tokio::test]
async fn whether_a_primary_serves_is_left_as_it_is() {
    let world = World::with(&["zone1"]).await;
    let path = paths::shard(&shard("ks/0"));
    for serves in [false, true] {
        let record = records::Shard { is_primary_serving: serves, ..Default::default() };
        world.global.put(&path, &record.encode_to_vec());
        let term = TermStart { seconds: 5, nanos: 0 };
        world.store.set_shard_primary(&shard("ks/0"), &alias("zone1-1"), term).await.unwrap();
        let (bytes, _) = world.global.get(&path).await.unwrap();
        let record = records::Shard::decode(bytes.as_slice()).unwrap();
        assert!(record.primary_alias.is_some());
        assert_eq!(record.is_primary_serving, serves);
    }
}

#[tokio::test]
async fn what_is_read_under_a_lock_or_to_be_changed_is_not_older_than_the_asking() {
    let world = World::with(&["zone1"]).await;
    world.add("zone1-1", "ks/0").await;
    let servers = [&world.global, &world.cells["zone1"]];
    let forget = || servers.iter().for_each(|server| server.lags());
    forget();
    world.read().await;
    assert!(servers.iter().all(|server| server.told_old()), "a watched reading need not wait");
    forget();
    world.read_shard("ks/0").await;
    assert!(!servers.iter().any(|server| server.told_old()));
    forget();
    let primary = TabletType::Primary;
    world.store.set_tablet_type(&alias("zone1-1"), primary, None).await.unwrap();
    assert!(!world.cells["zone1"].told_old());
}
