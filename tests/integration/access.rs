//! Who may ask what: keys, tokens and client certificates, over real TLS.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm::{self, ES256, HS256, RS256},
    EncodingKey,
};
use serde_json::{Value, json};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::{self, client::IntoClientRequest};

use crate::support::{
    PATIENCE,
    client::Client,
    config::{BASE, consumer, with_keys},
    eventually, free_port,
    gateway::Gateway,
    origin::Origin,
    sha256,
};

/// A key pair that openssl made.
pub(crate) struct Pair {
    private: EncodingKey,
    public: Value,
    /// The public key as PEM: what a careless gateway would take for a shared secret.
    pem: Vec<u8>,
}

fn openssl(dir: &Path, words: &str) -> Vec<u8> {
    let output = Command::new("openssl").args(words.split(' ')).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "openssl {words}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Pair {
    fn rsa(dir: &Path, id: &str) -> Self {
        openssl(dir, &format!("genrsa -out {id}.pem 2048"));
        let der = openssl(dir, &format!("rsa -in {id}.pem -outform DER -traditional"));
        let modulus = String::from_utf8(openssl(dir, &format!("rsa -in {id}.pem -noout -modulus"))).unwrap();
        let hex = modulus.trim().strip_prefix("Modulus=").unwrap();
        let modulus: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        let public = json!({ "kty": "RSA", "use": "sig", "kid": id, "n": b64(modulus), "e": "AQAB" });
        let pem = openssl(dir, &format!("rsa -in {id}.pem -pubout"));
        Self { private: EncodingKey::from_rsa_der(&der), public, pem }
    }

    pub(crate) fn ec(dir: &Path, id: &str) -> Self {
        openssl(dir, &format!("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {id}.pem"));
        let der = openssl(dir, &format!("pkcs8 -topk8 -nocrypt -in {id}.pem -outform DER"));
        let public = openssl(dir, &format!("pkey -in {id}.pem -pubout -outform DER"));
        let point = &public[public.len() - 64..];
        let public = json!({ "kty": "EC", "crv": "P-256", "kid": id, "x": b64(&point[..32]), "y": b64(&point[32..]) });
        let pem = openssl(dir, &format!("pkey -in {id}.pem -pubout"));
        Self { private: EncodingKey::from_ec_der(&der), public, pem }
    }

    pub(crate) fn token(&self, how: Algorithm, id: &str, claims: &Value) -> String {
        sign(&self.private, how, &json!({ "alg": format!("{how:?}"), "typ": "JWT", "kid": id }), claims)
    }
}

/// A token whose header may say anything.
fn sign(key: &EncodingKey, how: Algorithm, header: &Value, claims: &Value) -> String {
    let message = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, how).unwrap();
    format!("{message}.{signature}")
}

/// A certificate authority that openssl made, in a directory of its own.
struct Authority {
    dir: tempfile::TempDir,
}

impl Authority {
    fn new(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        openssl(
            dir.path(),
            &format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -subj /CN={name} -days 2"
            ),
        );
        Self { dir }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn ca(&self) -> String {
        self.file("ca.pem").display().to_string()
    }

    /// A certificate of these names, `name.pem` and `name.key`.
    fn leaf(&self, name: &str, alternatives: &str) {
        let dir = self.dir.path();
        fs::write(self.file("ext"), format!("subjectAltName={alternatives}\n")).unwrap();
        openssl(
            dir,
            &format!(
                "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.csr -subj /CN=admin"
            ),
        );
        openssl(
            dir,
            &format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 1 -extfile ext -out {name}.pem"
            ),
        );
    }

    /// What curl needs to show it.
    fn shown(&self, name: &str) -> Vec<String> {
        let file = |suffix: &str| self.file(&format!("{name}.{suffix}")).display().to_string();
        vec!["--cert".into(), file("pem"), "--key".into(), file("key")]
    }
}

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn claims() -> Value {
    json!({ "iss": "https://auth.test/", "aud": ["gateway"], "exp": now() + 600, "sub": "someone", "tier": "pro" })
}

