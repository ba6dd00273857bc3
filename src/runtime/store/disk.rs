//! The database on disk: made, examined, opened, committed to.
//!
//! A file is examined as an image in memory before it is opened, so that one that is damaged is never written to.
//! Invariants: a database file under its final name has always held at least one whole commit; every commit is
//! synced and carries its seal.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableError};
use ulid::Ulid;

use crate::runtime::record::{Stored, Write};
use crate::telemetry::contain_panics;

use super::error::StoreError;
use super::folder::{self, Mark};
use super::image::Image;
use super::record::{self, Key, SEAL, Table};
use super::seal::{SCHEMA, Seal, sealed, short_digest, to_hex, unsealed};

/// Page cache of an open database; records are read once, so that only the upper pages matter.
const CACHE_BYTES: usize = 8 << 20;

/// A longer file is no store of ours, or damaged beyond reading.
const MAX_BYTES: u64 = 1 << 30;

/// What a whole database file holds.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) stored: Stored,
    pub(super) seal: Seal,
    digests: BTreeMap<Key, u128>,
    /// False when the records are whole and the database's own bookkeeping had to be mended.
    clean: bool,
}

/// What one commit did.
struct Committed {
    seal: Seal,
    digests: Vec<(Key, Option<u128>)>,
    left_out: Vec<StoreError>,
}

/// An open database and what its last commit said.
#[derive(Debug)]
pub(super) struct Disk {
    path: PathBuf,
    /// None after a failed commit: it is examined and opened again before the next one.
    database: Option<Database>,
    seal: Seal,
    digests: BTreeMap<Key, u128>,
    mark: Mark,
}

impl Disk {
    /// Opens the database of a folder whose lock the caller holds, making it when there is none.
    pub(super) fn open(dir: &Path) -> Result<(Self, Stored), StoreError> {
        let path = dir.join(folder::DATABASE);
        let missing = !path.try_exists().map_err(|error| StoreError::io("look for", &path, error))?;
        if missing {
            create(dir, &path)?;
        }
        let mark = Mark::new(dir);
        let (database, loaded) = open_checked(&path, &mark)?;
        let Loaded { stored, seal, digests, .. } = loaded;
        Ok((Self { path, database: Some(database), seal, digests, mark }, stored))
    }

    /// Writes all of `writes`, or none, and returns once they are durable; with the records that had to be left out.
    pub(super) fn commit(&mut self, writes: &BTreeMap<Key, Write>) -> Result<Vec<StoreError>, StoreError> {
        self.reopen()?;
        let Some(database) = &self.database else { return Err(StoreError::Closed) };
        let outcome = guarded(|| transact(database, &self.seal, &self.digests, writes));
        match outcome {
            Ok(committed) => {
                self.seal = committed.seal;
                for (key, digest) in committed.digests {
                    match digest {
                        Some(digest) => self.digests.insert(key, digest),
                        None => self.digests.remove(&key),
                    };
                }
                self.mark.write(&self.seal.id, self.seal.seq);
                Ok(committed.left_out)
            }
            Err(why) => {
                // Whether the commit reached the disk is unknown: the next one starts from what the file then says.
                self.close();
                Err(StoreError::Write { path: self.path.clone(), why })
            }
        }
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        if self.database.is_none() {
            let (database, loaded) = open_checked(&self.path, &self.mark)?;
            self.seal = loaded.seal;
            self.digests = loaded.digests;
            self.database = Some(database);
        }
        Ok(())
    }

    /// Closes the database; a clean close saves the next open a repair.
    pub(super) fn close(&mut self) {
        if let Some(database) = self.database.take()
            && let Err(why) = guarded(|| {
                drop(database);
                Ok(())
            })
        {
            tracing::debug!(error = %why, path = %self.path.display(), "the store was not closed cleanly");
        }
    }
}

/// Reads what a folder holds without opening its database, also while another process writes to it.
pub(super) fn read_only(dir: &Path) -> Result<Loaded, StoreError> {
    /// How often a file that changes under the reader is read again.
    const TRIES: u32 = 50;
    const PAUSE: std::time::Duration = std::time::Duration::from_millis(20);
    let path = dir.join(folder::DATABASE);
    if !path.try_exists().map_err(|error| StoreError::io("look for", &path, error))? {
        return Err(StoreError::Missing { dir: dir.to_owned() });
    }
    let mut last = None;
    let mut tries = 0;
    loop {
        tries += 1;
        let bytes = read_file(&path)?;
        let copied = short_digest(&[&bytes]);
        match examine(&path, bytes) {
            // Pages that were copied while a commit wrote them look like damage, which does not change by itself.
            Err(StoreError::Corrupt { .. }) if tries < TRIES && last != Some(copied) => {
                last = Some(copied);
                std::thread::sleep(PAUSE);
            }
            outcome => return outcome,
        }
    }
}

