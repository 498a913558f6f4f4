//! The page on which reports stand side by side. It needs nothing but itself: no network, no script.

use std::fmt::Write as _;

use super::{
    compare::{Named, Row, counts, figures, runs},
    plot::{Line, Plot, Scale, number},
    report::{Report, time},
    sample::{Figure, Sample},
    tally::Times,
};

const STYLE: &str = include_str!("page.css");

/// Text as it may stand in HTML, between quotes too.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            // HTML has no place for other controls, not even escaped.
            c if c.is_control() && c != '\n' && c != '\t' => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// The page.
pub(super) fn html(reports: &[Named]) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Pools compared</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>Pools compared</h1>\n\
         <p>Runs of <code>sluicegate bench pool</code>. Each client waits for its answer before it asks anew: where \
         answers are slow, less is asked.</p>\n"
    );
    page += "<h2>Figures</h2>\n<p>The best of each row is marked. \
             Fewer open connections are better where the rest agrees.</p>\n";
    page += &table(reports, &figures(reports), "figures", "best");
    page += &plots(reports);
    let rows = runs(reports);
    page += "<h2>What was run</h2>\n";
    if rows.iter().flat_map(|row| &row.cells).any(|cell| cell.marked) {
        page +=
            "<p>These runs did not put the same load, or not on the same footing: see the rows that are marked.</p>\n";
    }
    page += &table(reports, &rows, "runs", "odd");
    for (title, rows) in told(reports) {
        if !rows.is_empty() {
            let _ = write!(page, "<h2>{title}</h2>\n{}", table(reports, &rows, "figures", "odd"));
        }
    }
    page + "</body>\n</html>\n"
}

