//! `build-plugins`: see `--help`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use lexopt::{Arg, Parser, ValueExt as _};
use plugin_builder::{component, scaffold, workspace};

const HELP: &str = "\
Builds policies as WebAssembly components.

  build-plugins [NAME...] [--testing]      this workspace's policies (or those named) into plugins/dist/;
                                           --testing: also those that the gateway's tests use, into plugins/dist/testing/
  build-plugins component PATH -o FILE     the policy crate in the folder PATH, or the core module in the file PATH
  build-plugins new NAME HOOK --into DIR   a new policy crate in DIR/NAME; HOOK is sizing, eviction or validation
";

enum Command {
    Help,
    Workspace { names: Vec<String>, testing: bool },
    Component { source: PathBuf, output: PathBuf },
    New { name: String, hook: String, into: PathBuf },
}

fn main() -> ExitCode {
    let command = match parse(Parser::from_env()) {
        Ok(command) => command,
        Err(error) => {
            eprintln!("error: {error:#}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut arguments: Parser) -> Result<Command> {
    let mut words = Vec::new();
    let (mut testing, mut output, mut into) = (false, None, None);
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Value(word) => words.push(word.string()?),
            Arg::Long("testing") => testing = true,
            Arg::Long("output") | Arg::Short('o') => output = Some(PathBuf::from(arguments.value()?)),
            Arg::Long("into") => into = Some(PathBuf::from(arguments.value()?)),
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Help),
            other => return Err(other.unexpected().into()),
        }
    }
    match words.first().map(String::as_str) {
        Some("component") => {
            let [_, source] = words.as_slice() else { bail!("`component` takes one path") };
            let output = output.context("`component` needs -o FILE")?;
            Ok(Command::Component { source: source.into(), output })
        }
        Some("new") => {
            let [_, name, hook] = words.as_slice() else { bail!("`new` takes a name and a hook") };
            let into = into.context("`new` needs --into DIR")?;
            Ok(Command::New { name: name.clone(), hook: hook.clone(), into })
        }
        _ => Ok(Command::Workspace { names: words, testing }),
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Help => print!("{HELP}"),
        Command::Workspace { names, testing } => workspace::build(&names, testing)?,
        Command::Component { source, output } => component(&source, &output)?,
        Command::New { name, hook, into } => {
            let folder = scaffold::create(&name, &hook, &into)?;
            println!("{} is ready: its README.md says how to go on", folder.display());
        }
    }
    Ok(())
}

fn component(source: &Path, output: &Path) -> Result<()> {
    let built = if source.is_dir() {
        workspace::build_crate(source)?
    } else {
        component::from_core(&wat::parse_file(source)?)?
    };
    plugin_builder::output::write(output, &built)
}
