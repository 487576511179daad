//! A corpus on the training device: standardised once, gathered into batches without touching the
//! host again.
//!
//! A pass over a split draws all its masks on the CPU and uploads them, with the order, in one
//! piece each; a batch is then a few `index_select`s. Nothing here waits for the device.

use std::ops::Range;

use anyhow::{Result, ensure};
use tch::{Device, Kind, Tensor};

use crate::order::{self, Plan};
use crate::{
    Dataset, EpochOrder, FeatureStats, Inputs, Labels, Modality, ModalitySet, MrmsConfig,
    SampleKey, Samples, Split, Targets, Task, TrainBatch, View,
};

/// A data set ready for training.
#[derive(Debug)]
pub struct Corpus {
    /// The data set's name.
    pub name: String,
    /// What its labels mean.
    pub task: Task,
    /// Steps `T`.
    pub steps: i64,
    /// Features per step `d_m`.
    pub dims: [i64; 3],
    /// Statistics of the training split.
    pub stats: FeatureStats,
    /// The training split, labels included.
    pub train: TrainSet,
    /// The validation split, without labels.
    pub valid: EvalSet,
    /// The test split, without labels.
    pub test: EvalSet,
    labels: [Labels; 3],
}

impl Corpus {
    /// Standardises `dataset` and moves it to `device`.
    ///
    /// - `clip`: standardised values are cut to `-clip..=clip`; 0 cuts nothing
    /// - `soft_labels`: a score becomes the distribution on its two neighbouring bins whose mean is
    ///   the score, instead of its nearest bin alone
    ///
    /// # Errors
    /// When `clip` is negative.
    pub fn prepare(
        dataset: &Dataset,
        clip: f64,
        soft_labels: bool,
        device: Device,
    ) -> Result<Self> {
        let stats = FeatureStats::fit(&dataset.train, clip)?;
        let eval =
            |split| EvalSet::prepare(dataset.split(split), split, dataset.steps, &stats, device);
        Ok(Self {
            name: dataset.name.clone(),
            task: dataset.task.clone(),
            steps: dataset.steps,
            dims: dataset.dims,
            train: TrainSet::prepare(dataset, &stats, soft_labels, device)?,
            valid: eval(Split::Valid)?,
            test: eval(Split::Test)?,
            labels: Split::ALL.map(|split| dataset.split(split).labels.clone()),
            stats,
        })
    }

    /// The labels of a split, for metrics.
    pub fn labels(&self, split: Split) -> &Labels {
        &self.labels[split.index()]
    }

    /// Modalities that a model can see in some sample of a split. One that training never had is
    /// not among them, wherever else it may be present.
    pub fn available(&self, split: Split) -> ModalitySet {
        match split {
            Split::Train => self.train.resident.available(),
            Split::Valid => self.valid.resident.available(),
            Split::Test => self.test.resident.available(),
        }
    }
}

/// A split to predict. Holds no label.
#[derive(Debug)]
pub struct EvalSet {
    resident: Resident,
}

impl EvalSet {
    /// Standardises samples with the statistics of a trained model and moves them to `device`.
    ///
    /// # Errors
    /// When the samples' sizes are not those of `stats`, or their steps are neither `steps` nor 1.
    pub fn prepare(
        samples: &Samples,
        split: Split,
        steps: i64,
        stats: &FeatureStats,
        device: Device,
    ) -> Result<Self> {
        Ok(Self { resident: Resident::new(samples, split, steps, stats, device)? })
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.resident.ids.len()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Names of the samples, in file order.
    pub fn ids(&self) -> &[String] {
        &self.resident.ids
    }

    /// What a model can see of each sample under a complete view, in file order.
    pub fn present(&self) -> &[ModalitySet] {
        &self.resident.present
    }

    /// Every sample once under `view`, sorted by length, in batches of at most `batch_size`. Each
    /// batch comes with the positions of its samples in the split.
    pub fn batches<'a>(
        &'a self,
        view: &View,
        batch_size: i64,
    ) -> impl ExactSizeIterator<Item = (Vec<usize>, Inputs)> + use<'a> {
        let plan = order::by_length(&self.resident.lengths, batch_size);
        let masks = self.resident.masks(&plan.order, |sample, seen| view.draw(sample, seen));
        let mut pass = Pass::new(&self.resident, plan, Some(masks));
        let cuts = std::mem::take(&mut pass.plan.cuts);
        cuts.into_iter().map(move |cut| {
            let (rows, index, longest, seen) = pass.batch(cut);
            (rows, self.resident.gather(&index, longest, seen.as_ref()))
        })
    }
}

/// The training split: features, and the only labels a learner can reach.
#[derive(Debug)]
pub struct TrainSet {
    pub(crate) resident: Resident,
    distribution: Tensor,  // [N, C]
    score: Option<Tensor>, // [N]
}

