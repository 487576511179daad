//! The network, each loss and a whole training step against an independent implementation in
//! torch.nn: `scripts/reference.py`, whose numbers are in `tests/golden/` (see its README).

use std::{array::from_fn, collections::BTreeMap};

use cumdf_data::{Corpus, EpochOrder, Modality, MrmsConfig, Task};
use cumdf_model::{
    Answer, Predictor as _, checkpoint,
    cumdf::{
        ConvActivation, Guide, LabelGate, ModelConfig, PAIR_NAMES, PoolNorm, Srd, SrdProjection,
        batch_shares,
    },
};
use cumdf_train::{
    config::Config,
    learner::{Learner as _, groups},
    learners::cumdf::{CumdfConfig, Student, TeacherTargets},
    optim::Optimizer,
    pipeline,
    policy::{Clip, TrainConfig},
};
use tch::{Device, Kind, Tensor};

use crate::common::{
    Golden, close, close_gradients, context, emotions, flags, gradient_norm, integer, number,
    scores, whole_batch,
};

impl Golden {
    fn flag(&self, name: &str) -> bool {
        self.case["model"][name].as_bool().expect("a flag")
    }

    fn config(&self) -> CumdfConfig {
        let default = Config::resolve(None, None, None, &[]).expect("the default");
        let mut config: CumdfConfig = default.settings().expect("CUMDF's own");
        let [case, model] = [&self.case, &self.case["model"]];
        config.model = ModelConfig {
            hidden_dim: integer(&model["hidden"]),
            n_heads: integer(&model["heads"]),
            ffn_dim: integer(&model["ffn"]),
            kernel_sizes: Modality::ALL.map(|m| integer(&model["kernels"][m.name()])),
            dropout: 0.0,
            input_noise: 0.0,
            conv_activation: match model["conv_activation"].as_str() {
                Some("relu") => ConvActivation::Relu,
                _ => ConvActivation::None,
            },
            pool_norm: match model["pool_norm"].as_str() {
                Some("batch") => PoolNorm::Batch,
                _ => PoolNorm::None,
            },
            head_pooled: self.flag("head_pooled"),
            missing_embedding: self.flag("missing_embedding"),
            scale_common: self.flag("scale_common"),
            label_gate: match model["label_gate"].as_str() {
                Some("product") => LabelGate::Product,
                _ => LabelGate::Residual,
            },
            mask_missing: self.flag("mask_missing"),
            mke: self.flag("mke"),
            lg_mmt: self.flag("lg_mmt"),
            maci: true,
        };
        let float = |key: &str| number(&case[key]);
        config.student.srd = Srd::Cosine;
        config.student.srd_projection = SrdProjection::Both;
        config.student.teacher_share = 0.0;
        config.loss.reg = float("reg");
        config.loss.cou = float("cou");
        config.loss.srd = float("srd");
        config.loss.uni = float("uni_weight");
        config.loss.score = float("score_weight");
        config.loss.norms = ["lambda_q", "lambda_k", "lambda_v"].map(float);
        config.loss.srd_fused = 1.0;
        config.loss.srd_pairs = 1.0;
        config.loss.srd_modalities = 1.0;
        config
    }

    /// A corpus whose training targets are the golden ones.
    fn training(&self) -> Corpus {
        let distribution = self.get("target.distribution");
        let (task, labels) = match self.case["task"].as_str() {
            Some("sentiment") => {
                (Task::Sentiment { lo: -2, hi: 2 }, scores(&self.get("target.score")))
            }
            _ => (emotions(5), flags(&distribution)),
        };
        self.corpus(task, &labels, self.case["targets"] == "soft")
    }

    fn student(&self, corpus: &Corpus) -> Student {
        let problem = pipeline::problem(corpus);
        let three = |t: Tensor| -> [Tensor; 3] { from_fn(|i| t.get(i as i64)) };
        let fused = self.get("teacher.fused");
        let n = fused.size()[0];
        let targets = TeacherTargets {
            probs: Tensor::zeros([n, problem.shape.n_classes()], (Kind::Float, Device::Cpu)),
            fold: Tensor::zeros([n], (Kind::Int64, Device::Cpu)),
            fused,
            pairs: self.flag("lg_mmt").then(|| three(self.get("teacher.pairs"))),
            modalities: three(self.get("teacher.modalities")),
        };
        let cx = context(&problem, corpus, "student", &[]);
        let student = Student::new(&self.config(), &cx, Some(targets)).expect("a student");
        let (distil, params): (BTreeMap<_, _>, BTreeMap<_, _>) =
            self.part("param.").into_iter().partition(|(name, _)| name.starts_with("distil."));
        checkpoint::restore(student.store(), &params).expect("the network's variables");
        let scratch = student.scratch().expect("projections");
        checkpoint::restore(scratch, &distil).expect("the projections");
        student
    }
}

