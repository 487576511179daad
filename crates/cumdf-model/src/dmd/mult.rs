//! The Transformer encoder of MulT, for a sequence alone or across two: pre-norm, causal, with
//! sinusoidal positions.
//!
//! Tsai et al., "Multimodal Transformer for Unaligned Multimodal Language Sequences" (ACL 2019);
//! code github.com/yaohungt/Multimodal-Transformer. DMD has twelve of them on narrow sequences.
//! [`MultEncoders`] holds several of one size and runs those whose inputs have one shape side by
//! side, as one stack `[N, ..]`: the same arithmetic in a fraction of the operations.
//!
//! As in the code: keys and values go through the same layer normalisation as the queries, every
//! layer of a crossing reads the same source, with dropout drawn for keys and values apart; a
//! position whose first channel is exactly 0 gets no sinusoid, as it counts as padding there (a
//! zeroed frame thus loses its position).

use tch::{
    Kind, Tensor,
    nn::{Init, Path},
};

/// PyTorch's default for layer normalisation.
const EPS: f64 = 1e-5;

/// Sizes that encoders side by side share, and their drop probabilities.
#[derive(Debug, Clone)]
pub(super) struct MultConfig {
    /// Width `d`, even and at least 4.
    pub(super) dim: i64,
    /// Heads per attention, a divisor of `dim`.
    pub(super) n_heads: i64,
    /// Layers.
    pub(super) n_layers: i64,
    /// Of attention weights, per encoder.
    pub(super) attention_dropouts: Vec<f64>,
    /// Inside the feed-forward.
    pub(super) relu_dropout: f64,
    /// On what a residual adds.
    pub(super) residual_dropout: f64,
    /// Of the embedded input.
    pub(super) embedding_dropout: f64,
}

/// Encoders of one size, one or all of which run at a time.
#[derive(Debug)]
pub(super) struct MultEncoders {
    encoders: Vec<Encoder>,
    positions: Tensor, // [T, d]
    cfg: MultConfig,
}

/// The variables of one encoder.
#[derive(Debug)]
struct Encoder {
    layers: Vec<Layer>,
    norm: Pair,
}

/// The variables of a layer, of one encoder or of `N` side by side.
#[derive(Debug)]
struct Layer {
    norm1: Pair,
    in_proj: Pair, // d -> 3d: queries, keys, values
    out_proj: Pair,
    norm2: Pair,
    linear1: Pair, // d -> 4d
    linear2: Pair, // 4d -> d
}

/// Weight and bias: of one encoder `[out, in]` and `[out]`, or `[d]` twice; of a stack
/// `[N, out, in]` and `[N, 1, out]`, or `[N, 1, d]` twice.
#[derive(Debug)]
struct Pair {
    weight: Tensor,
    bias: Tensor,
}

impl MultEncoders {
    /// An encoder under each of `paths`, for sequences of at most `steps`.
    pub(super) fn new(paths: &[Path], cfg: MultConfig, steps: i64) -> Self {
        assert_eq!(paths.len(), cfg.attention_dropouts.len(), "a drop probability per encoder");
        let positions = sinusoid(steps, cfg.dim).to_device(paths[0].device());
        let encoders = paths.iter().map(|vs| Encoder::new(vs, cfg.dim, cfg.n_layers)).collect();
        Self { encoders, positions, cfg }
    }

    /// What every encoder makes of its sequence while it reads a source, `[B, T, d]` each.
    ///
    /// - `queries`: `[B, T, d]` per encoder
    /// - `sources`: `[B, T_k, d]` per encoder, and how many steps beyond its own a query sees of it
    pub(super) fn cross(
        &self,
        queries: &[&Tensor],
        sources: &[(&Tensor, i64)],
        train: bool,
    ) -> Vec<Tensor> {
        let shapes = |i: usize| (queries[i].size(), sources[i].0.size(), sources[i].1);
        let alike = (1..queries.len()).all(|i| shapes(i) == shapes(0));
        let mut out = Vec::with_capacity(queries.len());
        for some in self.stacks(alike) {
            let x = Tensor::stack(&queries[some.clone()], 0); // [N, B, T, d]
            let source: Vec<_> = sources[some.clone()].iter().map(|(source, _)| *source).collect();
            let source = Tensor::stack(&source, 0); // [N, B, T_k, d]
            let mask = causal(x.size()[2], source.size()[2], sources[some.start].1, &x);
            let stack = self.stack(&some, train);
            let (keys, values) = (stack.embed(&source), stack.embed_again(&source));
            let mut x = stack.embed(&x);
            for layer in 0..self.cfg.n_layers as usize {
                x = stack.layer(layer, &x, Some(&keys), values.as_ref(), &mask);
            }
            out.extend(stack.finish(&x).unbind(0));
        }
        out
    }

