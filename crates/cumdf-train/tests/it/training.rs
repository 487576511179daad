//! CUMDF's training: what stops a run, what its attributions say.

use std::{array::from_fn, collections::BTreeMap};

use cumdf_data::{Dataset, Folds, Labels, Modality, ModalitySet, Task, TrainBatch, synthetic};
use cumdf_model::{
    Answer, Predictor, Prior, checkpoint,
    cumdf::{Committee, Guide},
    loss,
};
use cumdf_train::{
    answers::Answers,
    config::Config,
    evaluate,
    fit::{Plan, TrainingData, fit},
    learner::{Learner, LossTerms},
    learners::cumdf::{CumdfConfig, GuideOfTargets, Student, Teacher, TeacherTargets},
    method::Context,
    pipeline::{self, Place},
    run_dir::{Card, Existing, RunDir},
    shapley,
};
use serde_json::json;
use tch::{Device, Kind, Tensor, nn::VarStore};

use crate::tiny::{self, alone};

#[test]
fn attributions_rank_the_modalities_of_the_synthetic_corpus_as_its_truth_does() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let file = synthetic::ensure(synthetic::Kind::Sentiment, folder.path()).expect("a corpus");
    let dataset = Dataset::open(&file).expect("a data set");
    let truth = dataset.test.truth.as_ref().expect("the corpus knows its truth");
    let n = dataset.test.len() as f64;
    let strength: [f64; 3] =
        from_fn(|m| truth.strength.iter().map(|s| f64::from(s[m])).sum::<f64>() / n);
    let sets = ["student.epochs=6".to_owned(), "student.distillation=false".to_owned()];
    let config = tiny::resolve(&sets);
    let corpus = tiny::corpus(&dataset);
    let model = tiny::trained(&config, &corpus, folder.path());
    let view = evaluate::view(ModalitySet::ALL, 0.0);
    let predicted =
        evaluate::explain(model.predictor.as_ref(), &model.header.data.prior, &corpus.test, &view)
            .expect("predicted");
    let shares = predicted.attributions.expect("CUMDF attributes");
    let share: [f64; 3] = from_fn(|m| shares.iter().map(|s| f64::from(s[m])).sum::<f64>() / n);
    assert!(strength[0] > strength[1] && strength[1] > strength[2], "truth {strength:?}");
    assert!(share[0] > share[1] && share[1] > share[2], "shares {share:?}, truth {strength:?}");

    // Shapley values: exactly what the answer differs from the prior by, in the same order.
    let prior = &model.header.data.prior;
    let moved =
        shapley::values(model.predictor.as_ref(), prior, &dataset.task, &corpus.test, &view)
            .expect("the values");
    let (whole, none) = (predicted.answers.scores(&dataset.task), expected(&dataset.task, prior));
    for (row, values) in moved.iter().enumerate() {
        let sum: f64 = values.iter().sum();
        assert!((sum - (whole[row] - none)).abs() < 1e-9, "sample {row}: {values:?}");
    }
    let size: [f64; 3] = from_fn(|m| moved.iter().map(|v| v[m].abs()).sum::<f64>() / n);
    assert!(size[0] > size[1] && size[1] > size[2], "sizes {size:?}, truth {strength:?}");
}

/// The score that a prior stands for.
fn expected(task: &Task, prior: &Prior) -> f64 {
    Answers::Classes(vec![prior.classes.clone()]).score(task, 0)
}

#[test]
fn what_is_not_there_moves_no_answer() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let (config, corpus) = (tiny::config(), tiny::corpus(&tiny::sentiment()));
    let model = tiny::trained(&config, &corpus, folder.path());
    let prior = &model.header.data.prior;
    let view = evaluate::view("la".parse().expect("a set"), 0.0);
    let moved = shapley::values(model.predictor.as_ref(), prior, &corpus.task, &corpus.test, &view)
        .expect("the values");
    for (values, present) in moved.iter().zip(corpus.test.present()) {
        for m in Modality::ALL {
            let is_there = present.contains(m) && m != Modality::Vision;
            assert_eq!(values[m.index()] != 0.0, is_there, "{m} of {present}: {values:?}");
        }
    }
}

