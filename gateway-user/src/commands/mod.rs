//! The commands. Each fills one structure that is printed as text or as JSON.

pub(crate) mod apply;
pub(crate) mod catalog;
pub(crate) mod check;
pub(crate) mod load;
pub(crate) mod map;
pub(crate) mod serve;
pub(crate) mod stats;
pub(crate) mod status;
pub(crate) mod watch;

use std::path::PathBuf;

use anyhow::Result;

use crate::cli::Global;
use crate::table::Table;

/// The catalog to use: the one named, or else the one applied last, or else the usual one.
fn catalog_path(global: &Global, table: &Table) -> Result<PathBuf> {
    let applied = match &global.catalog {
        Some(path) => Some(path.clone()),
        None => table.catalog()?,
    };
    Ok(applied.unwrap_or_else(|| PathBuf::from("/etc/lungate/catalog.json")))
}