/// What is counted by name.
fn told(reports: &[Named]) -> [(&'static str, Vec<Row>); 5] {
    let clone = |counts: &std::collections::BTreeMap<String, u64>| counts.clone().into_iter().collect::<Vec<_>>();
    let errors = |report: &Report| report.errors.iter().map(|of| (of.class.clone(), of.count)).collect();
    let decisions =
        |report: &Report| report.decisions.iter().map(|of| (format!("{}: {}", of.hook, of.by), of.count)).collect();
    [
        ("Statements that failed", counts(reports, errors)),
        ("Decisions, by hook and by who", counts(reports, decisions)),
        ("Answers of policies not followed to the letter", counts(reports, |report| clone(&report.clamped))),
        ("Connections closed, by cause", counts(reports, |report| clone(&report.closes))),
        ("Connections that could not be made", counts(reports, |report| clone(&report.create_failures))),
    ]
}

fn table(reports: &[Named], rows: &[Row], class: &str, mark: &str) -> String {
    let mut table = format!("<div class=\"scroll\"><table class=\"{class}\">\n<thead><tr><th></th>");
    for named in reports {
        let _ = write!(table, "<th scope=\"col\">{}</th>", escape(&named.name));
    }
    table += "</tr></thead>\n<tbody>\n";
    for Row { name, cells } in rows {
        let _ = write!(table, "<tr><th scope=\"row\">{}</th>", escape(name));
        for cell in cells {
            let class = if cell.marked { format!(" class=\"{mark}\"") } else { String::new() };
            let _ = write!(table, "<td{class}>{}</td>", escape(&cell.text));
        }
        table += "</tr>\n";
    }
    table + "</tbody></table></div>\n"
}

fn plots(reports: &[Named]) -> String {
    let mut plots = String::from("<div class=\"plots\">\n");
    for (title, of) in [
        (
            "Latency: asking for a connection to the end of the answer",
            (|report| report.latency) as fn(&Report) -> Times,
        ),
        ("Wait: asking for a connection to having one", |report| report.wait),
    ] {
        let _ = write!(plots, "<section><h2>{title}</h2>\n{}</section>\n", percentiles(reports, title, of));
    }
    for (title, figure) in [
        ("Statements done a second", (|sample| sample.per_second) as Figure),
        ("Callers that wait for a connection", |sample| f64::from(sample.waiters)),
    ] {
        let _ = write!(plots, "<section><h2>{title}</h2>\n{}</section>\n", over_time(reports, title, figure));
    }
    plots += "</div>\n<h2>Connections</h2>\n<div class=\"plots\">\n";
    let scale = Scale::from_zero(reports.iter().flat_map(|named| named.report.samples.iter().flat_map(connections)));
    for named in reports {
        let _ = write!(plots, "<section><h3>{}</h3>\n{}</section>\n", escape(&named.name), connected(named, scale));
    }
    plots + "</div>\n"
}

fn percentiles(reports: &[Named], title: &str, of: fn(&Report) -> Times) -> String {
    let values = |named: &Named| {
        let Times { samples, p50_us, p95_us, p99_us, max_us, .. } = of(&named.report);
        let values = [p50_us, p95_us, p99_us, max_us].map(|us| us as f64);
        (samples > 0).then_some(values)
    };
    let scale = Scale::logarithmic(reports.iter().filter_map(values).flatten());
    let mut lines = Vec::new();
    for (index, named) in reports.iter().enumerate() {
        let points = (0..4).map(|place| f64::from(place) + 0.5).zip(values(named).into_iter().flatten()).collect();
        lines.push(Line { name: &named.name, class: format!("s{index}"), points });
    }
    Plot { title, places: &["p50", "p95", "p99", "max"], scale, write: time, lines }.figure()
}

fn over_time(reports: &[Named], title: &str, figure: Figure) -> String {
    let mut lines = Vec::new();
    for (index, named) in reports.iter().enumerate() {
        lines.push(line_of(&named.name, &named.report, figure, format!("s{index}")));
    }
    let scale = Scale::from_zero(reports.iter().flat_map(|named| named.report.samples.iter().map(figure)));
    Plot { title, places: &[], scale, write: number, lines }.figure()
}

fn connections(sample: &Sample) -> [f64; 3] {
    [sample.in_use, sample.idle, sample.target].map(f64::from)
}

fn connected(named: &Named, scale: Scale) -> String {
    let looks: [(_, Figure, _); 3] = [
        ("target", |sample| f64::from(sample.target), "s7 dashed"),
        ("in use", |sample| f64::from(sample.in_use), "s0"),
        ("idle", |sample| f64::from(sample.idle), "s2"),
    ];
    let lines = looks.map(|(name, figure, class)| line_of(name, &named.report, figure, class.to_owned())).into();
    let title = format!("Connections of {} in use and idle, and how many are aimed at", named.name);
    Plot { title: &title, places: &[], scale, write: number, lines }.figure()
}

fn line_of<'a>(name: &'a str, report: &Report, figure: Figure, class: String) -> Line<'a> {
    let point = |sample: &Sample| (sample.at_ms as f64 / 1e3, figure(sample));
    Line { name, class, points: report.samples.iter().map(point).collect() }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{report::tests::empty, tally::Failures},
        *,
    };

    fn named(name: &str, report: Report) -> Named {
        Named { name: name.into(), report }
    }

    #[test]
    fn text_does_nothing_but_stand_there() {
        assert_eq!(
            escape("<b a='1' c=\"2\">&\u{1b}\0é"),
            "&lt;b a=&#39;1&#39; c=&quot;2&quot;&gt;&amp;\u{fffd}\u{fffd}é"
        );
        let evil = "<script>alert(1)</script>";
        let errors = vec![Failures { class: evil.into(), count: 1, first: evil.into() }];
        let closes = [(evil.to_owned(), 1)].into();
        let report = Report { pool: evil.into(), date: evil.into(), errors, closes, ..empty() };
        let page = html(&[named(evil, report), named("\" onload=\"x", empty())]);
        assert!(!page.contains("<script") && !page.contains("\" onload"), "{page}");
        assert!(page.contains("&lt;script&gt;"));
    }

    #[test]
    fn a_page_needs_nothing_but_itself() {
        let samples = (0..3).map(|at| Sample { at_ms: at * 100, in_use: 2, ..Sample::default() }).collect();
        let page = html(&[named("one", Report { samples, ..empty() }), named("two", empty())]);
        for outside in ["http:", "https:", "src=", "href=", "url(", "@import"] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(!page.contains("NaN") && page.matches("<section>").count() == 6, "{page}");
        assert!(page.contains("prefers-color-scheme: dark"));
    }
}
