//! The log of a whole program: this one, started again with a part to play.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use halftone_telemetry::{
    log::{self, LogArgs, LogFormat},
    metrics::ModelMetrics,
};
use serde_json::Value;
use std::{
    env,
    fs::{self, OpenOptions},
    io::Read,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::PathBuf,
    process::{self, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How long something may take. Generous: the machine may be busy with something else.
const PATIENCE: Duration = Duration::from_secs(30);

/// Says to the program that was started again what it has to do.
const PART: &str = "HALFTONE_TEST_PART";

/// What the program that plays this part leaves on standard error. The test of this name calls [`play`] first.
fn said(test: &str) -> String {
    let output = again(Command::new(env::current_exe().unwrap()), test).output().unwrap();
    String::from_utf8(output.stderr).unwrap()
}

/// Has a command start this program again, to play this part.
fn again(mut program: Command, test: &str) -> Command {
    program.args(["--exact", test, "--nocapture"]).env(PART, test).stdout(Stdio::null());
    program
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
    let number = |line: &&str| serde_json::from_str::<Value>(line).unwrap()["number"].as_u64().unwrap();
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

/// What lines say of a number, of those that say one.
fn numbers(text: &str) -> Vec<u64> {
    let number = |line: &str| serde_json::from_str::<Value>(line).unwrap()["number"].as_u64();
    text.lines().filter_map(number).collect()
}

/// Somebody else who has the same standard error may have set it so.
#[test]
fn a_reader_that_is_slow_gets_every_line_also_where_writing_does_not_wait() {
    let test = "a_reader_that_is_slow_gets_every_line_also_where_writing_does_not_wait";
    play(test, "info", || {
        for number in 0..5_000 {
            tracing::info!(target: "halftone", number, "counted");
        }
    });
    let (writer, mut reader) = UnixStream::pair().unwrap();
    writer.set_nonblocking(true).unwrap();
    // Of the end that is written only the program keeps a copy.
    let mut program = {
        let mut program = again(Command::new(env::current_exe().unwrap()), test);
        program.stderr(OwnedFd::from(writer)).spawn().unwrap()
    };
    // More than there is room for on the way.
    thread::sleep(Duration::from_millis(200));
    let mut said = String::new();
    reader.read_to_string(&mut said).unwrap();
    assert!(program.wait().unwrap().success());
    assert_eq!(numbers(&said), (0..5_000).collect::<Vec<_>>());
}

/// As with a disk that is full for a while: what is missing is told of, and no line is glued to half of another one.
#[test]
fn lines_that_cannot_be_written_are_counted_and_told_of() {
    let test = "lines_that_cannot_be_written_are_counted_and_told_of";
    const FILE: &str = "HALFTONE_TEST_FILE";
    const LINES: u64 = 1_000;
    play(test, "info", || {
        let file = PathBuf::from(env::var_os(FILE).unwrap());
        let unwritten = || {
            let metrics = ModelMetrics::default().render();
            let series = "halftone_log_lines_dropped_total{lines=\"unwritten\"} ";
            metrics.lines().find_map(|line| line.strip_prefix(series)?.parse::<u64>().ok()).unwrap()
        };
        let whole = || fs::read(&file).unwrap().iter().filter(|byte| **byte == b'\n').count() as u64;
        let until = |is_so: &dyn Fn() -> bool| {
            let begun = Instant::now();
            while !is_so() && begun.elapsed() < PATIENCE {
                thread::sleep(Duration::from_millis(1));
            }
        };
        for number in 0..LINES {
            tracing::info!(target: "halftone", number, "written or not");
        }
        until(&|| whole() + unwritten() >= LINES);
        // Room again, as after a rotation.
        fs::write(format!("{}.full", file.display()), fs::read(&file).unwrap()).unwrap();
        OpenOptions::new().write(true).open(&file).unwrap().set_len(0).unwrap();
        tracing::info!(target: "halftone", number = LINES, "written");
        until(&|| fs::read_to_string(&file).unwrap().contains("unwritten"));
    });
    let folder = env::temp_dir().join(format!("halftone-log-{}", process::id()));
    fs::create_dir(&folder).unwrap();
    let file = folder.join("log");
    // A file may have a few kilobytes, and who writes more gets an error.
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 8; exec \"$0\" \"$@\""]).arg(env::current_exe().unwrap());
    let log = OpenOptions::new().create(true).append(true).open(&file).unwrap();
    let ended = again(limited, test).env(FILE, &file).stderr(log).status().unwrap();
    let [full, later] = ["log.full", "log"].map(|name| fs::read_to_string(folder.join(name)).unwrap());
    fs::remove_dir_all(&folder).unwrap();
    assert!(ended.success(), "{full}{later}");
    let (whole, half) = full.rsplit_once('\n').unwrap();
    let written = numbers(whole).len() as u64;
    assert_eq!(numbers(whole), (0..written).collect::<Vec<_>>());
    assert!(!half.is_empty(), "a file of kilobytes has an end within a line");
    let (end, later) = later.split_once('\n').unwrap();
    assert_eq!((end, numbers(later)), ("", vec![LINES]), "behind the end of the half one");
    let told = format!("\"lines\":\"unwritten\",\"dropped\":{}", LINES - written);
    assert!(later.contains(&told), "{later}");
}
