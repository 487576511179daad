//! From features to the cube.

use cumdf_data::{Inputs, Modality};
use tch::{
    Device, Tensor,
    nn::{self, Init, Path},
};

use super::{CubeMlpConfig, NORM_EPS, TextEncoder};
use crate::{
    layers::{BiRnn, LayerNorm, Linear, Turn, with_steps},
    shape::Shape,
};

/// The encoders of all modalities, side by side in one loop over time.
#[derive(Debug)]
pub(super) struct Encoders {
    language: Language,
    audio: Gru,
    vision: Gru,
    dropout: f64,
}

#[derive(Debug)]
enum Language {
    Gru(Gru),
    Linear(Linear),
}

impl Encoders {
    pub(super) fn new(vs: &Path, cfg: &CubeMlpConfig, shape: &Shape) -> Self {
        let [language, audio, vision] = Modality::ALL.map(|m| vs / m.name());
        let [d_l, d_a, d_v] = shape.dims;
        let h = cfg.hidden;
        Self {
            language: match cfg.text_encoder {
                TextEncoder::Gru => Language::Gru(Gru::new(&language, d_l, h)),
                TextEncoder::Linear => {
                    Language::Linear(Linear::without_bias(&(language / "linear"), d_l, h))
                }
            },
            audio: Gru::new(&audio, d_a, h),
            vision: Gru::new(&vision, d_v, h),
            dropout: cfg.encoder_dropout,
        }
    }

    /// The cube `[3, B, steps, h]`, zero beyond each sample's length.
    pub(super) fn forward(&self, inputs: &Inputs, steps: i64, train: bool) -> Tensor {
        let turn = Turn::new(&inputs.valid);
        let [language, audio, vision] = inputs.features.each_ref();
        let cube = match &self.language {
            Language::Gru(gru) => {
                Gru::run([gru, &self.audio, &self.vision], [language, audio, vision], &turn).relu()
            }
            Language::Linear(linear) => {
                let heard = Gru::run([&self.audio, &self.vision], [audio, vision], &turn).relu();
                Tensor::cat(&[linear.forward(language).unsqueeze(0), heard], 0)
            }
        }; // [3, B, T of the batch, h]
        let padding = inputs.valid.logical_not().unsqueeze(-1); // [B, T, 1]
        let cube = cube.dropout(self.dropout, train).masked_fill(&padding, 0.0);
        let [m, b, _, h] = <[i64; 4]>::try_from(cube.size()).expect("cube is [3, B, T, h]");
        with_steps(&cube.flatten(0, 1), steps).reshape([m, b, steps, h])
    }
}

/// Two bidirectional recurrent layers, the second on both directions of the first side by side,
/// the second's directions added; then a layer normalisation.
#[derive(Debug)]
struct Gru {
    layers: [BiRnn; 2], // d -> 2 h, 2 h -> 2 h
    norm: LayerNorm,
}

impl Gru {
    fn new(vs: &Path, in_dim: i64, hidden: i64) -> Self {
        let gru = vs / "gru";
        let layers = [(0, in_dim), (1, 2 * hidden)].map(|(layer, in_dim)| {
            let rnn = BiRnn::gru(&gru, layer, in_dim, hidden);
            let _guard = tch::no_grad_guard();
            for matrix in rnn.recurrent() {
                // On the host, where a decomposition needs no library of the device's.
                let init = nn::init(Init::Orthogonal { gain: 1.0 }, &matrix.size(), Device::Cpu);
                matrix.shallow_clone().copy_(&init);
            }
            rnn
        });
        Self { layers, norm: LayerNorm::with_eps(&(vs / "norm"), hidden, NORM_EPS) }
    }

    /// What `N` encoders make of their inputs, `[N, B, T, h]`, normalised; of no meaning beyond
    /// each sample's length.
    ///
    /// - `xs`: `[B, T, d]` per encoder, of the same samples
    fn run<const N: usize>(grus: [&Self; N], xs: [&Tensor; N], turn: &Turn) -> Tensor {
        let first = BiRnn::run(grus.map(|gru| &gru.layers[0]), xs, turn);
        let first = first.map(|both| Tensor::cat(&both, 2)); // [B, T, 2 h]
        let second = BiRnn::run(grus.map(|gru| &gru.layers[1]), first.each_ref(), turn);
        let sums = second.map(|[forward, backward]| forward + backward);
        let x = Tensor::stack(&sums, 0); // [N, B, T, h]
        let hidden = x.size()[3];
        let none = None::<&Tensor>;
        let normal = x.layer_norm([hidden], none, none, NORM_EPS, false);
        let of_each = |part: [&Tensor; N]| Tensor::stack(&part, 0).view([N as i64, 1, 1, hidden]);
        let weight = of_each(grus.map(|gru| gru.norm.weight()));
        let bias = of_each(grus.map(|gru| gru.norm.bias()));
        bias.addcmul(&normal, &weight)
    }
}

