//! `lungate apply`.

use std::fmt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use lungate_catalog::store::Store;
use serde::Serialize;

use super::catalog_path;
use super::status::differences;
use crate::batch;
use crate::cli::Global;
use crate::progress::Progress;
use crate::surroundings::refresh;
use crate::table::Table;

/// What `apply` did.
#[derive(Serialize)]
struct Applied {
    catalog: PathBuf,
    mappings: usize,
    /// The time in system calls that read and write the table, in milliseconds.
    kernel_ms: f64,
    changes: Vec<String>,
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.changes.iter().try_for_each(|change| writeln!(f, "{change}"))?;
        let Self { catalog, mappings, kernel_ms, changes } = self;
        let changes = changes.len();
        writeln!(f, "{}: {mappings} mappings, {changes} changes, {kernel_ms:.1} ms", catalog.display())
    }
}

pub(crate) fn apply(global: &Global, file: Option<PathBuf>) -> Result<()> {
    let mut table = Table::open(&global.pins())?;
    let path = match file {
        Some(file) => file,
        None => catalog_path(global, &table)?,
    };
    let path = path.canonicalize().with_context(|| format!("cannot open the catalog {}", path.display()))?;
    // Before the catalog is read, or a change made meanwhile would be undone in the kernel.
    let _lock = global.pins().lock()?;
    let progress = Progress::new();
    progress.phase(format!("reading the catalog {}", path.display()));
    let view = Store::read(&path)?.gateway_view();
    progress.phase("reading the kernel's table");
    let now = table.content()?;
    progress.phase("comparing");
    let wanted = table.wanted(&view, &now)?;
    let changes = differences(&now, &wanted);
    let plan = table.plan(&now, &wanted)?;
    progress.phase(format!("making {} changes", changes.len()));
    refresh(&global.pins())?;
    table.execute(&plan)?;
    table.set_catalog(&path)?;
    let kernel_ms = batch::spent().as_secs_f64() * 1e3;
    global.print(&Applied { catalog: path, mappings: wanted.forward.len(), kernel_ms, changes })
}
