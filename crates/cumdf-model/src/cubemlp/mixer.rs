//! The blocks: an MLP along each axis of the cube, one after the other.
//!
//! A cube of `T` steps, `M` modalities and `D` channels lies in memory as `[M, B, T, D]`, where the
//! source has `[B, T, M, D]`. Three modalities make a bad innermost axis: normalising and
//! multiplying hundreds of thousands of rows of three costs several times what it costs as three
//! rows of hundreds of thousands. With the modality in front its MLP also runs on whatever order
//! the other axes are in, and a block copies the cube only to exchange steps and channels.

use tch::{Kind, Tensor, nn::Path};

use super::NORM_EPS;
use crate::layers::{LayerNorm, Linear};

/// MLPs along time, modality and channel, in this order.
#[derive(Debug)]
pub(super) struct Block {
    time: AxisMlp,
    modality: AxisMlp,
    channel: AxisMlp,
}

impl Block {
    /// - `before`, `after`: steps, modalities and channels of the cubes it gets and makes
    pub(super) fn new(vs: &Path, before: [i64; 3], after: [i64; 3], dropout: f64) -> Self {
        let mlp =
            |name, axis: usize| AxisMlp::new(&(vs / name), before[axis], after[axis], dropout);
        Self { time: mlp("time", 0), modality: mlp("modality", 1), channel: mlp("channel", 2) }
    }

    /// A cube `[M, B, T, D]` after each axis: `[M, B, D, T']`, `[M', B, D, T']` and
    /// `[M', B, T', D']`, the block's output. `train` switches dropout on.
    pub(super) fn forward(&self, x: &Tensor, train: bool) -> [Tensor; 3] {
        let time = self.time.rows(&x.transpose(2, 3).contiguous(), train);
        let modality = self.modality.columns(&time, train);
        let channel = self.channel.rows(&modality.transpose(2, 3).contiguous(), train);
        [time, modality, channel]
    }
}

/// `dropout(W2 gelu(W1 norm(x))) + R x` along one axis of any tensor.
#[derive(Debug)]
struct AxisMlp {
    norm: LayerNorm,  // in
    linear1: Linear,  // in -> out
    linear2: Linear,  // out -> out
    residual: Linear, // in -> out, no bias
    dropout: f64,
}

impl AxisMlp {
    fn new(vs: &Path, in_dim: i64, out_dim: i64, dropout: f64) -> Self {
        Self {
            norm: LayerNorm::with_eps(&(vs / "norm"), in_dim, NORM_EPS),
            linear1: Linear::new(&(vs / "linear1"), in_dim, out_dim),
            linear2: Linear::new(&(vs / "linear2"), out_dim, out_dim),
            residual: Linear::without_bias(&(vs / "residual"), in_dim, out_dim),
            dropout,
        }
    }

    /// Along the last axis, `[.., in]` to `[.., out]`.
    fn rows(&self, x: &Tensor, train: bool) -> Tensor {
        let hidden = self.linear1.forward(&self.norm.forward(x)).gelu("none");
        let mixed = self.linear2.forward(&hidden).dropout(self.dropout, train);
        mixed + self.residual.forward(x)
    }

