//! Prediction on a split under a condition. Nothing here can see a label.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use cumdf_data::{EvalSet, Inputs, ModalitySet, View};
use cumdf_model::{
    Cumdf, Prediction, Predictor,
    checkpoint::{self, Header},
};
use tch::{Device, Tensor, nn::VarStore};

use crate::config::Config;

/// Seed of every evaluation mask: all models, seeds and devices see the same holes.
pub const EVAL_SEED: u64 = 0;

/// Samples predicted at once; it changes no result.
pub const EVAL_BATCH: i64 = 256;

/// Predictions for a whole split, in file order.
#[derive(Debug, Clone, PartialEq)]
pub struct Predictions {
    /// Class probabilities, `[N][C]`.
    pub probs: Vec<Vec<f32>>,
    /// Shares of language, audio, vision, `[N]`; `None` from a model that attributes nothing.
    pub attributions: Option<Vec<[f32; 3]>>,
}

/// The view of a split in which `condition` is present and frames are dropped with `drop_ratio`.
pub fn view(condition: ModalitySet, drop_ratio: f64) -> View {
    View { condition, drop_ratio, seed: EVAL_SEED }
}

/// Predicts every sample of `split` under `view`, without attributions.
///
/// # Errors
/// When the device fails.
pub fn predict(predictor: &dyn Predictor, split: &EvalSet, view: &View) -> Result<Predictions> {
    over_batches(split, view, |inputs| Prediction {
        probs: predictor.predict(inputs),
        attributions: None,
    })
}

/// The same with attributions, where the model has them.
///
/// # Errors
/// When the device fails.
pub fn explain(predictor: &dyn Predictor, split: &EvalSet, view: &View) -> Result<Predictions> {
    over_batches(split, view, |inputs| predictor.explain(inputs))
}

fn over_batches(
    split: &EvalSet,
    view: &View,
    predict: impl Fn(&Inputs) -> Prediction,
) -> Result<Predictions> {
    let (mut rows, mut probs, mut attributions) = (Vec::new(), Vec::new(), Vec::new());
    for (batch_rows, inputs) in split.batches(view, EVAL_BATCH) {
        let prediction = predict(&inputs);
        rows.extend(batch_rows);
        probs.push(prediction.probs);
        attributions.extend(prediction.attributions);
    }
    let in_order = |parts: &[Tensor]| -> Result<Vec<Vec<f32>>> {
        let all = Tensor::f_cat(parts, 0)?.to_device(Device::Cpu);
        let all: Vec<Vec<f32>> = Vec::try_from(all)?;
        let mut ordered = vec![Vec::new(); all.len()];
        for (row, values) in rows.iter().zip(all) {
            ordered[*row] = values;
        }
        Ok(ordered)
    };
    let attributions = match attributions.is_empty() {
        true => None,
        false => Some(in_order(&attributions)?.iter().map(|s| [s[0], s[1], s[2]]).collect()),
    };
    Ok(Predictions { probs: in_order(&probs)?, attributions })
}

/// A network restored from a checkpoint, with what the checkpoint says of it.
pub struct Loaded {
    /// What the file says of itself.
    pub header: Header,
    /// The configuration of the run that wrote it.
    pub config: Config,
    /// The network.
    pub net: Cumdf,
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded").field("header", &self.header).finish_non_exhaustive()
    }
}

/// Restores the network of a checkpoint on `device`.
///
/// # Errors
/// When the file is broken, of another version, or of a model this program does not know.
pub fn load(path: &Path, device: Device) -> Result<Loaded> {
    let checkpoint::Checkpoint { header, tensors } = checkpoint::open(path)?;
    if header.model != crate::pipeline::NETWORK {
        bail!(
            "{} holds the model `{}`, which this program does not know",
            path.display(),
            header.model
        );
    }
    let config: Config = serde_json::from_value(header.config.clone())
        .with_context(|| format!("{}: its configuration", path.display()))?;
    let vs = VarStore::new(device);
    let net = Cumdf::new(&vs.root(), &config.model, &header.data.shape)?;
    checkpoint::restore(&vs, &tensors).with_context(|| path.display().to_string())?;
    Ok(Loaded { header, config, net })
}
