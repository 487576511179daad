//! The attention decoder, whose loop over time is what a step of training costs: whatever can be
//! computed for all steps at once stands outside of it, and several decoders share one loop.

use tch::{
    Kind, Tensor,
    nn::{Init, Path},
};

use super::MctnCell;
use crate::layers::{Linear, lstm_step};

/// Takes a step out of a softmax; what is left of its weight is exactly 0.
const CLOSED: f64 = -1e9;

/// Makes a sequence of the states of another one: in every step a weighted mean of them is the
/// input of an LSTM, whose state becomes a frame. No frame is fed back.
///
/// Variables: `attention.{key,state,score}`, `cell.{weight_ih,weight_hh,bias_ih,bias_hh}`, `out`.
#[derive(Debug)]
pub(super) struct Decoder {
    key: Linear,           // U: h -> a, of the memory
    state: Linear,         // V and b: h -> a, of the decoder's state
    score: Option<Linear>, // w: a -> 1; without it a = 1, and the sum of both is the score
    cell: [Tensor; 4],     // [4h, h], [4h, h], [4h], [4h]; gates in the order i, f, g, o
    out: Linear,           // h -> D
}

impl Decoder {
    pub(super) fn new(vs: &Path, hidden: i64, width: i64, cell: MctnCell) -> Self {
        let attention = vs / "attention";
        let (size, score) = match cell {
            MctnCell::Standard => {
                (hidden, Some(Linear::without_bias(&(&attention / "score"), hidden, 1)))
            }
            MctnCell::Official => (1, None),
        };
        let bound = 1.0 / (hidden as f64).sqrt();
        let init = Init::Uniform { lo: -bound, up: bound };
        let (gates, own) = (4 * hidden, vs / "cell");
        Self {
            key: Linear::without_bias(&(&attention / "key"), hidden, size),
            state: Linear::new(&(&attention / "state"), hidden, size),
            score,
            cell: [
                own.var("weight_ih", &[gates, hidden], init),
                own.var("weight_hh", &[gates, hidden], init),
                own.var("bias_ih", &[gates], init),
                own.var("bias_hh", &[gates], init),
            ],
            out: Linear::new(&(vs / "out"), hidden, width),
        }
    }

    /// The layer behind the frames' first `n` channels, `[n, h]` and `[n]`.
    pub(super) fn channels(&self, n: i64) -> [Tensor; 2] {
        let bias = self.out.bias();
        [self.out.weight().narrow(0, 0, n), bias.narrow(0, 0, n)]
    }

    /// The first `n` channels of the frames of `states [B, T, h]`: `[B, T, n]`.
    pub(super) fn frames(&self, states: &Tensor, n: i64) -> Tensor {
        let [weight, bias] = self.channels(n);
        let frames = states.linear(&weight, Some(&bias));
        match self.score {
            Some(_) => frames,
            None => frames.tanh(),
        }
    }
}

/// The states of several decoders of one kind, `[G, B, T, h]`, over as many steps as they read.
///
/// - `memory`: `[G, B, T, h]`, what each reads; `beyond`: `[B, T]` bool, the steps that none reads
pub(super) fn decode(decoders: &[&Decoder], memory: &Tensor, beyond: &Tensor) -> Tensor {
    unroll(decoders, memory, beyond, &mut |_| {})
}

