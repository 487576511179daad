//! A split's features on the device: standardised once, gathered into batches without touching the
//! host again.
//!
//! A pass over a split draws all its masks on the CPU and uploads them, with the order, in one
//! piece each; a batch is then a few `index_select`s. Nothing here waits for the device.

use std::ops::Range;

use anyhow::{Result, ensure};
use tch::{Device, Kind, Tensor};

use crate::order::Plan;
use crate::{FeatureStats, Inputs, Modality, ModalitySet, SampleKey, Samples, Split};

/// One pass over a split: its order and masks, uploaded.
pub(crate) struct Pass<'a> {
    resident: &'a Resident,
    pub(crate) plan: Plan,
    order: Tensor,         // [N] i64
    masks: Option<Tensor>, // [N, 3, T] bool, in the pass's order
}

impl<'a> Pass<'a> {
    pub(crate) fn new(resident: &'a Resident, plan: Plan, masks: Option<Tensor>) -> Self {
        let order: Vec<i64> = plan.order.iter().map(|sample| *sample as i64).collect();
        let order = Tensor::from_slice(&order).to_device(resident.valid.device());
        Self { resident, plan, order, masks }
    }

    /// Positions (on host and device), longest length and mask of one batch.
    pub(crate) fn batch(&self, cut: Range<usize>) -> (Vec<usize>, Tensor, i64, Option<Tensor>) {
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
    pub(crate) steps: i64,
    pub(crate) features: [Tensor; 3], // [N, T_m, d_m]
    pub(crate) valid: Tensor,         // [N, T] bool
    has: Tensor,                      // [N, 3, 1] bool: `present`
    pub(crate) lengths: Vec<i64>,
    pub(crate) ids: Vec<String>,
    pub(crate) present: Vec<ModalitySet>, // without the modalities that training never saw
}

impl Resident {
    pub(crate) fn new(
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
                "{split}/{modality} has {dim} features per step, the statistics were taken over \
                 {expected}; use the features that the model was trained on"
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

    pub(crate) fn dims(&self) -> [i64; 3] {
        self.features.each_ref().map(|x| x.size()[2])
    }

    pub(crate) fn available(&self) -> ModalitySet {
        self.present.iter().fold(ModalitySet::EMPTY, |all, set| all.union(*set))
    }

    /// `[N, 3, T]` bool on the device: what `draw` leaves of each sample, in the given order.
    pub(crate) fn masks(
        &self,
        order: &[usize],
        draw: impl Fn(SampleKey<'_>, &mut [bool]),
    ) -> Tensor {
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