fn with(mut claims: Value, name: &str, value: Value) -> Value {
    claims[name] = value;
    claims
}

pub(crate) fn jwks(keys: &[&Pair]) -> String {
    json!({ "keys": keys.iter().map(|pair| &pair.public).collect::<Vec<_>>() }).to_string()
}

/// Beside a listener of TLS and an admin: what `more` says.
fn config(more: &str) -> String {
    format!(
        r#"{BASE}
{more}
[[route]]
path = "/"
access = ["app"]
respond = {{ status = 200, body = "in" }}
[[route]]
path = "/open"
access = "open"
respond = {{ status = 200, body = "open" }}
"#
    )
}

fn issuer(jwks: &str) -> String {
    format!(
        "[issuer.auth]\njwks = {jwks:?}\nissuer = \"https://auth.test/\"\naudience = [\"gateway\"]\n\
         [consumer.app]\njwt = {{ issuer = \"auth\", claims = {{ tier = \"pro\" }} }}\n\
         [consumer.free]\njwt = {{ issuer = \"auth\", claims = {{ tier = \"free\" }} }}\n"
    )
}

/// What curl is answered: the status, and the body.
async fn curl(gateway: &Gateway, words: &[&str], path: &str) -> (u16, String) {
    let address = gateway.address("public");
    let mut curl = tokio::process::Command::new("curl");
    curl.args(["-sS", "--max-time", "20", "-o", "-", "-w", "\n%{http_code}"]).arg("--cacert").arg(gateway.ca());
    curl.args(["--connect-to", &format!("::127.0.0.1:{}", address.port())]).args(words);
    let output = curl.arg(format!("https://localhost{path}")).output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    (status.parse().unwrap(), if output.status.success() { body.to_owned() } else { told })
}

async fn with_token(gateway: &Gateway, token: &str) -> u16 {
    curl(gateway, &["-H", &format!("Authorization: Bearer {token}")], "/").await.0
}

/// Waits until these are the reasons of the last requests in the access log, in their order.
async fn reasons_are(gateway: &Gateway, wanted: &[&str]) {
    let log = || async {
        let log = gateway.access_log();
        let mut lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        // Each worker writes its own.
        lines.sort_by_key(|line| line["request"].as_u64());
        lines.iter().map(|line| line["reason"].as_str().unwrap_or("-").to_owned()).collect::<Vec<_>>()
    };
    let tail = |reasons: &Vec<String>| {
        let last = reasons.len().saturating_sub(wanted.len());
        reasons[last..].iter().map(String::as_str).eq(wanted.iter().copied())
    };
    eventually("the reasons in the access log", log, tail).await;
}

