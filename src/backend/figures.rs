//! What statements cost, by fingerprint: calls, rows, time, errors.
//!
//! The table is bounded and keeps the heavy ones, by the Space-Saving algorithm (Metwally, Agrawal, El Abbadi 2005): who comes
//! new takes the place of the one that weighs least, and inherits its weight, which is time. So every fingerprint that has taken
//! more than one part in as many as the table has rows is in it, however many others come by. What goes is added to one row,
//! `other`; figures of a row are those since it came in, and are exact.
//!
//! On a request's path stand the hash of the text, a look into a small table of texts, and some additions under one lock. The
//! fingerprint itself is made for a text that this table does not hold, outside the lock.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use serde::Serialize;

use super::fingerprint;

/// Half octaves of microseconds, up to more than an hour.
const BUCKETS: usize = 64;

/// Figures of one pool's statements.
pub(crate) struct Figures {
    hasher: RandomState,
    table: Mutex<Table>,
}

/// How one statement ran.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ran<'a> {
    /// Rows returned or touched.
    pub(crate) rows: u64,
    /// How long the database was waited for.
    pub(crate) time: Duration,
    /// It failed.
    pub(crate) failed: bool,
    /// As what, if the database said so.
    pub(crate) sqlstate: Option<&'a str>,
}

/// What a pool's statements cost since it began.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StatementsStatus {
    /// The heaviest fingerprints, by total time.
    pub top: Vec<StatementStatus>,
    /// All others together, since they went out of the table.
    pub other: TotalsStatus,
    /// How often a fingerprint went out of the table.
    pub evicted: u64,
}

/// What one fingerprint cost since it came into the table.
#[derive(Clone, Debug, Serialize)]
pub struct StatementStatus {
    /// The statement without what callers put into it.
    pub fingerprint: Arc<str>,
    /// The figures.
    #[serde(flatten)]
    pub totals: TotalsStatus,
    /// 95 of 100 calls took no longer, to within a half.
    pub p95_ms: f64,
}

/// Sums.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TotalsStatus {
    /// How often it ran, or was to run.
    pub calls: u64,
    /// Rows returned or touched.
    pub rows: u64,
    /// How long the database was waited for, in all.
    pub total_ms: f64,
    /// The longest of it.
    pub max_ms: f64,
    /// Calls that failed.
    pub errors: u64,
    /// The last error that the database itself gave.
    pub last_sqlstate: Option<String>,
}

#[derive(Default)]
struct Table {
    capacity: usize,
    rows: Vec<Entry>,
    by_print: HashMap<Arc<str>, usize>,
    /// Texts seen last, by hash; made when the first comes.
    texts: Box<[Text]>,
    other: Totals,
    evicted: u64,
}

struct Entry {
    print: Arc<str>,
    /// Which fingerprint has the row, counted up: a text may remember another.
    tenant: u32,
    /// Microseconds, with those of its forerunners.
    weight: u64,
    totals: Totals,
    times: [u64; BUCKETS],
}

#[derive(Clone, Copy, Default)]
struct Text {
    hash: u64,
    row: u32,
    tenant: u32,
}

#[derive(Clone, Debug, Default)]
struct Totals {
    calls: u64,
    rows: u64,
    micros: u64,
    max_micros: u64,
    errors: u64,
    sqlstate: Option<[u8; 5]>,
}

// === impl Figures ===

impl Figures {
    /// Of `capacity` fingerprints at most; 0: none are kept.
    pub(crate) fn new(capacity: usize) -> Self {
        let table = Table { capacity, ..Table::default() };
        Self { hasher: RandomState::new(), table: Mutex::new(table) }
    }

    /// Counts a run of `sql`.
    pub(crate) fn record(&self, sql: &str, ran: Ran<'_>) {
        let hash = self.hasher.hash_one(sql);
        {
            let mut table = self.table.lock();
            if table.capacity == 0 {
                return;
            }
            if let Some(row) = table.known(hash) {
                return table.add(row, ran);
            }
        }
        let print = fingerprint(sql);
        let mut table = self.table.lock();
        let row = table.row_of(print);
        table.remember(hash, row);
        table.add(row, ran);
    }

