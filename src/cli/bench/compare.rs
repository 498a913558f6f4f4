//! Reports side by side: reading them, and what is compared.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use super::{
    page,
    plot::number,
    report::{FORMAT, Report, time},
};

/// Reports on one page: as many as have a colour.
pub(super) const MOST: usize = 8;
/// Longest report that is read: an hour's is a tenth of it.
const LONGEST: u64 = 64 << 20;

/// A report, and what it is called on the page.
pub(super) struct Named {
    pub(super) name: String,
    pub(super) report: Report,
}

/// A line of a table: its name, and a cell a report.
pub(super) struct Row {
    pub(super) name: String,
    pub(super) cells: Vec<Cell>,
}

/// A cell.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Cell {
    pub(super) text: String,
    /// Whether to point it out: the best of its row, or one of a row that should agree and does not.
    pub(super) marked: bool,
}

/// Which figure is the best.
#[derive(Clone, Copy, PartialEq)]
enum Best {
    Most,
    Least,
    /// None is: it depends.
    Neither,
}

pub(super) fn run(files: &[PathBuf], output: &Path) -> anyhow::Result<()> {
    ensure!(!files.iter().any(|file| file == output), "{} is one of the reports", output.display());
    let reports = read_all(files)?;
    fs::write(output, page::html(&reports)).with_context(|| output.display().to_string())
}

fn read_all(files: &[PathBuf]) -> anyhow::Result<Vec<Named>> {
    let stem = |file: &PathBuf| file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let stems: BTreeSet<_> = files.iter().map(stem).collect();
    let whole = stems.len() < files.len();
    let named = |file: &PathBuf| {
        let name = if whole { file.display().to_string() } else { stem(file) };
        let report = read(file).with_context(|| file.display().to_string());
        report.map(|report| Named { name, report })
    };
    files.iter().map(named).collect()
}

fn read(file: &Path) -> anyhow::Result<Report> {
    let length = fs::metadata(file)?.len();
    ensure!(length <= LONGEST, "longer than a report can be");
    let foreign = "not a report of `sluicegate bench pool`";
    let value: Value = serde_json::from_slice(&fs::read(file)?).context(foreign)?;
    match value["format"].as_str() {
        Some(FORMAT) => serde_json::from_value(value).context("a broken report"),
        Some(other) if other.starts_with("sluicegate bench pool ") => bail!("a report of another version: {other}"),
        _ => bail!("{foreign}"),
    }
}

/// What was run. Rows that differ are marked where runs should put the same load.
pub(super) fn runs(reports: &[Named]) -> Vec<Row> {
    let row = |name: &str, same: bool, of: &dyn Fn(&Report) -> String| {
        let texts: Vec<_> = reports.iter().map(|named| of(&named.report)).collect();
        let marked = same && texts.iter().any(|text| *text != texts[0]);
        Row { name: name.into(), cells: texts.into_iter().map(|text| Cell { text, marked }).collect() }
    };
    let plan =
        |of: fn(&super::plan::Plan) -> String| move |report: &Report| report.plan.as_ref().map(of).unwrap_or_default();
    vec![
        row("pool", false, &|report| format!("{} ({})", report.pool, report.backend)),
        row("size", false, &Report::size),
        row("sizing", false, &|report| report.policy("sizing")),
        row("eviction", false, &|report| report.policy("eviction")),
        row("validation", false, &|report| report.policy("validation")),
        row("clients", true, &plan(|plan| plan.clients.to_string())),
        row("reads", true, &plan(|plan| plan.reads.clone())),
        row("writes", true, &plan(|plan| plan.writes.clone().unwrap_or_else(|| "none".into()))),
        row("share of writes", true, &plan(|plan| plan.writes.as_ref().map_or(0.0, |_| plan.write_share).to_string())),
        row("think", true, &plan(|plan| plan.think.to_string())),
        row("hold", true, &plan(|plan| plan.hold.to_string())),
        row("workers", true, &|report| report.workers.to_string()),
        row("took", false, &|report| {
            time(report.elapsed_ms as f64 * 1e3) + if report.interrupted { ", interrupted" } else { "" }
        }),
        row("date", false, &|report| report.date.clone()),
        row("version", true, &|report| report.sluicegate.clone()),
    ]
}

