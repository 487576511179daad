//! Recurrences over time with a backward pass of their own.
//!
//! To libtorch's graph a recurrence is a dozen small nodes per step, each with tensors that it
//! keeps and a share of every weight's gradient to add. Here it is one node. What does not wait for
//! the step before (or, backward, after) is computed for all steps at once: the slopes of the gates,
//! and the gradients of the weights as one product.
//!
//! `T` steps of `G` layers that do not read each other are laid out `[T, G, B, ..]`, so that a step
//! is one piece of memory.

use cumdf_autograd::record;
use tch::Tensor;

/// The states of a stack of `G` LSTMs from zeros, `[T, G, B, h]`:
/// `[i; f; g; o] = x_t + W h_{t-1}`, `c_t = s(f) c_{t-1} + s(i) tanh(g)`, `h_t = s(o) tanh(c_t)`.
///
/// - `x`: `[T, G, B, 4h]`, what the inputs add to the gates, biases included
/// - `weight`: `[G, h, 4h]`, transposed recurrent matrices
pub(crate) fn lstm(x: &Tensor, weight: &Tensor) -> Tensor {
    let (states, saved) = tch::no_grad(|| LstmPass::new(x, weight));
    record([x, weight], states, move |grad, [_, of_weight]| {
        let (x, weight) = saved.backward(grad, of_weight);
        [Some(x), weight]
    })
}

/// What an LSTM's backward pass needs of the way forward.
struct LstmPass {
    gates: Tensor,  // [T, G, B, 4h], after their nonlinearities
    cells: Tensor,  // [T, G, B, h]
    tanh_c: Tensor, // [T, G, B, h]
    states: Tensor, // [T, G, B, h]
    weight: Tensor, // [G, h, 4h]
}

impl LstmPass {
    fn new(x: &Tensor, weight: &Tensor) -> (Tensor, Self) {
        let gates = Tensor::empty(x.size(), (x.kind(), x.device()));
        let [cells, tanh_c, states] = [(); 3].map(|()| empty_states(x, weight));
        let part = |from: i64, n: i64| gate(&gates, from, n, 4).unbind(0);
        let (mut i_f, mut g, mut o) = (part(0, 2), part(2, 1), part(3, 1));
        let (i, f) = (part(0, 1), part(1, 1));
        let [x, all] = [x, &gates].map(|t| t.unbind(0));
        let [mut c, tanh, h] = [&cells, &tanh_c, &states].map(|t| t.unbind(0));
        for t in 0..x.len() {
            match t.checked_sub(1) {
                Some(before) => _ = x[t].baddbmm_out(&all[t], &h[before], weight),
                None => all[t].shallow_clone().copy_(&x[t]),
            }
            let _ = (i_f[t].sigmoid_(), g[t].tanh_(), o[t].sigmoid_());
            let _ = i[t].mul_out(&c[t], &g[t]);
            if let Some(before) = t.checked_sub(1) {
                let before = c[before].shallow_clone();
                let _ = c[t].addcmul_(&f[t], &before);
            }
            let _ = c[t].tanh_out(&tanh[t]);
            let _ = o[t].mul_out(&h[t], &tanh[t]);
        }
        let saved = Self { gates, cells, tanh_c, states: states.detach(), weight: weight.detach() };
        (states, saved)
    }

