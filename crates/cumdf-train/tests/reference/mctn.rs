//! MCTN, its losses and two steps of its training, against an independent implementation in
//! torch.nn, `scripts/reference_mctn.py`, whose numbers are in `tests/golden/`.

use cumdf_data::{Corpus, Inputs, Modality, ModalitySet, Split};
use cumdf_model::{Problem, checkpoint, mctn::MctnPass};
use cumdf_train::{
    config::Config,
    evaluate,
    learner::{Learner, LossTerms, groups},
    learners::mctn::{Config as Mctn, MctnLearner},
    metrics,
    optim::Optimizer,
    pipeline::{self, Place},
    registry,
};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::common::{
    Golden, answer, close, close_gradients, context, hidden_batch, number, whole_batch,
};

/// A case and what it is trained on.
struct Case {
    golden: Golden,
    corpus: Corpus,
    problem: Problem,
    config: Mctn,
}

impl Case {
    fn open(name: &str) -> Self {
        let golden = Golden::open(name);
        let (case, model) = (&golden.case, &golden.case["model"]);
        let sets = vec![
            format!("model.hidden_dim={}", model["hidden"]),
            format!("model.cell={}", model["cell"]),
        ];
        let (_, config) = golden.recipe::<Mctn>("mctn", sets);
        // The rest is the recipe's.
        let (loss, train) = (&config.loss, &config.train);
        let recipe = json!({
            "weights": {
                "task": 1.0, "translate": loss.translate, "cycle": loss.cycle,
                "second": loss.second, "decay": loss.decay,
            },
            "optimiser": {
                "name": "adam", "lr": train.learning_rate, "betas": train.betas,
                "weight_decay": train.weight_decay,
            },
            "clip": Value::Null,
        });
        assert_eq!(train.clip, cumdf_train::policy::Clip::None);
        for key in ["weights", "optimiser", "clip"] {
            assert_eq!(recipe[key], case[key], "{key}");
        }
        let corpus = golden.own_corpus("");
        let problem = pipeline::problem(&corpus);
        Self { golden, corpus, problem, config }
    }

    /// A learner with the golden parameters.
    fn learner(&self) -> MctnLearner {
        let cx = context(&self.problem, &self.corpus, "train", &[]);
        let learner = MctnLearner::new(&self.config, &cx).expect("a learner");
        let params = self.golden.part("param.");
        checkpoint::restore(learner.store(), &params).expect("the network's variables");
        learner
    }

    fn close_pass(&self, pass: &MctnPass, valid: &Tensor) {
        let beyond = valid.logical_not().unsqueeze(-1);
        for (i, t) in (0..).zip(&pass.translations) {
            let close = |name: &str, got: &Tensor| {
                let name = format!("out.{}.{name}", t.source);
                close(&name, got, &self.golden.get(&name));
            };
            let names: Vec<_> = t.targets.iter().map(|m| json!(m.name())).collect();
            assert_eq!(self.golden.case["targets"][t.source.name()], json!(names));
            close("joint", &t.joint[0]);
            close("joint2", &t.joint[1]);
            close("pooled", &pass.pooled.get(i));
            let frames = [("translated", &t.first), ("cycled", &t.cycle), ("second", &t.second)];
            for (name, got) in frames {
                close(name, &got.masked_fill(&beyond, 0.0));
            }
            let output = pass.outputs.get(i);
            if self.golden.is_sentiment() {
                close("answer", &output);
            } else {
                close("answer", &output.softmax(-1, Kind::Float).select(2, 1));
                close("logits", &output);
            }
        }
    }

    fn close_losses(&self, terms: &LossTerms) {
        let values = terms.values();
        assert_eq!(values.len(), 5, "{values:?}");
        for (name, value) in &values {
            close(name, value, &self.golden.get(&format!("loss.{name}")));
        }
        close("total", &terms.total(), &self.golden.get("loss.total"));
    }
}

fn check(name: &str) {
    let case = Case::open(name);
    let golden = &case.golden;
    let shown = golden.inputs("input", "input.valid");
    let complete = golden.inputs("complete", "input.valid");
    let batch = whole_batch(&case.corpus);
    let learner = case.learner();
    close("eval.answer", &answer(&learner, &shown), &golden.get("eval.answer"));

    let train = &case.config.train;
    let mut optimizer = Optimizer::new(groups(&learner, train).expect("groups"), train.betas);
    for prefix in ["step", "step2"] {
        optimizer.zero_grad();
        let pass = learner.net().forward(&shown);
        let terms = learner.terms(&pass, &complete, &shown, batch.targets());
        terms.total().backward();
        let variables = checkpoint::variables(learner.store());
        if prefix == "step" {
            case.close_pass(&pass, &shown.valid);
            case.close_losses(&terms);
            close_gradients(golden, &variables);
        }
        optimizer.clip(train.clip);
        optimizer.step(train.learning_rate);
        let cancelled = golden.case["cancelled"].as_array().expect("names");
        for (name, variable) in &variables {
            if !cancelled.contains(&json!(name)) {
                let what = format!("{prefix}.{name}");
                close(&what, variable, &golden.get(&what));
            }
        }
    }
    assert!((number(&golden.case["sharpness"]) - 10.0).abs() < 1e-9);
    golden.assert_all_read();
}

