//! How full this process's allowance of memory and of processor time is, as the kernel tells it.
//!
//! What kills or throttles a process is the control group that holds it, so those are read first, each group on the way up
//! against its own limit; then the machine. A share is from 0 to 1, and 1 is where the kernel acts. Files are read anew each
//! time: limits of a container change while it runs. What cannot be read or understood is left out, never guessed.
//!
//! Reading blocks for some tens of microseconds; it belongs on the background thread.

mod memory;
mod processor;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use tokio::time::Instant;

use crate::config::{ControlGroup, control_groups};

/// Over how long the shares of stalled and of waiting time are averaged. The kernel's own `avg10` lags further behind than a
/// control loop may: what was refused would only show ten seconds later.
const SMOOTHING: Duration = Duration::from_secs(2);

/// What may run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Resource {
    /// Memory.
    Memory,
    /// Processor time.
    Cpu,
}

/// How full each resource is, from 0 to 1; none where nothing tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Pressure {
    /// Memory.
    pub memory: Option<f64>,
    /// Processor time since the sample before.
    pub cpu: Option<f64>,
}

/// What the process knows of itself without reading a file.
#[derive(Clone, Copy, Debug)]
pub struct Own {
    /// Processor time since its start.
    pub cpu_time: Duration,
    /// Cores it may run on.
    pub cores: u32,
}

/// Reads samples, each against the one before.
#[derive(Debug)]
pub struct Sampler {
    files: Files,
    before: Option<Counters>,
    stalled: f64,
    waited: f64,
}

/// The kernel's files.
#[derive(Debug)]
struct Files {
    root: PathBuf,
}

/// What only grows.
#[derive(Clone, Copy, Debug)]
struct Counters {
    at: Instant,
    cpu_time: Duration,
    stalled: Option<Duration>,
    waited: Option<Duration>,
}

impl Resource {
    /// The name in logs and figures.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
        }
    }
}

impl Own {
    /// As it is now.
    pub fn now() -> Self {
        let used = clock_gettime(ClockId::ProcessCPUTime);
        let seconds = u64::try_from(used.tv_sec).unwrap_or(0);
        let nanos = u32::try_from(used.tv_nsec).unwrap_or(0);
        let cores = rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count().max(1));
        Self { cpu_time: Duration::new(seconds, nanos), cores }
    }
}

impl Default for Sampler {
    fn default() -> Self {
        Self::at(Path::new("/"))
    }
}

impl Sampler {
    /// With `proc` and `sys` below another root.
    pub fn at(root: &Path) -> Self {
        Self { files: Files { root: root.to_owned() }, before: None, stalled: 0.0, waited: 0.0 }
    }

    /// Reads a sample. `memory_limit`: bytes that the process may take, whatever else allows more.
    pub fn look(&mut self, now: Instant, own: Own, memory_limit: Option<u64>) -> Pressure {
        let files = &self.files;
        let counters =
            Counters { at: now, cpu_time: own.cpu_time, stalled: files.stalls("memory"), waited: files.stalls("cpu") };
        let used = memory::used(files, memory_limit);
        let Some(before) = self.before.replace(counters) else { return Pressure { memory: used, cpu: None } };
        let passed = now.saturating_duration_since(before.at).as_secs_f64();
        if passed <= 0.0 {
            return Pressure { memory: used, cpu: None };
        }
        let weight = (passed / SMOOTHING.as_secs_f64()).min(1.0);
        let share = |before, after| Some((Duration::checked_sub(after?, before?)?.as_secs_f64() / passed).min(1.0));
        self.stalled += weight * (share(before.stalled, counters.stalled).unwrap_or(0.0) - self.stalled);
        self.waited += weight * (share(before.waited, counters.waited).unwrap_or(0.0) - self.waited);
        let taken = own.cpu_time.saturating_sub(before.cpu_time).as_secs_f64() / passed;
        let taken = taken / processor::allowance(files, own.cores);
        // Without a reading of memory in use, what stalls for it tells by itself.
        let memory = used.unwrap_or(0.0).max(2.0 * self.stalled).min(1.0);
        let told = used.is_some() || counters.stalled.is_some();
        Pressure { memory: told.then_some(memory), cpu: Some(taken.max(self.waited).min(1.0)) }
    }
}

impl Files {
    fn text(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.root.join(path)).ok()
    }

    fn in_group(&self, group: &ControlGroup, file: &str) -> Option<String> {
        self.text(&format!("{}/{file}", group.directory))
    }

    /// The groups of a controller that hold this process, the nearest first.
    fn groups(&self, controller: &str) -> Vec<ControlGroup> {
        control_groups(&self.text("proc/self/cgroup").unwrap_or_default(), controller)
    }

    /// How long tasks of the process's own group have waited for a resource so far. The root group's files tell of the whole
    /// machine; it alone has no `cgroup.type`.
    fn stalls(&self, resource: &str) -> Option<Duration> {
        let groups = self.groups("");
        let own = groups.iter().find(|group| group.unified && self.in_group(group, "cgroup.type").is_some())?;
        stall_total(&self.in_group(own, &format!("{resource}.pressure"))?)
    }
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=12345`, in microseconds.
fn stall_total(pressure: &str) -> Option<Duration> {
    let some = pressure.lines().find_map(|line| line.strip_prefix("some "))?;
    let total = some.split_ascii_whitespace().find_map(|field| field.strip_prefix("total="))?;
    total.parse().ok().map(Duration::from_micros)
}

#[cfg(test)]
mod tests;