    /// From `dL/dh [T, G, B, h]` to `dL/dx` and, if wanted, `dL/dW`.
    fn backward(&self, grad: &Tensor, of_weight: bool) -> (Tensor, Option<Tensor>) {
        let [i, f, g, o] = [0, 1, 2, 3].map(|k| gate(&self.gates, k, 1, 4));
        // For every gate the slope by which dL/dc (i, f, g) or dL/dh (o) reaches it; turned into
        // the gradients step by step.
        let found = Tensor::empty(self.gates.size(), (grad.kind(), grad.device()));
        let slope = |k: i64| gate(&found, k, 1, 4);
        let later = grad.size()[0] - 1;
        let _ = Tensor::sigmoid_backward_grad_input(&slope(0), &g, &i);
        let _ = slope(1).get(0).zero_();
        let _ = Tensor::sigmoid_backward_grad_input(
            &slope(1).narrow(0, 1, later),
            &self.cells.narrow(0, 0, later),
            &f.narrow(0, 1, later),
        );
        let _ = Tensor::tanh_backward_grad_input(&slope(2), &i, &g);
        let _ = Tensor::sigmoid_backward_grad_input(&slope(3), &self.tanh_c, &o);
        let by_h = Tensor::tanh_backward(&o, &self.tanh_c).unbind(0); // dc/dh

        let shape: Vec<i64> = [&grad.size()[..3], &[3, -1]].concat();
        let mut by_c = gate(&found, 0, 3, 4).view(&shape[..]).unbind(0); // [G, B, 3, h] each
        let mut by_o = slope(3).unbind(0);
        let [all, f, grad] = [&found, &f, grad].map(|t| t.unbind(0));
        let back = self.weight.transpose(1, 2); // [G, 4h, h]
        let mut dc = by_h[0].zeros_like();
        for t in (0..all.len()).rev() {
            let dh = match all.get(t + 1) {
                Some(after) => grad[t].baddbmm(after, &back, 1.0, 1.0),
                None => grad[t].shallow_clone(),
            };
            let _ = dc.addcmul_(&dh, &by_h[t]);
            let _ = by_c[t].g_mul_(&dc.unsqueeze(-2));
            let _ = by_o[t].g_mul_(&dh);
            let _ = dc.g_mul_(&f[t]);
        }
        let weight = of_weight.then(|| weight_gradient(&self.states, &found));
        (found, weight)
    }
}

