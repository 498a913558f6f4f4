//! Against files as kernels have written them, and as none has.

use proptest::prelude::*;

use super::*;

/// Files below a root of their own.
struct Kernel {
    root: tempfile::TempDir,
}

impl Kernel {
    fn with(files: &[(&str, &str)]) -> Self {
        let kernel = Self { root: tempfile::tempdir().unwrap() };
        for (path, text) in files {
            kernel.write(path, text);
        }
        kernel
    }

    fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn sampler(&self) -> Sampler {
        Sampler::at(self.root.path())
    }

    fn memory(&self) -> Option<f64> {
        self.sampler().look(Instant::now(), IDLE, None).memory
    }

    /// The processor's share when `taken` of each second was the process's own, over ten seconds.
    fn cpu(&self, taken: f64, cores: u32) -> f64 {
        let (mut sampler, now) = (self.sampler(), Instant::now());
        sampler.look(now, Own { cpu_time: Duration::ZERO, cores }, None);
        let cpu_time = Duration::from_secs_f64(10.0 * taken);
        sampler.look(now + Duration::from_secs(10), Own { cpu_time, cores }, None).cpu.unwrap()
    }
}

const IDLE: Own = Own { cpu_time: Duration::ZERO, cores: 2 };
const GROUP: &str = "sys/fs/cgroup/system.slice/sluicegate.service";

/// As systemd's unit with `MemoryMax=512M`, `MemoryHigh=400M` and `CPUQuota=150%` has them.
const VERSION_2: [(&str, &str); 9] = [
    ("proc/self/cgroup", "0::/system.slice/sluicegate.service\n"),
    ("sys/fs/cgroup/system.slice/sluicegate.service/cgroup.type", "domain\n"),
    ("sys/fs/cgroup/system.slice/sluicegate.service/memory.max", "536870912\n"),
    ("sys/fs/cgroup/system.slice/sluicegate.service/memory.high", "419430400\n"),
    ("sys/fs/cgroup/system.slice/sluicegate.service/memory.current", "314572800\n"),
    (
        "sys/fs/cgroup/system.slice/sluicegate.service/memory.stat",
        "anon 188743680\nfile 120586240\nkernel 4194304\ninactive_anon 0\nactive_anon 188743680\n\
         inactive_file 104857600\nactive_file 15728640\n",
    ),
    ("sys/fs/cgroup/system.slice/sluicegate.service/cpu.max", "150000 100000\n"),
    ("sys/fs/cgroup/system.slice/memory.max", "max\n"),
    ("sys/fs/cgroup/system.slice/cpu.max", "max 100000\n"),
];

#[test]
fn a_group_of_version_2_is_as_full_as_it_is_without_its_idle_file_cache() {
    let kernel = Kernel::with(&VERSION_2);
    assert_eq!(kernel.memory(), Some(0.5), "200 of 400 MiB");
    kernel.write(&format!("{GROUP}/memory.high"), "max\n");
    assert_eq!(kernel.memory(), Some(0.390_625), "200 of 512 MiB");
    kernel.write(&format!("{GROUP}/memory.current"), "1073741824\n");
    assert_eq!(kernel.memory(), Some(1.0), "over its limit is full");
}

#[test]
fn the_fullest_group_on_the_way_up_counts() {
    let kernel = Kernel::with(&VERSION_2);
    kernel.write("sys/fs/cgroup/system.slice/memory.max", "1073741824\n");
    kernel.write("sys/fs/cgroup/system.slice/memory.current", "966367641\n");
    assert!((kernel.memory().unwrap() - 0.9).abs() < 1e-6);
}

#[test]
fn a_group_of_version_1_is_read_by_its_own_names() {
    let kernel = Kernel::with(&[
        ("proc/self/cgroup", "12:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n0::/\n"),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "268435456\n"),
        ("sys/fs/cgroup/memory/memory.usage_in_bytes", "201326592\n"),
        ("sys/fs/cgroup/memory/memory.stat", "cache 7\ninactive_file 1\ntotal_inactive_file 67108864\n"),
        ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n"),
        ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
    ]);
    assert_eq!(kernel.memory(), Some(0.5));
    assert!((kernel.cpu(0.4, 8) - 0.8).abs() < 1e-9, "0.4 of half a core");
    kernel.write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
    assert!((kernel.cpu(0.4, 8) - 0.05).abs() < 1e-9, "0.4 of eight cores");
    kernel.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    assert!(kernel.memory().unwrap() < 1e-9, "no limit");
}

#[test]
fn without_groups_the_machine_bounds_the_process() {
    let kernel = Kernel::with(&[
        ("proc/meminfo", "MemTotal:       16384 kB\nMemFree:  1 kB\nMemAvailable:   3072 kB\n"),
        ("proc/self/status", "Name:\tsluicegate\nVmHWM:\t    4096 kB\nVmRSS:\t    1024 kB\n"),
    ]);
    assert_eq!(kernel.memory(), Some(0.25));
    let limited = kernel.sampler().look(Instant::now(), IDLE, Some(2 << 20));
    assert_eq!(limited.memory, Some(0.5), "a limit of one's own");
    let generous = kernel.sampler().look(Instant::now(), IDLE, Some(1 << 40));
    assert_eq!(generous.memory, Some(0.25), "takes nothing away from the others");
}

