//! From a command line to a checked configuration.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write as _},
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use figment::value::{Dict, Value};

use super::{
    check,
    decode::{self, Decoded},
    diff::{self, Change},
    env::Environment,
    key,
    layer::Layer,
    merge::{self, Merged},
    model::Config,
    problem::{Finding, Position, Problem, Report},
    secrets::{Fingerprints, Revealed, digest},
};

/// What runs when no file is named.
const BUILT_IN: &str = include_str!("demonstration.toml");
/// Where the profiles of the built-in configuration are looked for.
const BUILT_IN_DIRECTORY: &str = "config";
/// Largest file that is read: a configuration of a thousand routes is a tenth of it.
const MAX_BYTES: u64 = 4 << 20;
/// The model's top level.
pub(super) const TABLES: [&str; 14] = [
    "alert", "overload", "server", "log", "admin", "listener", "plugin", "pool", "upstream", "limit", "issuer",
    "consumer", "named", "route",
];

/// Where a configuration comes from.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The file; none: what is built in.
    pub file: Option<PathBuf>,
    /// A profile `NAME`: the file `NAME.toml` beside the file, on top of it.
    pub profile: Option<String>,
    /// Variables that are on top of the files, and hold secrets.
    pub environment: Environment,
}

impl Source {
    /// Whether it is the demonstration: what is built in, or a file that says the same.
    pub fn is_built_in(&self) -> bool {
        self.file.as_ref().is_none_or(|file| fs::read(file).is_ok_and(|content| content == BUILT_IN.as_bytes()))
    }
}

/// A configuration that passed every check of its own.
#[derive(Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Files that were read, secrets and CAs among them. What to watch.
    pub files: Vec<PathBuf>,
    places: BTreeMap<String, Position>,
    fingerprints: Fingerprints,
    inputs: [u8; 32],
}

/// One file's content.
struct Input {
    name: Arc<str>,
    content: Vec<u8>,
    built_in: bool,
}

/// Loads, merges, decodes and checks.
///
/// # Errors
/// Everything that is wrong, at once. Files that cannot be read or parsed are reported alone: what they would have set
/// is missing from the rest.
pub fn load(source: &Source) -> Result<Loaded, Report> {
    load_and(source, |_| Vec::new())
}

/// As [`load`]; when something is wrong, `more` adds what other rooms find wrong with as much of the configuration as could be
/// made sense of, so that everything is told at once. When nothing is, those rooms find it when they build.
///
/// # Errors
/// As [`load`].
pub fn load_and(source: &Source, more: impl FnOnce(&Config) -> Vec<Finding>) -> Result<Loaded, Report> {
    let (inputs, files) = read(source)?;
    assemble(&inputs, files, &source.environment, more)
}

impl Loaded {
    /// Where `key` is set, or else the nearest table around it; none if no layer has any of it. Keys are written
    /// `pool.demo.size.max` and `route[0].path`.
    pub fn locate(&self, key: &str) -> Option<Position> {
        locate(&self.places, key)
    }

    /// A problem that another room found, with its place.
    pub fn problem(&self, key: &str, message: impl AsRef<str>) -> Problem {
        Problem::new(self.locate(key), key, message)
    }

    /// SHA-256, in hex, of what is in force: all values, with secrets left out, so that it may be shown. It is the
    /// same wherever the same configuration is in force, however its files are laid out.
    pub fn hash(&self) -> String {
        let text = serde_json::to_string(&self.config).unwrap_or_default();
        digest([text.as_str()]).iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }

    /// Whether every file, variable, secret and CA read is the same, to the byte.
    pub fn has_same_inputs(&self, other: &Self) -> bool {
        self.inputs == other.inputs
    }

    /// What is different from `old`, the contents of secrets and of CA files included.
    pub fn changes_since(&self, old: &Self) -> Vec<Change> {
        diff::diff_with((&old.config, &old.fingerprints), (&self.config, &self.fingerprints))
    }
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded").field("config", &self.config).field("files", &self.files).finish_non_exhaustive()
    }
}

fn read(source: &Source) -> Result<(Vec<Input>, Vec<PathBuf>), Report> {
    let (mut files, mut problems) = (Vec::new(), Vec::new());
    let mut inputs = Vec::new();
    if source.file.is_none() {
        let name = format!("{BUILT_IN_DIRECTORY}/gateway.toml (built in)");
        inputs.push(Input { name: name.into(), content: BUILT_IN.into(), built_in: true });
    }
    files.extend(source.file.clone());
    match source.profile.as_ref().map(|profile| profile_file(source.file.as_deref(), profile)) {
        Some(Ok(path)) => files.push(path),
        Some(Err(problem)) => problems.push(problem),
        None => {}
    }
    for path in &files {
        let name: Arc<str> = path.display().to_string().into();
        match read_file(path) {
            Ok(content) => inputs.push(Input { name, content, built_in: false }),
            Err(error) => problems.push(Problem::new(Some(Position::whole(name)), "", format!("cannot read: {error}"))),
        }
    }
    if problems.is_empty() { Ok((inputs, files)) } else { Err(Report::new(problems)) }
}

