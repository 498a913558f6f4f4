//! Small components, well-behaved and hostile, assembled from text.

use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use crate::{
    config::model::{Plugin, PolicyRef},
    policy::{Compiler, Plugins},
};

/// A guest misbehaves when the field that tests may set (`uses` of validation, `breaker` of sizing and eviction) has one
/// of these values, which no trial has.
pub const TRAP: u32 = 666;
pub const LOOP: u32 = 667;
pub const GROW: u32 = 668;
pub const RECURSE: u32 = 669;
pub const LIE: u32 = 670;
pub const FLOOD: u32 = 671;

/// A component in the making. The default exports every hook and no lifecycle, and behaves.
#[derive(Clone)]
pub struct Guest {
    pub hooks: &'static [&'static str],
    /// Name, version, carry-version.
    pub lifecycle: Option<(&'static str, &'static str, u32)>,
    /// Core text of `configure` and `self-check`: a pointer to their result. 3000 holds "ok", 3016 "no thanks".
    pub configure: &'static str,
    pub self_check: &'static str,
    /// `valid-for-ms` of every verdict, and target of every sizing: tells versions apart.
    pub mark: u32,
    /// Core text at the start of `check`, `decide` and `review`.
    pub prologue: &'static str,
    /// More core text: functions, a start function.
    pub extra: &'static str,
    pub pages: u32,
    /// WIT of the world's imports, and the core text for them.
    pub imports: (&'static str, &'static str),
    /// WIT instead of the real interfaces'.
    pub wit: Option<&'static str>,
}

impl Default for Guest {
    fn default() -> Self {
        Self {
            hooks: &["sizing", "eviction", "validation"],
            lifecycle: None,
            configure: "(i32.const 3000)",
            self_check: "(i32.const 3000)",
            mark: 1,
            prologue: "",
            extra: "",
            pages: 1,
            imports: ("", ""),
            wit: None,
        }
    }
}

const SIXTEEN: &str = "i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32";

impl Guest {
    pub fn build(&self) -> Vec<u8> {
        let mut resolve = Resolve::default();
        match self.wit {
            None => drop(resolve.push_dir("wit").unwrap()),
            Some(wit) => drop(resolve.push_str("policy.wit", wit).unwrap()),
        }
        let mut world = format!("package test:guest; world guest {{ {} ", self.imports.0);
        for interface in self.hooks.iter().copied().chain(self.lifecycle.map(|_| "lifecycle")) {
            write!(world, "export sluicegate:policy/{interface}@0.1.0;").unwrap();
        }
        let package = resolve.push_str("guest.wit", &format!("{world} }}")).unwrap();
        let world = resolve.select_world(&[package], None).unwrap();
        let mut module = wat::parse_str(self.module()).unwrap();
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
        ComponentEncoder::default().module(&module).unwrap().validate(true).encode().unwrap()
    }

    fn module(&self) -> String {
        let mut text = format!(
            r#"(module {imports}
                (memory (export "memory") {pages})
                (global $heap (mut i32) (i32.const 8192))
                (global $calls (mut i32) (i32.const 0))
                (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
                    (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
                    (global.set $heap (i32.add (local.get $at) (local.get 3)))
                    (local.get $at))
                (func $deep (param i32) (result i32) (i32.add (call $deep (local.get 0)) (i32.const 1)))
                (func $misbehave (param $how i32)
                    (if (i32.eq (local.get $how) (i32.const {TRAP})) (then unreachable))
                    (if (i32.eq (local.get $how) (i32.const {LOOP})) (then (loop $l (br $l))))
                    (if (i32.eq (local.get $how) (i32.const {RECURSE})) (then (drop (call $deep (i32.const 0)))))
                    (if (i32.eq (local.get $how) (i32.const {GROW})) (then
                        (loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
                        unreachable)))
                {extra}"#,
            imports = self.imports.1,
            pages = self.pages,
            extra = self.extra,
        );
        for hook in self.hooks {
            text += &match *hook {
                "validation" => self.validation(),
                "sizing" => self.sizing(),
                "eviction" => self.eviction(),
                other => panic!("no hook {other}"),
            };
        }
        if let Some((name, version, carry)) = self.lifecycle {
            text += &self.lifecycle(name, version, carry);
        }
        text + ")"
    }

    fn validation(&self) -> String {
        // 1048576 * mark + 1: ping, valid for the mark.
        format!(
            r#"(func (export "sluicegate:policy/validation@0.1.0#check") (param {SIXTEEN}) (result f64)
                (call $misbehave (local.get 3)) {}
                (if (i32.eq (local.get 3) (i32.const {LIE})) (then (return (f64.const nan))))
                (f64.add (f64.const 1) (f64.mul (f64.const 1048576) (f64.const {}))))"#,
            self.prologue, self.mark
        )
    }

    /// Carries one number: how often it was asked. LIE: it is not finite. FLOOD: there are four thousand million.
    fn sizing(&self) -> String {
        format!(
            r#"(func (export "sluicegate:policy/sizing@0.1.0#decide") (param $in i32) (result i32) (local $how i32)
                (local.set $how (i32.load offset=164 (local.get $in)))
                (call $misbehave (local.get $how)) {}
                (i32.store (i32.const 2048) (i32.const {}))
                {CARRY}
                (i32.store (i32.const 2072) (i32.const 2200)) (i32.store (i32.const 2076) (i32.const 1))
                (if (i32.eq (local.get $how) (i32.const {FLOOD})) (then (i32.store (i32.const 2076) (i32.const -1))))
                (i32.const 2048))"#,
            self.prologue,
            self.mark,
            CARRY = carry(172),
        )
    }

