//! The demo's claims, checked.

use crate::{story::Told, why::Why};
use halftone_tests::traffic::{Exchange, by_target, failures, is_binomial};
use std::{collections::HashSet, process::ExitCode};

/// What was claimed, and whether it is true.
#[derive(Default)]
pub(crate) struct Checks(Vec<(String, bool)>);

impl Checks {
    pub(crate) fn no_failures(&mut self, what: &str, exchanges: &[Exchange]) {
        let failed = failures(exchanges);
        let first =
            failed.first().map_or(String::new(), |exchange| format!(", the first {:?}", exchange.status));
        self.claim(
            format!("{what}: 0 of {} requests failed ({} did{first})", exchanges.len(), failed.len()),
            failed.is_empty() && !exchanges.is_empty(),
        );
    }

    pub(crate) fn split(&mut self, exchanges: &[Exchange], share: f64) {
        let hits = by_target(exchanges).get("v2").map_or(0, Vec::len);
        let n = exchanges.len();
        self.claim(
            format!("v2 got {hits} of {n} users, as a share of {share} gives"),
            is_binomial(hits, n, share),
        );
    }

    pub(crate) fn served_by_the_named_version(&mut self, exchanges: &[Exchange]) {
        let same = |exchange: &Exchange| match (&exchange.target, &exchange.version) {
            (Some(target), Some(version)) => *target == format!("v{version}"),
            _ => false,
        };
        self.claim(
            "each request was answered by the version that the filter named".into(),
            exchanges.iter().all(same),
        );
    }

    pub(crate) fn second_version_is_better(&mut self, exchanges: &[Exchange]) {
        let targets = by_target(exchanges);
        let accuracy = |target: &str| {
            let all = targets.get(target)?;
            let right = all.iter().filter(|exchange| exchange.correct == Some(true)).count();
            (!all.is_empty()).then(|| right * 1_000 / all.len())
        };
        let better = accuracy("v2") > accuracy("v1") && accuracy("v1") > Some(800);
        self.claim("v2 reads more digits right than v1, and v1 more than 80 %".into(), better);
    }

    pub(crate) fn nobody_moved_back(&mut self, back: usize) {
        self.claim(format!("widening moved nobody back ({back} did)"), back == 0);
    }

    pub(crate) fn copy_stays_out(&mut self, told: &Told) {
        self.claim(
            format!("v1-copy was not promoted, and the release ended by itself: it is {}", told.phase()),
            told.phase() == "aborted",
        );
    }

    pub(crate) fn promoted_for_everybody(&mut self, told: &Told, everybody: &[Exchange]) {
        let by_judge = told.record("promote").is_some_and(|record| record["by"] == "judge");
        self.claim("v2 was promoted by itself".into(), by_judge && told.phase() == "promoted");
        self.claim(
            "and everybody has it".into(),
            everybody.iter().all(|exchange| exchange.target.as_deref() == Some("v2")),
        );
        let mut had = HashSet::new();
        let back = told.exchanges.iter().filter(|exchange| match exchange.target.as_deref() {
            Some("v2") => {
                had.insert(exchange.user);
                false
            }
            _ => had.contains(&exchange.user),
        });
        let back = back.count();
        self.claim(format!("its ramp moved nobody back ({back} were)"), back == 0);
    }

    pub(crate) fn rolled_back(&mut self, told: &Told) {
        let by_judge = told.record("rollback").is_some_and(|record| record["by"] == "judge");
        self.claim("v3 was rolled back by itself".into(), by_judge && told.phase() == "rolled_back");
        self.claim("its time to safe is on record".into(), told.seconds_to_safe().is_some());
        let late = told.afterwards.iter().filter(|exchange| exchange.target.as_deref() == Some("v3")).count();
        self.claim(
            format!("of {} requests after that, none got v3 ({late} did)", told.afterwards.len()),
            late == 0 && !told.afterwards.is_empty(),
        );
    }

    pub(crate) fn explained(&mut self, why: &Why) {
        let Why { trace, told } = why;
        let decision = &told["decision"];
        let by_release = decision["target"] == "v3" && decision["rule"] == "digits-v3";
        let step = told["why"]["release"]["decision"]["action"].as_str().unwrap_or("nothing");
        self.claim(
            format!("`halftone trace {trace}` says that the release of v3 decided it, by its {step}"),
            by_release && ["start", "widen"].contains(&step),
        );
    }

    fn claim(&mut self, claim: String, holds: bool) {
        self.0.push((claim, holds));
    }

    /// Prints all claims; fails when one is false.
    pub(crate) fn report(&self) -> ExitCode {
        println!("\nChecks:");
        for (claim, holds) in &self.0 {
            println!("  {}  {claim}", if *holds { "ok  " } else { "FAIL" });
        }
        if self.0.iter().all(|(_, holds)| *holds) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
