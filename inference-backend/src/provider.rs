//! What models run on: ONNX Runtime's execution providers.

use clap::ValueEnum;
use ort::{
    environment::Environment,
    ep::{CUDA, ExecutionProvider, ExecutionProviderDispatch},
    session::builder::SessionBuilder,
};
use serde::Deserialize;

/// What a model is to run on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum ProviderChoice {
    /// The processor.
    #[default]
    Cpu,
    /// An Nvidia card; without one the model is not served.
    Cuda,
    /// An Nvidia card where there is one that ONNX Runtime can use, else the processor.
    Auto,
}

/// What a model runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// The processor.
    Cpu,
    /// An Nvidia card.
    Cuda,
}

impl Provider {
    /// The label `hardware_type` of metrics.
    #[must_use]
    pub fn hardware(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        }
    }

    /// Puts it into a session that is being built.
    ///
    /// # Errors
    /// When ONNX Runtime cannot use it, for want of a card or a driver.
    pub fn register(self, builder: SessionBuilder) -> ort::Result<SessionBuilder> {
        match self {
            Self::Cpu => Ok(builder),
            Self::Cuda => Ok(builder.with_execution_providers([cuda()])?),
        }
    }
}

impl ProviderChoice {
    /// The provider to use.
    ///
    /// # Errors
    /// When it is to be a card and ONNX Runtime has none to use; the text says why and what to do.
    pub fn resolve(self, environment: &Environment) -> Result<Provider, String> {
        match self {
            Self::Cpu => Ok(Provider::Cpu),
            Self::Cuda => has_cuda(environment).map(|()| Provider::Cuda),
            Self::Auto => Ok(has_cuda(environment).map_or_else(
                |reason| {
                    tracing::info!(reason, "runs on the processor");
                    Provider::Cpu
                },
                |()| Provider::Cuda,
            )),
        }
    }
}

fn cuda() -> ExecutionProviderDispatch {
    CUDA::default().build().error_on_failure()
}

/// Asks the library, and then tries: a library that offers it may find no card.
fn has_cuda(environment: &Environment) -> Result<(), String> {
    let advice = "use the library of onnxruntime-gpu (--ort), or the provider cpu or auto";
    let offered = CUDA::is_available().map_err(|error| error.to_string())?;
    if !offered {
        return Err(format!("this ONNX Runtime was built without CUDA; {advice}"));
    }
    let tried = ort::session::Session::builder(environment)
        .and_then(|builder| Ok(builder.with_execution_providers([cuda()])?));
    tried.map(|_| ()).map_err(|error| format!("ONNX Runtime cannot use CUDA: {error}; {advice}"))
}
