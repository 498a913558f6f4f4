//! From component to machine code, in a process of its own.
//!
//! A compiler fed by strangers may take for ever, eat the memory, or crash. So the gateway runs itself again as `plugin
//! compile`, with a limit on memory and CPU time, at low priority, on one thread; kills it at the deadline; and takes only
//! the file that it wrote. The limits are set by the child itself before it looks at its input.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Resource, Rlimit, nice, setrlimit};
use tokio::{io::AsyncReadExt, process::Command, time::timeout};

use super::{
    PluginError, artifact,
    cache::{ENTRY, Scratch},
    engine,
    error::tame,
};
use crate::config::{
    model::Plugin,
    value::{Size, Span},
};

/// What the child may say about a failure.
const WORDS: u64 = 8 << 10;
const SIGABRT: i32 = 6;
const SIGKILL: i32 = 9;
const SIGXCPU: i32 = 24;

/// Who compiles.
#[derive(Clone, Debug)]
pub enum Compiler {
    /// The program at this path, run as `plugin compile FILE -o OUT --memory SIZE --deadline TIME`: it must be this same
    /// program, and call [`child`].
    Child(PathBuf),
    /// This process, without limits: for tests and tools that trust the component.
    InProcess,
}

/// What a compilation may use.
#[derive(Clone, Copy, Debug)]
pub struct CompileLimits {
    /// Address space beyond what the process has when it starts.
    pub memory: Size,
    /// Time, on the clock and on the CPU.
    pub deadline: Span,
}

impl Compiler {
    /// This very program, even after its file was replaced by an upgrade.
    pub fn this_program() -> Self {
        Self::Child(PathBuf::from("/proc/self/exe"))
    }

    /// Compiles the file `wasm` into the file `out`, sealed.
    ///
    /// # Errors
    /// It cannot be compiled, or not within the limits. Cancel safe: the child is killed.
    pub(super) async fn compile(
        &self,
        wasm: &Scratch,
        out: &Scratch,
        limits: CompileLimits,
    ) -> Result<(), PluginError> {
        let (wasm, out) = (wasm.path().to_owned(), out.path().to_owned());
        match self {
            Self::Child(program) => run(program, &wasm, &out, limits).await,
            Self::InProcess => {
                let done = tokio::task::spawn_blocking(move || translate(&wasm, &out)).await;
                done.unwrap_or_else(|error| Err(PluginError::Compiler { detail: error.to_string() }))
            }
        }
    }
}

impl From<&Plugin> for CompileLimits {
    fn from(plugin: &Plugin) -> Self {
        Self { memory: plugin.compile_memory, deadline: plugin.compile_deadline }
    }
}

/// The child's side of [`Compiler::Child`], what `plugin compile` does: limits this process, then compiles `file` into
/// `out`, which must not exist. Running out of memory aborts the process.
///
/// # Errors
/// The limits cannot be set, or the file is no component that can be compiled.
pub fn child(file: &Path, out: &Path, limits: CompileLimits) -> Result<(), PluginError> {
    confine(limits).map_err(|error| PluginError::Compiler { detail: format!("its limits: {error}") })?;
    translate(file, out)
}

fn confine(limits: CompileLimits) -> rustix::io::Result<()> {
    let seconds = limits.deadline.0.as_secs().saturating_add(1);
    let space = address_space().saturating_add(limits.memory.0);
    let exactly = |most: u64| Rlimit { current: Some(most), maximum: Some(most) };
    setrlimit(Resource::Core, exactly(0))?;
    setrlimit(Resource::Fsize, exactly(ENTRY))?;
    // The soft limit's signal says that it was the time; the hard one's would not.
    setrlimit(Resource::Cpu, Rlimit { current: Some(seconds), maximum: Some(seconds + 1) })?;
    setrlimit(Resource::As, exactly(space))?;
    nice(10)?;
    Ok(())
}

/// Address space in use. An allocator may reserve more than it needs before anything is limited.
fn address_space() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().map_or(0, |kib: u64| kib << 10)
}

fn translate(file: &Path, out: &Path) -> Result<(), PluginError> {
    let wasm = fs::read(file).map_err(|error| PluginError::unreadable(file, error))?;
    let engine = engine::compiling().map_err(PluginError::host)?;
    let code = engine.precompile_component(&wasm);
    let code = code.map_err(|error| PluginError::Invalid { detail: tame(&format!("{error:#}"), 1000) })?;
    let written = Scratch::write(out, &artifact::seal(&code));
    written.map_err(|error| PluginError::Compiler { detail: format!("{}: {error}", out.display()) })
}

async fn run(program: &Path, wasm: &Path, out: &Path, limits: CompileLimits) -> Result<(), PluginError> {
    let cannot = |error: std::io::Error| PluginError::Compiler { detail: format!("{}: {error}", program.display()) };
    let mut child = Command::new(program)
        .args(["plugin", "compile"])
        .arg(wasm)
        .arg("-o")
        .arg(out)
        .arg("--memory")
        .arg(limits.memory.to_string())
        .arg("--deadline")
        .arg(limits.deadline.to_string())
        .env_clear()
        // What the allocator reserves before the limit is set is beyond the limit's reach; left alone, it is a gibibyte.
        .env("MIMALLOC_ARENA_RESERVE", "16MiB")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(cannot)?;
    let stderr = child.stderr.take();
    let ended = timeout(limits.deadline.0.max(Duration::from_millis(1)), async {
        let words = match stderr {
            Some(stderr) => last_words(stderr).await,
            None => String::new(),
        };
        child.wait().await.map(|status| (status, words))
    });
    match ended.await {
        Ok(Ok((status, words))) => verdict(status, &words, limits),
        Ok(Err(error)) => Err(cannot(error)),
        Err(_) => {
            // Waiting for it, too, so that no dead process stays behind.
            let _ = child.kill().await;
            Err(PluginError::CompileTooLong { deadline: limits.deadline })
        }
    }
}

/// The first [`WORDS`] of what the child says; the rest is read and dropped, so that it does not block.
async fn last_words(mut stderr: tokio::process::ChildStderr) -> String {
    let mut words = Vec::new();
    let _ = (&mut stderr).take(WORDS).read_to_end(&mut words).await;
    let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&words).into_owned()
}

/// What the child's end means.
fn verdict(status: ExitStatus, words: &str, limits: CompileLimits) -> Result<(), PluginError> {
    use std::os::unix::process::ExitStatusExt;
    let hungry = ["memory allocation of", "Cannot allocate memory", "out of memory"];
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (_, Some(SIGXCPU)) => Err(PluginError::CompileTooLong { deadline: limits.deadline }),
        (_, Some(SIGKILL)) => Err(PluginError::Killed),
        (_, Some(SIGABRT) | None) if hungry.iter().any(|sign| words.contains(sign)) => {
            Err(PluginError::CompileTooHungry { memory: limits.memory })
        }
        // Usage: this is another program, or another version of it.
        (Some(2), _) => Err(PluginError::Compiler { detail: tame(words, 1000) }),
        (Some(_), _) if !words.trim().is_empty() => {
            let detail = words.rsplit_once("cannot be compiled: ").map_or(words, |(_, detail)| detail);
            Err(PluginError::Invalid { detail: tame(detail, 1000) })
        }
        _ => Err(PluginError::Invalid { detail: format!("the compiler died: {status}") }),
    }
}
