//! Lines over an axis, as SVG. Whatever the numbers are, what is drawn stays inside.

use std::fmt::Write as _;

use super::page::escape;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 30.0;
/// Points of a line beyond which neighbours become one, their mean.
const MOST_POINTS: usize = 360;
/// Higher numbers are drawn as this.
const HIGHEST: f64 = 1e15;

/// A picture.
pub(super) struct Plot<'a> {
    /// What it shows, for who cannot see it.
    pub(super) title: &'a str,
    /// Names of the places on the horizontal axis; without, it is time in seconds.
    pub(super) places: &'a [&'a str],
    pub(super) scale: Scale,
    /// How a number of the vertical axis is written.
    pub(super) write: fn(f64) -> String,
    pub(super) lines: Vec<Line<'a>>,
}

/// A line.
pub(super) struct Line<'a> {
    pub(super) name: &'a str,
    /// Its look: a class of the page's.
    pub(super) class: String,
    pub(super) points: Vec<(f64, f64)>,
}

/// An axis, from `low` to `high`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    logarithmic: bool,
}

impl Scale {
    /// From nothing to a round number that is not below the highest.
    pub(super) fn from_zero(values: impl Iterator<Item = f64>) -> Self {
        let highest = values.map(sane).fold(0.0, f64::max);
        let high = if highest > 0.0 { (highest / step(highest)).ceil() * step(highest) } else { 1.0 };
        Self { low: 0.0, high, logarithmic: false }
    }

    /// From nothing to the highest.
    fn whole(values: impl Iterator<Item = f64>) -> Self {
        let highest = values.map(sane).fold(0.0, f64::max);
        Self { low: 0.0, high: if highest > 0.0 { highest } else { 1.0 }, logarithmic: false }
    }

    /// Powers of ten around all values; those below one are drawn as one.
    pub(super) fn logarithmic(values: impl Iterator<Item = f64>) -> Self {
        let bounds = values.map(|value| sane(value).max(1.0)).fold(None, |bounds, value| {
            let (low, high) = bounds.unwrap_or((value, value));
            Some((f64::min(low, value), f64::max(high, value)))
        });
        let (low, high) = bounds.unwrap_or((1.0, 10.0));
        let (low, high) = (10_f64.powf(low.log10().floor()), 10_f64.powf(high.log10().ceil()));
        Self { low, high: high.max(low * 10.0), logarithmic: true }
    }

    /// Where a value lies, 0 to 1.
    fn at(&self, value: f64) -> f64 {
        let value = sane(value).clamp(self.low, self.high);
        if self.logarithmic {
            (value / self.low).log10() / (self.high / self.low).log10()
        } else {
            (value - self.low) / (self.high - self.low)
        }
    }

    /// Values to write beside it.
    fn ticks(&self) -> Vec<f64> {
        if self.logarithmic {
            let decades = (self.high / self.low).log10().round() as i32;
            return (0..=decades).map(|decade| self.low * 10_f64.powi(decade)).collect();
        }
        let step = step(self.high);
        let count = (self.high / step + 1e-9).floor() as usize;
        (0..=count).map(|number| number as f64 * step).collect()
    }
}

/// A number that can be drawn.
fn sane(value: f64) -> f64 {
    if value.is_nan() { 0.0 } else { value.clamp(0.0, HIGHEST) }
}

/// 1, 2 or 5 times a power of ten, about a fifth of `high`.
fn step(high: f64) -> f64 {
    let rough = high / 5.0;
    let power = 10_f64.powf(rough.log10().floor());
    let digit = [1.0, 2.0, 5.0].into_iter().find(|digit| digit * power >= rough * 0.999).unwrap_or(10.0);
    digit * power
}

/// Neighbours become one, where there are too many.
fn thin(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let group = points.len().div_ceil(MOST_POINTS).max(1);
    let mean = |group: &[(f64, f64)]| {
        let (x, y) = group.iter().fold((0.0, 0.0), |(xs, ys), (x, y)| (xs + sane(*x), ys + sane(*y)));
        (x / group.len() as f64, y / group.len() as f64)
    };
    points.chunks(group).map(mean).collect()
}

impl Plot<'_> {
    /// The picture, and what its lines are called where there is more than one.
    pub(super) fn figure(&self) -> String {
        let mut figure = format!("<figure>\n{}", self.svg());
        if self.lines.len() > 1 {
            figure += "<figcaption>";
            for Line { name, class, .. } in &self.lines {
                let swatch =
                    format!("<svg class=\"swatch\" viewBox=\"0 0 24 8\"><path class=\"{class}\" d=\"M0 4H24\"/></svg>");
                let _ = write!(figure, "<span>{swatch}{}</span>", escape(name));
            }
            figure += "</figcaption>\n";
        }
        figure + "</figure>\n"
    }

    fn svg(&self) -> String {
        let across = self.across();
        let mut svg =
            format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\"><title>{}</title>\n", escape(self.title));
        for tick in self.scale.ticks() {
            let (y, text) = (down(self.scale.at(tick)), (self.write)(tick));
            let _ = writeln!(svg, "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{:.1}\"/>", WIDTH - RIGHT);
            let _ = writeln!(
                svg,
                "<text class=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                LEFT - 8.0,
                y + 4.0,
                escape(&text)
            );
        }
        for (x, text) in self.marks(&across) {
            let _ =
                writeln!(svg, "<text class=\"mid\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>", HEIGHT - 8.0, escape(&text));
        }
        for line in &self.lines {
            self.draw(line, &across, &mut svg);
        }
        svg + "</svg>\n"
    }

    fn across(&self) -> Scale {
        match self.places.len() {
            0 => Scale::whole(self.lines.iter().flat_map(|line| &line.points).map(|(x, _)| *x)),
            count => Scale { low: 0.0, high: count as f64, logarithmic: false },
        }
    }

    fn marks(&self, across: &Scale) -> Vec<(f64, String)> {
        if self.places.is_empty() {
            return across
                .ticks()
                .into_iter()
                .map(|tick| (right(across.at(tick)), format!("{} s", number(tick))))
                .collect();
        }
        let place = |(at, name): (usize, &&str)| (right(across.at(at as f64 + 0.5)), (*name).to_owned());
        self.places.iter().enumerate().map(place).collect()
    }

    fn draw(&self, Line { name, class, points }: &Line<'_>, across: &Scale, svg: &mut String) {
        let points = thin(points);
        let at: Vec<_> = points.iter().map(|(x, y)| (right(across.at(*x)), down(self.scale.at(*y)))).collect();
        let path: Vec<_> = at.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
        if at.len() > 1 {
            let _ = writeln!(svg, "<path class=\"{class}\" d=\"M{}\"/>", path.join("L"));
        }
        // One point is no line; and at places, each is a figure of its own.
        if at.len() == 1 || !self.places.is_empty() {
            for ((x, y), (_, value)) in at.iter().zip(&points) {
                let said = format!("{}: {}", escape(name), escape(&(self.write)(*value)));
                let _ = writeln!(
                    svg,
                    "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"><title>{said}</title></circle>"
                );
            }
        }
    }
}

