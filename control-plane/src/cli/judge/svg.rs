//! Drawings of what the rules do.

use anyhow::Result;
use halftone_judge::{
    sequential::{Design, Spending},
    simulation::{paths, peeking, power_curves},
};
use std::fmt::Write;

const WIDTH: f64 = 740.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 230.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
const COLOURS: [&str; 7] = ["#b3261e", "#1b5e9c", "#2e7d32", "#8e5a00", "#6a3d9a", "#00838f", "#777777"];

/// A line, with its name in the legend, where it has one.
struct Line {
    name: Option<String>,
    colour: &'static str,
    width: f64,
    /// Dashes and gaps, so that lines on top of each other are both seen.
    dashes: &'static str,
    /// Whether it stops where it ends, instead of reaching the edge.
    stops: bool,
    points: Vec<(f64, f64)>,
}

/// An axis from `low`, in whole `step`s.
struct Axis<'a> {
    name: &'a str,
    low: f64,
    step: f64,
    steps: u32,
    /// What numbers are multiplied with, their decimals, and what follows them.
    label: (f64, usize, &'a str),
}

impl Axis<'_> {
    fn high(&self) -> f64 {
        self.low + f64::from(self.steps) * self.step
    }

    /// Where a value is, from 0 to 1.
    fn share(&self, value: f64) -> f64 {
        (value - self.low) / (self.high() - self.low)
    }

    fn ticks(&self) -> impl Iterator<Item = (f64, String)> {
        let (factor, decimals, unit) = self.label;
        (0..=self.steps).map(move |tick| {
            let value = self.low + f64::from(tick) * self.step;
            (value, format!("{:.decimals$}{unit}", value * factor))
        })
    }
}

struct Chart<'a> {
    title: &'a str,
    x: Axis<'a>,
    y: Axis<'a>,
}

impl Chart<'_> {
    fn draw(&self, lines: &[Line]) -> String {
        let across = |x: f64| LEFT + self.x.share(x) * (WIDTH - LEFT - RIGHT);
        let up = |y: f64| HEIGHT - BOTTOM - self.y.share(y) * (HEIGHT - TOP - BOTTOM);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
             font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
             <text x=\"{LEFT}\" y=\"22\" font-size=\"15\">{}</text>\n",
            escaped(self.title)
        );
        let (right, foot) = (WIDTH - RIGHT, HEIGHT - BOTTOM + 18.0);
        for (y, label) in self.y.ticks() {
            let (height, beside) = (up(y), LEFT - 6.0);
            let below = height + 4.0;
            let _ = writeln!(
                out,
                "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{height:.1}\" y2=\"{height:.1}\" stroke=\"#dddddd\"/>\
                 <text x=\"{beside}\" y=\"{below:.1}\" text-anchor=\"end\">{label}</text>"
            );
        }
        for (x, label) in self.x.ticks() {
            let _ = writeln!(
                out,
                "<text x=\"{:.1}\" y=\"{foot}\" text-anchor=\"middle\">{label}</text>",
                across(x)
            );
        }
        let (x_name, y_name) = (escaped(self.x.name), escaped(self.y.name));
        let (center, bottom, middle) = ((LEFT + right) / 2.0, HEIGHT - 12.0, HEIGHT / 2.0);
        let _ = writeln!(
            out,
            "<text x=\"{center:.1}\" y=\"{bottom}\" text-anchor=\"middle\">{x_name}</text>\
             <text x=\"14\" y=\"{middle}\" text-anchor=\"middle\" transform=\"rotate(-90 14 {middle})\">{y_name}</text>"
        );
        let mut named = 0.0;
        for Line { name, colour, width, dashes, stops, points } in lines {
            let (low, high) = (self.y.low, self.y.high());
            let at = |(x, y): &(f64, f64)| format!("{:.1},{:.1}", across(*x), up(y.clamp(low, high)));
            let _ = writeln!(
                out,
                "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\" stroke-dasharray=\"{dashes}\" \
                 points=\"{}\"/>",
                points.iter().map(at).collect::<Vec<_>>().join(" ")
            );
            if let Some((x, y)) = points.last().filter(|_| *stops) {
                let (x, y) = (across(*x), up(y.clamp(low, high)));
                let _ = writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
            }
            if let Some(name) = name {
                let (x, y) = (WIDTH - RIGHT + 14.0, TOP + 12.0 + 18.0 * named);
                let (middle, end, text) = (y - 4.0, x + 22.0, x + 28.0);
                let _ = writeln!(
                    out,
                    "<line x1=\"{x}\" x2=\"{end}\" y1=\"{middle}\" y2=\"{middle}\" stroke=\"{colour}\" \
                     stroke-width=\"2.5\" stroke-dasharray=\"{dashes}\"/><text x=\"{text}\" y=\"{y}\">{}</text>",
                    escaped(name)
                );
                named += 1.0;
            }
        }
        out + "</svg>\n"
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

