//! Layer and batch normalisation.

use tch::{Kind, Tensor, nn::Path};

const EPS: f64 = 1e-5; // PyTorch's default for both
const MOMENTUM: f64 = 0.1; // share of a new batch in the running statistics, PyTorch's default

/// `torch.nn.LayerNorm` over the last axis.
#[derive(Debug)]
pub(crate) struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    pub(crate) fn new(vs: &Path, dim: i64) -> Self {
        Self::with_eps(vs, dim, EPS)
    }

    pub(crate) fn with_eps(vs: &Path, dim: i64, eps: f64) -> Self {
        Self { weight: vs.ones("weight", &[dim]), bias: vs.zeros("bias", &[dim]), eps }
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        x.layer_norm(self.weight.size(), Some(&self.weight), Some(&self.bias), self.eps, false)
    }

    /// What the normalised is multiplied by, `[d]`.
    pub(crate) fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// What is added then, `[d]`.
    pub(crate) fn bias(&self) -> &Tensor {
        &self.bias
    }
}

/// `torch.nn.BatchNorm1d` on `[B, d]`, whose statistics another pass can share.
#[derive(Debug)]
pub(crate) struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
}

/// Mean and biased variance that a batch was normalised with, `[d]` each.
#[derive(Debug)]
pub(crate) struct BatchStats {
    mean: Tensor,
    var: Tensor,
}

impl BatchNorm {
    pub(crate) fn new(vs: &Path, dim: i64) -> Self {
        let mut running_var = vs.zeros_no_train("running_var", &[dim]);
        let _ = running_var.fill_(1.0);
        Self {
            weight: vs.ones("weight", &[dim]),
            bias: vs.zeros("bias", &[dim]),
            running_mean: vs.zeros_no_train("running_mean", &[dim]),
            running_var,
        }
    }

    /// Statistics for normalising `x [B, d]`: of the batch in training (B >= 2; the running ones
    /// move a tenth towards them), the running ones otherwise.
    pub(crate) fn stats(&self, x: &Tensor, train: bool) -> BatchStats {
        if !train {
            let (mean, var) = (self.running_mean.shallow_clone(), self.running_var.shallow_clone());
            return BatchStats { mean, var };
        }
        let mean = x.mean_dim([0i64].as_slice(), false, Kind::Float);
        let var = (x - &mean).square().mean_dim([0i64].as_slice(), false, Kind::Float);
        let _guard = tch::no_grad_guard();
        let n = x.size()[0] as f64;
        let unbiased = var.detach() * (n / (n - 1.0).max(1.0));
        // `lerp_` works in place: the buffers stay the ones that the checkpoint names.
        let _ = self.running_mean.shallow_clone().lerp_(&mean.detach(), MOMENTUM);
        let _ = self.running_var.shallow_clone().lerp_(&unbiased, MOMENTUM);
        BatchStats { mean, var }
    }

    /// Normalises `x [B, d]` by `stats`.
    pub(crate) fn apply(&self, x: &Tensor, stats: &BatchStats) -> Tensor {
        (x - &stats.mean) * (&stats.var + EPS).rsqrt() * &self.weight + &self.bias
    }
}
