//! A stage of a method's training, as data: the loop asks nobody what they are called.

use cumdf_data::{ModalitySet, MrmsConfig};
use serde_json::Value;

use crate::policy::TrainConfig;

/// One stage: what it is trained on and how, and what chooses its checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// Its name, for example `teacher`: in folders, logs, checkpoints and seeds.
    pub name: &'static str,
    /// Passes over the training split.
    pub epochs: u32,
    /// What training sees of the samples.
    pub sees: Sees,
    /// How it is optimised.
    pub train: TrainConfig,
    /// The validation views whose mean chooses the checkpoint.
    pub judged: Judged,
    /// Every setting of the method that this stage reads: a stage whose settings, seed and data are
    /// the same need not be trained again, whatever else was changed.
    pub settings: Value,
}

/// What training sees of the samples.
#[derive(Debug, Clone, PartialEq)]
pub enum Sees {
    /// All that they have.
    Complete,
    /// Views under MRMS, drawn anew for every sample and epoch; the complete view beside it, for
    /// methods that read both.
    Incomplete(MrmsConfig),
}

impl Sees {
    /// The masks to draw, if any.
    pub fn masks(&self) -> Option<&MrmsConfig> {
        match self {
            Self::Complete => None,
            Self::Incomplete(masks) => Some(masks),
        }
    }
}

/// On which views of the validation split a stage's epochs are compared.
#[derive(Debug, Clone, PartialEq)]
pub enum Judged {
    /// The complete one.
    Complete,
    /// All conditions, of the seven, that validation and training have something of.
    Conditions,
    /// One fixed draw of MRMS.
    Drawn(MrmsConfig),
}

/// The seven conditions, less those that name a modality outside `modalities`.
pub fn conditions(modalities: ModalitySet) -> Vec<ModalitySet> {
    let all = ModalitySet::CONDITIONS.into_iter();
    all.filter(|condition| modalities.contains_all(*condition)).collect()
}
