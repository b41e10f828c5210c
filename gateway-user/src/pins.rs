//! Where program links and maps are pinned: `<root>/<layout version>/`, maps by name, links in `links/` by their
//! hook and the index of their interface.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use lungate_gateway_common::table::LAYOUT;
use rustix::fs::statfs;

use crate::links::Hook;

/// The type of a BPF file system (Linux `BPF_FS_MAGIC`).
const BPF_FS: u64 = 0xcafe_4a11;

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

    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.layout.join(name)
    }

    pub(crate) fn link(&self, hook: Hook, interface: u32) -> PathBuf {
        self.layout.join("links").join(format!("{}-{interface}", hook.name()))
    }

    /// Whether a gateway is loaded.
    pub(crate) fn exist(&self) -> bool {
        self.layout.exists()
    }

    /// Refuses to go on beside a table of another layout: it would be ignored in silence.
    pub(crate) fn check_layout(&self) -> Result<()> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => {
                let root = self.root.display();
                return Err(error).with_context(|| format!("cannot read {root} (are you root?)"));
            }
        };
        for entry in entries {
            let name = entry?.file_name();
            if name.as_encoded_bytes() != LAYOUT.to_string().as_bytes() {
                bail!(
                    "{} holds a table of layout {}, this lungate has layout {LAYOUT}: unload it with the lungate that loaded it",
                    self.root.display(),
                    name.display()
                );
            }
        }
        Ok(())
    }

    /// Makes the folders, where the root lies on a BPF file system.
    pub(crate) fn create(&self) -> Result<()> {
        let above = self.root.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
        let system = statfs(above).with_context(|| format!("cannot look at {}", above.display()))?;
        if u64::try_from(system.f_type).unwrap_or(0) & 0xffff_ffff != BPF_FS {
            bail!(
                "{} does not lie on a BPF file system: mount one with 'mount -t bpf bpf /sys/fs/bpf'",
                self.root.display()
            );
        }
        let links = self.layout.join("links");
        fs::create_dir_all(&links)
            .with_context(|| format!("cannot create {} (are you root?)", links.display()))
    }

    /// The links that are pinned, by the index of their interface.
    pub(crate) fn links(&self) -> Result<BTreeSet<(u32, Hook)>> {
        let folder = self.layout.join("links");
        let mut links = BTreeSet::new();
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(links),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", folder.display())),
        };
        for entry in entries {
            links.extend(entry?.file_name().to_str().and_then(link));
        }
        Ok(links)
    }

    /// Removes everything of this layout, links first: that detaches the program.
    pub(crate) fn remove(&self) -> Result<()> {
        for folder in [self.layout.join("links"), self.layout.clone()] {
            let entries =
                fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
            for entry in entries {
                let path = entry?.path();
                fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
            }
            fs::remove_dir(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        // Kept where something else lies in it.
        let _ = fs::remove_dir(&self.root);
        Ok(())
    }
}

/// The interface and the hook that a pin's name means.
fn link(name: &str) -> Option<(u32, Hook)> {
    let (hook, interface) = name.split_once('-')?;
    let hook = Hook::ALL.into_iter().find(|known| known.name() == hook)?;
    Some((interface.parse().ok()?, hook))
}
