//! Self-MM and IF-MMIN, their losses and two whole steps of their training, against independent
//! implementations in torch.nn: `scripts/reference_self_mm.py` and `scripts/reference_if_mmin.py`,
//! whose numbers are in `tests/golden/` (see its README; each case explains itself in its notes).

use std::{array::from_fn, collections::BTreeMap, path::Path};

use cumdf_data::{Corpus, Inputs, Modality};
use cumdf_model::{
    Problem,
    checkpoint::{self, CheckpointKind, Header},
    if_mmin::{ENCODERS, Embedded},
    self_mm::{FUSED, HEADS, SelfMmPass},
};
use cumdf_train::{
    config::Config,
    learner::{Learner, LossTerms, REST, groups},
    learners::{
        if_mmin::{self, Student, Teacher},
        self_mm::{self, SelfMmLearner},
    },
    method::Trained,
    optim::Optimizer,
    pipeline,
    policy::{Clip, TrainConfig},
    stage::Shown,
};
use serde_json::json;
use tch::{Device, Kind, Tensor, nn::VarStore};

use crate::common::{
    Golden, answer, close, close_gradients, context, gradient_norm, hidden_batch, integer, number,
    whole_batch,
};

fn close_losses(golden: &Golden, prefix: &str, terms: &LossTerms, theirs: &[(&str, &str)]) {
    let values = terms.values();
    assert_eq!(values.len(), theirs.len(), "{values:?}");
    for (ours, theirs) in theirs {
        close(ours, &values[ours], &golden.get(&format!("{prefix}.{theirs}")));
    }
    close("total", &terms.total(), &golden.get(&format!("{prefix}.total")));
}

fn close_parameters(golden: &Golden, prefix: &str, learner: &dyn Learner) {
    for (name, variable) in checkpoint::variables(learner.store()) {
        close(&format!("{prefix} {name}"), &variable, &golden.get(&format!("{prefix}.{name}")));
    }
}

/// The same batch costs the same.
fn same(got: &LossTerms, want: &LossTerms) {
    let (got, want) = (got.values(), want.values());
    assert!(got.keys().eq(want.keys()), "{got:?} {want:?}");
    for (name, value) in &got {
        close(name, value, &want[name]);
    }
}

/// The input of a square layer that is followed by a ReLU, seen through the layer: `output` is
/// what comes after both. The layer is overwritten.
fn seen_through(store: &VarStore, layer: &str, output: impl Fn() -> Tensor) -> Tensor {
    let halves = [1.0, -1.0].map(|sign| {
        scale(store, layer, sign);
        output()
    });
    &halves[0] - &halves[1]
}

/// Makes a square layer a multiplication.
fn scale(store: &VarStore, layer: &str, factor: f64) {
    let variables = checkpoint::variables(store);
    let _guard = tch::no_grad_guard();
    let [mut weight, mut bias] =
        ["weight", "bias"].map(|v| variables[&format!("{layer}.{v}")].shallow_clone());
    weight.copy_(&(Tensor::eye(weight.size()[0], (Kind::Float, Device::Cpu)) * factor));
    let _ = bias.zero_();
}

// ------------------------------------------------------------------------------------------ Self-MM

const SELF_MM_LOSSES: [(&str, &str); 4] =
    [("task", "fused"), ("language", "language"), ("audio", "audio"), ("vision", "vision")];

/// A case of Self-MM and what it is trained on.
struct SelfMmCase {
    golden: Golden,
    corpus: Corpus,
    problem: Problem,
    config: self_mm::Config,
}

