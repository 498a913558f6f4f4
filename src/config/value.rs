//! Values a person writes as text: durations, sizes, rates, secrets.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::{Duration, SystemTime},
};

use ipnet::IpNet;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, IntoDeserializer, value::MapAccessDeserializer},
};

/// A SHA-256 in 64 hexadecimal digits, of either case; none if it is anything else.
pub fn sha256(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |character: u8| char::from(character).to_digit(16);
        *byte = u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()?;
    }
    Some(digest)
}

/// A length of time, written `250ms`, `10s`, `5m`, `1h` or `7d`; `0s` is allowed where a key says so.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub Duration);

/// A number of bytes, written `512B`, `64KiB`, `16MiB` or `1GiB` (powers of 1024).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

/// A rate, written `100/s`, `600/m` or `5000/h`; never zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Permits in one `per`.
    pub count: u32,
    /// The period.
    pub per: Duration,
}

/// A point in time, written `2027-01-31T00:00:00Z` (RFC 3339, in UTC).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub SystemTime);

/// Text that must not be shown: given in place, from the environment, or from a file.
///
/// `Debug`, `Serialize` and every log print `"***"`, whatever the source.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// The text itself.
    Plain(String),
    /// `{ env = "NAME" }`.
    Env(SecretEnv),
    /// `{ file = "path" }`; trailing line ends are dropped.
    File(SecretFile),
}

/// The name of an environment variable that holds a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretEnv {
    /// The variable's name.
    pub env: String,
}

/// The path of a file that holds a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretFile {
    /// The file, relative to the working directory.
    pub file: PathBuf,
}

impl Span {
    /// `n` seconds.
    pub const fn secs(n: u64) -> Self {
        Self(Duration::from_secs(n))
    }

    /// `n` milliseconds.
    pub const fn millis(n: u64) -> Self {
        Self(Duration::from_millis(n))
    }
}

impl Size {
    /// `n` KiB.
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }

    /// `n` MiB.
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    /// The number as a length in memory.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl Secret {
    /// Reads the secret from where it is.
    ///
    /// # Errors
    /// A text that names the variable or the file, never its content.
    pub fn reveal(&self) -> Result<String, String> {
        self.reveal_in(|name| std::env::var(name).ok())
    }

    /// The same with an environment of the caller's.
    ///
    /// # Errors
    /// As [`reveal`](Self::reveal).
    pub fn reveal_in(&self, variable: impl FnOnce(&str) -> Option<String>) -> Result<String, String> {
        match self {
            Self::Plain(text) => Ok(text.clone()),
            Self::Env(SecretEnv { env }) => {
                variable(env).ok_or_else(|| format!("environment variable {env} is not set, or is not UTF-8"))
            }
            Self::File(SecretFile { file }) => std::fs::read_to_string(file)
                .map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
                .map_err(|error| format!("cannot read {}: {error}", file.display())),
        }
    }
}

// === text forms ===

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim()))
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a duration; write it like 250ms, 10s, 5m, 1h or 7d");
        let (number, unit) = split_unit(text).ok_or_else(wrong)?;
        let millis = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        number.checked_mul(millis).filter(|total| *total <= 366 * 86_400_000).map(Self::millis).ok_or_else(wrong)
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a size; write it like 512B, 64KiB, 16MiB or 1GiB");
        let (number, unit) = split_unit(text).ok_or_else(wrong)?;
        let shift = match unit {
            "B" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            _ => return Err(wrong()),
        };
        number.checked_mul(1 << shift).map(Self).ok_or_else(wrong)
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a rate; write it like 100/s, 600/m or 5000/h");
        let (count, unit) = text.split_once('/').ok_or_else(wrong)?;
        let per = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            _ => return Err(wrong()),
        };
        let count = count.parse().ok().filter(|count| *count > 0).ok_or_else(wrong)?;
        Ok(Self { count, per: Duration::from_secs(per) })
    }
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |_| format!("`{text}` is not a point in time; write it in UTC, like 2027-01-31T00:00:00Z");
        humantime::parse_rfc3339(text).map(Self).map_err(wrong)
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_rfc3339(self.0).fmt(f)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        match millis {
            0 => f.write_str("0s"),
            n if n % 86_400_000 == 0 => write!(f, "{}d", n / 86_400_000),
            n if n % 3_600_000 == 0 => write!(f, "{}h", n / 3_600_000),
            n if n % 60_000 == 0 => write!(f, "{}m", n / 60_000),
            n if n % 1_000 == 0 => write!(f, "{}s", n / 1_000),
            n => write!(f, "{n}ms"),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n if n > 0 && n % (1 << 30) == 0 => write!(f, "{}GiB", n >> 30),
            n if n > 0 && n % (1 << 20) == 0 => write!(f, "{}MiB", n >> 20),
            n if n > 0 && n % (1 << 10) == 0 => write!(f, "{}KiB", n >> 10),
            n => write!(f, "{n}B"),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.per.as_secs() {
            60 => "m",
            3_600 => "h",
            _ => "s",
        };
        write!(f, "{}/{unit}", self.count)
    }
}