fn line(name: &str, index: usize, points: Vec<(f64, f64)>) -> Line {
    let colour = COLOURS.get(index % COLOURS.len()).copied().unwrap_or("#777777");
    Line { name: Some(name.to_owned()), colour, width: 2.0, dashes: "none", stops: false, points }
}

/// File names and drawings: power, false calls, and paths with their boundary.
pub(super) fn drawings(looks: u32, seed: u64) -> Result<Vec<(&'static str, String)>> {
    Ok(vec![
        ("power.svg", power(looks)?),
        ("false-calls.svg", false_calls()?),
        ("paths.svg", sample_paths(looks, seed)?),
    ])
}

const PERCENT: (f64, usize, &str) = (100.0, 0, " %");

fn power(looks: u32) -> Result<String> {
    let effects: Vec<f64> = (0..=50).map(|step| f64::from(step) / 20.0).collect();
    let of_rule = |(index, (rule, power)): (usize, (String, Vec<f64>))| Line {
        // Confidence sequences hardly differ.
        dashes: match index {
            5 => "8 4",
            6 => "2 4",
            _ => "none",
        },
        ..line(&rule, index, effects.iter().copied().zip(power).collect())
    };
    let lines: Vec<Line> =
        power_curves(0.01, looks, &effects)?.into_iter().enumerate().map(of_rule).collect();
    let effect = "true effect, in multiples of the MDE";
    let chart = Chart {
        title: "Chance to call the candidate better, level .01",
        x: Axis { name: effect, low: 0.0, step: 0.5, steps: 5, label: (1.0, 1, "") },
        y: Axis { name: "chance", low: 0.0, step: 0.2, steps: 5, label: PERCENT },
    };
    Ok(chart.draw(&lines))
}

fn false_calls() -> Result<String> {
    let counts = [1, 2, 3, 4, 6, 8, 11, 14, 20, 28, 42, 56, 70, 84, 100, 120];
    let naive = counts.map(|looks| Ok((f64::from(looks), peeking(0.01, looks)?)));
    let naive = naive.into_iter().collect::<Result<Vec<_>>>()?;
    let chart = Chart {
        title: "Chance to promote a version that is no better",
        x: Axis { name: "looks", low: 0.0, step: 20.0, steps: 6, label: (1.0, 0, "") },
        y: Axis { name: "chance", low: 0.0, step: 0.01, steps: 6, label: PERCENT },
    };
    let planned = line("planned looks, level .01", 2, vec![(1.0, 0.005), (120.0, 0.005)]);
    Ok(chart.draw(&[line("p < .01 at every look", 0, naive), planned]))
}

/// Releases that end where they cross the upper bound.
fn sample_paths(looks: u32, seed: u64) -> Result<String> {
    let bounds = Design::LanDeMets(Spending::default()).bounds(looks as usize, 0.01)?;
    let time = |look: usize| (look + 1) as f64 / f64::from(looks);
    let boundary = |sign: f64| bounds.iter().enumerate().map(|(look, z)| (time(look), sign * z)).collect();
    let mut drawn =
        vec![line("boundary", 0, boundary(1.0)), Line { name: None, ..line("", 0, boundary(-1.0)) }];
    for (index, (name, effect)) in [("no effect", 0.0), ("effect of the MDE", 1.0)].into_iter().enumerate() {
        for (number, path) in paths(0.01, looks, effect, 12, seed)?.into_iter().enumerate() {
            let crossed = path.iter().zip(&bounds).position(|(z, bound)| z >= bound);
            let shown = crossed.map_or(path.len(), |look| look + 1);
            let points = path.into_iter().take(shown).enumerate().map(|(look, z)| (time(look), z)).collect();
            let name = (number == 0).then(|| name.to_owned());
            let stops = crossed.is_some();
            drawn.push(Line { name, width: 0.8, stops, ..line("", index + 1, points) });
        }
    }
    let chart = Chart {
        title: "Releases until they cross the boundary, level .01",
        x: Axis { name: "share of the planned information", low: 0.0, step: 0.2, steps: 5, label: PERCENT },
        y: Axis { name: "Z", low: -6.0, step: 2.0, steps: 6, label: (1.0, 0, "") },
    };
    Ok(chart.draw(&drawn))
}
