//! Settings from a file: what stands in it takes the place of the flags' defaults, so the environment and the command
//! line count more, and every value is checked by the same rules.

use crate::cli::Args;
use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches};
use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};
use toml::de::{DeTable, DeValue};

/// Flags that a file cannot set.
const NOT_IN_A_FILE: [&str; 4] = ["config", "check-config", "help", "version"];

/// Why there are no settings.
#[derive(Debug)]
pub enum Error {
    /// The command line or the environment is wrong, or asks for no more than help.
    CommandLine(clap::Error),
    /// The file is wrong; the text says where.
    File(String),
}

impl Error {
    /// Says so to the user; gives the status to end with.
    #[must_use]
    pub fn tell(&self) -> ExitCode {
        match self {
            Self::CommandLine(error) => {
                // Nobody is left to tell when that fails.
                let _ = error.print();
                u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
            }
            Self::File(problem) => {
                eprintln!("halftone-inference: {problem}");
                ExitCode::FAILURE
            }
        }
    }
}

impl From<clap::Error> for Error {
    fn from(error: clap::Error) -> Self {
        Self::CommandLine(error)
    }
}

/// Reads the command line, the environment, and the file that they name.
///
/// # Errors
/// What is wrong, and where.
pub fn parse(command: Command, line: impl IntoIterator<Item = OsString>) -> Result<Args, Error> {
    let line: Vec<OsString> = line.into_iter().collect();
    let command = match file(&command, &line)? {
        Some(path) => defaults_from(command, &path).map_err(Error::File)?,
        None => command,
    };
    let matches: ArgMatches = command.try_get_matches_from(line)?;
    Ok(Args::from_arg_matches(&matches)?)
}

/// The file that the command line or the environment names. Whatever else is wrong is told later.
fn file(command: &Command, line: &[OsString]) -> Result<Option<PathBuf>, Error> {
    let matches = command.clone().ignore_errors(true).try_get_matches_from(line)?;
    let path = matches.get_one::<PathBuf>("config").filter(|path| !path.as_os_str().is_empty());
    Ok(path.cloned())
}

fn defaults_from(mut command: Command, path: &Path) -> Result<Command, String> {
    let name = path.display();
    let text = fs::read_to_string(path).map_err(|error| format!("cannot read {name}: {error}"))?;
    let table = DeTable::parse(&text).map_err(|error| {
        let line = error.span().map_or(0, |span| line(&text, span.start));
        format!("{name}:{line}: {}", error.message())
    })?;
    for (key, value) in table.get_ref() {
        let place = format!("{name}:{}: {}", line(&text, key.span().start), key.get_ref());
        let wrong = |problem: String| format!("{place}: {problem}");
        let flag = flag(&command, key.get_ref()).map_err(wrong)?;
        let values = values(&flag, value.get_ref()).map_err(wrong)?;
        check(&command, &flag, &values).map_err(wrong)?;
        let id = flag.get_id().clone();
        // The command keeps them to the end of the process.
        let values = values.into_iter().map(|value| &*Box::leak(value.into_boxed_str()));
        command = command.mut_arg(id, |arg| arg.default_values(values));
    }
    Ok(command)
}

/// The line, counted from 1.
fn line(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|&&byte| byte == b'\n').count() + 1
}

fn flag(command: &Command, key: &str) -> Result<Arg, String> {
    let settable =
        || command.get_arguments().filter_map(Arg::get_long).filter(|l| !NOT_IN_A_FILE.contains(l));
    if NOT_IN_A_FILE.contains(&key) {
        return Err("this cannot stand in a file".into());
    }
    let found = command.get_arguments().find(|arg| arg.get_long() == Some(key));
    found.cloned().ok_or_else(|| {
        let known: Vec<_> = settable().collect();
        format!("unknown setting; there are {}", known.join(", "))
    })
}

/// The values as they would stand on the command line.
fn values(flag: &Arg, value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let takes_list = matches!(flag.get_action(), ArgAction::Append);
    let switch = matches!(flag.get_action(), ArgAction::SetTrue);
    let one = |value: &DeValue<'_>| match value {
        DeValue::String(text) if !switch => Ok(text.to_string()),
        DeValue::Integer(number) if !switch => {
            let (digits, radix) = (number.as_str(), number.radix());
            let number = i128::from_str_radix(digits, radix).map_err(|error| error.to_string())?;
            Ok(number.to_string())
        }
        DeValue::Boolean(on) if switch => Ok(on.to_string()),
        other if switch => {
            Err(format!("true or false is expected, not a value of type {}", other.type_str()))
        }
        other => Err(format!("text or an integer is expected, not a value of type {}", other.type_str())),
    };
    match value {
        DeValue::Array(list) if takes_list => list.iter().map(|value| one(value.get_ref())).collect(),
        value => Ok(vec![one(value)?]),
    }
}

