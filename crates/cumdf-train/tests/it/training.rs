//! CUMDF's training: what stops a run, what its attributions say.

use std::array::from_fn;

use cumdf_data::{Dataset, ModalitySet, TrainBatch, synthetic};
use cumdf_model::{Answer, Predictor};
use cumdf_train::{
    evaluate,
    fit::{Plan, TrainingData, fit},
    learner::{Learner, LossTerms},
    pipeline,
    run_dir::{Card, Existing, RunDir},
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
