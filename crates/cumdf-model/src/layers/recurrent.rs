//! Recurrent layers and the two ways of reading one vector out of them.
//!
//! [`Lstm`] runs over padding too, from the front only, so that no step sees what comes after it:
//! what is read inside a sample's length does not depend on how far its batch was padded. [`BiRnn`]
//! runs backwards too, from each sample's own end ([`Turn`]).

use tch::{
    Kind, Tensor,
    nn::{Init, Path},
};

use super::{Linear, frames, recurrence};

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
    /// libtorch's layers keep what they need only then. On a CPU its backward pass computes the
    /// gradient of the input even where nobody wants it; that of [`recurrence`] does not.
    pub(crate) fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        if train && !x.device().is_cuda() {
            return self.run(&self.read(x));
        }
        let zeros = Tensor::zeros([1, x.size()[0], self.hidden], (x.kind(), x.device()));
        let state = [zeros.shallow_clone(), zeros];
        let weights = self.weights.each_ref().map(Tensor::shallow_clone);
        x.lstm(&state, &weights, true, 1, 0.0, train, false, true).0
    }

    /// What `x [B, T, d]` adds to the gates, biases included, `[B, T, 4h]`.
    pub(crate) fn read(&self, x: &Tensor) -> Tensor {
        frames::product(x, &self.weights[0], Some(&self.bias()), None)
    }

    /// What a step of zeros adds, `[4h]`.
    pub(crate) fn bias(&self) -> Tensor {
        &self.weights[2] + &self.weights[3]
    }

    /// The output of every step, from what [`Lstm::read`] found: `[B, T, 4h]` to `[B, T, h]`.
    pub(crate) fn run(&self, read: &Tensor) -> Tensor {
        let gates = read.transpose(0, 1).contiguous().unsqueeze(1); // [T, 1, B, 4h]
        let weight = self.weights[1].transpose(0, 1).unsqueeze(0);
        recurrence::lstm(&gates, &weight).squeeze_dim(1).transpose(0, 1).contiguous()
    }

    /// The outputs of `N` layers of one width that do not read each other, in one loop over time:
    /// `[N, B, T, d]` to `[N, B, T, h]`.
    pub(crate) fn side_by_side(layers: &[&Self], x: &Tensor) -> Tensor {
        let (n, b, t, d) = x.size4().expect("x is [N, B, T, d]");
        let stack = |part: usize| {
            let parts: Vec<_> = layers.iter().map(|layer| &layer.weights[part]).collect();
            Tensor::stack(&parts, 0)
        };
        let bias = (stack(2) + stack(3)).unsqueeze(1); // [N, 1, 4h]
        let gates = bias.baddbmm(&x.reshape([n, b * t, d]), &stack(0).transpose(1, 2), 1.0, 1.0);
        let gates = gates.view([n, b, t, -1]).permute([2, 0, 1, 3]).contiguous();
        recurrence::lstm(&gates, &stack(1).transpose(1, 2)).permute([1, 2, 0, 3]).contiguous()
    }
}

/// An [`Lstm`] with one linear layer after every state: a modality as a sequence, and as the vector
/// of its last valid step. Variables: `lstm` and, where there is the layer, `out`.
#[derive(Debug)]
pub(crate) struct LstmEncoder {
    lstm: Lstm,          // [B, T, d] -> [B, T, h]
    out: Option<Linear>, // h -> out
}

impl LstmEncoder {
    pub(crate) fn new(vs: &Path, in_dim: i64, hidden: i64, out_dim: i64) -> Self {
        let lstm = Lstm::new(&(vs / "lstm"), in_dim, hidden);
        Self { lstm, out: Some(Linear::new(&(vs / "out"), hidden, out_dim)) }
    }

    /// The same without the layer where it would not change the width.
    pub(crate) fn lean(vs: &Path, in_dim: i64, hidden: i64, out_dim: i64) -> Self {
        if hidden != out_dim {
            return Self::new(vs, in_dim, hidden, out_dim);
        }
        Self { lstm: Lstm::new(&(vs / "lstm"), in_dim, hidden), out: None }
    }

    /// Every step, `[B, T, d]` to `[B, T, out]`; what lies beyond a sample's length means nothing.
    pub(crate) fn seq(&self, x: &Tensor, train: bool) -> Tensor {
        self.project(self.lstm.forward(x, train))
    }

    /// The last valid step, `[B, T, d]` to `[B, out]`.
    ///
    /// - `valid`: `[B, T]` bool, true for the sample's first `len >= 1` steps
    pub(crate) fn last(&self, x: &Tensor, valid: &Tensor, train: bool) -> Tensor {
        self.project(last_step(&self.lstm.forward(x, train), valid))
    }