    /// What every encoder knows of its sequence at one step of each sample, `[B, d]` each. The last
    /// layer computes nothing else.
    ///
    /// - `xs`: `[B, T, d]` per encoder; `steps`: `[B]` i64 in 0..T per encoder
    pub(super) fn at_step(&self, xs: &[Tensor], steps: &[&Tensor], train: bool) -> Vec<Tensor> {
        let alike = xs.iter().all(|x| x.size() == xs[0].size());
        let mut out = Vec::with_capacity(xs.len());
        for some in self.stacks(alike) {
            let x = Tensor::stack(&xs[some.clone()], 0); // [N, B, T, d]
            let step = Tensor::stack(&steps[some.clone()], 0); // [N, B]
            let (n, b, t, d) = x.size4().expect("a stack of [B, T, d]");
            let stack = self.stack(&some, train);
            let mask = causal(t, t, 0, &x);
            let mut x = stack.embed(&x);
            let last = self.cfg.n_layers as usize - 1;
            for layer in 0..last {
                x = stack.layer(layer, &x, None, None, &mask);
            }
            let rows = step.view([n, b, 1, 1]).expand([n, b, 1, d], false);
            let row = x.gather(2, &rows, false); // [N, B, 1, d]
            // The row of the triangle that each sample's step has, for every head.
            let mask = mask.index_select(1, &step.flatten(0, -1)); // [1, N B, T]
            let heads = [n * b, self.cfg.n_heads, t];
            let mask = mask.view([n * b, 1, t]).expand(heads, false).reshape([-1, 1, t]);
            let x = stack.layer(last, &row, Some(&x), None, &mask);
            out.extend(stack.finish(&x).squeeze_dim(2).unbind(0)); // [B, d]
        }
        out
    }

    /// Heads per attention.
    pub(super) fn n_heads(&self) -> i64 {
        self.cfg.n_heads
    }

    /// Layers of each encoder.
    pub(super) fn n_layers(&self) -> i64 {
        self.cfg.n_layers
    }

    /// All encoders at once where their inputs are alike, else one by one.
    fn stacks(&self, alike: bool) -> Vec<std::ops::Range<usize>> {
        let n = self.encoders.len();
        let at_once = if alike { n } else { 1 };
        (0..n).step_by(at_once).map(|first| first..first + at_once).collect()
    }

    fn stack(&self, some: &std::ops::Range<usize>, train: bool) -> Stack<'_> {
        let encoders = &self.encoders[some.clone()];
        let n_layers = self.cfg.n_layers as usize;
        let layers = (0..n_layers).map(|at| {
            Layer::side_by_side(&encoders.iter().map(|e| &e.layers[at]).collect::<Vec<_>>())
        });
        Stack {
            layers: layers.collect(),
            norm: Pair::side_by_side(&encoders.iter().map(|e| &e.norm).collect::<Vec<_>>()),
            attention_dropouts: &self.cfg.attention_dropouts[some.clone()],
            positions: &self.positions,
            cfg: &self.cfg,
            train,
        }
    }
}

/// `N` encoders side by side, for one pass.
struct Stack<'a> {
    layers: Vec<Layer>,
    norm: Pair,
    attention_dropouts: &'a [f64],
    positions: &'a Tensor,
    cfg: &'a MultConfig,
    train: bool,
}

