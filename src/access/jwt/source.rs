//! Where an issuer's keys come from, and when they are asked for.

use std::{
    io::Read,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::{Digest, keys::KeySet};
use crate::{
    config::model::{Issuer, UpstreamTls},
    net::{ClientConfig, Verify, certs::FileWatch, client_tls, fetch},
};

/// The largest set of keys. Real ones have 1 to 10 KiB.
const LARGEST: usize = 256 << 10;
/// Longest fetch, from the name to the last byte.
const PATIENCE: Duration = Duration::from_secs(10);
/// A key that is not known makes us ask at most this often: what strangers write into tokens must not make us a burden.
const ASK_AGAIN: Duration = Duration::from_secs(30);
/// Behind a failure, pauses grow from the first to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// The keys of one issuer. Kept over reloads as long as its place and whom we trust there are the same, with the last keys that
/// were good.
#[derive(Debug)]
pub(crate) struct KeySource {
    issuer: Arc<str>,
    place: String,
    tls: UpstreamTls,
    ca: Option<Digest>,
    /// None: a file.
    remote: Option<Arc<ClientConfig>>,
    keys: ArcSwap<KeySet>,
    /// Of the document.
    content: Mutex<Option<Digest>>,
    schedule: Mutex<Schedule>,
    watch: Mutex<Option<FileWatch>>,
    /// A token has named a key that is not there.
    wanted: AtomicBool,
    figures: Figures,
}

#[derive(Debug, Default)]
struct Figures {
    fetched: AtomicU64,
    failed: AtomicU64,
    changed: AtomicU64,
    /// When the keys were last known to be right, and why they could not be had since.
    last: Mutex<(Option<SystemTime>, Option<String>)>,
}

/// How an issuer's keys are, for operators.
#[derive(Clone, Debug, serde::Serialize)]
pub struct SourceStatus {
    /// Where they come from.
    pub jwks: String,
    /// Keys that can verify something.
    pub keys: usize,
    /// Times that they were read.
    pub fetched: u64,
    /// Times that they could not be read.
    pub failed: u64,
    /// Times that they were others than before.
    pub changed: u64,
    /// Seconds since they were last read.
    pub age_seconds: Option<u64>,
    /// Why they could not be read since.
    pub error: Option<String>,
}

/// When to fetch. Time is told; nothing here waits.
#[derive(Debug, Default)]
struct Schedule {
    fetching: bool,
    last: Option<Instant>,
    failures: u32,
}

/// A fetch that is under way. However it ends, the next one is not kept from beginning.
struct Fetching {
    source: Arc<KeySource>,
    well: bool,
}

impl Fetching {
    fn ends(mut self, well: bool) {
        self.well = well;
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        self.source.schedule.lock().end(self.well);
    }
}

impl KeySource {
    /// The source of an issuer: `before`, if nothing about it has changed. A file is read now; from elsewhere, the keys come later
    /// ([`KeySource::look`]). Until then there are none: those of before came from elsewhere, or by the word of another authority.
    pub(crate) fn open(name: &str, settings: &Issuer, before: Option<&Arc<Self>>) -> Result<Arc<Self>, String> {
        let ca = settings.tls.ca_digest();
        let is_same =
            |before: &&Arc<Self>| before.place == settings.jwks && before.tls == settings.tls && before.ca == ca;
        if let Some(same) = before.filter(is_same) {
            return Ok(same.clone());
        }
        let remote = if settings.is_remote() {
            Some(client_tls(&settings.tls, Verify::Full, &[b"http/1.1"]).map_err(|error| error.to_string())?)
        } else {
            None
        };
        let watch = remote.is_none().then(|| FileWatch::new([settings.jwks.clone().into()]));
        let source = Self {
            issuer: name.into(),
            place: settings.jwks.clone(),
            tls: settings.tls.clone(),
            ca,
            remote,
            keys: ArcSwap::default(),
            content: Mutex::default(),
            schedule: Mutex::default(),
            watch: Mutex::new(watch),
            wanted: AtomicBool::new(false),
            figures: Figures::default(),
        };
        if source.remote.is_none() {
            let document = read(Path::new(&source.place))?;
            source.take(&document)?;
        }
        Ok(Arc::new(source))
    }

    /// The keys now. The same object as long as they do not change.
    pub(crate) fn keys(&self) -> Arc<KeySet> {
        self.keys.load_full()
    }

    /// A token has named a key that is not there.
    pub(crate) fn want(&self) {
        self.wanted.store(true, Ordering::Relaxed);
    }

    /// Looks whether the keys should be read anew, and begins to. Called a few times a second on the background; nothing waits.
    pub(crate) fn look(self: &Arc<Self>, now: Instant, refresh: Duration) {
        let Some(tls) = &self.remote else { return self.look_at_file() };
        let wanted = self.wanted.load(Ordering::Relaxed);
        if !self.schedule.lock().begin(now, wanted, refresh) {
            return;
        }
        self.wanted.store(false, Ordering::Relaxed);
        let (fetching, tls) = (Fetching { source: self.clone(), well: false }, tls.clone());
        tokio::spawn(async move {
            let source = fetching.source.clone();
            let fetched = fetch(&source.place, tls, source.tls.server_name.as_deref(), LARGEST, now + PATIENCE).await;
            let outcome = fetched.map_err(|error| error.to_string()).and_then(|document| source.take(&document));
            fetching.ends(outcome.is_ok());
            source.tell(outcome);
        });
    }

    fn look_at_file(&self) {
        let changed = self.watch.lock().as_mut().is_some_and(FileWatch::changed);
        if changed {
            let outcome = read(Path::new(&self.place)).and_then(|document| self.take(&document));
            self.tell(outcome);
        }
    }

    /// Takes a document over, if it is one. The same one again leaves the keys the same object.
    pub(super) fn take(&self, document: &[u8]) -> Result<(), String> {
        let keys = KeySet::parse(document).map_err(|error| format!("{}: {error}", self.place))?;
        let digest: Digest = Sha256::digest(document).into();
        if self.content.lock().replace(digest) != Some(digest) {
            if keys.len() == 0 {
                tracing::warn!(issuer = %self.issuer, "no key that can verify a signature: the issuer's tokens are refused");
            } else {
                tracing::info!(issuer = %self.issuer, keys = keys.len(), "keys of an issuer");
            }
            self.figures.changed.fetch_add(1, Ordering::Relaxed);
            self.keys.store(Arc::new(keys));
        }
        self.figures.fetched.fetch_add(1, Ordering::Relaxed);
        *self.figures.last.lock() = (Some(SystemTime::now()), None);
        Ok(())
    }

    fn tell(&self, outcome: Result<(), String>) {
        let Err(error) = outcome else { return };
        let left = self.keys().len();
        tracing::warn!(issuer = %self.issuer, error, keys = left, "keys cannot be read, the last good ones serve on");
        self.figures.failed.fetch_add(1, Ordering::Relaxed);
        self.figures.last.lock().1 = Some(error);
    }

    /// How the keys are.
    pub(crate) fn status(&self) -> SourceStatus {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (at, error) = self.figures.last.lock().clone();
        SourceStatus {
            jwks: self.place.clone(),
            keys: self.keys().len(),
            fetched: count(&self.figures.fetched),
            failed: count(&self.figures.failed),
            changed: count(&self.figures.changed),
            age_seconds: at.and_then(|at| at.elapsed().ok()).map(|age| age.as_secs()),
            error,
        }
    }
}

impl Schedule {
    /// Whether to fetch now; if so, [`Schedule::end`] must follow.
    fn begin(&mut self, now: Instant, wanted: bool, refresh: Duration) -> bool {
        let pause = match self.failures {
            0 if wanted => refresh.min(ASK_AGAIN),
            0 => refresh,
            failures => BACKOFF.0.saturating_mul(1 << (failures - 1).min(16)).min(BACKOFF.1),
        };
        let due = self.last.is_none_or(|last| now.saturating_duration_since(last) >= pause);
        if self.fetching || !due {
            return false;
        }
        (self.fetching, self.last) = (true, Some(now));
        true
    }

    fn end(&mut self, well: bool) {
        self.fetching = false;
        self.failures = if well { 0 } else { self.failures.saturating_add(1) };
    }
}

/// A file of keys, not read further than such a file may be long.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let wrong = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    let mut document = Vec::new();
    let file = std::fs::File::open(path).map_err(wrong)?;
    file.take(LARGEST as u64 + 1).read_to_end(&mut document).map_err(wrong)?;
    if document.len() > LARGEST {
        return Err(format!("{}: larger than {} KiB", path.display(), LARGEST >> 10));
    }
    Ok(document)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFRESH: Duration = Duration::from_mins(10);

    fn second(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn keys_that_came_by_the_word_of_one_authority_are_not_kept_under_another() {
        let settings = |more: &str| {
            let text = format!("jwks = \"https://a.test/jwks\"\nissuer = \"a\"\naudience = [\"us\"]\n{more}");
            toml_edit::de::from_str::<Issuer>(&text).unwrap()
        };
        let open = |more: &str, before| KeySource::open("a", &settings(more), before).unwrap();
        let before = open("", None);
        assert!(before.keys().is_awaited());
        let key = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
        before.take(key.as_bytes()).unwrap();
        assert_eq!(open("refresh = \"1m\"", Some(&before)).keys().len(), 1);
        let changed = open("tls.server_name = \"b.test\"", Some(&before));
        assert!(changed.keys().is_awaited(), "nobody has vouched for these under the new name");
        let authority = tempfile::tempdir().unwrap();
        let signed = rcgen::generate_simple_self_signed(["ca.test".to_owned()]).unwrap();
        let file = authority.path().join("ca.pem");
        std::fs::write(&file, signed.cert.pem()).unwrap();
        assert!(open(&format!("tls.ca = {file:?}"), Some(&before)).keys().is_awaited());
    }

    #[test]
    fn keys_are_fetched_at_once_then_when_they_are_old_or_wanted() {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        assert!(schedule.begin(start, false, REFRESH));
        assert!(!schedule.begin(start + REFRESH, true, REFRESH), "one at a time");
        schedule.end(true);
        assert!(!schedule.begin(start + second(29), true, REFRESH), "strangers do not make us ask more often");
        assert!(!schedule.begin(start + second(30), false, REFRESH));
        assert!(schedule.begin(start + second(30), true, REFRESH));
        schedule.end(true);
        assert!(!schedule.begin(start + REFRESH + second(29), false, REFRESH));
        assert!(schedule.begin(start + REFRESH + second(30), false, REFRESH));
    }

    #[test]
    fn failures_make_pauses_longer_up_to_a_minute_and_a_success_ends_them() {
        let (mut schedule, mut now) = (Schedule::default(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..40 {
            let began = (0..1000).find(|pause| schedule.begin(now + second(*pause), true, REFRESH)).unwrap();
            now += second(began);
            pauses.push(began);
            schedule.end(false);
        }
        assert_eq!(pauses[..9], [0, 1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pauses[39], 60);
        assert!(schedule.begin(now + second(60), false, REFRESH));
        schedule.end(true);
        assert!(!schedule.begin(now + second(61), false, REFRESH));
    }
}