#[tokio::test]
async fn a_token_lets_its_consumer_in_and_a_forged_one_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let (rsa, ec, stranger) = (Pair::rsa(dir.path(), "r"), Pair::ec(dir.path(), "e"), Pair::rsa(dir.path(), "s"));
    fs::write(dir.path().join("keys.json"), jwks(&[&rsa, &ec])).unwrap();
    let keys = dir.path().join("keys.json");
    let gateway = Gateway::start(&config(&issuer(keys.to_str().unwrap()))).await;
    let unsigned = format!("{}.{}.", b64(json!({ "alg": "none" }).to_string()), b64(claims().to_string()));
    let confused =
        |alg: &str| sign(&EncodingKey::from_secret(&rsa.pem), HS256, &json!({ "alg": alg, "kid": "r" }), &claims());
    let crossed = sign(&ec.private, ES256, &json!({ "alg": "ES256", "kid": "r" }), &claims());
    let cases = [
        (rsa.token(RS256, "r", &claims()), 200, "-"),
        (ec.token(ES256, "e", &claims()), 200, "-"),
        (rsa.token(RS256, "r", &with(claims(), "tier", json!("free"))), 403, "access"),
        (rsa.token(RS256, "r", &with(claims(), "tier", json!("none"))), 403, "no-consumer"),
        (rsa.token(RS256, "r", &with(claims(), "tier", json!(["free", "pro"]))), 403, "ambiguous"),
        (unsigned, 401, "token-algorithm"),
        (confused("HS256"), 401, "token-algorithm"),
        (confused("RS256"), 401, "token-signature"),
        (crossed, 401, "token-key"),
        (stranger.token(RS256, "r", &claims()), 401, "token-signature"),
        (stranger.token(RS256, "s", &claims()), 401, "token-key"),
        (rsa.token(RS256, "r", &with(claims(), "aud", json!("other"))), 401, "token-audience"),
        (rsa.token(RS256, "r", &with(claims(), "iss", json!("https://evil.test/"))), 401, "token-issuer"),
        (rsa.token(RS256, "r", &with(claims(), "exp", json!(now() - 31))), 401, "token-expired"),
        (rsa.token(RS256, "r", &with(claims(), "nbf", json!(now() + 60))), 401, "token-early"),
        (rsa.token(RS256, "r", &with(claims(), "padding", json!("x".repeat(8000)))), 401, "token-oversized"),
        ("sg_unknown".to_owned(), 401, "access"),
    ];
    for (token, status, _) in &cases {
        assert_eq!(with_token(&gateway, token).await, *status, "{token}");
    }
    let wanted: Vec<&str> = cases.iter().map(|(_, _, reason)| *reason).collect();
    reasons_are(&gateway, &wanted).await;
    let log = gateway.access_log();
    assert!(cases.iter().all(|(token, _, _)| !log.contains(token.as_str())), "no token stands in a log");
    let open = curl(&gateway, &["-H", &format!("Authorization: Bearer {}", cases[5].0)], "/open").await;
    assert_eq!(open, (200, "open".to_owned()), "where anybody may call, it is nobody");
}

#[tokio::test]
async fn keys_are_fetched_over_tls_turned_over_and_kept_while_their_server_is_down() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (Pair::ec(dir.path(), "first"), Pair::ec(dir.path(), "second"));
    let authority = Authority::new("ca");
    authority.leaf("server", "DNS:localhost");
    let port = free_port();
    let signer = |keys: &str| {
        format!(
            "[listener.public]\naddress = \"127.0.0.1:{port}\"\n\
             tls = [{{ certificate = {:?}, key = {:?} }}]\n[admin]\naddress = \"127.0.0.1:0\"\n[[route]]\npath = \"/jwks\"\n\
             respond = {{ status = 200, content_type = \"application/json\", body = '''{keys}''' }}\n",
            authority.file("server.pem"),
            authority.file("server.key")
        )
    };
    let issuer = issuer(&format!("https://localhost:{port}/jwks")).replacen(
        "audience",
        &format!("refresh = \"10s\"\ntls = {{ ca = {:?} }}\naudience", authority.ca()),
        1,
    );
    let gateway = Gateway::start(&config(&issuer)).await;
    let (of_first, of_second) = (first.token(ES256, "first", &claims()), second.token(ES256, "second", &claims()));
    gateway.status_until("/issuers/auth/failed", |failed| failed.as_u64() > Some(0)).await;
    assert_eq!(with_token(&gateway, &of_first).await, 503, "the server is down, and nobody can be told from another");
    reasons_are(&gateway, &["issuer-keys"]).await;

    let mut server = Gateway::start(&signer(&jwks(&[&first]))).await;
    eventually("the keys come", || with_token(&gateway, &of_first), |status| *status == 200).await;
    assert_eq!(with_token(&gateway, &of_second).await, 401);
    server.reconfigure(&signer(&jwks(&[&second]))).await;
    eventually("the new key is asked for", || with_token(&gateway, &of_second), |status| *status == 200).await;
    // 429 for who failed too often, as we just did.
    eventually(
        "the old key is gone, and what it had verified",
        || with_token(&gateway, &of_first),
        |status| *status == 401,
    )
    .await;

    let failed = gateway.figure("/issuers/auth/failed").await;
    assert!(server.terminate().await.success());
    gateway.status_until("/issuers/auth/failed", |now| now.as_u64() > Some(failed)).await;
    assert_eq!(with_token(&gateway, &of_second).await, 200, "the last good keys serve on");
    assert!(gateway.log_lines().iter().any(|line| line.contains("keys cannot be read") && line.contains("auth")));
}