#[test]
fn the_machine_counts_where_it_is_fuller_than_the_group() {
    let kernel = Kernel::with(&VERSION_2);
    kernel.write("proc/meminfo", "MemAvailable: 100 kB\n");
    kernel.write("proc/self/status", "VmRSS: 900 kB\n");
    assert_eq!(kernel.memory(), Some(0.9));
}

#[test]
fn processor_time_is_of_the_quota_or_of_the_cores() {
    let kernel = Kernel::with(&VERSION_2);
    assert!((kernel.cpu(1.2, 4) - 0.8).abs() < 1e-9, "1.2 of 1.5");
    assert!((kernel.cpu(0.8, 1) - 0.8).abs() < 1e-9, "one core is less than the quota");
    assert!((kernel.cpu(9.0, 4) - 1.0).abs() < 1e-9, "at most all of it");
    kernel.write("sys/fs/cgroup/system.slice/cpu.max", "100000 100000\n");
    assert!((kernel.cpu(0.5, 4) - 0.5).abs() < 1e-9, "the least on the way up");
    assert!((Kernel::with(&[]).cpu(0.5, 2) - 0.25).abs() < 1e-9, "no group");
}

#[test]
fn time_spent_waiting_counts_where_the_kernel_tells() {
    let kernel = Kernel::with(&VERSION_2);
    let stalls = |resource: &str, total: u64| {
        let text = format!("some avg10=0.00 avg60=0.00 avg300=0.00 total={total}\nfull avg10=0.00 total=1\n");
        kernel.write(&format!("{GROUP}/{resource}.pressure"), text);
    };
    let (mut sampler, mut now) = (kernel.sampler(), Instant::now());
    stalls("cpu", 1_000);
    stalls("memory", 2_000);
    let first = sampler.look(now, IDLE, None);
    assert_eq!((first.memory, first.cpu), (Some(0.5), None), "no time has passed");
    now += Duration::from_secs(2);
    stalls("cpu", 1_801_000);
    stalls("memory", 802_000);
    let second = sampler.look(now, IDLE, None);
    assert!((second.cpu.unwrap() - 0.9).abs() < 1e-9 && (second.memory.unwrap() - 0.8).abs() < 1e-9, "{second:?}");
    now += Duration::from_secs(1);
    let third = sampler.look(now, IDLE, None);
    assert!((third.cpu.unwrap() - 0.45).abs() < 1e-9 && (third.memory.unwrap() - 0.5).abs() < 1e-9, "{third:?}");
}

#[test]
fn the_whole_machines_stalls_are_not_the_processs_own() {
    let kernel = Kernel::with(&[("proc/self/cgroup", "0::/\n")]);
    let write = |total: u64| {
        let text = format!("some avg10=99.00 total={total}\n");
        let _ = ["cpu", "memory"].map(|resource| kernel.write(&format!("sys/fs/cgroup/{resource}.pressure"), &text));
    };
    write(0);
    let (mut sampler, now) = (kernel.sampler(), Instant::now());
    sampler.look(now, IDLE, None);
    write(1_000_000);
    let after = sampler.look(now + Duration::from_secs(1), IDLE, None);
    assert_eq!(after, Pressure { memory: None, cpu: Some(0.0) });
}

#[test]
fn nothing_to_read_is_nothing_told() {
    assert_eq!(Kernel::with(&[]).memory(), None);
}

#[test]
fn this_machine_can_be_read() {
    let (mut sampler, now) = (Sampler::default(), Instant::now());
    sampler.look(now, Own::now(), None);
    let pressure = sampler.look(now + Duration::from_secs(1), Own::now(), None);
    let told = |share: Option<f64>| share.is_some_and(|share| (0.0..=1.0).contains(&share));
    assert!(told(pressure.memory) && told(pressure.cpu), "{pressure:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn garbage_is_no_reading_out_of_bounds(
        texts in prop::collection::vec(prop_oneof![
            Just("max\n".to_owned()), "-?[0-9]{1,25}\n", "[0-9]{1,3} [0-9]{1,3}", ".*",
            "some avg10=[0-9]{1,3} total=[0-9]{1,20}", "inactive_file [0-9]{1,20}", "VmRSS: [0-9]{1,20} kB",
        ], 14),
        seconds in 0_u64..5,
    ) {
        let kernel = Kernel::with(&[("proc/self/cgroup", "0::/a/b\n3:memory,cpu:/c\n")]);
        let names = [
            "a/b/memory.max", "a/b/memory.high", "a/b/memory.current", "a/b/memory.stat", "a/b/cpu.max", "a/b/cpu.pressure",
            "a/b/memory.pressure", "a/cpu.max", "memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes",
            "cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us", "a/b/cgroup.type",
        ];
        for (name, text) in names.iter().zip(&texts) {
            kernel.write(&format!("sys/fs/cgroup/{name}"), text);
        }
        kernel.write("proc/self/status", &texts[13]);
        let (mut sampler, now) = (kernel.sampler(), Instant::now());
        for step in 0..3_u32 {
            let own = Own { cpu_time: Duration::from_millis(700) * step, cores: 2 };
            let pressure = sampler.look(now + Duration::from_secs(seconds) * step, own, Some(u64::from(step)));
            for share in [pressure.memory, pressure.cpu].into_iter().flatten() {
                prop_assert!((0.0..=1.0).contains(&share), "{pressure:?}");
            }
        }
    }
}
