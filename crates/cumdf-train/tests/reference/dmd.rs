//! DMD, its losses and two whole steps of its training, against an independent implementation in
//! torch.nn: `scripts/reference_dmd.py`, whose numbers are in `tests/golden/` (see its README; each
//! case explains itself in its notes).

use std::collections::BTreeMap;

use cumdf_data::{Corpus, EpochOrder, Modality, MrmsConfig};
use cumdf_model::{
    Problem, checkpoint,
    dmd::{AuxiliaryPass, DmdPass, ORDER},
};
use cumdf_train::{
    learner::{Learner, LossTerms, groups},
    learners::dmd::{self, DmdLearner},
    optim::Optimizer,
    pipeline,
    policy::Clip,
};
use tch::{Kind, Tensor};

use crate::common::{
    Golden, answer, close, close_gradients, context, integer, number, whole_batch,
};

/// Our names of losses, and the reference's.
const LOSSES: [(&str, &str); 13] = [
    ("task", "task"),
    ("common", "common"),
    ("hom", "hom"),
    ("het", "het"),
    ("hom_logit", "logit_hom"),
    ("hom_prior", "reg_hom"),
    ("het_logit", "logit_het"),
    ("het_repr", "repr_het"),
    ("het_prior", "reg_het"),
    ("private", "private"),
    ("reconstruct", "reconstruct"),
    ("margin", "margin"),
    ("orthogonal", "orthogonal"),
];

struct Case {
    golden: Golden,
    corpus: Corpus,
    problem: Problem,
    config: dmd::Config,
}

impl Case {
    fn open(name: &str) -> Self {
        let golden = Golden::open(name);
        let (case, model) = (&golden.case, &golden.case["model"]);
        let last_step = if model["last_step"] == "official" { "official" } else { "own" };
        let mut sets = vec![
            format!("model.dim={}", model["width"]),
            format!("model.n_heads={}", model["heads"]),
            format!("model.n_layers={}", model["levels"]),
            format!("model.homogeneous_graph={}", model["gd"][0]),
            format!("model.heterogeneous_graph={}", model["gd"][1]),
            format!("model.last_step='{last_step}'"),
            format!("train.learning_rate={:?}", number(&case["optimiser"]["lr"])),
            format!("train.weight_decay={:?}", number(&case["optimiser"]["weight_decay"])),
        ];
        for m in Modality::ALL.map(Modality::name) {
            sets.push(format!("model.{m}_kernel={}", model["kernels"][m]));
            sets.push(format!("model.{m}_attention_dropout=0.0"));
        }
        for part in ["language", "embedding", "relu", "residual", "output"] {
            sets.push(format!("model.{part}_dropout=0.0"));
        }
        let (_, config) = golden.recipe::<dmd::Config>("dmd", sets);
        assert_eq!(config.train.clip, Clip::Value(number(&case["clip"])));
        let corpus = golden.own_corpus("");
        let mut problem = pipeline::problem(&corpus);
        problem.shape.steps = integer(&model["steps"]); // those of the golden inputs
        Self { golden, corpus, problem, config }
    }

    /// A learner with the golden parameters.
    fn learner(&self) -> DmdLearner {
        let cx = context(&self.problem, &self.corpus, "distil", &[]);
        let learner = DmdLearner::new(&self.config, &cx).expect("a learner");
        let mut params = self.golden.part("param.");
        for store in [learner.store(), learner.scratch().expect("heads")] {
            let own = checkpoint::variables(store).into_keys();
            let own: BTreeMap<_, _> = own
                .map(|name| (name.clone(), params.remove(&name).expect("a parameter")))
                .collect();
            checkpoint::restore(store, &own).expect("the variables");
        }
        // What is left are biases of the units, on which nothing depends.
        let left: Vec<_> = params.keys().map(String::as_str).collect();
        assert_eq!(left, self.cancels());
        learner
    }

    fn cancels(&self) -> Vec<&str> {
        let names = self.golden.case["cancels"].as_array().expect("names");
        let mut names: Vec<_> = names.iter().map(|name| name.as_str().expect("a name")).collect();
        names.sort_unstable();
        names
    }

    fn close_pass(&self, learner: &DmdLearner, pass: &DmdPass, aux: &AuxiliaryPass) {
        let golden = &self.golden;
        for (part, got) in [
            ("project", &pass.decoupled.projected),
            ("private", &pass.decoupled.private),
            ("shared", &pass.decoupled.shared),
            ("reconstruct", &aux.reconstructed),
            ("private_again", &aux.private_again),
        ] {
            for (m, want) in golden.by_modality(&format!("out.{part}")).iter().enumerate() {
                close(part, &got[m].transpose(1, 2), want);
            }
        }
        for m in Modality::ALL {
            let crossed = pass.encoded.crossed[m.index()].chunk(2, 2);
            let sources = Modality::ALL.into_iter().filter(|n| *n != m);
            for (n, got) in sources.zip(&crossed) {
                close("cross", got, &golden.get(&format!("out.cross.{m}_{n}")));
            }
            let private = &pass.encoded.private[m.index()];
            close("memory", private, &golden.get(&format!("out.memory.{m}")));
            let got = &aux.margin[m.index()];
            close("margin", got, &golden.get(&format!("out.margin.{m}")));
        }
        for (part, got) in [
            ("c", &pass.encoded.common),
            ("gated", &pass.gated),
            ("logit.fused", &pass.output),
            ("logit.common", &aux.common),
            ("edge.hom", &aux.edges[0]),
            ("edge.het", &aux.edges[1]),
        ] {
            close(part, got, &golden.get(&format!("out.{part}")));
        }
        for (m, got) in ORDER.iter().zip(pass.encoded.common.chunk(3, 1)) {
            close("common", &got, &golden.get(&format!("out.common.{m}")));
        }
        for (branch, vertices) in [("hom", &aux.homogeneous), ("het", &aux.heterogeneous)] {
            for (what, got) in [("logit", &vertices.logits), ("repr", &vertices.representations)] {
                for (m, got) in ORDER.iter().zip(got.unbind(0)) {
                    close(what, &got, &golden.get(&format!("out.{what}.{branch}.{m}")));
                }
            }
        }
        let output = learner.net().in_units(&pass.output);
        let answer = if let Some(pairs) = golden.find("out.logits") {
            close("pairs", &output, &pairs);
            output.softmax(-1, Kind::Float).select(2, 1)
        } else {
            output
        };
        close("answer", &answer, &golden.get("out.answer"));
    }