#[tokio::test]
async fn a_file_of_keys_is_followed_and_a_broken_one_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (Pair::ec(dir.path(), "first"), Pair::ec(dir.path(), "second"));
    let file = dir.path().join("keys.json");
    fs::write(&file, jwks(&[&first])).unwrap();
    let gateway = Gateway::start(&config(&issuer(file.to_str().unwrap()))).await;
    let (of_first, of_second) = (first.token(ES256, "first", &claims()), second.token(ES256, "second", &claims()));
    assert_eq!(with_token(&gateway, &of_first).await, 200);
    fs::write(&file, "{}").unwrap();
    gateway.status_until("/issuers/auth/failed", |failed| failed.as_u64() > Some(0)).await;
    assert_eq!(with_token(&gateway, &of_first).await, 200);
    fs::write(&file, jwks(&[&second])).unwrap();
    eventually("the new keys", || with_token(&gateway, &of_second), |status| *status == 200).await;
    assert_eq!(with_token(&gateway, &of_first).await, 401);
}

// === client certificates ===

/// A listener that asks for certificates of this authority.
fn mutual(authority: &Authority, required: bool, consumers: &str) -> String {
    let asked = format!("client_certificates = {{ ca = {:?}, required = {required} }}", authority.ca());
    with_keys(&config(consumers), "listener.public", &asked)
}

async fn showing(gateway: &Gateway, shown: &[String], more: &[&str], path: &str) -> (u16, String) {
    let words: Vec<&str> = shown.iter().map(String::as_str).chain(more.iter().copied()).collect();
    curl(gateway, &words, path).await
}

