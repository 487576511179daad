//! The fusion: a small global context and the modalities' sequences read each other, by one unit
//! that both directions, all modalities and all layers share.

use cumdf_data::Modality;
use tch::{Kind, Tensor, nn::Path};

use super::EmtConfig;
use crate::layers::{LayerNorm, Linear, attention, join_heads, split_heads};

/// Number of modalities, and of the context's tokens.
const M: i64 = Modality::ALL.len() as i64;

/// Layers of one shared [`Unit`], each followed by the pooling of the contexts.
///
/// Variables: `cross`, `own`, `feed`, `pool.linear{1,2}`.
#[derive(Debug)]
pub(super) struct Fusion {
    unit: Unit,
    pool: [Linear; 2], // 3d -> 3d -> 1
    n_layers: i64,
}

/// Steps that a CPU takes through a [`Unit`] at once: in its feed-forward network each is 4 KB wide.
const STEPS_AT_ONCE: i64 = 1600;

impl Fusion {
    pub(super) fn new(vs: &Path, cfg: &EmtConfig) -> Self {
        let pool = vs / "pool";
        let width = M * cfg.model_dim;
        Self {
            unit: Unit::new(vs, cfg),
            pool: [
                Linear::new(&(&pool / "linear1"), width, width),
                Linear::new(&(&pool / "linear2"), width, 1),
            ],
            n_layers: cfg.n_layers,
        }
    }

    /// The context `g [N, 3d]` after all layers, and the sequences `[kept, 3, T, d]` of the last
    /// `kept` samples. Nothing but their reconstruction reads the sequences of the last layer, so
    /// that those of other samples are not computed.
    ///
    /// - `local`: `[N, 3, T, d]`; `global`: `[N, 3, d]`; `valid`: `[N, T]` bool
    pub(super) fn forward(
        &self,
        local: Tensor,
        global: &Tensor,
        valid: &Tensor,
        kept: i64,
        train: bool,
    ) -> (Tensor, Tensor) {
        let (n, _, t, d) = local.size4().expect("local is [N, 3, T, d]");
        let open = valid.unsqueeze(1).expand([n, M, t], false).reshape([M * n, 1, 1, t]);
        let (mut local, mut global) = (local, global.reshape([n, M * d]));
        for layer in 1..=self.n_layers {
            // Both read what the layer was given.
            let context = global.view([n, 1, M, d]).expand([n, M, M, d], false);
            let context = context.reshape([M * n, M, d]); // a modality's own, [3N, 3, d]
            let tokens = local.view([M * n, t, d]);
            let seen = self.unit.forward(&context, &tokens, None, Some(&open), train);
            let k = if layer == self.n_layers { kept } else { n };
            if k > 0 {
                let [tokens, context, open] =
                    [&tokens, &context, &open].map(|x| x.narrow(0, M * (n - k), M * k));
                let tokens = self.unit.forward(&tokens, &context, Some(&open), None, train);
                local = tokens.view([k, M, t, d]);
            } else {
                local = local.narrow(0, 0, 0);
            }
            global = self.pool(&seen.view([n, M, M * d]));
        }
        (global, local)
    }

    /// The modalities' contexts `[N, 3, 3d]` as one, `[N, 3d]`, by attention.
    fn pool(&self, contexts: &Tensor) -> Tensor {
        let [hidden, score] = &self.pool;
        let scores = score.forward(&hidden.forward(contexts).tanh()); // [N, 3, 1]
        scores.softmax(1, Kind::Float).transpose(1, 2).matmul(contexts).squeeze_dim(1)
    }
}

/// Cross-attention, self-attention and a feed-forward network, pre-norm, each added to its input.
#[derive(Debug)]
struct Unit {
    cross: Attention,
    context_norm: LayerNorm, // of what is read
    own: Attention,
    feed: FeedForward,
}

impl Unit {
    fn new(vs: &Path, cfg: &EmtConfig) -> Self {
        let cross = vs / "cross";
        Self {
            cross: Attention::new(&cross, cfg),
            context_norm: LayerNorm::new(&(&cross / "context_norm"), cfg.model_dim),
            own: Attention::new(&(vs / "own"), cfg),
            feed: FeedForward::new(&(vs / "feed"), cfg),
        }
    }

