//! Real servers on free ports in temporary directories, a gateway process, clients, and a proxy that makes faults.
//!
//! Every process started here dies with the test's (PR_SET_PDEATHSIG by `setpriv`) and is ended on drop. Nothing sleeps to
//! wait for something: [`eventually`] polls for the thing, and fails with what it saw last.

pub mod activity;
pub mod client;
pub mod config;
pub mod faults;
pub mod front;
pub mod gateway;
pub mod load;
pub mod nginx;
pub mod origin;
pub mod pgbouncer;
pub mod postgres;
pub mod standby;
pub mod tunnel;

use std::{
    fmt::Debug,
    fs,
    future::Future,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command},
    time::{Duration, Instant},
};

/// Four times what anything here should need; see how tests bind times.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Polls `look` until `enough` of what it returns, and returns that; panics with the last look after [`PATIENCE`].
pub async fn eventually<T: Debug, F: Future<Output = T>>(
    what: &str,
    mut look: impl FnMut() -> F,
    enough: impl Fn(&T) -> bool,
) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        let seen = look().await;
        if enough(&seen) {
            return seen;
        }
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}; last seen {seen:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A port that was free a moment ago, for servers that cannot take port 0.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A process that ends with its owner.
pub struct Process(pub Child);

impl Process {
    /// Its id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Sends a signal by name: `TERM`, `STOP`, `CONT`, `HUP`.
    pub fn signal(&self, name: &str) {
        signal(self.id(), name);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends a signal to a process.
pub fn signal(pid: u32, name: &str) {
    let _ = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status();
}

/// `setpriv --pdeathsig KILL PROGRAM`, as another user if one is given: dies with the thread that starts it.
pub fn mortal(program: &str, user: Option<&str>) -> Command {
    let mut command = Command::new("setpriv");
    if let Some(user) = user.filter(|_| rustix::process::getuid().is_root()) {
        command.args([format!("--reuid={user}"), format!("--regid={user}"), "--clear-groups".into()]);
    }
    command.args(["--pdeathsig", "KILL", program]);
    command
}

/// Writes a file beside the one it takes the place of, then renames it, as a deployment would.
pub fn replace_file(file: &Path, bytes: &[u8]) {
    let beside = file.with_extension("new");
    fs::write(&beside, bytes).unwrap();
    fs::rename(&beside, file).unwrap();
}

/// The components that only tests use, built by `make plugins-testing`.
pub fn testing_plugin(name: &str) -> PathBuf {
    component(&format!("testing/{name}"))
}

/// A component out of `plugins/dist`.
pub fn component(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("plugins/dist/{name}.wasm"));
    assert!(path.exists(), "{} is missing: run `make plugins-testing`", path.display());
    path
}

/// SHA-256 in hex, as a configuration holds a key's.
pub fn sha256(text: &str) -> String {
    use std::fmt::Write;

    use sha2::Digest;

    let mut hex = String::new();
    for byte in sha2::Sha256::digest(text) {
        write!(hex, "{byte:02x}").unwrap();
    }
    hex
}
