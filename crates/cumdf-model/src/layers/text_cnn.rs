//! A convolutional encoder of word sequences, Kim, "Convolutional Neural Networks for Sentence
//! Classification" (EMNLP 2014), as github.com/ZhuoYulang/IF-MMIN has it.
//!
//! Differs from that code, which takes the maximum over every window of the padded batch: there a
//! window that holds nothing but padding counts, with the value `relu(bias)`, and how many there
//! are depends on the longest sample of the batch. A prediction of ours must not depend on its
//! batch-mates, so the windows are those that **start inside the sample**, filled up with zeros
//! where they reach beyond its end. There are `len` of them for every kernel, however short the
//! sample and however far the batch was padded.

use tch::{
    Tensor,
    nn::{Init, Path},
};

use super::{Linear, kaiming_normal};

/// Widths of the windows, in steps.
const KERNELS: [i64; 3] = [3, 4, 5];

/// Convolutions of three widths, ReLU, the maximum over time, dropout, a linear layer, ReLU.
/// Weights are Kaiming-normal and biases 0.
#[derive(Debug)]
pub(crate) struct TextCnn {
    convs: [Window; 3],
    linear: Linear, // 3 filters -> out
    dropout: f64,
}

#[derive(Debug)]
struct Window {
    weight: Tensor, // [filters, d, k]
    bias: Tensor,   // [filters]
}

impl TextCnn {
    /// `filters` per window width.
    pub(crate) fn new(vs: &Path, in_dim: i64, filters: i64, out_dim: i64, dropout: f64) -> Self {
        let convs = KERNELS.map(|k| {
            let vs = vs / format!("conv{k}");
            Window {
                weight: vs.var("weight", &[filters, in_dim, k], kaiming_normal(in_dim * k)),
                bias: vs.var("bias", &[filters], Init::Const(0.0)),
            }
        });
        let linear = Linear::kaiming_normal(&(vs / "linear"), 3 * filters, out_dim);
        Self { convs, linear, dropout }
    }

    /// `x [B, T, d]`, zero wherever `valid [B, T]` bool is false, to `[B, out]`.
    pub(crate) fn forward(&self, x: &Tensor, valid: &Tensor, train: bool) -> Tensor {
        let steps = x.size()[1];
        let beyond = KERNELS[2] - 1; // zeros for the windows that start at the last step
        let x = x.transpose(1, 2).constant_pad_nd([0, beyond]); // [B, d, T + 4]
        let padding = valid.logical_not().unsqueeze(1); // [B, 1, T]
        let pooled = self.convs.each_ref().map(|conv| {
            let windows = x.conv1d(&conv.weight, Some(&conv.bias), 1, 0, 1, 1); // [B, f, >= T]
            // A rectified value is at least 0, so the 0 of a closed window never wins over it.
            let open = windows.narrow(2, 0, steps).relu().masked_fill(&padding, 0.0);
            open.max_dim(2, false).0 // [B, f]
        });
        self.linear.forward(&Tensor::cat(&pooled, 1).dropout(self.dropout, train)).relu()
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, nn::VarStore};

    use super::*;
    use crate::testing::{assert_close, wave};

    /// One filter per width with weights -1 and bias 0.5, then a linear layer that adds them up.
    /// Windows starting inside [-1, -2]: widths 3, 4, 5 all hold sums -3 and -2, so each filter
    /// answers 3.5. On [1, 2] each answers relu(-2 + 0.5) = 0, where a window of padding alone
    /// would have answered 0.5.
    #[test]
    fn windows_start_inside_the_sample_by_hand() {
        let vs = VarStore::new(Device::Cpu);
        let cnn = TextCnn::new(&vs.root(), 1, 1, 1, 0.0);
        let _guard = tch::no_grad_guard();
        for (name, mut variable) in vs.variables() {
            let _ = variable.fill_(match (name.starts_with("conv"), name.ends_with("weight")) {
                (true, true) => -1.0,
                (true, false) => 0.5,
                (false, true) => 1.0,
                (false, false) => 0.0,
            });
        }
        for steps in [2, 3, 9] {
            let x = Tensor::from_slice(&[-1f32, -2.0, 1.0, 2.0]).view([2, 2, 1]);
            let x = x.constant_pad_nd([0, 0, 0, steps - 2]);
            let valid = Tensor::arange(steps, (Kind::Int64, Device::Cpu)).lt(2).repeat([2, 1]);
            let got = cnn.forward(&x, &valid, false);
            let want = Tensor::from_slice(&[10.5f32, 0.0]).view([2, 1]);
            assert_close(&got, &want, 1e-6);
        }
    }

    #[test]
    fn a_single_step_is_enough() {
        let vs = VarStore::new(Device::Cpu);
        let cnn = TextCnn::new(&vs.root(), 4, 8, 6, 0.5);
        let valid = Tensor::ones([1, 1], (Kind::Bool, Device::Cpu));
        let out = cnn.forward(&wave(&[1, 1, 4]), &valid, false);
        assert_eq!(out.size(), [1, 6]);
        assert!(bool::try_from(out.isfinite().all()).unwrap(), "{out}");
    }
}