#[test]
fn mctn_equals_torch_nn() {
    check("mctn_sentiment");
}

#[test]
fn mctn_on_emotions_equals_torch_nn() {
    check("mctn_emotion");
}

#[test]
fn mctn_with_the_official_cell_equals_torch_nn() {
    check("mctn_official");
}

/// What the trainer calls is what the tests above call: the masked view is read, and held against
/// the complete one.
#[test]
fn a_batch_of_mctn_costs_its_masked_view_held_against_the_complete_one() {
    let case = Case::open("mctn_sentiment");
    let mut learner = case.learner();
    let batch = hidden_batch(&case.corpus);
    let (shown, complete) = (batch.shown(), batch.complete());
    let got = learner.loss(&batch).values();
    let pass = learner.net().forward(&shown);
    let want = learner.terms(&pass, &complete, &shown, batch.targets()).values();
    for (name, value) in &got {
        close(name, value, &want[name]);
    }
}

#[test]
fn a_batch_that_shows_nothing_costs_nothing_but_the_decay() {
    for name in ["mctn_sentiment", "mctn_emotion"] {
        let case = Case::open(name);
        let learner = case.learner();
        let batch = whole_batch(&case.corpus);
        let complete = batch.complete();
        let blind = Inputs {
            features: complete.features.each_ref().map(Tensor::zeros_like),
            seen: complete.seen.zeros_like(),
            valid: complete.valid.shallow_clone(),
        };
        let pass = learner.net().forward(&blind);
        let terms = learner.terms(&pass, &complete, &blind, batch.targets());
        for (term, value) in terms.values() {
            assert_eq!(value.double_value(&[]) > 0.0, term == "decay", "{name}: {term} {value}");
        }
    }
}

/// The checkpoint's weights are the errors that its networks make alone on the validation split.
#[test]
fn a_checkpoint_knows_the_validation_errors_of_its_networks() {
    let case = Case::open("mctn_sentiment");
    let all = json!(["language", "audio", "vision"]);
    for (sources, cell) in [(&all, "standard"), (&json!(["language"]), "official")] {
        let sets = vec![
            "recipe=mctn".to_owned(),
            "epochs=3".to_owned(),
            "model.hidden_dim=4".to_owned(),
            format!("model.sources={sources}"),
            format!("model.cell=\"{cell}\""),
        ];
        let config = Config::resolve(Some("mctn"), None, None, &sets).expect("a configuration");
        let folder = tempfile::tempdir().expect("a folder");
        let place = Place::resuming(folder.path());
        let fitted = pipeline::train(&config, &case.corpus, Device::Cpu, &place).expect("trained");
        let model = registry::load(&fitted.best, Device::Cpu).expect("loaded");
        let quality = &checkpoint::open(&fitted.best).expect("a checkpoint").tensors["quality"];
        for source in Modality::ALL {
            let view = evaluate::view(ModalitySet::of([source]), 0.0);
            let set = &case.corpus.valid;
            let (predictor, prior) = (model.predictor.as_ref(), &model.header.data.prior);
            let answers = evaluate::predict(predictor, prior, set, &view).expect("answers").answers;
            let labels = case.corpus.labels(Split::Valid);
            let error = metrics::task_loss(&case.corpus.task, labels, &answers);
            let got = quality.double_value(&[source.index() as i64]);
            if sources.as_array().is_some_and(|names| names.contains(&json!(source.name()))) {
                assert!((got - error).abs() < 1e-5, "{source}: {got} for {error}");
            }
        }
    }
}

/// The errors arrive in the order of the sources, one per view.
#[test]
fn every_network_is_weighed_by_the_view_that_it_answers_alone() {
    let case = Case::open("mctn_sentiment");
    let mut learner = case.learner();
    let views = learner.weighed_by();
    let keys: Vec<_> = views.iter().map(|view| view.condition.key()).collect();
    assert_eq!(keys, ["l", "a", "v"]);
    learner.weigh(&[Some(0.5), None, Some(0.75)]);
    let quality = checkpoint::variables(learner.store())["quality"].copy();
    close("quality", &quality, &Tensor::from_slice(&[0.5f32, 0.75, 0.75]));
    assert_eq!(Modality::ALL.len(), views.len());
}