/// Examines a file and, when it is whole, opens it.
fn open_checked(path: &Path, mark: &Mark) -> Result<(Database, Loaded), StoreError> {
    let loaded = examine(path, read_file(path)?)?;
    if let Some(acknowledged) = mark.read(&loaded.seal.id)
        && loaded.seal.seq < acknowledged
    {
        let why = format!("it ends with commit {}, and commit {acknowledged} had been written", loaded.seal.seq);
        return Err(StoreError::corrupt(path, why));
    }
    let file = folder::open_private(path).map_err(|error| StoreError::io("open", path, error))?;
    let database = guarded(|| {
        let mut database = Builder::new().set_cache_size(CACHE_BYTES).create_file(file)?;
        if !loaded.clean {
            database.check_integrity()?;
        }
        Ok(database)
    })
    .map_err(|why| StoreError::corrupt(path, why))?;
    if !loaded.clean {
        tracing::warn!(path = %path.display(), "the store's free space was miscounted and has been counted anew; its records are whole");
    }
    Ok((database, loaded))
}

fn read_file(path: &Path) -> Result<Vec<u8>, StoreError> {
    let failed = |error| StoreError::io("read", path, error);
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(StoreError::corrupt(path, "expected a file"));
    }
    if metadata.len() > MAX_BYTES {
        return Err(StoreError::corrupt(path, format!("it has {} bytes, and {MAX_BYTES} is the most", metadata.len())));
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(metadata.len() as usize).map_err(|error| failed(std::io::Error::other(error)))?;
    file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// Reads every record out of a file's bytes and holds them against their seal.
fn examine(path: &Path, bytes: Vec<u8>) -> Result<Loaded, StoreError> {
    if bytes.is_empty() {
        // The database would take an empty file for a new one.
        return Err(StoreError::corrupt(path, "it is empty"));
    }
    let tables = guarded(|| {
        let mut database = Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(Image::new(bytes))?;
        let clean = database.check_integrity()?;
        Ok((read_tables(&database)?, clean))
    });
    let (tables, clean) = tables.map_err(|why| StoreError::corrupt(path, why))?;
    unseal(path, tables, clean)
}

type Rows = Vec<(String, Vec<u8>)>;

fn read_tables(database: &Database) -> Result<Vec<(Table, Rows)>, redb::Error> {
    let transaction = database.begin_read()?;
    let mut tables = Vec::new();
    for name in Table::ALL {
        let table = match transaction.open_table(name.definition()) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => continue,
            Err(error) => return Err(error.into()),
        };
        let mut rows = Rows::new();
        for row in table.iter()? {
            let (key, value) = row?;
            rows.push((key.value().to_owned(), value.value().to_vec()));
        }
        tables.push((name, rows));
    }
    Ok(tables)
}

fn unseal(path: &Path, tables: Vec<(Table, Rows)>, clean: bool) -> Result<Loaded, StoreError> {
    let mut seal: Option<Seal> = None;
    let mut records = Vec::new();
    for (table, rows) in tables {
        let name = table.name();
        for (key, bytes) in rows {
            let Some((digest, json)) = unsealed(name, &key, &bytes) else {
                return Err(StoreError::corrupt(path, format!("record `{key}` of table `{name}` has changed")));
            };
            if table == Table::Meta && key == SEAL {
                seal = Some(read_seal(path, json)?);
            } else {
                records.push((table, key, digest, json.to_vec()));
            }
        }
    }
    let seal = seal.ok_or_else(|| StoreError::corrupt(path, "its seal is missing"))?;
    let sum = to_hex(records.iter().fold(0, |sum, (_, _, digest, _)| sum ^ digest));
    if seal.records != records.len() as u64 || seal.digest != sum {
        let why = format!("it holds {} records that do not add up to the {} of its seal", records.len(), seal.records);
        return Err(StoreError::corrupt(path, why));
    }
    let mut stored = Stored::default();
    let mut digests = BTreeMap::new();
    for (table, key, digest, json) in records {
        let decoded = record::decode(table, &key, &json, &mut stored).map_err(|error| {
            let name = table.name();
            StoreError::corrupt(path, format!("record `{key}` of table `{name}` cannot be understood: {error}"))
        })?;
        digests.insert(decoded, digest);
    }
    Ok(Loaded { stored, seal, digests, clean })
}

