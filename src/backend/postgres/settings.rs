//! A pool's settings as PostgreSQL needs them: the URL taken apart, the session's options, TLS.

use std::{
    collections::{BTreeMap, hash_map::RandomState},
    hash::BuildHasher,
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use tokio_postgres::config::{Host, LoadBalanceHosts, TargetSessionAttrs};

use super::failure::PostgresSettingsError;
use crate::{
    config::{
        model::{LoginRole, Pool},
        value::Secret,
    },
    net::{ClientConfig, Verify, client_tls},
};

/// Sent with every start-up, so that text means the same whatever the server's, the database's or the role's defaults
/// are. `extra_float_digits` matters to servers before 12 only.
const PINNED: &str = "-c datestyle=ISO -c intervalstyle=postgres -c bytea_output=hex -c extra_float_digits=3";

/// Everything that shapes a connection. Immutable: a reload makes new ones.
#[derive(Clone)]
pub(super) struct Settings {
    /// Where to connect, in order.
    pub(super) endpoints: Vec<Endpoint>,
    /// Try hosts and their addresses in any order.
    pub(super) shuffle: bool,
    /// What start-up needs: user, password, database, options, channel binding.
    pub(super) startup: tokio_postgres::Config,
    /// Whether and how to encrypt.
    pub(super) encryption: Encryption,
    /// Which kind of session is wanted.
    pub(super) session: TargetSessionAttrs,
    pub(super) keepalive: Option<Duration>,
    pub(super) user_timeout: Option<Duration>,
    pub(super) connect_timeout: Duration,
    /// Prepared statements kept on a connection.
    pub(super) statement_cache: usize,
    /// Whether the server's own word on its connections is wanted: the operator has said nothing, and it is a server.
    pub(super) asks_grants: bool,
    /// Another pooler stands between.
    pub(super) behind_pgbouncer: bool,
    /// Roles to connect as instead, with their passwords.
    roles: BTreeMap<String, Option<String>>,
}

/// A host of the URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) address: Address,
    /// The name to verify; none on a Unix socket, which is never encrypted.
    pub(super) name: Option<String>,
}

/// Where an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    Name(String, u16),
    Ip(IpAddr, u16),
    Unix(PathBuf),
}

/// `sslmode`.
#[derive(Clone)]
pub(super) enum Encryption {
    /// `disable`.
    Never,
    /// `prefer`: if the server offers it.
    IfOffered(Arc<ClientConfig>),
    /// `require`, `verify-ca`, `verify-full`.
    Always(Arc<ClientConfig>),
}

// === impl Settings ===

impl Settings {
    /// Reads the settings of `pool`; reads files where secrets and authorities are kept in them.
    pub(super) fn read(pool: &Pool) -> Result<Self, PostgresSettingsError> {
        let url = pool.url.reveal().map_err(PostgresSettingsError::Secret)?;
        let (url, mode) = split_sslmode(&url)?;
        let mut startup: tokio_postgres::Config = url.parse().map_err(|error| url_error(&error))?;
        if let Some(password) = &pool.password {
            startup.password(password.reveal().map_err(PostgresSettingsError::Secret)?);
        }
        let missing = |what: &str| PostgresSettingsError::Url(format!("names no {what}"));
        let user = startup.get_user().ok_or_else(|| missing("user"))?.to_owned();
        if startup.get_dbname().is_none() {
            startup.dbname(user);
        }
        let endpoints = endpoints(&startup, pool.tls.server_name.as_deref())?;
        if endpoints.is_empty() {
            return Err(missing("host"));
        }
        if startup.get_application_name().is_none() {
            startup.application_name(&pool.application_name);
        }
        if let Some(options) = options(pool, startup.get_options()) {
            startup.options(options);
        }
        let keepalive = pool.tcp_keepalive.0;
        Ok(Self {
            endpoints,
            shuffle: startup.get_load_balance_hosts() == LoadBalanceHosts::Random,
            encryption: encryption(pool, mode.as_deref())?,
            session: startup.get_target_session_attrs(),
            keepalive: (!keepalive.is_zero()).then_some(keepalive),
            user_timeout: Some(pool.tcp_user_timeout.0).filter(|limit| !limit.is_zero()),
            connect_timeout: pool.connect_timeout.0,
            statement_cache: if pool.behind_pgbouncer { 0 } else { pool.statement_cache },
            asks_grants: pool.server.connections.is_none() && !pool.behind_pgbouncer,
            behind_pgbouncer: pool.behind_pgbouncer,
            roles: roles(pool)?,
            startup,
        })
    }

    /// The same with `name` where the database has a `*`.
    pub(super) fn of_database(&self, name: &str) -> Self {
        let mut settings = self.clone();
        let database = self.startup.get_dbname().unwrap_or_default().replace('*', name);
        settings.startup.dbname(database);
        settings
    }

