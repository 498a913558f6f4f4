//! What a default may depend on: the cores and the memory that this process may use.

use std::{fs, path::Path, sync::OnceLock};

/// Memory that one more connection must find, with its buffers, its statements and the answers it streams.
const BYTES_PER_CONNECTION: u64 = 64 << 20;

/// `size.max` of a pool that does not state it.
pub(super) fn default_pool_size() -> u32 {
    static SIZE: OnceLock<u32> = OnceLock::new();
    *SIZE.get_or_init(|| {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
        pool_size(cores, memory(Path::new("/")))
    })
}

/// Four a core, at most one for each 64 MiB, at least two.
fn pool_size(cores: u64, memory: Option<u64>) -> u32 {
    let by_memory = memory.map_or(u64::MAX, |bytes| bytes / BYTES_PER_CONNECTION);
    u32::try_from(cores.saturating_mul(4).min(by_memory).max(2)).unwrap_or(u32::MAX)
}

/// Bytes of memory: the machine's, or the least limit of the control groups that hold this process.
fn memory(root: &Path) -> Option<u64> {
    let read = |path: &str| fs::read_to_string(root.join(path)).ok();
    let machine = read("proc/meminfo").as_deref().and_then(|text| kibibytes(text, "MemTotal:"));
    let groups = control_groups(&read("proc/self/cgroup").unwrap_or_default(), "memory");
    let limits = groups.into_iter().filter_map(|group| {
        let file = if group.unified { "memory.max" } else { "memory.limit_in_bytes" };
        read(&format!("{}/{file}", group.directory))?.trim().parse().ok()
    });
    limits.chain(machine).min()
}

/// A line of `/proc/meminfo` or `/proc/PID/status`, in bytes.
pub(crate) fn kibibytes(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Where the files of a control group may lie.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ControlGroup {
    /// Version 2, one hierarchy for all controllers; else version 1.
    pub(crate) unified: bool,
    /// From the root of the file system, without its `/`.
    pub(crate) directory: String,
}

/// What `/proc/self/cgroup` says of a controller: version 2 (`0::/path`) and 1 (`4:memory:/path`), each group before its
/// ancestors. Inside a container the path is often of another root: then only the topmost is there, and it is the container's.
pub(crate) fn control_groups(groups: &str, controller: &str) -> Vec<ControlGroup> {
    let mut found = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (unified, root) = match controllers {
            "" => (true, "sys/fs/cgroup".to_owned()),
            list if list.split(',').any(|name| name == controller) => (false, format!("sys/fs/cgroup/{controller}")),
            _ => continue,
        };
        let ancestors = Path::new(path).ancestors().filter_map(Path::to_str);
        found.extend(ancestors.map(|path| {
            let directory = format!("{root}{}", path.trim_end_matches('/'));
            ControlGroup { unified, directory }
        }));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_fits_the_machine() {
        assert_eq!(pool_size(2, Some(8 << 30)), 8);
        assert_eq!(pool_size(64, Some(1 << 30)), 16);
        assert_eq!(pool_size(1, Some(64 << 20)), 2);
        assert_eq!(pool_size(4, None), 16);
    }

    #[test]
    fn the_least_limit_on_the_way_up_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert_eq!(memory(root.path()), None);
        write("proc/meminfo", "MemTotal:       16384 kB\nMemFree: 1 kB\n");
        assert_eq!(memory(root.path()), Some(16 << 20));
        write("proc/self/cgroup", "0::/system.slice/sluicegate.service\n");
        write("sys/fs/cgroup/system.slice/sluicegate.service/memory.max", "max\n");
        assert_eq!(memory(root.path()), Some(16 << 20));
        write("sys/fs/cgroup/system.slice/memory.max", "4194304\n");
        assert_eq!(memory(root.path()), Some(4 << 20));
        write("proc/self/cgroup", "5:cpu,memory:/docker/abc\n0::/\n");
        write("sys/fs/cgroup/memory/memory.limit_in_bytes", "2097152\n");
        assert_eq!(memory(root.path()), Some(2 << 20));
    }
}