/// The figures, the best of each row marked.
pub(super) fn figures(reports: &[Named]) -> Vec<Row> {
    let row = |name: &str, best: Best, of: &dyn Fn(&Report) -> Option<f64>, write: &dyn Fn(f64) -> String| {
        let values: Vec<_> = reports.iter().map(|named| of(&named.report)).collect();
        let cell = |(value, marked): (&Option<f64>, bool)| Cell { text: value.map_or("–".into(), write), marked };
        Row { name: name.into(), cells: values.iter().zip(best_of(&values, best)).map(cell).collect() }
    };
    let (least, whole) = (Best::Least, |value: f64| format!("{value:.0}"));
    let tenth = |value: f64| format!("{value:.1}");
    let percent = |share: f64| format!("{} %", number(share * 100.0));
    let latency =
        |of: fn(&Report) -> u64| move |report: &Report| (report.latency.samples > 0).then(|| of(report) as f64);
    let wait = |of: fn(&Report) -> u64| move |report: &Report| (report.wait.samples > 0).then(|| of(report) as f64);
    let open = |report: &Report| report.over_time(|sample| f64::from(sample.in_use) + f64::from(sample.idle));
    let in_use = |report: &Report| report.over_time(|sample| f64::from(sample.in_use));
    let waiters = |report: &Report| report.over_time(|sample| f64::from(sample.waiters));
    vec![
        row("statements a second", Best::Most, &|report| Some(report.per_second), &tenth),
        row("statements done", Best::Neither, &|report| Some((report.reads + report.writes) as f64), &whole),
        row("of all, failed", least, &|report| Some(report.failed_share()), &percent),
        row("latency p50", least, &latency(|report| report.latency.p50_us), &time),
        row("latency p95", least, &latency(|report| report.latency.p95_us), &time),
        row("latency p99", least, &latency(|report| report.latency.p99_us), &time),
        row("latency max", least, &latency(|report| report.latency.max_us), &time),
        row("wait p50", least, &wait(|report| report.wait.p50_us), &time),
        row("wait p95", least, &wait(|report| report.wait.p95_us), &time),
        row("wait p99", least, &wait(|report| report.wait.p99_us), &time),
        row("wait max", least, &wait(|report| report.wait.max_us), &time),
        row("connections open, mean", least, &|report| Some(open(report)?.0), &tenth),
        row("connections in use, mean", Best::Neither, &|report| Some(in_use(report)?.0), &tenth),
        row("connections in use, most", Best::Neither, &|report| Some(in_use(report)?.1), &whole),
        row("waiting, mean", least, &|report| Some(waiters(report)?.0), &tenth),
        row("waiting, most", least, &|report| Some(waiters(report)?.1), &whole),
        row("connections made", least, &|report| Some(report.creates as f64), &whole),
    ]
}

/// Which are the best; none where there is nothing to choose.
fn best_of(values: &[Option<f64>], best: Best) -> Vec<bool> {
    let known = || values.iter().flatten().copied();
    let (least, most) = (known().fold(f64::INFINITY, f64::min), known().fold(f64::NEG_INFINITY, f64::max));
    let wanted = if best == Best::Most { most } else { least };
    let choice = best != Best::Neither && least < most;
    values.iter().map(|value| choice && value.is_some_and(|value| value.to_bits() == wanted.to_bits())).collect()
}