    fn close_losses(&self, terms: &LossTerms) {
        let (golden, values) = (&self.golden, terms.values());
        assert_eq!(values.len(), LOSSES.len(), "{values:?}");
        for (ours, theirs) in LOSSES {
            close(ours, &values[ours], &golden.get(&format!("loss.{theirs}")));
        }
        close("total", &terms.total(), &golden.get("loss.total"));
    }

    /// The learner has the parameters of this step, but for those that nothing depends on.
    fn close_parameters(&self, step: &str, learner: &DmdLearner) {
        for (name, variable) in variables(learner) {
            let what = format!("{step} {name}");
            close(&what, &variable, &self.golden.get(&format!("{step}.{name}")));
        }
        self.cancels().iter().for_each(|name| drop(self.golden.get(&format!("{step}.{name}"))));
    }
}

/// The network's variables and those of the heads.
fn variables(learner: &DmdLearner) -> BTreeMap<String, Tensor> {
    let mut all = checkpoint::variables(learner.store());
    all.extend(checkpoint::variables(learner.scratch().expect("heads")));
    all
}

fn check(name: &str) {
    let case = Case::open(name);
    let golden = &case.golden;
    let shown = golden.inputs("input", "input.valid");
    let complete = golden.inputs("complete", "input.valid");
    let learner = case.learner();
    close("eval.answer", &answer(&learner, &shown), &golden.get("eval.answer"));

    let train = &case.config.train;
    let mut optimizer = Optimizer::new(groups(&learner, train).expect("groups"), train.betas);
    let batch = whole_batch(&case.corpus);
    for step in ["step", "step2"] {
        optimizer.zero_grad();
        let (pass, aux) = learner.pass(&complete);
        let terms = learner.terms(&pass, &aux, batch.targets());
        if step == "step" {
            case.close_pass(&learner, &pass, &aux);
            case.close_losses(&terms);
        }
        terms.total().backward();
        if step == "step" {
            close_gradients(golden, &variables(&learner));
            for name in case.cancels() {
                let grad = golden.get(&format!("grad.{name}")).abs().max();
                assert!(grad.double_value(&[]) < 1e-9, "{name} has a gradient after all");
            }
        }
        if name == "dmd_official" {
            break;
        }
        optimizer.clip(train.clip);
        optimizer.step(train.learning_rate);
        case.close_parameters(step, &learner);
    }
    golden.assert_all_read();
}

#[test]
fn dmd_equals_torch_nn() {
    check("dmd_sentiment");
}

#[test]
fn dmd_on_emotions_equals_torch_nn() {
    check("dmd_emotion");
}

#[test]
fn dmd_that_reads_the_last_step_of_the_padding_equals_torch_nn() {
    check("dmd_official");
}

#[test]
fn the_recipe_has_the_reference_s_weights() {
    let case = Case::open("dmd_sentiment");
    let theirs = &case.golden.case["weights"];
    let ours = case.config.loss;
    for (names, weight) in [
        (vec!["common", "hom", "het"], ours.heads),
        (vec!["logit_hom", "reg_hom", "logit_het", "repr_het", "reg_het"], ours.distil),
        (vec!["private", "reconstruct"], ours.reconstruct),
        (vec!["margin", "orthogonal"], ours.constrain),
    ] {
        for name in names {
            assert!((number(&theirs[name]) - weight).abs() < 1e-12, "{name}");
        }
    }
}

/// What the trainer calls is what the tests above call, on the view that the stage shows.
#[test]
fn a_batch_of_dmd_costs_what_is_shown_of_it() {
    let case = Case::open("dmd_sentiment");
    let mut learner = case.learner();
    let masks = MrmsConfig { drop_ratios: vec![0.5], inter: 0.5 };
    let order = EpochOrder { seed: 1, epoch: 1, batch_size: 8, bucket: 1 };
    for masks in [None, Some(&masks)] {
        let batch = case.corpus.train.epoch(masks, order).next().expect("a batch");
        let got = learner.loss(&batch).total();
        let (pass, aux) = learner.pass(&batch.shown());
        close("total", &got, &learner.terms(&pass, &aux, batch.targets()).total());
        let (pass, aux) = learner.pass(&batch.complete());
        let complete = learner.terms(&pass, &aux, batch.targets()).total();
        let same = (got - complete).abs().double_value(&[]) < 1e-6;
        assert_eq!(same, masks.is_none(), "the view of the stage is not what was read");
    }
}