fn right(share: f64) -> f64 {
    LEFT + share * (WIDTH - LEFT - RIGHT)
}

fn down(share: f64) -> f64 {
    HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
}

/// A number in few digits: `0.5`, `12`, `1.5k`, `20M`.
pub(super) fn number(value: f64) -> String {
    let (value, unit) = match value {
        value if value >= 1e9 => (value / 1e9, "G"),
        value if value >= 1e6 => (value / 1e6, "M"),
        value if value >= 1e4 => (value / 1e3, "k"),
        value => (value, ""),
    };
    let text = if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") };
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(scale: Scale, lines: Vec<Line<'_>>) -> String {
        Plot { title: "a < b", places: &[], scale, write: number, lines }.figure()
    }

    fn line(points: &[(f64, f64)]) -> Line<'_> {
        Line { name: "<one>", class: "s0".into(), points: points.to_vec() }
    }

    /// Every coordinate of a path or a circle.
    fn coordinates(svg: &str) -> Vec<f64> {
        let paths = svg.split("<path class=\"s0\" d=\"M").skip(1).filter_map(|rest| rest.split('"').next());
        let circles = ["cx=\"", "cy=\""]
            .into_iter()
            .flat_map(|name| svg.split(name).skip(1))
            .filter_map(|rest| rest.split('"').next());
        paths.chain(circles).flat_map(|text| text.split(['L', ' '])).map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn extremes_stay_inside() {
        let extremes: [&[(f64, f64)]; 6] = [
            &[],
            &[(0.0, 0.0)],
            &[(0.0, 0.0), (1.0, 0.0)],
            &[(5.0, 7.0)],
            &[(0.0, f64::NAN), (f64::INFINITY, f64::INFINITY), (1.0, -3.0)],
            &[(0.0, 1e-300), (1e300, 1e300)],
        ];
        for points in extremes {
            let values = || points.iter().map(|(_, y)| *y);
            for scale in [Scale::from_zero(values()), Scale::logarithmic(values())] {
                let svg = plot(scale, vec![line(points)]);
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{points:?}: {svg}");
                let all = coordinates(&svg);
                assert!(all.len() >= points.len().min(1), "{points:?}: {svg}");
                assert!(all.iter().all(|at| (0.0..=WIDTH).contains(at)), "{points:?}: {all:?}");
                assert!((2..20).contains(&scale.ticks().len()), "{scale:?}: {:?}", scale.ticks());
            }
        }
    }

    #[test]
    fn scales_end_at_round_numbers() {
        let high = |value: f64| Scale::from_zero([value].into_iter()).high;
        for (value, round) in [(1.0, 1.0), (7.0, 8.0), (97.0, 100.0), (1_234.0, 1_500.0), (0.3, 0.3)] {
            assert!((high(value) - round).abs() < 1e-9, "{value}: {}", high(value));
        }
        let decades = Scale::logarithmic([150.0, 20_000.0].into_iter());
        assert_eq!(decades.ticks(), [100.0, 1e3, 1e4, 1e5]);
        assert_eq!(Scale::logarithmic([100.0].into_iter()).ticks(), [100.0, 1e3], "one value has a decade");
        assert!((decades.at(1e3) - 1.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn long_lines_are_thinned_to_their_mean() {
        let points: Vec<_> = (0..36_000).map(|at| (f64::from(at), if at % 2 == 0 { 0.0 } else { 10.0 })).collect();
        let thinned = thin(&points);
        assert!(thinned.len() <= MOST_POINTS);
        assert!(thinned.iter().all(|(_, y)| (y - 5.0).abs() < 1e-9));
        assert_eq!(thin(&[]), []);
    }

    #[test]
    fn names_are_escaped() {
        let svg = plot(Scale::from_zero([1.0].into_iter()), vec![line(&[(0.0, 1.0)]), line(&[])]);
        assert!(svg.contains("&lt;one&gt;") && svg.contains("a &lt; b") && !svg.contains("<one>"), "{svg}");
    }

    #[test]
    fn numbers_are_short() {
        let written = [0.0, 0.5, 12.0, 1_500.0, 20_000.0, 2.5e6, 1e15].map(number);
        assert_eq!(written, ["0", "0.5", "12", "1500", "20k", "2.5M", "1000000G"]);
    }
}