impl Stack<'_> {
    /// `sqrt(d) x` with the positions, `[N, B, T, d]`.
    fn embed(&self, x: &Tensor) -> Tensor {
        let (steps, d) = (x.size()[2], self.cfg.dim as f64);
        let has_position = x.select(3, 0).ne(0.0).to_kind(x.kind()).unsqueeze(-1);
        let embedded = (x * d.sqrt()).addcmul(&has_position, &self.positions.narrow(0, 0, steps));
        embedded.dropout(self.cfg.embedding_dropout, self.train)
    }

    /// A second draw of [`Stack::embed`]'s dropout; `None` where nothing is drawn.
    fn embed_again(&self, x: &Tensor) -> Option<Tensor> {
        (self.train && self.cfg.embedding_dropout > 0.0).then(|| self.embed(x))
    }

    /// One layer on the queries `x [N, B, T, d]`, which read `keys` and `values [N, B, T_k, d]`;
    /// without keys these are the queries, without values the keys. `mask` is added to the scores
    /// `[N B h, T, T_k]`.
    fn layer(
        &self,
        at: usize,
        x: &Tensor,
        keys: Option<&Tensor>,
        values: Option<&Tensor>,
        mask: &Tensor,
    ) -> Tensor {
        let layer = &self.layers[at];
        let residual = |x: Tensor| x.dropout(self.cfg.residual_dropout, self.train);
        let x = x + residual(self.attend(layer, x, keys, values, mask));
        let hidden = layer.linear1.linear(&layer.norm2.norm(&x)).relu();
        let hidden = hidden.dropout(self.cfg.relu_dropout, self.train);
        &x + residual(layer.linear2.linear(&hidden))
    }

    fn attend(
        &self,
        layer: &Layer,
        x: &Tensor,
        keys: Option<&Tensor>,
        values: Option<&Tensor>,
        mask: &Tensor,
    ) -> Tensor {
        let (n, b, t, d) = x.size4().expect("x is [N, B, T, d]");
        let heads = self.cfg.n_heads;
        let to_heads = |projected: Tensor, parts: i64| {
            let t = projected.size()[2];
            projected
                .view([n, b, t, parts, heads, d / heads])
                .permute([3, 0, 1, 4, 2, 5]) // [parts, N, B, h, T, d / h]
                .reshape([parts, n * b * heads, t, d / heads])
                .unbind(0)
        };
        let queries = layer.norm1.norm(x);
        let qkv: Vec<_> = match (keys, values) {
            (None, _) => to_heads(layer.in_proj.linear(&queries), 3),
            (Some(keys), None) => {
                let keys = layer.in_proj.rows(d, 2 * d).linear(&layer.norm1.norm(keys));
                let queries = layer.in_proj.rows(0, d).linear(&queries);
                [to_heads(queries, 1), to_heads(keys, 2)].into_iter().flatten().collect()
            }
            (Some(keys), Some(values)) => {
                let inputs = [queries, layer.norm1.norm(keys), layer.norm1.norm(values)];
                let parts = (0..3).zip(&inputs);
                let projected = |(part, x)| layer.in_proj.rows(part * d, d).linear(x);
                parts.flat_map(|part| to_heads(projected(part), 1)).collect()
            }
        };
        let scale = (heads as f64 / d as f64).sqrt();
        let scores = mask.baddbmm(&qkv[0], &qkv[1].transpose(1, 2), 1.0, scale); // [N B h, T, T_k]
        let weights = dropout_each(scores.softmax(-1, None), self.attention_dropouts, self.train);
        let read = weights.bmm(&qkv[2]).view([n, b, heads, t, d / heads]).transpose(2, 3);
        layer.out_proj.linear(&read.reshape([n, b, t, d]))
    }

    fn finish(&self, x: &Tensor) -> Tensor {
        self.norm.norm(x)
    }
}

impl Encoder {
    fn new(vs: &Path, dim: i64, n_layers: i64) -> Self {
        let layers = (0..n_layers).map(|i| Layer::new(&(vs / "layer" / i), dim)).collect();
        Self { layers, norm: Pair::norm_of(&(vs / "norm"), dim) }
    }
}

