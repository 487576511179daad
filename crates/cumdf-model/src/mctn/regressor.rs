//! What a network makes of its joint representation: an answer.

use tch::{Kind, Tensor, nn::Path};

use crate::layers::{Linear, Lstm};

/// Takes a step out of a softmax; what is left of its weight is exactly 0.
const CLOSED: f64 = -1e9;

/// An LSTM whose states are pooled by weights of their own, and a linear layer.
///
/// Variables: `lstm`, `score`, `out`.
#[derive(Debug)]
pub(super) struct Regressor {
    lstm: Lstm,    // h -> h
    score: Linear, // h -> 1
    out: Linear,   // h -> K
}

impl Regressor {
    pub(super) fn new(vs: &Path, hidden: i64, n_outputs: i64) -> Self {
        Self {
            lstm: Lstm::new(&(vs / "lstm"), hidden, hidden),
            score: Linear::new(&(vs / "score"), hidden, 1),
            out: Linear::new(&(vs / "out"), hidden, n_outputs),
        }
    }

    /// The last layer's matrix `[K, h]`, the only one that decays.
    pub(super) fn last(&self) -> &Tensor {
        self.out.weight()
    }

    /// What several pooled, `[N, B, h]`, and answer, `[N, B, K]`.
    ///
    /// - `joint`: `[N, B, T, h]`, what each reads; `beyond`: `[B, T]` bool, the steps that none reads
    pub(super) fn run(regressors: &[&Self], joint: &Tensor, beyond: &Tensor) -> (Tensor, Tensor) {
        let lstms: Vec<_> = regressors.iter().map(|r| &r.lstm).collect();
        let states = Lstm::side_by_side(&lstms, joint); // [N, B, T, h]
        let (n, b, t, h) = states.size4().expect("states are [N, B, T, h]");
        let [score, score_bias] = stacked(regressors.iter().map(|r| &r.score)); // [N, h, 1], [N, 1, 1]
        let scores = score_bias.baddbmm(&states.view([n, b * t, h]), &score, 1.0, 1.0).tanh();
        let closed = (beyond.to_kind(Kind::Float) * CLOSED).unsqueeze(0); // [1, B, T]
        let weights = (scores.view([n, b, t]) + closed).softmax(-1, Kind::Float);
        let pooled = weights.view([n * b, 1, t]).bmm(&states.view([n * b, t, h])).view([n, b, h]);
        let [out, out_bias] = stacked(regressors.iter().map(|r| &r.out)); // [N, h, K], [N, 1, K]
        let answers = out_bias.baddbmm(&pooled, &out, 1.0, 1.0);
        (pooled, answers)
    }
}

/// The layers' matrices, transposed, and biases: `[N, in, out]` and `[N, 1, out]`.
fn stacked<'a>(layers: impl Iterator<Item = &'a Linear> + Clone) -> [Tensor; 2] {
    let weights: Vec<_> = layers.clone().map(|layer| layer.weight().transpose(0, 1)).collect();
    let bias = |layer: &Linear| layer.bias().unsqueeze(0);
    [Tensor::stack(&weights, 0), Tensor::stack(&layers.map(bias).collect::<Vec<_>>(), 0)]
}
