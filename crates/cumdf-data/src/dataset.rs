//! A data set on the host, as its file holds it: nothing is standardised or masked yet.

use std::path::Path;

use anyhow::Result;
use tch::{Kind, Tensor};

use crate::{Labels, Modality, ModalitySet, Split, Task, native};

/// One split of a data set, `N` samples in file order, on the CPU.
#[derive(Debug)]
pub struct Samples {
    /// `[N, T_m, d_m]` f32 per modality, in the file's units; `T_m` is the data set's `T`, or 1 for
    /// a feature of the whole utterance. NaN where the file holds no finite value.
    pub features: [Tensor; 3],
    /// One label per sample.
    pub labels: Labels,
    /// Steps used by each sample, 1 to `T`.
    pub lengths: Vec<i64>,
    /// Names of the samples, unique over the whole data set: masks are drawn from them.
    pub ids: Vec<String>,
    /// Which modalities each sample really has, at least one.
    pub present: Vec<ModalitySet>,
    /// What a synthetic corpus knows about itself.
    pub truth: Option<Truth>,
}

impl Samples {
    /// Number of samples `N`.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// `[N, T_m]` bool: the modality is present and the step lies inside the sample's length. The
    /// one frame of an utterance-level modality counts as inside.
    pub fn real_frames(&self, modality: Modality) -> Tensor {
        let steps = self.features[modality.index()].size()[1];
        let lengths = Tensor::from_slice(&self.lengths).unsqueeze(1); // [N, 1]
        let present: Vec<bool> = self.present.iter().map(|set| set.contains(modality)).collect();
        let inside = Tensor::arange(steps, (Kind::Int64, lengths.device())).lt_tensor(&lengths);
        inside.logical_and(&Tensor::from_slice(&present).unsqueeze(1))
    }

    /// Modalities that at least one sample has.
    pub fn available(&self) -> ModalitySet {
        self.present.iter().fold(ModalitySet::EMPTY, |all, set| all.union(*set))
    }
}

/// What drives each sample of a synthetic corpus, in sample order.
#[derive(Debug)]
pub struct Truth {
    /// How strongly each modality of each sample carries the label, 0 or more.
    pub strength: Vec<[f32; 3]>,
    /// `[N, 3, T]` bool: the steps that carry it; the others are noise.
    pub key_frames: Tensor,
    /// Whether the modality carries another label than the sample's own.
    pub contradicts: Vec<[bool; 3]>,
    /// Mean strength of each modality over the corpus.
    pub signal: [f32; 3],
}

/// Non-finite feature values found on load, in valid frames of present modalities.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Repairs(pub(crate) [[u64; 3]; 3]);

impl Repairs {
    /// Number of values in one split and modality.
    pub fn count(&self, split: Split, modality: Modality) -> u64 {
        self.0[split.index()][modality.index()]
    }

    /// Number of values in the whole file.
    pub fn total(&self) -> u64 {
        self.0.as_flattened().iter().sum()
    }
}

/// A checked data set.
#[derive(Debug)]
pub struct Dataset {
    /// The data set's own name, for titles.
    pub name: String,
    /// What its labels mean.
    pub task: Task,
    /// Steps `T`, the most any modality has.
    pub steps: i64,
    /// Features per step `d_m`.
    pub dims: [i64; 3],
    /// The training split.
    pub train: Samples,
    /// The validation split.
    pub valid: Samples,
    /// The test split.
    pub test: Samples,
    /// What was non-finite in the file.
    pub repairs: Repairs,
    /// SHA-256 of the file in hexadecimal digits; empty for a data set made in memory.
    pub sha256: String,
    /// The program and version that made up a synthetic corpus; `None` for real data.
    pub generator: Option<String>,
    /// What the file was imported from, and by which version; `None` for what was not imported.
    pub source: Option<String>,
}

impl Dataset {
    /// Builds a data set from samples in memory, for importers and generators.
    ///
    /// # Errors
    /// When the samples break a rule of the native layout, as [`Dataset::open`] does.
    pub fn new(name: impl Into<String>, task: Task, splits: [Samples; 3]) -> Result<Self> {
        let [train, valid, test] = splits;
        let shape = |modality: usize, axis: usize| {
            train.features[modality].size().get(axis).copied().unwrap_or(0)
        };
        let dims = [0, 1, 2].map(|m| shape(m, 2));
        let steps = [0, 1, 2].map(|m| shape(m, 1)).into_iter().fold(1, i64::max);
        let mut dataset = Self {
            name: name.into(),
            task,
            steps,
            dims,
            train,
            valid,
            test,
            repairs: Repairs::default(),
            sha256: String::new(),
            generator: None,
            source: None,
        };
        dataset.validate()?;
        dataset.mark_non_finite();
        Ok(dataset)
    }

    /// Reads and checks a file in the native layout.
    ///
    /// # Errors
    /// When the file is missing or not HDF5, or breaks a rule of the layout; the message names the
    /// file, the data set, the sample and what was expected there. Non-finite features are no
    /// error: they become NaN, are counted in [`Dataset::repairs`] and logged.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        native::read(path.as_ref())
    }

    /// Writes the data set in the native layout. The file appears whole or not at all, and equal
    /// data sets give equal bytes.
    ///
    /// # Errors
    /// When the data set breaks a rule of the layout or the file cannot be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        native::write(self, path.as_ref())
    }

    /// The samples of a split.
    pub fn split(&self, split: Split) -> &Samples {
        match split {
            Split::Train => &self.train,
            Split::Valid => &self.valid,
            Split::Test => &self.test,
        }
    }

    /// Turns infinities into NaN and counts what is not finite.
    fn mark_non_finite(&mut self) {
        for split in Split::ALL {
            let samples = match split {
                Split::Train => &mut self.train,
                Split::Valid => &mut self.valid,
                Split::Test => &mut self.test,
            };
            for modality in Modality::ALL {
                let x = &samples.features[modality.index()];
                let finite = x.isfinite();
                if finite.all().int64_value(&[]) == 1 {
                    continue;
                }
                let real = samples.real_frames(modality).unsqueeze(-1); // [N, T_m, 1]
                let bad = finite.logical_not().logical_and(&real).sum(Kind::Int64).int64_value(&[]);
                let marked = x.where_self(&finite, &Tensor::from(f32::NAN));
                samples.features[modality.index()] = marked;
                self.repairs.0[split.index()][modality.index()] = bad as u64;
                if bad > 0 {
                    tracing::warn!(
                        data = self.name,
                        %split,
                        %modality,
                        values = bad,
                        "non-finite feature values will be replaced by the feature's mean"
                    );
                }
            }
        }
    }
}
