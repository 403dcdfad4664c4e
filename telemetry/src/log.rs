//! One set-up of logging for both binaries.

use crate::{
    current,
    log_writer::{self, Lines},
};
use clap::{Args, ValueEnum};
use std::{
    backtrace::{Backtrace, BacktraceStatus},
    fmt, panic,
    str::FromStr,
    thread,
    time::Duration,
};
use tracing::{Event, Subscriber};
use tracing_subscriber::{
    EnvFilter,
    filter::LevelFilter,
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

/// Form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Human-readable.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// The logging flags that both binaries share.
#[derive(Args, Clone, Debug)]
pub struct LogArgs {
    /// What to log: a level, or `target=level` directives separated by commas, or both; of what none is for, `info`. A level is for
    /// Halftone's own lines; what libraries log below `info` is logged where it is asked for by target, as in `debug,h2=debug`.
    #[arg(long, env = "HALFTONE_LOG", default_value = DEFAULT, global = true, value_parser = directives, display_order = 900)]
    pub log: String,
    /// Form of a log line.
    #[arg(
        long,
        env = "HALFTONE_LOG_FORMAT",
        value_enum,
        default_value_t,
        global = true,
        display_order = 900
    )]
    pub log_format: LogFormat,
}

/// The targets of our own lines: those of our crates and, by name, the access log and the circuit breaker.
const OWN: [&str; 3] = ["halftone", "access", "breaker"];

/// What is logged unless something else is asked for.
const DEFAULT: &str = "info";
/// The levels that there are, for whoever wrote something else.
const LEVELS: &str = "off, error, warn, info, debug, trace";

/// Takes directives. A setting that is set to nothing counts as unset.
fn directives(text: &str) -> Result<String, String> {
    let mut all = parts(text).peekable();
    if all.peek().is_none() {
        return Ok(DEFAULT.to_owned());
    }
    all.try_for_each(check)?;
    filter(text).map(|_| text.to_owned())
}

fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

/// Refuses what is no directive, and what the filter would take for the name of a target of which nobody has heard: a word that is
/// neither a level nor says one would silence all logging without a word.
fn check(directive: &str) -> Result<(), String> {
    let level = |text: &str| !text.is_empty() && text.parse::<LevelFilter>().is_ok();
    match directive.rsplit_once('=') {
        None if level(directive) => Ok(()),
        None => Err(format!("`{directive}` is neither a level ({LEVELS}) nor of the form target=level")),
        Some(("", _)) => {
            Err(format!("`{directive}` names no target before `=`; for all of them give a level ({LEVELS})"))
        }
        Some((_, named)) if !level(named) => {
            Err(format!("in `{directive}`, `{named}` is no level ({LEVELS})"))
        }
        Some((target, _)) if is_name(target) && EnvFilter::try_new(directive).is_ok() => Ok(()),
        Some((target, _)) => {
            Err(format!("in `{directive}`, `{target}` is no target (commas separate directives)"))
        }
    }
}

/// Whether a target can be called so, before what may follow of spans in brackets. The filter takes any text for a name.
fn is_name(target: &str) -> bool {
    let name = target.split('[').next().unwrap_or_default();
    name.chars().all(|char| char.is_alphanumeric() || "_:-./".contains(char))
}

/// The filter that directives ask for. Of libraries nobody wants all that they log below `info`, which can be thousands of lines
/// for each of ours: a level alone goes so far for us only.
fn filter(text: &str) -> Result<EnvFilter, String> {
    let level = parts(text).filter_map(|directive| LevelFilter::from_str(directive).ok()).last();
    let all: Vec<String> = match level.filter(|level| *level > LevelFilter::INFO) {
        // Without a level the filter would log nothing but what is named.
        None => {
            level.is_none().then_some(DEFAULT).into_iter().chain(parts(text)).map(str::to_owned).collect()
        }
        Some(level) => {
            let own = OWN.map(|target| format!("{target}={level}"));
            let named = parts(text).filter(|directive| LevelFilter::from_str(directive).is_err());
            // What is named comes last: of one target the last directive counts.
            own.into_iter().chain(["info".to_owned()]).chain(named.map(str::to_owned)).collect()
        }
    };
    EnvFilter::try_new(all.join(",")).map_err(|error| error.to_string())
}

/// How long the last lines may take to be written.
const LAST: Duration = Duration::from_secs(1);
/// The same of what a panic says: the thread goes on, or the whole program ends without another word.
const PANIC: Duration = Duration::from_millis(100);

/// Logging that was started. What waits when it is dropped is written, for a second at most: a reader that hangs keeps no
/// program from ending.
#[derive(Debug)]
#[must_use = "lines that wait are lost when the program ends without its being dropped"]
pub struct Logging(());

impl Drop for Logging {
    fn drop(&mut self) {
        log_writer::flush(LAST);
    }
}

/// Starts logging to standard error, panics included. To be called once, at the start of `main`, which keeps what it gets to its end.
///
/// # Errors
/// When logging was started before.
pub fn init(args: &LogArgs) -> Result<Logging, String> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(&args.log)?)
        .with_writer(Lines)
        // They would be told of on standard error, for which nobody may wait.
        .log_internal_errors(false);
    match args.log_format {
        LogFormat::Text => builder
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .map_event_format(|inner| NamingTrace { inner, form: LogFormat::Text })
            .try_init(),
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .map_event_format(|inner| NamingTrace { inner, form: LogFormat::Json })
            .try_init(),
    }
    .map_err(|e| e.to_string())?;
    panic::set_hook(Box::new(|panic| {
        let thread = thread::current();
        say(format_args!("thread '{}' {panic}", thread.name().unwrap_or("<unnamed>")));
        // Where RUST_BACKTRACE asks for one.
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            say(backtrace);
        }
        log_writer::flush(PANIC);
    }));
    Ok(Logging(()))
}

