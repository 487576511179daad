//! Transformer encoders and decoders, those of both cells side by side.
//!
//! A layer is post-norm, `x = LN(x + drop(f(x)))` for each of its parts `f`: attention to itself, in
//! a decoder attention to the memory, a feed-forward network. Attention rectifies what each of its
//! four projections gives, as github.com/hyeonJeongByeon/TransModality has it.
//!
//! The cells never read each other, so one product, one attention and one normalisation serve both:
//! at such sizes a step of training costs what the number of its operations costs. Each cell keeps
//! variables of its own; [`Joined`] gathers them once per pass, in one copy per kind of weight. The
//! narrower feed-forward network is filled up with zeros, which changes nothing.

use std::array::from_fn;

use tch::{Kind, Tensor, nn::Path};

use crate::layers::{LayerNorm, Linear, attention, join_heads};

/// Cells that run side by side, `N` in shapes.
pub(super) const N_CELLS: usize = 2;

/// Added to the logit of a closed key. Finite: a row without an open key would not become NaN.
const CLOSED: f64 = -1e9;

/// PyTorch's default for layer normalisation.
const EPS: f64 = 1e-5;

/// What the blocks of the cells have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    /// Channels `d`.
    pub(super) width: i64,
    /// Attention heads `h`.
    pub(super) n_heads: i64,
    /// Inner width `F` of each cell's feed-forward networks.
    pub(super) ffn: [i64; N_CELLS],
    /// Drop probability of every part's result.
    pub(super) dropout: f64,
}

/// One encoder, or one decoder, of each cell.
#[derive(Debug)]
pub(super) struct Blocks {
    layers: Vec<[Layer; N_CELLS]>,
    sizes: Sizes,
}

impl Blocks {
    /// - `cells`: where each cell keeps this block's variables
    pub(super) fn encoders(cells: &[Path; N_CELLS], n_layers: i64, sizes: Sizes) -> Self {
        Self::new(cells, n_layers, sizes, false)
    }

    /// As [`Blocks::encoders`]; these read a memory too.
    pub(super) fn decoders(cells: &[Path; N_CELLS], n_layers: i64, sizes: Sizes) -> Self {
        Self::new(cells, n_layers, sizes, true)
    }

    fn new(cells: &[Path; N_CELLS], n_layers: i64, sizes: Sizes, decodes: bool) -> Self {
        let layer = |i| {
            from_fn(|c| Layer::new(&(&cells[c] / "layer" / i), sizes.width, sizes.ffn[c], decodes))
        };
        Self { layers: (0..n_layers).map(layer).collect(), sizes }
    }

    /// What the last layers give, `[N, B, T, d]`.
    ///
    /// - `x`: `[N, B, T, d]`, a sequence per cell; `memory`: likewise, for decoders
    /// - `keys`: of [`key_logits`]
    pub(super) fn forward(
        &self,
        x: &Tensor,
        memory: Option<&Tensor>,
        keys: &Tensor,
        train: bool,
    ) -> Tensor {
        let (n, b, t, d) = x.size4().expect("x is [N, B, T, d]");
        let flat = |x: &Tensor| x.reshape([n, b * t, d]);
        let heads = Heads { size: [n * b, t, self.sizes.n_heads, d / self.sizes.n_heads], keys };
        let joined = Joined::new(&self.layers);
        let (mut x, memory) = (flat(x), memory.map(flat));
        for i in 0..self.layers.len() {
            let mut norms = joined.norms.iter().map(|norms| &norms[i]);
            let mut add = |x: &Tensor, part: Tensor| {
                let norm = norms.next().expect("a normalisation for every part");
                norm.forward(&(x + part.dropout(self.sizes.dropout, train)))
            };
            x = add(&x, joined.own.attend(i, &x, None, &heads));
            if let (Some(attention), Some(memory)) = (&joined.memory, &memory) {
                x = add(&x, attention.attend(i, &x, Some(memory), &heads));
            }
            x = add(&x, joined.linear2[i].forward(&joined.linear1[i].forward(&x).relu()));
        }
        x.view([n, b, t, d])
    }
}

