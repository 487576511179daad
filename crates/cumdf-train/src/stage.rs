//! A stage of a method's training, as data: the loop asks nobody what they are called.

use cumdf_data::{ModalitySet, MrmsConfig};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::policy::{TrainConfig, epochs_problem};

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

/// What a stage is trained on, as a setting: the key `sees`. Every method has a view of its own, and
/// can be trained with the other, which tells what is the method's doing and what the augmentation's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shown {
    /// Complete data.
    Complete,
    /// Views under MRMS, by the table `masks`.
    Masked,
}

impl Shown {
    /// What training sees.
    pub fn sees(self, masks: &MrmsConfig) -> Sees {
        match self {
            Self::Complete => Sees::Complete,
            Self::Masked => Sees::Incomplete(masks.clone()),
        }
    }

    /// The validation view of the same kind: complete, or one fixed draw.
    pub fn judged(self, masks: &MrmsConfig) -> Judged {
        match self {
            Self::Complete => Judged::Complete,
            Self::Masked => Judged::Drawn(masks.clone()),
        }
    }
}

impl Stage {
    /// The only stage of a method, judged on a validation view of the kind that training sees.
    ///
    /// - `settings`: all of the method's, as in [`Stage::settings`]
    pub fn only(
        name: &'static str,
        shown: Shown,
        masks: &MrmsConfig,
        epochs: u32,
        train: &TrainConfig,
        settings: Value,
    ) -> Self {
        let (sees, judged) = (shown.sees(masks), shown.judged(masks));
        Self { name, epochs, sees, train: train.clone(), judged, settings }
    }
}

/// What is wrong with the settings that every method of one stage has, each with its key.
pub fn one_stage_problems(epochs: u32, train: &TrainConfig, masks: &MrmsConfig) -> Vec<String> {
    let mut bad = train.problems("train", epochs);
    bad.extend(epochs_problem("epochs", epochs));
    bad.extend(masks.check().err().map(|err| format!("masks.{err}")));
    bad
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
