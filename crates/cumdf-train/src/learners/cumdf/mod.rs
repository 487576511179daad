//! CUMDF, the paper's method: a teacher on complete data, then a student on incomplete data that
//! the frozen teacher guides (Eq. 10-19).

mod student;
mod teacher;

use anyhow::{Result, ensure};
use cumdf_data::MrmsConfig;
use cumdf_model::{
    Predictor, Shape,
    cumdf::{Committee, Cumdf, ModelConfig, Srd, SrdProjection},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tch::nn::Path;

pub use student::{Student, TeacherTargets};
pub use teacher::Teacher;

use teacher::MOST_FOLDS;

use crate::{
    learner::Learner,
    method::{self, Context, Entry, Method, recipe},
    policy::{Clip, TrainConfig, epochs_problem},
    stage::{Judged, Sees, Shown, Stage},
};

/// Name of the stage on complete data.
pub const TEACHER: &str = "teacher";
/// Name of the stage on incomplete data.
pub const STUDENT: &str = "student";

/// The registry's line.
pub const ENTRY: Entry = Entry {
    name: "cumdf",
    title: "CUMDF",
    about: "label-guided fusion, a teacher on complete and a student on incomplete data (the paper)",
    formula: 2,
    recipes: &[recipe!("recommended", Any), recipe!("paper", Any)],
    read: method::read::<CumdfConfig>,
};

/// Settings of CUMDF. `configs/recipes/` documents each value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CumdfConfig {
    /// What the student's training sees. Source: masked.
    pub sees: Shown,
    /// Masks in training (MRMS), for the student.
    pub masks: MrmsConfig,
    /// The network.
    pub model: ModelConfig,
    /// Optimisation, alike for teacher and student.
    pub train: TrainConfig,
    /// The teacher's own settings.
    pub teacher: TeacherConfig,
    /// The student's own settings.
    pub student: StudentConfig,
    /// Weights of the loss terms.
    pub loss: LossConfig,
}

/// The teacher's own settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeacherConfig {
    /// Passes over the training split. Paper: 20.
    pub epochs: u32,
    /// Share of training samples guided by their true label, in [0, 1].
    pub oracle_rate: f64,
    /// Number of networks, each trained without its own part of the training split, on which it then
    /// teaches; 1 is one network that teaches what it has seen, as the paper has it. Dao et al.,
    /// "Knowledge Distillation as Semiparametric Inference" (ICLR 2021).
    pub folds: u32,
}

/// The student's own settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudentConfig {
    /// Passes over the training split. Paper: 20.
    pub epochs: u32,
    /// Whether a teacher is trained first and distilled.
    pub distillation: bool,
    /// What guides the teacher while it says what the student is to learn.
    pub teacher_guide: GuideOfTargets,
    /// Share of the teacher's answer in what task, score and uni-modal terms are trained towards, in
    /// [0, 1]; the true label has the rest. Paper: 0.
    pub teacher_share: f64,
    /// What Eq. 10 compares.
    pub srd: Srd,
    /// Which side of the cosine in Eq. 10 goes through a learned projection.
    pub srd_projection: SrdProjection,
}

/// What guides the teacher while it says what the student is to learn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GuideOfTargets {
    /// The true label, as the paper has it.
    Label,
    /// Its own estimate, as at evaluation.
    Estimate,
}

/// Weights of the loss terms (Eq. 10, 17, 19). The task's cross-entropy has weight 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossConfig {
    /// `lambda_1` of `L_reg`. Paper: 0.1.
    pub reg: f64,
    /// `lambda_2` of `L_cou`. Paper: 0.1.
    pub cou: f64,
    /// `lambda_3` of `L_SRD`. Paper: 0.1.
    pub srd: f64,
    /// Weight of the uni-modal cross-entropy (Eq. 11).
    pub uni: f64,
    /// Weight of the expected score's absolute error. As printed: 0.
    pub score: f64,
    /// `lambda_Q`, `lambda_K`, `lambda_V` of Eq. 17.
    pub norms: [f64; 3],
    /// `alpha` of the fused vector `H` in Eq. 10.
    pub srd_fused: f64,
    /// `alpha` of each pair `H_mn` in Eq. 10.
    pub srd_pairs: f64,
    /// `alpha` of the pooled modalities in Eq. 10, shared out by MACI.
    pub srd_modalities: f64,
}

impl CumdfConfig {
    /// How the teacher is optimised: each of several networks by itself.
    fn teacher_train(&self) -> TrainConfig {
        let mut train = self.train.clone();
        if let (Clip::Norm(most), true) = (train.clip, self.teacher.folds > 1) {
            train.clip = Clip::NormPerGroup(most);
        }
        train
    }