/// What is added to the logits of the keys of all cells, `[N B, 1, 1, T]`: padding is closed.
///
/// - `valid`: `[B, T]` bool
pub(super) fn key_logits(valid: &Tensor) -> Tensor {
    let (b, t) = valid.size2().expect("valid is [B, T]");
    let logits = Tensor::zeros([b, t], (Kind::Float, valid.device()));
    let cells = N_CELLS as i64;
    logits.masked_fill(&valid.logical_not(), CLOSED).repeat([cells, 1]).view([cells * b, 1, 1, t])
}

/// One layer of one cell.
#[derive(Debug)]
struct Layer {
    own: Attention,
    memory: Option<Attention>, // of a decoder
    linear1: Linear,           // d -> F
    linear2: Linear,           // F -> d
    norms: Vec<LayerNorm>,     // one after each of the above
}

/// Multi-head attention; four layers d -> d, Glorot-uniform.
#[derive(Debug)]
struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
}

impl Layer {
    fn new(vs: &Path, d: i64, ffn: i64, decodes: bool) -> Self {
        let attention = |name: &str| {
            let linear = |part: &str| Linear::xavier(&(vs / name / part), d, d);
            let [query, key, value, out] = ["query", "key", "value", "out"].map(linear);
            Attention { query, key, value, out }
        };
        let n_parts = if decodes { 3 } else { 2 };
        Self {
            own: attention("own"),
            memory: decodes.then(|| attention("memory")),
            linear1: Linear::new(&(vs / "linear1"), d, ffn),
            linear2: Linear::new(&(vs / "linear2"), ffn, d),
            norms: (1..=n_parts).map(|i| LayerNorm::new(&(vs / format!("norm{i}")), d)).collect(),
        }
    }
}

/// The layers of all cells: for every kind of weight, one entry per layer.
struct Joined {
    own: JoinedAttention,
    memory: Option<JoinedAttention>,
    linear1: Vec<Product>,
    linear2: Vec<Product>,
    norms: Vec<Vec<Norm>>, // per part
}

struct JoinedAttention {
    from_x: Vec<Product>,      // queries, and what else reads the same sequence
    from_memory: Vec<Product>, // keys and values; empty where they read x
    out: Vec<Product>,
}

impl Joined {
    fn new(layers: &[[Layer; N_CELLS]]) -> Self {
        let vectors = |part: &dyn Fn(&Layer) -> Tensor| gather(layers, |layer| vec![part(layer)]);
        let products = |part: &dyn for<'a> Fn(&'a Layer) -> Vec<&'a Linear>| {
            let tensors = |of: fn(&Linear) -> &Tensor| {
                gather(layers, |l| part(l).into_iter().map(|p| of(p).shallow_clone()).collect())
            };
            let weights = tensors(Linear::weight).into_iter().map(|w| w.transpose(1, 2));
            let biases = tensors(Linear::bias).into_iter();
            weights.zip(biases).map(Product::new).collect::<Vec<_>>()
        };
        let own = JoinedAttention {
            from_x: products(&|l| vec![&l.own.query, &l.own.key, &l.own.value]),
            from_memory: Vec::new(),
            out: products(&|l| vec![&l.own.out]),
        };
        let decodes = layers.iter().flatten().any(|layer| layer.memory.is_some());
        let memory = decodes.then(|| {
            fn of(layer: &Layer) -> &Attention {
                layer.memory.as_ref().expect("a decoder's")
            }
            JoinedAttention {
                from_x: products(&|l| vec![&of(l).query]),
                from_memory: products(&|l| vec![&of(l).key, &of(l).value]),
                out: products(&|l| vec![&of(l).out]),
            }
        });
        // Filled up at its inputs, so gathered by them.
        let weights = vectors(&|l| l.linear2.weight().transpose(0, 1));
        let biases = vectors(&|l| l.linear2.bias().shallow_clone());
        let norm = |at: usize| {
            let weights = vectors(&|l| l.norms[at].weight().shallow_clone());
            let biases = vectors(&|l| l.norms[at].bias().shallow_clone());
            weights.into_iter().zip(biases).map(Norm::new).collect()
        };
        Self {
            own,
            memory,
            linear1: products(&|l| vec![&l.linear1]),
            linear2: weights.into_iter().zip(biases).map(Product::new).collect(),
            norms: (0..if decodes { 3 } else { 2 }).map(norm).collect(),
        }
    }
}

