//! The models that are served.

use crate::{failure::Failure, model::Model};
use arc_swap::ArcSwap;
use std::{collections::BTreeMap, sync::Arc};

/// The versions of each model that are served, in ascending order; never empty.
pub type ByName = BTreeMap<String, Vec<Arc<Model>>>;

/// The models that are served. Who found one keeps it, whatever replaces it.
#[derive(Debug, Default)]
pub struct Models {
    by_name: ArcSwap<ByName>,
}

impl Models {
    /// From models in ascending order of their versions.
    #[must_use]
    pub fn new(models: impl IntoIterator<Item = Arc<Model>>) -> Self {
        let served = Self::default();
        served.replace(models);
        served
    }

    /// From now on serves these, in ascending order of their versions, and no others.
    pub fn replace(&self, models: impl IntoIterator<Item = Arc<Model>>) {
        let mut by_name = ByName::new();
        for model in models {
            by_name.entry(model.name().to_owned()).or_default().push(model);
        }
        self.by_name.store(Arc::new(by_name));
    }

    /// The given version of a model, or the latest that is served.
    ///
    /// # Errors
    /// When there is none; the error names what there is.
    pub fn find(&self, name: &str, version: Option<&str>) -> Result<Arc<Model>, Failure> {
        let by_name = self.by_name.load();
        let versions = by_name.get(name).ok_or_else(|| {
            let known: Vec<_> = by_name.keys().map(|known| format!("{known:?}")).collect();
            Failure::NotFound(format!("unknown model {name:?}; served: {}", known.join(", ")))
        })?;
        let found = match version {
            None => versions.last(),
            Some(version) => versions.iter().find(|model| model.version() == version),
        };
        found.cloned().ok_or_else(|| {
            let known: Vec<_> = versions.iter().map(|model| model.version()).collect();
            Failure::NotFound(format!(
                "model {name:?} has no version {:?}; served: {}",
                version.unwrap_or_default(),
                known.join(", ")
            ))
        })
    }

    /// The versions of a model that are served, ascending.
    #[must_use]
    pub fn versions(&self, name: &str) -> Vec<String> {
        let by_name = self.by_name.load();
        by_name.get(name).into_iter().flatten().map(|model| model.version().to_owned()).collect()
    }

    /// All of them: `digits:1`, `digits:2`.
    #[must_use]
    pub fn labels(&self) -> Vec<String> {
        self.by_name.load().values().flatten().map(|model| model.label().to_owned()).collect()
    }

    /// All of them, in ascending order of their versions.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Model>> {
        self.by_name.load().values().flatten().cloned().collect()
    }
}
