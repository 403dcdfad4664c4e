//! What a model's folder says about how it is served: `config.json`.

use crate::{checks::ChecksConfig, features::config::FeaturesConfig, provider::ProviderChoice};
use serde::{Deserialize, de::DeserializeOwned};
use std::{
    fmt::Display,
    fs::File,
    io::{self, Read},
    num::NonZeroUsize,
    ops::RangeInclusive,
    path::Path,
};

/// Name of the file.
pub const FILE: &str = "config.json";

/// Larger files are a mistake.
const LARGEST: u64 = 64 << 10;

/// How a model is served; what is left out is as the command line says.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// Which versions are served.
    pub versions: Option<VersionPolicy>,
    /// How requests are run together.
    pub batch: Option<BatchConfig>,
    /// How many requests are run at once.
    pub workers: Option<WorkersConfig>,
    /// What is looked for in its outputs.
    pub checks: ChecksConfig,
    /// As `--provider`.
    pub provider: Option<ProviderChoice>,
    /// Where inputs come from that the client does not send.
    pub features: Option<FeaturesConfig>,
}

/// Which versions of a model are served.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VersionPolicy {
    /// So many of the latest.
    Latest(NonZeroUsize),
    /// These.
    Specific(Vec<String>),
}

impl Default for VersionPolicy {
    fn default() -> Self {
        Self::Latest(NonZeroUsize::MIN)
    }
}

/// How requests are run together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchConfig {
    /// As `--max-batch`. Says too that the first dimension is the batch, whatever it is called.
    pub rows: NonZeroUsize,
    /// As `--batch-delay-us`.
    #[serde(default)]
    pub delay_us: u32,
}

/// How many requests are run at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkersConfig {
    /// As `--min-workers`.
    pub min: NonZeroUsize,
    /// As `--max-workers`.
    pub max: NonZeroUsize,
}

impl ModelConfig {
    /// That of the model in this folder; nothing when it has none.
    ///
    /// # Errors
    /// Where it is wrong, and how.
    pub fn read(folder: &Path) -> Result<Self, String> {
        let config: Self = read(folder, FILE)?.unwrap_or_default();
        if let Some(WorkersConfig { min, max }) = config.workers
            && min > max
        {
            return Err(format!("{FILE}: workers.min is {min}, more than workers.max, which is {max}"));
        }
        Ok(config)
    }
}

/// A JSON file of a folder, if it has it.
///
/// # Errors
/// Where it is wrong, and how.
pub(crate) fn read<T: DeserializeOwned>(folder: &Path, file: &str) -> Result<Option<T>, String> {
    let mut text = String::new();
    match File::open(folder.join(file)).and_then(|file| file.take(LARGEST + 1).read_to_string(&mut text)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("cannot read {file}: {error}")),
        Ok(size) if size as u64 > LARGEST => return Err(format!("{file} is larger than {LARGEST} bytes")),
        Ok(_) => {}
    }
    serde_json::from_str(&text).map(Some).map_err(|e| format!("{file}: {e}"))
}

/// The value, when it is within its bounds.
///
/// # Errors
/// What its bounds are.
pub(crate) fn within<T: PartialOrd + Display>(
    name: &str,
    value: T,
    bounds: RangeInclusive<T>,
) -> Result<T, String> {
    if bounds.contains(&value) {
        return Ok(value);
    }
    Err(format!("{name} is {value}, expected {} to {}", bounds.start(), bounds.end()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn read(text: &str) -> Result<ModelConfig, String> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), text).unwrap();
        ModelConfig::read(folder.path())
    }

    #[test]
    fn says_how_a_model_is_served() {
        let config = read(
            r#"{"versions": {"latest": 2}, "batch": {"rows": 8, "delay_us": 100}, "workers": {"min": 1, "max": 3},
                "provider": "auto"}"#,
        );
        let number = |n| NonZeroUsize::new(n).unwrap();
        assert_eq!(
            config,
            Ok(ModelConfig {
                versions: Some(VersionPolicy::Latest(number(2))),
                batch: Some(BatchConfig { rows: number(8), delay_us: 100 }),
                workers: Some(WorkersConfig { min: number(1), max: number(3) }),
                checks: ChecksConfig::default(),
                provider: Some(ProviderChoice::Auto),
                features: None,
            })
        );
        assert_eq!(
            read(r#"{"versions": {"specific": ["1", "beta"]}}"#).unwrap().versions,
            Some(VersionPolicy::Specific(vec!["1".into(), "beta".into()]))
        );
        assert_eq!(read("{}"), Ok(ModelConfig::default()));
        assert_eq!(ModelConfig::read(tempfile::tempdir().unwrap().path()), Ok(ModelConfig::default()));
    }

    #[test]
    fn says_what_is_wrong_with_it() {
        for (text, problem) in [
            ("", "config.json: EOF while parsing a value at line 1 column 0"),
            (r#"{"version": {}}"#, "config.json: unknown field `version`, expected one of"),
            (r#"{"versions": {"latest": 0}}"#, "config.json: invalid value: integer `0`, expected a nonzero"),
            (
                r#"{"provider": "gpu"}"#,
                "config.json: unknown variant `gpu`, expected one of `cpu`, `cuda`, `auto`",
            ),
            (r#"{"versions": {"newest": 1}}"#, "config.json: unknown variant `newest`, expected `latest` or"),
            (
                r#"{"workers": {"min": 2, "max": 1}}"#,
                "config.json: workers.min is 2, more than workers.max, which",
            ),
        ] {
            let got = read(text).unwrap_err();
            assert!(got.starts_with(problem), "{got}");
        }
        assert_eq!(read(&" ".repeat(70_000)).unwrap_err(), "config.json is larger than 65536 bytes");
    }
}
