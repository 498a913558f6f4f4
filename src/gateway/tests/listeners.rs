//! Sockets over a reload.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
};

use futures_util::FutureExt;
use tokio::sync::mpsc;

use super::bench::{Bench, free_address, hello, on_background};
use crate::{
    config::model::Config,
    edge,
    gateway::{
        ending,
        listeners::{Command, Listening, Prepared, Socket},
        worker,
    },
};

const CLIENTS: usize = 40;

fn at(address: &str, keys: &str) -> String {
    hello("hi").replace("\"127.0.0.1:0\"", &format!("\"{address}\"\n{keys}"))
}

/// A second listener beside the one that every configuration has.
fn with_another(address: SocketAddr) -> String {
    format!("{}[listener.other]\naddress = \"{address}\"\n", hello("hi"))
}

/// The sockets that workers were given last.
fn sockets(bench: &mut Bench) -> Vec<Socket> {
    let serve = |command| match command {
        Command::Serve(socket) => Some(socket),
        Command::Stop => None,
    };
    bench.commands.iter_mut().filter_map(|commands| commands.try_recv().ok()).filter_map(serve).collect()
}

/// The listener that is bound there.
fn listening_at(bench: &Bench, address: SocketAddr) -> Arc<Listening> {
    bench.shared.listeners.serving().into_iter().find(|listening| listening.address == address).unwrap()
}

fn config(bench: &Bench, text: &str) -> Config {
    bench.write("other.toml", text);
    let source = crate::config::Source { file: Some(bench.path("other.toml")), ..Default::default() };
    crate::config::load(&source).unwrap().config
}

fn prepared(bench: &Bench, text: &str) -> Prepared {
    let mut wrong = Vec::new();
    let prepared = bench.shared.listeners.prepare(&config(bench, text), &bench.path("state"), 2, &mut wrong);
    assert!(wrong.is_empty(), "{wrong:?}");
    prepared
}

/// Writes `a.pem` and `a.key`.
fn write_pair(bench: &Bench, name: &str) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
    bench.write("a.key", &key.serialize_pem());
    bench.write("a.pem", &certificate.pem());
}

#[test]
fn a_refused_reload_takes_no_connection_from_the_listeners_that_serve() {
    on_background(async {
        let address = free_address().to_string();
        let mut bench = Bench::serving(&at(&address, "")).await;
        let serving = sockets(&mut bench);
        let prepared = prepared(&bench, &at(&address, "backlog = 77"));
        let clients: Vec<_> = (0..CLIENTS).map(|_| TcpStream::connect(&address).unwrap()).collect();
        drop(prepared);
        let accepted = |socket: &Socket| std::iter::from_fn(|| socket.tcp.accept().ok()).count();
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
        assert!(serving.iter().any(|socket| socket.tcp.accept().is_ok()));
    });
}

#[test]
fn what_waits_on_sockets_that_no_worker_has_seen_yet_is_served_before_the_end() {
    on_background(async {
        let mut bench = Bench::serving(&hello("hi")).await;
        let address = bench.shared.listeners.serving()[0].address;
        let asking = |_| {
            let mut client = TcpStream::connect(address).unwrap();
            client.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
            client
        };
        let clients: Vec<_> = (0..8).map(asking).collect();
        let drains = bench.shared.listeners.drain_all();
        assert!(drains.iter().all(|drain| drain.finished().now_or_never().is_none()), "sockets are on their way");
        let commands = std::mem::take(&mut bench.commands).into_iter().enumerate();
        let start = |(index, commands)| worker::spawn(index, bench.shared.clone(), commands).unwrap();
        let threads = commands.map(start).collect();
        for drain in drains {
            drain.finished().await;
        }
        ending::end(&bench.shared, bench.supervisor.into_workers(), threads, ending::STOP).await;
        for mut client in clients {
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("hi"), "{answer}");
        }
    });
}

#[test]
fn an_address_comes_back_while_a_busy_worker_has_its_old_socket() {
    on_background(async {
        let address = free_address();
        let mut bench = Bench::serving(&with_another(address)).await;
        bench.reconfigure(&hello("hi")).await.unwrap();
        // Nobody takes the commands, so neither the sockets.
        bench.supervisor.look();
        bench.reconfigure(&with_another(address)).await.unwrap();
        assert_eq!(bench.shared.listeners.serving().len(), 2);
    });
}

#[test]
fn connections_that_are_left_do_not_make_a_closed_address_ours() {
    on_background(async {
        let address = free_address();
        let mut bench = Bench::serving(&with_another(address)).await;
        let _connection = listening_at(&bench, address).service(&bench.shared, ()).drain.hold();
        bench.reconfigure(&hello("hi")).await.unwrap();
        while !sockets(&mut bench).is_empty() {}
        let _stranger = edge::bind(address, 16, true).unwrap();
        let report = bench.reconfigure(&with_another(address)).await.unwrap_err().to_string();
        assert!(report.contains("listener.other.address: cannot listen on"), "{report}");
    });
}

#[test]
fn a_new_listener_does_not_join_the_port_that_the_system_gave_to_another() {
    on_background(async {
        let mut bench = Bench::serving(&hello("hi")).await;
        let taken = bench.shared.listeners.serving()[0].address;
        let report = bench.reconfigure(&with_another(taken)).await.unwrap_err().to_string();
        let expected = format!("listener.other.address: `{taken}` collides with `{taken}` of `listener.public`");
        assert!(report.contains(&expected), "{report}");
    });
}

#[test]
fn a_listener_that_cannot_listen_is_told_and_the_one_before_it_serves_on() {
    on_background(async {
        let bench = Bench::serving(&hello("hi")).await;
        let before = bench.shared.listeners.serving();
        let address = free_address();
        let prepared = prepared(&bench, &at(&address.to_string(), ""));
        // Nothing listens there yet, so another may; then we may not.
        let _quicker = TcpListener::bind(address).unwrap();
        let (worker, mut commands) = mpsc::channel(4);
        let deaf = bench.shared.listeners.commit(prepared, &[worker.clone(), worker]).await;
        assert_eq!(deaf.len(), 1);
        assert_eq!(deaf[0].key, "listener.public.address");
        assert!(deaf[0].message.starts_with(&format!("cannot listen on {address}: ")), "{}", deaf[0].message);
        assert!(commands.try_recv().is_err(), "a socket that does not listen is of no use to a worker");
        let after = bench.shared.listeners.serving();
        assert!(after.len() == 1 && Arc::ptr_eq(&after[0], &before[0]));
        assert!(!after[0].service(&bench.shared, ()).drain.is_started());
    });
}

#[test]
fn a_certificate_that_is_replaced_during_a_reload_is_served() {
    on_background(async {
        let bench = Bench::serving(&at("127.0.0.1:0", "tls = { self_signed = [\"before.test\"] }")).await;
        write_pair(&bench, "first.test");
        let files = "tls = [{ certificate = \"DIR/a.pem\", key = \"DIR/a.key\" }]";
        let prepared = prepared(&bench, &at("127.0.0.1:0", files));
        write_pair(&bench, "second.test");
        assert!(bench.shared.listeners.commit(prepared, &[]).await.is_empty());
        bench.shared.listeners.tick(&bench.path("state"));
        let served = bench.shared.listeners.serving()[0].certificates();
        assert_eq!(served[0].names, ["second.test".into()] as [Box<str>; 1]);
    });
}