/// Says something on standard error that is no event, whatever is logged: why the program ends. It comes after all that was logged
/// before.
pub fn say(words: impl fmt::Display) {
    log_writer::write(format!("{words}\n").as_bytes());
}

/// Lines that are logged for a request name the trace that it belongs to.
struct NamingTrace<F> {
    inner: F,
    form: LogFormat,
}

impl<S, N, F> FormatEvent<S, N> for NamingTrace<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Some(trace) = current::trace_id() else {
            return self.inner.format_event(context, writer, event);
        };
        let mut line = String::new();
        self.inner.format_event(context, Writer::new(&mut line), event)?;
        let line = line.trim_end();
        match (self.form, line.strip_suffix('}')) {
            (LogFormat::Json, Some(open)) => writeln!(writer, "{open},\"trace_id\":\"{trace}\"}}"),
            _ => writeln!(writer, "{line} trace_id={trace}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::current::Current;
    use opentelemetry::TraceId;
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Whether such lines are logged: of ours, of a library, at `info`, `debug` and `trace` each; and of the access log.
    fn logged(directives: &str) -> [[bool; 3]; 3] {
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter(directives).unwrap())
            .with_writer(io::sink)
            .finish();
        macro_rules! enabled {
            ($target:literal) => {
                [
                    tracing::enabled!(target: $target, tracing::Level::INFO),
                    tracing::enabled!(target: $target, tracing::Level::DEBUG),
                    tracing::enabled!(target: $target, tracing::Level::TRACE),
                ]
            };
        }
        tracing::subscriber::with_default(subscriber, || {
            [enabled!("halftone_control_plane::xds"), enabled!("hyper::proto"), enabled!("access")]
        })
    }

    #[test]
    fn a_level_below_info_is_for_our_own_lines() {
        let (off, info, debug, trace) = ([false; 3], [true, false, false], [true, true, false], [true; 3]);
        for (directives, ours, libraries, access) in [
            ("info", info, info, info),
            ("off", off, off, off),
            ("warn,access=info", off, off, info),
            ("debug", debug, info, debug),
            ("trace", trace, info, trace),
            ("info, debug", debug, info, debug),
            ("debug,info", info, info, info),
            ("access=off,trace", trace, info, off),
            ("debug,hyper=trace", debug, trace, debug),
            ("hyper=debug,trace,halftone=warn", off, debug, trace),
            ("hyper=debug", info, debug, info),
            ("access=off", info, info, off),
            ("off,hyper=debug", off, debug, off),
            ("hyper::proto=debug,halftone-x.y/z=trace", info, debug, info),
            ("[span{text=\"a b\"}]=trace", info, info, info),
        ] {
            assert_eq!(logged(directives), [ours, libraries, access], "{directives}");
        }
    }

    #[test]
    fn set_to_nothing_it_logs_as_always() {
        for nothing in ["", " ", ","] {
            assert_eq!(directives(nothing).as_deref(), Ok(DEFAULT), "{nothing:?}");
        }
        assert_eq!(directives("info, access=off,").map(|text| logged(&text)[2]), Ok([false; 3]));
    }

    #[test]
    fn what_is_no_directive_is_refused_in_words() {
        for (wrong, said) in [
            (
                "wibble",
                "`wibble` is neither a level (off, error, warn, info, debug, trace) nor of the form target=level",
            ),
            ("info,wibble", "`wibble` is neither"),
            ("=info", "`=info` names no target before `=`; for all of them give a level (off, error, "),
            ("info,foo=bar", "in `foo=bar`, `bar` is no level (off, error, "),
            ("foo=", "in `foo=`, `` is no level (off, "),
            ("info,=x=", "in `=x=`, `` is no level"),
            ("warn,a=b=info", "in `a=b=info`, `a=b` is no target"),
            ("a[=info", "in `a[=info`, `a[` is no target"),
            ("info access=off", "in `info access=off`, `info access` is no target (commas separate "),
            ("info;access=off", "in `info;access=off`, `info;access` is no target (commas separate "),
            ("warn,info|access=off", "in `info|access=off`, `info|access` is no target"),
        ] {
            let error = directives(wrong).unwrap_err();
            assert!(error.starts_with(said), "{wrong}: {error}");
        }
    }

    #[test]
    fn lines_within_a_trace_name_it() {
        let (json, text) = (Written::default(), Written::default());
        let writer = json.clone();
        let as_json = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .json()
            .flatten_event(true)
            .map_event_format(|inner| NamingTrace { inner, form: LogFormat::Json })
            .finish();
        let writer = text.clone();
        let as_text = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .map_event_format(|inner| NamingTrace { inner, form: LogFormat::Text })
            .finish();
        let say = || {
            tracing::info!(n = 1, "outside");
            Current::named(TraceId::from(5)).enter(|| tracing::info!(n = 2, "inside {{}}"));
        };
        tracing::subscriber::with_default(as_json, say);
        tracing::subscriber::with_default(as_text, say);
        let lines = |written: &Written| String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let id = format!("{:032x}", 5);
        let json: Vec<serde_json::Value> =
            lines(&json).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((json[0].get("trace_id"), json[0]["n"].as_u64()), (None, Some(1)));
        assert_eq!((json[1]["trace_id"].as_str(), json[1]["n"].as_u64()), (Some(id.as_str()), Some(2)));
        assert_eq!(json[1]["message"], "inside {}");
        let text = lines(&text);
        let [outside, inside] = text.lines().collect::<Vec<_>>().try_into().unwrap();
        assert!(
            outside.ends_with("outside n=1") && inside.ends_with(&format!("n=2 trace_id={id}")),
            "{text}"
        );
    }
}