fn check(name: &str) {
    let golden = Golden::open(name);
    let (inputs, corpus) = (golden.inputs("input", "input.valid"), golden.training());
    let batch = whole_batch(&corpus);
    let targets = batch.targets();
    close("targets", targets.distribution(), &golden.get("target.distribution"));
    let student = golden.student(&corpus);
    let net = student.net();

    // Evaluation mode: by its own estimate, by the true label, and through the public door.
    let pass = net.forward(&inputs, Guide::Estimate, false);
    close("eval.logits", &pass.logits, &golden.get("eval.logits"));
    let Answer::Classes(predicted) = net.predict(&inputs) else { panic!("not classes") };
    close("probs", &predicted, &golden.get("eval.logits").softmax(-1, Kind::Float));
    let oracle = net.forward(&inputs, Guide::Oracle(targets), false);
    close("oracle.logits", &oracle.logits, &golden.get("oracle.logits"));

    // Training mode, with everything on the way.
    let student = golden.student(&corpus); // batch norms as they were
    let net = student.net();
    let pass = net.forward(&inputs, Guide::Estimate, true);
    let valid = inputs.valid.to_kind(Kind::Float).unsqueeze(2);
    let common = pass.knowledge.common.as_ref();
    let common = common.map(|all| all.each_ref().map(|parts| Tensor::cat(parts, 2)));
    let sequences = [
        ("x_prime", Some(&pass.knowledge.encoded)),
        ("specific", pass.knowledge.specific.as_ref()),
        ("common", common.as_ref()),
        ("x", Some(&pass.knowledge.combined)),
    ];
    for (key, got) in sequences {
        let Some(got) = got else { continue };
        for (m, want) in golden.by_modality(&format!("out.{key}")).iter().enumerate() {
            close(&format!("{key} {m}"), &(&got[m] * &valid), want);
        }
    }
    let vectors = [
        ("pooled", &pass.pooled),
        ("uni_logits", pass.unimodal_logits()),
        ("cf_logits", &net.counterfactuals(&pass)),
    ];
    for (key, got) in vectors {
        for (m, want) in golden.by_modality(&format!("out.{key}")).iter().enumerate() {
            close(&format!("{key} {m}"), &got[m], want);
        }
    }
    for (pair, got) in PAIR_NAMES.iter().zip(pass.pairs().into_iter().flatten()) {
        close(pair, got, &golden.get(&format!("out.pair.{pair}")));
    }
    close("guide", &pass.guide, &golden.get("out.guide"));
    close("fused", &pass.fused, &golden.get("out.fused"));
    close("logits", &pass.logits, &golden.get("out.logits"));
    let effects = net.effects(&pass, targets.distribution());
    close("delta", &effects, &golden.get("out.delta"));
    close("x_con", &batch_shares(&effects), &golden.get("out.x_con"));

    // One whole step.
    let student = golden.student(&corpus);
    let optimiser = &golden.case["optimiser"];
    let train = TrainConfig {
        learning_rate: number(&optimiser["lr"]),
        weight_decay: number(&optimiser["weight_decay"]),
        decoupled_decay: optimiser["name"] == "adamw",
        clip: Clip::Norm(number(&golden.case["clip"])),
        ..golden.config().train
    };
    let mut optimizer = Optimizer::new(groups(&student, &train).expect("groups"), train.betas);
    let terms = student.terms(&inputs, targets, &batch.index);
    let losses = [
        ("task", "task"),
        ("uni", "uni"),
        ("reg", "reg"),
        ("cou", "cou"),
        ("score", "score"),
        ("srd_fused", "srd.fused"),
        ("srd_pairs", "srd.pairs"),
        ("srd_modalities", "srd.modalities"),
    ];
    for (ours, theirs) in losses {
        let want = golden.find(&format!("loss.{theirs}"));
        let want = want.filter(|want| want.double_value(&[]) != 0.0); // 0: the part is not there
        let got = terms.values().remove(ours);
        assert_eq!(got.is_some(), want.is_some(), "{name}: the term {ours}");
        if let (Some(got), Some(want)) = (&got, &want) {
            close(ours, got, want);
        }
    }
    let total = terms.total();
    close("total", &total, &golden.get("loss.total"));
    total.backward();
    let mut variables = checkpoint::variables(student.store());
    variables.extend(checkpoint::variables(student.scratch().expect("projections")));
    close_gradients(&golden, &variables);
    close("gradient", &gradient_norm(variables.values()), &golden.get("out.grad_norm"));
    optimizer.clip(train.clip);
    optimizer.step(train.learning_rate);
    for (name, variable) in &variables {
        let want = golden.get(&format!("step.{name}"));
        // Adam turns the first gradient into its sign: where that is rounding noise (the key's
        // bias, which softmax cancels), so is the step, whose size is the learning rate.
        let noise = golden.find(&format!("grad.{name}")).map(|grad| grad.abs().lt(1e-6));
        let got = match noise {
            Some(noise) => want.where_self(&noise, variable),
            None => variable.shallow_clone(),
        };
        close(&format!("{name} after a step"), &got, &want);
    }
    golden.assert_all_read();
}

#[test]
fn the_printed_architecture_equals_torch_nn() {
    check("paper");
}

#[test]
fn the_recommended_architecture_equals_torch_nn() {
    check("recommended");
}

#[test]
fn printed_gate_hidden_frames_and_scaled_products_equal_torch_nn() {
    check("product_gate_mask_missing");
}

#[test]
fn the_ablation_without_mke_equals_torch_nn() {
    check("no_mke");
}

#[test]
fn the_ablation_without_lg_mmt_equals_torch_nn() {
    check("no_lg_mmt");
}

#[test]
fn the_goldens_are_of_all_samples_at_once() {
    // An epoch shuffles; the test above relies on complete_batches not to.
    let golden = Golden::open("paper");
    let corpus = golden.training();
    let order = EpochOrder { seed: 1, epoch: 1, batch_size: 4, bucket: 1 };
    assert_eq!(corpus.train.epoch(Some(&MrmsConfig::complete()), order).len(), 1);
    assert_eq!(whole_batch(&corpus).rows(), [0, 1, 2, 3]);
}