impl Layer {
    fn new(vs: &Path, dim: i64) -> Self {
        let attention = vs / "attn";
        Self {
            norm1: Pair::norm_of(&(vs / "norm1"), dim),
            in_proj: Pair {
                // Xavier over the fused matrix, as PyTorch.
                weight: attention.var("in_proj_weight", &[3 * dim, dim], xavier(dim, 3 * dim)),
                bias: attention.zeros("in_proj_bias", &[3 * dim]),
            },
            out_proj: Pair::linear_of(&(&attention / "out_proj"), dim, dim),
            norm2: Pair::norm_of(&(vs / "norm2"), dim),
            linear1: Pair::linear_of(&(vs / "linear1"), dim, 4 * dim),
            linear2: Pair::linear_of(&(vs / "linear2"), 4 * dim, dim),
        }
    }

    fn side_by_side(layers: &[&Self]) -> Self {
        let stack = |part: fn(&Self) -> &Pair| {
            Pair::side_by_side(&layers.iter().map(|layer| part(layer)).collect::<Vec<_>>())
        };
        Self {
            norm1: stack(|layer| &layer.norm1),
            in_proj: stack(|layer| &layer.in_proj),
            out_proj: stack(|layer| &layer.out_proj),
            norm2: stack(|layer| &layer.norm2),
            linear1: stack(|layer| &layer.linear1),
            linear2: stack(|layer| &layer.linear2),
        }
    }
}

impl Pair {
    fn norm_of(vs: &Path, dim: i64) -> Self {
        Self { weight: vs.ones("weight", &[dim]), bias: vs.zeros("bias", &[dim]) }
    }

    fn linear_of(vs: &Path, in_dim: i64, out_dim: i64) -> Self {
        Self {
            weight: vs.var("weight", &[out_dim, in_dim], xavier(in_dim, out_dim)),
            bias: vs.zeros("bias", &[out_dim]),
        }
    }

    fn side_by_side(pairs: &[&Self]) -> Self {
        let stack = |part: fn(&Self) -> &Tensor| {
            Tensor::stack(&pairs.iter().map(|pair| part(pair)).collect::<Vec<_>>(), 0)
        };
        let (weight, bias) = (stack(|pair| &pair.weight), stack(|pair| &pair.bias).unsqueeze(1));
        let is_norm = weight.dim() == 2;
        Self { weight: if is_norm { weight.unsqueeze(1) } else { weight }, bias }
    }

    /// Of a stack's matrices the rows `from .. from + n`.
    fn rows(&self, from: i64, n: i64) -> Self {
        Self { weight: self.weight.narrow(1, from, n), bias: self.bias.narrow(2, from, n) }
    }

    /// `[N, B, T, in]` to `[N, B, T, out]`, each encoder with its own matrix.
    fn linear(&self, x: &Tensor) -> Tensor {
        let (n, b, t, d) = x.size4().expect("x is [N, B, T, in]");
        let y =
            self.bias.baddbmm(&x.reshape([n, b * t, d]), &self.weight.transpose(1, 2), 1.0, 1.0);
        y.view([n, b, t, -1])
    }

    /// Layer normalisation of `[N, B, T, d]`, each encoder with its own weights.
    fn norm(&self, x: &Tensor) -> Tensor {
        let d = x.size()[3];
        let none = None::<Tensor>;
        let normed = x.layer_norm([d], none.as_ref(), none.as_ref(), EPS, false);
        self.bias.unsqueeze(1).addcmul(&normed, &self.weight.unsqueeze(1))
    }
}

/// `torch.nn.init.xavier_uniform_`.
fn xavier(in_dim: i64, out_dim: i64) -> Init {
    let bound = (6.0 / (in_dim + out_dim) as f64).sqrt();
    Init::Uniform { lo: -bound, up: bound }
}

/// `[T, d]`: positions count from 1; the sines of all frequencies come first, then the cosines.
fn sinusoid(steps: i64, dim: i64) -> Tensor {
    let options = (Kind::Double, tch::Device::Cpu);
    let half = dim / 2;
    let time = Tensor::arange_start(1, steps + 1, options).unsqueeze(1); // [T, 1]
    let slowing = -(10_000f64.ln()) / (half - 1) as f64;
    let angle = time * (Tensor::arange(half, options) * slowing).exp(); // [T, d / 2]
    Tensor::cat(&[angle.sin(), angle.cos()], 1).to_kind(Kind::Float)
}

