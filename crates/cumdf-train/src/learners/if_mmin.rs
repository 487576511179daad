//! IF-MMIN's training: a teacher on complete data whose modalities share invariant features, then a
//! student on incomplete data that imagines what it does not see (Zuo et al., ICASSP 2023;
//! `models/` of github.com/ZhuoYulang/IF-MMIN). Both stages are chosen on validation data; the
//! source's scripts choose on the test split.

use anyhow::{Context as _, Result};
use cumdf_data::{Inputs, MrmsConfig, Targets, TrainBatch};
use cumdf_model::{
    Predictor, Shape, checkpoint,
    if_mmin::{ENCODERS, IfMminConfig, IfMminStudent, IfMminTeacher, invariant_distance},
    loss,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tch::{
    Reduction,
    nn::{Path, VarStore},
};

use crate::{
    learner::{Learner, LossTerms},
    method::{self, Context, Entry, Method, Trained, recipe},
    policy::{TrainConfig, epochs_problem},
    stage::{Judged, Sees, Shown, Stage},
};

/// The registry's line.
pub const ENTRY: Entry = Entry {
    name: "if-mmin",
    title: "IF-MMIN",
    about: "imagines the embeddings of what is missing, from modality-invariant features; two \
            stages (ICASSP 2023)",
    formula: 1,
    recipes: &[recipe!("if-mmin", Sentiment), recipe!("if-mmin-emotion", Emotion)],
    read: method::read::<Config>,
};

const TEACHER: &str = "teacher";
const STUDENT: &str = "student";

/// Settings of IF-MMIN.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What the student's training sees. Source: masked.
    pub sees: Shown,
    /// Masks (MRMS), of the student's training and of the draw that chooses its checkpoint.
    pub masks: MrmsConfig,
    /// Both networks.
    pub model: IfMminConfig,
    /// Stage 1, on complete data.
    pub teacher: TeacherConfig,
    /// Stage 2, on incomplete data.
    pub student: StudentConfig,
}

/// Stage 1. Groups of parameters: `audio`, `language`, `vision`, `invariant`, `classifier`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeacherConfig {
    /// Passes over the training split.
    pub epochs: u32,
    /// Weight of the invariant features' distance (CMD). Source: 1.
    pub cmd: f64,
    /// Optimisation.
    pub train: TrainConfig,
}

/// Stage 2. Groups of parameters: as in stage 1, and `cascade` with the imagination.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudentConfig {
    /// Passes over the training split.
    pub epochs: u32,
    /// Weight of the imagination's error. Source: 1.
    pub imagine: f64,
    /// Weight of the distance to the teacher's invariant features. Source: 100.
    pub invariant: f64,
    /// Optimisation.
    pub train: TrainConfig,
}

impl Method for Config {
    fn stages(&self) -> Vec<Stage> {
        vec![
            Stage {
                name: TEACHER,
                epochs: self.teacher.epochs,
                sees: Sees::Complete,
                train: self.teacher.train.clone(),
                judged: Judged::Complete,
                settings: json!({ "model": self.model, "teacher": self.teacher }),
            },
            Stage {
                name: STUDENT,
                epochs: self.student.epochs,
                sees: self.sees.sees(&self.masks),
                train: self.student.train.clone(),
                judged: self.sees.judged(&self.masks),
                settings: json!({
                    "sees": self.sees, "masks": self.masks, "model": self.model, "student": self.student,
                }),
            },
        ]
    }

    fn problems(&self) -> Vec<String> {
        let (teacher, student) = (&self.teacher, &self.student);
        let mut bad = teacher.train.problems("teacher.train", teacher.epochs);
        bad.extend(student.train.problems("student.train", student.epochs));
        bad.extend(epochs_problem("teacher.epochs", teacher.epochs));
        bad.extend(epochs_problem("student.epochs", student.epochs));
        let weights = [
            ("teacher.cmd", teacher.cmd),
            ("student.imagine", student.imagine),
            ("student.invariant", student.invariant),
        ];
        for (key, weight) in weights {
            if !(0.0..=1e6).contains(&weight) {
                bad.push(format!("{key} = {weight}: must lie in 0 to 1000000"));
            }
        }
        bad.extend(self.masks.check().err().map(|err| format!("masks.{err}")));
        bad.extend(self.model.problems());
        bad
    }

    fn learner(&self, stage: &str, cx: &Context) -> Result<Box<dyn Learner>> {
        match stage {
            TEACHER => {
                cx.seed_weights();
                Ok(Box::new(Teacher::new(self, cx)?))
            }
            _ => {
                let teacher = cx.trained(TEACHER).context("there is no teacher")?;
                Ok(Box::new(Student::new(self, teacher, cx)?))
            }
        }
    }

    fn network(&self, stage: &str, vs: &Path, shape: &Shape) -> Result<Box<dyn Predictor>> {
        Ok(match stage {
            TEACHER => Box::new(IfMminTeacher::new(vs, &self.model, shape)?),
            _ => Box::new(IfMminStudent::new(vs, &self.model, shape)?),
        })
    }
}