impl SelfMmCase {
    fn open(name: &str) -> Self {
        let golden = Golden::open(name);
        let [model, optimiser] = [&golden.case["model"], &golden.case["optimiser"]];
        let rate = |group: &str| number(&optimiser["rates"][group]);
        let decay = |group: &str| number(&optimiser["weight_decay"][group]);
        let mut sets = vec![
            format!("train.learning_rate={:?}", rate("head")),
            format!("train.weight_decay={:?}", decay("head")),
        ];
        for m in Modality::ALL.map(Modality::name) {
            sets.push(format!("model.{m}_hidden={}", model["hidden"][m]));
            sets.push(format!("model.{m}_out={}", model["encoded"][m]));
            let (rate, decay) = (rate(m), decay(m));
            let group = format!("{{ learning_rate = {rate:?}, weight_decay = {decay:?} }}");
            sets.push(format!("train.groups.{m}={group}"));
        }
        for head in HEADS {
            sets.push(format!("model.{head}_post={}", model["head"][head]));
            sets.push(format!("model.{head}_dropout=0.0"));
        }
        let (_, config) = golden.recipe("self-mm", sets);
        // The labels of the fused head stay what they were first: centred, but the true ones.
        let centred = golden.get("buffer.labels.fused");
        let labels = if golden.is_sentiment() {
            centred + number(&golden.case["neutral"])
        } else {
            (centred + 1.0) / 2.0
        };
        for part in ["", "second."] {
            let index = golden.get(&format!("{part}index"));
            let want = golden.get(&format!("{part}target.{}", golden.kind()));
            close("target", &labels.index_select(0, &index), &want);
        }
        let corpus = golden.labelled(&labels);
        let problem = pipeline::problem(&corpus);
        Self { golden, corpus, problem, config }
    }

    /// A learner with the golden parameters that has not seen anything yet.
    fn fresh(&self) -> SelfMmLearner {
        let cx = context(&self.problem, &self.corpus, "multitask", &[]);
        let learner = SelfMmLearner::new(&self.config, &cx).expect("a learner");
        let params = self.golden.part("param.");
        checkpoint::restore(learner.store(), &params).expect("the network's variables");
        learner
    }

    /// The buffers under `prefix` by the learner's names.
    fn buffers(&self, prefix: &str, learner: &SelfMmLearner) -> BTreeMap<String, Tensor> {
        let variables = checkpoint::variables(scratch(learner)).into_iter();
        variables
            .map(|(name, variable)| {
                let theirs = match name.split_once('.').expect("<head>.<what>") {
                    (head, what @ ("labels" | "features")) => format!("{what}.{head}"),
                    (head, sign) => format!("centre.{head}.{sign}"),
                };
                let want = self.golden.get(&format!("{prefix}.{theirs}"));
                (name, want.view_as(&variable)) // of one answer the reference has [N] for [N, 1]
            })
            .collect()
    }

    fn close_buffers(&self, prefix: &str, learner: &SelfMmLearner) {
        let got = checkpoint::variables(scratch(learner));
        for (name, want) in self.buffers(prefix, learner) {
            close(&format!("{prefix}: {name}"), &got[&name], &want);
        }
    }
}

fn scratch(learner: &SelfMmLearner) -> &VarStore {
    learner.scratch().expect("buffers")
}

fn check_self_mm(name: &str) {
    let case = SelfMmCase::open(name);
    let golden = &case.golden;
    let shown = golden.inputs("input", "input.valid");
    let complete = golden.inputs("complete", "input.valid");
    let second = golden.inputs("second.complete", "second.valid");
    let [index, second_index] = ["index", "second.index"].map(|name| golden.get(name));

    // Before the first batch every head has the true labels, and nothing else.
    let mut learner = case.fresh();
    let buffers = checkpoint::variables(scratch(&learner));
    let labels = buffers["fused.labels"].copy();
    for (name, buffer) in &buffers {
        let labelled = name.ends_with(".labels");
        let want = if labelled { labels.shallow_clone() } else { buffer.zeros_like() };
        close(&format!("first {name}"), buffer, &want);
    }
    close("true labels", &labels, &golden.get("buffer.labels.fused").view_as(&labels));
    let [y, second_y] = [&index, &second_index].map(|index| labels.index_select(0, index));
    let pass = learner.net().forward(&complete, true);
    let first = learner.terms(&pass, &index, &y).values();
    for m in Modality::ALL.map(Modality::name) {
        assert_eq!(first[m].double_value(&[]).to_bits(), 0, "{m} has nothing to learn yet");
    }

    // The state of a run that has gone on for a while.
    let golden_buffers = case.buffers("buffer", &learner);
    checkpoint::restore(scratch(&learner), &golden_buffers).expect("buffers");
    close("eval.answer", &answer(&learner, &shown), &golden.get("eval.answer"));
    close("answer", &answer(&learner, &complete), &golden.get("out.answer"));

    // Epoch 2: two batches, one step.
    let train = &case.config.train;
    assert_eq!(train.clip, Clip::None);
    let mut optimizer = Optimizer::new(groups(&learner, train).expect("groups"), train.betas);
    optimizer.zero_grad();
    let pass = learner.net().forward(&complete, true);
    close_pass(golden, &pass);
    let terms = learner.terms(&pass, &index, &y);
    close_losses(golden, "loss", &terms, &SELF_MM_LOSSES);
    terms.total().backward();
    close_gradients(golden, &checkpoint::variables(learner.store()));
    learner.update(&pass, &index, &y, 2);
    case.close_buffers("buffer2", &learner);
    let second_pass = learner.net().forward(&second, true);
    let terms = learner.terms(&second_pass, &second_index, &second_y);
    close_losses(golden, "second.loss", &terms, &SELF_MM_LOSSES);
    terms.total().backward();
    optimizer.clip(train.clip);
    optimizer.step(train.learning_rate);
    close_parameters(golden, "step", &learner);

    // Both batches again, by the same labels.
    optimizer.zero_grad();
    for (inputs, index, y) in [(&complete, &index, &y), (&second, &second_index, &second_y)] {
        let pass = learner.net().forward(inputs, true);
        learner.terms(&pass, index, y).total().backward();
    }
    optimizer.clip(train.clip);
    optimizer.step(train.learning_rate);
    close_parameters(golden, "step2", &learner);

    // Epoch 3: the first pass once more.
    learner.update(&pass, &index, &y, 3);
    case.close_buffers("buffer3", &learner);

    let learner = case.fresh();
    for (m, want) in Modality::ALL.iter().zip(golden.by_modality("out.encoded")) {
        let head = 1 + m.index();
        let layer = format!("head.{m}.linear1");
        let encoded = seen_through(learner.store(), &layer, || {
            learner.net().forward(&complete, false).features[head].shallow_clone()
        });
        close(&format!("encoded {m}"), &encoded, &want);
    }
    golden.assert_all_read();
}