/// `[1, T, T_k]`, added to scores: minus infinity where a step would see further than `ahead` beyond
/// its own position.
fn causal(steps: i64, n_keys: i64, ahead: i64, like: &Tensor) -> Tensor {
    Tensor::full([1, steps, n_keys], f64::NEG_INFINITY, (like.kind(), like.device()))
        .triu(1 + ahead)
}

/// Dropout of a stack of equal parts along the first axis, each with its own probability.
fn dropout_each(x: Tensor, ps: &[f64], train: bool) -> Tensor {
    if !train || ps.iter().all(|p| *p <= 0.0) {
        return x;
    }
    if ps.iter().all(|p| p.to_bits() == ps[0].to_bits()) {
        return x.dropout(ps[0], true);
    }
    let kept = x.detach().empty_like();
    for (mut part, p) in kept.chunk(ps.len() as i64, 0).into_iter().zip(ps) {
        let _ = if *p > 0.0 {
            part.bernoulli_float_(1.0 - p).g_div_scalar_(1.0 - p)
        } else {
            part.fill_(1.0)
        };
    }
    x * kept
}

#[cfg(test)]
mod tests {
    use tch::{Device, nn::VarStore};

    use super::*;
    use crate::testing::{assert_close, assert_gradients, n_parameters, wave};

    fn encoders(n: usize, dim: i64, n_layers: i64) -> (VarStore, MultEncoders) {
        let vs = VarStore::new(Device::Cpu);
        let paths: Vec<_> = (0..n).map(|i| vs.root() / i).collect();
        let cfg = MultConfig {
            dim,
            n_heads: 2,
            n_layers,
            attention_dropouts: vec![0.0; n],
            relu_dropout: 0.0,
            residual_dropout: 0.0,
            embedding_dropout: 0.0,
        };
        let encoders = MultEncoders::new(&paths, cfg, 12);
        (vs, encoders)
    }

    #[test]
    fn it_has_the_published_number_of_parameters() {
        let (vs, _encoders) = encoders(1, 50, 4);
        assert_eq!(n_parameters(&vs), 122_700); // L (12 d^2 + 13 d) + 2 d
    }

    #[test]
    fn positions_count_from_one_and_sines_come_before_cosines() {
        let pe = sinusoid(3, 6);
        let slow = [1.0, 0.01, 0.0001];
        for (t, i) in (0..3).flat_map(|t| (0..3).map(move |i| (t, i))) {
            let angle = (t + 1) as f64 * slow[i as usize];
            for (channel, want) in [(i, angle.sin()), (i + 3, angle.cos())] {
                let got = pe.double_value(&[t, channel]);
                assert!((got - want).abs() < 1e-6, "{t}, {channel}: {got} for {want}");
            }
        }
    }

    #[test]
    fn a_position_whose_first_channel_is_zero_gets_no_sinusoid() {
        let (_vs, encoders) = encoders(1, 4, 1);
        let x = Tensor::from_slice(&[0f32, 5.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0]).view([1, 1, 2, 4]);
        let got = encoders.stack(&(0..1), false).embed(&x);
        let second = sinusoid(2, 4).get(1) + Tensor::from_slice(&[2f32, 0.0, 0.0, 0.0]);
        let want = Tensor::stack(&[Tensor::from_slice(&[0f32, 10.0, 2.0, 2.0]), second], 0);
        assert_close(&got.view([2, 4]), &want, 1e-6);
    }

