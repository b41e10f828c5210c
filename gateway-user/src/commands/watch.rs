//! `lungate watch`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use aya::maps::MapInfo;
use aya::programs::loaded_programs;
use aya_log::EbpfLogger;
use log::{Log, Metadata, Record};
use lungate_gateway_common::verdict::Reason;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::Global;
use crate::links::links;
use crate::network::{Interface, interfaces};
use crate::object::PROGRAM;
use crate::pins::Pins;
use crate::table::Table;

/// How often what was dropped is looked for; a person sees no delay.
const INTERVAL: Duration = Duration::from_millis(50);
/// The name of the map in which aya's programs log.
const LOG: &str = "AYA_LOGS";

pub(crate) fn watch(global: &Global) -> Result<()> {
    let mut table = Table::open(&global.pins())?;
    let here = interfaces()?;
    let programs = logging(&global.pins(), &here)?;
    if programs.is_empty() {
        bail!("{PROGRAM} is attached to no interface of this network namespace");
    }
    let names = here.into_iter().map(|interface| (interface.index, interface.name)).collect::<Vec<_>>();
    let loggers = programs.into_iter().map(|program| {
        let printer = Printer { names: names.clone(), json: global.json };
        EbpfLogger::init_from_id_with_logger(program, printer)
            .with_context(|| format!("cannot read the log of program {program}"))
    });
    let mut loggers = loggers.collect::<Result<Vec<_>>>()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    table.set_log_drops(true)?;
    eprintln!("watching what is dropped; Ctrl-C ends it");
    let watched = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interval = tokio::time::interval(INTERVAL);
        loop {
            tokio::select! {
                _ = interval.tick() => loggers.iter_mut().for_each(EbpfLogger::flush),
                _ = interrupt.recv() => return Ok(()),
                _ = terminate.recv() => return Ok(()),
            }
        }
    });
    table.set_log_drops(false)?;
    watched
}

/// A program for each log of the gateway's programs: those that were loaded together share one.
fn logging(pins: &Pins, here: &[Interface]) -> Result<BTreeSet<u32>> {
    let is_here = |index| here.iter().any(|interface| interface.index == index);
    let linked: BTreeSet<u32> =
        links(pins)?.into_iter().filter(|link| is_here(link.interface)).map(|link| link.program).collect();
    let mut logs = BTreeMap::new();
    for program in loaded_programs().filter_map(Result::ok).filter(|program| linked.contains(&program.id())) {
        let maps = program.map_ids()?.unwrap_or_default();
        let is_log = |id: &u32| MapInfo::from_id(*id).is_ok_and(|map| map.name_as_str() == Some(LOG));
        logs.extend(maps.into_iter().find(is_log).map(|log| (log, program.id())));
    }
    Ok(logs.into_values().collect())
}

/// A packet that was dropped.
#[derive(Serialize)]
struct Dropped<'a> {
    /// Seconds since 1970.
    time: f64,
    reason: &'a str,
    interface: &'a str,
    /// Where it came from and went, as address and port, where its headers could be read.
    source: Option<String>,
    destination: Option<String>,
}

impl fmt::Display for Dropped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = |end: &Option<String>| end.clone().unwrap_or_else(|| "?".to_owned());
        let Self { time, reason, interface, source, destination } = self;
        write!(f, "{time:.3} {interface} {reason:<10} {} → {}", end(source), end(destination))
    }
}

/// Prints the program's log: "reason interface [source port destination port]", numbers but for the addresses.
struct Printer {
    names: Vec<(u32, String)>,
    json: bool,
}

impl Log for Printer {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let line = record.args().to_string();
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<u32>().ok());
        let reason =
            number(0).and_then(|index| Reason::ALL.into_iter().find(|reason| reason.index() == index));
        let interface = number(1).and_then(|index| self.names.iter().find(|(other, _)| *other == index));
        let end = |at: usize| {
            let address: std::net::Ipv6Addr = words.get(at)?.parse().ok()?;
            let port = u16::try_from(number(at + 1)?).ok()?;
            Some(std::net::SocketAddr::new(address.to_canonical(), port).to_string())
        };
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let dropped = Dropped {
            time: since.as_secs_f64(),
            reason: reason.map_or("?", Reason::name),
            interface: interface.map_or("?", |(_, name)| name.as_str()),
            source: end(2),
            destination: end(4),
        };
        let mut stdout = std::io::stdout().lock();
        // Whoever reads may have gone; Ctrl-C ends it in any case.
        let _ = if self.json {
            serde_json::to_string(&dropped).map_or(Ok(()), |text| writeln!(stdout, "{text}"))
        } else {
            writeln!(stdout, "{dropped}")
        };
    }

    fn flush(&self) {}
}
