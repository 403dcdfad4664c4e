//! One set-up of logging for both binaries.

use crate::current;
use clap::{Args, ValueEnum};
use std::fmt;
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
    /// What to log: a level, or `target=level` directives separated by commas.
    #[arg(long, env = "HALFTONE_LOG", default_value = "info", global = true, value_parser = directives, display_order = 900)]
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

/// Refuses what the filter would take for the name of a target of which nobody has heard: a word that is neither a
/// level nor says one would silence all logging without a word.
fn directives(text: &str) -> Result<String, String> {
    let named = |directive: &&str| directive.contains(['=', '[']) || directive.parse::<LevelFilter>().is_ok();
    if let Some(unknown) = text.split(',').map(str::trim).find(|directive| !named(directive)) {
        let levels = "off, error, warn, info, debug, trace";
        return Err(format!("`{unknown}` is neither a level ({levels}) nor of the form target=level"));
    }
    EnvFilter::try_new(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// Starts logging to standard error. To be called once, at the start of `main`.
///
/// # Errors
/// When logging was started before.
pub fn init(args: &LogArgs) -> Result<(), String> {
    let filter = EnvFilter::try_new(&args.log).map_err(|e| e.to_string())?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // Told of on standard error, which just failed: that would end the program.
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
    .map_err(|e| e.to_string())
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