#[tokio::test]
async fn a_client_certificate_says_who_calls_and_a_foreign_one_nothing() {
    let (ours, foreign) = (Authority::new("ours"), Authority::new("foreign"));
    ours.leaf("app", "DNS:app.internal,URI:spiffe://house/app");
    ours.leaf("other", "DNS:other.internal");
    ours.leaf("nobody", "DNS:nobody.internal");
    ours.leaf("both", "DNS:app.internal,DNS:other.internal");
    foreign.leaf("app", "DNS:app.internal");
    let consumers = "[consumer.app]\ncertificate = [\"uri:spiffe://house/app\", \"dns:app.internal\"]\n\
                     [consumer.other]\ncertificate = [\"dns:other.internal\", \"dns:admin\"]\n";
    let gateway = Gateway::start(&mutual(&ours, false, consumers)).await;
    for (name, status, reason) in
        [("app", 200, "-"), ("other", 403, "access"), ("nobody", 401, "access"), ("both", 403, "ambiguous")]
    {
        assert_eq!(showing(&gateway, &ours.shown(name), &[], "/").await.0, status, "{name}");
        reasons_are(&gateway, &[reason]).await;
    }
    assert_eq!(curl(&gateway, &[], "/").await.0, 401, "none is asked for where none is required");
    let revoked = showing(&gateway, &ours.shown("app"), &["-H", "Authorization: Bearer sg_revoked"], "/").await;
    assert_eq!(revoked.0, 401, "the certificate does not stand in for a key that is none any more");
    let (status, told) = showing(&gateway, &foreign.shown("app"), &[], "/").await;
    assert_eq!(status, 0, "no handshake: {told}");
    assert_eq!(gateway.figure("/edge/handshake_certificate").await, 1);

    // Strict SNI: what the handshake was for is what may be asked for.
    let app = ours.shown("app");
    assert_eq!(showing(&gateway, &app, &["-H", "Host: other.test"], "/").await.0, 421);
    assert_eq!(showing(&gateway, &app, &["--http1.1", "-H", "Host: 127.0.0.1"], "/").await.0, 421);
    let by_address = async |host: &str| {
        let url = format!("https://{}/", gateway.address("public"));
        let words = ["-sk", "-o", "/dev/null", "-w", "%{http_code}", "-H", host, &url];
        let output = tokio::process::Command::new("curl").args(&app).args(words).output().await.unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(by_address("Host: localhost").await, "421", "no name in the handshake, a name in the request");
    assert_eq!(by_address("Host: 127.0.0.1").await, "200");

    gateway.reconfigure(&mutual(&ours, true, consumers)).await;
    assert_eq!(curl(&gateway, &[], "/open").await.0, 0, "required: no handshake without");
    assert_eq!(showing(&gateway, &app, &[], "/").await.0, 200);
}

#[tokio::test]
async fn an_authority_gives_names_for_its_own_listener_alone() {
    let (mesh, partners) = (Authority::new("mesh"), Authority::new("partners"));
    partners.leaf("ops", "DNS:ops.internal");
    let vouching = |listener: &str| {
        let consumer =
            format!("[consumer.app]\ncertificate = [\"dns:ops.internal\"]\ncertificate_listener = \"{listener}\"\n");
        let internal = format!(
            "[listener.internal]\naddress = \"127.0.0.1:0\"\ntls = {{ self_signed = [\"localhost\"] }}\n\
             client_certificates = {{ ca = {:?} }}\n{consumer}",
            mesh.ca()
        );
        mutual(&partners, false, &internal)
    };
    let gateway = Gateway::start(&vouching("internal")).await;
    assert_eq!(showing(&gateway, &partners.shown("ops"), &[], "/").await.0, 401, "the name is not theirs to give");
    gateway.reconfigure(&vouching("public")).await;
    assert_eq!(showing(&gateway, &partners.shown("ops"), &[], "/").await.0, 200);
}

/// One connection that stays: openssl's client, which shows a certificate.
struct Lasting {
    client: tokio::process::Child,
}

impl Lasting {
    fn open(gateway: &Gateway, authority: &Authority, name: &str) -> Self {
        let mut client = tokio::process::Command::new("openssl");
        client.args(["s_client", "-quiet", "-servername", "localhost", "-connect"]);
        client.arg(gateway.address("public").to_string());
        client.arg("-cert").arg(authority.file(&format!("{name}.pem")));
        client.arg("-key").arg(authority.file(&format!("{name}.key"))).kill_on_drop(true);
        let client = client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        Self { client }
    }

    /// Makes a WebSocket of it.
    async fn upgrade(&mut self, path: &str) {
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        self.client.stdin.as_mut().unwrap().write_all(request.as_bytes()).await.unwrap();
        let answer = self.read_until(|answer| answer.ends_with(b"\r\n\r\n")).await;
        assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
    }

    /// Sends a message, masked with nothing, and waits for its echo.
    async fn echo(&mut self) {
        self.client.stdin.as_mut().unwrap().write_all(b"\x81\x82\0\0\0\0hi").await.unwrap();
        let answer = self.read_until(|answer| answer.len() >= 4).await;
        assert_eq!(answer, b"\x81\x02hi");
    }

    /// What comes, until it is whole or there is no more.
    async fn read_until(&mut self, whole: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let (stdout, mut answer) = (self.client.stdout.as_mut().unwrap(), Vec::new());
        let read = async { while !whole(&answer) && stdout.read_buf(&mut answer).await.unwrap() > 0 {} };
        tokio::time::timeout(PATIENCE, read).await.expect("an answer, or the end");
        answer
    }

    /// The status of one more request; none if the connection has ended.
    async fn ask(&mut self) -> Option<u16> {
        let request = "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
        self.client.stdin.as_mut().unwrap().write_all(request.as_bytes()).await.ok()?;
        let answer = self.read_until(is_whole).await;
        String::from_utf8_lossy(&answer).split(' ').nth(1)?.parse().ok()
    }
}

/// Waits until changed files of certificates have been noticed so often.
async fn swapped(gateway: &Gateway, count: usize) {
    let lines = || async { gateway.log_lines().iter().filter(|line| line.contains("certificates swapped")).count() };
    eventually("the file is seen", lines, |seen| *seen >= count).await;
}

/// Whether an answer with a `Content-Length` is there to its end.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse::<usize>();
    body.len() >= length.unwrap()
}