/// Asks the flag whether it would take the values.
fn check(command: &Command, flag: &Arg, values: &[String]) -> Result<(), String> {
    if matches!(flag.get_action(), ArgAction::SetTrue) {
        return Ok(());
    }
    let long = flag.get_long().unwrap_or_default();
    let line = std::iter::once("file".to_owned()).chain(values.iter().map(|v| format!("--{long}={v}")));
    // What the environment says is not the file's fault.
    let alone = command.clone().mut_args(|arg| arg.env(None::<&str>));
    let matches = alone.try_get_matches_from(line);
    let problem = matches.err().map(|error| {
        let text = error.to_string();
        text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
    });
    problem.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn settings(file: &str, line: &[&str]) -> Result<Args, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.toml");
        fs::write(&path, file).unwrap();
        let config = OsString::from("--config");
        let line = ["x".into(), config, path.clone().into()].into_iter().chain(line.iter().map(Into::into));
        parse(Args::command(), line).map_err(|error| match error {
            Error::CommandLine(error) => error.to_string(),
            Error::File(problem) => problem.replace(&path.display().to_string(), "s.toml"),
        })
    }

    #[test]
    fn the_file_replaces_defaults_and_the_command_line_the_file() {
        let file = "queue = 7\nserve = [\"a:1\", \"b\"]\nmodel-control = true\nlisten = \"127.0.0.1:9\"\n\
                    max-body = 0x10_00\n";
        let args = settings(file, &["--listen", "127.0.0.1:5"]).unwrap();
        assert_eq!((args.queue, args.max_body, args.model_control), (7, 4096, true));
        assert_eq!(args.serve.len(), 2);
        assert_eq!(args.listen.to_string(), "127.0.0.1:5");
        assert_eq!(args.poll_ms, 1000, "what is said nowhere is as it always is");
        let args = settings("serve = \"a\"\nqueue = \"8\"", &["--serve", "b,c"]).unwrap();
        assert_eq!(
            (args.serve.len(), args.queue),
            (2, 8),
            "a list on the command line replaces that of the file"
        );
    }

    #[test]
    fn says_what_is_wrong_and_where() {
        for (file, problem) in [
            ("queue = 1\nqueu = 2", "s.toml:2: queu: unknown setting; there are models, serve, "),
            ("\nqueue = \"many\"", "s.toml:2: queue: invalid value 'many' for '--queue <N>': invalid digit"),
            ("poll-ms = 3600001", "s.toml:1: poll-ms: invalid value '3600001' for '--poll-ms"),
            ("queue = -1", "s.toml:1: queue: invalid value '-1' for '--queue <N>'"),
            ("queue = 1.5", "s.toml:1: queue: text or an integer is expected, not a value of type float"),
            ("queue = [1]", "s.toml:1: queue: text or an integer is expected, not a value of type array"),
            (
                "model-control = \"yes\"",
                "s.toml:1: model-control: true or false is expected, not a value of type",
            ),
            ("config = \"x\"", "s.toml:1: config: this cannot stand in a file"),
            (
                "otlp-endpoint = \"localhost:4317\"",
                "s.toml:1: otlp-endpoint: invalid value for '--otlp-endpoint <URL>': http:// is missing; give \
                 http://localhost:4317",
            ),
            ("otlp-protocol = \"http\"", "s.toml:1: otlp-protocol: invalid value 'http' for"),
            ("max_body = 1", "s.toml:1: max_body: unknown setting"),
            ("queue = 1\nqueue = 2", "s.toml:2: duplicate key"),
            ("queue", "s.toml:1: "),
        ] {
            let got = settings(file, &[]).unwrap_err();
            assert!(got.starts_with(problem), "{file:?}: {got}");
        }
        let nowhere = parse(Args::command(), ["x", "--config", "/nowhere"].map(Into::into)).unwrap_err();
        assert!(matches!(nowhere, Error::File(problem) if problem.starts_with("cannot read /nowhere: ")));
    }

    #[test]
    fn without_a_file_nothing_changes() {
        let args = parse(Args::command(), ["x", "--queue", "3"].map(Into::into)).unwrap();
        assert_eq!(args.queue, 3);
        let wrong = parse(Args::command(), ["x", "--queue", "x"].map(Into::into)).unwrap_err();
        assert!(matches!(wrong, Error::CommandLine(_)));
        let help = parse(Args::command(), ["x", "--help"].map(Into::into)).unwrap_err();
        assert!(matches!(help, Error::CommandLine(error) if error.exit_code() == 0));
    }
}
