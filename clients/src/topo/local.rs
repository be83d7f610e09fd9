//! The topology as files in a directory: for one machine, the demo and tests.
//!
//! A record is a file; a version is a hash of its bytes; a record is replaced by renaming, so a reader never
//! sees half of one. A lock is a file locked with the operating system, which gives it back when its holder
//! dies, however it dies.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use notify::{RecursiveMode, Watcher};
use tokio::sync::Notify;
use vtorc_core::ids::KeyspaceShard;
use vtorc_core::ports::{LockToken, ShardLock, TopoError};

use super::conn::{TopoConn, Version};

/// How often a waiting locker looks again.
const LOCK_RETRY: Duration = Duration::from_millis(20);
/// Changes are looked for this often where the system cannot tell of them.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
const LOCK_FILE: &str = ".lock";
const WRITE_LOCK_FILE: &str = ".write-lock";

/// A directory that holds a topology.
pub struct LocalConn {
    root: PathBuf,
    changes: Arc<Notify>,
    watching: bool,
    _watcher: Mutex<Option<notify::RecommendedWatcher>>,
}

impl LocalConn {
    /// Opens the directory, creating it if it is missing.
    pub fn open(root: &Path) -> Result<Self, TopoError> {
        fs::create_dir_all(root).map_err(|error| unavailable(root, &error))?;
        let changes = Arc::new(Notify::new());
        let listener = changes.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let is_record = |path: &PathBuf| {
                let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
                name.is_none_or(|name| !name.starts_with('.'))
            };
            match event {
                Ok(event) if event.kind.is_access() => {}
                Ok(event) if !event.paths.iter().any(is_record) => {}
                Ok(_) | Err(_) => listener.notify_one(),
            }
        });
        let watcher = watcher.ok().and_then(|mut watcher| {
            watcher.watch(root, RecursiveMode::Recursive).ok()?;
            Some(watcher)
        });
        let watching = watcher.is_some();
        Ok(Self { root: root.to_owned(), changes, watching, _watcher: Mutex::new(watcher) })
    }

    fn file(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Keeps other writers, of this process and others, out until it is dropped.
    fn write_lock(&self) -> Result<File, TopoError> {
        let path = self.file(WRITE_LOCK_FILE);
        let file = open_lock(&path)?;
        file.lock().map_err(|error| unavailable(&path, &error))?;
        Ok(file)
    }
}

fn version(data: &[u8]) -> Version {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    data.hash(&mut hasher);
    Version(i64::from_ne_bytes(hasher.finish().to_ne_bytes()))
}

fn open_lock(path: &Path) -> Result<File, TopoError> {
    let opened = File::options().read(true).write(true).create(true).truncate(false).open(path);
    opened.map_err(|error| unavailable(path, &error))
}

fn unavailable(path: &Path, error: &io::Error) -> TopoError {
    TopoError::Unavailable(format!("{}: {error}", path.display()))
}

fn write_new(file: &Path, data: &[u8]) -> io::Result<()> {
    let partial = file.with_file_name(format!(".{}.part", std::process::id()));
    let mut out = File::create(&partial)?;
    out.write_all(data)?;
    out.sync_data()?;
    fs::rename(&partial, file)
}

#[async_trait]
impl TopoConn for LocalConn {
    async fn get(&self, path: &str) -> Result<(Vec<u8>, Version), TopoError> {
        match fs::read(self.file(path)) {
            Ok(data) => Ok((data.clone(), version(&data))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(TopoError::NoNode(path.to_owned()))
            }
            Err(error) => Err(unavailable(&self.file(path), &error)),
        }
    }

    async fn list(&self, path: &str) -> Result<Vec<String>, TopoError> {
        let directory = self.file(path);
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // A root that is gone is not an empty topology.
                if self.root.exists() {
                    return Ok(Vec::new());
                }
                return Err(unavailable(&self.root, &error));
            }
            Err(error) => return Err(unavailable(&directory, &error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| unavailable(&directory, &error))?;
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
        names.retain(|name| !name.starts_with('.'));
        names.sort();
        Ok(names)
    }

    async fn create(&self, path: &str, data: &[u8]) -> Result<(), TopoError> {
        let _guard = self.write_lock()?;
        let file = self.file(path);
        if file.exists() {
            return Err(TopoError::NodeExists(path.to_owned()));
        }
        if let Some(parent) = file.parent() {
            fs::create_dir_all(parent).map_err(|error| unavailable(parent, &error))?;
        }
        write_new(&file, data).map_err(|error| unavailable(&file, &error))
    }