/// The same; `see` is shown the weights of every step, `[G B, 1, T]`.
fn unroll(
    decoders: &[&Decoder],
    memory: &Tensor,
    beyond: &Tensor,
    see: &mut dyn FnMut(&Tensor),
) -> Tensor {
    let (g, b, t, h) = memory.size4().expect("memory is [G, B, T, h]");
    let stack = |part: &dyn Fn(&Decoder) -> Tensor| {
        Tensor::stack(&decoders.iter().map(|decoder| part(decoder)).collect::<Vec<_>>(), 0)
    };
    let keys = memory.view([g, b * t, h]).bmm(&stack(&|d| d.key.weight().transpose(0, 1)));
    let a = keys.size()[2];
    let keys = keys.view([g, b, t, a]);
    let score = decoders[0].score.is_some().then(|| {
        let weight = |d: &Decoder| d.score.as_ref().expect("of one kind").weight().transpose(0, 1);
        stack(&weight) // [G, a, 1]
    });
    // The state meets two matrices, in one product: the gates' and the attention's.
    let from_state = stack(&|d| {
        Tensor::cat(&[&d.cell[1], d.state.weight()], 0).transpose(0, 1) // [h, 4h + a]
    });
    let bias = stack(&|d| {
        let state = d.state.bias();
        Tensor::cat(&[&d.cell[2] + &d.cell[3], state.shallow_clone()], 0).unsqueeze(0)
    }); // [G, 1, 4h + a]
    let from_context = stack(&|d| d.cell[0].transpose(0, 1)); // [G, h, 4h]
    let closed = (beyond.to_kind(Kind::Float) * CLOSED).view([1, b * t, 1]);
    let memory = memory.view([g * b, t, h]);

    let zeros = Tensor::zeros([g, b, h], (memory.kind(), memory.device()));
    let (mut state, mut cell) = (zeros.shallow_clone(), zeros);
    let mut states = Vec::with_capacity(t as usize);
    for _ in 0..t {
        let read = bias.baddbmm(&state, &from_state, 1.0, 1.0); // [G, B, 4h + a]
        let query = read.narrow(2, 4 * h, a).unsqueeze(2); // [G, B, 1, a]
        let hidden = (&keys + query).view([g, b * t, a]);
        let scores = match &score {
            Some(weight) => closed.baddbmm(&hidden.tanh(), weight, 1.0, 1.0),
            None => hidden + &closed, // the query is one number for all steps: it cancels
        };
        let weights = scores.view([g * b, 1, t]).softmax(-1, Kind::Float);
        see(&weights);
        let context = weights.bmm(&memory).view([g, b, h]);
        let gates = read.narrow(2, 0, 4 * h);
        (state, cell) = match &score {
            Some(_) => lstm_step(&gates, &from_context, Some((context, cell))),
            None => official_step(&gates, &from_context, &context, &cell),
        };
        states.push(state.shallow_clone());
    }
    Tensor::stack(&states, 2)
}

/// One step of the source's cell, from what it kept to its output and what it keeps next. The
/// second quarter of the gates is never read: the input gate does the forgetting too.
///
/// - `gates`: `[G, B, 4h]`, without the context's part; `weight`: `[G, h, 4h]`; `kept`: `[G, B, h]`
fn official_step(
    gates: &Tensor,
    weight: &Tensor,
    context: &Tensor,
    kept: &Tensor,
) -> (Tensor, Tensor) {
    let gates = gates.baddbmm(context, weight, 1.0, 1.0).chunk(4, -1);
    let hard_sigmoid = |x: &Tensor| (x * 0.2 + 0.5).clamp(0.0, 1.0);
    let kept = (hard_sigmoid(&gates[0]) * (kept + gates[2].tanh())).tanh();
    (hard_sigmoid(&gates[3]) * &kept, kept)
}

#[cfg(test)]
mod tests {
    use tch::{Device, nn::VarStore};

    use super::*;
    use crate::testing::{assert_close, wave};

    fn decoder(cell: MctnCell) -> (VarStore, Decoder) {
        let vs = VarStore::new(Device::Cpu);
        let decoder = Decoder::new(&vs.root(), 3, 5, cell);
        (vs, decoder)
    }

    fn beyond(steps: [i64; 2], t: i64) -> Tensor {
        let time = Tensor::arange(t, (Kind::Int64, Device::Cpu)).unsqueeze(0);
        time.ge_tensor(&Tensor::from_slice(&steps).unsqueeze(1))
    }

    /// The weights of every step, `[T, B, T]`.
    fn weights(decoder: &Decoder, memory: &Tensor, beyond: &Tensor) -> Tensor {
        let mut all = Vec::new();
        let _ = unroll(&[decoder], memory, beyond, &mut |weights| all.push(weights.squeeze_dim(1)));
        Tensor::stack(&all, 0)
    }