/// The states of a stack of `G` GRUs from zeros, `[T, G, B, h]`: with `a = W h_{t-1} + b`,
/// `[r; z] = s(x_rz + a_rz)`, `n = tanh(x_n + r a_n)`, `h_t = n + z (h_{t-1} - n)`.
///
/// - `x`: `[T, G, B, 3h]`, what the inputs add to the gates, with the input biases
/// - `weight`: `[G, h, 3h]`, transposed recurrent matrices; `bias`: `[G, 1, 3h]`, recurrent
pub(crate) fn gru(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Tensor {
    let (states, saved) = tch::no_grad(|| GruPass::new(x, weight, bias));
    record([x, weight, bias], states, move |grad, [_, of_weight, of_bias]| {
        let (x, recurrent) = saved.backward(grad);
        let weight = of_weight.then(|| weight_gradient(&saved.states, &recurrent));
        let bias = of_bias.then(|| {
            recurrent.sum_dim_intlist([0i64, 2].as_slice(), false, recurrent.kind()).unsqueeze(1)
        });
        [Some(x), weight, bias]
    })
}

/// What a GRU's backward pass needs of the way forward.
struct GruPass {
    gates: Tensor,     // r, z, n, after their nonlinearities, [T, G, B, 3h]
    recurrent: Tensor, // a, [T, G, B, 3h]
    states: Tensor,    // [T, G, B, h]
    weight: Tensor,    // [G, h, 3h]
}

impl GruPass {
    fn new(x: &Tensor, weight: &Tensor, bias: &Tensor) -> (Tensor, Self) {
        let gates = Tensor::empty(x.size(), (x.kind(), x.device()));
        let (recurrent, states) = (gates.empty_like(), empty_states(x, weight));
        let zero = states.get(0).zeros_like();
        let parts = |t: &Tensor| [gate(t, 0, 2, 3), gate(t, 2, 1, 3)].map(|part| part.unbind(0));
        let ([x_rz, x_n], [a_rz, a_n]) = (parts(x), parts(&recurrent));
        let [mut r_z, mut n] = parts(&gates);
        let [r, z] = [0, 1].map(|k| gate(&gates, k, 1, 3).unbind(0));
        let [a, h] = [&recurrent, &states].map(|t| t.unbind(0));
        for t in 0..h.len() {
            let before = t.checked_sub(1).map_or(&zero, |before| &h[before]);
            let _ = bias.baddbmm_out(&a[t], before, weight);
            let _ = x_rz[t].add_out(&r_z[t], &a_rz[t]);
            let _ = r_z[t].sigmoid_();
            let _ = x_n[t].addcmul_out(&n[t], &r[t], &a_n[t]);
            let _ = n[t].tanh_();
            let _ = n[t].lerp_tensor_out(&h[t], before, &z[t]);
        }
        let saved = Self { gates, recurrent, states: states.detach(), weight: weight.detach() };
        (states, saved)
    }

    /// From `dL/dh [T, G, B, h]` to `dL/dx` and `dL/da`.
    fn backward(&self, grad: &Tensor) -> (Tensor, Tensor) {
        let [r, z, n] = [0, 1, 2].map(|k| gate(&self.gates, k, 1, 3));
        // Slopes by which dL/dh (z, n) or dL/dx_n (r) reaches each, turned into the gradients.
        let of_x = Tensor::empty(self.gates.size(), (grad.kind(), grad.device()));
        let of_a = of_x.empty_like();
        let slope = |k: i64| gate(&of_x, k, 1, 3);
        let _ = Tensor::sigmoid_backward_grad_input(&slope(0), &gate(&self.recurrent, 2, 1, 3), &r);
        let before = Tensor::cat(
            &[
                self.states.narrow(0, 0, 1).zeros_like(),
                self.states.narrow(0, 0, grad.size()[0] - 1),
            ],
            0,
        );
        let _ = Tensor::sigmoid_backward_grad_input(&slope(1), &(before - &n), &z);
        let _ = Tensor::tanh_backward_grad_input(&slope(2), &(1.0 - &z), &n);

        let shape: Vec<i64> = [&grad.size()[..3], &[2, -1]].concat();
        let mut by_h = gate(&of_x, 1, 2, 3).view(&shape[..]).unbind(0); // z, n: [G, B, 2, h] each
        let [mut x_r, x_n, x_rz] =
            [slope(0), slope(2), gate(&of_x, 0, 2, 3)].map(|part| part.unbind(0));
        let (mut a_rz, a_n) = (gate(&of_a, 0, 2, 3).unbind(0), gate(&of_a, 2, 1, 3).unbind(0));
        let [a, r, z, grad] = [&of_a, &r, &z, grad].map(|t| t.unbind(0));
        let back = self.weight.transpose(1, 2); // [G, 3h, h]
        let mut after: Option<Tensor> = None; // dL/dh of the step after
        for t in (0..a.len()).rev() {
            let dh = match after {
                Some(dh) => grad[t].baddbmm(&a[t + 1], &back, 1.0, 1.0).addcmul_(&z[t + 1], &dh),
                None => grad[t].shallow_clone(),
            };
            let _ = by_h[t].g_mul_(&dh.unsqueeze(-2));
            let _ = x_r[t].g_mul_(&x_n[t]);
            a_rz[t].copy_(&x_rz[t]);
            let _ = x_n[t].mul_out(&a_n[t], &r[t]);
            after = Some(dh);
        }
        (of_x, of_a)
    }
}

/// Uninitialised states `[T, G, B, h]` for `x [T, G, B, ..]`.
fn empty_states(x: &Tensor, weight: &Tensor) -> Tensor {
    let (t, g, b, _) = x.size4().expect("x is [T, G, B, gates]");
    Tensor::empty([t, g, b, weight.size()[1]], (x.kind(), x.device()))
}

/// `n` gates from number `from` of `all` that lie beside each other.
fn gate(gates: &Tensor, from: i64, n: i64, all: i64) -> Tensor {
    let hidden = gates.size()[3] / all;
    gates.narrow(-1, from * hidden, n * hidden)
}

/// The gradient of `W [G, h, gates]`, which every state but the last was multiplied by.
///
/// - `states`: `[T, G, B, h]`; `gates`: `[T, G, B, gates]`, gradients of the products
fn weight_gradient(states: &Tensor, gates: &Tensor) -> Tensor {
    let later = states.size()[0] - 1;
    let rows = |t: Tensor| {
        let (steps, g, b, width) = t.size4().expect("[T, G, B, width]");
        t.transpose(0, 1).reshape([g, steps * b, width])
    };
    let (before, gates) = (rows(states.narrow(0, 0, later)), rows(gates.narrow(0, 1, later)));
    before.transpose(1, 2).bmm(&gates)
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;
    use crate::testing::{assert_close, wave};

    /// The states by libtorch's own graph.
    type Plain = fn(&Tensor, &Tensor, &Tensor) -> Tensor;

    fn plain_lstm(x: &Tensor, weight: &Tensor, _bias: &Tensor) -> Tensor {
        let mut state: Option<(Tensor, Tensor)> = None;
        let step = |x: Tensor| {
            let gates = match &state {
                Some((h, _)) => x + h.matmul(weight),
                None => x,
            };
            let gates = gates.chunk(4, -1);
            let [i, f, o] = [0, 1, 3].map(|k| gates[k].sigmoid());
            let kept = state.as_ref().map_or(f.zeros_like(), |(_, c)| f * c);
            let c = kept + i * gates[2].tanh();
            let h = o * c.tanh();
            state = Some((h.shallow_clone(), c));
            h
        };
        Tensor::stack(&x.unbind(0).into_iter().map(step).collect::<Vec<_>>(), 0)
    }

    fn plain_gru(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Tensor {
        let mut h = Tensor::zeros([1], (x.kind(), x.device()));
        let mut states = Vec::new();
        for (t, x) in x.unbind(0).iter().enumerate() {
            let a = if t == 0 { bias.expand_as(x) } else { h.matmul(weight) + bias };
            let (x, a) = (x.chunk(3, -1), a.chunk(3, -1));
            let [r, z] = [0, 1].map(|k| (&x[k] + &a[k]).sigmoid());
            let n = (&x[2] + r * &a[2]).tanh();
            h = (1.0 - &z) * n + z * h;
            states.push(h.shallow_clone());
        }
        Tensor::stack(&states, 0)
    }

    /// Outputs and all gradients, of a loss that weighs every state differently.
    fn outcome(states: impl Fn(&[Tensor; 3]) -> Tensor, inputs: [Tensor; 3]) -> Vec<Tensor> {
        let inputs = inputs.map(|t| t.set_requires_grad(true));
        let states = states(&inputs);
        (&states * wave(&states.size()).to_kind(states.kind())).sum(states.kind()).backward();
        let grads = inputs.iter().map(Tensor::grad).filter(Tensor::defined);
        std::iter::once(states.detach()).chain(grads).collect()
    }

    #[test]
    fn states_and_gradients_are_those_of_libtorchs_graph() {
        let lstm: Plain = |x, weight, _| lstm(x, weight);
        for (gates, ours, plain) in [(4, lstm, plain_lstm as Plain), (3, gru, plain_gru)] {
            for [t, g, b, h] in [[6, 2, 3, 5], [1, 1, 2, 3], [2, 1, 1, 1], [5, 1, 4, 6]] {
                let inputs = || {
                    [vec![t, g, b, gates * h], vec![g, h, gates * h], vec![g, 1, gates * h]]
                        .map(|size| wave(&size).to_kind(Kind::Double))
                };
                let got = outcome(|[x, w, bias]| ours(x, w, bias), inputs());
                let want = outcome(|[x, w, bias]| plain(x, w, bias), inputs());
                // At T = 1 the plain graph does not reach the weight: its gradient is zero.
                let (got, unreached): (Vec<_>, Vec<_>) =
                    got.into_iter().partition(|grad| t > 1 || grad.size() != [g, h, gates * h]);
                assert_eq!(got.len(), want.len());
                got.iter().zip(&want).for_each(|(got, want)| assert_close(got, want, 1e-12));
                assert!(unreached.iter().all(|grad| !bool::try_from(grad.any()).unwrap()));
            }
        }
    }

    #[test]
    fn no_step_sees_what_comes_after_it() {
        let (x, weight) = (wave(&[6, 1, 2, 12]), wave(&[1, 3, 12]));
        let bias = Tensor::zeros([1, 1, 12], (Kind::Float, Device::Cpu));
        let ours: [Plain; 2] = [|x, weight, _| lstm(x, weight), gru];
        for (ours, gates) in ours.into_iter().zip([4, 3]) {
            let [x, weight, bias] = [&x, &weight, &bias].map(|t| t.narrow(-1, 0, 3 * gates));
            let (all, first) = (ours(&x, &weight, &bias), ours(&x.narrow(0, 0, 4), &weight, &bias));
            assert_close(&all.narrow(0, 0, 4), &first, 0.0);
        }
    }
}
