//! Who may ask what: keys, tokens and client certificates, over real TLS.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm::{self, ES256, HS256, RS256},
    EncodingKey,
};
use serde_json::{Value, json};

use crate::support::{eventually, gateway::Gateway};

/// A key pair that openssl made.
struct Pair {
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

    fn ec(dir: &Path, id: &str) -> Self {
        openssl(dir, &format!("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {id}.pem"));
        let der = openssl(dir, &format!("pkcs8 -topk8 -nocrypt -in {id}.pem -outform DER"));
        let public = openssl(dir, &format!("pkey -in {id}.pem -pubout -outform DER"));
        let point = &public[public.len() - 64..];
        let public = json!({ "kty": "EC", "crv": "P-256", "kid": id, "x": b64(&point[..32]), "y": b64(&point[32..]) });
        let pem = openssl(dir, &format!("pkey -in {id}.pem -pubout"));
        Self { private: EncodingKey::from_ec_der(&der), public, pem }
    }

    fn token(&self, how: Algorithm, id: &str, claims: &Value) -> String {
        sign(&self.private, how, &json!({ "alg": format!("{how:?}"), "typ": "JWT", "kid": id }), claims)
    }
}

/// A token whose header may say anything.
fn sign(key: &EncodingKey, how: Algorithm, header: &Value, claims: &Value) -> String {
    let message = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, how).unwrap();
    format!("{message}.{signature}")
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn claims() -> Value {
    json!({ "iss": "https://auth.test/", "aud": ["gateway"], "exp": now() + 600, "sub": "someone", "tier": "pro" })
}

fn with(mut claims: Value, name: &str, value: Value) -> Value {
    claims[name] = value;
    claims
}

fn jwks(keys: &[&Pair]) -> String {
    json!({ "keys": keys.iter().map(|pair| &pair.public).collect::<Vec<_>>() }).to_string()
}

/// Beside a listener of TLS and an admin: what `more` says.
fn config(more: &str) -> String {
    format!(
        "[server]\nworkers = 2\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [listener.public]\naddress = \"127.0.0.1:0\"\ntls = {{ self_signed = [\"localhost\"] }}\n{more}\n\
         [[route]]\npath = \"/\"\naccess = [\"app\"]\nrespond = {{ status = 200, body = \"in\" }}\n\
         [[route]]\npath = \"/open\"\naccess = \"open\"\nrespond = {{ status = 200, body = \"open\" }}\n"
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

/// The reasons of the last requests in the access log, in their order.
async fn reasons(gateway: &Gateway, count: usize) -> Vec<String> {
    let log = || async {
        let mut lines: Vec<Value> =
            gateway.access_log().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        // Each worker writes its own.
        lines.sort_by_key(|line| line["request"].as_u64());
        let reasons = lines.iter().map(|line| line["reason"].as_str().unwrap_or("-").to_owned());
        reasons.collect::<Vec<_>>()
    };
    let all = eventually("the log's lines", log, |reasons| reasons.len() >= count).await;
    all[all.len() - count..].to_vec()
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
    assert_eq!(reasons(&gateway, cases.len()).await, wanted);
    let log = gateway.access_log();
    assert!(cases.iter().all(|(token, _, _)| !log.contains(token.as_str())), "no token stands in a log");
    let open = curl(&gateway, &["-H", &format!("Authorization: Bearer {}", cases[5].0)], "/open").await;
    assert_eq!(open, (200, "open".to_owned()), "where anybody may call, it is nobody");
}
