//! The settings of the networks.

use std::collections::BTreeSet;

use cumdf_data::Modality;
use serde::{Deserialize, Serialize};

use crate::problems;

/// Sizes of an [`Mctn`](super::Mctn). "Source" is the authors' code: `models/trimodals.py` and
/// `seq2seq/` with `configs/hierarchical_mctn.yaml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MctnConfig {
    /// The sources of the networks that are trained and asked: one to three of `language`, `audio`
    /// and `vision`, none twice; their order is of no account. Source: `language` alone. Ours: all
    /// three, so that every condition has a network for it.
    pub sources: Vec<Modality>,
    /// Width `h` of every recurrent layer and of the attention, 1 to 8192 channels. Source: 32.
    pub hidden_dim: i64,
    /// The decoders' cell. Source: `official`. Ours: `standard`.
    pub cell: MctnCell,
}

/// What a decoder's steps are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MctnCell {
    /// An LSTM that attends by `w . tanh(U J_j + V h + b)`, and outputs as they are.
    Standard,
    /// The source's: a forget gate equal to the input gate, hard sigmoids, `tanh(c)` kept in place
    /// of `c`, a score linear in its two arguments, and outputs through a `tanh`.
    Official,
}

impl MctnConfig {
    /// Every value that no network can have, a line each; empty when all is well.
    pub fn problems(&self) -> Vec<String> {
        let mut bad = Vec::new();
        let distinct: BTreeSet<_> = self.sources.iter().collect();
        if self.sources.is_empty() {
            bad.push("model.sources is empty: at least one network must be asked".into());
        } else if distinct.len() < self.sources.len() {
            bad.push("model.sources names a modality twice".into());
        }
        problems::size(&mut bad, "hidden_dim", self.hidden_dim);
        bad
    }

    /// The sources, in the order of [`Modality::ALL`].
    pub fn ordered(&self) -> Vec<Modality> {
        Modality::ALL.into_iter().filter(|m| self.sources.contains(m)).collect()
    }
}
