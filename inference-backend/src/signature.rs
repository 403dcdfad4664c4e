//! What a model takes and gives.

use crate::datatype::Datatype;
use ort::{
    session::Session,
    value::{Outlet, ValueType},
};
use serde::Serialize;

/// What a model takes and gives, in the model's order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Signature {
    /// What a request must bring, all of it.
    pub inputs: Vec<TensorSpec>,
    /// What a response can have.
    pub outputs: Vec<TensorSpec>,
}

/// Name and type of a tensor; serialised as in the protocol's model metadata.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TensorSpec {
    /// Name in the model.
    pub name: String,
    /// Type of the elements.
    pub datatype: Datatype,
    /// Size of each dimension; -1 where the request decides.
    pub shape: Vec<i64>,
    /// Name of each dimension, empty where it has none. What has the same name must have the same size.
    #[serde(skip)]
    pub symbols: Vec<String>,
}

impl Signature {
    /// The signature of a loaded model.
    ///
    /// # Errors
    /// When the model takes or gives something that has no form in the protocol's JSON.
    pub fn of(session: &Session) -> anyhow::Result<Self> {
        let specs = |outlets: &[Outlet]| outlets.iter().map(TensorSpec::of).collect::<Result<_, _>>();
        Ok(Self { inputs: specs(session.inputs())?, outputs: specs(session.outputs())? })
    }

    /// Whether the first dimension of every tensor is the batch: it can vary, and, unless that was `declared`, is
    /// called `N` or something that begins with `batch`, the same everywhere. A dimension that merely can vary may be
    /// anything. BYTES are not batched.
    #[must_use]
    pub fn is_batch(&self, declared: bool) -> bool {
        let Some(symbol) = self.inputs.first().and_then(|spec| spec.symbols.first()) else { return false };
        let is_called_so = symbol == "N" || symbol.to_ascii_lowercase().starts_with("batch");
        (declared || is_called_so)
            && self.inputs.iter().chain(&self.outputs).all(|spec| {
                spec.datatype != Datatype::String
                    && spec.shape.first() == Some(&-1)
                    && (declared || spec.symbols.first() == Some(symbol))
            })
    }
}

impl TensorSpec {
    fn of(outlet: &Outlet) -> anyhow::Result<Self> {
        let name = outlet.name();
        let ValueType::Tensor { ty, shape, dimension_symbols } = outlet.dtype() else {
            anyhow::bail!("{name:?} is a {}; only tensors are served", outlet.dtype());
        };
        let Some(datatype) = Datatype::from_ort(*ty) else {
            anyhow::bail!("{name:?} holds elements of type {ty}, which are not served");
        };
        Ok(Self {
            name: name.to_owned(),
            datatype,
            shape: shape.to_vec(),
            symbols: dimension_symbols.to_vec(),
        })
    }

    /// Whether a tensor of this shape can be given for this one; if so, the shape as sizes.
    #[must_use]
    pub fn accepts(&self, shape: &[i64]) -> Option<Vec<usize>> {
        let fits = |(&dimension, &size): (&i64, &i64)| dimension < 0 || dimension == size;
        if shape.len() != self.shape.len() || !self.shape.iter().zip(shape).all(fits) {
            return None;
        }
        shape.iter().map(|&size| usize::try_from(size).ok()).collect()
    }
}

/// Whether there can be a tensor of this shape: beyond `isize::MAX` bytes there is none, and a product that overflows
/// would pass for a small one.
pub(crate) fn is_tensor(shape: &[usize]) -> bool {
    let elements = shape.iter().try_fold(1_usize, |product, &size| product.checked_mul(size));
    elements.is_some_and(|elements| elements <= isize::MAX as usize / size_of::<u64>())
}

/// The names, for an error: `"a", "b"`.
pub(crate) fn names(specs: &[TensorSpec]) -> String {
    let quoted: Vec<String> = specs.iter().map(|spec| format!("{:?}", spec.name)).collect();
    quoted.join(", ")
}
