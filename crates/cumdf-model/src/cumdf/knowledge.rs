//! Modality Knowledge Extractor (MKE), Eq. 1-4: what is a modality's own and what is shared.

use std::array::from_fn;

use cumdf_data::{Inputs, Modality};
use tch::{Kind, Tensor, nn::Path};

use super::config::{ConvActivation, ModelConfig};
use crate::{
    layers::{Conv1d, Linear, TransformerLayer, sinusoid},
    shape::Shape,
};

/// Extracts `X~_m` from the three feature sequences.
#[derive(Debug)]
pub struct KnowledgeExtractor {
    encoders: [Encoder; 3],
    extractors: Option<[Extractor; 3]>, // none in the ablation without MKE
    scale_common: bool,
    dim: i64,
}

/// What the extractor found, in the order of [`Modality::ALL`].
#[derive(Debug)]
pub struct Knowledge {
    /// `X'_m [B, T, d]`, Eq. 1.
    pub encoded: [Tensor; 3],
    /// `X_spe,m [B, T, d]`, Eq. 2; none without MKE.
    pub specific: Option<[Tensor; 3]>,
    /// The four parts `[B, T, d]` of each `X_com,m`, Eq. 3-4; none without MKE.
    pub common: Option<[[Tensor; 4]; 3]>,
    /// `X~_m [B, T, d]`.
    pub combined: [Tensor; 3],
}

impl KnowledgeExtractor {
    /// Registers the variables under `vs`.
    pub fn new(vs: &Path, cfg: &ModelConfig, shape: &Shape) -> Self {
        let paths = Modality::ALL.map(|m| vs / m.name());
        Self {
            encoders: from_fn(|m| Encoder::new(&paths[m], cfg, shape.dims[m], cfg.kernel_sizes[m])),
            extractors: cfg.mke.then(|| from_fn(|m| Extractor::new(&paths[m], cfg))),
            scale_common: cfg.scale_common,
            dim: cfg.hidden_dim,
        }
    }

    /// Eq. 1-4. `open [B, T]` bool per modality: the steps that attention may read.
    pub fn forward(&self, inputs: &Inputs, open: &[Tensor; 3], train: bool) -> Knowledge {
        let seen = inputs.seen.unbind(1);
        let positions = sinusoid(inputs.valid.size()[1], self.dim, inputs.valid.device());
        let encoded: [Tensor; 3] =
            from_fn(|m| self.encoders[m].forward(&inputs.features[m], &seen[m], &positions, train));
        let Some(extractors) = &self.extractors else {
            let combined = from_fn(|m| encoded[m].shallow_clone());
            return Knowledge { encoded, specific: None, common: None, combined };
        };
        let specific = from_fn(|m| extractors[m].specific.forward(&encoded[m], &open[m], train));
        let common = common_knowledge(&encoded, open, self.scale_common);
        let combined = from_fn(|m| {
            let [r, gated, r2, gated2] = &common[m];
            let all = Tensor::cat(&[&specific[m], r, gated, r2, gated2], 2); // [B, T, 5d]
            extractors[m].combine.forward(&all)
        });
        Knowledge { encoded, specific: Some(specific), common: Some(common), combined }
    }
}

/// Eq. 1: a convolution over time, and positions.
#[derive(Debug)]
struct Encoder {
    conv: Conv1d,
    missing: Option<Tensor>, // [d]
    activation: ConvActivation,
    input_noise: f64,
}

impl Encoder {
    fn new(vs: &Path, cfg: &ModelConfig, in_dim: i64, kernel_size: i64) -> Self {
        let dim = cfg.hidden_dim;
        Self {
            conv: Conv1d::new(&(vs / "conv"), in_dim, dim, kernel_size),
            missing: cfg.missing_embedding.then(|| vs.zeros("missing", &[dim])),
            activation: cfg.conv_activation,
            input_noise: cfg.input_noise,
        }
    }

    /// `x [B, T, d_m]`, `seen [B, T]`, `positions [T, d]` to `[B, T, d]`.
    fn forward(&self, x: &Tensor, seen: &Tensor, positions: &Tensor, train: bool) -> Tensor {
        let hidden = if train && self.input_noise > 0.0 {
            let noise = x.narrow(1, 0, 1).randn_like() * self.input_noise; // [B, 1, d_m]
            self.conv.forward(&(x + noise).where_self(&seen.unsqueeze(2), x))
        } else {
            self.conv.forward(x)
        };
        let hidden = match self.activation {
            ConvActivation::None => hidden,
            ConvActivation::Relu => hidden.relu(),
        };
        let hidden = match &self.missing {
            Some(missing) => hidden.where_self(&seen.unsqueeze(2), missing),
            None => hidden,
        };
        hidden + positions
    }
}

