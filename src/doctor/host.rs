//! Which machine is looked at, and which cores a node can have there.
//!
//! A node may run on other cores than the shell that asks: a unit has its `CPUAffinity=`, and after `isolcpus=` every shell is kept off the cores that are
//! the shards'. So what counts is what a running node may run on, or what a node could be given; never what this process happens to have.
//!
//! Not here: which of these cores are the shards' (`config/table.rs`), sets of cores (`cores.rs`).

use super::cores::{Set, parse_list};
use super::kernel::pid_of_node;
use super::tree::Tree;
use crate::runtime::topology;
use std::path::Path;

/// The machine below a root.
#[derive(Debug)]
pub struct Host {
    pub(super) tree: Tree,
}

impl Host {
    /// The refusal says what is wrong with the root.
    pub fn at(root: &Path) -> Result<Host, String> {
        Ok(Host { tree: Tree::open(root)? })
    }

    /// Cores that a node can be given, ascending: those that run; of this machine those of them that its control groups let a process have.
    /// `None` where the machine does not tell.
    pub fn cores(&self) -> Option<Vec<usize>> {
        let online = self.online();
        if online.is_empty() {
            return None;
        }
        let within = if self.tree.is_copy() { None } else { topology::reachable_cpus(&online.iter().copied().collect::<Vec<_>>()) };
        within.or_else(|| Some(online.into_iter().collect()))
    }

    /// Cores that the node which runs on this data directory may run on, ascending; `None` where none runs.
    pub fn cores_of_node(&self, data_dir: &Path) -> Option<Vec<usize>> {
        let pid = pid_of_node(&self.tree, data_dir)?;
        topology::cpus_of_status(&self.tree.text(&format!("proc/{pid}/status"))?)
    }

    /// Cores that run; none where the machine does not tell.
    pub(super) fn online(&self) -> Set {
        self.tree.text("sys/devices/system/cpu/online").and_then(|text| parse_list(&text)).unwrap_or_default()
    }
}
