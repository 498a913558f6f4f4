//! `sluicegate key new`.

use clap::Subcommand;

use crate::access;

/// What to do with keys.
#[derive(Subcommand)]
pub(super) enum Command {
    /// Make an API key; only its SHA-256 belongs in the configuration.
    New {
        /// Print what tunnels with `tunnel_auth = "scram"` need, too.
        #[arg(long)]
        scram: bool,
    },
}

pub(super) fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::New { scram } => {
            let key = access::new_key()?;
            println!("key         {}", key.text);
            println!("key_sha256  {}", key.sha256);
            println!();
            println!("Hand the key to its consumer; it is not kept anywhere. In the configuration:");
            println!();
            println!("[consumer.NAME]");
            println!("key_sha256 = [\"{}\"]", key.sha256);
            if *scram {
                println!("scram = \"{}\"", key.scram);
            }
            Ok(())
        }
    }
}
