//! Adam and AdamW over flat buffers, with a state that can be saved.
//!
//! All parameters of an optimizer become views into one flat tensor, and their gradients views
//! into another, so a step, a clipping and a running average cost a handful of operations on whole
//! buffers, whatever the number of layers, and nothing waits for the device.
//!
//! Kingma and Ba, "Adam", ICLR 2015; Loshchilov and Hutter, "Decoupled Weight Decay
//! Regularization", ICLR 2019; both as `torch.optim` implements them.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use tch::{Tensor, nn::VarStore};

const BETA1: f64 = 0.9; // PyTorch's defaults
const BETA2: f64 = 0.999;
const EPS: f64 = 1e-8;
const CLIP_EPS: f64 = 1e-6; // as torch.nn.utils.clip_grad_norm_

/// Weight decay of an [`Adam`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WeightDecay {
    /// Strength a step.
    pub strength: f64,
    /// Whether it acts on the weights (AdamW) or is added to the gradient (L2 in Adam).
    pub decoupled: bool,
}

/// Adam over a set of parameters.
#[derive(Debug)]
pub struct Adam {
    params: Vec<Param>,
    weights: Tensor,    // flat, what the parameters view
    grads: Tensor,      // flat, what their gradients view once they have one
    exp_avg: Tensor,    // flat
    exp_avg_sq: Tensor, // flat
    n_steps: i64,
    decay: WeightDecay,
}

/// Where one parameter lies in the flat buffers.
#[derive(Debug)]
struct Param {
    tensor: Tensor,
    offset: i64,
    bound: bool, // its gradient is a view into `grads`
}