fn close_pass(golden: &Golden, pass: &SelfMmPass) {
    for (s, head) in HEADS.iter().enumerate() {
        let feature = golden.get(&format!("out.feature.{head}"));
        close(&format!("feature {head}"), &pass.features[s], &feature);
        let got = &pass.answers[s];
        let want = golden.get(&format!("out.prediction.{head}"));
        close(&format!("answer {head}"), got, &want.view_as(got));
    }
    if !golden.is_sentiment() {
        let fused = &pass.answers[FUSED]; // the reference makes pairs of it
        let pairs = Tensor::stack(&[&fused.zeros_like(), fused], -1);
        close("logits", &pairs, &golden.get("out.logits"));
    }
}

#[test]
fn self_mm_equals_torch_nn() {
    check_self_mm("self_mm_sentiment");
}

#[test]
fn self_mm_on_labels_of_one_sign_equals_torch_nn() {
    check_self_mm("self_mm_one_sign");
}

#[test]
fn self_mm_on_emotions_equals_torch_nn() {
    check_self_mm("self_mm_emotion");
}

#[test]
fn self_mm_s_groups_are_encoders_and_heads() {
    let case = SelfMmCase::open("self_mm_sentiment");
    let learner = case.fresh();
    for name in checkpoint::variables(learner.store()).keys() {
        let (first, _) = name.split_once('.').expect("a path");
        let want = if first == "head" { REST } else { first };
        assert_eq!(learner.group(name), want, "{name}");
    }
}

/// What the trainer calls is what the tests above call, in their order: losses by the labels as
/// they are, of what the stage shows, then the labels of the epoch. Its recipes show complete data.
#[test]
fn a_batch_of_self_mm_costs_what_is_shown_before_its_labels_move() {
    for name in ["self_mm_sentiment", "self_mm_one_sign", "self_mm_emotion"] {
        let case = SelfMmCase::open(name);
        assert_eq!(case.config.sees, Shown::Complete);
        let [mut whole, mut parts] = [(); 2].map(|()| case.fresh());
        let labels = checkpoint::variables(scratch(&parts))["fused.labels"].copy();
        let batch = hidden_batch(&case.corpus);
        let y = labels.index_select(0, &batch.index);
        for epoch in 1..=3 {
            whole.begin_epoch(epoch, &case.corpus.train);
            let got = whole.loss(&batch);
            let pass = parts.net().forward(&batch.shown(), true);
            same(&got, &parts.terms(&pass, &batch.index, &y));
            parts.update(&pass, &batch.index, &y, epoch);
            let want = checkpoint::variables(scratch(&parts));
            for (name, buffer) in checkpoint::variables(scratch(&whole)) {
                close(&format!("{name} of epoch {epoch}"), &buffer, &want[&name]);
                if epoch == 1 && name.ends_with(".labels") {
                    close(&format!("{name} of epoch 1"), &buffer, &labels);
                }
            }
        }
    }
}