macro_rules! text_value {
    ($($name:ident),*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                String::deserialize(from)?.parse().map_err(de::Error::custom)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}

text_value!(Span, Size, Rate, Moment);

/// Reads one of the words of an enumeration. Without it serde takes `0` for the first of them.
pub(super) fn word<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    T::deserialize(String::deserialize(from)?.into_deserializer())
}

/// The same of one that may be left out.
pub(super) fn maybe_word<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    word(from).map(Some)
}

/// Reads an IP address and port.
pub(super) fn address<'de, D: Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(from)?;
    let wrong = || {
        format!("`{text}` is not an IP address with a port; write it like 127.0.0.1:8443, 0.0.0.0:443 or [::1]:8443")
    };
    text.parse().map_err(|_| de::Error::custom(wrong()))
}

/// Reads networks; a bare address is a network of one.
pub(super) fn networks<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpNet>, D::Error> {
    /// One of them, so that an error keeps its index.
    struct Network(IpNet);

    impl<'de> Deserialize<'de> for Network {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            let text = String::deserialize(from)?;
            let wrong = || format!("`{text}` is not a network; write it like 10.0.0.0/8, fd00::/8 or 192.0.2.1");
            let net = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            net.map(Network).map_err(|_| de::Error::custom(wrong()))
        }
    }

    Ok(Vec::<Network>::deserialize(from)?.into_iter().map(|Network(net)| net).collect())
}

/// The same of networks that may be left out.
pub(super) fn maybe_networks<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<IpNet>>, D::Error> {
    networks(from).map(Some)
}

// Written out, not `untagged`: that forgets where in the table the mistake was, and what it was.
impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        /// The table form.
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            env: Option<String>,
            file: Option<PathBuf>,
        }

        /// Text or table.
        struct Form;

        impl<'de> de::Visitor<'de> for Form {
            type Value = Secret;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text, `{ env = \"NAME\" }` or `{ file = \"path\" }`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Secret, E> {
                Ok(Secret::Plain(text.to_owned()))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Secret, A::Error> {
                match Table::deserialize(MapAccessDeserializer::new(map))? {
                    Table { env: Some(env), file: None } => Ok(Secret::Env(SecretEnv { env })),
                    Table { env: None, file: Some(file) } => Ok(Secret::File(SecretFile { file })),
                    _ => Err(de::Error::custom("expected exactly one of `env` and `file`")),
                }
            }
        }

        from.deserialize_any(Form)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"***\"")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_forms_round_trip() {
        for text in ["250ms", "10s", "5m", "1h", "7d", "0s"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
        for text in ["512B", "64KiB", "16MiB", "1GiB"] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
        assert_eq!("2027-01-31T00:00:00Z".parse::<Moment>().unwrap().to_string(), "2027-01-31T00:00:00Z");
        for text in ["100/s", "600/m", "5000/h"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_digest_has_64_hexadecimal_digits_and_nothing_else() {
        assert_eq!(sha256(&"0f".repeat(32)), Some([15; 32]));
        assert_eq!(sha256(&"0F".repeat(32)), Some([15; 32]));
        for wrong in ["", "0f", &"+f".repeat(32), &"0g".repeat(32), &" f".repeat(32), &"0f".repeat(33), &"é".repeat(32)]
        {
            assert_eq!(sha256(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_an_example() {
        for text in ["", "10", "10 parsecs", "-1s", "99999999999999999999s", "400d"] {
            assert!(text.parse::<Span>().unwrap_err().contains("250ms"), "{text}");
        }
        for text in ["", "10", "10kb", "99999999999GiB"] {
            assert!(text.parse::<Size>().unwrap_err().contains("64KiB"), "{text}");
        }
        for text in ["", "2027-01-31", "2027-01-31T00:00:00", "2027-02-30T00:00:00Z", "2027-01-31T00:00:00+01:00"] {
            assert!(text.parse::<Moment>().unwrap_err().contains("2027-01-31T00:00:00Z"), "{text}");
        }
        for text in ["", "0/s", "1/d", "x/s", "5"] {
            assert!(text.parse::<Rate>().unwrap_err().contains("100/s"), "{text}");
        }
    }

    #[test]
    fn a_secret_is_never_shown() {
        let secret = Secret::Plain("hunter2".into());
        assert_eq!(format!("{secret:?}"), "\"***\"");
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"***\"");
        assert_eq!(secret.reveal().unwrap(), "hunter2");
    }
}