#[tokio::test]
async fn a_certificate_or_authority_that_is_taken_out_is_refused_on_the_next_request() {
    let (ours, others) = (Authority::new("ours"), Authority::new("others"));
    ours.leaf("app", "DNS:app.internal");
    let app = "[consumer.app]\ncertificate = [\"dns:app.internal\"]\n";
    let gone = "[consumer.app]\ncertificate = [\"dns:later.internal\"]\n";
    let gateway = Gateway::start(&mutual(&ours, false, app)).await;
    let mut connection = Lasting::open(&gateway, &ours, "app");
    assert_eq!(connection.ask().await, Some(200));
    gateway.reconfigure(&mutual(&ours, false, gone)).await;
    assert_eq!(connection.ask().await, Some(401), "the same connection, another word");
    gateway.reconfigure(&mutual(&ours, false, app)).await;
    assert_eq!(connection.ask().await, Some(200));

    // The file itself, without a reload: first with another authority beside ours, then without ours.
    let own = fs::read_to_string(ours.file("ca.pem")).unwrap();
    let other = fs::read_to_string(others.file("ca.pem")).unwrap();
    fs::write(ours.file("ca.pem"), own + &other).unwrap();
    swapped(&gateway, 1).await;
    assert_eq!(connection.ask().await, Some(200), "verified anew, and still good");
    fs::write(ours.file("ca.pem"), other).unwrap();
    swapped(&gateway, 2).await;
    assert_eq!(connection.ask().await, Some(421), "opened under an authority that is none any more");
    reasons_are(&gateway, &["certificate"]).await;
    assert_eq!(connection.ask().await, None, "closed");
}

#[tokio::test]
async fn a_websocket_ends_when_its_listener_would_not_accept_its_certificate_any_more() {
    let (ours, others, echo) = (Authority::new("ours"), Authority::new("others"), Origin::websocket().await);
    ours.leaf("app", "DNS:app.internal");
    let text = format!(
        "{}[upstream.echo]\nendpoints = [\"http://{}\"]\n\
         [[route]]\npath = \"/ws\"\naccess = [\"app\"]\nproxy = {{ upstream = \"echo\" }}\n",
        mutual(&ours, false, "[consumer.app]\ncertificate = [\"dns:app.internal\"]\n"),
        echo.address
    );
    let gateway = Gateway::start(&text).await;
    let mut socket = Lasting::open(&gateway, &ours, "app");
    socket.upgrade("/ws").await;
    socket.echo().await;
    let (own, other) =
        (fs::read_to_string(ours.file("ca.pem")).unwrap(), fs::read_to_string(others.file("ca.pem")).unwrap());
    fs::write(ours.file("ca.pem"), own + &other).unwrap();
    swapped(&gateway, 1).await;
    socket.echo().await;

    // The listener is bound anew; what came by it before goes by what that one says.
    let moved = text.replacen("127.0.0.1:0", &format!("127.0.0.1:{}", free_port()), 1);
    gateway.reconfigure(&moved).await;
    socket.echo().await;
    fs::write(ours.file("ca.pem"), other).unwrap();
    swapped(&gateway, 2).await;
    assert_eq!(socket.read_until(|_| false).await, b"", "it ends");
}

// === bounds ===

