//! `lungate catalog`.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use lungate_catalog::model::Catalog as Document;
use lungate_catalog::store::Store;
use serde::Serialize;

use super::catalog_path;
use crate::cli::{Catalog, Global, View};
use crate::table::Table;

pub(crate) fn catalog(global: &Global, command: &Catalog) -> Result<()> {
    match command {
        Catalog::Check { file } => {
            let catalog = Store::read(file)?;
            global.print(&Checked {
                file: file.clone(),
                volumes: catalog.volumes.len(),
                devices: catalog.devices.len(),
                mappings: catalog.gateway_view().mappings.len(),
            })
        }
        Catalog::View(view) => self::view(&read(global)?, view),
    }
}

/// What a valid catalog holds.
#[derive(Serialize)]
struct Checked {
    file: PathBuf,
    volumes: usize,
    devices: usize,
    mappings: usize,
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, volumes, devices, mappings } = self;
        writeln!(f, "{}: valid: {volumes} volumes, {devices} devices, {mappings} mappings", file.display())
    }
}

fn view(catalog: &Document, view: &View) -> Result<()> {
    match view {
        View::Host { volume } => {
            let there = catalog.volumes.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            let view = catalog.host_view(volume);
            print(&view.with_context(|| format!("the catalog has no volume {volume:?}; there is {there}"))?)
        }
        View::Device { device } => {
            let there = catalog.devices.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            let view = catalog.device_view(device);
            print(&view.with_context(|| format!("the catalog has no device {device:?}; there is {there}"))?)
        }
        View::Gateway => print(&catalog.gateway_view()),
    }
}

/// The catalog named, or else the one that a loaded gateway uses.
fn read(global: &Global) -> Result<Document> {
    let path = match (&global.catalog, Table::open(&global.pins())) {
        (Some(path), _) => path.clone(),
        (None, Ok(table)) => catalog_path(global, &table)?,
        (None, Err(_)) => Path::new("/etc/lungate/catalog.json").to_owned(),
    };
    Ok(Store::read(&path)?)
}

fn print(view: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string_pretty(view)?);
    Ok(())
}
