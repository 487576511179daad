//! EMT-DLFR, its losses and two whole steps of its training, against an independent implementation
//! in torch.nn, `scripts/reference_emt.py`, whose numbers are in `tests/golden/` (see its README;
//! each case explains itself in its notes).

use std::collections::BTreeMap;

use cumdf_data::{Corpus, Inputs, Modality};
use cumdf_model::{
    Problem, checkpoint,
    emt::{VECTORS, attraction, reconstruction},
};
use cumdf_train::{
    learner::{Learner, LossTerms, REST, groups},
    learners::emt::{self, EmtLearner},
    optim::Optimizer,
    pipeline,
    policy::Clip,
};
use tch::{Kind, Tensor};

use crate::common::{
    Golden, answer, close, close_gradients, context, hidden_batch, number, whole_batch,
};

struct Case {
    golden: Golden,
    batches: [Batch; 2],
    problem: Problem,
    config: emt::Config,
}

struct Batch {
    complete: Inputs,
    incomplete: Inputs,
    corpus: Corpus, // with the batch's labels
}

impl Case {
    fn open(name: &str) -> Self {
        let golden = Golden::open(name);
        let [model, optimiser] = [&golden.case["model"], &golden.case["optimiser"]];
        let rate = |group: &str| number(&optimiser["rates"][group]);
        let decay = |group: &str| number(&optimiser["weight_decay"][group]);
        let mut sets = vec![
            format!("train.learning_rate={:?}", rate("rest")),
            format!("train.weight_decay={:?}", decay("rest")),
            format!("train.accumulate={}", golden.case["accumulate"]),
            format!("loss.siamese={:?}", number(&model["attract_weight"])),
            format!("loss.reconstruct={:?}", number(&model["recon_weight"])),
            format!("model.attention_dropout={:?}", number(&model["dropout_attn"])),
            format!("model.feed_dropout={:?}", number(&model["dropout_feed"])),
            format!("model.head_dropout={:?}", number(&model["dropout_head"])),
            format!("model.model_dim={}", model["width"]),
            format!("model.n_heads={}", model["heads"]),
            format!("model.n_layers={}", model["layers"]),
            format!("model.head_hidden={}", model["head"]),
        ];
        for n in VECTORS {
            sets.push(format!("model.{n}_predictor={}", model["attract"][n]));
        }
        for m in Modality::ALL.map(Modality::name) {
            sets.push(format!("model.{m}_hidden={}", model["hidden"][m]));
            sets.push(format!("model.{m}_out={}", model["encoded"][m]));
            let (rate, decay) = (rate(m), decay(m));
            let group = format!("{{ learning_rate = {rate:?}, weight_decay = {decay:?} }}");
            sets.push(format!("train.groups.{m}={group}"));
        }
        let (_, config) = golden.recipe("emt", sets);
        let batches = ["", "second."].map(|part| {
            let valid = format!("{part}input.valid");
            Batch {
                complete: golden.inputs(&format!("{part}complete"), &valid),
                incomplete: golden.inputs(&format!("{part}input"), &valid),
                corpus: golden.own_corpus(part),
            }
        });
        let problem = pipeline::problem(&batches[0].corpus);
        Self { batches, problem, config, golden }
    }

    /// A learner with the golden parameters and buffers.
    fn learner(&self) -> EmtLearner {
        let cx = context(&self.problem, &self.batches[0].corpus, "siamese", &[]);
        let learner = EmtLearner::new(&self.config, &cx).expect("a learner");
        let mut params = self.golden.part("param.");
        for store in [Some(learner.store()), learner.scratch()].into_iter().flatten() {
            let own = checkpoint::variables(store);
            let own: BTreeMap<_, _> =
                own.into_keys().filter_map(|name| params.remove_entry(&name)).collect();
            checkpoint::restore(store, &own).expect("all variables");
        }
        assert!(params.is_empty(), "Rust has no {:?}", params.keys());
        learner
    }

    fn terms(&self, learner: &EmtLearner, batch: usize) -> LossTerms {
        let Batch { complete, incomplete, corpus } = &self.batches[batch];
        learner.terms(complete, incomplete, whole_batch(corpus).targets())
    }

    /// The sum of the losses under `names`.
    fn sum<const N: usize>(&self, prefix: &str, names: [&str; N]) -> Tensor {
        let each = names.map(|name| self.golden.get(&format!("{prefix}.{name}")));
        each.into_iter().reduce(|sum, one| sum + one).expect("a loss")
    }

    fn close_losses(&self, prefix: &str, terms: &LossTerms) {
        let values = terms.values();
        assert_eq!(values.len(), 4, "{values:?}");
        close("task", &values["task"], &self.golden.get(&format!("{prefix}.task")));
        let complete = self.golden.get(&format!("{prefix}.task_complete"));
        close("complete", &values["complete"], &complete);
        close("attract", &values["attract"], &self.sum(&format!("{prefix}.attract"), VECTORS));
        let reconstruct = self.sum(&format!("{prefix}.recon"), Modality::ALL.map(Modality::name));
        close("reconstruct", &values["reconstruct"], &reconstruct);
        close("total", &terms.total(), &self.golden.get(&format!("{prefix}.total")));
    }