    /// The same as the role `name`, if that is one to connect as.
    pub(super) fn of_role(&self, name: &str) -> Option<Self> {
        let password = self.roles.get(name)?;
        let mut settings = Self { roles: BTreeMap::new(), ..self.clone() };
        settings.startup.user(name);
        if let Some(password) = password {
            settings.startup.password(password);
        }
        Some(settings)
    }

    /// Hosts, database and role: what makes two pools the same one.
    pub(super) fn identity(&self) -> String {
        let (user, database) = (self.startup.get_user(), self.startup.get_dbname());
        format!("postgres://{}@{}/{}", user.unwrap_or_default(), self.hosts(), database.unwrap_or_default())
    }

    /// All hosts, as one text.
    pub(super) fn hosts(&self) -> String {
        let places: Vec<String> = self.endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect();
        places.join(",")
    }

    /// The endpoints in the order to try them.
    pub(super) fn order(&self) -> Vec<&Endpoint> {
        let mut endpoints: Vec<&Endpoint> = self.endpoints.iter().collect();
        self.mix(&mut endpoints);
        endpoints
    }

    /// Shuffles, if hosts are to be balanced.
    pub(super) fn mix<T>(&self, items: &mut [T]) {
        if self.shuffle {
            let start = RandomState::new().hash_one(0) as usize % items.len().max(1);
            items.rotate_left(start);
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name, port) => write!(f, "{name}:{port}"),
            Self::Ip(ip, port) => write!(f, "{ip}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

fn roles(pool: &Pool) -> Result<BTreeMap<String, Option<String>>, PostgresSettingsError> {
    let password = |role: &LoginRole| role.password.as_ref().map(Secret::reveal).transpose();
    let roles = pool.roles.iter().map(|(name, role)| Ok((name.clone(), password(role)?)));
    roles.collect::<Result<_, String>>().map_err(PostgresSettingsError::Secret)
}

/// `tokio_postgres` knows three modes and refuses the others; libpq knows six.
fn split_sslmode(url: &str) -> Result<(String, Option<String>), PostgresSettingsError> {
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(PostgresSettingsError::Url("must begin with postgres:// or postgresql://".into()));
    }
    let Some((base, query)) = url.rsplit_once('?') else { return Ok((url.to_owned(), None)) };
    let mut mode = None;
    let rest: Vec<&str> = query
        .split('&')
        .filter(|pair| match pair.strip_prefix("sslmode=") {
            Some(value) => {
                mode = Some(value.to_owned());
                false
            }
            None => !pair.is_empty(),
        })
        .collect();
    let url = if rest.is_empty() { base.to_owned() } else { format!("{base}?{}", rest.join("&")) };
    Ok((url, mode))
}

/// The reason lies in the source; it names keys, never values.
fn url_error(error: &tokio_postgres::Error) -> PostgresSettingsError {
    let reason = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    PostgresSettingsError::Url(reason)
}

fn encryption(pool: &Pool, mode: Option<&str>) -> Result<Encryption, PostgresSettingsError> {
    let client = |verify| client_tls(&pool.tls, verify, &[]);
    Ok(match mode.unwrap_or("prefer") {
        "disable" => Encryption::Never,
        "allow" | "prefer" => Encryption::IfOffered(client(Verify::Nothing)?),
        // libpq: with an authority at hand, `require` verifies it.
        "require" if pool.tls.ca.is_some() => Encryption::Always(client(Verify::Chain)?),
        "require" => Encryption::Always(client(Verify::Nothing)?),
        "verify-ca" => Encryption::Always(client(Verify::Chain)?),
        "verify-full" => Encryption::Always(client(Verify::Full)?),
        _ => {
            let known = "disable, allow, prefer, require, verify-ca or verify-full";
            return Err(PostgresSettingsError::Url(format!("sslmode is none of {known}")));
        }
    })
}

fn endpoints(url: &tokio_postgres::Config, server_name: Option<&str>) -> Result<Vec<Endpoint>, PostgresSettingsError> {
    let (hosts, numbers, ports) = (url.get_hosts(), url.get_hostaddrs(), url.get_ports());
    let count = hosts.len().max(numbers.len());
    if !hosts.is_empty() && !numbers.is_empty() && hosts.len() != numbers.len() {
        return Err(PostgresSettingsError::Url("has as many host as hostaddr, or only one of them".into()));
    }
    if ports.len() > 1 && ports.len() != count {
        return Err(PostgresSettingsError::Url("has one port, or as many as hosts".into()));
    }
    let endpoint = |at: usize| {
        let port = ports.get(at).or_else(|| ports.first()).copied().unwrap_or(5432);
        let name = |host: &str| Some(server_name.unwrap_or(host).to_owned());
        match (hosts.get(at), numbers.get(at)) {
            (Some(Host::Unix(directory)), _) => {
                let path = directory.join(format!(".s.PGSQL.{port}"));
                Endpoint { address: Address::Unix(path), name: None }
            }
            (Some(Host::Tcp(host)), Some(ip)) => Endpoint { address: Address::Ip(*ip, port), name: name(host) },
            (Some(Host::Tcp(host)), None) => Endpoint { address: Address::Name(host.clone(), port), name: name(host) },
            (None, Some(ip)) => Endpoint { address: Address::Ip(*ip, port), name: name(&ip.to_string()) },
            (None, None) => Endpoint { address: Address::Name(String::new(), port), name: None },
        }
    };
    Ok((0..count).map(endpoint).collect())
}

/// The session's settings travel in the start-up's `options`, so that `RESET ALL` comes back to them. `PgBouncer`
/// refuses `options` unless told otherwise: behind it the gateway's own deadline bounds a statement.
fn options(pool: &Pool, own: Option<&str>) -> Option<String> {
    if pool.behind_pgbouncer {
        return own.map(str::to_owned);
    }
    let timeouts = [
        ("statement_timeout", pool.statement_timeout.0),
        ("idle_in_transaction_session_timeout", pool.idle_in_transaction_timeout.0),
    ];
    let timeouts = timeouts.into_iter().filter(|(_, span)| !span.is_zero());
    let mut options = vec![PINNED.to_owned()];
    options.extend(timeouts.map(|(name, span)| format!("-c {name}={}", span.as_millis())));
    options.extend(own.map(str::to_owned));
    Some(options.join(" "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(url: &str, more: serde_json::Value) -> Result<Settings, PostgresSettingsError> {
        let mut pool = json!({"backend": "postgres", "url": url});
        pool.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Settings::read(&serde_json::from_value(pool).unwrap())
    }

    fn address(text: &str) -> String {
        let settings = settings(text, json!({})).unwrap();
        let endpoints = settings.endpoints.iter().map(|e| format!("{} {:?};", e.address, e.name.as_deref()));
        endpoints.collect::<Vec<_>>().concat()
    }

    #[test]
    fn urls_name_hosts_addresses_and_sockets() {
        for (url, expected) in [
            ("postgres://u@h/d", "h:5432 Some(\"h\");"),
            ("postgresql://u@h1:1,h2:2/d", "h1:1 Some(\"h1\");h2:2 Some(\"h2\");"),
            ("postgres://u@h:7/d?hostaddr=10.0.0.1", "10.0.0.1:7 Some(\"h\");"),
            ("postgres://u@/d?hostaddr=10.0.0.1", "10.0.0.1:5432 Some(\"10.0.0.1\");"),
            ("postgres://u@%2Fvar%2Frun:7/d", "/var/run/.s.PGSQL.7 None;"),
        ] {
            assert_eq!(address(url), expected, "{url}");
        }
    }

    #[test]
    fn every_sslmode_of_libpq_is_known() {
        let mode = |text: &str| {
            settings(&format!("postgres://u:p@h/d?sslmode={text}&channel_binding=require"), json!({}))
                .map(|settings| settings.encryption)
        };
        assert!(matches!(mode("disable"), Ok(Encryption::Never)));
        assert!(matches!(mode("prefer"), Ok(Encryption::IfOffered(_))));
        for text in ["require", "verify-ca", "verify-full"] {
            assert!(matches!(mode(text), Ok(Encryption::Always(_))), "{text}");
        }
        assert!(mode("always").err().unwrap().to_string().contains("verify-full"));
    }

    #[test]
    fn errors_name_the_key_and_not_the_secret() {
        for (url, expected) in [
            ("postgres://u:secret@h/d?nonsense=1", "nonsense"),
            ("postgres://u:secret@h:port/d", "port"),
            ("mysql://u:secret@h/d", "postgres://"),
            ("postgres://h/d", "user"),
            ("postgres://u:secret@/d", "host"),
        ] {
            let text = settings(url, json!({})).err().unwrap().to_string();
            assert!(text.contains(expected) && !text.contains("secret"), "{url}: {text}");
        }
    }

    #[test]
    fn the_identity_has_no_password_and_knows_the_role() {
        let one = settings("postgres://u:one@h/d?sslmode=disable", json!({})).unwrap().identity();
        let other = settings("postgres://u@h:5432/d", json!({"password": "two"})).unwrap().identity();
        assert_eq!(one, "postgres://u@h:5432/d");
        assert_eq!(one, other);
    }

    #[test]
    fn options_carry_the_timeouts_and_the_urls_come_last() {
        let found =
            settings("postgres://u@h/d?options=-c%20work_mem%3D1MB", json!({"statement_timeout": "2s"})).unwrap();
        let options = found.startup.get_options().unwrap();
        assert!(options.contains("-c statement_timeout=2000"), "{options}");
        assert!(options.ends_with("-c work_mem=1MB"), "{options}");
        let bare = settings("postgres://u@h/d", json!({"behind_pgbouncer": true})).unwrap();
        assert_eq!((bare.startup.get_options(), bare.statement_cache), (None, 0));
    }
}