fn read_seal(path: &Path, json: &[u8]) -> Result<Seal, StoreError> {
    /// All that is known of a seal of any version.
    #[derive(serde::Deserialize)]
    struct AnySeal {
        schema: u32,
    }
    let misread = |error| StoreError::corrupt(path, format!("its seal cannot be understood: {error}"));
    let AnySeal { schema } = serde_json::from_slice(json).map_err(misread)?;
    if schema > SCHEMA {
        return Err(StoreError::Newer { path: path.to_owned(), found: schema, known: SCHEMA });
    }
    serde_json::from_slice(json).map_err(misread)
}

/// Makes a database with an empty seal beside its place, and then puts it there, so that no half-made one is ever met.
fn create(dir: &Path, path: &Path) -> Result<(), StoreError> {
    let fresh = dir.join("setpoint.redb.new");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(StoreError::io("remove", &fresh, error));
        }
        _ => {}
    }
    let file = folder::open_private(&fresh).map_err(|error| StoreError::io("create", &fresh, error))?;
    let seal = Seal { schema: SCHEMA, id: Ulid::generate().to_string(), seq: 0, records: 0, digest: to_hex(0) };
    guarded(|| {
        let database = Builder::new().set_cache_size(CACHE_BYTES).create_file(file)?;
        transact(&database, &seal, &BTreeMap::new(), &BTreeMap::new())
    })
    .map_err(|why| StoreError::Write { path: fresh.clone(), why })?;
    File::open(&fresh).and_then(|file| file.sync_all()).map_err(|error| StoreError::io("sync", &fresh, error))?;
    fs::rename(&fresh, path).map_err(|error| StoreError::io("rename the new store to", path, error))?;
    folder::sync_dir(dir)
}

/// One transaction: the writes, and the seal over what is there after them.
fn transact(
    database: &Database,
    seal: &Seal,
    digests: &BTreeMap<Key, u128>,
    writes: &BTreeMap<Key, Write>,
) -> Result<Committed, redb::Error> {
    let mut seal = seal.clone();
    let mut sum = seal.sum();
    let mut records = seal.records;
    let mut changed = Vec::with_capacity(writes.len());
    let mut left_out = Vec::new();
    // One commit with one sync: a torn one does not check out and falls back to the one before.
    let transaction = database.begin_write()?;
    {
        let [mut meta, mut policies, mut tasks, mut sources] = [
            transaction.open_table(Table::Meta.definition())?,
            transaction.open_table(Table::Policies.definition())?,
            transaction.open_table(Table::Tasks.definition())?,
            transaction.open_table(Table::Sources.definition())?,
        ];
        for (key, write) in writes {
            let json = match record::encode(write) {
                Ok(json) => json,
                Err(why) => {
                    left_out.push(StoreError::Unstorable { record: key.describe(), why });
                    continue;
                }
            };
            let rows = match key.table() {
                Table::Meta => &mut meta,
                Table::Policies => &mut policies,
                Table::Tasks => &mut tasks,
                Table::Sources => &mut sources,
            };
            let after = if let Some(json) = json {
                let (digest, bytes) = sealed(key.table().name(), key.text(), &json);
                rows.insert(key.text(), bytes.as_slice())?;
                Some(digest)
            } else {
                rows.remove(key.text())?;
                None
            };
            let before = digests.get(key).copied();
            sum ^= before.unwrap_or_default() ^ after.unwrap_or_default();
            records = records + u64::from(after.is_some()) - u64::from(before.is_some());
            changed.push((key.clone(), after));
        }
        seal = Seal { seq: seal.seq + 1, records, digest: to_hex(sum), ..seal };
        let json = serde_json::to_vec(&seal).map_err(|error| redb::Error::Io(error.into()))?;
        let (_, bytes) = sealed(Table::Meta.name(), SEAL, &json);
        meta.insert(SEAL, bytes.as_slice())?;
    }
    transaction.commit()?;
    Ok(Committed { seal, digests: changed, left_out })
}

/// Runs the database. It is free of panics on files that it wrote itself; on damaged ones nothing is promised, so a
/// panic counts as damage.
fn guarded<T>(work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, String> {
    match contain_panics(work) {
        Ok(outcome) => outcome.map_err(|error| error.to_string()),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
            Err(format!("the database gave up: {text}"))
        }
    }
}
