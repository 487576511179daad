//! A multi-layer perceptron on mean features: the floor that knows nothing of time. Whatever a
//! method adds is worth its cost only above it.
//!
//! A modality's vector is the mean of its seen frames, 0 where none is seen; the three are
//! concatenated and go through one hidden layer (Rosenblatt's perceptron with a hidden layer;
//! Goodfellow et al., "Deep Learning", 2016, chapter 6).

use anyhow::{Result, ensure};
use cumdf_data::{Inputs, Task};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, nn::Path};

use crate::{
    answer::{Answer, Predictor},
    layers::{Linear, mean_weights, pool},
    problems,
    shape::Shape,
};

/// Sizes of an [`Mlp`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MlpConfig {
    /// Width of the hidden layer, 1 to 8192.
    pub hidden_dim: i64,
    /// Drop probability of the hidden layer, in [0, 1).
    pub dropout: f64,
}

impl MlpConfig {
    /// Every value that no network can have, a line each; empty when all is well.
    pub fn problems(&self) -> Vec<String> {
        let mut bad = Vec::new();
        problems::size(&mut bad, "hidden_dim", self.hidden_dim);
        problems::dropout(&mut bad, "dropout", self.dropout);
        bad
    }
}

/// One hidden layer on mean features. Variables: `hidden` and `output`.
#[derive(Debug)]
pub struct Mlp {
    hidden: Linear, // sum of d_m -> h
    output: Linear, // h -> 1 or C
    dropout: f64,
    task: Task,
}

impl Mlp {
    /// Registers the variables under `vs`, the root of a store.
    ///
    /// # Errors
    /// When a value in `cfg` is impossible; all such values are listed.
    pub fn new(vs: &Path, cfg: &MlpConfig, shape: &Shape) -> Result<Self> {
        let bad = cfg.problems();
        ensure!(bad.is_empty(), "{}", bad.join("\n  "));
        let n_outputs = match &shape.task {
            Task::Sentiment { .. } => 1,
            Task::Emotion { .. } => shape.n_classes(),
        };
        Ok(Self {
            hidden: Linear::new(&(vs / "hidden"), shape.dims.iter().sum(), cfg.hidden_dim),
            output: Linear::new(&(vs / "output"), cfg.hidden_dim, n_outputs),
            dropout: cfg.dropout,
            task: shape.task.clone(),
        })
    }

    /// Scores `[B]` in units of the labels, or logits `[B, C]`. `train` switches dropout on.
    pub fn forward(&self, inputs: &Inputs, train: bool) -> Tensor {
        let means: Vec<_> = inputs
            .features
            .iter()
            .zip(inputs.seen.unbind(1))
            .map(|(x, seen)| pool(x, &mean_weights(&seen))) // [B, d_m]
            .collect();
        let hidden = self.hidden.forward(&Tensor::cat(&means, 1)).relu();
        let output = self.output.forward(&hidden.dropout(self.dropout, train));
        match self.task.neutral() {
            Some(neutral) => output.squeeze_dim(1) + f64::from(neutral),
            None => output,
        }
    }
}

impl Predictor for Mlp {
    fn predict(&self, inputs: &Inputs) -> Answer {
        let _guard = tch::no_grad_guard();
        let output = self.forward(inputs, false);
        match self.task {
            Task::Sentiment { .. } => Answer::Score(output),
            Task::Emotion { .. } => Answer::Classes(output.softmax(-1, Kind::Float)),
        }
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, nn::VarStore};

    use super::*;

    /// Weights 1, biases 0: the hidden layer sums the means, the output sums the hidden units.
    #[test]
    fn means_are_over_seen_frames_and_a_score_counts_from_the_middle() {
        let vs = VarStore::new(Device::Cpu);
        let task = Task::Sentiment { lo: 1, hi: 5 };
        let shape = Shape { task, steps: 3, dims: [1, 1, 1] };
        let net = Mlp::new(&vs.root(), &MlpConfig { hidden_dim: 2, dropout: 0.0 }, &shape).unwrap();
        tch::no_grad(|| {
            for (name, mut variable) in vs.variables() {
                let _ = variable.fill_(if name.ends_with("bias") { 0.0 } else { 1.0 });
            }
        });
        let x = |values: [f32; 3]| Tensor::from_slice(&values).view([1, 3, 1]);
        let seen = Tensor::from_slice(&[1i64, 0, 1, 1, 1, 0, 0, 0, 0]).view([1, 3, 3]).eq(1);
        let inputs = Inputs {
            features: [x([2.0, 0.0, 4.0]), x([1.0, 0.0, 0.0]), x([0.0, 0.0, 0.0])],
            valid: Tensor::from_slice(&[1i64, 1, 1]).view([1, 3]).eq(1),
            seen,
        };
        let Answer::Score(score) = net.predict(&inputs) else { panic!("a score") };
        // Means 3, 0.5 and 0; two hidden units of 3.5 each; the neutral score is 3.
        assert!((score.double_value(&[0]) - 10.0).abs() < 1e-6, "{score}");
    }
}