// ------------------------------------------------------------------------------------------ IF-MMIN

/// A case of IF-MMIN and what it is trained on.
struct IfMminCase {
    golden: Golden,
    corpus: Corpus,
    problem: Problem,
    whole_config: Config,
    config: if_mmin::Config,
}

impl IfMminCase {
    fn open(name: &str) -> Self {
        let golden = Golden::open(name);
        let (case, model) = (&golden.case, &golden.case["model"]);
        let e = integer(&model["embedding"]);
        let stage = if case["stage"] == 1 { "teacher" } else { "student" };
        let (whole_config, config) = golden.recipe::<if_mmin::Config>(
            "if-mmin",
            vec![
                format!("model.embedding_dim={e}"),
                format!("model.text_filters={}", model["filters"]),
                format!("model.classifier_dim={e}"),
                format!("model.cascade_dims=[{}, {e}, {}]", 2 * e, e / 2),
                "model.text_dropout=0.0".into(),
                "model.teacher_dropout=0.0".into(),
                "model.student_dropout=0.0".into(),
                format!("{stage}.train.learning_rate={:?}", number(&case["optimiser"]["lr"])),
            ],
        );
        // The rest is the recipe's.
        let train = if stage == "teacher" { &config.teacher.train } else { &config.student.train };
        let recipe = json!({
            "blocks": config.model.cascade_blocks,
            "clip": train.clip,
            "cmd_weight": config.teacher.cmd,
            "imagine_weight": config.student.imagine,
            "invariant_weight": config.student.invariant,
            "betas": train.betas,
            "weight_decay": train.weight_decay,
        });
        let want = json!({
            "blocks": case["blocks"],
            "clip": Clip::NormPerGroup(number(&case["clip"])),
            "cmd_weight": model["cmd_weight"],
            "imagine_weight": model["imagine_weight"],
            "invariant_weight": model["invariant_weight"],
            "betas": case["optimiser"]["betas"],
            "weight_decay": case["optimiser"]["weight_decay"],
        });
        assert_eq!(recipe, want);
        let labels = golden.get(&format!("target.{}", golden.kind()));
        let corpus = golden.labelled(&labels);
        let problem = pipeline::problem(&corpus);
        Self { golden, corpus, problem, whole_config, config }
    }

    /// A teacher with the parameters under `prefix`.
    fn teacher(&self, prefix: &str) -> Teacher {
        let cx = context(&self.problem, &self.corpus, "teacher", &[]);
        let teacher = Teacher::new(&self.config, &cx).expect("a teacher");
        let params = self.golden.part(prefix);
        checkpoint::restore(teacher.store(), &params).expect("the network's variables");
        teacher
    }

    /// A student of the golden teacher, which lies in `folder`, as a run starts it.
    fn fresh_student(&self, folder: &Path) -> Student {
        let header = Header {
            version: checkpoint::version(),
            method: "if-mmin".into(),
            stage: "teacher".into(),
            kind: CheckpointKind::Chosen,
            config: self.whole_config.to_json(),
            identity: json!({}),
            data: self.problem.clone(),
            metrics: json!({}),
        };
        let path = folder.join("best.safetensors");
        let bytes = checkpoint::to_bytes(&header, &self.golden.part("teacher.")).expect("bytes");
        std::fs::write(&path, bytes).expect("written");
        let trained = [Trained { stage: "teacher", path, sha256: String::new() }];
        let cx = context(&self.problem, &self.corpus, "student", &trained);
        Student::new(&self.config, &trained[0], &cx).expect("a student")
    }

    fn student(&self) -> Student {
        let folder = tempfile::tempdir().expect("a folder");
        let student = self.fresh_student(folder.path());
        let params = self.golden.part("param.");
        checkpoint::restore(student.store(), &params).expect("the network's variables");
        student
    }

    /// Embeddings and invariant features, whole and by modality.
    fn close_embedded(&self, got: &Embedded) {
        let golden = &self.golden;
        let parts = [("e", "embedding", &got.specific), ("u", "invariant", &got.invariant)];
        for (whole, part, got) in parts {
            close(whole, got, &golden.get(&format!("out.{whole}")));
            for (m, got) in ORDER.iter().zip(got.chunk(3, 1)) {
                close(&format!("{part} {m}"), &got, &golden.get(&format!("out.{part}.{m}")));
            }
        }
    }

