//! `sluicegate serve` and `sluicegate check`.

use std::sync::{Arc, OnceLock};

use crate::{
    admin::Admin,
    config::{Finding, Source},
    gateway::{self, Companion, Shared},
};

pub(super) fn serve(source: Source) -> anyhow::Result<()> {
    let demonstration = source.is_built_in();
    Ok(gateway::run(source, &WithAdmin { demonstration, admin: OnceLock::new() })?)
}

pub(super) fn check(source: &Source) -> anyhow::Result<()> {
    let checked = gateway::check(source)?;
    let files =
        if checked.files.is_empty() { "the embedded configuration".to_owned() } else { checked.files.join(", ") };
    println!("{files}: {}", checked.parts);
    Ok(())
}

/// The admin listener beside the gateway, and for the demonstration some words on what to try.
struct WithAdmin {
    demonstration: bool,
    /// Where it is, once it is.
    admin: OnceLock<String>,
}

impl Companion for WithAdmin {
    fn start(
        &self,
        shared: &Arc<Shared>,
        config: &crate::config::model::Config,
    ) -> Result<Option<String>, Vec<Finding>> {
        let Some(admin) = &config.admin else { return Ok(None) };
        let url = Admin::start(shared, admin).map_err(|finding| vec![finding])?;
        Ok(Some(self.admin.get_or_init(|| url).clone()))
    }

    fn ready(&self, shared: &Arc<Shared>) {
        if self.demonstration
            && let Some(admin) = self.admin.get()
            && let Some(text) = tour(shared, admin)
        {
            println!("{text}");
        }
    }
}

/// Lines to try against the demonstration as it is bound.
fn tour(shared: &Shared, admin: &str) -> Option<String> {
    let serving = shared.listeners.serving();
    let public = serving.iter().find(|listening| listening.scheme() == "https")?;
    let state = shared.state.display();
    let base = format!("https://localhost:{}", public.address.port());
    let curl = format!("curl --cacert {state}/ca/ca.pem");
    let query = |sql: &str| format!("  {curl} {base}/query -H 'content-type: application/json' -d '{sql}'");
    Some(format!(
        "\nSluicegate serves {base}. In another terminal:\n\n  {curl} {base}/\n{}\n{}\n{}\n  curl -H \"Authorization: Bearer $(cat {state}/admin.token)\" {admin}/status\n\nCtrl-C drains and stops.\n",
        query(r#"{"sql":"create table if not exists visit (id integer primary key, who text)"}"#),
        query(r#"{"sql":"insert into visit (who) values (?1)","params":["Ada"]}"#),
        query(r#"{"sql":"select id, who from visit"}"#),
    ))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_check_leaves_the_state_directory_alone() {
        let directory = tempfile::tempdir().unwrap();
        let (file, plugin, state) =
            (directory.path().join("a.toml"), directory.path().join("p.wasm"), directory.path().join("state"));
        fs::write(&plugin, b"\0asm\x0d\0\x01\0").unwrap();
        let config = format!(
            "server.state = {state:?}\nlistener.l.address = \"127.0.0.1:0\"\nplugin.p.path = {plugin:?}\n\
             [[route]]\npath = \"/\"\nrespond = {{ status = 200 }}\n"
        );
        fs::write(&file, config).unwrap();
        // It comes as far as the compiler, which this test program is not.
        let refused = check(&Source { file: Some(file), ..Source::default() }).unwrap_err().to_string();
        assert!(refused.contains("plugin.p: "), "{refused}");
        assert!(!state.exists());
    }
}