    async fn update(&self, path: &str, data: &[u8], expected: Version) -> Result<(), TopoError> {
        let _guard = self.write_lock()?;
        let (_, current) = self.get(path).await?;
        if current != expected {
            return Err(TopoError::BadVersion(path.to_owned()));
        }
        let file = self.file(path);
        write_new(&file, data).map_err(|error| unavailable(&file, &error))
    }

    async fn delete(&self, path: &str) -> Result<(), TopoError> {
        let _guard = self.write_lock()?;
        let file = self.file(path);
        fs::remove_file(&file).map_err(|error| {
            let missing = error.kind() == io::ErrorKind::NotFound;
            if missing { TopoError::NoNode(path.to_owned()) } else { unavailable(&file, &error) }
        })?;
        let mut directory = file.parent();
        while let Some(parent) = directory.filter(|parent| *parent != self.root) {
            // Not empty: done. A lock file is not a record.
            let _ = fs::remove_file(parent.join(LOCK_FILE));
            if fs::remove_dir(parent).is_err() {
                break;
            }
            directory = parent.parent();
        }
        Ok(())
    }

    async fn catch_up(&self) -> Result<(), TopoError> {
        // The file is the record.
        Ok(())
    }

    async fn arm(&self) {}

    async fn changed(&self) {
        if self.watching {
            self.changes.notified().await;
        } else {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn lock(
        &self,
        path: &str,
        shard: &KeyspaceShard,
        contents: &str,
        patience: Duration,
    ) -> Result<Box<dyn ShardLock>, TopoError> {
        let directory = self.file(path);
        if !directory.is_dir() {
            return Err(TopoError::NoNode(path.to_owned()));
        }
        let lock_path = directory.join(LOCK_FILE);
        let started = Instant::now();
        loop {
            let mut file = open_lock(&lock_path)?;
            match file.try_lock() {
                Ok(()) => {
                    let write = |file: &mut File| {
                        file.set_len(0)?;
                        file.rewind()?;
                        file.write_all(contents.as_bytes())
                    };
                    write(&mut file).map_err(|error| unavailable(&lock_path, &error))?;
                    return Ok(Box::new(LocalLock { path: lock_path, file: Mutex::new(file) }));
                }
                Err(TryLockError::WouldBlock) if started.elapsed() < patience => {
                    tokio::time::sleep(LOCK_RETRY).await;
                }
                Err(TryLockError::WouldBlock) => {
                    let mut holder = String::new();
                    // Only for the message.
                    let _ = file.read_to_string(&mut holder);
                    return Err(TopoError::Locked {
                        shard: shard.clone(),
                        holder: one_line(&holder),
                    });
                }
                Err(TryLockError::Error(error)) => return Err(unavailable(&lock_path, &error)),
            }
        }
    }

    async fn give_back(&self, _: &str, _: &LockToken) -> Result<(), TopoError> {
        // The operating system did when the process ended.
        Ok(())
    }
}

/// What a lock's contents say, on one line.
pub(crate) fn one_line(contents: &str) -> String {
    contents.split_whitespace().collect::<Vec<_>>().join(" ")
}

struct LocalLock {
    path: PathBuf,
    file: Mutex<File>,
}

impl LocalLock {
    fn held(&self) -> MutexGuard<'_, File> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl ShardLock for LocalLock {
    fn token(&self) -> Option<LockToken> {
        None
    }

    async fn check(&self) -> Result<(), TopoError> {
        use std::os::unix::fs::MetadataExt;
        // The operating system keeps the lock for us; only the file itself could be replaced.
        let lost = |why: String| TopoError::LockLost(why);
        let on_disk = fs::metadata(&self.path).map_err(|error| lost(error.to_string()))?;
        let ours = self.held().metadata().map_err(|error| lost(error.to_string()))?;
        if (on_disk.dev(), on_disk.ino()) == (ours.dev(), ours.ino()) {
            Ok(())
        } else {
            Err(lost("its file was replaced".into()))
        }
    }

    async fn release(self: Box<Self>) {
        let file = self.held();
        // Closing the file gives the lock back in any case.
        let _ = file.set_len(0);
    }
}