/// Stage 1: the task, and invariant features that do not tell the modalities apart.
#[derive(Debug)]
pub struct Teacher {
    vs: VarStore,
    net: IfMminTeacher,
    cmd: f64,
}

impl Teacher {
    /// A fresh teacher; its weights come from libtorch's generator.
    ///
    /// # Errors
    /// When the configured sizes are impossible.
    pub fn new(config: &Config, cx: &Context) -> Result<Self> {
        let vs = VarStore::new(cx.device);
        let net = IfMminTeacher::new(&vs.root(), &config.model, &cx.problem.shape)?;
        Ok(Self { vs, net, cmd: config.teacher.cmd })
    }

    /// The network.
    pub fn net(&self) -> &IfMminTeacher {
        &self.net
    }

    /// The losses of a batch.
    pub fn terms(&self, complete: &Inputs, targets: &Targets) -> LossTerms {
        let pass = self.net.forward(complete, true);
        let mut terms = LossTerms::default();
        terms.add("task", 1.0, || loss::score_or_flags(&pass.output, targets));
        terms.add("cmd", self.cmd, || invariant_distance(&pass.embedded.invariant));
        terms
    }
}

impl Learner for Teacher {
    fn store(&self) -> &VarStore {
        &self.vs
    }

    fn group(&self, variable: &str) -> &'static str {
        sub_network(variable)
    }

    fn predictor(&self) -> &dyn Predictor {
        &self.net
    }

    fn loss(&mut self, batch: &TrainBatch) -> LossTerms {
        self.terms(&batch.complete(), batch.targets())
    }
}

/// Stage 2: the task, the imagination, and invariant features as the teacher has them.
#[derive(Debug)]
pub struct Student {
    vs: VarStore,
    net: IfMminStudent,
    teacher: IfMminTeacher,
    frozen: VarStore, // the teacher's
    weights: StudentConfig,
}

impl Student {
    /// A student with the teacher's encoders; the rest is fresh.
    ///
    /// # Errors
    /// When the teacher does not suit these settings or data.
    pub fn new(config: &Config, teacher: &Trained, cx: &Context) -> Result<Self> {
        let shape = &cx.problem.shape;
        let read = || {
            let (checkpoint, _) = teacher.open(ENTRY.name, cx)?;
            let mut frozen = VarStore::new(cx.device);
            let net = IfMminTeacher::new(&frozen.root(), &config.model, shape)?;
            checkpoint::restore(&frozen, &checkpoint.tensors)
                .with_context(|| teacher.path.display().to_string())?;
            frozen.freeze();
            anyhow::Ok((frozen, net))
        };
        let (frozen, teacher) = read().context("cannot use the teacher")?;
        cx.seed_weights();
        let vs = VarStore::new(cx.device);
        let net = IfMminStudent::new(&vs.root(), &config.model, shape)?;
        let trained = checkpoint::variables(&frozen);
        let _guard = tch::no_grad_guard();
        for (name, mut variable) in checkpoint::variables(&vs) {
            if ENCODERS.contains(&sub_network(&name)) {
                variable.copy_(&trained[&name]);
            }
        }
        Ok(Self { vs, net, teacher, frozen, weights: config.student.clone() })
    }

    /// The network.
    pub fn net(&self) -> &IfMminStudent {
        &self.net
    }

    /// The teacher and its variables, which never change.
    pub fn teacher(&self) -> (&IfMminTeacher, &VarStore) {
        (&self.teacher, &self.frozen)
    }

    /// The losses of a batch.
    ///
    /// - `complete`, `incomplete`: two views of the same samples, trimmed alike
    pub fn terms(&self, complete: &Inputs, incomplete: &Inputs, targets: &Targets) -> LossTerms {
        let wanted = self.teacher.targets(complete, incomplete);
        let pass = self.net.forward(incomplete, true);
        let mut terms = LossTerms::default();
        terms.add("task", 1.0, || loss::score_or_flags(&pass.output, targets));
        terms.add("imagine", self.weights.imagine, || {
            pass.imagined.mse_loss(&wanted.imagined, Reduction::Mean)
        });
        terms.add("invariant", self.weights.invariant, || {
            pass.embedded.invariant.mse_loss(&wanted.invariant, Reduction::Mean)
        });
        terms
    }
}

impl Learner for Student {
    fn store(&self) -> &VarStore {
        &self.vs
    }

    fn group(&self, variable: &str) -> &'static str {
        sub_network(variable)
    }

    fn predictor(&self) -> &dyn Predictor {
        &self.net
    }

    fn loss(&mut self, batch: &TrainBatch) -> LossTerms {
        self.terms(&batch.complete(), &batch.shown(), batch.targets())
    }
}

/// The sub-network of a variable, within which the source clips gradients.
fn sub_network(variable: &str) -> &'static str {
    let first = variable.split('.').next().unwrap_or_default();
    match ENCODERS.iter().find(|name| **name == first) {
        Some(encoder) => encoder,
        None if first == "classifier" => "classifier",
        None => "cascade", // with the imagination, as in the source
    }
}