    /// `x [R, S, d]` after it has read `context [R, S', d]`, and itself. On a CPU some rows at a
    /// time: what is in between then stays in the cache.
    ///
    /// - `open`, `context_open`: `[R, 1, 1, S]` and `[R, 1, 1, S']` bool, the steps that may be
    ///   read, at least one each; `None` where all may
    fn forward(
        &self,
        x: &Tensor,
        context: &Tensor,
        open: Option<&Tensor>,
        context_open: Option<&Tensor>,
        train: bool,
    ) -> Tensor {
        let (rows, steps, _) = x.size3().expect("x is [R, S, d]");
        let at_once = if x.device().is_cuda() { rows } else { (STEPS_AT_ONCE / steps).max(1) };
        if rows <= at_once {
            return self.read(x, context, open, context_open, train);
        }
        let part = |from: i64| {
            let cut = |t: &Tensor| t.narrow(0, from, at_once.min(rows - from));
            let (open, context_open) = (open.map(cut), context_open.map(cut));
            self.read(&cut(x), &cut(context), open.as_ref(), context_open.as_ref(), train)
        };
        let parts: Vec<_> = (0..rows).step_by(at_once as usize).map(part).collect();
        Tensor::cat(&parts, 0)
    }

    fn read(
        &self,
        x: &Tensor,
        context: &Tensor,
        open: Option<&Tensor>,
        context_open: Option<&Tensor>,
        train: bool,
    ) -> Tensor {
        let context = self.context_norm.forward(context);
        let normal = self.cross.norm.forward(x);
        let x = x + self.cross.forward(&normal, &context, context_open, train);
        let normal = self.own.norm.forward(&x);
        let x = &x + self.own.forward(&normal, &normal, open, train);
        &x + self.feed.forward(&x, train)
    }
}

/// Multi-head attention whose projections have no bias but the last.
#[derive(Debug)]
struct Attention {
    norm: LayerNorm,   // of what reads
    query: Linear,     // d -> d
    key_value: Linear, // d -> 2d, keys first
    out: Linear,       // d -> d
    n_heads: i64,
    dropout: f64, // of the weights
}

impl Attention {
    fn new(vs: &Path, cfg: &EmtConfig) -> Self {
        let d = cfg.model_dim;
        Self {
            norm: LayerNorm::new(&(vs / "norm"), d),
            query: Linear::without_bias(&(vs / "query"), d, d),
            key_value: Linear::without_bias(&(vs / "key_value"), d, 2 * d),
            out: Linear::new(&(vs / "out"), d, d),
            n_heads: cfg.n_heads,
            dropout: cfg.attention_dropout,
        }
    }

    /// Both already normalised: `x [R, S, d]` reads `context [R, S', d]`.
    fn forward(&self, x: &Tensor, context: &Tensor, open: Option<&Tensor>, train: bool) -> Tensor {
        let q = split_heads(&self.query.forward(x), self.n_heads);
        let keys_values = self.key_value.forward(context).chunk(2, -1);
        let [k, v] = [0, 1].map(|part| split_heads(&keys_values[part], self.n_heads));
        let dropout = if train { self.dropout } else { 0.0 };
        self.out.forward(&join_heads(&attention(&q, &k, &v, open, dropout)))
    }
}

/// A gated feed-forward network: `W2 (u gelu(g))` with `[u; g] = W1 norm(x)`.
#[derive(Debug)]
struct FeedForward {
    norm: LayerNorm,
    linear1: Linear, // d -> 8d
    linear2: Linear, // 4d -> d
    dropout: f64,
}

impl FeedForward {
    fn new(vs: &Path, cfg: &EmtConfig) -> Self {
        let d = cfg.model_dim;
        Self {
            norm: LayerNorm::new(&(vs / "norm"), d),
            linear1: Linear::new(&(vs / "linear1"), d, 8 * d),
            linear2: Linear::new(&(vs / "linear2"), 4 * d, d),
            dropout: cfg.feed_dropout,
        }
    }

    fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        let gated = self.linear1.forward(&self.norm.forward(x)).chunk(2, -1);
        let hidden = &gated[0] * gated[1].gelu("none");
        self.linear2.forward(&hidden).dropout(self.dropout, train)
    }
}
