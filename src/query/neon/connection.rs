//! The connection string of `Neon-Connection-String`: `postgres[ql]://user[:password]@host[:port]/database[?parameters]`.
//!
//! It is read as a URL of a scheme that the URL standard does not know (so do the drivers' servers): the last `@` ends the
//! credentials, the host stays as it is written, and user, password and database are percent-decoded. Port and parameters are
//! looked at no further: the pool knows where its database is.

use std::{borrow::Cow, fmt, net::Ipv4Addr};

use percent_encoding::percent_decode_str;

use crate::query::label;

/// What a connection string says.
#[derive(PartialEq, Eq)]
pub(super) struct ConnectionString<'a> {
    pub(super) user: Cow<'a, str>,
    /// A key or a token of one of our consumers. It never goes to the database.
    pub(super) password: Option<Cow<'a, [u8]>>,
    pub(super) host: &'a str,
    pub(super) database: Cow<'a, str>,
}

/// Why a connection string cannot be used. The texts are those that the drivers' users can look up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ConnectionError {
    #[error("invalid header: neon-connection-string")]
    Header,
    #[error("invalid connection string: it is no URL")]
    NoUrl,
    #[error("invalid connection string: invalid port number")]
    Port,
    #[error("incorrect scheme")]
    Scheme,
    #[error("missing database name")]
    NoDatabase,
    #[error("invalid database name")]
    Database,
    #[error("missing username")]
    NoUser,
    #[error("invalid username: it is not UTF-8")]
    User,
    #[error("missing hostname")]
    NoHost,
}

impl<'a> ConnectionString<'a> {
    /// Reads a connection string.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(text: &'a str) -> Result<Self, ConnectionError> {
        let (scheme, rest) = text.split_once(':').ok_or(ConnectionError::NoUrl)?;
        if !["postgres", "postgresql"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
            return Err(ConnectionError::Scheme);
        }
        let rest = rest.strip_prefix("//").ok_or(ConnectionError::NoHost)?;
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (credentials, place) = authority.rsplit_once('@').unwrap_or(("", authority));
        let host = host(place)?;
        let path = &path[..path.find(['?', '#']).unwrap_or(path.len())];
        let database = path.strip_prefix('/').and_then(|path| path.split('/').next()).unwrap_or_default();
        let database = percent_decode_str(database).decode_utf8().map_err(|_| ConnectionError::Database)?;
        let (user, password) = match credentials.split_once(':') {
            Some((user, password)) => (user, Some(password).filter(|password| !password.is_empty())),
            None => (credentials, None),
        };
        let user = percent_decode_str(user).decode_utf8().map_err(|_| ConnectionError::User)?;
        if user.is_empty() {
            return Err(ConnectionError::NoUser);
        }
        if database.is_empty() {
            return Err(ConnectionError::NoDatabase);
        }
        Ok(Self { user, password: password.map(|password| percent_decode_str(password).into()), host, database })
    }

    /// What the host calls the database's server: its first label, in small letters.
    pub(super) fn endpoint(&self) -> String {
        label(self.host)
    }
}

/// The host of `host[:port]`. A name it must be: drivers put another in the place of its first label.
fn host(place: &str) -> Result<&str, ConnectionError> {
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (place, ""),
    };
    if !port.is_empty() && (port.parse::<u16>().is_err() || port.starts_with('+')) {
        return Err(ConnectionError::Port);
    }
    let name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_name = !host.is_empty() && !host.starts_with('.') && host.bytes().all(name);
    if is_name && host.parse::<Ipv4Addr>().is_err() { Ok(host) } else { Err(ConnectionError::NoHost) }
}

// The password is nobody's business.
impl fmt::Debug for ConnectionString<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, host, database, .. } = self;
        write!(f, "postgres://{user}@{host}/{database}")
    }
}

#[cfg(test)]
mod tests {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<(String, Option<String>, String, String), ConnectionError> {
        let read = ConnectionString::parse(text)?;
        let password = read.password.as_deref().map(|password| String::from_utf8_lossy(password).into_owned());
        Ok((read.user.to_string(), password, read.endpoint(), read.database.to_string()))
    }

    #[test]
    fn what_it_says_is_read() {
        for (text, user, password, endpoint, database) in [
            ("postgres://app:key@db1.gw.example.com/main", "app", Some("key"), "db1", "main"),
            ("postgresql://app@localhost:5432/main", "app", None, "localhost", "main"),
            ("POSTGRES://app:@LocalHost/main", "app", None, "localhost", "main"),
            ("postgres://a%40b:p%2F%3A%25@h/d%20b", "a@b", Some("p/:%"), "h", "d b"),
            ("postgres://a:b:c@d@h.x/db", "a", Some("b:c@d"), "h", "db"),
            ("postgres://a:%zz@h/db", "a", Some("%zz"), "h", "db"),
            ("postgres://a:b@h/db/more?application_name=x%2Fy&options=z#end", "a", Some("b"), "h", "db"),
            ("postgres://a:b@h:/db", "a", Some("b"), "h", "db"),
        ] {
            let expected = (user.to_owned(), password.map(str::to_owned), endpoint.to_owned(), database.to_owned());
            assert_eq!(read(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, wrong) in [
            ("", ConnectionError::NoUrl),
            ("app", ConnectionError::NoUrl),
            ("mysql://a:b@h/db", ConnectionError::Scheme),
            ("postgres:a:b@h/db", ConnectionError::NoHost),
            ("postgres:///db", ConnectionError::NoHost),
            ("postgres://a:b@/db", ConnectionError::NoHost),
            ("postgres://a:b@127.0.0.1/db", ConnectionError::NoHost),
            ("postgres://a:b@127.0.0.1:5432/db", ConnectionError::NoHost),
            ("postgres://a:b@[::1]/db", ConnectionError::NoHost),
            ("postgres://a:b@[::1]:5432/db", ConnectionError::NoHost),
            ("postgres://a:b@h h/db", ConnectionError::NoHost),
            ("postgres://a:b@h:99999/db", ConnectionError::Port),
            ("postgres://a:b@h:+1/db", ConnectionError::Port),
            ("postgres://a:b@h:x/db", ConnectionError::Port),
            ("postgres://h/db", ConnectionError::NoUser),
            ("postgres://:b@h/db", ConnectionError::NoUser),
            ("postgres://%ff:b@h/db", ConnectionError::User),
            ("postgres://a:b@h", ConnectionError::NoDatabase),
            ("postgres://a:b@h/", ConnectionError::NoDatabase),
            ("postgres://a:b@h?db", ConnectionError::NoDatabase),
            ("postgres://a:b@h/%ff", ConnectionError::Database),
        ] {
            assert_eq!(read(text), Err(wrong), "{text}");
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let shown = format!("{:?}", ConnectionString::parse("postgres://a:secret@h/db").unwrap());
        assert_eq!(shown, "postgres://a@h/db");
    }

    proptest! {
        #[test]
        fn what_is_encoded_comes_back(user in ".{1,12}", password in ".{1,20}", host in "[a-z][a-z0-9-]{0,8}(\\.[a-z]{1,5}){0,3}", database in ".{1,12}") {
            let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
            let text = format!("postgres://{}:{}@{host}:5432/{}?a=b", encode(&user), encode(&password), encode(&database));
            let endpoint = host.split('.').next().unwrap().to_owned();
            prop_assert_eq!(read(&text), Ok((user, Some(password), endpoint, database)));
        }
    }
}
