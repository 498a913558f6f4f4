//! `docs/five-minutes.md`, followed word for word on a fresh PostgreSQL.
//!
//! Three things are other than in a reader's hands, and [`as_here`] and [`at_hand`] are all of them: the ports, since others are taken; the
//! server's administrator, who has a password here, in the environment; and `npm install`, which takes what `make setup-test` has
//! installed, so that no test needs the network.

use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::Instant,
};

use crate::support::{
    PATIENCE, Process, eventually, free_port, mortal,
    postgres::{PASSWORD, Postgres, binary},
};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/five-minutes.md");

/// Behind this heading nothing is to be typed.
const OUTLOOK: &str = "\n## Before it is for others\n";

/// A fenced block of the page.
struct Block {
    language: String,
    text: String,
}

/// The blocks of `page`, in order.
fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(language) = line.strip_prefix("```") else { continue };
        let text: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        blocks.push(Block { language: language.to_owned(), text: text.join("\n") + "\n" });
    }
    blocks
}

/// The page with this test's ports.
fn as_here(page: &str, server: u16, gateway: u16) -> String {
    for (port, mentions) in [(":5432/", 1), (":8443", 6)] {
        assert!(page.matches(port).count() >= mentions, "{port} is no longer in the page");
    }
    page.replace(":5432/", &format!(":{server}/")).replace(":8443", &format!(":{gateway}"))
}

/// A directory for `PATH` with the gateway, `psql`, Node, and an `npm` that takes what is installed already.
fn at_hand(dir: &Path) -> PathBuf {
    let tools = dir.join("tools");
    fs::create_dir(&tools).unwrap();
    symlink(env!("CARGO_BIN_EXE_sluicegate"), tools.join("sluicegate")).unwrap();
    symlink(binary("psql"), tools.join("psql")).unwrap();
    let drivers = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drivers/node_modules");
    assert!(drivers.exists(), "the drivers are not installed: run `make setup-test`");
    let newer = drivers.join("node/bin/node");
    if newer.exists() {
        symlink(newer, tools.join("node")).unwrap();
    }
    let npm = format!(
        "#!/bin/sh\ntest \"$1\" = install && test -d \"{0}/$2\" && ln -sfn \"{0}\" node_modules\n",
        drivers.display()
    );
    fs::write(tools.join("npm"), npm).unwrap();
    fs::set_permissions(tools.join("npm"), fs::Permissions::from_mode(0o755)).unwrap();
    tools
}

/// A shell that somebody types into.
struct Terminal {
    _process: Process,
    keyboard: ChildStdin,
    screen: Receiver<String>,
}

impl Terminal {
    fn open(dir: &Path, tools: &Path, server: &Postgres) -> Self {
        let path = format!("{}:{}", tools.display(), env::var("PATH").unwrap());
        let mut shell = mortal("bash", None);
        shell.current_dir(dir).env("PATH", path).env_remove("NODE_EXTRA_CA_CERTS");
        shell.env("PGPORT", server.port.to_string()).env("PGPASSWORD", PASSWORD);
        let mut child = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("bash starts");
        let screen = watch(&mut child);
        let mut keyboard = child.stdin.take().unwrap();
        keyboard.write_all(b"exec 2>&1\n").unwrap();
        Self { _process: Process(child), keyboard, screen }
    }

    /// Types `text`; what it said, once it is done. Panics unless it went well.
    fn run(&mut self, text: &str) -> String {
        const DONE: &str = ":: done: ";
        writeln!(self.keyboard, "{text}printf '\\n{DONE}%s\\n' $?").unwrap();
        let (end, mut said) = (Instant::now() + PATIENCE, String::new());
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = self.screen.recv_timeout(left).unwrap_or_else(|_| panic!("not done:\n{text}\n{said}"));
            if let Some(code) = line.strip_prefix(DONE) {
                assert_eq!(code, "0", "{text}\n{said}");
                return said;
            }
            said += &line;
            said.push('\n');
        }
    }
}

fn watch(child: &mut Child) -> Receiver<String> {
    let (sender, screen) = channel();
    let output = BufReader::new(child.stdout.take().unwrap());
    std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    screen
}