    /// Closes every connection it is shown, and carries as sizing does. LIE: the carry is not finite. FLOOD: more verdicts
    /// than connections.
    fn eviction(&self) -> String {
        format!(
            r#"(func (export "sluicegate:policy/eviction@0.1.0#review") (param $in i32) (result i32)
                (local $how i32) (local $many i32) (local $at i32)
                (local.set $how (i32.load offset=164 (local.get $in)))
                (call $misbehave (local.get $how)) {}
                (local.set $many (i32.load offset=172 (local.get $in)))
                (if (i32.eq (local.get $how) (i32.const {FLOOD}))
                    (then (local.set $many (i32.add (local.get $many) (i32.const 1)))))
                (memory.fill (i32.const 4096) (i32.const 0) (i32.const 2048))
                (loop $l (if (i32.lt_u (local.get $at) (local.get $many)) (then
                    (i32.store (i32.add (i32.const 4096) (i32.mul (local.get $at) (i32.const 4))) (i32.const 1))
                    (local.set $at (i32.add (local.get $at) (i32.const 1)))
                    (br $l))))
                (i32.store (i32.const 2048) (i32.const 4096)) (i32.store (i32.const 2052) (local.get $many))
                (i32.store (i32.const 2056) (i32.const {}))
                {CARRY}
                (i32.store (i32.const 2060) (i32.const 2200)) (i32.store (i32.const 2064) (i32.const 1))
                (i32.const 2048))"#,
            self.prologue,
            self.mark,
            CARRY = carry(176),
        )
    }

    fn lifecycle(&self, name: &str, version: &str, carry: u32) -> String {
        let (configure, self_check) = (self.configure, self.self_check);
        let (name_length, version_length) = (name.len(), version.len());
        format!(
            r#"(data (i32.const 1024) "{name}") (data (i32.const 1152) "{version}") (data (i32.const 1280) "no thanks")
            (func (export "sluicegate:policy/lifecycle@0.1.0#describe") (result i32)
                (i32.store (i32.const 2800) (i32.const 1024)) (i32.store (i32.const 2804) (i32.const {name_length}))
                (i32.store (i32.const 2808) (i32.const 1152)) (i32.store (i32.const 2812) (i32.const {version_length}))
                (i32.store (i32.const 2816) (i32.const 0)) (i32.store (i32.const 2820) (i32.const 0))
                (i32.store (i32.const 2824) (i32.const {carry}))
                (i32.const 2800))
            (func $results
                (i32.store (i32.const 3000) (i32.const 0))
                (i32.store (i32.const 3016) (i32.const 1)) (i32.store (i32.const 3020) (i32.const 1280))
                (i32.store (i32.const 3024) (i32.const 9)))
            (func (export "sluicegate:policy/lifecycle@0.1.0#configure") (param i32 i32) (result i32)
                (call $results) {configure})
            (func (export "sluicegate:policy/lifecycle@0.1.0#self-check") (result i32) (call $results) {self_check})"#
        )
    }
}

/// Writes the carry at 2200: what came in, `list` bytes into the input, plus one.
fn carry(list: u32) -> String {
    let length = list + 4;
    format!(
        r"(f64.store (i32.const 2200) (f64.add (f64.const 1)
            (if (result f64) (i32.load offset={length} (local.get $in))
                (then (f64.load (i32.load offset={list} (local.get $in)))) (else (f64.const 0)))))
        (if (i32.eq (local.get $how) (i32.const {LIE})) (then (f64.store (i32.const 2200) (f64.const inf))))"
    )
}

/// A registry in a state directory of its own, and a place for components.
pub struct Bench {
    pub plugins: Plugins,
    pub directory: TempDir,
}

impl Bench {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let plugins = Plugins::new(Compiler::InProcess, directory.path(), 4).unwrap();
        Self { plugins, directory }
    }

    /// One with that guest in service as `p`.
    pub async fn serving(guest: &Guest) -> Self {
        let bench = Self::new();
        bench.place("p", guest);
        bench.apply(json!({})).await.unwrap();
        bench
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(format!("{name}.wasm"))
    }

    /// Writes a guest beside, and renames it into place.
    pub fn place(&self, name: &str, guest: &Guest) {
        self.place_bytes(name, &guest.build());
    }

    pub fn place_bytes(&self, name: &str, bytes: &[u8]) {
        let beside = self.directory.path().join("beside");
        std::fs::write(&beside, bytes).unwrap();
        std::fs::rename(beside, self.path(name)).unwrap();
    }

    pub fn settings(&self, name: &str, keys: Value) -> Plugin {
        let mut table = json!({ "path": self.path(name) });
        table.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        plugin(&table)
    }

    /// Applies a configuration of the one plugin `p`; the error's text if it is refused.
    pub async fn apply(&self, keys: Value) -> Result<(), String> {
        let wanted = BTreeMap::from([("p".to_owned(), self.settings("p", keys))]);
        self.plugins.apply(&wanted).await.map_err(|errors| {
            assert_eq!(errors.len(), 1);
            errors[0].1.to_string()
        })
    }

    /// Looks at the files until `done`.
    pub async fn watch_until(&self, mut done: impl FnMut(&Self) -> bool) {
        let all = async {
            while !done(self) {
                self.plugins.check_files().await;
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), all).await.expect("within 20 s");
    }

    pub fn generation(&self) -> u64 {
        self.plugins.status()[0].generation
    }

    pub fn last_error(&self) -> Option<String> {
        self.plugins.status()[0].last_error.clone()
    }
}

/// A `[plugin.x]` table; spans and sizes as text.
fn plugin(table: &Value) -> Plugin {
    // By way of text, as `Size` and `Span` want a string.
    serde_json::from_str(&table.to_string()).unwrap()
}

pub fn reference(fallback: &str) -> PolicyRef {
    serde_json::from_value(json!({ "plugin": "p", "fallback": fallback })).unwrap()
}