    /// How many fingerprints are kept from now on.
    pub(crate) fn resize(&self, capacity: usize) {
        let mut table = self.table.lock();
        table.capacity = capacity;
        while table.rows.len() > capacity {
            table.shrink();
        }
    }

    /// How many are kept at most.
    pub(crate) fn capacity(&self) -> usize {
        self.table.lock().capacity
    }

    /// The figures now.
    pub(crate) fn status(&self) -> StatementsStatus {
        let table = self.table.lock();
        let mut top: Vec<StatementStatus> = table.rows.iter().map(Entry::status).collect();
        let (other, evicted) = (table.other.status(), table.evicted);
        drop(table);
        top.sort_by(|a, b| b.totals.total_ms.total_cmp(&a.totals.total_ms));
        StatementsStatus { top, other, evicted }
    }
}

// === impl Table ===

impl Table {
    /// The row of a text that was seen not long ago.
    fn known(&self, hash: u64) -> Option<usize> {
        let text = self.texts.get(self.place(hash)?)?;
        let row = text.row as usize;
        (text.hash == hash && self.rows.get(row)?.tenant == text.tenant).then_some(row)
    }

    fn place(&self, hash: u64) -> Option<usize> {
        usize::try_from(hash.checked_rem(self.texts.len() as u64)?).ok()
    }

    fn remember(&mut self, hash: u64, row: usize) {
        if self.texts.is_empty() {
            self.texts = vec![Text::default(); (4 * self.capacity).clamp(64, 4096)].into();
        }
        let (Some(place), Some(entry)) = (self.place(hash), self.rows.get(row)) else { return };
        self.texts[place] = Text { hash, row: row as u32, tenant: entry.tenant };
    }

    /// The row of a fingerprint, which it is given if it has none.
    fn row_of(&mut self, print: String) -> usize {
        if let Some(row) = self.by_print.get(print.as_str()) {
            return *row;
        }
        let print: Arc<str> = print.into();
        let (row, weight) = match self.least() {
            Some(row) if self.rows.len() >= self.capacity => (row, self.rows[row].weight),
            _ => (self.rows.len(), 0),
        };
        if let Some(gone) = self.rows.get(row) {
            self.evicted += 1;
            self.by_print.remove(&gone.print);
            self.other.merge(&gone.totals);
        }
        self.by_print.insert(print.clone(), row);
        let tenant = self.evicted as u32;
        let entry = Entry { print, tenant, weight, totals: Totals::default(), times: [0; BUCKETS] };
        if row < self.rows.len() {
            self.rows[row] = entry;
        } else {
            self.rows.push(entry);
        }
        row
    }

    /// The row that weighs least.
    fn least(&self) -> Option<usize> {
        (0..self.rows.len()).min_by_key(|row| self.rows[*row].weight)
    }

    /// Takes that row out.
    fn shrink(&mut self) {
        let Some(row) = self.least() else { return };
        let gone = self.rows.swap_remove(row);
        self.evicted += 1;
        self.by_print.remove(&gone.print);
        self.other.merge(&gone.totals);
        if let Some(moved) = self.rows.get(row) {
            self.by_print.insert(moved.print.clone(), row);
        }
        // Rows have moved, and texts remember where they were.
        self.texts = Box::default();
    }

    fn add(&mut self, row: usize, ran: Ran<'_>) {
        let Some(entry) = self.rows.get_mut(row) else { return };
        let micros = u64::try_from(ran.time.as_micros()).unwrap_or(u64::MAX);
        // A call weighs something, however short it was.
        entry.weight = entry.weight.saturating_add(micros.max(1));
        entry.times[bucket(micros)] += 1;
        entry.totals.add(micros, ran);
    }
}

