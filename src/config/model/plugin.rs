//! Plugins, and the policies that are theirs or native.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize, de};

use super::defaults::{half_minute, yes};
use crate::config::value::{Size, Span};

/// `[plugin.NAME]`: a policy component. Watched by content; all keys are live.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Plugin {
    /// The component's file.
    pub path: PathBuf,
    /// Pin: the file's SHA-256, 64 hex digits; another content is refused.
    #[serde(default)]
    pub sha256: Option<String>,
    /// Refuse to start without it. Default true; false: the fallbacks serve, and `/status` says degraded.
    #[serde(default = "yes")]
    pub required: bool,
    /// Handed to `lifecycle.configure` as JSON.
    #[serde(default)]
    pub config: serde_json::Value,
    /// Memory of an instance. Default 4MiB.
    #[serde(default = "plugin_memory")]
    pub memory: Size,
    /// Longest call. Default 2ms.
    #[serde(default = "plugin_deadline")]
    pub deadline: Span,
    /// Largest component. Default 1MiB.
    #[serde(default = "plugin_size")]
    pub max_size: Size,
    /// Longest compilation. Default 30s.
    #[serde(default = "half_minute")]
    pub compile_deadline: Span,
    /// Memory for the compilation. Default 1GiB.
    #[serde(default = "compile_memory")]
    pub compile_memory: Size,
}

/// Which policy decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum PolicyRef {
    /// `{ plugin = "NAME", fallback = "NATIVE" }`.
    Plugin(PluginPolicy),
    /// `{ native = "NAME" }`.
    Native(NativeOnly),
}

/// A component, and the native policy that answers when it cannot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PluginPolicy {
    /// Name of a `[plugin.NAME]`.
    pub plugin: String,
    /// Native policy used while the component cannot answer. Sizing: `fixed`; eviction: `lifetime`; validation:
    /// `always`, `bypass-window` or `never`.
    pub fallback: String,
}

/// A policy that is part of the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NativeOnly {
    /// Its name.
    pub native: String,
}

impl PolicyRef {
    /// The plugin's name, where one decides.
    pub fn plugin(&self) -> Option<&str> {
        match self {
            Self::Plugin(policy) => Some(&policy.plugin),
            Self::Native(_) => None,
        }
    }

    /// The native policy that decides alone, or stands in.
    pub fn native(&self) -> &str {
        match self {
            Self::Plugin(policy) => &policy.fallback,
            Self::Native(policy) => &policy.native,
        }
    }
}

// Written out, not `untagged`: that forgets where in the table the mistake was, and what it was.
impl<'de> Deserialize<'de> for PolicyRef {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        /// All keys of both forms.
        #[derive(Deserialize)]
        #[serde(
            deny_unknown_fields,
            expecting = "`{ plugin = \"NAME\", fallback = \"NATIVE\" }` or `{ native = \"NAME\" }`"
        )]
        struct Table {
            plugin: Option<String>,
            fallback: Option<String>,
            native: Option<String>,
        }

        let wrong = match Table::deserialize(from)? {
            Table { plugin: Some(plugin), fallback: Some(fallback), native: None } => {
                return Ok(Self::Plugin(PluginPolicy { plugin, fallback }));
            }
            Table { plugin: None, fallback: None, native: Some(native) } => {
                return Ok(Self::Native(NativeOnly { native }));
            }
            Table { native: Some(_), .. } => "`native` decides alone: leave `plugin` and `fallback` out",
            Table { plugin: Some(_), .. } => "`plugin` needs a `fallback`: the native policy for when it cannot answer",
            Table { fallback: Some(_), .. } => "`fallback` needs a `plugin`; to decide natively, write `native`",
            _ => "expected `plugin` with `fallback`, or `native`",
        };
        Err(de::Error::custom(wrong))
    }
}

/// The native policy of this name, alone.
pub(super) fn native(name: &str) -> PolicyRef {
    PolicyRef::Native(NativeOnly { native: name.into() })
}

fn plugin_memory() -> Size {
    Size::mib(4)
}

fn plugin_deadline() -> Span {
    Span::millis(2)
}

fn plugin_size() -> Size {
    Size::mib(1)
}

fn compile_memory() -> Size {
    Size(1 << 30)
}