    fn project(&self, states: Tensor) -> Tensor {
        match &self.out {
            Some(out) => out.forward(&states),
            None => states,
        }
    }
}

/// Turns sequences round inside their own lengths; what lies beyond stays where it is.
#[derive(Debug)]
pub(crate) struct Turn {
    rows: Tensor,   // [B T] i64: where each step of each sample comes from
    beyond: Tensor, // [B, T, 1] bool: padding
}

impl Turn {
    /// - `valid`: `[B, T]` bool, true for the sample's first `len >= 1` steps
    pub(crate) fn new(valid: &Tensor) -> Self {
        let steps = valid.size()[1];
        let time = Tensor::arange(steps, (Kind::Int64, valid.device())).unsqueeze(0); // [1, T]
        let length = valid.sum_dim_intlist([1i64].as_slice(), true, Kind::Int64); // [B, 1]
        let rows = (&length - 1 - &time).where_self(valid, &time); // [B, T]
        let first = Tensor::arange(valid.size()[0], (Kind::Int64, valid.device())) * steps;
        let rows = (rows + first.unsqueeze(1)).flatten(0, 1);
        Self { rows, beyond: valid.logical_not().unsqueeze(-1) }
    }

    /// `x [B, T, d]` turned round; its own inverse.
    pub(crate) fn apply(&self, x: &Tensor) -> Tensor {
        x.flatten(0, 1).index_select(0, &self.rows).view_as(x) // whole rows, not single numbers
    }
}

/// What a [`BiRnn`] is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell {
    Lstm,
    Gru,
}

/// One bidirectional layer of `torch.nn.LSTM` or `torch.nn.GRU` from zero states; every variable
/// uniform in +-1/sqrt(hidden), PyTorch's default.
#[derive(Debug)]
pub(crate) struct BiRnn {
    cell: Cell,
    directions: [[Tensor; 4]; 2], // forward, backward: [Gh, d], [Gh, h], [Gh], [Gh]
    hidden: i64,
}

impl BiRnn {
    /// Gates in PyTorch's order i, f, g, o. `layer` counts from 0 and is part of the names.
    pub(crate) fn lstm(vs: &Path, layer: usize, in_dim: i64, hidden: i64) -> Self {
        Self::new(vs, Cell::Lstm, layer, in_dim, hidden)
    }

    /// Gates in PyTorch's order r, z, n.
    pub(crate) fn gru(vs: &Path, layer: usize, in_dim: i64, hidden: i64) -> Self {
        Self::new(vs, Cell::Gru, layer, in_dim, hidden)
    }

    fn new(vs: &Path, cell: Cell, layer: usize, in_dim: i64, hidden: i64) -> Self {
        let bound = 1.0 / (hidden as f64).sqrt();
        let init = Init::Uniform { lo: -bound, up: bound };
        let gates = hidden * if cell == Cell::Lstm { 4 } else { 3 };
        let directions = ["", "_reverse"].map(|suffix| {
            let var =
                |name: &str, size: &[i64]| vs.var(&format!("{name}_l{layer}{suffix}"), size, init);
            [
                var("weight_ih", &[gates, in_dim]),
                var("weight_hh", &[gates, hidden]),
                var("bias_ih", &[gates]),
                var("bias_hh", &[gates]),
            ]
        });
        Self { cell, directions, hidden }
    }

    /// Channels `h` of each direction.
    pub(crate) fn hidden(&self) -> i64 {
        self.hidden
    }

    /// The recurrent matrices `[Gh, h]`, forward and backward, for another initialisation.
    pub(crate) fn recurrent(&self) -> [&Tensor; 2] {
        self.directions.each_ref().map(|weights| &weights[1])
    }

    /// Outputs of every step of several layers that do not read each other, of one kind and width:
    /// per layer `[B, T, h]` forward and backward, zero beyond each sample's length.
    ///
    /// All run in one loop over time, both directions of every layer in one product: such small
    /// steps cost what their number costs. An input narrower than its layer counts as filled up
    /// with zeros.
    ///
    /// - `xs`: `[B, T, d]` per layer, of the same samples
    pub(crate) fn run<const N: usize>(
        layers: [&Self; N],
        xs: [&Tensor; N],
        turn: &Turn,
    ) -> [[Tensor; 2]; N] {
        let read = layers.iter().zip(xs).map(|(layer, x)| layer.read(x, turn));
        let outs = Self::run_on(&layers, &read.collect::<Vec<_>>(), turn);
        outs.try_into().expect("an output per layer")
    }