/// Three networks, each without its third of the training split.
const CROSS_FITTED: [&str; 5] = [
    "teacher.folds=3",
    "loss.srd=0.1",
    "student.srd='relation'",
    "student.teacher_guide='estimate'",
    "student.teacher_share=0.6",
];

fn cross_fitted(more: &[&str]) -> Config {
    let sets = [&tiny::SETS[..], &CROSS_FITTED, more].concat();
    tiny::resolve(&sets.iter().map(ToString::to_string).collect::<Vec<_>>())
}

/// The tensors of the teacher after one epoch, by name.
fn teacher(config: &Config, dataset: &Dataset) -> BTreeMap<String, Tensor> {
    let folder = tempfile::tempdir().expect("a folder");
    let place = Place { until: Some("teacher".into()), ..Place::resuming(folder.path()) };
    pipeline::train(config, &tiny::corpus(dataset), Device::Cpu, &place).expect("trained");
    let best = folder.path().join("teacher/best.safetensors");
    checkpoint::open(&best).expect("a checkpoint").tensors.into_iter().collect()
}

#[test]
fn what_a_sample_is_taught_by_has_never_seen_its_label() {
    let _alone = alone();
    let (config, mut dataset) = (cross_fitted(&["teacher.epochs=1"]), tiny::sentiment());
    let folds = Folds::draw(&dataset.train.ids, 3, config.seed);
    let before = teacher(&config, &dataset);
    let Labels::Scores(scores) = &mut dataset.train.labels else { panic!("scores") };
    for (row, score) in scores.iter_mut().enumerate().filter(|(row, _)| folds.of(*row) == 1) {
        *score = if row % 2 == 0 { 3.0 } else { -3.0 };
    }
    let after = teacher(&config, &dataset);
    let mut changed = [0; 3];
    for (name, tensor) in before.iter().filter(|(name, _)| name.starts_with("member")) {
        changed[Committee::member_of(name)] += usize::from(!tensor.equal(&after[name]));
    }
    assert!(changed[0] > 10 && changed[1] == 0 && changed[2] > 10, "{changed:?}");
}

#[test]
fn a_cross_fitted_teacher_teaches_each_sample_by_its_own_network_and_answers_by_the_mean_of_all() {
    let _alone = alone();
    let (config, corpus) = (cross_fitted(&[]), tiny::corpus(&tiny::sentiment()));
    let settings: CumdfConfig = config.settings().expect("CUMDF's own");
    let problem = pipeline::problem(&corpus);
    let cx = Context {
        problem: &problem,
        train: &corpus.train,
        device: Device::Cpu,
        seed: config.seed,
        stage: "teacher",
        earlier: &[],
    };
    let teacher = Teacher::new(&settings, &cx).expect("a teacher");
    let (nets, folds) = (teacher.nets(), teacher.folds());
    let targets = TeacherTargets::of(nets, folds, GuideOfTargets::Estimate, &corpus.train);
    let all = corpus.train.complete_batches(1000).next().expect("a batch");
    let each: Vec<Tensor> =
        nets.members().iter().map(|net| net.predict(&all.complete()).into_tensor()).collect();
    let mean = (&each[0] + &each[1] + &each[2]) / 3.0;
    let close = |a: &Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]) < 1e-6;
    assert!(close(&mean, teacher.predictor().predict(&all.complete()).tensor()));
    for (place, row) in all.rows().iter().enumerate() {
        let own = each[folds.of(*row)].get(place as i64);
        assert!(close(&own, &targets.probs.get(*row as i64)), "sample {row}");
        assert_eq!(targets.fold.int64_value(&[*row as i64]), folds.of(*row) as i64);
    }

    // What the student is trained towards, in its loss.
    let student = Student::new(&settings, &cx, Some(targets)).expect("a student");
    let probs = TeacherTargets::of(nets, folds, GuideOfTargets::Estimate, &corpus.train).probs;
    let label = corpus.train.all_targets();
    let target = (label.distribution() * 0.4 + &probs * 0.6).index_select(0, &all.index);
    let bins = Tensor::arange_start(-3, 4, (Kind::Float, Device::Cpu));
    let score = label.score().expect("scores") * 0.4 + probs.matmul(&bins) * 0.6;
    tch::manual_seed(5);
    let terms = student.terms(&all.complete(), all.targets(), &all.index).values();
    tch::manual_seed(5);
    let logits = student.net().forward(&all.complete(), Guide::Estimate, true).logits;
    assert!(close(&terms["task"], &loss::cross_entropy(&logits, &target)));
    let score = score.index_select(0, &all.index);
    assert!(close(&terms["score"], &loss::expected_score(&logits, &bins, &score)));
    assert!(terms.contains_key("srd_fused") && terms.contains_key("srd_modalities"));
}