impl TrainSet {
    fn prepare(
        dataset: &Dataset,
        stats: &FeatureStats,
        soft_labels: bool,
        device: Device,
    ) -> Result<Self> {
        let samples = &dataset.train;
        let distribution = distributions(&samples.labels, &dataset.task, soft_labels);
        let score = match &samples.labels {
            Labels::Scores(scores) => Some(Tensor::from_slice(scores).to_device(device)),
            Labels::Classes(_) => None,
        };
        Ok(Self {
            resident: Resident::new(samples, Split::Train, dataset.steps, stats, device)?,
            distribution: distribution.to_device(device),
            score,
        })
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.resident.ids.len()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Names of the samples, in file order.
    pub fn ids(&self) -> &[String] {
        &self.resident.ids
    }

    /// Number of batches of an epoch.
    pub fn n_batches(&self, batch_size: i64) -> usize {
        order::n_batches(self.len(), batch_size)
    }

    /// One epoch: every sample once, shuffled, with fresh masks. A last batch of one sample joins
    /// the batch before.
    pub fn epoch<'a>(
        &'a self,
        masks: &MrmsConfig,
        order: EpochOrder,
    ) -> impl ExactSizeIterator<Item = TrainBatch<'a>> + use<'a> {
        let plan = order.plan(&self.resident.lengths);
        let masks = self.resident.masks(&plan.order, |sample, seen| {
            masks.draw(order.seed, order.epoch, sample, seen);
        });
        self.pass(plan, Some(masks))
    }

    /// Every sample once, sorted by length, with nothing dropped.
    pub fn complete_batches(
        &self,
        batch_size: i64,
    ) -> impl ExactSizeIterator<Item = TrainBatch<'_>> {
        self.pass(order::by_length(&self.resident.lengths, batch_size), None)
    }

    fn pass(
        &self,
        plan: Plan,
        masks: Option<Tensor>,
    ) -> impl ExactSizeIterator<Item = TrainBatch<'_>> {
        let mut pass = Pass::new(&self.resident, plan, masks);
        let cuts = std::mem::take(&mut pass.plan.cuts);
        cuts.into_iter().map(move |cut| {
            let (rows, index, longest, seen) = pass.batch(cut);
            TrainBatch::new(self, rows, index, longest, seen)
        })
    }

    pub(crate) fn targets(&self, index: &Tensor) -> Targets {
        Targets {
            distribution: self.distribution.index_select(0, index),
            score: self.score.as_ref().map(|score| score.index_select(0, index)),
        }
    }
}

/// One pass over a split: its order and masks, uploaded.
struct Pass<'a> {
    resident: &'a Resident,
    plan: Plan,
    order: Tensor,         // [N] i64
    masks: Option<Tensor>, // [N, 3, T] bool, in the pass's order
}

impl<'a> Pass<'a> {
    fn new(resident: &'a Resident, plan: Plan, masks: Option<Tensor>) -> Self {
        let order: Vec<i64> = plan.order.iter().map(|sample| *sample as i64).collect();
        let order = Tensor::from_slice(&order).to_device(resident.valid.device());
        Self { resident, plan, order, masks }
    }

    /// Positions (on host and device), longest length and mask of one batch.
    fn batch(&self, cut: Range<usize>) -> (Vec<usize>, Tensor, i64, Option<Tensor>) {
        let (start, len) = (cut.start as i64, cut.len() as i64);
        let rows = self.plan.order[cut].to_vec();
        let longest = rows.iter().map(|row| self.resident.lengths[*row]).max().unwrap_or(1);
        let index = self.order.narrow(0, start, len);
        let seen = self.masks.as_ref().map(|masks| {
            masks.narrow(0, start, len).narrow(2, 0, longest).contiguous() // [B, 3, T]
        });
        (rows, index, longest, seen)
    }
}

/// A split's features on the device; absent, padded and non-finite values are 0.
#[derive(Debug)]
pub(crate) struct Resident {
    split: Split,
    steps: i64,
    features: [Tensor; 3], // [N, T_m, d_m]
    valid: Tensor,         // [N, T] bool
    has: Tensor,           // [N, 3, 1] bool: `present`
    lengths: Vec<i64>,
    ids: Vec<String>,
    present: Vec<ModalitySet>, // without the modalities that training never saw
}

