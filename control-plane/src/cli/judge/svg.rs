//! Drawings of what the rules do.

use anyhow::Result;
use halftone_judge::{
    sequential::{Design, Spending},
    simulation::{paths, peeking, power_curves},
};
use std::fmt::Write;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 210.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
const COLOURS: [&str; 7] = ["#b3261e", "#1b5e9c", "#2e7d32", "#8e5a00", "#6a3d9a", "#00838f", "#777777"];

/// A line, with its name in the legend, where it has one.
struct Line {
    name: Option<String>,
    colour: &'static str,
    width: f64,
    points: Vec<(f64, f64)>,
}

/// A chart with two axes that start and end at whole numbers of their steps.
struct Chart<'a> {
    title: &'a str,
    x: (&'a str, f64, f64),
    y: (&'a str, f64, f64),
}

impl Chart<'_> {
    fn draw(&self, lines: &[Line]) -> String {
        let (x_name, x_low, x_high) = self.x;
        let (y_name, y_low, y_high) = self.y;
        let across = |x: f64| LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT);
        let up = |y: f64| HEIGHT - BOTTOM - (y - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
             font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
             <text x=\"{LEFT}\" y=\"22\" font-size=\"15\">{}</text>\n",
            self.title
        );
        let (right, foot) = (WIDTH - RIGHT, HEIGHT - BOTTOM + 18.0);
        for tick in 0..=5 {
            let share = f64::from(tick) / 5.0;
            let (x, y) = (x_low + share * (x_high - x_low), y_low + share * (y_high - y_low));
            let (height, beside, place) = (up(y), LEFT - 6.0, across(x));
            let below = height + 4.0;
            let _ = writeln!(
                out,
                "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{height:.1}\" y2=\"{height:.1}\" stroke=\"#dddddd\"/>\
                 <text x=\"{beside}\" y=\"{below:.1}\" text-anchor=\"end\">{y:.3}</text>\
                 <text x=\"{place:.1}\" y=\"{foot}\" text-anchor=\"middle\">{x:.1}</text>"
            );
        }
        let (center, bottom, middle) = ((LEFT + right) / 2.0, HEIGHT - 12.0, HEIGHT / 2.0);
        let _ = writeln!(
            out,
            "<text x=\"{center:.1}\" y=\"{bottom}\" text-anchor=\"middle\">{x_name}</text>\
             <text x=\"14\" y=\"{middle}\" text-anchor=\"middle\" transform=\"rotate(-90 14 {middle})\">{y_name}</text>"
        );
        let mut named = 0.0;
        for Line { name, colour, width, points } in lines {
            let at = |(x, y): &(f64, f64)| format!("{:.1},{:.1}", across(*x), up(y.clamp(y_low, y_high)));
            let points: Vec<String> = points.iter().map(at).collect();
            let _ = writeln!(
                out,
                "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\" points=\"{}\"/>",
                points.join(" ")
            );
            if let Some(name) = name {
                let (x, y) = (WIDTH - RIGHT + 14.0, TOP + 12.0 + 18.0 * named);
                let (line, text) = (y - 5.0, x + 20.0);
                let name = name.replace('&', "&amp;").replace('<', "&lt;");
                let _ = writeln!(
                    out,
                    "<rect x=\"{x}\" y=\"{line}\" width=\"14\" height=\"3\" fill=\"{colour}\"/>\
                     <text x=\"{text}\" y=\"{y}\">{name}</text>"
                );
                named += 1.0;
            }
        }
        out + "</svg>\n"
    }
}

fn line(name: &str, index: usize, points: Vec<(f64, f64)>) -> Line {
    let colour = COLOURS.get(index % COLOURS.len()).copied().unwrap_or("#777777");
    Line { name: Some(name.to_owned()), colour, width: 2.0, points }
}

/// File names and drawings: power, false calls, and paths with their boundary.
pub(super) fn drawings(looks: u32, seed: u64) -> Result<Vec<(&'static str, String)>> {
    let effects: Vec<f64> = (0..=50).map(|step| f64::from(step) / 20.0).collect();
    let curves = power_curves(0.01, looks, &effects)?;
    let lines: Vec<Line> = curves
        .into_iter()
        .enumerate()
        .map(|(index, (rule, power))| line(&rule, index, effects.iter().copied().zip(power).collect()))
        .collect();
    let power = Chart {
        title: "Chance to call the candidate better, level .01",
        x: ("true effect, in multiples of the MDE", 0.0, 2.5),
        y: ("chance", 0.0, 1.0),
    };
    let counts = [1, 2, 4, 8, 14, 28, 42, 56, 84, 120];
    let naive = counts.map(|looks| Ok((f64::from(looks), peeking(0.01, looks)?)));
    let naive = naive.into_iter().collect::<Result<Vec<_>>>()?;
    let nominal = vec![(1.0, 0.005), (120.0, 0.005)];
    let false_calls = Chart {
        title: "Chance to promote a version that is no better",
        x: ("looks", 0.0, 120.0),
        y: ("chance", 0.0, 0.06),
    };
    let bounds = Design::LanDeMets(Spending::default()).bounds(looks as usize, 0.01)?;
    let time = |look: usize| (look + 1) as f64 / f64::from(looks);
    let boundary = |sign: f64| bounds.iter().enumerate().map(|(look, z)| (time(look), sign * z)).collect();
    let mut drawn =
        vec![line("boundary", 0, boundary(1.0)), Line { name: None, ..line("", 0, boundary(-1.0)) }];
    for (index, (name, effect)) in [("no effect", 0.0), ("effect of the MDE", 1.0)].into_iter().enumerate() {
        for (number, path) in paths(0.01, looks, effect, 12, seed)?.into_iter().enumerate() {
            let points = path.into_iter().enumerate().map(|(look, z)| (time(look), z)).collect();
            let name = (number == 0).then(|| name.to_owned());
            drawn.push(Line { name, width: 0.8, ..line("", index + 1, points) });
        }
    }
    let sample_paths = Chart {
        title: "Releases and the boundary that they have to cross, level .01",
        x: ("share of the planned information", 0.0, 1.0),
        y: ("Z", -5.0, 5.0),
    };
    Ok(vec![
        ("power.svg", power.draw(&lines)),
        (
            "false-calls.svg",
            false_calls.draw(&[line("p < .01 at every look", 0, naive), line("planned looks", 2, nominal)]),
        ),
        ("paths.svg", sample_paths.draw(&drawn)),
    ])
}
