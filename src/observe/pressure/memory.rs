//! Memory: the fullest of what bounds this process.

use super::{ControlGroup, Files};
use crate::config::kibibytes;

/// The share in use of the bound that is nearest.
pub(super) fn used(files: &Files, limit: Option<u64>) -> Option<f64> {
    let resident = files.text("proc/self/status").as_deref().and_then(|status| kibibytes(status, "VmRSS:"));
    let available = files.text("proc/meminfo").as_deref().and_then(|info| kibibytes(info, "MemAvailable:"));
    let machine =
        resident.zip(available).map(|(resident, available)| share(resident, resident.saturating_add(available)));
    let own = resident.zip(limit).map(|(resident, limit)| share(resident, limit));
    let groups = files.groups("memory");
    let fullest = groups.iter().filter_map(|group| of_group(files, group));
    fullest.chain(machine).chain(own).reduce(f64::max)
}

/// What a group uses, less file cache that the kernel takes back when it needs the room, of what it may.
fn of_group(files: &Files, group: &ControlGroup) -> Option<f64> {
    let number = |file| files.in_group(group, file)?.trim().parse::<u64>().ok();
    let (limit, used, cache) = if group.unified {
        let limit = [number("memory.max"), number("memory.high")].into_iter().flatten().min()?;
        (limit, number("memory.current")?, "inactive_file ")
    } else {
        (number("memory.limit_in_bytes")?, number("memory.usage_in_bytes")?, "total_inactive_file ")
    };
    let statistics = files.in_group(group, "memory.stat").unwrap_or_default();
    let cache = statistics.lines().find_map(|line| line.strip_prefix(cache)?.trim().parse().ok()).unwrap_or(0);
    Some(share(used.saturating_sub(cache), limit))
}

fn share(used: u64, of: u64) -> f64 {
    (used as f64 / of.max(1) as f64).min(1.0)
}
