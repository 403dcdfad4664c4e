//! ONNX Runtime itself, without a server around it.

use anyhow::Result;
use ort::{
    memory::MemoryInfo,
    session::{IoBinding, Session},
    value::Tensor,
};
use std::path::Path;

/// A model of images in a session as the server makes it.
pub(super) struct Raw {
    session: Session,
    binding: IoBinding,
    image: Tensor<f32>,
}

impl Raw {
    /// Loads the library, which a process can do once, and the model.
    pub(super) fn open(library: &Path, model: &Path, image: &[u8]) -> Result<Self> {
        let environment = ort::init_from(library)?.with_telemetry(false).build()?;
        let open = || -> ort::Result<Session> {
            Session::builder(&environment)?
                .with_intra_threads(1)?
                .with_memory_pattern(false)?
                .commit_from_file(model)
        };
        let session = open()?;
        let pixels: Vec<f32> =
            image.chunks_exact(4).filter_map(|four| four.try_into().ok()).map(f32::from_le_bytes).collect();
        let image = Tensor::from_array(([1_usize, 3, 224, 224], pixels))?;
        let mut binding = session.create_binding()?;
        binding.bind_input("image", &image)?;
        binding.bind_output_to_device("logits", &MemoryInfo::default())?;
        Ok(Self { session, binding, image })
    }

    pub(super) fn run(&mut self) -> Result<()> {
        self.session.run(ort::inputs!["image" => &self.image])?;
        Ok(())
    }

    pub(super) fn run_bound(&mut self) -> Result<()> {
        self.session.run_binding(&self.binding)?;
        Ok(())
    }
}