    /// A score, or pairs of logits and the probabilities that they stand for.
    fn close_output(&self, output: &Tensor) {
        let golden = &self.golden;
        let own = if golden.is_sentiment() { "out.answer" } else { "out.logits" };
        close(own, output, &golden.get(own));
    }

    /// Two steps on the same batch, each from the losses that `terms` takes anew.
    fn close_two_steps(
        &self,
        learner: &dyn Learner,
        train: &TrainConfig,
        losses: &[(&str, &str)],
        terms: impl Fn() -> LossTerms,
    ) {
        let golden = &self.golden;
        let mut optimizer = Optimizer::new(groups(learner, train).expect("groups"), train.betas);
        for prefix in ["step", "step2"] {
            optimizer.zero_grad();
            let terms = terms();
            terms.total().backward();
            if prefix == "step" {
                close_losses(golden, "loss", &terms, losses);
                close_gradients(golden, &checkpoint::variables(learner.store()));
                self.close_norms(learner);
            }
            optimizer.clip(train.clip);
            optimizer.step(train.learning_rate);
            close_parameters(golden, prefix, learner);
        }
    }

    /// The gradients' norms within the learner's groups.
    fn close_norms(&self, learner: &dyn Learner) {
        let mut groups: BTreeMap<&str, Vec<Tensor>> = BTreeMap::new();
        for (name, variable) in checkpoint::variables(learner.store()) {
            groups.entry(learner.group(&name)).or_default().push(variable);
        }
        for (group, variables) in groups {
            let want = self.golden.get(&format!("out.grad_norm.{group}"));
            close(&format!("gradient of {group}"), &gradient_norm(&variables), &want);
        }
    }
}

/// Of all concatenations.
const ORDER: [Modality; 3] = [Modality::Audio, Modality::Language, Modality::Vision];

fn check_if_mmin_teacher(name: &str) {
    let case = IfMminCase::open(name);
    let golden = &case.golden;
    let shown = golden.inputs("input", "input.valid");
    let complete = golden.inputs("complete", "input.valid");
    let batch = whole_batch(&case.corpus);
    let teacher = case.teacher("param.");
    close("eval.answer", &answer(&teacher, &shown), &golden.get("eval.answer"));
    close("answer", &answer(&teacher, &complete), &golden.get("out.answer"));
    let pass = teacher.net().forward(&complete, true);
    case.close_embedded(&pass.embedded);
    case.close_output(&pass.output);
    let losses = [("task", "task"), ("cmd", "cmd")];
    case.close_two_steps(&teacher, &case.config.teacher.train, &losses, || {
        teacher.terms(&complete, batch.targets())
    });
    golden.assert_all_read();
}

fn check_if_mmin_student(name: &str) {
    let case = IfMminCase::open(name);
    let golden = &case.golden;
    let shown = golden.inputs("input", "input.valid");
    let complete = golden.inputs("complete", "input.valid");
    let batch = whole_batch(&case.corpus);
    let student = case.student();
    close("eval.answer", &answer(&student, &shown), &golden.get("eval.answer"));
    close("answer", &answer(&student, &shown), &golden.get("out.answer"));
    let wanted = student.teacher().0.targets(&complete, &shown);
    close("target E", &wanted.imagined, &golden.get("out.target_imagined"));
    close("target U", &wanted.invariant, &golden.get("out.target_invariant"));
    let pass = student.net().forward(&shown, true);
    case.close_embedded(&pass.embedded);
    case.close_output(&pass.output);
    close("imagined", &pass.imagined, &golden.get("out.imagined"));
    assert_eq!(pass.bottlenecks.len() as i64, integer(&golden.case["blocks"]));
    for (b, z) in (1..).zip(&pass.bottlenecks) {
        close(&format!("bottleneck {b}"), z, &golden.get(&format!("out.z.{b}")));
    }
    let losses = [("task", "task"), ("imagine", "imagined"), ("invariant", "invariant")];
    case.close_two_steps(&student, &case.config.student.train, &losses, || {
        student.terms(&complete, &shown, batch.targets())
    });
    assert_teacher_is(&student, &golden.part("teacher."));

    let other = case.student();
    scale(other.store(), "imagined.linear2", 1.0);
    let cascade = seen_through(other.store(), "imagined.linear1", || {
        other.net().forward(&shown, false).imagined
    });
    close("cascade", &cascade, &golden.get("out.cascade"));
    golden.assert_all_read();
}

