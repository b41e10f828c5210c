//! What `lungate serve` says.

use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

/// Something worth saying.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Event {
    /// Changes are followed from now on.
    Ready,
    /// Something has changed, and packets already go the new way.
    Followed(Changes),
    /// An interface of the gateway is not there any more.
    Vanished { interface: String },
    /// Interfaces have changed, and the tables could not be made equal to them yet.
    Behind { error: String },
    /// Neighbours that are in use; the kernel asks whether they are still there.
    Asked { neighbours: usize },
    /// The table was made equal to the catalog.
    Applied { catalog: PathBuf, changes: Vec<String> },
    /// The catalog cannot be applied; the table is as it was.
    Refused { catalog: PathBuf, error: String },
    /// Something could not be done, and will be tried again.
    Failed { error: String },
    /// A clean end.
    Ended,
}

/// How many messages of each kind made up a burst of changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Changes {
    pub(super) links: usize,
    pub(super) addresses: usize,
    pub(super) neighbours: usize,
    /// Routes, next hops and settings.
    pub(super) routes: usize,
    /// Rules of routing.
    pub(super) rules: usize,
    /// Messages were lost: everything was looked at again.
    pub(super) lost: bool,
}

/// Where it is said: a line of text on stderr, or a JSON object on stdout.
#[derive(Clone, Copy)]
pub(super) struct Reporter {
    json: bool,
}

/// An event and its time.
#[derive(Serialize)]
struct Line<'a> {
    /// Seconds since 1970.
    time: f64,
    #[serde(flatten)]
    event: &'a Event,
}

impl Reporter {
    pub(super) const fn new(json: bool) -> Self {
        Self { json }
    }

    /// Says it. Whoever reads may have gone; that keeps nothing from being followed.
    pub(super) fn say(self, event: &Event) {
        let mut stdout = std::io::stdout().lock();
        if self.json {
            let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
            if let Ok(line) = serde_json::to_string(&Line { time, event }) {
                let _ = writeln!(stdout, "{line}");
            }
        } else if matches!(event, Event::Ready) {
            let _ = writeln!(stdout, "{event}");
        } else if !event.is_routine() {
            let _ = writeln!(std::io::stderr(), "{event}");
        }
    }
}

impl Event {
    /// Neighbours are heard of and grow old all the time, which nobody wants to read.
    fn is_routine(&self) -> bool {
        matches!(
            self,
            Self::Followed(Changes { links: 0, addresses: 0, routes: 0, rules: 0, lost: false, .. })
        )
    }
}

impl Changes {
    pub(super) fn any(&self) -> bool {
        *self != Self::default()
    }

    /// Whether addresses, interfaces or rules have to be looked at anew.
    pub(super) fn surroundings(&self) -> bool {
        self.links > 0 || self.addresses > 0 || self.rules > 0 || self.lost
    }

    pub(super) fn add(&mut self, other: Self) {
        self.links += other.links;
        self.addresses += other.addresses;
        self.neighbours += other.neighbours;
        self.routes += other.routes;
        self.rules += other.rules;
        self.lost |= other.lost;
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => write!(f, "ready"),
            Self::Followed(changes) => {
                let Changes { links, addresses, neighbours, routes, rules, lost } = changes;
                let counts = [
                    ("links", links),
                    ("addresses", addresses),
                    ("neighbours", neighbours),
                    ("routes", routes),
                    ("rules", rules),
                ];
                let counts = counts.iter().filter(|(_, count)| **count > 0);
                let counts: Vec<_> = counts.map(|(what, count)| format!("{what} {count}")).collect();
                let lost = if *lost { "; messages were lost, so everything was looked at" } else { "" };
                write!(f, "followed changes: {}{lost}", counts.join(", "))
            }
            Self::Vanished { interface } => write!(
                f,
                "{interface} has vanished, and with it the programs on it: when it is back, 'lungate load --iface {interface}'"
            ),
            Self::Behind { error } => write!(f, "a change could not be followed yet: {error}"),
            Self::Asked { neighbours } => {
                write!(f, "{neighbours} neighbours in use have been silent: the kernel asks after them")
            }
            Self::Applied { catalog, changes } => {
                write!(f, "applied {}: {}", catalog.display(), changes.join("; "))
            }
            Self::Refused { catalog, error } => {
                write!(f, "{} is not applied, the table is as it was: {error}", catalog.display())
            }
            Self::Failed { error } => write!(f, "{error}"),
            Self::Ended => write!(f, "ended: changes are followed within 200 ms from now on"),
        }
    }
}