    /// What the teacher reads of the settings.
    fn teacher_settings(&self) -> Value {
        let LossConfig { reg, uni, score, norms, .. } = &self.loss;
        json!({
            "model": self.model, "train": self.train, "teacher": self.teacher,
            "loss": { "reg": reg, "uni": uni, "score": score, "norms": norms },
        })
    }

    /// Why the student cannot compare its vectors with those of a teacher of `folds` networks, if so.
    fn vectors_of_several(&self, folds: usize) -> Option<String> {
        let compares = self.loss.srd != 0.0 && self.student.srd == Srd::Cosine;
        (folds > 1 && compares).then(|| {
            format!(
                "a teacher of {folds} networks has {folds} spaces of vectors, which no cosine compares \
                 with the student's: set student.srd = \"relation\", loss.srd = 0 or teacher.folds = 1"
            )
        })
    }

    /// What the student reads of them.
    fn student_settings(&self) -> Value {
        json!({
            "sees": self.sees, "masks": self.masks, "model": self.model, "train": self.train,
            "student": self.student, "loss": self.loss,
        })
    }
}

impl Method for CumdfConfig {
    fn stages(&self) -> Vec<Stage> {
        let teacher = Stage {
            name: TEACHER,
            epochs: self.teacher.epochs,
            sees: Sees::Complete,
            train: self.teacher_train(),
            judged: Judged::Complete, // it sees complete data, so complete data choose it
            settings: self.teacher_settings(),
        };
        let student = Stage {
            name: STUDENT,
            epochs: self.student.epochs,
            sees: self.sees.sees(&self.masks),
            train: self.train.clone(),
            judged: Judged::Conditions,
            settings: self.student_settings(),
        };
        if self.student.distillation { vec![teacher, student] } else { vec![student] }
    }

    fn problems(&self) -> Vec<String> {
        let shortest = match self.student.distillation {
            true => self.teacher.epochs.min(self.student.epochs),
            false => self.student.epochs,
        };
        let mut bad = self.train.problems("train", shortest);
        bad.extend(epochs_problem("teacher.epochs", self.teacher.epochs));
        bad.extend(epochs_problem("student.epochs", self.student.epochs));
        let rate = self.teacher.oracle_rate;
        if !(0.0..=1.0).contains(&rate) {
            bad.push(format!("teacher.oracle_rate = {rate}: must lie in [0, 1]"));
        }
        let folds = self.teacher.folds;
        if !(1..=MOST_FOLDS).contains(&(folds as usize)) {
            bad.push(format!("teacher.folds = {folds}: must lie in 1 to {MOST_FOLDS}"));
        }
        let share = self.student.teacher_share;
        if !(0.0..=1.0).contains(&share) {
            bad.push(format!("student.teacher_share = {share}: must lie in [0, 1]"));
        }
        if self.student.distillation {
            bad.extend(self.vectors_of_several(folds as usize));
        }
        bad.extend(self.masks.check().err().map(|err| format!("masks.{err}")));
        let l = &self.loss;
        let weights = [
            ("reg", l.reg),
            ("cou", l.cou),
            ("srd", l.srd),
            ("uni", l.uni),
            ("score", l.score),
            ("srd_fused", l.srd_fused),
            ("srd_pairs", l.srd_pairs),
            ("srd_modalities", l.srd_modalities),
        ];
        let norms = l.norms.iter().map(|norm| ("norms", *norm));
        for (key, value) in weights.into_iter().chain(norms) {
            if !(0.0..=1e6).contains(&value) {
                bad.push(format!("loss.{key}: {value} must lie in 0 to 1000000"));
            }
        }
        bad.extend(self.model.problems());
        bad
    }

    fn reads_soft_labels(&self) -> bool {
        true
    }

    fn is_wide(&self) -> bool {
        self.model.hidden_dim >= 128
    }

    fn learner(&self, stage: &str, cx: &Context) -> Result<Box<dyn Learner>> {
        Ok(match (stage, cx.trained(TEACHER)) {
            (TEACHER, _) => {
                cx.seed_weights();
                Box::new(Teacher::new(self, cx)?)
            }
            (_, Some(teacher)) => {
                let targets = TeacherTargets::load(self, teacher, cx)?;
                cx.seed_weights();
                Box::new(Student::new(self, cx, Some(targets))?)
            }
            (_, None) => {
                ensure!(
                    !self.student.distillation,
                    "student.distillation = true, but there is no teacher"
                );
                cx.seed_weights();
                Box::new(Student::new(self, cx, None)?)
            }
        })
    }

    fn network(&self, stage: &str, vs: &Path, shape: &Shape) -> Result<Box<dyn Predictor>> {
        Ok(match stage {
            TEACHER => {
                Box::new(Committee::new(vs, self.teacher.folds as usize, &self.model, shape)?)
            }
            _ => Box::new(Cumdf::new(vs, &self.model, shape)?),
        })
    }
}
