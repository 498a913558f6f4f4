//! Streams over real sockets and real TLS.

use std::{path::Path, sync::Arc, time::Duration, time::SystemTime};

use rustls::ServerConfig;
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixListener},
    time::Instant,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{certs::Authority, *};
use crate::config::model::{ClientCertificates, TlsVersion, UnknownSni, UpstreamTls};

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

struct Server {
    listener: TcpListener,
    tls: ServerTls,
    ca: UpstreamTls,
    leaf: Vec<u8>,
    state: tempfile::TempDir,
}

impl Server {
    async fn new(name: &str) -> Self {
        let state = tempfile::tempdir().unwrap();
        let authority = Authority::open(state.path(), SystemTime::now()).unwrap();
        let certificate = authority.leaf(&[name.to_owned()], SystemTime::now()).unwrap();
        let leaf = certificate.key.cert[0].to_vec();
        let store = Arc::new(CertStore::new(&[certificate], UnknownSni::Default));
        let tls = ServerTls::new("public", store, TlsVersion::V12, None).unwrap();
        let ca = UpstreamTls { ca: Some(authority.path()), server_name: None };
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap(), tls, ca, leaf, state }
    }

    async fn accept(&self, config: Arc<ServerConfig>) -> std::io::Result<TlsStream<TcpStream>> {
        let (socket, _) = self.listener.accept().await?;
        TlsAcceptor::from(config).accept(socket).await
    }

    fn target(&self) -> Target {
        let port = self.listener.local_addr().unwrap().port();
        Target { hosts: vec![Host::Tcp("localhost".into(), port)], keepalive: Some(Duration::from_secs(30)) }
    }

    async fn connect(&self, verify: Verify, name: &str) -> Result<Stream, DialError> {
        let config = client_tls(&self.ca, verify, &[b"http/1.1"]).unwrap();
        let stream = dial(&self.target(), soon()).await?;
        connect_tls(stream, config, name, soon()).await
    }

    async fn pair(&self, verify: Verify, name: &str) -> (Result<Stream, DialError>, Option<TlsStream<TcpStream>>) {
        let (client, server) = tokio::join!(self.connect(verify, name), self.accept(self.tls.current().config.clone()));
        (client, server.ok())
    }
}

#[tokio::test]
async fn names_are_verified_as_far_as_asked() {
    let server = Server::new("db.test").await;
    assert!(server.pair(Verify::Full, "db.test").await.0.is_ok());
    let refused = server.pair(Verify::Full, "other.test").await.0.unwrap_err();
    assert!(refused.is_tls(), "{refused}");
    assert!(server.pair(Verify::Chain, "other.test").await.0.is_ok());

    let other = Server::new("db.test").await;
    let mixed = |verify| {
        let config = client_tls(&other.ca, verify, &[]).unwrap();
        let client = async {
            let stream = dial(&server.target(), soon()).await.unwrap();
            connect_tls(stream, config, "db.test", soon()).await
        };
        async { tokio::join!(client, server.accept(server.tls.current().config.clone())).0 }
    };
    assert!(mixed(Verify::Chain).await.unwrap_err().is_tls());
    assert!(mixed(Verify::Nothing).await.is_ok());
}

#[tokio::test]
async fn a_tls_stream_tells_its_protocol_and_binding() {
    let server = Server::new("localhost").await;
    let (client, _server) = server.pair(Verify::Full, "localhost").await;
    let client = client.unwrap();
    assert_eq!(client.alpn(), Some(&b"http/1.1"[..]));
    assert_eq!(client.channel_binding(), Some(Sha256::digest(&server.leaf).to_vec()));
}

/// Runs `work` on a runtime of its own, on a thread of its own.
fn elsewhere<T: Send + 'static, F: Future<Output = T>>(work: impl FnOnce() -> F + Send + 'static) -> T {
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work())
    };
    std::thread::spawn(run).join().unwrap()
}

#[tokio::test]
async fn a_stream_moves_to_another_runtime_under_tls() {
    let server = Server::new("localhost").await;
    let (client, peer) = server.pair(Verify::Full, "localhost").await;
    let (mut client, mut peer) = (client.unwrap(), peer.unwrap());
    let echo = tokio::spawn(async move {
        let mut byte = [0];
        while peer.read_exact(&mut byte).await.is_ok() {
            peer.write_all(&byte).await.unwrap();
            peer.flush().await.unwrap();
        }
    });
    let ask = async |client: &mut Stream, byte: u8| {
        client.write_all(&[byte]).await.unwrap();
        client.flush().await.unwrap();
        client.read_u8().await.unwrap()
    };
    assert_eq!(ask(&mut client, 1).await, 1);
    let moved = tokio::task::spawn_blocking(move || {
        let mut client = client;
        elsewhere(move || async move {
            client.rehome().unwrap();
            assert_eq!(ask(&mut client, 2).await, 2);
            client
        })
    });
    let mut client = moved.await.unwrap();
    client.rehome().unwrap();
    assert_eq!(ask(&mut client, 3).await, 3);
    drop(client);
    echo.await.unwrap();
}

