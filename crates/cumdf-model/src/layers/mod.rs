//! Layers with PyTorch's default initialisation, which tch's own constructors do not have
//! (their weights are 2.45 times larger).

mod attention;
mod frames;
mod mlp;
mod norm;
mod position;
mod recurrence;
mod recurrent;
mod text_cnn;

pub(crate) use attention::{TransformerLayer, attention, join_heads, split_heads};
pub(crate) use mlp::Mlp3;
pub(crate) use norm::{BatchNorm, BatchStats, LayerNorm};
pub(crate) use position::sinusoid;
pub(crate) use recurrent::{BiRnn, Lstm, LstmEncoder, Turn, last_step, lstm_step, max_over_steps};
pub(crate) use text_cnn::TextCnn;

use tch::{
    Kind, Tensor,
    nn::{Init, Path},
};

/// `y = x W^T + b`, the bias optional; both uniform in +-1/sqrt(fan_in) as `torch.nn.Linear`.
#[derive(Debug)]
pub(crate) struct Linear {
    weight: Tensor,       // [out, in]
    bias: Option<Tensor>, // [out]
}

impl Linear {
    pub(crate) fn new(vs: &Path, in_dim: i64, out_dim: i64) -> Self {
        let init = fan_in_uniform(in_dim);
        Self {
            weight: vs.var("weight", &[out_dim, in_dim], init),
            bias: Some(vs.var("bias", &[out_dim], init)),
        }
    }

    pub(crate) fn without_bias(vs: &Path, in_dim: i64, out_dim: i64) -> Self {
        let weight = vs.var("weight", &[out_dim, in_dim], fan_in_uniform(in_dim));
        Self { weight, bias: None }
    }

    /// With a Kaiming-normal weight and a zero bias.
    pub(crate) fn kaiming_normal(vs: &Path, in_dim: i64, out_dim: i64) -> Self {
        Self {
            weight: vs.var("weight", &[out_dim, in_dim], kaiming_normal(in_dim)),
            bias: Some(vs.zeros("bias", &[out_dim])),
        }
    }

    /// With a Xavier-uniform weight and a zero bias.
    pub(crate) fn xavier(vs: &Path, in_dim: i64, out_dim: i64) -> Self {
        let bound = (6.0 / (in_dim + out_dim) as f64).sqrt();
        let init = Init::Uniform { lo: -bound, up: bound };
        Self {
            weight: vs.var("weight", &[out_dim, in_dim], init),
            bias: Some(vs.zeros("bias", &[out_dim])),
        }
    }

    /// `[.., in]` to `[.., out]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        x.linear(&self.weight, self.bias.as_ref())
    }

    /// The same for samples that are columns, `[in, N]` to `[out, N]`.
    pub(crate) fn on_columns(&self, x: &Tensor) -> Tensor {
        match &self.bias {
            Some(bias) => bias.unsqueeze(1).addmm(&self.weight, x),
            None => self.weight.mm(x),
        }
    }

    /// The matrix `[out, in]`.
    pub(crate) fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// The vector `[out]` of a layer that has one.
    pub(crate) fn bias(&self) -> &Tensor {
        self.bias.as_ref().expect("the layer was made with a bias")
    }
}

/// A convolution over time that keeps the number of steps, initialised as `torch.nn.Conv1d`.
#[derive(Debug)]
pub(crate) struct Conv1d {
    weight: Tensor, // [out, in, k]
    bias: Tensor,   // [out]
}

impl Conv1d {
    pub(crate) fn new(vs: &Path, in_dim: i64, out_dim: i64, kernel_size: i64) -> Self {
        let init = fan_in_uniform(in_dim * kernel_size);
        Self {
            weight: vs.var("weight", &[out_dim, in_dim, kernel_size], init),
            bias: vs.var("bias", &[out_dim], init),
        }
    }

    /// `[B, T, in]` to `[B, T, out]`, zeros beyond both ends.
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        let kernel_size = self.weight.size()[2];
        if kernel_size == 1 {
            return x.linear(&self.weight.squeeze_dim(2), Some(&self.bias));
        }
        let pad = (kernel_size - 1) / 2;
        x.transpose(1, 2).conv1d(&self.weight, Some(&self.bias), 1, pad, 1, 1).transpose(1, 2)
    }
}

/// One draw of dropout, so that two passes can share it.
#[derive(Debug)]
pub(crate) struct DropoutDraw(Option<Tensor>);

impl DropoutDraw {
    /// Draws for tensors of the shape of `like`; nothing is dropped outside training.
    pub(crate) fn new(like: &Tensor, p: f64, train: bool) -> Self {
        let active = train && p > 0.0;
        Self(active.then(|| like.detach().ones_like().dropout(p, true)))
    }

    pub(crate) fn apply(&self, x: &Tensor) -> Tensor {
        self.0.as_ref().map_or_else(|| x.shallow_clone(), |kept| x * kept)
    }
}

/// Uniform in +-1/sqrt(fan_in), PyTorch's default for linear and convolution layers.
pub(crate) fn fan_in_uniform(fan_in: i64) -> Init {
    let bound = 1.0 / (fan_in as f64).sqrt();
    Init::Uniform { lo: -bound, up: bound }
}

/// Normal with variance `2 / fan_in`, `torch.nn.init.kaiming_normal_` for rectifiers.
pub(crate) fn kaiming_normal(fan_in: i64) -> Init {
    Init::Randn { mean: 0.0, stdev: (2.0 / fan_in as f64).sqrt() }
}

/// `x [B, T', ..]` with exactly `steps` steps: zeros added, or the steps beyond cut off. For layers
/// that are tied to a number of steps, as batches come trimmed to their longest sample.
pub(crate) fn with_steps(x: &Tensor, steps: i64) -> Tensor {
    let mut size = x.size();
    let missing = steps - size[1];
    if missing <= 0 {
        return x.narrow(1, 0, steps);
    }
    size[1] = missing;
    Tensor::cat(&[x.shallow_clone(), x.new_zeros(size, (x.kind(), x.device()))], 1)
}

/// Weights `[B, 1, T]` that average over the true steps of a `[B, T]` mask; 0 for an empty row.
pub(crate) fn mean_weights(mask: &Tensor) -> Tensor {
    let mask = mask.to_kind(Kind::Float);
    let count = mask.sum_dim_intlist([1i64].as_slice(), true, Kind::Float).clamp_min(1.0);
    (mask / count).unsqueeze(1)
}

/// Global average pooling, `[B, T, d]` to `[B, d]`, by the weights of [`mean_weights`].
pub(crate) fn pool(x: &Tensor, weights: &Tensor) -> Tensor {
    weights.matmul(x).squeeze_dim(1)
}
