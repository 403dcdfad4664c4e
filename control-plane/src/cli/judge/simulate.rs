//! `halftone judge simulate`

use super::super::{print, print_text};
use super::svg;
use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use halftone_judge::simulation::{
    Clusters, Data, End, Fault, Latency, RollbackSpeed, Rule, Scenario, Share, false_calls, false_rollbacks,
    latency_speed, peeking, promote_table, rollback_speed, simulate_classic, simulate_release,
    srm_false_alarms, srm_speed,
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{fmt::Write, io::IsTerminal, path::PathBuf};

/// Planned looks: two weeks, every six hours.
const LOOKS: u32 = 56;

/// Flags of `halftone judge simulate`.
#[derive(Args, Debug)]
pub(super) struct JudgeSimulateArgs {
    /// What to simulate; everything when left out.
    #[arg(value_enum)]
    what: Vec<What>,
    /// Seed: the same one gives the same figures.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Runs of each simulation.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    runs: u32,
    /// Folder for the drawings (SVG); none are drawn when left out.
    #[arg(long, value_name = "FOLDER")]
    draw: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// Promote rules: false calls, power, sample; exact.
    Rules,
    /// The default policy as a whole.
    Release,
    /// The policy `classic`.
    Classic,
    /// How fast faults are rolled back, and how often sound releases are.
    Rollback,
    /// How fast a wrong sample ratio is found.
    SampleRatio,
    /// Rare, heavy-tailed and skewed data at small shares.
    Data,
}

impl JudgeSimulateArgs {
    /// Prints the figures as they come, and writes the drawings.
    ///
    /// # Errors
    /// When a drawing or the figures cannot be written.
    pub(super) fn run(&self) -> Result<()> {
        let all = What::value_variants();
        for what in if self.what.is_empty() { all } else { &self.what } {
            match what {
                What::Rules => print(rules()?)?,
                What::Release => self.release()?,
                What::Classic => print(self.classic()?)?,
                What::Rollback => print(self.rollback()?)?,
                What::SampleRatio => print(self.sample_ratio()?)?,
                What::Data => print(self.data()?)?,
            }
        }
        if let Some(folder) = &self.draw {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("{} cannot be made", folder.display()))?;
            for (name, drawing) in svg::drawings(LOOKS, self.seed)? {
                let path = folder.join(name);
                std::fs::write(&path, drawing)
                    .with_context(|| format!("{} cannot be written", path.display()))?;
                print_text(&format!("{}\n", path.display()))?;
            }
        }
        Ok(())
    }

    /// A bar for somebody who watches.
    fn bar(&self, what: &'static str, length: u32) -> ProgressBar {
        let watched = std::io::stderr().is_terminal();
        let target = if watched { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(length.into()), target);
        let style = ProgressStyle::with_template("{bar:32} {pos}/{len}  {msg}  {eta} left");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(what);
        bar
    }

    /// Each of its scenarios takes minutes: it is told when it is there.
    fn release(&self) -> Result<()> {
        print(format!(
            "default policy as a whole, {} releases: 14 days of ticks of a second after a day of ramp\n",
            self.runs
        ))?;
        let same = Scenario::same();
        for (name, scenario) in [
            ("no better, no worse", same),
            ("better by the MDE", Scenario { effect: 1.0, ..same }),
            ("better by twice the MDE", Scenario { effect: 2.0, ..same }),
            ("errors 2 % to 10 %", Scenario { errors: 0.1, ..same }),
            ("twice as slow", Scenario { latency: 2.0, ..same }),
            ("five times as slow", Scenario { latency: 5.0, ..same }),
            ("a tenth more units than its share", Scenario { routed: 1.1, ..same }),
        ] {
            let bar = self.bar(name, self.runs);
            let outcome = simulate_release(&scenario, self.runs, self.seed, || bar.inc(1))?;
            bar.finish_and_clear();
            let mut out = format!("  {name}\n");
            let ends =
                [("promoted", End::Promoted), ("rolled back", End::RolledBack), ("invalid", End::Invalid)];
            let shares = ends.map(|(name, end)| (name, outcome.share(end)));
            for (name, share) in
                shares.into_iter().chain([("promoted by p < .01 at any look", outcome.naive())])
            {
                let _ = writeln!(out, "    {name:<32} {}", percent(share));
            }
            let (median, late) = outcome.units();
            let _ = writeln!(
                out,
                "    at the end: information {:.3}, units of the candidate {median:.0} / {late:.0} (median / 95 %)",
                outcome.information()
            );
            print(out)?;
        }
        Ok(())
    }

    fn classic(&self) -> Result<String> {
        let bar = self.bar("classic", self.runs);
        let (candidates, pauses) = simulate_classic(self.runs, self.seed, || bar.inc(1))?;
        bar.finish_and_clear();
        Ok(format!(
            "policy classic, {} sound releases: false candidates {}, false pauses for harm {}\n",
            self.runs,
            percent(candidates),
            percent(pauses)
        ))
    }

    fn rollback(&self) -> Result<String> {
        // Each of them takes some hundred seconds of traffic.
        let runs = self.runs.min(2_000);
        let mut out = format!(
            "rollback, 100 requests/s, 5 % candidate, alpha .001, {runs} runs: candidate units, median / 95 %\n"
        );
        let bar = self.bar("rollback", 18);
        let row = |out: &mut String, name: String, [all, control]: [RollbackSpeed; 2]| {
            let ((units, late), (seconds, latest)) = (all.units, all.seconds);
            let (of_control, late_control) = control.units;
            let _ = writeln!(
                out,
                "  {name:<40} all stable {units:>5.0} / {late:>5.0} ({seconds:.0} / {latest:.0} s)   control \
                 {of_control:>5.0} / {late_control:>5.0}"
            );
            bar.inc(1);
        };
        for fault in Fault::TABLE {
            let speed = |all_stable| rollback_speed(fault, all_stable, 0.001, runs, self.seed);
            let name = format!("errors {} % to {} %", 100.0 * fault.stable, 100.0 * fault.candidate);
            row(&mut out, name, [speed(true)?, speed(false)?]);
        }
        for latency in Latency::TABLE {
            let speed = |all_stable| latency_speed(latency, all_stable, 0.001, runs.min(400), self.seed);
            let Latency { factor, quantiles, tolerance } = latency;
            let name = format!("latency x {factor}, {quantiles:?}, tolerance {tolerance}");
            row(&mut out, name, [speed(true)?, speed(false)?]);
        }
        let _ = writeln!(out, "sound releases rolled back, alpha .01");
        for (name, clusters, bad) in [
            ("14 days of ticks, one request per unit", Clusters::None, 120_000),
            ("20 failures per bad unit, the first counts", Clusters::FirstEvent(20), 10_000),
            ("3 failures per bad unit, all count (a mistake)", Clusters::EveryEvent(3), 10_000),
            ("30 failures per bad unit, all count (a mistake)", Clusters::EveryEvent(30), 10_000),
        ] {
            let wrong = false_rollbacks(clusters, 0.01, bad, runs, self.seed)?;
            let _ = writeln!(out, "  {name:<48} {}", percent(wrong));
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(out)
    }

    fn sample_ratio(&self) -> Result<String> {
        let runs = self.runs.min(2_000);
        let mut out = String::from(
            "sample ratio: units until a 5 % arm that gets another share is found, median / 95 %\n",
        );
        let bar = self.bar("sample ratio", 3);
        for (real, most) in [(0.06, 200_000), (0.055, 400_000)] {
            let (median, late) = srm_speed(0.05, real, 100, most, runs, self.seed)?;
            let _ = writeln!(out, "  {:.1} %: {median:.0} / {late:.0}", 100.0 * real);
            bar.inc(1);
        }
        let alarms = srm_false_alarms(0.05, 100, 1_000, runs, self.seed)?;
        bar.finish_and_clear();
        let _ = writeln!(out, "  false alarms in 1000 looks: {}", percent(alarms));
        Ok(out)
    }

    fn data(&self) -> Result<String> {
        let runs = self.runs.min(2_000);
        let mut out = format!("equal versions called different at alpha .05, 20,000 units, {runs} runs\n");
        let kinds = [
            Data::Bernoulli(0.01),
            Data::Bernoulli(0.05),
            Data::Lognormal(0.5),
            Data::Lognormal(1.0),
            Data::Lognormal(2.0),
            Data::Requests(1.0),
            Data::Requests(1.5),
        ];
        let bar = self.bar("data", 56);
        for data in kinds {
            for share in [0.5, 0.05] {
                let _ = write!(out, "  {:<16} {:>4} %", format!("{data:?}"), 100.0 * share);
                for (name, rule, looks) in [
                    ("planned", Rule::Planned, 56),
                    ("open", Rule::Open, 200),
                    ("planned, no guards", Rule::PlannedUnguarded, 56),
                    ("open, no guards", Rule::OpenUnguarded, 200),
                ] {
                    let calls = false_calls(data, share, 20_000, looks, rule, runs, self.seed)?;
                    let _ = write!(out, "   {name} {}", percent(calls));
                    bar.inc(1);
                }
                out.push('\n');
            }
        }
        bar.finish_and_clear();
        Ok(out)
    }
}

fn percent(share: Share) -> String {
    format!("{:.2} % (+- {:.2})", 100.0 * share.value(), 100.0 * share.error_at(share.value()))
}

fn rules() -> Result<String> {
    let mut out = String::from("p < .01 and better, looked at again and again, promotes what is no better\n");
    for looks in [1, 4, 28, 56, 84, 120, 1_000] {
        let _ = writeln!(out, "  {looks:>5} looks: {:.2} %", 100.0 * peeking(0.01, looks)?);
    }
    for alpha in [0.05, 0.01] {
        let _ = writeln!(
            out,
            "promote rules at alpha {alpha}, {LOOKS} looks: false calls, power, sample without effect, at the MDE, at twice it"
        );
        for row in promote_table(alpha, LOOKS)? {
            let [none, at, twice] = row.sample;
            let _ = writeln!(
                out,
                "  {:<28} {:.3}  {:.3}  {none:.3}  {at:.3}  {twice:.3}",
                row.rule, row.false_calls, row.power
            );
        }
    }
    Ok(out)
}
