//! `lungate watch`.

use std::collections::BTreeSet;
use std::fmt;
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use aya_log::EbpfLogger;
use log::{Log, Metadata, Record};
use lungate_gateway_common::verdict::Reason;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::Global;
use crate::links::Hook;
use crate::network::interfaces;
use crate::object::PROGRAM;
use crate::table::Table;

/// How often what was dropped is looked for; a person sees no delay.
const INTERVAL: Duration = Duration::from_millis(50);

pub(crate) fn watch(global: &Global) -> Result<()> {
    let mut table = Table::open(&global.pins())?;
    let here = interfaces()?;
    let linked = global.pins().links()?;
    let programs: BTreeSet<u32> = here
        .iter()
        .filter(|interface| linked.contains(&(interface.index, Hook::Xdp)))
        .filter_map(|interface| interface.xdp.map(|xdp| xdp.program))
        .collect();
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
