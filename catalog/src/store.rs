//! The catalog's file and the journal beside it.
//!
//! A change is durable once its line stands in the journal (`FILE.journal`, one JSON object a line); the file
//! itself is rewritten later, so that a large catalog costs a move nothing. The file says in `generation` how
//! many changes it contains, so a journal that outlived a crash is never applied twice.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::change::{Change, ChangeError};
use crate::document::DocumentError;
use crate::model::Catalog;

/// An open catalog, locked against other commands until it is dropped.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    catalog: Catalog,
    journal: File,
    /// Where the line recorded last begins in the journal.
    last: Option<u64>,
    _lock: File,
}

/// What went wrong with the catalog's files. None of them leaves a half-written catalog behind.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file could not be read or written.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What came back.
        source: io::Error,
    },
    /// The file is not a catalog.
    #[error("{path} is not a valid catalog:\n{source}")]
    Document {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<DocumentError>,
    },
    /// A line of the journal cannot be read.
    #[error("{path}, line {line}, is not a change: {source}")]
    JournalLine {
        /// The journal.
        path: PathBuf,
        /// Its line, counted from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A line of the journal does not fit the file.
    #[error(
        "{path}, line {line}, does not fit the catalog it stands beside: {source}; the file was changed by hand while changes waited in the journal"
    )]
    JournalMisfit {
        /// The journal.
        path: PathBuf,
        /// Its line, counted from 1.
        line: usize,
        /// Why not.
        source: ChangeError,
    },
    /// The catalog could not be turned into text.
    #[error("cannot write the catalog as JSON: {0}")]
    Encode(#[from] serde_json::Error),
    /// The change breaks a rule.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The file is there already.
    #[error("{0} exists already and is not overwritten")]
    Exists(PathBuf),
}

/// A line of the journal.
#[derive(Serialize, Deserialize)]
struct Line {
    generation: u64,
    change: Change,
}

impl Store {
    /// Opens a catalog for changing it: waits for other commands, reads the file, replays the journal.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let lock = lock(path)?;
        let (catalog, length) = read_with_journal(path)?;
        let journal_path = beside(path, ".journal");
        let journal = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&journal_path)
            .map_err(io_error("open", &journal_path))?;
        // A line that a crash cut off was never acknowledged.
        journal.set_len(length).map_err(io_error("truncate", &journal_path))?;
        sync_folder(path)?;
        Ok(Self { path: path.to_owned(), catalog, journal, last: None, _lock: lock })
    }

    /// Creates a catalog where no file is yet.
    pub fn create(path: &Path, catalog: &Catalog) -> Result<Self, StoreError> {
        let lock = lock(path)?;
        if path.exists() {
            return Err(StoreError::Exists(path.to_owned()));
        }
        write_atomically(path, &catalog.to_text()?)?;
        drop(lock);
        Self::open(path)
    }

    /// Reads a catalog, journal included, without changing anything or waiting for anyone.
    pub fn read(path: &Path) -> Result<Catalog, StoreError> {
        Ok(read_with_journal(path)?.0)
    }

    /// The catalog as it stands, with every recorded change.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Makes one change and writes it down; when this returns, it survives a power cut.
    pub fn record(&mut self, change: Change) -> Result<(), StoreError> {
        self.catalog.change(&change)?;
        self.catalog.generation += 1;
        match self.append(&Line { generation: self.catalog.generation, change }) {
            Ok(start) => {
                self.last = Some(start);
                Ok(())
            }
            Err(error) => {
                self.reload()?;
                Err(error)
            }
        }
    }

    /// Takes back the change recorded last, once; does nothing where there is none.
    pub fn revert_last(&mut self) -> Result<(), StoreError> {
        let Some(start) = self.last.take() else { return Ok(()) };
        self.truncate(start)?;
        self.reload()
    }

    fn reload(&mut self) -> Result<(), StoreError> {
        self.catalog = read_with_journal(&self.path)?.0;
        Ok(())
    }

    /// Rewrites the file with every change in it and empties the journal.
    pub fn checkpoint(&mut self) -> Result<(), StoreError> {
        write_atomically(&self.path, &self.catalog.to_text()?)?;
        self.last = None;
        self.truncate(0)
    }

    fn append(&mut self, line: &Line) -> Result<u64, StoreError> {
        let path = beside(&self.path, ".journal");
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        let start = self.journal.seek(SeekFrom::End(0)).map_err(io_error("seek in", &path))?;
        let written = self.journal.write_all(&text).and_then(|()| self.journal.sync_data());
        if let Err(source) = written {
            // Half a line must not stay: the next one would be glued to it.
            let _ = self.journal.set_len(start);
            return Err(StoreError::Io { what: "append to", path, source });
        }
        Ok(start)
    }

    fn truncate(&mut self, length: u64) -> Result<(), StoreError> {
        let path = beside(&self.path, ".journal");
        self.journal
            .set_len(length)
            .and_then(|()| self.journal.sync_data())
            .map_err(io_error("truncate", &path))
    }
}

/// The catalog with the journal applied, and the journal's length up to its last whole line.
///
/// The journal is read before the file: a checkpoint in between then only makes its lines known already.
fn read_with_journal(path: &Path) -> Result<(Catalog, u64), StoreError> {
    let journal = beside(path, ".journal");
    let lines = match std::fs::read(&journal) {
        Ok(lines) => lines,
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(StoreError::Io { what: "read", path: journal, source }),
    };
    let text = std::fs::read(path).map_err(io_error("read", path))?;
    let mut catalog = Catalog::parse(&text)
        .map_err(|source| StoreError::Document { path: path.to_owned(), source: Box::new(source) })?;
    let whole = lines.iter().rposition(|&b| b == b'\n').map_or(0, |newline| newline + 1);
    for (i, line) in lines[..whole].split_inclusive(|&b| b == b'\n').enumerate() {
        let at = |i| (journal.clone(), i + 1);
        let line: Line = serde_json::from_slice(line).map_err(|source| {
            let (path, line) = at(i);
            StoreError::JournalLine { path, line, source }
        })?;
        if line.generation <= catalog.generation {
            continue;
        }
        catalog.change(&line.change).map_err(|source| {
            let (path, line) = at(i);
            StoreError::JournalMisfit { path, line, source }
        })?;
        catalog.generation = line.generation;
    }
    Ok((catalog, whole as u64))
}

/// Writes a file so that at every moment either the old text or the new one is there, whole.
fn write_atomically(path: &Path, text: &str) -> Result<(), StoreError> {
    let temporary = beside(path, ".new");
    let mut file = File::create(&temporary).map_err(io_error("create", &temporary))?;
    let written = file
        .set_permissions(PermissionsExt::from_mode(0o640))
        .and_then(|()| file.write_all(text.as_bytes()))
        .and_then(|()| file.sync_all());
    written.map_err(io_error("write", &temporary))?;
    std::fs::rename(&temporary, path).map_err(io_error("replace", path))?;
    sync_folder(path)
}

/// The lock is a file of its own: the catalog itself is replaced by a rename.
fn lock(path: &Path) -> Result<File, StoreError> {
    let path = beside(path, ".lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(io_error("open", &path))?;
    rustix::fs::flock(&file, FlockOperation::LockExclusive).map_err(|e| io_error("lock", &path)(e.into()))?;
    Ok(file)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// Makes the names in a file's folder durable, as a new file or a rename needs it.
fn sync_folder(path: &Path) -> Result<(), StoreError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io_error("sync the folder of", path))
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { what, path, source }
}
