//! What the unit tests of several networks share.

use cumdf_data::Inputs;
use tch::{Device, Kind, Tensor, nn::VarStore};

/// A tensor of reproducible values in [-1, 1], no two neighbours alike.
pub(crate) fn wave(shape: &[i64]) -> Tensor {
    let n = shape.iter().product::<i64>();
    (Tensor::arange(n, (Kind::Float, Device::Cpu)) * 1.7).sin().reshape(shape)
}

/// Samples of the given lengths, padded to `steps`, every frame seen.
pub(crate) fn inputs(lengths: &[i64], steps: i64, dims: [i64; 3]) -> Inputs {
    let b = lengths.len() as i64;
    let time = Tensor::arange(steps, (Kind::Int64, Device::Cpu)).unsqueeze(0); // [1, T]
    let valid = time.lt_tensor(&Tensor::from_slice(lengths).unsqueeze(1)); // [B, T]
    let longest = 64; // the same values whatever `steps` is
    let features = dims.map(|d| {
        let x = wave(&[b, longest, d]).narrow(1, 0, steps);
        x.masked_fill(&valid.logical_not().unsqueeze(-1), 0.0)
    });
    Inputs { features, seen: valid.unsqueeze(1).expand([b, 3, steps], true).copy(), valid }
}

/// The `row`-th sample alone, trimmed to its own length.
pub(crate) fn alone(inputs: &Inputs, row: i64) -> Inputs {
    let steps = inputs.valid.get(row).sum(Kind::Int64).int64_value(&[]);
    Inputs {
        features: inputs.features.each_ref().map(|x| x.narrow(0, row, 1).narrow(1, 0, steps)),
        seen: inputs.seen.narrow(0, row, 1).narrow(2, 0, steps),
        valid: inputs.valid.narrow(0, row, 1).narrow(1, 0, steps),
    }
}

/// Hides the modality `m` of the `row`-th sample.
pub(crate) fn hide(inputs: &Inputs, row: i64, m: usize) {
    let _ = inputs.features[m].get(row).zero_();
    let _ = inputs.seen.get(row).get(m as i64).zero_();
}

/// Fails with both tensors when they differ by more than `tolerance` anywhere.
#[track_caller]
pub(crate) fn assert_close(got: &Tensor, want: &Tensor, tolerance: f64) {
    assert!(got.size() == want.size(), "{:?} for {:?}", got.size(), want.size());
    let worst = (got - want).abs().max().double_value(&[]);
    assert!(worst <= tolerance, "off by {worst}\ngot {got}\nwant {want}");
}

/// Gives every weight the values that a [`wave`] has, at the scale it is initialised with. Tests run
/// side by side and share libtorch's generator, so that a seed alone does not tell what one draws.
pub(crate) fn settle(vs: &VarStore) {
    tch::no_grad(|| {
        for name in names(vs) {
            let mut weight = vs.variables()[&name].shallow_clone();
            if weight.dim() >= 2 {
                let fan_in = (weight.numel() as i64 / weight.size()[0]) as f64;
                weight.copy_(&(wave(&weight.size()) / fan_in.sqrt()));
            }
        }
    });
}

/// Fails with the names of variables that `loss` does not reach.
#[track_caller]
pub(crate) fn assert_gradients(vs: &VarStore, loss: &Tensor) {
    assert_gradients_but(vs, loss, &[]);
}

/// The same, without the variables whose gradient is 0 but for rounding, such as a bias before a
/// softmax or a batch normalisation.
#[track_caller]
pub(crate) fn assert_gradients_but(vs: &VarStore, loss: &Tensor, not: &[&str]) {
    loss.backward();
    let reached = |v: &Tensor| {
        let grad = v.grad();
        grad.defined()
            && bool::try_from(grad.isfinite().all()).unwrap()
            && bool::try_from(grad.any()).unwrap()
    };
    let asked = names(vs).into_iter().filter(|name| !not.contains(&name.as_str()));
    let missed = asked.filter(|name| !reached(&vs.variables()[name]));
    assert_eq!(missed.collect::<Vec<_>>(), [""; 0], "no gradient");
}

/// The names of all variables, sorted.
pub(crate) fn names(vs: &VarStore) -> Vec<String> {
    let mut names: Vec<String> = vs.variables().into_keys().collect();
    names.sort();
    names
}

/// The number of trained values.
pub(crate) fn n_parameters(vs: &VarStore) -> usize {
    vs.trainable_variables().iter().map(Tensor::numel).sum()
}
