//! A gateway in a directory of its own.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    ops::ControlFlow,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::Arc,
};

use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};

use crate::{
    config::{Report, Source},
    gateway::{
        ReloadSummary, Shared,
        inputs::{self, Reading},
        listeners::Command,
        run::shared,
        shared::ReloadRequest,
        supervisor::Supervisor,
    },
    observe::access_log::{AccessLog, Writer},
    policy::Compiler,
};

/// What every configuration begins with; `DIR` is the bench's directory.
pub(in crate::gateway) const HEAD: &str =
    "[server]\nworkers = 2\nstate = \"DIR/state\"\n[listener.public]\naddress = \"127.0.0.1:0\"\n";

pub(in crate::gateway) struct Bench {
    pub(in crate::gateway) shared: Arc<Shared>,
    pub(in crate::gateway) supervisor: Supervisor,
    pub(in crate::gateway) commands: Vec<mpsc::Receiver<Command>>,
    directory: TempDir,
    _requests: mpsc::Receiver<ReloadRequest>,
    _writer: Writer,
}

/// Runs a test as the background thread runs a gateway.
pub(in crate::gateway) fn on_background<T>(test: impl Future<Output = T>) -> T {
    crate::gateway::run::background().unwrap().block_on(test)
}

/// [`HEAD`] and a fixed answer.
pub(in crate::gateway) fn hello(body: &str) -> String {
    format!("{HEAD}[[route]]\npath = \"/\"\nrespond = {{ status = 200, body = \"{body}\" }}\n")
}

/// An address that nobody has.
pub(in crate::gateway) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Bench {
    /// Serves that.
    pub(in crate::gateway) async fn serving(config: &str) -> Self {
        Self::compiling(config, "exit 1").await
    }

    /// The same; plugins are compiled by a shell script, in which `DIR` is the directory.
    pub(in crate::gateway) async fn compiling(config: &str, script: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let in_directory = |text: &str| text.replace("DIR", directory.path().to_str().unwrap());
        let path = |name: &str| directory.path().join(name);
        fs::write(path("gateway.toml"), in_directory(config)).unwrap();
        fs::write(path("compiler"), format!("#!/bin/sh\n{}\n", in_directory(script))).unwrap();
        fs::set_permissions(path("compiler"), PermissionsExt::from_mode(0o700)).unwrap();
        let source = Source { file: Some(path("gateway.toml")), ..Source::default() };
        let Reading { outcome, watch } = inputs::read(&source, &[]);
        let loaded = outcome.unwrap();
        let writer = AccessLog::open("off").unwrap();
        let compiler = Compiler::Child(path("compiler"));
        let (shared, requests) =
            shared(compiler, source, &loaded, &directory.path().join("state"), writer.log()).unwrap();
        let (senders, commands): (Vec<_>, Vec<_>) = (0..shared.workers).map(|_| mpsc::channel(256)).unzip();
        let mut supervisor = Supervisor::new(shared.clone(), senders, watch);
        let next = supervisor.prepare(&loaded).await.map_err(|wrong| format!("{wrong:?}")).ok().unwrap();
        supervisor.commit(next).await;
        Self { shared, supervisor, commands, directory, _requests: requests, _writer: writer }
    }

    pub(in crate::gateway) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(in crate::gateway) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text.replace("DIR", self.directory.path().to_str().unwrap())).unwrap();
    }

    /// Writes a configuration and reloads it.
    pub(in crate::gateway) async fn reconfigure(&mut self, config: &str) -> Result<ReloadSummary, Report> {
        self.write("gateway.toml", config);
        self.reload().await
    }

    pub(in crate::gateway) async fn reload(&mut self) -> Result<ReloadSummary, Report> {
        let (done, outcome) = oneshot::channel();
        let request = ReloadRequest { why: "test", done: Some(done) };
        let flow = self.supervisor.reload(request, std::future::pending()).await;
        assert_eq!(flow, ControlFlow::Continue(()));
        outcome.await.unwrap()
    }

    /// Looks at files as the background does, until one look asks for a reload; then reloads.
    pub(in crate::gateway) async fn follow_files(&mut self) {
        let all = async {
            loop {
                if let Some(request) = self.supervisor.look() {
                    return self.supervisor.reload(request, std::future::pending()).await;
                }
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        let _ = tokio::time::timeout(std::time::Duration::from_secs(20), all).await.expect("within 20 s");
    }

    /// The body of the first route's fixed answer.
    pub(in crate::gateway) fn body(&self) -> String {
        self.shared.generation().config().route[0].respond.as_ref().unwrap().body.clone()
    }
}
