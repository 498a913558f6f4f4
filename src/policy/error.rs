//! Why a component is refused, and why a policy cannot be had: for the operator who reads it, so each says what and why.

use std::{io, path::PathBuf, sync::Arc};

use thiserror::Error;

use super::Hook;
use crate::config::value::{Size, Span};

/// Names that a message lists.
const NAMED: usize = 8;

/// Why a component is not taken into service. The component that serves meanwhile stays.
#[derive(Clone, Debug, Error)]
pub enum PluginError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: Arc<io::Error>,
    },
    /// The path is not a regular file.
    #[error("{}: not a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The file is larger than `max_size`.
    #[error("the file has {size} bytes, more than max_size = \"{limit}\"")]
    TooLarge {
        /// Its length.
        size: u64,
        /// The limit.
        limit: Size,
    },
    /// The content is not the pinned one.
    #[error("the file's SHA-256 is {found}, but sha256 pins {pinned}")]
    PinMismatch {
        /// What the configuration says.
        pinned: String,
        /// What the file has.
        found: String,
    },
    /// The file is something else.
    #[error("not a WebAssembly component: {found}")]
    NotAComponent {
        /// What it looks like.
        found: &'static str,
    },
    /// The compiler process cannot be run.
    #[error("the compiler cannot be run: {detail}")]
    Compiler {
        /// What happened.
        detail: String,
    },
    /// The compiler refused it: invalid, or with features that are switched off.
    #[error("cannot be compiled: {detail}")]
    Invalid {
        /// The compiler's words.
        detail: String,
    },
    /// Compilation took too long.
    #[error("compilation took longer than compile_deadline = \"{deadline}\"")]
    CompileTooLong {
        /// The limit.
        deadline: Span,
    },
    /// Compilation took too much memory.
    #[error("compilation took more memory than compile_memory = \"{memory}\"")]
    CompileTooHungry {
        /// The limit.
        memory: Size,
    },
    /// Somebody killed the compiler: the system for want of memory, if not a person. Which of them, nobody says.
    #[error("the compiler was killed (signal 9): the system was out of memory, or somebody did it")]
    Killed,
    /// The compiled form cannot be kept or loaded.
    #[error("the cache of compiled components in {}: {detail}", path.display())]
    Cache {
        /// The directory.
        path: PathBuf,
        /// What happened.
        detail: String,
    },
    /// It wants more than a policy gets.
    #[error("imports {}; a policy gets nothing but the types of sluicegate:policy", list(names))]
    Imports {
        /// What it wants.
        names: Vec<String>,
    },
    /// None of its exports is a policy interface.
    #[error("exports no policy: found {}; wanted at least one of {}", list(exports), list(wanted))]
    NoHook {
        /// What it exports.
        exports: Vec<String>,
        /// What would do.
        wanted: Vec<String>,
    },
    /// It exports an interface by the right name with other functions or types.
    #[error("exports {interface}, but not as this gateway knows it: {detail}")]
    WrongInterface {
        /// The interface.
        interface: &'static str,
        /// Where it differs.
        detail: String,
    },
    /// It lacks a hook that pools use.
    #[error("exports {}, but pools use its {hook}", hooks(exports))]
    HookLost {
        /// What it exports.
        exports: Vec<Hook>,
        /// What is missing.
        hook: Hook,
    },
    /// It asks for more memory at once than an instance may have.
    #[error("starts with {initial} bytes of memory, more than memory = \"{limit}\"")]
    MemoryAtStart {
        /// What it starts with.
        initial: u64,
        /// The limit.
        limit: Size,
    },
    /// It fails before it is asked anything.
    #[error("cannot be started: {detail}")]
    Start {
        /// What happened.
        detail: String,
    },
    /// It does not want its configuration.
    #[error("refuses its configuration: {reason}")]
    Configuration {
        /// In its own words.
        reason: String,
    },
    /// It finds itself wrong.
    #[error("its self-check failed: {reason}")]
    SelfCheck {
        /// In its own words.
        reason: String,
    },
    /// It fails on ordinary questions.
    #[error("failed a trial call of {hook}: {detail}")]
    Trial {
        /// The hook.
        hook: Hook,
        /// What happened.
        detail: String,
    },
    /// The gateway could not do its part.
    #[error("the policy host: {detail}")]
    Host {
        /// What happened.
        detail: String,
    },
}

