//! A head of three linear layers.

use tch::{Tensor, nn::Path};

use super::Linear;

/// `f = relu(W1 dropout(z))`, `y = W3 relu(W2 f)`: a head whose first hidden vector is an output.
#[derive(Debug)]
pub(crate) struct Mlp3 {
    linear1: Linear, // in -> hidden
    linear2: Linear, // hidden -> hidden
    linear3: Linear, // hidden -> out
    dropout: f64,
}

impl Mlp3 {
    pub(crate) fn new(vs: &Path, in_dim: i64, hidden: i64, out_dim: i64, dropout: f64) -> Self {
        Self {
            linear1: Linear::new(&(vs / "linear1"), in_dim, hidden),
            linear2: Linear::new(&(vs / "linear2"), hidden, hidden),
            linear3: Linear::new(&(vs / "linear3"), hidden, out_dim),
            dropout,
        }
    }

    /// `f [B, hidden]` and `y [B, out]` of `z [B, in]`.
    pub(crate) fn forward(&self, z: &Tensor, train: bool) -> (Tensor, Tensor) {
        let f = self.linear1.forward(&z.dropout(self.dropout, train)).relu();
        let y = self.linear3.forward(&self.linear2.forward(&f).relu());
        (f, y)
    }
}
