//! A convolutional encoder of word sequences, Kim, "Convolutional Neural Networks for Sentence
//! Classification" (EMNLP 2014), as github.com/ZhuoYulang/IF-MMIN has it.
//!
//! Differs from that code, which takes the maximum over every window of the padded batch: there a
//! window that holds nothing but padding counts, with the value `relu(bias)`, and how many there
//! are depends on the longest sample of the batch. A prediction of ours must not depend on its
//! batch-mates, so the windows are those that **start inside the sample**, filled up with zeros
//! where they reach beyond its end. There are `len` of them for every kernel, however short the
//! sample and however far the batch was padded.

use cumdf_autograd::record;
use tch::{
    Tensor,
    nn::{Init, Path},
};

use super::{Linear, frames, kaiming_normal};

/// Widths of the windows, in steps.
const KERNELS: [i64; 3] = [3, 4, 5];
/// Their steps together.
const TAPS: i64 = KERNELS[0] + KERNELS[1] + KERNELS[2];

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
        self.pool(&self.read(x), valid, train)
    }

    /// What `x [B, T, d]` adds to the windows: per step its products with every step of every
    /// kernel, `[B, T, taps, filters]`. A step of zeros adds zeros.
    pub(crate) fn read(&self, x: &Tensor) -> Tensor {
        let taps = self.convs.each_ref().map(|conv| conv.weight.permute([2, 0, 1])); // [k, f, d]
        let weight = Tensor::cat(&taps, 0).flatten(0, 1); // [taps f, d]
        frames::product(x, &weight, None, None).unflatten(-1, [TAPS, -1])
    }

    /// The vectors `[B, out]` of what [`TextCnn::read`] found.
    pub(crate) fn pool(&self, read: &Tensor, valid: &Tensor, train: bool) -> Tensor {
        let padding = valid.logical_not().unsqueeze(-1).unsqueeze(-1); // [B, T, 1, 1]
        let windows = windows(read).masked_fill(&padding, f64::NEG_INFINITY);
        let bias = Tensor::stack(&self.convs.each_ref().map(|conv| &conv.bias), 0); // [3, f]
        // The bias is the same in every window, and the largest stays the largest under ReLU.
        let pooled = (windows.max_dim(1, false).0 + bias).relu().flatten(1, 2); // [B, 3 f]
        self.linear.forward(&pooled.dropout(self.dropout, train)).relu()
    }
}

/// Sums over the steps of every window, `[B, T, taps, f]` to `[B, T, 3, f]`: the one that starts at
/// step `t` adds up what step `t + j` gave to tap `j`. Its own backward pass, because libtorch's
/// would write a tensor as large as the input for every tap.
fn windows(read: &Tensor) -> Tensor {
    let (b, steps, _, filters) = read.size4().expect("read is [B, T, taps, f]");
    // Taps as (kernel, place in `read`, steps that it lies ahead).
    let first = [0, KERNELS[0], KERNELS[0] + KERNELS[1]];
    let taps = (0i64..).zip(KERNELS).zip(first).flat_map(|((kernel, width), first)| {
        (0..width).map(move |ahead| (kernel, first + ahead, ahead))
    });
    let taps = taps.filter(move |(.., ahead)| *ahead < steps);
    let sums = tch::no_grad(|| {
        let sums = Tensor::zeros([b, steps, 3, filters], (read.kind(), read.device()));
        for (kernel, tap, ahead) in taps.clone() {
            let n = steps - ahead;
            let _ = sums
                .select(2, kernel)
                .narrow(1, 0, n)
                .g_add_(&read.select(2, tap).narrow(1, ahead, n));
        }
        sums
    });
    record([read], sums, move |grad, _| {
        let of_read = Tensor::zeros([b, steps, TAPS, filters], (grad.kind(), grad.device()));
        for (kernel, tap, ahead) in taps.clone() {
            let n = steps - ahead;
            of_read
                .select(2, tap)
                .narrow(1, ahead, n)
                .copy_(&grad.select(2, kernel).narrow(1, 0, n));
        }
        [Some(of_read)]
    })
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
