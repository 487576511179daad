//! Similarity-based Representation Distillation (SRD), Eq. 10: how far a student's vector is from
//! its teacher's.

use serde::{Deserialize, Serialize};
use tch::{
    Tensor,
    nn::{Init, Path},
};

use crate::loss;

/// Which side of the cosine in Eq. 10 goes through a learned projection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SrdProjection {
    /// `W_s h^s` and `W_t h^t`, as printed; both can agree on a constant direction.
    Both,
    /// `W_s h^s` and `h^t`.
    Student,
    /// `h^s` and `h^t`.
    None,
}

/// One level's distance, with its projections `W_s` and `W_t`, bias-free. The printed numerator
/// mixes student and teacher with the wrong projections; here each goes through its own.
#[derive(Debug)]
pub struct Distance {
    student: Option<Tensor>, // [d, d]
    teacher: Option<Tensor>, // [d, d]
}

impl Distance {
    /// Registers the projections of vectors of width `dim` under `vs`.
    pub fn new(vs: &Path, dim: i64, which: SrdProjection) -> Self {
        let bound = 1.0 / (dim as f64).sqrt();
        let matrix = |side: &str| {
            (vs / side).var("weight", &[dim, dim], Init::Uniform { lo: -bound, up: bound })
        };
        Self {
            student: (which != SrdProjection::None).then(|| matrix("student")),
            teacher: (which == SrdProjection::Both).then(|| matrix("teacher")),
        }
    }

    /// `1 - cos(W_s h^s, W_t h^t)` per sample, `[B]`, of vectors `[B, d]`.
    pub fn forward(&self, student: &Tensor, teacher: &Tensor) -> Tensor {
        let project = |x: &Tensor, w: &Option<Tensor>| match w {
            Some(w) => x.linear::<Tensor>(w, None),
            None => x.shallow_clone(),
        };
        loss::cosine_distance(&project(student, &self.student), &project(teacher, &self.teacher))
    }
}
