//! The models that are served.

use crate::{failure::Failure, model::Model};
use std::{collections::BTreeMap, sync::Arc};

/// The models that are served, by name.
#[derive(Debug, Default)]
pub struct Models {
    /// The versions of each in ascending order; never empty.
    by_name: BTreeMap<String, Vec<Arc<Model>>>,
}

impl Models {
    /// From models in ascending order of their versions.
    #[must_use]
    pub fn new(models: impl IntoIterator<Item = Model>) -> Self {
        let mut by_name: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for model in models {
            by_name.entry(model.name().to_owned()).or_default().push(Arc::new(model));
        }
        Self { by_name }
    }

    /// The given version of a model, or the latest that is served.
    ///
    /// # Errors
    /// When there is none; the error names what there is.
    pub fn find(&self, name: &str, version: Option<&str>) -> Result<&Arc<Model>, Failure> {
        let versions = self.by_name.get(name).ok_or_else(|| {
            let known: Vec<_> = self.by_name.keys().map(|known| format!("{known:?}")).collect();
            Failure::NotFound(format!("unknown model {name:?}; served: {}", known.join(", ")))
        })?;
        let found = match version {
            None => versions.last(),
            Some(version) => versions.iter().find(|model| model.version() == version),
        };
        found.ok_or_else(|| {
            Failure::NotFound(format!(
                "model {name:?} has no version {:?}; served: {}",
                version.unwrap_or_default(),
                self.versions(name).join(", ")
            ))
        })
    }

    /// The versions of a model that are served, ascending.
    #[must_use]
    pub fn versions(&self, name: &str) -> Vec<&str> {
        self.by_name.get(name).into_iter().flatten().map(|model| model.version()).collect()
    }

    /// All of them: `digits:1`, `digits:2`.
    #[must_use]
    pub fn labels(&self) -> Vec<&str> {
        self.by_name.values().flatten().map(|model| model.label()).collect()
    }
}