/// Why a pool cannot have the policy that its configuration names.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PolicyError {
    /// No such plugin.
    #[error("there is no [plugin.{name}]")]
    UnknownPlugin {
        /// The name.
        name: String,
    },
    /// The plugin has no such hook.
    #[error("plugin {plugin} has no {hook} policy; it exports {}", hooks(exports))]
    NoSuchHook {
        /// The plugin.
        plugin: String,
        /// What was wanted.
        hook: Hook,
        /// What it has.
        exports: Vec<Hook>,
    },
    /// No such native policy.
    #[error("there is no native {hook} policy `{name}`; there is {}", known.join(", "))]
    UnknownNative {
        /// The kind of policy.
        hook: Hook,
        /// The name.
        name: String,
        /// Those there are.
        known: &'static [&'static str],
    },
}

impl PluginError {
    /// Whether the same file may do next time: the machine was at fault, not the component, or may have been.
    pub fn is_transient(&self) -> bool {
        let or_busy = matches!(self, Self::CompileTooLong { .. } | Self::Killed);
        or_busy || matches!(self, Self::Compiler { .. } | Self::Cache { .. } | Self::Host { .. })
    }

    pub(super) fn unreadable(path: &std::path::Path, source: io::Error) -> Self {
        Self::Unreadable { path: path.to_owned(), source: Arc::new(source) }
    }

    pub(super) fn host(detail: impl std::fmt::Display) -> Self {
        Self::Host { detail: detail.to_string() }
    }
}

/// The first [`NAMED`] of the names: a component may have any number of them.
fn list(names: &[String]) -> String {
    let (named, more) = names.split_at(names.len().min(NAMED));
    match more.len() {
        0 if named.is_empty() => "nothing".to_owned(),
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

fn hooks(hooks: &[Hook]) -> String {
    list(&hooks.iter().map(ToString::to_string).collect::<Vec<_>>())
}

/// Text from a component, a compiler or a trap, fit for a log line: one line, no control characters, bounded.
pub(super) fn tame(text: &str, most: usize) -> String {
    let mut tame = String::with_capacity(text.len().min(most + 8));
    for word in text.split_whitespace() {
        if tame.len() + word.len() >= most {
            tame.extend(word.chars().filter(|c| !c.is_control()).take(most.saturating_sub(tame.len())));
            tame.push('…');
            break;
        }
        if !tame.is_empty() {
            tame.push(' ');
        }
        tame.extend(word.chars().filter(|c| !c.is_control()));
    }
    tame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_becomes_one_bounded_line() {
        assert_eq!(tame("two\nlines \u{1b}[31mred", 100), "two lines [31mred");
        assert_eq!(tame("", 10), "");
        let long = tame(&"word ".repeat(100), 50);
        assert!(long.len() < 60 && long.ends_with('…'), "{long}");
        assert!(tame(&"x".repeat(1000), 50).chars().count() <= 51);
    }

    #[test]
    fn a_refusal_names_only_the_first_of_many() {
        let names: Vec<_> = (1..=12).map(|n| format!("i{n}")).collect();
        let text = PluginError::Imports { names: names.clone() }.to_string();
        assert!(text.starts_with("imports i1, i2, i3, i4, i5, i6, i7, i8 and 4 more; a policy"), "{text}");
        let text = PluginError::NoHook { exports: names, wanted: vec!["a".into()] }.to_string();
        assert!(text.contains("i8 and 4 more; wanted"), "{text}");
    }

    #[test]
    fn a_refusal_says_what_was_found_and_what_is_wanted() {
        let error = PluginError::NoHook { exports: vec![], wanted: vec!["a".into(), "b".into()] };
        assert_eq!(error.to_string(), "exports no policy: found nothing; wanted at least one of a, b");
        let error = PolicyError::NoSuchHook {
            plugin: "p".into(),
            hook: Hook::Eviction,
            exports: vec![Hook::Sizing, Hook::Validation],
        };
        assert_eq!(error.to_string(), "plugin p has no eviction policy; it exports sizing, validation");
    }
}