/// What `parts` names of every layer, its rows one below the other: per layer `[N, rows, ..]`. A
/// cell with fewer rows than another is filled up with zeros.
fn gather(layers: &[[Layer; N_CELLS]], parts: impl Fn(&Layer) -> Vec<Tensor>) -> Vec<Tensor> {
    let mut parts: Vec<Vec<Tensor>> = layers.iter().flatten().map(parts).collect();
    let height = |parts: &[Tensor]| parts.iter().map(|part| part.size()[0]).sum::<i64>();
    let tallest = parts.iter().map(|parts| height(parts)).max().unwrap_or(0);
    for parts in &mut parts {
        let mut size = parts[0].size();
        size[0] = tallest - height(parts);
        if size[0] > 0 {
            parts.push(parts[0].new_zeros(size, (parts[0].kind(), parts[0].device())));
        }
    }
    let rows: Vec<Tensor> = parts.into_iter().flatten().collect();
    let mut size = vec![layers.len() as i64, N_CELLS as i64, tallest];
    size.extend(&rows[0].size()[1..]);
    Tensor::cat(&rows, 0).view(size.as_slice()).unbind(0)
}

/// `N` linear layers of one size.
#[derive(Debug)]
pub(super) struct Product {
    weight: Tensor, // [N, in, out]
    bias: Tensor,   // [N, 1, out]
}

impl Product {
    /// Of weights `[N, in, out]` and biases `[N, out]`.
    fn new((weight, bias): (Tensor, Tensor)) -> Self {
        Self { weight, bias: bias.unsqueeze(1) }
    }

    /// The layers side by side.
    pub(super) fn of<const N: usize>(layers: &[Linear; N]) -> Self {
        let weight = Tensor::stack(&layers.each_ref().map(Linear::weight), 0).transpose(1, 2);
        Self::new((weight, Tensor::stack(&layers.each_ref().map(Linear::bias), 0)))
    }

    /// `[N, rows, in]` to `[N, rows, out]`.
    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        self.bias.baddbmm(x, &self.weight, 1.0, 1.0)
    }
}

/// `N` layer normalisations of one size.
struct Norm {
    weight: Tensor, // [N, 1, d]
    bias: Tensor,   // [N, 1, d]
}

impl Norm {
    fn new((weight, bias): (Tensor, Tensor)) -> Self {
        Self { weight: weight.unsqueeze(1), bias: bias.unsqueeze(1) }
    }

    /// `x [N, rows, d]` normalised.
    fn forward(&self, x: &Tensor) -> Tensor {
        let none = None::<&Tensor>;
        let size = self.weight.size()[2];
        self.bias.addcmul(&x.layer_norm([size], none, none, EPS, false), &self.weight)
    }
}

/// How rows of all cells are cut into heads, and which keys are open.
struct Heads<'a> {
    size: [i64; 4],   // N B, T, h, d / h
    keys: &'a Tensor, // [N B, 1, 1, T]
}

impl Heads<'_> {
    /// The parts of `x [N, B T, parts d]`, rectified, as heads `[N B, h, T, d / h]`.
    fn split(&self, x: &Tensor, parts: i64) -> Vec<Tensor> {
        let [rows, t, h, width] = self.size;
        x.relu().view([rows, t, parts, h, width]).permute([2, 0, 3, 1, 4]).unbind(0)
    }
}