    /// Along the first axis, `[in, ..]` to `[out, ..]`: one column per place of the others.
    fn columns(&self, x: &Tensor, train: bool) -> Tensor {
        let mut size = x.size();
        let x = x.view([size[0], -1]); // [in, N]
        let column_mean = |x: &Tensor| x.mean_dim([0i64].as_slice(), true, Kind::Float); // [1, N]
        let centred = &x - column_mean(&x);
        let scale = (column_mean(&centred.square()) + NORM_EPS).rsqrt();
        let (weight, bias) = (self.norm.weight(), self.norm.bias());
        let normal = centred * scale * weight.unsqueeze(1) + bias.unsqueeze(1);
        let hidden = self.linear1.on_columns(&normal).gelu("none");
        let mixed = self.linear2.on_columns(&hidden).dropout(self.dropout, train);
        size[0] = mixed.size()[0];
        (mixed + self.residual.on_columns(&x)).view(size.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, nn::VarStore};

    use super::*;
    use crate::testing::{assert_close, n_parameters, wave};

    fn output(block: &Block, x: &Tensor) -> Tensor {
        let [_, _, output] = block.forward(x, false);
        output
    }

    #[test]
    fn columns_are_rows_turned() {
        let vs = VarStore::new(Device::Cpu);
        let mlp = AxisMlp::new(&vs.root(), 3, 4, 0.0);
        let _guard = tch::no_grad_guard();
        for (_, mut variable) in vs.variables() {
            let _ = variable.uniform_(-1.0, 1.0); // the normalisation's too
        }
        let x = wave(&[3, 2, 5, 4]) * 3.0 + 1.0;
        let turned = mlp.rows(&x.permute([1, 2, 3, 0]).contiguous(), false);
        assert_close(&mlp.columns(&x, false), &turned.permute([3, 0, 1, 2]), 1e-5);
    }

    /// Two values 1 and 3 along the axis: normalised they are -1 and 1; W1 = 1, b1 = 0.5 on both
    /// sums to 0.5, twice; gelu(0.5) = 0.345731; W2 sums them to 0.691462; R sums x to 4.
    #[test]
    fn one_axis_by_hand() {
        let vs = VarStore::new(Device::Cpu);
        let mlp = AxisMlp::new(&vs.root(), 2, 2, 0.0);
        let _guard = tch::no_grad_guard();
        for (name, mut variable) in vs.variables() {
            let value = match name.as_str() {
                "linear1.bias" => 0.5,
                "linear2.bias" | "norm.bias" => 0.0,
                _ => 1.0,
            };
            let _ = variable.fill_(value);
        }
        let x = Tensor::from_slice(&[1f32, 3.0]);
        let want = Tensor::from_slice(&[4.691_462f32, 4.691_462]);
        assert_close(&mlp.rows(&x.view([1, 2]), false), &want.view([1, 2]), 1e-5);
        assert_close(&mlp.columns(&x.view([2, 1]), false), &want.view([2, 1]), 1e-5);
    }

    /// Makes an axis do nothing: its MLP answers 0 and its residual is the identity.
    fn silence(vs: &VarStore, axis: &str) {
        let _guard = tch::no_grad_guard();
        for (name, mut variable) in vs.variables() {
            if name.starts_with(&format!("{axis}.linear2")) {
                let _ = variable.fill_(0.0);
            } else if name.starts_with(&format!("{axis}.residual")) {
                variable.copy_(&Tensor::eye(variable.size()[0], (Kind::Float, Device::Cpu)));
            }
        }
    }

    #[test]
    fn an_axis_mixes_along_itself_alone() {
        const AXES: [(&str, usize); 3] = [("modality", 0), ("time", 2), ("channel", 3)];
        for (active, along) in AXES {
            let vs = VarStore::new(Device::Cpu);
            let block = Block::new(&vs.root(), [5, 3, 4], [5, 3, 4], 0.1);
            AXES.iter()
                .filter(|(axis, _)| *axis != active)
                .for_each(|(axis, _)| silence(&vs, axis));
            let x = wave(&[3, 2, 5, 4]);
            let touched = x.copy();
            let place = [1i64, 0, 3, 2];
            let _ = place.iter().fold(touched.shallow_clone(), |t, at| t.get(*at)).fill_(7.0);
            let moved = output(&block, &touched).ne_tensor(&output(&block, &x));
            // Everything along the axis, at the touched place of the others, and nothing else.
            let mut want = moved.zeros_like();
            for (axis, at) in place.into_iter().enumerate() {
                if axis != along {
                    let mask = Tensor::zeros([moved.size()[axis]], (Kind::Bool, Device::Cpu));
                    let _ = mask.get(at).fill_(1.0);
                    let mut shape = [1i64; 4];
                    shape[axis] = -1;
                    want = want.logical_or(&mask.logical_not().view(shape));
                }
            }
            assert!(moved.equal(&want.logical_not()), "{active}:\n{moved}");
        }
    }

    #[test]
    fn the_published_mixer_has_68198_values() {
        let vs = VarStore::new(Device::Cpu);
        let cubes = [[50, 3, 128], [50, 3, 128], [10, 3, 32]];
        for (i, pair) in cubes.windows(2).enumerate() {
            let _ = Block::new(&(vs.root() / i as i64), pair[0], pair[1], 0.1);
        }
        assert_eq!(n_parameters(&vs), 68_198);
    }

    /// Nothing is masked: what an axis adds to a zero is not zero.
    #[test]
    fn zeros_take_part() {
        let vs = VarStore::new(Device::Cpu);
        let block = Block::new(&vs.root(), [5, 3, 4], [5, 3, 4], 0.0);
        let x = wave(&[3, 1, 5, 4]);
        let _ = x.narrow(2, 3, 2).fill_(0.0);
        let before = output(&block, &x);
        assert!(before.narrow(2, 3, 2).abs().min().double_value(&[]) > 0.0);
        let _guard = tch::no_grad_guard();
        let weight = vs.variables()["time.norm.weight"].shallow_clone();
        let _ = weight.narrow(0, 3, 2).fill_(0.5); // read at the padding alone
        assert!(!before.equal(&output(&block, &x)), "padding is not read");
    }
}
