//! Processes under measurement: pinned to a core, their CPU and memory read from `/proc`.

use std::{
    fs::{self, OpenOptions},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// `setpriv`'s words for the user `postgres`.
pub const AS_POSTGRES: [&str; 3] = ["--reuid=postgres", "--regid=postgres", "--clear-groups"];

/// A server that ends with its owner.
pub struct Server {
    child: Child,
}

impl Server {
    /// Starts `command` on `core`, its output in `log`, and waits until `port` accepts.
    pub fn start(command: &[String], core: &str, log: &Path, port: u16, envs: &[(&str, String)]) -> Result<Self> {
        Self::start_as(&[], command, core, log, port, envs)
    }

    /// The same as the user `postgres`, for what does not run as root.
    pub fn start_as_postgres(command: &[String], core: &str, log: &Path, port: u16) -> Result<Self> {
        Self::start_as(&AS_POSTGRES, command, core, log, port, &[])
    }

    fn start_as(
        user: &[&str],
        command: &[String],
        core: &str,
        log: &Path,
        port: u16,
        envs: &[(&str, String)],
    ) -> Result<Self> {
        let server = Self::begin(user, command, core, log, envs)?;
        let end = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if Instant::now() > end {
                bail!("{} does not listen; its output: {}", command[0], fs::read_to_string(log).unwrap_or_default());
            }
            sleep(Duration::from_millis(50));
        }
        Ok(server)
    }

    /// Begins `command` as the user that `setpriv` is told, and does not wait for it.
    pub fn begin(user: &[&str], command: &[String], core: &str, log: &Path, envs: &[(&str, String)]) -> Result<Self> {
        let out = OpenOptions::new().create(true).append(true).open(log)?;
        let child = Command::new("setpriv")
            .args(user)
            .args(["--pdeathsig", "KILL", "taskset", "-c", core])
            .args(command)
            .envs(envs.iter().map(|(key, value)| (*key, value)))
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { child })
    }

    /// Sends a signal to its first process, and waits until that has ended.
    pub fn end_by(&mut self, signal: &str) -> Result<()> {
        Command::new("kill").arg(format!("-{signal}")).arg(self.child.id().to_string()).status()?;
        self.child.wait()?;
        Ok(())
    }

    /// CPU seconds so far, of all its processes.
    pub fn cpu(&self) -> f64 {
        tree(self.child.id()).into_iter().filter_map(cpu_of).sum()
    }

    /// Resident memory in MiB, of all its processes.
    pub fn rss(&self) -> f64 {
        let of = |pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status.lines().find(|line| line.starts_with("VmRSS"))?.to_owned();
            line.split_whitespace().nth(1)?.parse::<f64>().ok()
        };
        tree(self.child.id()).into_iter().filter_map(of).sum::<f64>() / 1024.0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        for pid in tree(self.child.id()) {
            let _ = Command::new("kill").arg("-TERM").arg(pid.to_string()).stderr(Stdio::null()).status();
        }
        let end = Instant::now() + Duration::from_secs(5);
        while Instant::now() < end && matches!(self.child.try_wait(), Ok(None)) {
            sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tree(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut next = 0;
    while next < all.len() {
        let tasks = fs::read_dir(format!("/proc/{}/task", all[next])).into_iter().flatten().filter_map(Result::ok);
        for task in tasks {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
        next += 1;
    }
    all
}

fn cpu_of(pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    Some((fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?) / 100.0)
}

/// Whether a program is installed.
pub fn installed(program: &str) -> bool {
    let found = |dir: &str| Path::new(dir).join(program).exists();
    std::env::var("PATH").unwrap_or_default().split(':').chain(["/usr/sbin"]).any(found)
}

/// Runs a load generator on the load's core and returns what it printed.
pub fn load(command: &[String]) -> Result<String> {
    let output = Command::new("taskset").args(["-c", super::LOAD_CORE]).args(command).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}

/// The number before or after a word.
pub fn number_after(text: &str, word: &str) -> Option<f64> {
    let rest = &text[text.find(word)? + word.len()..];
    let rest = rest.trim_start();
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    rest[..end].parse().ok()
}

/// The number before a word.
pub fn number_before(text: &str, word: &str) -> Option<f64> {
    let before = text[..text.find(word)?].trim_end();
    let start = before.rfind(|c: char| !c.is_ascii_digit() && c != '.').map_or(0, |at| at + 1);
    before[start..].parse().ok()
}

/// Moves this process to `core`, all its threads. Where that cannot be, it stays where it is.
pub fn stay_on(core: &str) {
    let pid = std::process::id().to_string();
    let _ = Command::new("taskset").args(["-acp", core, &pid]).stdout(Stdio::null()).stderr(Stdio::null()).status();
}
