//! The log of a whole program: this one, started again with a part to play.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use halftone_telemetry::log::{self, LogArgs, LogFormat};
use std::{
    env,
    process::{self, Command},
    thread,
};

/// Says to the program that was started again what it has to do.
const PART: &str = "HALFTONE_TEST_PART";

/// What the program that plays this part leaves on standard error. The test of this name calls [`play`] first.
fn said(test: &str) -> String {
    let program = env::current_exe().unwrap();
    let output =
        Command::new(program).args(["--exact", test, "--nocapture"]).env(PART, test).output().unwrap();
    String::from_utf8(output.stderr).unwrap()
}

/// Plays the part and ends, when this is the program that was started again.
fn play(test: &str, directives: &str, part: impl FnOnce()) {
    if env::var(PART).is_ok_and(|asked| asked == test) {
        let args = LogArgs { log: directives.to_owned(), log_format: LogFormat::Json };
        let logging = log::init(&args).unwrap();
        part();
        drop(logging);
        process::exit(0);
    }
}

#[test]
fn every_line_is_written_in_order_before_the_program_ends() {
    let test = "every_line_is_written_in_order_before_the_program_ends";
    play(test, "info", || {
        for number in 0..5_000 {
            tracing::info!(target: "halftone", number, "counted");
        }
        log::say("the end");
    });
    let said = said(test);
    let (last, lines) =
        said.lines().collect::<Vec<_>>().split_last().map(|(last, lines)| (*last, lines.to_vec())).unwrap();
    let number =
        |line: &&str| serde_json::from_str::<serde_json::Value>(line).unwrap()["number"].as_u64().unwrap();
    assert_eq!(lines.iter().map(number).collect::<Vec<_>>(), (0..5_000).collect::<Vec<_>>());
    assert_eq!(last, "the end");
}

/// Also when nothing is logged, and the program ends without another word.
#[test]
fn a_panic_is_told_of() {
    let test = "a_panic_is_told_of";
    play(test, "off", || {
        tracing::error!("not logged");
        let _ = thread::Builder::new().name("unlucky".into()).spawn(|| panic!("on purpose")).unwrap().join();
        process::abort();
    });
    let said = said(test);
    assert!(said.contains("thread 'unlucky' panicked at ") && said.contains("on purpose"), "{said}");
    assert!(!said.contains("not logged"), "{said}");
}