impl Adam {
    /// Takes over the trainable parameters of `stores`, each in the order of their names.
    pub fn new<'a>(stores: impl IntoIterator<Item = &'a VarStore>, decay: WeightDecay) -> Self {
        let sorted = |vs: &VarStore| -> BTreeMap<_, _> { vs.variables().into_iter().collect() };
        let all = stores.into_iter().flat_map(|vs| sorted(vs).into_values());
        Self::over(all.filter(Tensor::requires_grad).collect(), decay)
    }

    /// Takes over `tensors`, which must be leaves that require gradients, at least one.
    pub fn over(tensors: Vec<Tensor>, decay: WeightDecay) -> Self {
        let _guard = tch::no_grad_guard();
        let flat: Vec<_> = tensors.iter().map(|t| t.detach().reshape([-1])).collect();
        let weights = Tensor::cat(&flat, 0);
        let mut offset = 0;
        let params = tensors
            .into_iter()
            .map(|mut tensor| {
                let size = tensor.numel() as i64;
                tensor.set_data(&weights.narrow(0, offset, size).view_(tensor.size()));
                let param = Param { tensor, offset, bound: false };
                offset += size;
                param
            })
            .collect();
        Self {
            params,
            grads: weights.zeros_like(),
            exp_avg: weights.zeros_like(),
            exp_avg_sq: weights.zeros_like(),
            weights,
            n_steps: 0,
            decay,
        }
    }

    /// Sets all gradients to zero.
    pub fn zero_grad(&mut self) {
        let _guard = tch::no_grad_guard();
        let _ = self.grads.zero_();
    }

    /// Scales the gradient down to the norm `max_norm` where it is longer, without waiting for the
    /// device.
    pub fn clip_norm(&mut self, max_norm: f64) {
        self.bind();
        let _guard = tch::no_grad_guard();
        let scale = (max_norm / (self.grads.norm() + CLIP_EPS)).clamp_max(1.0);
        let _ = self.grads.g_mul_(&scale);
    }

    /// One step along the gradients.
    pub fn step(&mut self, learning_rate: f64) {
        self.bind();
        let _guard = tch::no_grad_guard();
        self.n_steps += 1;
        let WeightDecay { strength, decoupled } = self.decay;
        let grad = if decoupled || strength == 0.0 {
            let _ = self.weights.g_mul_scalar_(1.0 - learning_rate * strength);
            self.grads.shallow_clone()
        } else {
            &self.grads + &self.weights * strength
        };
        let _ = self.exp_avg.lerp_(&grad, 1.0 - BETA1);
        let _ = self.exp_avg_sq.g_mul_scalar_(BETA2).addcmul_(&(&grad * (1.0 - BETA2)), &grad);
        let correction1 = 1.0 - BETA1.powi(self.n_steps as i32);
        let correction2 = 1.0 - BETA2.powi(self.n_steps as i32);
        let scale = self.exp_avg_sq.sqrt() / correction2.sqrt() + EPS;
        self.weights -= &self.exp_avg / scale * (learning_rate / correction1);
    }

    /// All weights as one flat tensor, a copy.
    pub fn weights(&self) -> Tensor {
        self.weights.copy()
    }

    /// The state beside the weights, by name.
    pub fn state(&self) -> BTreeMap<String, Tensor> {
        BTreeMap::from([
            ("exp_avg".into(), self.exp_avg.copy()),
            ("exp_avg_sq".into(), self.exp_avg_sq.copy()),
            ("n_steps".into(), Tensor::from(self.n_steps)),
        ])
    }

    /// Restores what [`Adam::state`] gave.
    ///
    /// # Errors
    /// When a part is missing or of another size.
    pub fn restore(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        let part = |name: &str| {
            state.get(name).with_context(|| format!("the optimizer's state lacks `{name}`"))
        };
        let _guard = tch::no_grad_guard();
        self.exp_avg.f_copy_(part("exp_avg")?)?;
        self.exp_avg_sq.f_copy_(part("exp_avg_sq")?)?;
        self.n_steps = i64::try_from(part("n_steps")?)?;
        Ok(())
    }

    /// Moves gradients that autograd has allocated since into the flat buffer; from then on it
    /// adds to them there.
    fn bind(&mut self) {
        let _guard = tch::no_grad_guard();
        for param in self.params.iter_mut().filter(|p| !p.bound) {
            let mut grad = param.tensor.grad();
            if grad.defined() {
                let mut place = self.grads.narrow(0, param.offset, param.tensor.numel() as i64);
                place.copy_(&grad.reshape([-1]));
                grad.set_data(&place.view_(param.tensor.size()));
                param.bound = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    fn line() -> (VarStore, Tensor, Tensor) {
        let vs = VarStore::new(Device::Cpu);
        let slope = vs.root().var_copy("slope", &Tensor::from_slice(&[1.0f32, -2.0]));
        let offset = vs.root().var_copy("offset", &Tensor::from_slice(&[0.5f32]));
        (vs, slope, offset)
    }

    /// torch 2.11:
    /// ```python
    /// w = torch.tensor([1., -2.], requires_grad=True); b = torch.tensor([.5], requires_grad=True)
    /// o = torch.optim.Adam([b, w], lr=0.1, weight_decay=0.01)   # or AdamW
    /// for x in (1., 3.): o.zero_grad(); ((w * x + b) ** 2).sum().backward(); o.step()
    /// ```
    #[test]
    fn two_steps_are_pytorchs() {
        let l2 = [0.815_846_3, -1.819_590_8, 0.474_337_7];
        let adamw = [0.814_230_2, -1.815_613_5, 0.573_414_2];
        for (decoupled, want) in [(false, l2), (true, adamw)] {
            let (vs, slope, offset) = line();
            let mut adam = Adam::new([&vs], WeightDecay { strength: 0.01, decoupled });
            for x in [1.0, 3.0] {
                adam.zero_grad();
                (&slope * x + &offset).square().sum(Kind::Float).backward();
                adam.step(0.1);
            }
            let got =
                [slope.double_value(&[0]), slope.double_value(&[1]), offset.double_value(&[0])];
            for (got, want) in got.iter().zip(want) {
                assert!((got - want).abs() < 1e-6, "decoupled {decoupled}: {got} for {want}");
            }
        }
    }

    #[test]
    fn a_long_gradient_is_scaled_to_the_norm_and_a_short_one_left_alone() {
        let (vs, slope, _offset) = line();
        let mut adam = Adam::new([&vs], WeightDecay { strength: 0.0, decoupled: false });
        for (factor, want) in [(30.0, 1.0), (0.1, 0.1 * 2f64.sqrt())] {
            adam.zero_grad();
            (&slope * factor).sum(Kind::Float).backward();
            adam.clip_norm(1.0);
            let norm = slope.grad().norm().double_value(&[]);
            assert!((norm - want).abs() < 1e-5, "factor {factor}: {norm} for {want}");
        }
    }

    #[test]
    fn a_restored_optimizer_goes_on_bit_for_bit() {
        let step = |adam: &mut Adam, slope: &Tensor, offset: &Tensor| {
            adam.zero_grad();
            (slope * 3.0 + offset).square().sum(Kind::Float).backward();
            adam.step(0.05);
        };
        let decay = WeightDecay { strength: 0.0, decoupled: false };
        let (vs, slope, offset) = line();
        let mut whole = Adam::new([&vs], decay);
        step(&mut whole, &slope, &offset);
        let (weights, state) = (whole.weights(), whole.state());
        step(&mut whole, &slope, &offset);

        let (vs, slope, offset) = line();
        let mut resumed = Adam::new([&vs], decay);
        resumed.weights.copy_(&weights);
        resumed.restore(&state).unwrap();
        step(&mut resumed, &slope, &offset);
        assert!(whole.weights().equal(&resumed.weights()));
    }
}
