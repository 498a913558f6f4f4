//! Sockets over a reload.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
};

use super::bench::{Bench, free_address, hello, on_background};
use crate::{
    config::model::Config,
    gateway::listeners::{Command, Listening},
};

const CLIENTS: usize = 40;

fn at(address: &str, keys: &str) -> String {
    hello("hi").replace("\"127.0.0.1:0\"", &format!("\"{address}\"\n{keys}"))
}

/// The sockets that workers were given last.
fn sockets(bench: &mut Bench) -> Vec<(Arc<Listening>, TcpListener)> {
    let serve = |command| match command {
        Command::Serve(listening, socket) => Some((listening, socket)),
        Command::Stop => None,
    };
    bench.commands.iter_mut().filter_map(|commands| commands.try_recv().ok()).filter_map(serve).collect()
}

fn config(bench: &Bench, text: &str) -> Config {
    bench.write("other.toml", text);
    let source = crate::config::Source { file: Some(bench.path("other.toml")), ..Default::default() };
    crate::config::load(&source).unwrap().config
}

#[test]
fn a_refused_reload_takes_no_connection_from_the_listeners_that_serve() {
    on_background(async {
        let address = free_address().to_string();
        let mut bench = Bench::serving(&at(&address, "")).await;
        let serving = sockets(&mut bench);
        let next = config(&bench, &at(&address, "backlog = 77"));
        let mut wrong = Vec::new();
        let prepared = bench.shared.listeners.prepare(&next, &bench.path("state"), 2, &mut wrong);
        assert!(wrong.is_empty(), "{wrong:?}");
        let clients: Vec<_> = (0..CLIENTS).map(|_| TcpStream::connect(&address).unwrap()).collect();
        drop(prepared);
        let accepted = |(_, socket): &(_, TcpListener)| std::iter::from_fn(|| socket.accept().ok()).count();
        assert_eq!(serving.iter().map(accepted).sum::<usize>(), clients.len());
    });
}

#[test]
fn a_listener_goes_from_every_address_to_one_and_back() {
    on_background(async {
        let port = free_address().port();
        let every = at(&format!("0.0.0.0:{port}"), "");
        let mut bench = Bench::serving(&every).await;
        for config in [at(&format!("127.0.0.1:{port}"), ""), every] {
            let before = sockets(&mut bench);
            assert_eq!(before.len(), 2);
            bench.reconfigure(&config).await.unwrap();
            drop(before);
        }
        let serving = sockets(&mut bench);
        TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
        assert!(serving.iter().any(|(_, socket)| socket.accept().is_ok()));
    });
}