/// Bit for bit, and without a gradient.
fn assert_teacher_is(student: &Student, want: &BTreeMap<String, Tensor>) {
    let got = checkpoint::variables(student.teacher().1);
    assert!(got.keys().eq(want.keys()), "{got:?}");
    for (name, variable) in &got {
        assert!(variable.equal(&want[name]), "the teacher's {name} has changed");
        assert!(!variable.grad().defined(), "the teacher's {name} has a gradient");
    }
}

#[test]
fn if_mmin_s_teacher_equals_torch_nn() {
    check_if_mmin_teacher("if_mmin_sentiment_stage1");
}

#[test]
fn if_mmin_s_teacher_of_emotions_equals_torch_nn() {
    check_if_mmin_teacher("if_mmin_emotion_stage1");
}

#[test]
fn if_mmin_s_student_equals_torch_nn() {
    check_if_mmin_student("if_mmin_sentiment_stage2");
}

#[test]
fn if_mmin_s_student_of_emotions_equals_torch_nn() {
    check_if_mmin_student("if_mmin_emotion_stage2");
}

#[test]
fn a_student_starts_with_its_teacher_s_encoders() {
    let case = IfMminCase::open("if_mmin_sentiment_stage2");
    let teacher = case.golden.part("teacher.");
    let folder = tempfile::tempdir().expect("a folder");
    let student = case.fresh_student(folder.path());
    assert_teacher_is(&student, &teacher);
    let mut n_copied = 0;
    for (name, variable) in checkpoint::variables(student.store()) {
        let (first, _) = name.split_once('.').expect("a path");
        let copied = ENCODERS.contains(&first);
        let equal = teacher
            .get(&name)
            .is_some_and(|theirs| theirs.size() == variable.size() && theirs.equal(&variable));
        assert_eq!(equal, copied, "{name}");
        n_copied += usize::from(copied);
    }
    let classifier = teacher.keys().filter(|name| name.starts_with("classifier."));
    assert_eq!(n_copied, teacher.len() - classifier.count());
}

/// Of a sample that shows audio alone, E is `[A(0); L(x_l); V(x_v)]`.
#[test]
fn a_teacher_shows_what_audio_alone_lacks() {
    let case = IfMminCase::open("if_mmin_sentiment_stage2");
    let student = case.student();
    let (teacher, _) = student.teacher();
    let [complete, audio] = [(); 2].map(|()| case.golden.inputs("complete", "input.valid"));
    for m in [Modality::Language, Modality::Vision].map(Modality::index) {
        let _ = audio.seen.select(1, m as i64).fill_(0);
    }
    let nothing = Inputs {
        features: from_fn(|m| complete.features[m].zeros_like()),
        seen: complete.seen.zeros_like(),
        valid: complete.valid.shallow_clone(),
    };
    let [full, nothing] = [&complete, &nothing].map(|inputs| {
        let pass = teacher.forward(inputs, false);
        pass.embedded.specific.chunk(3, 1)
    });
    let want = Tensor::cat(&[&nothing[0], &full[1], &full[2]], 1);
    close("E", &teacher.targets(&complete, &audio).imagined, &want);
}

/// What the trainer calls is what the tests above call, each view in its place; and a step of a
/// student leaves its teacher alone.
#[test]
fn a_batch_of_if_mmin_costs_its_views() {
    for task in ["sentiment", "emotion"] {
        let case = IfMminCase::open(&format!("if_mmin_{task}_stage1"));
        let mut teacher = case.teacher("param.");
        let batch = hidden_batch(&case.corpus);
        same(&teacher.loss(&batch), &teacher.terms(&batch.complete(), batch.targets()));

        let case = IfMminCase::open(&format!("if_mmin_{task}_stage2"));
        let train = &case.config.student.train;
        let mut student = case.student();
        let mut optimizer = Optimizer::new(groups(&student, train).expect("groups"), train.betas);
        let batch = hidden_batch(&case.corpus);
        let terms = student.loss(&batch);
        let (complete, shown) = (batch.complete(), batch.shown());
        same(&terms, &student.terms(&complete, &shown, batch.targets()));
        terms.total().backward();
        optimizer.clip(train.clip);
        optimizer.step(train.learning_rate);
        assert_teacher_is(&student, &case.golden.part("teacher."));
    }
}