impl Entry {
    fn status(&self) -> StatementStatus {
        let calls: u64 = self.times.iter().sum();
        let mut left = calls.div_ceil(20);
        // From the slowest on, until one in twenty is counted.
        let slowest = (0..BUCKETS).rev().find(|index| {
            left = left.saturating_sub(self.times[*index]);
            left == 0
        });
        let p95 = slowest.map_or(0, |index| upper(index).min(self.totals.max_micros));
        StatementStatus { fingerprint: self.print.clone(), totals: self.totals.status(), p95_ms: millis(p95) }
    }
}

impl Totals {
    fn add(&mut self, micros: u64, ran: Ran<'_>) {
        self.calls += 1;
        self.rows = self.rows.saturating_add(ran.rows);
        self.micros = self.micros.saturating_add(micros);
        self.max_micros = self.max_micros.max(micros);
        self.errors += u64::from(ran.failed);
        let code = ran.sqlstate.and_then(|code| code.as_bytes().try_into().ok());
        self.sqlstate = code.or(self.sqlstate);
    }

    fn merge(&mut self, gone: &Self) {
        self.calls += gone.calls;
        self.rows = self.rows.saturating_add(gone.rows);
        self.micros = self.micros.saturating_add(gone.micros);
        self.max_micros = self.max_micros.max(gone.max_micros);
        self.errors += gone.errors;
        self.sqlstate = gone.sqlstate.or(self.sqlstate);
    }

    fn status(&self) -> TotalsStatus {
        TotalsStatus {
            calls: self.calls,
            rows: self.rows,
            total_ms: millis(self.micros),
            max_ms: millis(self.max_micros),
            errors: self.errors,
            last_sqlstate: self.sqlstate.map(|code| String::from_utf8_lossy(&code).into_owned()),
        }
    }
}

/// The half octave of a number of microseconds.
fn bucket(micros: u64) -> usize {
    let octave = micros.max(1).ilog2() as usize;
    let upper_half = octave > 0 && micros >> (octave - 1) & 1 == 1;
    (2 * octave + usize::from(upper_half)).min(BUCKETS - 1)
}

/// The end of a bucket, in microseconds.
fn upper(bucket: usize) -> u64 {
    let (octave, half) = (bucket / 2, bucket % 2);
    if half == 1 { 2 << octave } else { (3 << octave) / 2 }
}

