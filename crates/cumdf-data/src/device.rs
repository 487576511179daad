//! A corpus on the training device. The training split has labels to hand out, the others have not:
//! who is given an [`EvalSet`] cannot reach one.

use anyhow::Result;
use tch::{Device, Tensor};

use crate::order::{self, Plan};
use crate::resident::{Pass, Resident};
use crate::{
    Dataset, EpochOrder, FeatureStats, Inputs, Labels, ModalitySet, MrmsConfig, SampleKey, Samples,
    Split, Targets, Task, TrainBatch, View,
};

/// A data set ready for training.
#[derive(Debug)]
pub struct Corpus {
    /// The data set's name.
    pub name: String,
    /// SHA-256 of its file, in hexadecimal.
    pub sha256: String,
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
    present: [ModalitySet; 3],
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
            sha256: dataset.sha256.clone(),
            task: dataset.task.clone(),
            steps: dataset.steps,
            dims: dataset.dims,
            train: TrainSet::prepare(dataset, &stats, soft_labels, device)?,
            valid: eval(Split::Valid)?,
            test: eval(Split::Test)?,
            labels: Split::ALL.map(|split| dataset.split(split).labels.clone()),
            present: Split::ALL.map(|split| dataset.split(split).available()),
            stats,
        })
    }

    /// The split to predict; `None` for the training split, which is no such.
    pub fn eval(&self, split: Split) -> Option<&EvalSet> {
        match split {
            Split::Train => None,
            Split::Valid => Some(&self.valid),
            Split::Test => Some(&self.test),
        }
    }

    /// The labels of a split, for metrics.
    pub fn labels(&self, split: Split) -> &Labels {
        &self.labels[split.index()]
    }

    /// Modalities that some sample of a split has in the file, trained on or not.
    pub fn present(&self, split: Split) -> ModalitySet {
        self.present[split.index()]
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

    /// Longest sequence `T` of the data set, in steps.
    pub fn steps(&self) -> i64 {
        self.resident.steps
    }

    /// Features per step `d_m`.
    pub fn dims(&self) -> [i64; 3] {
        self.resident.dims()
    }

    /// Whether it lies in the host's memory.
    pub fn is_on_cpu(&self) -> bool {
        self.resident.valid.device() == Device::Cpu
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
        self.hidden(plan, &|sample, seen| view.draw(sample, seen))
    }

    /// The same under one fixed draw of training's masks (MRMS), a function of `seed`.
    pub fn drawn_batches<'a>(
        &'a self,
        masks: &MrmsConfig,
        seed: u64,
        batch_size: i64,
    ) -> impl ExactSizeIterator<Item = (Vec<usize>, Inputs)> + use<'a> {
        let plan = order::by_length(&self.resident.lengths, batch_size);
        self.hidden(plan, &|sample, seen| masks.draw(seed, 0, sample, seen))
    }

    fn hidden<'a>(
        &'a self,
        plan: Plan,
        draw: &dyn Fn(SampleKey<'_>, &mut [bool]),
    ) -> impl ExactSizeIterator<Item = (Vec<usize>, Inputs)> + use<'a> {
        let masks = self.resident.masks(&plan.order, draw);
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
    flags: Option<Tensor>, // [N, C]
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
        let (score, flags) = match &samples.labels {
            Labels::Scores(scores) => (Some(Tensor::from_slice(scores)), None),
            Labels::Classes(rows) => {
                let flags: Vec<f32> = rows.iter().flatten().map(|f| f32::from(*f)).collect();
                let flags = Tensor::from_slice(&flags);
                (None, Some(flags.reshape([rows.len() as i64, dataset.task.n_classes() as i64])))
            }
        };
        Ok(Self {
            resident: Resident::new(samples, Split::Train, dataset.steps, stats, device)?,
            distribution: distribution.to_device(device),
            score: score.map(|score| score.to_device(device)),
            flags: flags.map(|flags| flags.to_device(device)),
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

    /// One epoch: every sample once, shuffled, with fresh masks where there are `masks` to draw. A
    /// last batch of one sample joins the batch before.
    pub fn epoch<'a>(
        &'a self,
        masks: Option<&MrmsConfig>,
        order: EpochOrder,
    ) -> impl ExactSizeIterator<Item = TrainBatch<'a>> + use<'a> {
        let plan = order.plan(&self.resident.lengths);
        let masks = masks.map(|masks| {
            self.resident.masks(&plan.order, |sample, seen| {
                masks.draw(order.seed, order.epoch, sample, seen);
            })
        });
        self.pass(plan, masks)
    }

    /// Longest sequence `T` of the data set, in steps.
    pub fn steps(&self) -> i64 {
        self.resident.steps
    }

    /// Features per step `d_m`.
    pub fn dims(&self) -> [i64; 3] {
        self.resident.dims()
    }

    /// Modalities that some training sample has.
    pub fn available(&self) -> ModalitySet {
        self.resident.available()
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

    /// The labels of all samples, in file order.
    pub fn all_targets(&self) -> Targets {
        Targets {
            distribution: self.distribution.shallow_clone(),
            score: self.score.as_ref().map(Tensor::shallow_clone),
            flags: self.flags.as_ref().map(Tensor::shallow_clone),
        }
    }

    pub(crate) fn targets(&self, index: &Tensor) -> Targets {
        self.all_targets().at(index)
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