#[tokio::test]
async fn a_consumer_is_bounded_in_networks_methods_time_and_rate() {
    let consumers = [
        ("app", "networks = [\"127.0.0.0/8\"]\nmethods = [\"GET\"]\nexpires = \"2999-01-01T00:00:00Z\""),
        ("far", "networks = [\"10.0.0.0/8\"]"),
        ("poster", "methods = [\"POST\"]"),
        ("late", "expires = \"2020-01-01T00:00:00Z\""),
        ("fast", "rate = \"1/h\"\nburst = 2"),
    ];
    let text: String = consumers.iter().map(|(name, bound)| consumer(name, bound)).collect();
    let all = "access = [\"app\", \"far\", \"poster\", \"late\", \"fast\"]";
    let text = config(&text).replace("access = [\"app\"]", all);
    let gateway = Gateway::start(&text).await;
    let mut client = gateway.h1().await;
    let mut ask =
        async |name: &str| client.send("GET", "/", &[("x-api-key", &format!("key-{name}"))], "").await.unwrap();
    for (name, status, reason) in
        [("app", 200, "-"), ("far", 403, "network"), ("poster", 403, "method"), ("late", 401, "expired")]
    {
        assert_eq!(ask(name).await.status, status, "{name}");
        reasons_are(&gateway, &[reason]).await;
    }
    let first = ask("fast").await;
    assert_eq!((first.status, first.header("ratelimit-policy")), (200, "\"consumer:fast\";q=2;w=7200"));
    assert_eq!(first.header("ratelimit"), "\"consumer:fast\";r=1;t=3600");
    assert_eq!(ask("fast").await.status, 200);
    gateway.reconfigure(&text.replace("body = \"in\"", "body = \"still in\"")).await;
    let refused = ask("fast").await;
    assert_eq!(refused.status, 429, "a reload does not begin the count anew");
    assert!(refused.header("retry-after").parse::<u32>().unwrap() > 3000);
    reasons_are(&gateway, &["rate-limit"]).await;
}

#[tokio::test]
async fn requests_under_way_are_bounded_and_an_open_websocket_is_one_that_ends_with_its_key() {
    let (slow, echo) = (Origin::http().await, Origin::websocket().await);
    let more = format!(
        r#"
[listener.plain]
address = "127.0.0.1:0"
[upstream.slow]
endpoints = ["{}"]
[upstream.echo]
endpoints = ["{}"]
[[route]]
path = "/sleep"
access = ["app"]
proxy = {{ upstream = "slow" }}
[[route]]
path = "/ws"
access = ["app"]
proxy = {{ upstream = "echo" }}
"#,
        slow.url(),
        echo.url()
    );
    let text = config(&consumer("app", "max_concurrent = 2")) + &more;
    let gateway = Gateway::start(&text).await;
    let address = gateway.address("plain");
    let mut request = format!("ws://{address}/ws").into_client_request().unwrap();
    request.headers_mut().insert("x-api-key", "key-app".parse().unwrap());
    let (mut socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
    let key = [("x-api-key", "key-app")];
    let sleeper = tokio::spawn(async move {
        let mut client = Client::plain(address).await.unwrap();
        client.send("GET", "/sleep/1500", &key, "").await.unwrap().status
    });
    let mut client = Client::plain(address).await.unwrap();
    let mut ask = async || client.send("GET", "/", &key, "").await.unwrap().status;
    // The third at a time: refused as soon as the second is there.
    let mut statuses = Vec::new();
    while statuses.last() != Some(&429) && !sleeper.is_finished() {
        statuses.push(ask().await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(statuses.pop(), Some(429), "{statuses:?}");
    assert_eq!(sleeper.await.unwrap(), 200);
    assert_eq!(ask().await, 200, "the WebSocket and this");

    gateway.reconfigure(&text.replace(&sha256("key-app"), &sha256("key-other"))).await;
    let ended = async {
        use futures_util::StreamExt;
        while let Some(Ok(message)) = socket.next().await {
            assert!(!matches!(message, tungstenite::Message::Text(_)));
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("a revoked key ends its WebSocket");
    assert_eq!(ask().await, 401);
}