/// Whether `said` is what the page promises, where `…` stands for anything.
fn as_promised(said: &str, promised: &str) -> bool {
    let mut pieces = promised.trim().split('…');
    let Some(mut rest) = said.trim().strip_prefix(pieces.next().unwrap_or_default()) else { return false };
    for piece in pieces {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.is_empty() || promised.trim().ends_with('…')
}

#[test]
fn a_promise_is_kept_or_not() {
    assert!(as_promised("abc\n", "abc") && as_promised("a--c", "a…c") && as_promised("abc", "a…"));
    for said in ["ab", "abcd", "xabc", "a--d", ""] {
        assert!(!as_promised(said, "abc") && !as_promised(said, "a…bc"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_new_user_has_a_database_over_https_by_following_the_page() {
    let server = Postgres::start(0, &[]).await;
    let dir = tempfile::tempdir().unwrap();
    let tools = at_hand(dir.path());
    let gateway = free_port();
    let page = as_here(&fs::read_to_string(PAGE).unwrap(), server.port, gateway);
    let (typed, _) = page.split_once(OUTLOOK).expect("the page has an outlook");
    let (mut terminal, mut other) =
        (Terminal::open(dir.path(), &tools, &server), Terminal::open(dir.path(), &tools, &server));
    let (mut said, mut ran) = (String::new(), 0);
    for Block { language, text } in blocks(typed) {
        match language.as_str() {
            "sh" if text.starts_with("sluicegate serve") => {
                // It does not end: typed, and not waited for. In the shell's place, so that it ends with it.
                write!(other.keyboard, "exec {text}").unwrap();
                seen(&other, "ready").await;
            }
            "sh" => {
                said = terminal.run(&text);
                ran += 1;
                if text.contains(">> gateway.toml") {
                    seen(&other, "configuration reloaded").await;
                }
            }
            "toml" | "js" => {
                let name = text.lines().next().unwrap().trim_start_matches(['#', '/', ' ']);
                fs::write(dir.path().join(name), &text).unwrap();
            }
            "json" | "text" => assert!(as_promised(&said, &text), "the page promises\n{text}\nand there came\n{said}"),
            unknown => panic!("a block of an unknown kind: {unknown}"),
        }
    }
    assert!(ran >= 10, "{ran} blocks were typed");
}

/// Waits until the other terminal shows `text`.
async fn seen(other: &Terminal, text: &str) {
    let shown = std::cell::RefCell::new(String::new());
    let look = || async {
        shown.borrow_mut().extend(other.screen.try_iter().map(|line| line + "\n"));
        shown.borrow().clone()
    };
    eventually(text, look, |shown| shown.contains(text)).await;
}

#[tokio::test]
async fn what_the_page_says_of_production_is_a_configuration_that_passes() {
    let dir = tempfile::tempdir().unwrap();
    let page = fs::read_to_string(PAGE).unwrap();
    let (typed, outlook) = page.split_once(OUTLOOK).expect("the page has an outlook");
    let first =
        blocks(typed).into_iter().find(|block| block.text.starts_with("# gateway.toml")).expect("a gateway.toml").text;
    let listener = blocks(outlook).remove(0).text;
    let (name, key) = (dir.path().join("db.example.com.pem"), dir.path().join("db.example.com.key"));
    let mut openssl = Command::new("openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/CN=a",
        "-addext",
        "subjectAltName=DNS:*.db.example.com",
    ]);
    assert!(openssl.arg("-out").arg(name).arg("-keyout").arg(key).output().unwrap().status.success());
    fs::write(dir.path().join("shop_app.password"), "x").unwrap();

    let tables = first.split_once("[pool.shop]").expect("a pool").1;
    let endpoints = "endpoints = { shop = \"shop\" }";
    assert!(outlook.contains(endpoints));
    let whole = format!("{listener}\n[pool.shop]{tables}").replace("\"HASH\"", &format!("\"{}\"", "0".repeat(64)));
    let whole = whole.replace("pool = \"shop\" }", &format!("pool = \"shop\", {endpoints} }}"));
    let whole = whole.replace("/etc/sluicegate", dir.path().to_str().unwrap());
    fs::write(dir.path().join("gateway.toml"), &whole).unwrap();
    let checked = crate::support::gateway::run(dir.path(), &["check", "--config", "gateway.toml"]);
    assert!(checked.status.success(), "{}\n{whole}", String::from_utf8_lossy(&checked.stderr));
}
