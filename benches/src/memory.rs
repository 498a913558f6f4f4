//! Memory at rest and for each idle TLS connection, beside nginx.

use std::{
    io::{Read, Write},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use anyhow::Result;

use crate::{
    figures::verdict,
    peers::{Peer, Workshop},
};

/// Idle connections, each of which made one request.
const CONNECTIONS: usize = 500;

pub fn run() -> Result<()> {
    let at = Workshop::new()?;
    let _origin = at.origin()?;
    println!("\n## Memory\n");
    let mut of = Vec::new();
    for (index, peer) in
        Peer::present().into_iter().filter(|peer| matches!(peer, Peer::Sluicegate | Peer::Nginx)).enumerate()
    {
        let port = 18_460 + index as u16;
        let server = peer.start(&at, port)?;
        let rest = server.rss();
        let clients: Vec<Child> = (0..CONNECTIONS).map(|_| open(port)).collect::<Result<_>>()?;
        sleep(Duration::from_secs(3));
        let each = (server.rss() - rest) * 1024.0 / CONNECTIONS as f64;
        println!("{:10} at rest {rest:6.1} MiB, idle TLS connection {each:6.1} KiB", peer.name());
        for mut client in clients {
            let _ = client.kill();
            let _ = client.wait();
        }
        of.push((rest, each));
    }
    if let [(rest, ours), (_, nginx)] = of[..] {
        println!("\nmemory at rest of 40 MiB: {}", verdict(rest / 40.0, 1.0));
        println!("idle TLS connection, of nginx's: {}", verdict(ours / nginx, 2.5));
    }
    Ok(())
}

/// A connection that made one request and stays.
fn open(port: u16) -> Result<Child> {
    let mut child = Command::new("taskset")
        .args([
            "-c",
            crate::LOAD_CORE,
            "openssl",
            "s_client",
            "-quiet",
            "-connect",
            &format!("127.0.0.1:{port}"),
            "-servername",
            "localhost",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    child.stdin.as_mut().expect("piped").write_all(b"GET /1k HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut head = [0; 64];
    let _ = child.stdout.as_mut().expect("piped").read(&mut head)?;
    Ok(child)
}