    /// Alone, keys and values are the sequence itself; with a source of as many steps only the
    /// steps up to a query's own; with one of more, as many more as there are.
    #[test]
    fn a_future_frame_changes_no_earlier_output() {
        let (_vs, encoders) = encoders(1, 8, 3);
        let source = wave(&[2, 9, 8]);
        let [x, t] = [&wave(&[2, 6, 8]), &Tensor::from_slice(&[3i64, 1])];
        let alone = |x: &Tensor| encoders.at_step(&[x.copy()], &[t], false).remove(0);
        let cross = |s: &Tensor| encoders.cross(&[x], &[(s, 3)], false).remove(0);
        for future in 1..6 {
            let other = x.copy();
            let _ = other.narrow(1, future, 6 - future).fill_(7.0);
            let (got, want) = (alone(&other), alone(x));
            for (row, step) in [(0, 3), (1, 1)] {
                let same = got.get(row).allclose(&want.get(row), 1e-5, 1e-6, false);
                assert_eq!(same, step < future, "step {step} with a change at {future}");
            }
            let other = source.copy();
            let _ = other.narrow(1, future + 3, 6 - future).fill_(7.0);
            let (got, want) = (cross(&other), cross(&source));
            assert_close(&got.narrow(1, 0, future), &want.narrow(1, 0, future), 1e-6);
            let reads = !got.select(1, future).allclose(&want.select(1, future), 1e-4, 1e-4, false);
            assert!(reads, "step {future} does not read as far as it may");
        }
    }

    /// A layer's output at one step is what a whole pass has there.
    #[test]
    fn one_step_alone_is_that_step_of_the_whole() {
        let (_vs, encoders) = encoders(1, 8, 2);
        let x = wave(&[3, 5, 8]);
        let stack = encoders.stack(&(0..1), false);
        let mut whole = stack.embed(&x.unsqueeze(0));
        let mask = causal(5, 5, 0, &whole);
        for layer in 0..2 {
            whole = stack.layer(layer, &whole, None, None, &mask);
        }
        let whole = stack.finish(&whole).squeeze_dim(0); // [B, T, d]
        let steps = [4i64, 0, 2];
        let rows: Vec<_> = (0..3).map(|b| whole.get(b).get(steps[b as usize])).collect();
        let got = encoders.at_step(&[x], &[&Tensor::from_slice(&steps)], false).remove(0);
        assert_close(&got, &Tensor::stack(&rows, 0), 1e-6);
    }

    #[test]
    fn side_by_side_is_one_by_one() {
        let (vs, encoders) = encoders(3, 8, 2);
        let xs = [0, 1, 2].map(|i| wave(&[2, 5, 8]) + 0.3 * f64::from(i));
        let sources = xs.each_ref().map(|x| x.flip([1]) * 0.5);
        let step = Tensor::from_slice(&[4i64, 1]);
        let [x, s] = [xs.each_ref(), sources.each_ref()];
        let cross = encoders.cross(&x, &s.map(|s| (s, 0)), true);
        let own = encoders.at_step(&xs, &[&step; 3], true);
        let lone = |i: usize| {
            let stack = encoders.stack(&(i..i + 1), false);
            let (mut y, k) = (stack.embed(&xs[i].unsqueeze(0)), sources[i].unsqueeze(0));
            let (k, mask) = (stack.embed(&k), causal(5, 5, 0, &k));
            for layer in 0..2 {
                y = stack.layer(layer, &y, Some(&k), None, &mask);
            }
            stack.finish(&y).squeeze_dim(0)
        };
        for (i, got) in cross.iter().enumerate() {
            assert_close(got, &lone(i), 1e-5);
        }
        let loss = cross.iter().chain(&own).map(|y| y.square() * wave(&y.size()));
        let loss = loss.map(|y| y.sum(Kind::Float)).reduce(|a, b| a + b).unwrap();
        assert_gradients(&vs, &loss);
    }

    #[test]
    fn each_encoder_drops_with_its_own_probability() {
        tch::manual_seed(0);
        let x = Tensor::ones([6, 40, 40], (Kind::Float, Device::Cpu));
        let dropped = dropout_each(x, &[0.5, 0.0, 0.25], true);
        for (part, (p, kept)) in [(0.5, 2.0), (0.0, 1.0), (0.25, 4.0 / 3.0)].iter().enumerate() {
            let part = dropped.narrow(0, 2 * part as i64, 2);
            let zeros = part.eq(0.0).to_kind(Kind::Float).mean(Kind::Float).double_value(&[]);
            assert!((zeros - p).abs() < 0.05, "{zeros} for {p}");
            assert!((part.max().double_value(&[]) - kept).abs() < 1e-6);
        }
    }
}