/// What was counted by name: failures, decisions, closes.
pub(super) fn counts(reports: &[Named], of: impl Fn(&Report) -> Vec<(String, u64)>) -> Vec<Row> {
    let all: Vec<Vec<(String, u64)>> = reports.iter().map(|named| of(&named.report)).collect();
    let names: BTreeSet<&String> = all.iter().flatten().map(|(name, _)| name).collect();
    let count = |counts: &Vec<(String, u64)>, name: &String| {
        counts.iter().filter(|(other, _)| other == name).fold(0_u64, |sum, (_, count)| sum.saturating_add(*count))
    };
    let cell = |text: String| Cell { text, marked: false };
    let row = |name: &String| Row {
        name: name.clone(),
        cells: all.iter().map(|counts| cell(count(counts, name).to_string())).collect(),
    };
    names.into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::{super::report::tests::empty, *};

    #[test]
    fn the_best_is_marked_where_there_is_a_choice() {
        let of = |values: &[Option<f64>], best| best_of(values, best);
        assert_eq!(of(&[Some(1.0), Some(2.0), None], Best::Least), [true, false, false]);
        assert_eq!(of(&[Some(1.0), Some(2.0), Some(2.0)], Best::Most), [false, true, true]);
        for none in [&[Some(1.0)][..], &[Some(1.0), Some(1.0)], &[None, Some(1.0)], &[None, None], &[]] {
            assert!(of(none, Best::Most).iter().all(|best| !best), "{none:?}");
        }
        assert_eq!(of(&[Some(1.0), Some(2.0)], Best::Neither), [false, false]);
    }

    #[test]
    fn rows_that_should_agree_are_marked() {
        let other = Report { sluicegate: "9.9".into(), ..empty() };
        let named = |report| Named { name: "x".into(), report };
        let rows = runs(&[named(empty()), named(other)]);
        let marked: Vec<_> = rows.iter().filter(|row| row.cells[0].marked).map(|row| row.name.as_str()).collect();
        assert_eq!(marked, ["version"]);
    }

    #[test]
    fn what_is_no_report_is_refused_by_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("strange.json");
        for (text, why) in [
            ("", "not a report"),
            ("{", "not a report"),
            ("[1]", "not a report"),
            ("{\"format\": \"other\"}", "not a report"),
            ("{\"format\": \"sluicegate bench pool 2\"}", "another version: sluicegate bench pool 2"),
            ("{\"format\": \"sluicegate bench pool 1\"}", "broken"),
        ] {
            fs::write(&file, text).unwrap();
            let said = format!("{:#}", read_all(std::slice::from_ref(&file)).err().unwrap());
            assert!(said.contains("strange.json") && said.contains(why), "{text}: {said}");
        }
        let said = format!("{:#}", read_all(&[directory.path().join("absent.json")]).err().unwrap());
        assert!(said.contains("absent.json"), "{said}");
        let said = run(std::slice::from_ref(&file), &file).unwrap_err().to_string();
        assert!(said.contains("is one of the reports"), "{said}");
    }

    #[test]
    fn reports_are_called_by_their_files() {
        let directory = tempfile::tempdir().unwrap();
        let paths = ["a/one.json", "b/one.json", "two.json"].map(|name| directory.path().join(name));
        for path in &paths {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, serde_json::to_vec(&empty()).unwrap()).unwrap();
        }
        let names =
            |paths: &[PathBuf]| read_all(paths).unwrap().into_iter().map(|named| named.name).collect::<Vec<_>>();
        assert_eq!(names(&paths[1..]), ["one", "two"]);
        assert_eq!(names(&paths[..2]), [paths[0].display().to_string(), paths[1].display().to_string()]);
    }

    #[test]
    fn counts_of_all_reports_have_a_row() {
        let report = |causes: &[(&str, u64)]| {
            let closes = causes.iter().map(|(cause, count)| ((*cause).to_owned(), *count)).collect();
            Named { name: String::new(), report: Report { closes, ..empty() } }
        };
        let rows = counts(&[report(&[("idle", 2)]), report(&[("surplus", 3)])], |report| {
            report.closes.clone().into_iter().collect()
        });
        let told: Vec<_> = rows
            .iter()
            .map(|row| (row.name.as_str(), row.cells[0].text.as_str(), row.cells[1].text.as_str()))
            .collect();
        assert_eq!(told, [("idle", "2", "0"), ("surplus", "0", "3")]);
    }
}
