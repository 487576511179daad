//! TransModality, its losses and two steps of its training, against an independent implementation in
//! torch.nn, `scripts/reference_transm.py`, whose numbers are in `tests/golden/` (see its README; each
//! case explains itself in its notes).

use cumdf_data::{Corpus, Modality};
use cumdf_model::{Problem, checkpoint, transm::CELLS};
use cumdf_train::{
    learner::{Learner, groups},
    learners::transm::{self, TransMLearner},
    optim::Optimizer,
    pipeline,
    policy::{Clip, Schedule},
    stage::Shown,
};

use crate::common::{
    Golden, answer, close, close_gradients, context, hidden_batch, number, whole_batch,
};

/// A case and what it is trained on.
struct Case {
    golden: Golden,
    corpus: Corpus,
    problem: Problem,
    config: transm::Config,
}

impl Case {
    fn open(name: &str) -> Self {
        let golden = Golden::open(name);
        let (case, model) = (&golden.case, &golden.case["model"]);
        let sets = vec![
            format!("model.gru_dim={}", model["gru"]),
            format!("model.width={}", model["width"]),
            format!("model.n_heads={}", model["heads"]),
            format!("model.vision_ffn_dim={}", model["inner"]["vision"]),
            format!("model.audio_ffn_dim={}", model["inner"]["audio"]),
            format!("model.encoder_layers={}", model["encoder_layers"]),
            format!("model.decoder_layers={}", model["decoder_layers"]),
            format!("model.input_dropout={}", model["input_dropout"]),
            format!("model.dropout={}", model["dropout"]),
            format!("model.cell_dropout={}", model["cell_dropout"]),
        ];
        let (_, config) = golden.recipe::<transm::Config>("transm", sets);
        // The rest is the recipe's.
        let (train, optimiser) = (&config.train, &case["optimiser"]);
        assert!(case["clip"].is_null() && train.clip == Clip::None);
        assert_eq!((train.schedule, train.accumulate), (Schedule::Constant, 1));
        let numbers = [
            (train.learning_rate, &optimiser["lr"]),
            (train.betas[0], &optimiser["betas"][0]),
            (train.betas[1], &optimiser["betas"][1]),
            (train.weight_decay, &optimiser["weight_decay"]),
            (config.loss.translate, &case["weights"]["translate"]),
        ];
        for (ours, theirs) in numbers {
            assert!((ours - number(theirs)).abs() < 1e-12, "{ours} for {theirs}");
        }
        let corpus = golden.own_corpus("");
        let problem = pipeline::problem(&corpus);
        Self { golden, corpus, problem, config }
    }

    /// A learner with the golden parameters.
    fn learner(&self) -> TransMLearner {
        let cx = context(&self.problem, &self.corpus, "train", &[]);
        let learner = TransMLearner::new(&self.config, &cx).expect("a learner");
        let params = self.golden.part("param.");
        checkpoint::restore(learner.store(), &params).expect("the network's variables");
        learner
    }

    /// Every module's output in a training pass, and the losses' terms.
    fn close_pass(&self, learner: &TransMLearner) {
        let (golden, net) = (&self.golden, learner.net());
        let shown = golden.inputs("input", "input.valid");
        let pass = net.forward(&shown, true);
        let translations = net.translate(&pass, true);
        let padding = shown.valid.logical_not().unsqueeze(-1); // zero in the reference
        for (m, f) in Modality::ALL.iter().zip(pass.features.unbind(0)) {
            close(&format!("f of {m}"), &f, &golden.get(&format!("out.encoded.{m}")));
        }
        for (c, n) in CELLS.iter().enumerate() {
            let outputs = [
                ("encoded1", pass.encoded1.get(c as i64)),
                ("decoded1", pass.decoded1.get(c as i64)),
                ("encoded2", pass.encoded2.get(c as i64)),
                ("decoded2", translations.decoded2.get(c as i64)),
                ("translated", translations.others[c].shallow_clone()),
                ("returned", translations.language[c].shallow_clone()),
            ];
            for (name, output) in outputs {
                let want = golden.get(&format!("out.cell.{n}.{name}"));
                close(&format!("{name} of {n}"), &output.masked_fill(&padding, 0.0), &want);
            }
        }
        close("pooled", &pass.pooled, &golden.get("out.pooled"));
        let answer = golden.get("out.answer");
        match golden.find("out.logits") {
            None => close("score", &pass.output, &answer),
            Some(logits) => {
                close("logits", &pass.output, &logits);
                close("flags", &pass.output.softmax(2, None).select(2, 1), &answer);
            }
        }
    }

    /// Losses and gradients, and the parameters after one step and after two.
    fn close_two_steps(&self, learner: &TransMLearner) {
        let golden = &self.golden;
        let shown = golden.inputs("input", "input.valid");
        let complete = golden.inputs("complete", "input.valid");
        let batch = whole_batch(&self.corpus);
        let train = &self.config.train;
        let mut optimizer = Optimizer::new(groups(learner, train).expect("groups"), train.betas);
        for prefix in ["step", "step2"] {
            optimizer.zero_grad();
            let terms = learner.terms(&complete, &shown, batch.targets());
            terms.total().backward();
            let variables = checkpoint::variables(learner.store());
            if prefix == "step" {
                let values = terms.values();
                assert!(values.keys().eq(&["task", "translate"]), "{values:?}");
                for (name, value) in &values {
                    close(name, value, &golden.get(&format!("loss.{name}")));
                }
                close("total", &terms.total(), &golden.get("loss.total"));
                close_gradients(golden, &variables);
            }
            optimizer.clip(train.clip);
            optimizer.step(train.learning_rate);
            for (name, variable) in &variables {
                let name = format!("{prefix}.{name}");
                close(&name, variable, &golden.get(&name));
            }
        }
    }
}

fn check(name: &str) {
    let case = Case::open(name);
    let learner = case.learner();
    close(
        "eval.answer",
        &answer(&learner, &case.golden.inputs("input", "input.valid")),
        &case.golden.get("eval.answer"),
    );
    case.close_pass(&learner);
    case.close_two_steps(&learner);
    case.golden.assert_all_read();
}

#[test]
fn transm_equals_torch_nn() {
    check("transm_sentiment");
}

#[test]
fn transm_on_emotions_equals_torch_nn() {
    check("transm_emotion");
}

/// What the trainer calls is what the tests above call, each view in its place.
#[test]
fn a_batch_of_transm_costs_its_views() {
    for name in ["transm_sentiment", "transm_emotion"] {
        let case = Case::open(name);
        assert_eq!(case.config.sees, Shown::Masked);
        let mut learner = case.learner();
        let batch = hidden_batch(&case.corpus);
        let (complete, shown) = (batch.complete(), batch.shown());
        let got = learner.loss(&batch).values();
        let want = learner.terms(&complete, &shown, batch.targets()).values();
        assert!(got.keys().eq(want.keys()), "{got:?} {want:?}");
        for (name, value) in &got {
            close(name, value, &want[name]);
        }
    }
}