    /// What `x [B, T, d]` adds to the gates, biases included: forward and, turned round, backward,
    /// `[B, T, Gh]` each.
    pub(crate) fn read(&self, x: &Tensor, turn: &Turn) -> [Tensor; 2] {
        let d = x.size()[2];
        let xs = [x.shallow_clone(), turn.apply(x)];
        let valid = turn.beyond.squeeze_dim(-1).logical_not(); // turned round or not
        std::array::from_fn(|direction| {
            let (w, bias) = self.input(direction, d);
            frames::product(&xs[direction], &w, Some(&bias), Some(&valid))
        })
    }

    /// The same for the input `x W^T + b`, which may be far wider than `x` and is not made: both
    /// linear maps are one.
    ///
    /// - `x`: `[B, T, k]`; `weight`: `[d, k]`; `bias`: `[d]`
    pub(crate) fn read_through(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        turn: &Turn,
    ) -> [Tensor; 2] {
        let xs = [x.shallow_clone(), turn.apply(x)];
        let valid = turn.beyond.squeeze_dim(-1).logical_not(); // turned round or not
        std::array::from_fn(|direction| {
            let (w, own) = self.input(direction, weight.size()[0]);
            let bias = own.addmv(&w, bias);
            frames::product(&xs[direction], &w.matmul(weight), Some(&bias), Some(&valid))
        })
    }

    /// The input's matrix `[Gh, d]` for the first `d` channels, and what is added to it, `[Gh]`.
    fn input(&self, direction: usize, d: i64) -> (Tensor, Tensor) {
        let [w, _, b_ih, b_hh] = &self.directions[direction];
        let bias = match self.cell {
            Cell::Lstm => b_ih + b_hh,
            Cell::Gru => b_ih.shallow_clone(), // the other is added inside its reset gate
        };
        (w.narrow(1, 0, d), bias)
    }

    /// [`BiRnn::run`] on what each layer made of its input, by [`BiRnn::read`].
    pub(crate) fn run_on(
        layers: &[&Self],
        inputs: &[[Tensor; 2]],
        turn: &Turn,
    ) -> Vec<[Tensor; 2]> {
        let directions = || layers.iter().flat_map(|layer| &layer.directions);
        let weight: Vec<_> = directions().map(|weights| weights[1].transpose(0, 1)).collect();
        let weight = Tensor::stack(&weight, 0); // [2N, h, Gh]
        let inputs: Vec<_> = inputs.iter().flatten().collect(); // [B, T, Gh] each
        let gates = Tensor::stack(&inputs, 0).permute([2, 0, 1, 3]).contiguous(); // [T, 2N, B, Gh]
        let states = match layers[0].cell {
            Cell::Lstm => recurrence::lstm(&gates, &weight),
            Cell::Gru => {
                let bias: Vec<_> = directions().map(|weights| weights[3].unsqueeze(0)).collect();
                recurrence::gru(&gates, &weight, &Tensor::stack(&bias, 0))
            }
        };
        let states = states.permute([1, 2, 0, 3]).contiguous(); // [2N, B, T, h]
        let out = |place: usize| states.get(place as i64).masked_fill(&turn.beyond, 0.0);
        let both = |i: usize| [out(2 * i), turn.apply(&out(2 * i + 1))];
        (0..layers.len()).map(both).collect()
    }
}

