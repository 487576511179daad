//! A recurrent layer and the two ways of reading one vector out of it.
//!
//! It runs over padding too, from the front only, so that no step sees what comes after it: what
//! is read inside a sample's length does not depend on how far its batch was padded.

use tch::{
    Kind, Tensor,
    nn::{Init, Path},
};

/// Mode of an LSTM in cuDNN's own numbering.
const CUDNN_LSTM: i64 = 2;

/// `torch.nn.LSTM` with one layer and one direction, from a zero state; every variable uniform in
/// +-1/sqrt(hidden), PyTorch's default.
#[derive(Debug)]
pub(crate) struct Lstm {
    weights: [Tensor; 4], // [4h, d], [4h, h], [4h], [4h]; gates in the order i, f, g, o
    hidden: i64,
}

impl Lstm {
    pub(crate) fn new(vs: &Path, in_dim: i64, hidden: i64) -> Self {
        let bound = 1.0 / (hidden as f64).sqrt();
        let init = Init::Uniform { lo: -bound, up: bound };
        let gates = 4 * hidden;
        let weights = [
            vs.var("weight_ih_l0", &[gates, in_dim], init),
            vs.var("weight_hh_l0", &[gates, hidden], init),
            vs.var("bias_ih_l0", &[gates], init),
            vs.var("bias_hh_l0", &[gates], init),
        ];
        if vs.device().is_cuda() && tch::Cuda::cudnn_is_available() {
            // Moves the four into one block of memory, else cuDNN copies them at every call.
            let _guard = tch::no_grad_guard();
            let per_layer = weights.len() as i64;
            let _ = Tensor::internal_cudnn_rnn_flatten_weight(
                &weights, per_layer, in_dim, CUDNN_LSTM, hidden, 0, 1, true, false,
            );
        }
        Self { weights, hidden }
    }

    /// The output of every step, `[B, T, d]` to `[B, T, h]`. `train` where gradients will flow:
    /// cuDNN keeps what they need only then.
    pub(crate) fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        let zeros = Tensor::zeros([1, x.size()[0], self.hidden], (x.kind(), x.device()));
        let state = [zeros.shallow_clone(), zeros];
        let weights = self.weights.each_ref().map(Tensor::shallow_clone);
        x.lstm(&state, &weights, true, 1, 0.0, train, false, true).0
    }
}

/// The row of `x [B, T, h]` at the last step of each sample, `[B, h]`.
///
/// - `valid`: `[B, T]` bool, true for the sample's first `len >= 1` steps
pub(crate) fn last_step(x: &Tensor, valid: &Tensor) -> Tensor {
    let (b, _, h) = x.size3().expect("x is [B, T, h]");
    let last = valid.sum_dim_intlist([1i64].as_slice(), false, Kind::Int64) - 1; // [B]
    x.gather(1, &last.view([b, 1, 1]).expand([b, 1, h], false), false).squeeze_dim(1)
}

/// The largest value of every channel over the valid steps, `[B, T, h]` to `[B, h]`.
///
/// - `valid`: `[B, T]` bool, at least one true step per row
pub(crate) fn max_over_steps(x: &Tensor, valid: &Tensor) -> Tensor {
    x.masked_fill(&valid.logical_not().unsqueeze(-1), f64::NEG_INFINITY).max_dim(1, false).0
}

#[cfg(test)]
mod tests {
    use tch::{Device, nn::VarStore};

    use super::*;
    use crate::testing::{assert_close, wave};

    #[test]
    fn every_variable_starts_within_one_over_the_root_of_hidden() {
        let vs = VarStore::new(Device::Cpu);
        let _lstm = Lstm::new(&vs.root(), 40, 16);
        for (name, variable) in vs.variables() {
            let largest = variable.abs().max().double_value(&[]);
            assert!((0.2..=0.25).contains(&largest), "{name} reaches {largest}, its bound is 0.25");
        }
    }

    /// One unit, one step, all weights 1 and biases 0: gates see x = 1, so that
    /// c = sigmoid(1) tanh(1) and the output is sigmoid(1) tanh(c).
    #[test]
    fn one_step_by_hand() {
        let vs = VarStore::new(Device::Cpu);
        let lstm = Lstm::new(&vs.root(), 1, 1);
        let _guard = tch::no_grad_guard();
        for (name, mut variable) in vs.variables() {
            let _ = variable.fill_(if name.starts_with("weight") { 1.0 } else { 0.0 });
        }
        let got = lstm.forward(&Tensor::ones([1, 1, 1], (Kind::Float, Device::Cpu)), false);
        let gate = 1.0 / (1.0 + (-1f64).exp());
        let want = gate * (gate * 1f64.tanh()).tanh();
        assert!((got.double_value(&[0, 0, 0]) - want).abs() < 1e-6, "{got} for {want}");
    }

    #[test]
    fn reading_stops_at_the_end_of_each_sample() {
        let x = wave(&[2, 3, 1]).abs() + Tensor::from_slice(&[0f32, 1.0, 9.0]).view([1, 3, 1]);
        let valid = Tensor::from_slice(&[true, true, false, true, true, true]).view([2, 3]);
        let want = Tensor::stack(&[x.get(0).get(1), x.get(1).get(2)], 0);
        assert_close(&last_step(&x, &valid), &want, 0.0);
        assert_close(&max_over_steps(&x, &valid), &want, 0.0); // the sequences rise
    }
}
