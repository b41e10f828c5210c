//! Commands that use a volume for a moment, without a front end.

use std::fmt;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use lungate_catalog::units::{BlockCount, Lba};
use lungate_catalog::view::HostView;
use lungate_host::driver::{Driver, Operation, PathStatus};
use lungate_iscsi::payload::Payload;
use serde::Serialize;

use super::config::Config;

/// What goes in one operation: long enough to keep every extent busy.
const CHUNK_BYTES: u64 = 4 * 1024 * 1024;

/// Where in which volume.
#[derive(clap::Args)]
pub(super) struct Place {
    /// The volume; needed where the configuration names several.
    #[arg(long, value_name = "NAME")]
    volume: Option<String>,
    /// The first block.
    #[arg(long)]
    lba: u64,
}

/// What `info` shows of a volume.
#[derive(Serialize)]
struct Info {
    name: String,
    target_name: String,
    serial: String,
    naa: String,
    vip: std::net::IpAddr,
    block_size: u32,
    blocks: u64,
    bytes: u64,
    extents: Vec<PathStatus>,
}

/// What `write` did.
#[derive(Serialize)]
struct Written {
    lba: u64,
    blocks: u64,
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "wrote and flushed {} blocks from LBA {} on", self.blocks, self.lba)
    }
}

pub(super) async fn info(config: &Config, views: Vec<HostView>, json: bool) -> Result<()> {
    let mut shown = Vec::new();
    for view in views {
        let driver = attach(config, view).await?;
        let view = driver.view();
        shown.push(Info {
            name: view.name.clone(),
            target_name: view.target_name.clone(),
            serial: view.identity.serial.clone(),
            naa: view.identity.naa.to_string(),
            vip: view.vip,
            block_size: view.block_size.get(),
            blocks: view.blocks.0,
            bytes: view.blocks.bytes(view.block_size).map_or(0, |bytes| bytes.0),
            extents: driver.status(),
        });
        driver.detach().await;
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&shown)?);
    } else {
        shown.iter().for_each(|info| print!("{info}"));
    }
    Ok(())
}

impl fmt::Display for Info {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, vip, blocks, block_size, bytes, .. } = self;
        writeln!(f, "{name}: {blocks} blocks of {block_size} bytes ({} MiB) at {vip}", bytes >> 20)?;
        writeln!(f, "  target {}, serial {}, naa {}", self.target_name, self.serial, self.naa)?;
        writeln!(f, "  {:>6} {:>14} {:>12}  state", "port", "first LBA", "blocks")?;
        for extent in &self.extents {
            let PathStatus { port, first_lba, blocks, state, .. } = extent;
            writeln!(f, "  {port:>6} {first_lba:>14} {blocks:>12}  {state}, identity as in the catalog")?;
        }
        Ok(())
    }
}

pub(super) async fn read(
    config: &Config,
    views: Vec<HostView>,
    place: &Place,
    blocks: u64,
    output: Option<&Path>,
) -> Result<()> {
    let view = choose(views, place)?;
    check_range(&view, place.lba, blocks)?;
    let mut output: Box<dyn Write> = match output {
        Some(path) => {
            Box::new(File::create(path).with_context(|| format!("cannot create {}", path.display()))?)
        }
        None => Box::new(std::io::stdout().lock()),
    };
    let driver = attach(config, view).await?;
    let chunk = CHUNK_BYTES / u64::from(driver.view().block_size.get());
    let mut next = 0;
    while next < blocks {
        let count = chunk.min(blocks - next);
        let lba = Lba(place.lba + next);
        let data =
            driver.execute(&Operation::Read { fua: false }, lba, BlockCount(count), &Payload::new()).await;
        for piece in
            data.map_err(|sense| anyhow!("reading {count} blocks at LBA {lba} failed: {sense}"))?.pieces()
        {
            output.write_all(piece).context("cannot write what was read")?;
        }
        next += count;
    }
    output.flush()?;
    driver.detach().await;
    Ok(())
}

pub(super) async fn write(
    config: &Config,
    views: Vec<HostView>,
    place: &Place,
    input: Option<&Path>,
    json: bool,
) -> Result<()> {
    let view = choose(views, place)?;
    let mut input: Box<dyn Read> = match input {
        Some(path) => Box::new(File::open(path).with_context(|| format!("cannot open {}", path.display()))?),
        None => Box::new(std::io::stdin().lock()),
    };
    check_range(&view, place.lba, 0)?;
    let driver = attach(config, view).await?;
    let block_size = u64::from(driver.view().block_size.get());
    let mut next = place.lba;
    loop {
        let mut chunk = Vec::new();
        input.by_ref().take(CHUNK_BYTES).read_to_end(&mut chunk).context("cannot read the input")?;
        if chunk.is_empty() {
            break;
        }
        let length = chunk.len() as u64;
        if !length.is_multiple_of(block_size) {
            bail!("the input ends inside a block of {block_size} bytes; what came before was written");
        }
        let count = length / block_size;
        check_range(driver.view(), next, count)?;
        let (lba, operation) = (Lba(next), Operation::Write { fua: false });
        let written = driver.execute(&operation, lba, BlockCount(count), &chunk.into()).await;
        written.map_err(|sense| anyhow!("writing {count} blocks at LBA {lba} failed: {sense}"))?;
        next += count;
    }
    let all = driver.view().blocks;
    let flushed = driver.execute(&Operation::Flush, Lba(0), all, &Payload::new()).await;
    flushed.map_err(|sense| anyhow!("flushing failed: {sense}"))?;
    driver.detach().await;
    let written = Written { lba: place.lba, blocks: next - place.lba };
    if json {
        println!("{}", serde_json::to_string(&written)?);
    } else {
        println!("{written}");
    }
    Ok(())
}

async fn attach(config: &Config, view: HostView) -> Result<Driver> {
    let name = view.name.clone();
    // One instance for each process: its sessions replace neither the daemon's nor those of another command.
    let instance = format!("command.{}", std::process::id());
    let attached = Driver::attach(view, &config.driver(&instance)).await;
    attached.with_context(|| format!("cannot attach volume {name}"))
}

fn choose(mut views: Vec<HostView>, place: &Place) -> Result<HostView> {
    let names = views.iter().map(|view| view.name.as_str()).collect::<Vec<_>>().join(", ");
    match &place.volume {
        Some(name) => {
            let at = views.iter().position(|view| view.name == *name);
            Ok(views.swap_remove(at.ok_or_else(|| anyhow!("no volume {name}; there is {names}"))?))
        }
        None if views.len() == 1 => Ok(views.remove(0)),
        None => bail!("several volumes are configured: name one with --volume: {names}"),
    }
}

fn check_range(view: &HostView, lba: u64, blocks: u64) -> Result<()> {
    match lba.checked_add(blocks) {
        Some(end) if end <= view.blocks.0 => Ok(()),
        _ => {
            bail!("LBA {lba} and {blocks} blocks from there: volume {} has {} blocks", view.name, view.blocks)
        }
    }
}