#[cfg(test)]
mod tests {
    use tch::{Kind, nn::VarStore};

    use super::*;
    use crate::testing::{assert_close, wave};

    fn valid(lengths: &[i64], steps: i64) -> Tensor {
        let time = Tensor::arange(steps, (Kind::Int64, Device::Cpu)).unsqueeze(0);
        time.lt_tensor(&Tensor::from_slice(lengths).unsqueeze(1))
    }

    #[test]
    fn recurrent_matrices_start_orthogonal() {
        let vs = VarStore::new(Device::Cpu);
        let _gru = Gru::new(&vs.root(), 5, 16);
        let mut seen = 0;
        for (name, matrix) in vs.variables().into_iter().filter(|(n, _)| n.contains("weight_hh")) {
            assert!(matrix.requires_grad(), "{name}");
            let product = matrix.transpose(0, 1).matmul(&matrix); // [h, h]
            assert_close(&product.detach(), &Tensor::eye(16, (Kind::Float, Device::Cpu)), 1e-5);
            seen += 1;
        }
        assert_eq!(seen, 4);
    }

    /// torch's own two layers on each sample cut to its length.
    #[test]
    fn layers_are_those_of_torch_inside_each_length() {
        let vs = VarStore::new(Device::Cpu);
        let grus = [("a", 3), ("v", 4)].map(|(name, d)| Gru::new(&(vs.root() / name), d, 6));
        let (lengths, xs) = ([5, 2, 1], [wave(&[3, 5, 3]), wave(&[3, 5, 4])]);
        let out = Gru::run(grus.each_ref(), xs.each_ref(), &Turn::new(&valid(&lengths, 5)));
        let variables = vs.variables();
        for (at, (name, x)) in ["a", "v"].into_iter().zip(&xs).enumerate() {
            let mut weights = Vec::new();
            for layer in ["l0", "l0_reverse", "l1", "l1_reverse"] {
                for kind in ["weight_ih", "weight_hh", "bias_ih", "bias_hh"] {
                    weights.push(variables[&format!("{name}.gru.{kind}_{layer}")].shallow_clone());
                }
            }
            for (row, length) in lengths.into_iter().enumerate() {
                let alone = x.narrow(0, row as i64, 1).narrow(1, 0, length);
                let zeros = Tensor::zeros([4, 1, 6], (Kind::Float, Device::Cpu));
                let both = alone.gru(&zeros, &weights, true, 2, 0.0, false, true, true).0;
                let sum = both.narrow(2, 0, 6) + both.narrow(2, 6, 6);
                let want = grus[at].norm.forward(&sum);
                let got = out.get(at as i64).narrow(0, row as i64, 1).narrow(1, 0, length);
                assert_close(&got, &want, 1e-5);
            }
        }
    }

    #[test]
    fn an_absent_modality_is_a_confident_constant() {
        let vs = VarStore::new(Device::Cpu);
        let grus = [("a", 3), ("v", 4)].map(|(name, d)| Gru::new(&(vs.root() / name), d, 64));
        let turn = Turn::new(&valid(&[5, 5, 5], 5));
        let absent = Tensor::zeros([3, 5, 4], (Kind::Float, Device::Cpu));
        let out = Gru::run(grus.each_ref(), [&wave(&[3, 5, 3]), &absent], &turn);
        let vision = out.get(1); // [B, T, h]
        for row in 1..3 {
            assert!(vision.get(row).equal(&vision.get(0)), "sample {row} of the absent modality");
            assert!(!out.get(0).get(row).equal(&out.get(0).get(0)), "the other modality");
        }
        let variance = vision.var_dim([2i64].as_slice(), false, false);
        assert_close(&variance, &variance.ones_like(), 1e-2);
    }
}