    /// Every module's output, view by view.
    fn close_outputs(&self) {
        let golden = &self.golden;
        let learner = self.learner();
        let Batch { complete, incomplete, .. } = &self.batches[0];
        let net = learner.net();
        for (view, inputs) in [("complete", complete), ("incomplete", incomplete)] {
            let want = |what: &str| golden.get(&format!("out.{view}.{what}"));
            let beyond = inputs.valid.logical_not().unsqueeze(-1);
            let inside = |x: &Tensor| x.masked_fill(&beyond, 0.0);
            let encoded = net.encode(inputs.features.each_ref(), &inputs.valid, true);
            close("context", &encoded.global, &want("context"));
            let pass = net.forward(inputs, inputs.len(), true);
            for m in Modality::ALL {
                let tokens = &encoded.sequences[m.index()];
                close(&format!("tokens {m}"), &inside(tokens), &want(&format!("tokens.{m}")));
                let local = inside(&pass.tokens.select(1, m.index() as i64));
                close(&format!("local {m}"), &local, &want(&format!("local.{m}")));
            }
            for (n, vector) in VECTORS.iter().zip(&pass.vectors) {
                close(n, vector, &want(&format!("vector.{n}")));
            }
            if let Some(neutral) = self.problem.shape.task.neutral() {
                close("answer", &pass.output, &want("answer"));
                let before = pass.output.unsqueeze(1) - f64::from(neutral);
                close("output", &before, &want("output"));
            } else {
                close("logits", &pass.output, &want("logits"));
                close("output", &pass.output.flatten(1, 2), &want("output"));
                let yes = pass.output.softmax(-1, Kind::Float).select(2, 1);
                close("answer", &yes, &want("answer"));
            }
        }

        // Both views at once, as in training.
        let siamese = learner.siamese();
        let pass = net.views(complete, incomplete, true);
        for (i, n) in VECTORS.iter().enumerate() {
            let (z, p) = siamese.heads(i, &pass.vectors[i]);
            for (what, both) in [("z", &z), ("p", &p)] {
                for (view, got) in ["complete", "incomplete"].iter().zip(both.chunk(2, 0)) {
                    let want = golden.get(&format!("out.{view}.{what}.{n}"));
                    close(&format!("{what} {n} of the {view} view"), &got, &want);
                }
            }
            close(n, &attraction(&z, &p), &golden.get(&format!("loss.attract.{n}")));
        }
        let beyond = incomplete.valid.logical_not().unsqueeze(-1);
        for m in Modality::ALL {
            let rebuilt = siamese.rebuilt(m, &pass.tokens);
            let want = golden.get(&format!("out.incomplete.reconstruct.{m}"));
            close(&format!("rebuilt {m}"), &rebuilt.masked_fill(&beyond, 0.0), &want);
            let loss = reconstruction(m, &rebuilt, complete, incomplete);
            close(&format!("loss of {m}"), &loss, &golden.get(&format!("loss.recon.{m}")));
        }
    }
}

/// Variables and buffers of the network and of its training.
fn variables(learner: &EmtLearner) -> BTreeMap<String, Tensor> {
    let stores = [Some(learner.store()), learner.scratch()];
    stores.into_iter().flatten().flat_map(checkpoint::variables).collect()
}

fn close_variables(golden: &Golden, prefix: &str, learner: &EmtLearner) {
    for (name, variable) in variables(learner) {
        close(&format!("{prefix} {name}"), &variable, &golden.get(&format!("{prefix}.{name}")));
    }
}

fn check(name: &str) {
    let case = Case::open(name);
    let golden = &case.golden;
    let learner = case.learner();
    let answer = answer(&learner, &case.batches[0].incomplete);
    close("eval.answer", &answer, &golden.get("eval.answer"));
    case.close_outputs();

    let train = &case.config.train;
    assert_eq!((train.accumulate, train.clip), (2, Clip::None));
    let mut optimizer = Optimizer::new(groups(&learner, train).expect("groups"), train.betas);
    for prefix in ["step", "step2"] {
        optimizer.zero_grad();
        for batch in 0..train.accumulate {
            let terms = case.terms(&learner, batch);
            if prefix == "step" {
                case.close_losses(["loss", "second.loss"][batch], &terms);
            }
            terms.total().backward();
            if (prefix, batch) == ("step", 0) {
                close_gradients(golden, &variables(&learner));
                for (name, want) in golden.part("buffer.") {
                    close(&name, &variables(&learner)[&name], &want);
                }
            }
        }
        optimizer.clip(train.clip);
        optimizer.step(train.learning_rate);
        close_variables(golden, prefix, &learner);
    }
    golden.assert_all_read();
}

#[test]
fn emt_equals_torch_nn() {
    check("emt_sentiment");
}

#[test]
fn emt_on_emotions_equals_torch_nn() {
    check("emt_emotion");
}

#[test]
fn groups_are_encoders_and_the_rest() {
    let learner = Case::open("emt_sentiment").learner();
    for name in variables(&learner).keys() {
        let parts: Vec<_> = name.split('.').collect();
        let want = if parts[0] == "encoder" { parts[1] } else { REST };
        assert_eq!(learner.group(name), want, "{name}");
    }
}

/// What the trainer calls is what the tests above call, each view in its place.
#[test]
fn a_batch_costs_its_views() {
    for name in ["emt_sentiment", "emt_emotion"] {
        let case = Case::open(name);
        let [mut whole, parts] = [(); 2].map(|()| case.learner());
        let batch = hidden_batch(&case.batches[0].corpus);
        let got = whole.loss(&batch).values();
        let want = parts.terms(&batch.complete(), &batch.shown(), batch.targets()).values();
        assert!(got.keys().eq(want.keys()), "{got:?} {want:?}");
        got.iter().for_each(|(name, value)| close(name, value, &want[name]));
    }
}
