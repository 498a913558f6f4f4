//! From a core module to a component that the gateway would take.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail, ensure};
use wasmparser::{Parser, Payload};
use wit_component::{ComponentEncoder, DecodedWasm, StringEncoding, decode, embed_component_metadata};
use wit_parser::{Interface, Resolve, TypeDefKind, WorldItem, WorldKey};

use crate::wit;

/// A component, and what it exports.
#[derive(Clone, Debug)]
pub struct Component {
    /// The file's content.
    pub bytes: Vec<u8>,
    /// Names of the policy interfaces it exports, in order.
    pub exports: Vec<String>,
}

/// Wraps a core module. One that says nothing of its types (any language without a binding generator: the exports are named
/// `sluicegate:policy/sizing@0.1.0#decide`) gets them from the interfaces that its exports name.
///
/// # Errors
///
/// When the module does not fit the interfaces it claims, and as [`examine`].
pub fn from_core(module: &[u8]) -> Result<Component> {
    let bytes = if is_typed(module)? { encode(module)? } else { encode(&typed(module, &infer_world(module)?)?)? };
    let exports = examine(&bytes)?;
    Ok(Component { bytes, exports })
}

/// Wraps a module that knows its types, whatever it imports and exports.
///
/// # Errors
///
/// When the module does not fit its types.
pub fn encode(module: &[u8]) -> Result<Vec<u8>> {
    ComponentEncoder::default()
        .validate(true)
        .debug_names(false)
        .module(module)?
        .encode()
        .context("making a component of the module")
}

/// Writes the types of the one world in the WIT text `package` into a module.
///
/// # Errors
///
/// When `package` is not WIT.
pub fn typed(module: &[u8], package: &str) -> Result<Vec<u8>> {
    let (resolve, world) = wit::world(package)?;
    let mut typed = module.to_vec();
    embed_component_metadata(&mut typed, &resolve, world, StringEncoding::UTF8, false)?;
    Ok(typed)
}

/// The policy interfaces that a component exports.
///
/// # Errors
///
/// Says why the gateway would refuse it: it imports more than types, or exports no policy.
pub fn examine(component: &[u8]) -> Result<Vec<String>> {
    let (resolve, world) = match decode(component)? {
        DecodedWasm::Component(resolve, world) => (resolve, world),
        DecodedWasm::WitPackage(..) => bail!("this is a WIT package, not a component"),
    };
    let world = &resolve.worlds[world];
    let refused: Vec<_> = world
        .imports
        .iter()
        .filter(|(_, item)| !is_types_only(&resolve, item))
        .map(|(key, _)| resolve.name_world_key(key))
        .collect();
    ensure!(refused.is_empty(), "a policy may not import anything, but this one imports {}", refused.join(", "));
    let mut exports: Vec<_> = world.exports.keys().filter_map(|key| interface(&resolve, key)).collect();
    exports.sort();
    let any = exports.iter().any(|name| wit::HOOKS.contains(&name.as_str()));
    ensure!(any, "it exports none of {} of {}@0.1", wit::HOOKS.join(", "), wit::PACKAGE.trim_end_matches('/'));
    Ok(exports)
}

/// The name of a policy interface, without package and version.
fn interface(resolve: &Resolve, key: &WorldKey) -> Option<String> {
    policy_interface(&resolve.name_world_key(key)).map(str::to_owned)
}

fn policy_interface(name: &str) -> Option<&str> {
    let (name, version) = name.strip_prefix(wit::PACKAGE)?.split_once('@')?;
    version.starts_with("0.1.").then_some(name)
}

fn is_types_only(resolve: &Resolve, item: &WorldItem) -> bool {
    match item {
        WorldItem::Interface { id, .. } => {
            let Interface { functions, types, .. } = &resolve.interfaces[*id];
            functions.is_empty() && types.values().all(|id| !matches!(resolve.types[*id].kind, TypeDefKind::Resource))
        }
        WorldItem::Type { id, .. } => !matches!(resolve.types[*id].kind, TypeDefKind::Resource),
        WorldItem::Function(_) => false,
    }
}

/// Whether a binding generator has left its types in the module.
fn is_typed(module: &[u8]) -> Result<bool> {
    for payload in Parser::new(0).parse_all(module) {
        if let Payload::CustomSection(section) = payload?
            && section.name().starts_with("component-type")
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A world of the policy interfaces that a module's exports name.
fn infer_world(module: &[u8]) -> Result<String> {
    let mut interfaces = BTreeSet::new();
    for payload in Parser::new(0).parse_all(module) {
        if let Payload::ExportSection(exports) = payload? {
            for export in exports {
                let name = export?.name;
                if let Some((interface, _)) = name.split_once('#')
                    && !interface.starts_with("cabi_post_")
                {
                    interfaces.insert(interface.to_owned());
                }
            }
        }
    }
    ensure!(
        !interfaces.is_empty(),
        "the module exports no interface: names are like `{}sizing@0.1.0#decide`",
        wit::PACKAGE
    );
    let exports: Vec<_> = interfaces.iter().map(|interface| format!("export {interface};")).collect();
    Ok(format!("package local:module; world module {{ {} }}", exports.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::{encode, examine, from_core, typed};

    /// A whole policy by hand: trust everything for a second.
    const VALIDATION: &str = r#"(module
        (func (export "sluicegate:policy/validation@0.1.0#check")
            (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result f64)
            (f64.const 1048576000)))"#;

    fn module(text: &str) -> Vec<u8> {
        wat::parse_str(text).expect("a module")
    }

    #[test]
    fn a_module_without_types_gets_them_from_its_exports() {
        let component = from_core(&module(VALIDATION)).expect("a component");
        assert_eq!(component.exports, ["validation"]);
        assert!(component.bytes.len() < 1500, "{}", component.bytes.len());
    }

    #[test]
    fn a_module_that_does_not_fit_its_interface_is_refused() {
        let wrong =
            module(r#"(module (func (export "sluicegate:policy/validation@0.1.0#check") (result f64) f64.const 0))"#);
        let refusal = format!("{:#}", from_core(&wrong).expect_err("a wrong signature"));
        assert!(refusal.contains("check"), "{refusal}");
    }

    #[test]
    fn a_module_without_interfaces_is_refused() {
        let refusal = from_core(&module("(module)")).expect_err("nothing exported");
        assert!(refusal.to_string().contains("exports no interface"), "{refusal}");
    }

    #[test]
    fn an_import_is_refused_by_name() {
        let text = VALIDATION.replace("(module", r#"(module (import "test:test/clock" "now" (func (result i64)))"#);
        let wit = "package test:test; interface clock { now: func() -> u64; }
            world w { import clock; export sluicegate:policy/validation@0.1.0; }";
        let component = encode(&typed(&module(&text), wit).expect("typed")).expect("a component");
        let refusal = examine(&component).expect_err("an import");
        assert!(refusal.to_string().contains("test:test/clock"), "{refusal}");
    }

    #[test]
    fn a_component_without_a_policy_is_refused() {
        let text = r#"(module (func (export "test:test/greeting#hello") (result i32) i32.const 0))"#;
        let wit = "package test:test; interface greeting { hello: func() -> u32; } world w { export greeting; }";
        let component = encode(&typed(&module(text), wit).expect("typed")).expect("a component");
        let refusal = examine(&component).expect_err("no policy");
        assert!(refusal.to_string().contains("none of sizing, eviction, validation"), "{refusal}");
    }
}