/// AMSKE (Eq. 2) and the map that joins both kinds of knowledge.
#[derive(Debug)]
struct Extractor {
    specific: TransformerLayer,
    combine: Linear,
}

impl Extractor {
    fn new(vs: &Path, cfg: &ModelConfig) -> Self {
        let (dim, vs_specific) = (cfg.hidden_dim, vs / "specific");
        Self {
            specific: TransformerLayer::new(
                &vs_specific,
                dim,
                cfg.n_heads,
                cfg.ffn_dim,
                cfg.dropout,
            ),
            combine: Linear::new(&(vs / "combine"), 5 * dim, dim),
        }
    }
}

/// GMCKE, Eq. 3-4: bi-modal attention (MMMU-BA; Ghosal et al., EMNLP 2018), without parameters.
///
/// For m and n, `S_mn = softmax(tanh(X'_m X'_n^T))` over the open steps of n, `R_mn = S_mn X'_n`,
/// `X~_mn = [R_mn ; R_mn * X'_m]`; returns the parts of `X_com,m = [X~_mn ; X~_mn']`, four of
/// `[B, T, d]` each, with n and n' in canonical order. As tanh bounds the logits, the softmax needs no maximum, and the
/// exponentials of (m, n) are those of (n, m) transposed.
pub fn common_knowledge(
    encoded: &[Tensor; 3],
    open: &[Tensor; 3],
    scale: bool,
) -> [[Tensor; 4]; 3] {
    let weight: [Tensor; 3] = from_fn(|m| open[m].to_kind(Kind::Float).unsqueeze(2)); // [B, T, 1]
    let masked: [Tensor; 3] = from_fn(|m| &encoded[m] * &weight[m]);
    let dim = encoded[0].size()[2] as f64;
    let exp = |m: usize, n: usize| {
        let product = encoded[m].matmul(&encoded[n].transpose(1, 2)); // [B, T, T]
        let product = if scale { product / dim.sqrt() } else { product };
        product.tanh().exp()
    };
    let [la, lv, av] = [exp(0, 1), exp(0, 2), exp(1, 2)];
    let retrieve = |exp: &Tensor, m: usize, n: usize| {
        let r = exp.matmul(&masked[n]) / exp.matmul(&weight[n]); // R_mn [B, T, d]
        let gated = &r * &encoded[m];
        [r, gated]
    };
    let join = |[a, b]: [Tensor; 2], [c, d]: [Tensor; 2]| [a, b, c, d];
    let [al, vl, va] = [la.transpose(1, 2), lv.transpose(1, 2), av.transpose(1, 2)];
    [
        join(retrieve(&la, 0, 1), retrieve(&lv, 0, 2)),
        join(retrieve(&al, 1, 0), retrieve(&av, 1, 2)),
        join(retrieve(&vl, 2, 0), retrieve(&va, 2, 1)),
    ]
}

/// The steps `[B, T]` of each modality that attention may read: the valid ones; with
/// `mask_missing` the seen ones, or the valid ones where no frame was seen.
pub(crate) fn open_steps(inputs: &Inputs, mask_missing: bool) -> [Tensor; 3] {
    if !mask_missing {
        return from_fn(|_| inputs.valid.shallow_clone());
    }
    let seen = inputs.seen.unbind(1);
    from_fn(|m| seen_or_valid(&seen[m], &inputs.valid))
}

/// `seen`, or `valid` in the rows where nothing is seen; both `[B, T]` bool.
pub(crate) fn seen_or_valid(seen: &Tensor, valid: &Tensor) -> Tensor {
    seen.where_self(&seen.any_dim(1, true), valid)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn common_knowledge_ignores_closed_steps_of_the_other_modality() {
        tch::manual_seed(1);
        let random = || Tensor::randn([2, 4, 3], (Kind::Float, Device::Cpu));
        let encoded = [random(), random(), random()];
        let open = Tensor::from_slice(&[1i64, 1, 0, 0, 1, 1, 1, 1]).view([2, 4]).eq(1);
        let open = [open.shallow_clone(), open.shallow_clone(), open];
        let mut disturbed = encoded.each_ref().map(Tensor::shallow_clone);
        disturbed[1] = encoded[1].where_self(&open[1].unsqueeze(2), &(&encoded[1] + 7.0));
        let before = common_knowledge(&encoded, &open, false);
        let after = common_knowledge(&disturbed, &open, false);
        for (before, after) in before[0].iter().zip(&after[0]) {
            let apart = (before - after).abs().max().double_value(&[]);
            assert!(apart < 1e-6, "language read closed audio steps: {apart}");
        }
    }
}