impl Resident {
    fn new(
        samples: &Samples,
        split: Split,
        steps: i64,
        stats: &FeatureStats,
        device: Device,
    ) -> Result<Self> {
        let present: Vec<ModalitySet> =
            samples.present.iter().map(|set| set.intersection(stats.trained)).collect();
        let flags: Vec<bool> =
            present.iter().flat_map(|set| Modality::ALL.map(|m| set.contains(m))).collect();
        let has = Tensor::from_slice(&flags).reshape([-1, 3, 1]).to_device(device);
        let lengths = Tensor::from_slice(&samples.lengths).unsqueeze(1); // [N, 1]
        let valid = Tensor::arange(steps, (Kind::Int64, Device::Cpu)).lt_tensor(&lengths);
        let valid = valid.to_device(device);

        let resident = |modality: Modality| -> Result<Tensor> {
            let x = &samples.features[modality.index()];
            let (_, own_steps, dim) = x.size3()?;
            let expected = stats.dims()[modality.index()];
            ensure!(
                dim == expected,
                "{split}/{modality} has {dim} features a step, the statistics were taken over \
                 {expected}; use the features the model was trained on"
            );
            ensure!(
                own_steps == steps || own_steps == 1,
                "{split}/{modality} has {own_steps} steps, expected {steps} or 1"
            );
            let mut z = stats.standardise(modality, &x.to_device(device));
            let has = has.select(1, modality.index() as i64).unsqueeze(-1); // [N, 1, 1]
            let shown = if own_steps == 1 {
                has
            } else {
                valid.narrow(1, 0, own_steps).unsqueeze(-1).logical_and(&has) // [N, T, 1]
            };
            Ok(z.masked_fill_(&shown.logical_not(), 0.0))
        };
        let [language, audio, vision] = Modality::ALL.map(resident);
        Ok(Self {
            split,
            steps,
            features: [language?, audio?, vision?],
            valid,
            has,
            lengths: samples.lengths.clone(),
            ids: samples.ids.clone(),
            present,
        })
    }

    fn available(&self) -> ModalitySet {
        self.present.iter().fold(ModalitySet::EMPTY, |all, set| all.union(*set))
    }

    /// `[N, 3, T]` bool on the device: what `draw` leaves of each sample, in the given order.
    fn masks(&self, order: &[usize], draw: impl Fn(SampleKey<'_>, &mut [bool])) -> Tensor {
        let width = 3 * self.steps as usize;
        let mut seen = vec![false; order.len() * width];
        for (sample, seen) in order.iter().zip(seen.chunks_exact_mut(width)) {
            let key = SampleKey {
                split: self.split,
                id: &self.ids[*sample],
                length: self.lengths[*sample] as usize,
                present: self.present[*sample],
            };
            draw(key, seen);
        }
        let seen = Tensor::from_slice(&seen).reshape([order.len() as i64, 3, self.steps]);
        seen.to_device(self.valid.device())
    }

    /// The inputs of the samples `index`, `[B]`, trimmed to `longest` steps. `seen` is `[B, 3, T]`;
    /// `None` shows everything the samples have.
    pub(crate) fn gather(&self, index: &Tensor, longest: i64, seen: Option<&Tensor>) -> Inputs {
        let valid = self.valid.narrow(1, 0, longest).index_select(0, index); // [B, T]
        let hides = seen.is_some();
        let seen = match seen {
            Some(seen) => seen.shallow_clone(),
            None => valid.unsqueeze(1).logical_and(&self.has.index_select(0, index)), // [B, 3, T]
        };
        let hidden = seen.logical_not();
        let features = Modality::ALL.map(|modality| {
            let x = &self.features[modality.index()];
            let hidden = hidden.select(1, modality.index() as i64).unsqueeze(-1); // [B, T, 1]
            let once = x.size()[1] == 1;
            let x = x.narrow(1, 0, if once { 1 } else { longest }).index_select(0, index);
            match (once, hides) {
                (true, _) => x.expand([-1, longest, -1], false).masked_fill(&hidden, 0.0),
                (false, true) => {
                    let mut x = x;
                    x.masked_fill_(&hidden, 0.0)
                }
                (false, false) => x, // padding and absence are 0 already
            }
        });
        Inputs { features, seen, valid }
    }
}

/// `[N, C]`: what cross-entropy is trained towards.
fn distributions(labels: &Labels, task: &Task, soft: bool) -> Tensor {
    let classes = task.n_classes();
    let mut rows = vec![0f32; labels.len() * classes];
    for (i, row) in rows.chunks_exact_mut(classes).enumerate() {
        match (labels, task) {
            (Labels::Scores(scores), Task::Sentiment { lo, hi }) if soft => {
                let place = scores[i].clamp(*lo as f32, *hi as f32) - *lo as f32;
                let upper = place.fract();
                let bin = place as usize;
                row[bin] = 1.0 - upper;
                if upper > 0.0 {
                    row[bin + 1] = upper;
                }
            }
            (Labels::Scores(scores), _) => row[task.bin(scores[i])] = 1.0,
            (Labels::Classes(flags), _) => {
                let set = flags[i].iter().filter(|flag| **flag).count().max(1) as f32;
                for (share, flag) in row.iter_mut().zip(&flags[i]) {
                    *share = f32::from(*flag) / set;
                }
            }
        }
    }
    Tensor::from_slice(&rows).reshape([-1, classes as i64])
}
