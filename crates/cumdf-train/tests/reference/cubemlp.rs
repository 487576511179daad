//! CubeMLP, its loss and two steps of its training, against an independent implementation in
//! torch.nn: `scripts/reference_cubemlp.py`, whose numbers are in `tests/golden/` (see its README;
//! each case explains itself in its notes).

use cumdf_data::Corpus;
use cumdf_model::{Problem, checkpoint, cubemlp::CubeMlpPass};
use cumdf_train::{
    learner::{Learner, groups},
    learners::cubemlp::{self, CubeMlpLearner},
    optim::Optimizer,
    pipeline,
    policy::Clip,
};
use tch::Tensor;

use crate::common::{
    Golden, answer, close, close_gradients, context, hidden_batch, integer, number, whole_batch,
};

/// A case and what it is trained on.
struct Case {
    golden: Golden,
    corpus: Corpus,
    problem: Problem,
    config: cubemlp::Config,
}

impl Case {
    fn open(name: &str) -> Self {
        let golden = Golden::open(name);
        let (case, model) = (&golden.case, &golden.case["model"]);
        let sets = vec![
            format!("model.text_encoder={}", model["text_encoder"]),
            format!("model.hidden={}", model["width"]),
            format!("model.blocks={}", model["blocks"]),
            format!("model.time_pooling={}", model["time_pooling"]),
            "model.encoder_dropout=0.0".into(),
            "model.mlp_dropout=0.0".into(),
            format!("train.learning_rate={:?}", number(&case["optimiser"]["lr"])),
            format!("train.clip={{ value = {:?} }}", number(&case["clip"]["bound"])),
        ];
        let (_, config) = golden.recipe::<cubemlp::Config>("cubemlp", sets);
        // The rest is the recipe's.
        let train = &config.train;
        assert_eq!(serde_json::json!(train.betas), case["optimiser"]["betas"]);
        assert_eq!(serde_json::json!(train.weight_decay), case["optimiser"]["weight_decay"]);
        assert_eq!((case["clip"]["kind"].as_str(), train.accumulate), (Some("value"), 1));
        let corpus = golden.own_corpus("");
        let mut problem = pipeline::problem(&corpus);
        problem.shape.steps = integer(&model["steps"]); // the mixer is tied to them
        Self { golden, corpus, problem, config }
    }

    fn learner(&self) -> CubeMlpLearner {
        let cx = context(&self.problem, &self.corpus, "train", &[]);
        let learner = CubeMlpLearner::new(&self.config, &cx).expect("a learner");
        let params = self.golden.part("param.");
        checkpoint::restore(learner.store(), &params).expect("the network's variables");
        learner
    }

    /// The reference has its cubes as `[B, T, M, D]`.
    fn close_pass(&self, pass: &CubeMlpPass) {
        let golden = &self.golden;
        for (got, want) in pass.cube.unbind(0).iter().zip(golden.by_modality("out.encoded")) {
            close("encoded", got, &want);
        }
        for (i, [time, modality, channel]) in pass.blocks.iter().enumerate() {
            let axes = [
                ("time", time.permute([1, 3, 0, 2])),
                ("modality", modality.permute([1, 3, 0, 2])),
                ("channel", channel.permute([1, 2, 0, 3])),
            ];
            for (axis, got) in axes {
                let name = format!("out.block.{i}.{axis}");
                close(&name, &got, &golden.get(&name));
            }
        }
        close("pooled", &pass.pooled, &golden.get("out.flat"));
        let own = if golden.is_sentiment() { "out.answer" } else { "out.logits" };
        close(own, &pass.output, &golden.get(own));
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
    close("answer", &answer(&learner, &complete), &golden.get("out.answer"));
    case.close_pass(&learner.net().forward(&complete, true));

    // Two steps on the same batch. Some gradients are long enough to be cut.
    let train = &case.config.train;
    let mut optimizer = Optimizer::new(groups(&learner, train).expect("groups"), train.betas);
    for prefix in ["step", "step2"] {
        optimizer.zero_grad();
        let terms = learner.terms(&complete, batch.targets());
        terms.total().backward();
        let variables = checkpoint::variables(learner.store());
        if prefix == "step" {
            close("task", &terms.values()["task"], &golden.get("loss.task"));
            close("total", &terms.total(), &golden.get("loss.total"));
            close_gradients(golden, &variables);
            let Clip::Value(bound) = train.clip else { panic!("{:?}", train.clip) };
            let longest = |v: &Tensor| v.grad().abs().max().double_value(&[]);
            assert!(variables.values().any(|v| longest(v) > bound), "nothing is cut");
        }
        optimizer.clip(train.clip);
        optimizer.step(train.learning_rate);
        for (name, variable) in variables {
            let want = golden.get(&format!("{prefix}.{name}"));
            close(&format!("{prefix} {name}"), &variable, &want);
        }
    }
    golden.assert_all_read();
}

#[test]
fn cubemlp_equals_torch_nn() {
    check("cubemlp_sentiment");
}

#[test]
fn cubemlp_on_emotions_equals_torch_nn() {
    check("cubemlp_emotion");
}

#[test]
fn cubemlp_with_a_linear_text_encoder_equals_torch_nn() {
    check("cubemlp_linear_text");
}

/// What the trainer calls is what the tests above call, of the view that the stage shows.
#[test]
fn a_batch_of_cubemlp_costs_what_is_shown() {
    for name in ["cubemlp_sentiment", "cubemlp_emotion", "cubemlp_linear_text"] {
        let case = Case::open(name);
        let mut learner = case.learner();
        let batch = hidden_batch(&case.corpus);
        let got = learner.loss(&batch).total();
        close("shown", &got, &learner.terms(&batch.shown(), batch.targets()).total());
        let complete = learner.terms(&batch.complete(), batch.targets()).total();
        assert!(!got.equal(&complete), "the complete view costs the same");
    }
}