impl JoinedAttention {
    /// Attention of the layers `i` from `x` to `memory`, or to `x` itself, `[N, B T, d]` all.
    fn attend(&self, i: usize, x: &Tensor, memory: Option<&Tensor>, heads: &Heads) -> Tensor {
        let parts = memory.map_or_else(
            || heads.split(&self.from_x[i].forward(x), 3),
            |memory| {
                let mut parts = heads.split(&self.from_x[i].forward(x), 1);
                parts.extend(heads.split(&self.from_memory[i].forward(memory), 2));
                parts
            },
        );
        let [rows, t, h, _] = heads.size;
        let keys = heads.keys.expand([rows, h, t, t], false);
        let attended = attention(&parts[0], &parts[1], &parts[2], Some(&keys), 0.0);
        self.out[i].forward(&join_heads(&attended).view_as(x)).relu()
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, nn::VarStore};

    use super::*;
    use crate::testing::{assert_close, wave};

    const SIZES: Sizes = Sizes { width: 8, n_heads: 2, ffn: [5, 9], dropout: 0.0 };
    const LENGTHS: [i64; 3] = [4, 1, 3];

    /// A layer of one cell on one sample without padding, as the formulas have it.
    fn plain(layer: &Layer, x: &Tensor, memory: Option<&Tensor>) -> Tensor {
        let attend = |attention: &Attention, x: &Tensor, to: &Tensor| {
            let project = |linear: &Linear, x: &Tensor| linear.forward(x).relu().chunk(2, 1);
            let q = project(&attention.query, x);
            let [k, v] = [&attention.key, &attention.value].map(|linear| project(linear, to));
            let head = |i: usize| {
                let logits = q[i].matmul(&k[i].transpose(0, 1)) / 2.0; // sqrt(8 / 2)
                logits.softmax(1, Kind::Float).matmul(&v[i])
            };
            attention.out.forward(&Tensor::cat(&[head(0), head(1)], 1)).relu()
        };
        let mut norms = layer.norms.iter();
        let mut add = |x: &Tensor, part: Tensor| norms.next().unwrap().forward(&(x + part));
        let mut x = add(x, attend(&layer.own, x, x));
        if let Some(memory) = memory {
            x = add(&x, attend(layer.memory.as_ref().unwrap(), &x, memory));
        }
        let fed = layer.linear2.forward(&layer.linear1.forward(&x).relu());
        add(&x, fed)
    }

    #[test]
    fn cells_side_by_side_are_what_each_is_alone() {
        let time = Tensor::arange(4, (Kind::Int64, Device::Cpu)).unsqueeze(0);
        let valid = time.lt_tensor(&Tensor::from_slice(&LENGTHS).unsqueeze(1));
        let [x, memory] = [1.0, 0.6].map(|by| wave(&[2, 3, 4, 8]) * by);
        for decodes in [false, true] {
            let vs = VarStore::new(Device::Cpu);
            let cells = ["a", "b"].map(|name| vs.root() / name);
            let blocks = Blocks::new(&cells, 2, SIZES, decodes);
            let _guard = tch::no_grad_guard();
            for mut variable in vs.variables().into_values() {
                let spread = variable.randn_like() * 0.3; // biases and normalisations too
                let _ = variable.g_add_(&spread);
            }
            let memory = decodes.then_some(&memory);
            let got = blocks.forward(&x, memory, &key_logits(&valid), false);
            for cell in 0..2 {
                for (row, length) in LENGTHS.into_iter().enumerate() {
                    let own = |x: &Tensor| x.get(cell).get(row as i64).narrow(0, 0, length);
                    let memory = memory.map(own);
                    let want = blocks.layers.iter().fold(own(&x), |x, layers| {
                        plain(&layers[cell as usize], &x, memory.as_ref())
                    });
                    assert_close(&own(&got), &want, 1e-5);
                }
            }
        }
    }
}
