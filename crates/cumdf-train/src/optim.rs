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
use tch::Tensor;

use crate::policy::Clip;

const EPS: f64 = 1e-8; // PyTorch's default
const CLIP_EPS: f64 = 1e-6; // as torch.nn.utils.clip_grad_norm_

/// Weight decay of a [`Group`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WeightDecay {
    /// Strength a step.
    pub strength: f64,
    /// Whether it acts on the weights (AdamW) or is added to the gradient (L2 in Adam).
    pub decoupled: bool,
}

/// Parameters that share a step size and a decay.
#[derive(Debug)]
pub struct Group {
    /// Leaves that require gradients, at least one, in a fixed order.
    pub params: Vec<Tensor>,
    /// What the run's step size is multiplied by.
    pub rate_factor: f64,
    /// Their decay.
    pub decay: WeightDecay,
}

/// Adam over groups of parameters.
#[derive(Debug)]
pub struct Optimizer(Vec<(Adam, f64)>);

impl Optimizer {
    /// Takes over the parameters of all groups.
    ///
    /// - `betas`: decay rates of the running averages of gradient and squared gradient
    pub fn new(groups: Vec<Group>, betas: [f64; 2]) -> Self {
        let adam = |g: Group| (Adam::over(g.params, g.decay, betas), g.rate_factor);
        Self(groups.into_iter().map(adam).collect())
    }

    /// Sets all gradients to zero.
    pub fn zero_grad(&mut self) {
        self.0.iter_mut().for_each(|(adam, _)| adam.zero_grad());
    }

    /// Shortens the gradient as `clip` says, without waiting for the device.
    pub fn clip(&mut self, clip: Clip) {
        let scale =
            |squared: Tensor, most: f64| (most / (squared.sqrt() + CLIP_EPS)).clamp_max(1.0);
        match clip {
            Clip::None => {}
            Clip::Norm(most) => {
                let squares = self.0.iter_mut().map(|(adam, _)| adam.squared_norm());
                let Some(squared) = squares.reduce(|sum, square| sum + square) else { return };
                let scale = scale(squared, most);
                self.0.iter_mut().for_each(|(adam, _)| adam.scale_grad(&scale));
            }
            Clip::NormPerGroup(most) => self.0.iter_mut().for_each(|(adam, _)| {
                let squared = adam.squared_norm();
                adam.scale_grad(&scale(squared, most));
            }),
            Clip::Value(most) => self.0.iter_mut().for_each(|(adam, _)| adam.cut_grad(most)),
        }
    }

    /// One step along the gradients.
    pub fn step(&mut self, learning_rate: f64) {
        self.0.iter_mut().for_each(|(adam, factor)| adam.step(learning_rate * *factor));
    }

    /// The state beside the weights, by name.
    pub fn state(&self) -> BTreeMap<String, Tensor> {
        let groups = self.0.iter().enumerate();
        groups
            .flat_map(|(i, (adam, _))| {
                adam.state().into_iter().map(move |(name, tensor)| (format!("{i}.{name}"), tensor))
            })
            .collect()
    }

    /// Restores what [`Optimizer::state`] gave.
    ///
    /// # Errors
    /// When a part is missing or of another size.
    pub fn restore(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        for (i, (adam, _)) in self.0.iter_mut().enumerate() {
            let prefix = format!("{i}.");
            let own = state.iter().filter_map(|(name, tensor)| {
                Some((name.strip_prefix(&prefix)?.to_owned(), tensor.shallow_clone()))
            });
            adam.restore(&own.collect())?;
        }
        Ok(())
    }
}

/// Adam over one group.
#[derive(Debug)]
struct Adam {
    params: Vec<Param>,
    weights: Tensor,    // flat, what the parameters view
    grads: Tensor,      // flat, what their gradients view once they have one
    exp_avg: Tensor,    // flat
    exp_avg_sq: Tensor, // flat
    n_steps: i64,
    decay: WeightDecay,
    betas: [f64; 2],
}

/// Where one parameter lies in the flat buffers.
#[derive(Debug)]
struct Param {
    tensor: Tensor,
    offset: i64,
    bound: bool, // its gradient is a view into `grads`
}