    /// The score is linear in [memory; state], so the state adds the same to every step.
    #[test]
    fn the_official_cell_attends_alike_in_every_step_and_ours_does_not() {
        let (memory, beyond) = (wave(&[1, 2, 4, 3]), beyond([4, 2], 4));
        for (cell, alike) in [(MctnCell::Official, true), (MctnCell::Standard, false)] {
            let (vs, decoder) = decoder(cell);
            tch::no_grad(|| {
                for (name, mut variable) in vs.variables() {
                    if name.starts_with("attention") {
                        variable.copy_(&(wave(&variable.size()) * 2.0));
                    }
                }
            });
            let weights = weights(&decoder, &memory, &beyond);
            let apart = (weights.get(3) - weights.get(0)).abs().max().double_value(&[]);
            assert_eq!(apart < 1e-6, alike, "{cell:?}: {apart}");
        }
    }

    #[test]
    fn padding_gets_no_weight_at_all() {
        for cell in [MctnCell::Official, MctnCell::Standard] {
            let (_vs, decoder) = decoder(cell);
            let beyond = beyond([4, 1], 4);
            let weights = weights(&decoder, &(wave(&[1, 2, 4, 3]) * 5.0), &beyond);
            let closed = weights.masked_select(&beyond.unsqueeze(0).expand_as(&weights));
            assert!(!bool::try_from(closed.any()).unwrap(), "{closed}");
            let sums = weights.sum_dim_intlist(-1, false, Kind::Float);
            assert_close(&sums, &sums.ones_like(), 1e-6);
        }
    }

    #[test]
    fn decoders_in_one_loop_do_what_each_does_alone() {
        for cell in [MctnCell::Official, MctnCell::Standard] {
            let [(_a, first), (_b, second)] = [(); 2].map(|()| decoder(cell));
            let (memory, beyond) = (wave(&[2, 2, 4, 3]), beyond([4, 3], 4));
            let both = decode(&[&first, &second], &memory, &beyond);
            for (i, decoder) in (0..).zip([&first, &second]) {
                let alone = decode(&[decoder], &memory.narrow(0, i, 1), &beyond);
                assert_close(&both.get(i), &alone.get(0), 1e-6);
            }
        }
    }

    /// One unit, weights 1, biases 0, a memory of one step that is 1: the gates see 1, so that
    /// i = 0.2 + 0.5, the kept value is tanh(0.7 tanh 1) and the output 0.7 of it. In the second
    /// step the gates see 1 + h.
    #[test]
    fn two_official_steps_by_hand() {
        let vs = VarStore::new(Device::Cpu);
        let decoder = Decoder::new(&vs.root(), 1, 1, MctnCell::Official);
        tch::no_grad(|| {
            for (name, mut variable) in vs.variables() {
                let _ = variable.fill_(if name.contains("weight") { 1.0 } else { 0.0 });
            }
        });
        let ones = Tensor::ones([1, 1, 2, 1], (Kind::Float, Device::Cpu));
        let none = Tensor::zeros([1, 2], (Kind::Bool, Device::Cpu));
        let states = decode(&[&decoder], &ones, &none);
        let kept = (0.7 * 1f64.tanh()).tanh();
        let first = 0.7 * kept;
        let gate = 0.2 * (1.0 + first) + 0.5;
        let second = gate * (gate * (kept + (1.0 + first).tanh())).tanh();
        for (step, want) in [(0, first), (1, second)] {
            let got = states.double_value(&[0, 0, step, 0]);
            assert!((got - want).abs() < 1e-6, "step {step}: {got} for {want}");
        }
        let frame = decoder.frames(&states.get(0), 1).double_value(&[0, 0, 0]);
        assert!((frame - first.tanh()).abs() < 1e-6, "{frame}");
    }

    #[test]
    fn the_official_forget_gate_has_no_weights_of_its_own() {
        let (vs, decoder) = decoder(MctnCell::Official);
        let run = || decode(&[&decoder], &wave(&[1, 2, 4, 3]), &beyond([4, 2], 4));
        let before = run();
        tch::no_grad(|| {
            for (name, variable) in vs.variables() {
                if name.starts_with("cell") {
                    let _ = variable.narrow(0, 3, 3).fill_(7.0);
                }
            }
        });
        assert!(run().equal(&before));
    }
}