fn profile_file(base: Option<&Path>, profile: &str) -> Result<PathBuf, Problem> {
    if !key::is_bare(profile) {
        let message = format!("profile `{profile}`: a profile is named with letters, digits, `-` and `_`");
        return Err(Problem::new(None, "", message));
    }
    let directory = base.map_or(Path::new(BUILT_IN_DIRECTORY), |file| file.parent().unwrap_or(Path::new("")));
    Ok(directory.join(format!("{profile}.toml")))
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    fs::File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MAX_BYTES {
        return Err(io::Error::other(format!("larger than {} MiB", MAX_BYTES >> 20)));
    }
    Ok(content)
}

fn assemble(
    inputs: &[Input],
    files: Vec<PathBuf>,
    environment: &Environment,
    more: impl FnOnce(&Config) -> Vec<Finding>,
) -> Result<Loaded, Report> {
    let merged = layered(inputs, environment).map_err(Report::new)?;
    let report = |findings: Vec<Finding>| {
        let placed = findings
            .into_iter()
            .map(|finding| Problem::new(locate(&merged.places, &finding.key), finding.key, finding.message));
        Report::new(placed.collect())
    };
    let Decoded { config, findings, doubtful } = decode::decode(merged.values, merged.raw);
    let Some(config) = config else { return Err(report(findings)) };
    let secrets = Revealed::read(&config, environment);
    let checked = check::check_with(&config, &secrets, &doubtful);
    let findings = joined(findings, checked);
    if !findings.is_empty() {
        return Err(report(joined(findings, more(&config))));
    }
    let inputs = digest_inputs(inputs, environment, &secrets, &config);
    let fingerprints = secrets.fingerprints(&config);
    let authorities = config.authorities().into_iter().filter_map(|(_, tls)| tls.ca.clone());
    let files = files.into_iter().chain(config.secret_files()).chain(authorities);
    let files = files.collect::<BTreeSet<_>>().into_iter().collect();
    Ok(Loaded { config, files, places: merged.places, fingerprints, inputs })
}

/// All layers, merged.
fn layered(inputs: &[Input], environment: &Environment) -> Result<Merged, Vec<Problem>> {
    let (mut layers, mut problems) = (Vec::new(), Vec::new());
    for input in inputs {
        match Layer::from_toml(&input.name, &input.content) {
            Ok(mut layer) => {
                if input.built_in {
                    require_no_plugins(&mut layer.values);
                }
                layers.push(layer);
            }
            Err(found) => problems.extend(found),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let files = merge::merge(&mut layers);
    layers.push(environment.layer(&files.values, &TABLES)?);
    Ok(merge::merge(&mut layers))
}

/// Nobody chose the plugins of the built-in configuration: where their files are not, the native policies serve.
fn require_no_plugins(values: &mut Dict) {
    let Some(Value::Dict(_, plugins)) = values.get_mut("plugin") else { return };
    for plugin in plugins.values_mut() {
        if let Value::Dict(_, plugin) = plugin {
            plugin.entry("required".into()).or_insert_with(|| false.into());
        }
    }
}

/// Findings of decoding, and those of checking that do not just follow from them.
fn joined(decoded: Vec<Finding>, checked: Vec<Finding>) -> Vec<Finding> {
    let related = |key: &str| {
        decoded.iter().any(|finding| key::is_within(key, &finding.key) || key::is_within(&finding.key, key))
    };
    let own: Vec<_> = checked.into_iter().filter(|finding| !related(&finding.key)).collect();
    decoded.into_iter().chain(own).collect()
}

fn locate(places: &BTreeMap<String, Position>, key: &str) -> Option<Position> {
    std::iter::successors(Some(key), |key| key::parent(key)).find_map(|key| places.get(key)).cloned()
}

fn digest_inputs(inputs: &[Input], environment: &Environment, secrets: &Revealed, config: &Config) -> [u8; 32] {
    let mut parts: Vec<String> = Vec::new();
    for input in inputs {
        parts.push(input.name.to_string());
        // Every content was UTF-8, or there would have been a problem.
        parts.push(String::from_utf8_lossy(&input.content).into_owned());
    }
    for (name, value) in environment.ours() {
        parts.extend([name, value.unwrap_or_default()]);
    }
    for (key, secret) in &secrets.0 {
        parts.extend([key.clone(), secret.clone().unwrap_or_default()]);
    }
    for (key, tls) in config.authorities() {
        parts.extend([key, format!("{:?}", tls.ca_digest())]);
    }
    digest(parts.iter().map(String::as_str))
}

/// Loads one file's content, without the file.
#[cfg(test)]
pub(super) fn load_content(content: &[u8], environment: &Environment) -> Result<Loaded, Report> {
    let input = Input { name: "a.toml".into(), content: content.to_vec(), built_in: false };
    assemble(&[input], Vec::new(), environment, |_| Vec::new())
}
