//! One Transformer encoder layer, as `torch.nn.TransformerEncoderLayer` builds it by default:
//! post-norm, ReLU, dropout on attention weights, inside the feed-forward and on both residuals.

use tch::{
    Tensor,
    nn::{Init, Path},
};

use super::{LayerNorm, Linear};

/// Self-attention and a feed-forward network, each with a residual and a layer normalisation.
#[derive(Debug)]
pub(crate) struct TransformerLayer {
    in_proj_weight: Tensor, // [3d, d]: query, key, value
    in_proj_bias: Tensor,   // [3d]
    out_proj: Linear,
    linear1: Linear,
    linear2: Linear,
    norm1: LayerNorm,
    norm2: LayerNorm,
    n_heads: i64,
    dropout: f64,
}

impl TransformerLayer {
    pub(crate) fn new(vs: &Path, dim: i64, n_heads: i64, ffn_dim: i64, dropout: f64) -> Self {
        let attention = vs / "self_attn";
        let bound = (6.0 / (4 * dim) as f64).sqrt(); // Xavier over the fused matrix, as PyTorch
        let xavier = Init::Uniform { lo: -bound, up: bound };
        let out_proj = Linear::new(&(&attention / "out_proj"), dim, dim);
        let _guard = tch::no_grad_guard();
        let _ = out_proj.bias.as_ref().expect("made with a bias").shallow_clone().zero_();
        Self {
            in_proj_weight: attention.var("in_proj_weight", &[3 * dim, dim], xavier),
            in_proj_bias: attention.zeros("in_proj_bias", &[3 * dim]),
            out_proj,
            linear1: Linear::new(&(vs / "linear1"), dim, ffn_dim),
            linear2: Linear::new(&(vs / "linear2"), ffn_dim, dim),
            norm1: LayerNorm::new(&(vs / "norm1"), dim),
            norm2: LayerNorm::new(&(vs / "norm2"), dim),
            n_heads,
            dropout,
        }
    }

    /// `x [B, T, d]`, keys restricted to the true steps of `open [B, T]` (at least one a row).
    pub(crate) fn forward(&self, x: &Tensor, open: &Tensor, train: bool) -> Tensor {
        let attended = self.attend(x, open, train).dropout(self.dropout, train);
        let x = self.norm1.forward(&(x + attended));
        let hidden = self.linear1.forward(&x).relu().dropout(self.dropout, train);
        let fed = self.linear2.forward(&hidden).dropout(self.dropout, train);
        self.norm2.forward(&(x + fed))
    }

    fn attend(&self, x: &Tensor, open: &Tensor, train: bool) -> Tensor {
        let (b, t, d) = x.size3().expect("x is [B, T, d]");
        let qkv = x
            .linear(&self.in_proj_weight, Some(&self.in_proj_bias))
            .view([b, t, 3, self.n_heads, d / self.n_heads])
            .permute([2, 0, 3, 1, 4]); // [3, B, h, T, d / h]
        let mask = open.view([b, 1, 1, t]).expand([b, self.n_heads, t, t], false);
        let dropout = if train { self.dropout } else { 0.0 };
        let [q, k, v] = [0, 1, 2].map(|part| qkv.get(part));
        self.out_proj.forward(&join_heads(&attention(&q, &k, &v, Some(&mask), dropout)))
    }
}

/// `[B, T, d]` to heads, `[B, h, T, d / h]`.
pub(crate) fn split_heads(x: &Tensor, n_heads: i64) -> Tensor {
    let (b, t, d) = x.size3().expect("x is [B, T, d]");
    x.view([b, t, n_heads, d / n_heads]).transpose(1, 2)
}

/// Heads `[B, h, T, d / h]` side by side, `[B, T, d]`.
pub(crate) fn join_heads(x: &Tensor) -> Tensor {
    let (b, h, t, d) = x.size4().expect("x is [B, h, T, d / h]");
    x.transpose(1, 2).reshape([b, t, h * d])
}

/// Scaled dot-product attention of heads, `[B, h, T_q, d / h]`.
///
/// - `q`: `[B, h, T_q, d / h]`; `k`, `v`: `[B, h, T_k, d / h]`
/// - `open`: expandable to `[B, h, T_q, T_k]`; bool: the keys that a query reads, at least one each;
///   or numbers that are added to the logits
/// - `dropout`: of the weights, 0 outside training
pub(crate) fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    open: Option<&Tensor>,
    dropout: f64,
) -> Tensor {
    Tensor::scaled_dot_product_attention(q, k, v, open, dropout, false, None, false)
}
