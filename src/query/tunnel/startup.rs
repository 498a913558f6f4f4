//! What a client says first (PostgreSQL's protocol, "Start-up"): read whole or not at all.

use std::fmt;

/// Longest packet that begins a session, as PostgreSQL has it (`MAX_STARTUP_PACKET_LENGTH`).
pub(super) const LONGEST: usize = 10_000;

/// Codes that stand where a version does.
const CANCEL: u32 = 80_877_102;
const SSL: u32 = 80_877_103;
const GSS: u32 = 80_877_104;

/// The first packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum First {
    /// Asks for TLS, or for GSSAPI encryption, within the tunnel.
    Encryption,
    /// Asks to cancel what the session of this key runs.
    Cancel(Key),
    /// Begins a session.
    Start(Startup),
}

/// What names a session to whoever would cancel its statement.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) process: i32,
    pub(super) secret: i32,
}

/// A session as a client wants it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Startup {
    /// The minor version of protocol 3.
    pub(super) minor: u16,
    pub(super) user: String,
    /// Default: the user's name.
    pub(super) database: Option<String>,
    /// Settings, in order, those of `options` first.
    pub(super) settings: Vec<(String, String)>,
    /// Options of the protocol itself that we do not know.
    pub(super) unknown: Vec<String>,
}

/// Why a first packet is refused: SQLSTATE and text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused(pub(super) &'static str, pub(super) String);

/// Takes the first packet off the front of `bytes`: the packet and its length, or none if it is not there whole.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(First, usize)>, Refused> {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*length) as usize;
    if !(8..=LONGEST).contains(&length) {
        return Err(Refused("08P01", "invalid length of startup packet".into()));
    }
    let Some(packet) = rest.get(..length - 4) else { return Ok(None) };
    let (code, body) = packet.split_first_chunk::<4>().unwrap_or((&[0; 4], &[]));
    let first = match u32::from_be_bytes(*code) {
        SSL | GSS if body.is_empty() => First::Encryption,
        CANCEL => First::Cancel(key(body)?),
        version if version >> 16 == 3 => First::Start(startup(version as u16, body)?),
        version => {
            let (major, minor) = (version >> 16, version & 0xffff);
            let text = format!("unsupported frontend protocol {major}.{minor}: server supports 3.0");
            return Err(Refused("0A000", text));
        }
    };
    Ok(Some((first, length)))
}

fn key(body: &[u8]) -> Result<Key, Refused> {
    match body.split_first_chunk::<4>().map(|(process, secret)| (process, <[u8; 4]>::try_from(secret))) {
        Some((process, Ok(secret))) => {
            Ok(Key { process: i32::from_be_bytes(*process), secret: i32::from_be_bytes(secret) })
        }
        _ => Err(Refused("08P01", "invalid length of cancel request".into())),
    }
}

fn startup(minor: u16, mut body: &[u8]) -> Result<Startup, Refused> {
    let mut startup = Startup { minor, ..Startup::default() };
    let mut named = Vec::new();
    loop {
        let name = text(&mut body)?;
        if name.is_empty() {
            break;
        }
        let value = text(&mut body)?.to_owned();
        match name {
            "user" => startup.user = value,
            "database" => startup.database = Some(value).filter(|name| !name.is_empty()),
            "options" => options(&value, &mut startup.settings)?,
            "replication" if matches!(value.as_str(), "false" | "off" | "no" | "0") => {}
            "replication" => return Err(Refused("0A000", "replication is not tunnelled".into())),
            _ if name.starts_with("_pq_.") => startup.unknown.push(name.to_owned()),
            _ => named.push((name.to_owned(), value)),
        }
    }
    startup.settings.extend(named);
    if !body.is_empty() {
        return Err(malformed());
    }
    if startup.user.is_empty() {
        return Err(Refused("28000", "no PostgreSQL user name specified in startup packet".into()));
    }
    Ok(startup)
}

fn text<'a>(body: &mut &'a [u8]) -> Result<&'a str, Refused> {
    let end = memchr::memchr(0, body).ok_or_else(malformed)?;
    let text = std::str::from_utf8(&body[..end]).map_err(|_| Refused("22021", "startup packet is not UTF-8".into()))?;
    *body = &body[end + 1..];
    Ok(text)
}

fn malformed() -> Refused {
    Refused("08P01", "invalid startup packet layout: expected terminator as last byte".into())
}

/// A command line's `-c name=value` and `--name=value`. A backslash takes the next character as it is.
fn options(line: &str, settings: &mut Vec<(String, String)>) -> Result<(), Refused> {
    let wrong = |what: &str| Refused("42601", format!("invalid command-line argument for server process: {what}"));
    let words = split(line);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let setting = match (word.strip_prefix("--"), word.strip_prefix("-c")) {
            (None, Some("")) => words.next().ok_or_else(|| wrong(word))?,
            (Some(setting), _) | (None, Some(setting)) => setting,
            (None, None) => return Err(wrong(word)),
        };
        let (name, value) = setting.split_once('=').ok_or_else(|| wrong(setting))?;
        // As PostgreSQL: `--search-path` is `search_path`.
        settings.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(())
}

fn split(line: &str) -> Vec<String> {
    let (mut words, mut word, mut characters) = (Vec::new(), None::<String>, line.chars());
    while let Some(character) = characters.next() {
        if character.is_whitespace() {
            words.extend(word.take());
        } else {
            let plain = if character == '\\' { characters.next() } else { Some(character) };
            word.get_or_insert_default().extend(plain);
        }
    }
    words.extend(word);
    words
}

/// A key is a secret.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("process", &self.process).finish_non_exhaustive()
    }
}

// === settings ===

/// Settings that a client may choose when it begins; all others it sets by SQL, if its role may.
const ALLOWED: [&str; 14] = [
    "application_name",
    "bytea_output",
    "client_encoding",
    "client_min_messages",
    "datestyle",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "extra_float_digits",
    "idle_in_transaction_session_timeout",
    "intervalstyle",
    "lock_timeout",
    "search_path",
    "statement_timeout",
    "timezone",
];

/// The settings as the session is to have them, under the names that the server reports.
pub(super) fn wishes(settings: Vec<(String, String)>) -> Result<Vec<(String, String)>, Refused> {
    let mut wishes: Vec<(String, String)> = Vec::with_capacity(settings.len());
    for (name, value) in settings {
        let lower = name.to_ascii_lowercase();
        if !ALLOWED.contains(&lower.as_str()) {
            let text = format!("parameter \"{}\" cannot be set when the session begins", printable(&name));
            return Err(Refused("42501", text));
        }
        if lower == "client_encoding" {
            let plain: String = value.chars().filter(char::is_ascii_alphanumeric).collect();
            if !matches!(plain.to_ascii_lowercase().as_str(), "utf8" | "unicode") {
                return Err(Refused("22023", "client_encoding must be UTF8".into()));
            }
            continue;
        }
        let name = match lower.as_str() {
            "datestyle" => "DateStyle",
            "intervalstyle" => "IntervalStyle",
            "timezone" => "TimeZone",
            other => other,
        };
        wishes.retain(|(known, _)| known != name);
        wishes.push((name.to_owned(), value));
    }
    Ok(wishes)
}

/// A client's words, fit for a text.
fn printable(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(63).collect()
}

#[cfg(test)]
mod tests;