/// One step of a stack of LSTMs, from `(h, c) [G, B, h]` or from zeros to the next.
///
/// - `x`: `[G, B, 4h]`; `weight`: `[G, h, 4h]`
pub(crate) fn lstm_step(
    x: &Tensor,
    weight: &Tensor,
    state: Option<(Tensor, Tensor)>,
) -> (Tensor, Tensor) {
    let gates = match &state {
        Some((h, _)) => x.baddbmm(h, weight, 1.0, 1.0),
        None => x.shallow_clone(),
    };
    let gates = gates.chunk(4, -1);
    let [i, f, g, o] = [0, 1, 2, 3].map(|k| &gates[k]);
    let new = i.sigmoid() * g.tanh();
    let c = match state {
        Some((_, c)) => new.addcmul(&f.sigmoid(), &c),
        None => new,
    };
    (o.sigmoid() * c.tanh(), c)
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

    fn valid(lengths: &[i64], steps: i64) -> Tensor {
        let time = Tensor::arange(steps, (Kind::Int64, Device::Cpu)).unsqueeze(0);
        time.lt_tensor(&Tensor::from_slice(lengths).unsqueeze(1))
    }

    /// libtorch's own layer, on one sample of full length.
    fn libtorch(rnn: &BiRnn, x: &Tensor) -> Tensor {
        let zeros = Tensor::zeros([2, 1, rnn.hidden], (Kind::Float, Device::Cpu));
        let weights: Vec<_> = rnn.directions.iter().flatten().map(Tensor::shallow_clone).collect();
        match rnn.cell {
            Cell::Lstm => {
                let state = [zeros.shallow_clone(), zeros];
                x.lstm(&state, &weights, true, 1, 0.0, false, true, true).0
            }
            Cell::Gru => x.gru(&zeros, &weights, true, 1, 0.0, false, true, true).0,
        }
    }

    #[test]
    fn layers_side_by_side_read_each_sample_as_libtorch_reads_it_alone() {
        for make in [BiRnn::lstm, BiRnn::gru] {
            let vs = VarStore::new(Device::Cpu);
            let rnns = [("a", 4), ("b", 3)].map(|(name, d)| make(&(vs.root() / name), 0, d, 5));
            let lengths = [6, 2, 1];
            let xs = [wave(&[3, 6, 4]), wave(&[3, 6, 3])];
            let turn = Turn::new(&valid(&lengths, 6));
            let outs = BiRnn::run(rnns.each_ref(), xs.each_ref(), &turn);
            for ((rnn, x), out) in rnns.iter().zip(&xs).zip(outs) {
                let out = Tensor::cat(&out, 2);
                for (row, length) in lengths.into_iter().enumerate() {
                    let alone = x.narrow(0, row as i64, 1).narrow(1, 0, length);
                    let got = out.narrow(0, row as i64, 1);
                    assert_close(&got.narrow(1, 0, length), &libtorch(rnn, &alone), 1e-6);
                    let beyond = got.narrow(1, length, 6 - length);
                    assert!(!bool::try_from(beyond.any()).unwrap(), "{beyond}");
                }
            }
        }
    }

    #[test]
    fn a_narrow_input_counts_as_filled_up_with_zeros() {
        let vs = VarStore::new(Device::Cpu);
        let rnn = BiRnn::lstm(&vs.root(), 0, 6, 3);
        let (x, turn) = (wave(&[2, 4, 2]), Turn::new(&valid(&[4, 3], 4)));
        let full = x.constant_pad_nd([0, 4]);
        let [narrow] = BiRnn::run([&rnn], [&x], &turn);
        let [wide] = BiRnn::run([&rnn], [&full], &turn);
        narrow.iter().zip(&wide).for_each(|(narrow, wide)| assert_close(narrow, wide, 1e-6));
    }

    #[test]
    fn reading_through_a_linear_layer_is_reading_what_it_makes() {
        let vs = VarStore::new(Device::Cpu);
        let rnn = BiRnn::lstm(&vs.root(), 0, 6, 3); // the layer fills 5 of its 6 channels
        let (x, weight, bias) = (wave(&[2, 4, 2]), wave(&[5, 2]), wave(&[5]));
        let turn = Turn::new(&valid(&[4, 3], 4));
        let made = rnn.read(&x.linear(&weight, Some(&bias)), &turn);
        let through = rnn.read_through(&x, &weight, &bias, &turn);
        made.iter().zip(&through).for_each(|(made, got)| assert_close(got, made, 1e-6));
    }

    #[test]
    fn layers_of_one_direction_run_side_by_side_as_each_alone() {
        let vs = VarStore::new(Device::Cpu);
        let lstms = ["a", "b"].map(|name| Lstm::new(&(vs.root() / name), 4, 3));
        let x = wave(&[2, 3, 5, 4]);
        let together = Lstm::side_by_side(&lstms.each_ref(), &x);
        for (i, lstm) in (0..).zip(&lstms) {
            assert_close(&together.get(i), &lstm.forward(&x.get(i), false), 1e-6);
        }
    }

    #[test]
    fn a_vector_is_the_sequence_at_its_last_valid_step() {
        let vs = VarStore::new(Device::Cpu);
        let encoder = LstmEncoder::new(&vs.root(), 4, 5, 3);
        let (x, valid) = (wave(&[3, 6, 4]), valid(&[6, 2, 1], 6));
        let last = last_step(&encoder.seq(&x, false), &valid);
        assert_close(&encoder.last(&x, &valid, false), &last, 1e-6);
    }

    #[test]
    fn a_lean_encoder_has_no_layer_that_keeps_the_width() {
        for (out_dim, n_variables) in [(5, 4), (3, 6)] {
            let vs = VarStore::new(Device::Cpu);
            let encoder = LstmEncoder::lean(&vs.root(), 4, 5, out_dim);
            assert_eq!(vs.len(), n_variables);
            assert_eq!(encoder.seq(&wave(&[2, 3, 4]), false).size(), [2, 3, out_dim]);
        }
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