#[tokio::test]
async fn a_look_tells_clean_from_readable_from_closed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let target = Target { hosts: vec![Host::Unix(path)], keepalive: None };
    let (stream, accepted) = tokio::join!(dial(&target, soon()), listener.accept());
    let (mut stream, (mut peer, _)) = (stream.unwrap(), accepted.unwrap());
    assert_eq!(stream.peek_state(), Peek::Clean);
    peer.write_all(b"x").await.unwrap();
    assert_eq!(stream.peek_state(), Peek::Readable);
    assert_eq!(stream.read_u8().await.unwrap(), b'x');
    assert_eq!(stream.peek_state(), Peek::Clean);
    drop(peer);
    assert_eq!(stream.peek_state(), Peek::Closed);
}

#[tokio::test]
async fn the_next_host_is_tried_when_one_refuses() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let open = listener.local_addr().unwrap().port();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let host = |port| Host::Tcp("127.0.0.1".into(), port);
    let target = Target { hosts: vec![Host::Unix("/nonexistent".into()), host(closed), host(open)], keepalive: None };
    assert!(dial(&target, soon()).await.is_ok());

    let target = Target { hosts: vec![Host::Unix("/nonexistent".into()), host(closed)], keepalive: None };
    let error = dial(&target, soon()).await.unwrap_err();
    assert!(error.to_string().contains("/nonexistent") && error.to_string().contains("refused"), "{error}");
    assert!(!error.is_timeout());
}

#[tokio::test]
async fn a_host_that_never_answers_leaves_time_for_the_next() {
    // A listener with a full backlog: further SYNs are dropped.
    let hole = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    hole.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    hole.listen(0).unwrap();
    let address = hole.local_addr().unwrap().as_socket().unwrap();
    let _fill = std::net::TcpStream::connect(address).unwrap();

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = |port| Host::Tcp("127.0.0.1".into(), port);
    let target =
        Target { hosts: vec![host(address.port()), host(listener.local_addr().unwrap().port())], keepalive: None };
    assert!(dial(&target, Instant::now() + Duration::from_millis(400)).await.is_ok());

    let alone = Target { hosts: vec![host(address.port())], keepalive: None };
    let error = dial(&alone, Instant::now() + Duration::from_millis(100)).await.unwrap_err();
    assert!(error.is_timeout(), "{error}");
}

#[tokio::test]
async fn a_server_that_says_nothing_does_not_hold_the_handshake() {
    let server = Server::new("localhost").await;
    let stream = dial(&server.target(), soon()).await.unwrap();
    let config = client_tls(&server.ca, Verify::Full, &[]).unwrap();
    let error = connect_tls(stream, config, "localhost", Instant::now() + Duration::from_millis(50)).await.unwrap_err();
    assert!(error.is_timeout(), "{error}");
}

#[tokio::test]
async fn sessions_outlive_new_certificates_but_not_a_new_oldest_version() {
    let server = Server::new("localhost").await;
    let config = client_tls(&server.ca, Verify::Full, &[]).unwrap();
    let resumed = async || {
        let client = async {
            let stream = dial(&server.target(), soon()).await.unwrap();
            let mut stream = connect_tls(stream, config.clone(), "localhost", soon()).await.unwrap();
            // The ticket comes with the first data.
            stream.read_u8().await.unwrap();
        };
        let accept = async {
            let mut accepted = server.accept(server.tls.current().config.clone()).await.unwrap();
            accepted.write_all(b"x").await.unwrap();
            accepted.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
        };
        tokio::join!(client, accept).1
    };
    assert!(!resumed().await);
    assert!(resumed().await);
    let again = Authority::open(server.state.path(), SystemTime::now());
    let other = again.unwrap().leaf(&["localhost".into(), "b.test".into()], SystemTime::now()).unwrap();
    server.tls.store().replace(&[other], UnknownSni::Default);
    server.tls.set_rules(TlsVersion::V12, None).unwrap();
    assert!(resumed().await, "a reload keeps the sessions");
    server.tls.set_rules(TlsVersion::V13, None).unwrap();
    assert!(!resumed().await, "another oldest version does not");
}

/// An authority of clients, and the configuration of a client that it has signed.
struct Clients {
    file: tempfile::NamedTempFile,
    chain: Vec<rustls::pki_types::CertificateDer<'static>>,
    key: Vec<u8>,
}