fn millis(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ran(micros: u64) -> Ran<'static> {
        Ran { rows: 2, time: Duration::from_micros(micros), ..Ran::default() }
    }

    fn find<'a>(status: &'a StatementsStatus, print: &str) -> Option<&'a StatementStatus> {
        status.top.iter().find(|row| &*row.fingerprint == print)
    }

    #[test]
    fn texts_that_differ_in_literals_are_one() {
        let figures = Figures::new(10);
        for id in 0..20 {
            figures.record(&format!("select * from t where id = {id}"), ran(1000));
        }
        let failed = Ran { failed: true, sqlstate: Some("22012"), ..ran(5000) };
        figures.record("select 1/0", failed);
        figures.record("select 1/0", ran(1000));
        figures.record("select 1/0", Ran { failed: true, ..ran(0) });
        let status = figures.status();
        assert_eq!((status.top.len(), status.evicted), (2, 0));
        let first = &status.top[0];
        assert_eq!(
            (&*first.fingerprint, first.totals.calls, first.totals.rows),
            ("select * from t where id = ?", 20, 40)
        );
        assert!((first.totals.total_ms - 20.0).abs() < 0.001 && first.p95_ms <= 1.0, "{first:?}");
        let second = &status.top[1].totals;
        assert_eq!((second.calls, second.errors, second.last_sqlstate.as_deref()), (3, 2, Some("22012")));
        assert!((second.max_ms - 5.0).abs() < 0.001);
    }

    #[test]
    fn the_heavy_stay_and_nothing_is_lost() {
        let figures = Figures::new(8);
        for round in 0..500 {
            figures.record("select heavy", ran(10_000));
            for light in 0..20 {
                figures.record(&format!("select light_{round}_{light}"), ran(100));
            }
        }
        let status = figures.status();
        assert_eq!(status.top.len(), 8);
        assert_eq!(find(&status, "select heavy").map(|row| row.totals.calls), Some(500));
        let calls: u64 = status.top.iter().map(|row| row.totals.calls).sum::<u64>() + status.other.calls;
        assert_eq!(calls, 500 * 21);
        assert_eq!(status.evicted, 500 * 20 + 1 - 8);
    }

    /// One that comes seldom among a flood, and yet takes more than its part, gets in and stays.
    #[test]
    fn one_that_comes_late_is_not_driven_out_by_a_flood() {
        let figures = Figures::new(10);
        for n in 0..1000 {
            figures.record(&format!("select flood_{n}"), ran(100));
        }
        for n in 0..1000 {
            figures.record(&format!("select more_{n}"), ran(100));
            figures.record("select late", ran(500));
        }
        assert_eq!(find(&figures.status(), "select late").map(|row| row.totals.calls), Some(1000));
    }

    #[test]
    fn none_are_kept_where_none_are_wanted_and_fewer_from_now_on() {
        let figures = Figures::new(0);
        figures.record("select 1", ran(1));
        assert!(figures.status().top.is_empty());
        figures.resize(3);
        for (sql, micros) in [("select a", 30), ("select b", 10), ("select c", 20)] {
            figures.record(sql, ran(micros));
        }
        figures.resize(1);
        let status = figures.status();
        assert_eq!((status.top.len(), &*status.top[0].fingerprint), (1, "select a"));
        assert_eq!(status.other.calls, 2);
        figures.record("select a", ran(1));
        assert_eq!(figures.status().top[0].totals.calls, 2);
        figures.resize(0);
        figures.record("select a", ran(1));
        assert_eq!((figures.status().top.len(), figures.status().other.calls), (0, 4));
    }

    #[test]
    fn one_in_twenty_is_slower_than_the_95th() {
        let figures = Figures::new(1);
        for call in 0..100 {
            figures.record("s", ran(if call < 94 { 1000 } else { 64_000 }));
        }
        assert!(figures.status().top[0].p95_ms >= 64.0);
        let figures = Figures::new(1);
        for call in 0..100 {
            figures.record("s", ran(if call < 96 { 1000 } else { 64_000 }));
        }
        let p95 = figures.status().top[0].p95_ms;
        assert!((1.0..=1.5).contains(&p95), "{p95}");
    }

    proptest! {
        #[test]
        fn a_bucket_holds_what_falls_into_it(micros in 0..1_u64 << 32) {
            let index = bucket(micros);
            prop_assert!(micros < upper(index) || index == BUCKETS - 1, "{micros} in {index}");
            prop_assert!(index == 0 || micros >= upper(index - 1), "{micros} in {index}");
        }

        #[test]
        fn sums_are_kept_whatever_comes(
            runs in prop::collection::vec((0..12_usize, 0..5000_u64), 0..200), capacity in 1..6_usize,
        ) {
            let figures = Figures::new(capacity);
            let mut expected = 0;
            for (which, micros) in &runs {
                figures.record(&format!("select c{which}x"), ran(*micros));
                expected += micros;
            }
            let status = figures.status();
            prop_assert!(status.top.len() <= capacity);
            let all = || status.top.iter().map(|row| &row.totals).chain([&status.other]);
            prop_assert_eq!(all().map(|totals| totals.calls).sum::<u64>(), runs.len() as u64);
            prop_assert!((all().map(|totals| totals.total_ms).sum::<f64>() * 1000.0 - expected as f64).abs() < 1.0);
            let mut prints: Vec<_> = status.top.iter().map(|row| row.fingerprint.clone()).collect();
            prints.sort();
            prints.dedup();
            prop_assert_eq!(prints.len(), status.top.len(), "a fingerprint has one row");
        }
    }
}
