//! `lungate apply`.

use std::fmt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use lungate_catalog::store::Store;
use serde::Serialize;

use super::catalog_path;
use super::status::differences;
use crate::cli::Global;
use crate::network::own_addresses;
use crate::table::Table;

/// What `apply` did.
#[derive(Serialize)]
struct Applied {
    catalog: PathBuf,
    mappings: usize,
    changes: Vec<String>,
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.changes.iter().try_for_each(|change| writeln!(f, "{change}"))?;
        let Self { catalog, mappings, changes } = self;
        writeln!(f, "{}: {mappings} mappings, {} changes", catalog.display(), changes.len())
    }
}

pub(crate) fn apply(global: &Global, file: Option<PathBuf>) -> Result<()> {
    let mut table = Table::open(&global.pins())?;
    let path = match file {
        Some(file) => file,
        None => catalog_path(global, &table)?,
    };
    let path = path.canonicalize().with_context(|| format!("cannot open the catalog {}", path.display()))?;
    let view = Store::read(&path)?.gateway_view();
    let now = table.content()?;
    let wanted = table.wanted(&view, &now)?;
    let changes = differences(&now, &wanted);
    table.set_local(&own_addresses()?)?;
    table.make(&now, &wanted)?;
    table.set_catalog(&path)?;
    global.print(&Applied { catalog: path, mappings: wanted.forward.len(), changes })
}
