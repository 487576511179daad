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
    affine: Option<(Tensor, Tensor)>, // weight and bias
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
        let affine = (vs.ones("weight", &[dim]), vs.zeros("bias", &[dim]));
        Self { affine: Some(affine), ..Self::without_affine(vs, dim) }
    }

    /// Without a trained scale and shift.
    pub(crate) fn without_affine(vs: &Path, dim: i64) -> Self {
        let mut running_var = vs.zeros_no_train("running_var", &[dim]);
        let _ = running_var.fill_(1.0);
        let running_mean = vs.zeros_no_train("running_mean", &[dim]);
        Self { affine: None, running_mean, running_var }
    }

    /// Normalises `x [B, d]` by its own statistics in training, towards which the running ones move
    /// a tenth (where B >= 2), by the running ones otherwise.
    pub(crate) fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        let (weight, bias) = self.affine.as_ref().map(|(weight, bias)| (weight, bias)).unzip();
        let keep = !train || x.size()[0] > 1; // one sample has no unbiased variance
        let (mean, var) = keep.then_some((&self.running_mean, &self.running_var)).unzip();
        x.batch_norm(weight, bias, mean, var, train, MOMENTUM, EPS, true)
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
        let normal = (x - &stats.mean) * (&stats.var + EPS).rsqrt();
        match &self.affine {
            Some((weight, bias)) => normal * weight + bias,
            None => normal,
        }
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, nn::VarStore};

    use super::*;
    use crate::testing::{assert_close, names, wave};

    #[test]
    fn one_call_and_shared_statistics_normalise_alike_and_keep_the_same() {
        for make in [BatchNorm::new, BatchNorm::without_affine] {
            let stores = [(); 2].map(|()| VarStore::new(Device::Cpu));
            let [one, two] = stores.each_ref().map(|vs| make(&vs.root(), 3));
            for scale in [1.0, 3.0] {
                let x = wave(&[5, 3]) * scale + 1.0;
                let stats = two.stats(&x, true);
                assert_close(&one.forward(&x, true), &two.apply(&x, &stats), 1e-5);
            }
            for name in names(&stores[0]) {
                let [one, two] = stores.each_ref().map(|vs| vs.variables().remove(&name).unwrap());
                assert_close(&one, &two, 1e-6);
            }
            let x = wave(&[2, 3]);
            assert_close(&one.forward(&x, false), &two.apply(&x, &two.stats(&x, false)), 1e-5);
        }
    }

    #[test]
    fn one_sample_moves_no_running_statistics() {
        let vs = VarStore::new(Device::Cpu);
        let norm = BatchNorm::new(&vs.root(), 3);
        let x = wave(&[1, 3]);
        assert_close(&norm.forward(&x, true), &x.zeros_like(), 1e-4);
        assert!(!bool::try_from(vs.variables()["running_mean"].any()).unwrap());
        assert_close(&vs.variables()["running_var"], &Tensor::from_slice(&[1f32; 3]), 0.0);
    }
}
