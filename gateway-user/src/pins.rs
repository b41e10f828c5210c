//! Where program links and maps are pinned: `<root>/<layout version>/`, maps by name, links in `links/` by hook and
//! the index of their interface.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use lungate_gateway_common::table::LAYOUT;
use rustix::fs::{FlockOperation, flock, statfs};

use crate::links::Hook;

/// The type of a BPF file system (Linux `BPF_FS_MAGIC`).
const BPF_FS: u64 = 0xcafe_4a11;
/// The layout that `load` brings over to this one.
const LAYOUT_BEFORE: u32 = 1;
const LINKS: &str = "links";

/// The folders in which things are pinned.
#[derive(Clone, Debug)]
pub(crate) struct Pins {
    root: PathBuf,
    layout: PathBuf,
}

impl Pins {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), layout: root.join(LAYOUT.to_string()) }
    }

    /// The folder of this layout.
    pub(crate) fn folder(&self) -> &Path {
        &self.layout
    }

    /// The folder of the layout that `load` brings over to this one.
    pub(crate) fn folder_before(&self) -> PathBuf {
        self.root.join(LAYOUT_BEFORE.to_string())
    }

    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.layout.join(name)
    }

    /// The program that tells the time.
    pub(crate) fn clock(&self) -> PathBuf {
        self.layout.join("clock")
    }

    pub(crate) fn link(&self, hook: Hook, interface: u32) -> PathBuf {
        self.layout.join(LINKS).join(format!("{}-{interface}", hook.name()))
    }

    /// Whether a gateway is loaded.
    pub(crate) fn exist(&self) -> bool {
        there(&self.layout)
    }

    /// Whether a table of the layout before is there, still or half brought over.
    pub(crate) fn has_layout_before(&self) -> bool {
        there(&self.folder_before())
    }

    /// Refuses to work with a table that has not been brought over whole.
    pub(crate) fn check_upgraded(&self) -> Result<()> {
        if self.has_layout_before() {
            bail!(
                "{} holds a table of layout {LAYOUT_BEFORE} that is not brought over yet: 'lungate load --iface IF' does that",
                self.root.display()
            );
        }
        Ok(())
    }

    /// Refuses to go on beside a table of an unknown layout: it would be ignored in silence.
    pub(crate) fn check_layout(&self) -> Result<()> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => {
                let root = self.root.display();
                return Err(error).with_context(|| format!("cannot read {root} (are you root?)"));
            }
        };
        let known = [LAYOUT, LAYOUT_BEFORE].map(|layout| layout.to_string());
        for entry in entries {
            let name = entry?.file_name();
            if !known.iter().any(|known| name.as_encoded_bytes() == known.as_bytes()) {
                bail!(
                    "{} holds a table of layout {}, this lungate has layout {LAYOUT}: unload it with the lungate that loaded it",
                    self.root.display(),
                    name.display()
                );
            }
        }
        Ok(())
    }

    /// Refuses a root that does not lie on a BPF file system.
    pub(crate) fn check_file_system(&self) -> Result<()> {
        let above = self.root.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
        let system = statfs(above).with_context(|| format!("cannot look at {}", above.display()))?;
        if u64::try_from(system.f_type).unwrap_or(0) & 0xffff_ffff != BPF_FS {
            bail!(
                "{} does not lie on a BPF file system: mount one with 'mount -t bpf bpf /sys/fs/bpf'",
                self.root.display()
            );
        }
        Ok(())
    }

    /// Makes the folders, where the root lies on a BPF file system.
    pub(crate) fn create(&self) -> Result<()> {
        self.check_file_system()?;
        let links = self.layout.join(LINKS);
        fs::create_dir_all(&links)
            .with_context(|| format!("cannot create {} (are you root?)", links.display()))
    }

    /// The same, where the root may have to be made first.
    pub(crate) fn lock_or_create(&self) -> Result<File> {
        fs::create_dir_all(&self.root)
            .with_context(|| format!("cannot create {} (are you root?)", self.root.display()))?;
        self.lock()
    }

    /// Waits until no other command changes what is pinned, and keeps others waiting until the lock is dropped.
    pub(crate) fn lock(&self) -> Result<File> {
        let cannot = || format!("cannot lock {} (are you root?)", self.root.display());
        let root = File::open(&self.root).with_context(cannot)?;
        flock(&root, FlockOperation::LockExclusive).with_context(cannot)?;
        Ok(root)
    }

    /// The links that are pinned, by the index of their interface.
    pub(crate) fn links(&self) -> Result<BTreeSet<(u32, Hook)>> {
        Ok(names(&self.layout.join(LINKS))?.iter().filter_map(|name| link(name)).collect())
    }

    /// Path and interface of every link of the layout before.
    pub(crate) fn links_before(&self) -> Result<Vec<(PathBuf, u32)>> {
        let folder = self.folder_before().join(LINKS);
        let names = names(&folder)?;
        let link = |name: String| Some((folder.join(&name), name.parse().ok()?));
        Ok(names.into_iter().filter_map(link).collect())
    }

    /// Removes everything of this layout, links first: that detaches the program.
    pub(crate) fn remove(&self) -> Result<()> {
        remove(&self.layout)?;
        // Kept where something else lies in it.
        let _ = fs::remove_dir(&self.root);
        Ok(())
    }

    /// Removes everything of this layout, and nothing beside it.
    pub(crate) fn remove_layout(&self) -> Result<()> {
        remove(&self.layout)
    }

    /// Removes everything of the layout before.
    pub(crate) fn remove_before(&self) -> Result<()> {
        remove(&self.folder_before())
    }
}

fn remove(layout: &Path) -> Result<()> {
    for folder in [layout.join(LINKS), layout.to_owned()] {
        for name in names(&folder)? {
            let path = folder.join(name);
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
        match fs::remove_dir(&folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", folder.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The names in a folder, in order; none where there is no folder.
fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", folder.display())),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string().ok());
    }
    names.sort_unstable();
    Ok(names)
}

/// The interface and the hook that a pin's name means.
fn link(name: &str) -> Option<(u32, Hook)> {
    let (hook, interface) = name.split_once('-')?;
    let hook = Hook::ALL.into_iter().find(|known| known.name() == hook)?;
    Some((interface.parse().ok()?, hook))
}

/// Whether there is such a folder. One that may not be looked at counts: what is tried with it then says so.
fn there(folder: &Path) -> bool {
    folder.try_exists().unwrap_or(true)
}