impl Adam {
    fn over(tensors: Vec<Tensor>, decay: WeightDecay, betas: [f64; 2]) -> Self {
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
            betas,
        }
    }

    fn zero_grad(&mut self) {
        let _guard = tch::no_grad_guard();
        let _ = self.grads.zero_();
    }

    fn squared_norm(&mut self) -> Tensor {
        self.bind();
        let _guard = tch::no_grad_guard();
        self.grads.dot(&self.grads)
    }

    fn scale_grad(&mut self, scale: &Tensor) {
        let _guard = tch::no_grad_guard();
        let _ = self.grads.g_mul_(scale);
    }

    fn cut_grad(&mut self, most: f64) {
        self.bind();
        let _guard = tch::no_grad_guard();
        let _ = self.grads.clamp_(-most, most);
    }

    fn step(&mut self, learning_rate: f64) {
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
        let [beta1, beta2] = self.betas;
        let _ = self.exp_avg.lerp_(&grad, 1.0 - beta1);
        let _ = self.exp_avg_sq.g_mul_scalar_(beta2).addcmul_(&(&grad * (1.0 - beta2)), &grad);
        let correction1 = 1.0 - beta1.powi(self.n_steps as i32);
        let correction2 = 1.0 - beta2.powi(self.n_steps as i32);
        let scale = self.exp_avg_sq.sqrt() / correction2.sqrt() + EPS;
        self.weights -= &self.exp_avg / scale * (learning_rate / correction1);
    }

    fn state(&self) -> BTreeMap<String, Tensor> {
        BTreeMap::from([
            ("exp_avg".into(), self.exp_avg.copy()),
            ("exp_avg_sq".into(), self.exp_avg_sq.copy()),
            ("n_steps".into(), Tensor::from(self.n_steps)),
        ])
    }

    fn restore(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
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
    use tch::{Device, Kind, nn::VarStore};

    use super::*;

    const BETAS: [f64; 2] = [0.9, 0.999];

    fn all(params: [&Tensor; 2], decay: WeightDecay) -> Group {
        Group { params: params.map(Tensor::shallow_clone).into(), rate_factor: 1.0, decay }
    }

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
            let (_vs, slope, offset) = line();
            let decay = WeightDecay { strength: 0.01, decoupled };
            let mut adam = Optimizer::new(vec![all([&offset, &slope], decay)], BETAS);
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
        let (_vs, slope, offset) = line();
        let decay = WeightDecay { strength: 0.0, decoupled: false };
        let mut adam = Optimizer::new(vec![all([&offset, &slope], decay)], BETAS);
        for (factor, want) in [(30.0, 1.0), (0.1, 0.1 * 2f64.sqrt())] {
            adam.zero_grad();
            (&slope * factor).sum(Kind::Float).backward();
            adam.clip(Clip::Norm(1.0));
            let norm = slope.grad().norm().double_value(&[]);
            assert!((norm - want).abs() < 1e-5, "factor {factor}: {norm} for {want}");
        }
    }

    #[test]
    fn groups_and_values_are_clipped_each_for_itself() {
        let (_vs, slope, offset) = line();
        let decay = WeightDecay { strength: 0.0, decoupled: false };
        let group = |t: &Tensor| Group { params: vec![t.shallow_clone()], rate_factor: 1.0, decay };
        let mut adam = Optimizer::new(vec![group(&slope), group(&offset)], BETAS);
        let mut gradients = |clip: Clip| {
            adam.zero_grad();
            ((&slope * Tensor::from_slice(&[3f32, -4.0])).sum(Kind::Float)
                + (&offset * 0.1).sum(Kind::Float))
            .backward();
            adam.clip(clip);
            [slope.grad(), offset.grad()].map(|g| Vec::<f32>::try_from(g).expect("a gradient"))
        };
        let close = |got: &[f32], want: &[f32]| {
            assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-5), "{got:?} {want:?}");
        };
        let [a, b] = gradients(Clip::NormPerGroup(1.0));
        close(&a, &[0.6, -0.8]);
        close(&b, &[0.1]);
        let [a, b] = gradients(Clip::Value(0.6));
        close(&a, &[0.6, -0.6]);
        close(&b, &[0.1]);
        let [a, _] = gradients(Clip::None);
        close(&a, &[3.0, -4.0]);
    }

    #[test]
    fn a_restored_optimizer_goes_on_bit_for_bit() {
        let step = |adam: &mut Optimizer, slope: &Tensor, offset: &Tensor| {
            adam.zero_grad();
            (slope * 3.0 + offset).square().sum(Kind::Float).backward();
            adam.step(0.05);
        };
        let groups = |slope: &Tensor, offset: &Tensor| {
            let group = |tensor: &Tensor, rate_factor| Group {
                params: vec![tensor.shallow_clone()],
                rate_factor,
                decay: WeightDecay { strength: 0.1, decoupled: true },
            };
            vec![group(slope, 1.0), group(offset, 0.1)]
        };
        let (_vs, slope, offset) = line();
        let mut whole = Optimizer::new(groups(&slope, &offset), BETAS);
        step(&mut whole, &slope, &offset);
        let (kept, state) = ([slope.copy(), offset.copy()], whole.state());
        step(&mut whole, &slope, &offset);

        let (_other, mut slope2, mut offset2) = line();
        let mut resumed = Optimizer::new(groups(&slope2, &offset2), BETAS);
        tch::no_grad(|| {
            slope2.copy_(&kept[0]);
            offset2.copy_(&kept[1]);
        });
        resumed.restore(&state).unwrap();
        step(&mut resumed, &slope2, &offset2);
        assert!(slope.equal(&slope2) && offset.equal(&offset2));
        let moved = (&kept[1] - &offset).abs().double_value(&[0]);
        assert!(moved < 0.01, "a tenth of the step size moved the offset by {moved}");
    }
}
