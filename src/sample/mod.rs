//! What tasks use: CPU, memory, network, block I/O and processes, from counters that somebody else keeps.
//!
//! The formulas are those of `docker stats`, so that what scripts see is what people see. A [`Sampler`] holds what
//! it takes to turn counters into figures for a set of containers: straight from the files of their control groups
//! when those can be read here, else from their engine's answers. It knows no engine and no client library: whoever
//! owns one gives it as a [`ContainerSource`].
//!
//! Invariants:
//! - a share of CPU comes from two readings of the same run of a container; before that there is none, never 0;
//! - a container that does not run has no figures;
//! - nothing is read of a control group that does not carry the container's id, so a process id of another machine
//!   never leads to somebody else's figures.

mod cgroup;
mod delta;
mod engine;
mod files;
mod machine;
mod remote;
mod sampler;

pub use cgroup::{ContainerFiles, mounted_at};
pub use delta::CpuMeter;
pub use engine::{
    BlockCounter, BlockCounters, CpuCounters, CpuUsage, EngineAnswer, MemoryCounters, NetworkCounters, PidsCounters,
};
pub use machine::Machine;
pub use sampler::{ContainerSource, Located, Sampler};

use crate::core::model::TaskStats;

/// CPU time that a container and its machine have had so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuReading {
    /// The container's, in nanoseconds.
    pub used: u64,
    /// The machine's, idle time included, over all cores, in nanoseconds.
    pub machine: u64,
    /// Cores that the machine has online.
    pub cores: u32,
}

/// One look at a container: counters since its start and levels of now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    /// CPU time; none where the machine's was not to be had.
    pub cpu: Option<CpuReading>,
    /// Everything that one look is enough for.
    pub stats: TaskStats,
}

impl Reading {
    /// The figures, with the share of CPU since the meter's last reading.
    pub fn figures(&self, meter: &mut CpuMeter) -> TaskStats {
        let cpu_percent = self.cpu.and_then(|cpu| meter.read(cpu.used, cpu.machine, cpu.cores));
        TaskStats { cpu_percent, ..self.stats }
    }
}