impl Clients {
    fn new() -> Self {
        let mut authority = rcgen::CertificateParams::default();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority_key = rcgen::KeyPair::generate().unwrap();
        let certificate = authority.self_signed(&authority_key).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), certificate.pem()).unwrap();
        let issuer = rcgen::Issuer::new(authority, authority_key);
        let mut leaf = rcgen::CertificateParams::new(vec!["App.internal".to_owned()]).unwrap();
        leaf.subject_alt_names.push(rcgen::SanType::URI("spiffe://a/b".try_into().unwrap()));
        leaf.subject_alt_names.push(rcgen::SanType::Rfc822Name("a@b.test".try_into().unwrap()));
        leaf.distinguished_name.push(rcgen::DnType::CommonName, "dns:admin");
        leaf.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let key = rcgen::KeyPair::generate().unwrap();
        let chain = vec![leaf.signed_by(&key, &issuer).unwrap().der().clone()];
        Self { file, chain, key: key.serialize_der() }
    }

    fn auth(&self, required: bool) -> Arc<ClientAuth> {
        ClientAuth::load(&ClientCertificates { ca: self.file.path().to_owned(), required }).unwrap()
    }

    fn config(&self, server: &Server) -> Arc<ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        let pem = std::fs::read(server.ca.ca.as_ref().unwrap()).unwrap();
        roots.add(rustls::pki_types::pem::PemObject::from_pem_slice(&pem).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(self.key.clone().into());
        Arc::new(builder.with_root_certificates(roots).with_client_auth_cert(self.chain.clone(), key).unwrap())
    }
}

#[tokio::test]
async fn a_session_holds_who_its_client_was_and_ends_with_the_authorities() {
    let (clients, others) = (Clients::new(), Clients::new());
    let server = Server::new("localhost").await;
    server.tls.set_rules(TlsVersion::V12, Some(clients.auth(false))).unwrap();
    let config = clients.config(&server);
    // None: the server refused.
    let visit = async || {
        let client = async {
            let stream = dial(&server.target(), soon()).await.unwrap();
            let mut stream = connect_tls(stream, config.clone(), "localhost", soon()).await?;
            let _ = stream.read_u8().await;
            Ok::<_, DialError>(())
        };
        let accept = async {
            let (tcp, _) = server.listener.accept().await.unwrap();
            let (mut stream, info) = accept_tls(tcp, &server.tls, soon()).await.ok()?;
            stream.write_all(b"x").await.unwrap();
            Some(info)
        };
        tokio::join!(client, accept).1
    };
    let first = visit().await.unwrap();
    let certificate = first.client.clone().unwrap();
    let names: Vec<&str> = certificate.names.iter().map(|name| &**name).collect();
    assert_eq!(names, ["dns:app.internal", "uri:spiffe://a/b", "email:a@b.test"], "and not the subject");
    assert_eq!(&*certificate.listener, "public", "whose authorities vouch for it");
    assert_eq!(certificate.sha256, <[u8; 32]>::from(Sha256::digest(&clients.chain[0])));
    assert!(certificate.fingerprint().starts_with("sha256:") && certificate.fingerprint().len() == 71);
    let again = visit().await.unwrap();
    assert!(again.resumed && again.client == first.client, "a resumed session is the same client's");

    let is_disowned = || futures_util::FutureExt::now_or_never(certificate.disowned()).is_some();
    server.tls.set_rules(TlsVersion::V12, Some(clients.auth(false))).unwrap();
    assert_eq!(server.tls.has_other_rules(first.rules), None);
    assert!(!is_disowned());
    let waiting = tokio::spawn({
        let certificate = certificate.clone();
        async move { certificate.disowned().await }
    });
    assert!(visit().await.unwrap().resumed, "the same authorities again change nothing");
    server.tls.set_rules(TlsVersion::V12, Some(others.auth(false))).unwrap();
    assert!(visit().await.is_none(), "not resumed, and its certificate is not of these");
    assert!(server.tls.has_other_rules(first.rules).is_some());
    assert!(is_disowned());
    tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("who waits is told").unwrap();
    assert!(!server.tls.accepts(Some(&certificate)) && server.tls.accepts(None), "nor may what is open go on");
    server.tls.set_rules(TlsVersion::V12, Some(clients.auth(true))).unwrap();
    assert!(server.tls.accepts(Some(&certificate)) && !server.tls.accepts(None));
    assert!(!is_disowned());
    let elsewhere = Server::new("localhost").await;
    server.tls.succeeded_by(Some(&elsewhere.tls));
    assert!(is_disowned(), "who has taken its place asks for none");
    elsewhere.tls.set_rules(TlsVersion::V12, Some(clients.auth(false))).unwrap();
    server.tls.succeeded_by(Some(&elsewhere.tls));
    assert!(!is_disowned(), "its authorities are the same");
    server.tls.succeeded_by(None);
    assert!(is_disowned(), "nobody has taken its place");
    let back = visit().await.unwrap();
    assert!(!back.resumed && back.client.is_some(), "shown anew");
    server.tls.set_rules(TlsVersion::V12, None).unwrap();
    assert!(!server.tls.accepts(Some(&certificate)) && server.tls.accepts(None), "nobody vouches for it any more");
    let nobody = visit().await.unwrap();
    assert!(!nobody.resumed && nobody.client.is_none());
}

#[test]
fn a_file_of_authorities_that_holds_none_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca.pem");
    let error = |path: &Path| {
        let tls = UpstreamTls { ca: Some(path.to_owned()), server_name: None };
        client_tls(&tls, Verify::Full, &[]).unwrap_err().to_string()
    };
    assert!(error(&path).contains("ca.pem") && error(&path).contains("No such file"));
    std::fs::write(&path, "hello").unwrap();
    assert!(error(&path).contains("ca.pem: holds no certificate"));
}