#[test]
fn vectors_of_several_teachers_are_compared_by_their_relations_alone() {
    let sets = ["loss.srd=0.1", "student.srd='cosine'"].map(str::to_owned);
    let error = Config::resolve(None, None, None, &sets).expect_err("three spaces");
    let error = format!("{error:#}");
    assert!(error.contains("student.srd = \"relation\""), "{error}");
    assert!(Config::resolve(None, None, None, &["teacher.folds=17".into()]).is_err());
}

/// A learner that fails on purpose, and the smallest that the trainer takes.
struct Faulty {
    vs: VarStore,
    weight: Tensor,
    n_batches: usize,
    fails_at: usize,
}

impl Predictor for Faulty {
    fn predict(&self, inputs: &cumdf_data::Inputs) -> Answer {
        let logits = Tensor::zeros([inputs.len(), 7], (Kind::Float, Device::Cpu)) + &self.weight;
        Answer::Classes(logits.detach().softmax(-1, Kind::Float))
    }
}

impl Learner for Faulty {
    fn store(&self) -> &VarStore {
        &self.vs
    }

    fn predictor(&self) -> &dyn Predictor {
        self
    }

    fn loss(&mut self, _batch: &TrainBatch) -> LossTerms {
        self.n_batches += 1;
        let mut terms = LossTerms::default();
        terms.add("good", 1.0, || self.weight.square().sum(Kind::Float));
        let factor = if self.n_batches == self.fails_at { f64::NAN } else { 1.0 };
        terms.add("bad", 0.5, || self.weight.square().sum(Kind::Float) * factor);
        terms
    }
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run_by_name_and_keeps_the_last_good_checkpoint() {
    let _alone = alone();
    let (config, corpus) = (tiny::config(), tiny::corpus(&tiny::sentiment()));
    let folder = tempfile::tempdir().expect("a folder");
    let vs = VarStore::new(Device::Cpu);
    let weight = vs.root().ones("weight", &[7]);
    let mut stage = config.method.stages().remove(1);
    stage.epochs = 3;
    let n_batches = corpus.train.n_batches(stage.train.batch_size);
    let mut faulty = Faulty { vs, weight, n_batches: 0, fails_at: n_batches + 2 };
    let (problem, identity) = (pipeline::problem(&corpus), json!({}));
    let data = TrainingData::new(&corpus, &problem);
    let plan = Plan {
        stage: &stage,
        seed: 1,
        method: "faulty",
        config: &json!({}),
        identity: &identity,
        problem: &problem,
    };
    let card = Card { identity: &identity, config: "", threads: 1, device: "cpu".into() };
    let mut run = RunDir::open(folder.path(), &card, Existing::Refuse).expect("a run");
    let error = fit(&mut faulty, &plan, &data, &mut run).expect_err("a NaN loss");
    let message = format!("{error:#}");
    assert!(
        message.contains("`bad`")
            && message.contains("epoch 2: the loss term")
            && message.contains("batch 2 of the epoch"),
        "{message}"
    );
    assert!(message.contains("of epoch 1, is kept") && run.best().exists(), "{message}");
}
