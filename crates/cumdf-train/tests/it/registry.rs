//! What every method of the registry must do, asked of each alike: a new line in the registry is
//! covered without a new line here.

use std::{
    collections::BTreeMap,
    env, fs,
    process::{Child, Command, Stdio},
    time::Duration,
};

use cumdf_data::{
    Corpus, Dataset, EvalSet, FeatureStats, Labels, Modality, ModalitySet, Samples, Split, Task,
    View,
};
use cumdf_model::checkpoint::{self, CheckpointKind, Header};
use cumdf_train::{
    answers::Answers,
    config::Config,
    evaluate,
    learner::Learner,
    method::{Context, Fits, Trained},
    metrics::Metric,
    pipeline::{self, Place},
    registry::{self, METHODS},
    run_dir::read_metrics,
    stage::Sees,
};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::tiny::{self, STEPS, alone, corpus, predict, program, resolve, run, small, trained};

/// A recipe, and a task that it is for.
struct Case {
    recipe: &'static str,
    task: Task,
}

/// Every method's default recipe for each task.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for entry in METHODS {
        for task in tiny::tasks() {
            let wanted = match task {
                Task::Sentiment { .. } => Fits::Sentiment,
                Task::Emotion { .. } => Fits::Emotion,
            };
            let fits = |fits: Fits| fits == Fits::Any || fits == wanted;
            if let Some(recipe) = entry.recipes.iter().find(|recipe| fits(recipe.fits)) {
                cases.push(Case { recipe: recipe.name, task });
            }
        }
    }
    assert!(cases.len() >= 2 * METHODS.len(), "a method lacks a recipe for a task");
    cases
}

impl Case {
    fn dataset(&self) -> Dataset {
        tiny::dataset(self.task.clone(), [70, 20, 30])
    }

    fn config(&self, epochs: u32) -> Config {
        resolve(&small(self.recipe, epochs))
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let task = if self.task.bin_scores().is_some() { "scores" } else { "emotions" };
        write!(f, "{} on {task}", self.recipe)
    }
}

/// Trains every case for an epoch and hands on what came of it.
fn for_each_trained(check: impl Fn(&Case, &Corpus, &registry::Loaded)) {
    let _alone = alone();
    for case in cases() {
        let folder = tempfile::tempdir().expect("a folder");
        let corpus = corpus(&case.dataset());
        let model = trained(&case.config(1), &corpus, folder.path());
        check(&case, &corpus, &model);
    }
}

/// The numbers of answers, a row per sample.
fn rows(answers: &Answers) -> Vec<Vec<f32>> {
    match answers {
        Answers::Scores(scores) => scores.iter().map(|s| vec![*s]).collect(),
        Answers::Classes(rows) | Answers::Flags(rows) => rows.clone(),
    }
}

fn row(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(tensor.flatten(0, -1).to_kind(Kind::Float)).expect("numbers")
}

fn close(what: &str, a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len(), "{what}");
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() <= 1e-5 * b.abs().max(1.0), "{what}: {a} for {b}");
    }
}

fn views() -> impl Iterator<Item = View> {
    let ratios = [0.0, 0.7];
    ModalitySet::CONDITIONS
        .into_iter()
        .flat_map(move |condition| ratios.map(|ratio| evaluate::view(condition, ratio)))
}

#[test]
fn every_missing_pattern_is_answered_and_batch_mates_and_padding_change_nothing() {
    for_each_trained(|case, corpus, model| {
        for view in views() {
            let what = format!("{case}, {} at {}", view.condition, view.drop_ratio);
            let predicted = predict(model, &corpus.test, &view).answers;
            assert!(predicted.is_finite(), "{what}");
            if let Answers::Classes(rows) = &predicted {
                for row in rows {
                    assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{what}: {row:?}");
                }
            }
            // Every sample alone (B = 1), trimmed to its own length.
            let together = rows(&predicted);
            for (at, inputs) in corpus.test.batches(&view, 1) {
                let prior = &model.header.data.prior;
                let seen = inputs.available().any_dim(1, false);
                let alone = model.predictor.predict(&inputs).or_prior(&seen, prior);
                close(
                    &format!("{what}, sample {} alone", at[0]),
                    &row(alone.tensor()),
                    &together[at[0]],
                );
            }
        }
    });
}

#[test]
fn what_is_absent_hidden_or_beyond_the_length_changes_no_bit() {
    for_each_trained(|case, _, model| {
        let clean = case.dataset();
        let stats = &model.header.data.stats;
        for view in [evaluate::view("la".parse().expect("a set"), 0.0), View::COMPLETE] {
            let set = prepare(&clean.test, STEPS, stats);
            let want = rows(&predict(model, &set, &view).answers);
            for rubbish in [f64::NAN, f64::INFINITY, 1e30] {
                let spoilt = spoil(&clean.test, view.condition, rubbish);
                let got = rows(&predict(model, &prepare(&spoilt, STEPS, stats), &view).answers);
                for (a, b) in got.iter().flatten().zip(want.iter().flatten()) {
                    assert_eq!(a.to_bits(), b.to_bits(), "{case}: {rubbish} was read, {a} for {b}");
                }
            }
            // The same samples in a file of more steps.
            let mut wide = spoil(&clean.test, view.condition, 99.0);
            wide.features = wide.features.map(|x| {
                let more =
                    Tensor::full([x.size()[0], 4, x.size()[2]], 99.0, (Kind::Float, Device::Cpu));
                Tensor::cat(&[x, more], 1)
            });
            let got = rows(&predict(model, &prepare(&wide, STEPS + 4, stats), &view).answers);
            for (got, want) in got.iter().zip(&want) {
                close(&format!("{case} in a longer file"), got, want);
            }
        }
    });
}

fn prepare(samples: &Samples, steps: i64, stats: &FeatureStats) -> EvalSet {
    EvalSet::prepare(samples, Split::Test, steps, stats, Device::Cpu).expect("a set")
}

/// Puts `rubbish` wherever a view of `shown` must not look.
fn spoil(samples: &Samples, shown: ModalitySet, rubbish: f64) -> Samples {
    let mut spoilt = tiny::copy(samples);
    for (m, x) in Modality::ALL.into_iter().zip(&mut spoilt.features) {
        let visible: Vec<bool> = samples
            .present
            .iter()
            .zip(&samples.lengths)
            .flat_map(|(present, length)| {
                let seen = present.contains(m) && shown.contains(m);
                (0..STEPS).map(move |step| seen && step < *length)
            })
            .collect();
        let visible = Tensor::from_slice(&visible).view([-1, STEPS, 1]);
        *x = x.masked_fill(&visible.logical_not(), rubbish);
    }
    spoilt
}

#[test]
fn a_sample_with_nothing_to_see_gets_the_prior_whatever_its_content_and_length() {
    for_each_trained(|case, corpus, model| {
        let view = evaluate::view("v".parse().expect("a set"), 0.0);
        let answers = rows(&predict(model, &corpus.test, &view).answers);
        let prior = &model.header.data.prior;
        let (mut blind, mut lengths) = (0, std::collections::BTreeSet::new());
        for (i, present) in corpus.test.present().iter().enumerate() {
            if !present.contains(Modality::Vision) {
                let answer = &answers[i];
                let want = match answer.len() {
                    1 => vec![prior.score],
                    _ if answer == &prior.flags => prior.flags.clone(),
                    _ => prior.classes.clone(),
                };
                assert_eq!(answer, &want, "{case}, sample {i}");
                (blind, _) = (blind + 1, lengths.insert(5 + i % 4));
            }
        }
        assert!(blind >= 4 && lengths.len() >= 3, "{blind} samples of lengths {lengths:?}");
    });
}

/// Makes the learner of every stage, the checkpoints it starts from included.
fn for_each_learner(
    config: &Config,
    corpus: &Corpus,
    mut check: impl FnMut(&str, &mut dyn Learner, &Sees, &pipeline::Place),
) {
    let folder = tempfile::tempdir().expect("a folder");
    let problem = pipeline::problem(corpus);
    let mut earlier: Vec<Trained> = Vec::new();
    for stage in config.method.stages() {
        let cx = Context {
            problem: &problem,
            train: &corpus.train,
            device: Device::Cpu,
            seed: config.seed,
            stage: stage.name,
            earlier: &earlier,
        };
        let mut learner = config.method.learner(stage.name, &cx).expect("a learner");
        let place = Place { until: Some(stage.name.into()), ..Place::resuming(folder.path()) };
        check(stage.name, learner.as_mut(), &stage.sees, &place);
        let fitted = pipeline::train(config, corpus, Device::Cpu, &place).expect("trained");
        let sha256 = pipeline::sha256_of(&fitted.best).expect("a file");
        earlier.push(Trained { stage: stage.name, path: fitted.best, sha256 });
    }
}

#[test]
fn every_trainable_variable_gets_a_gradient() {
    let _alone = alone();
    for case in cases() {
        let (config, corpus) = (case.config(1), corpus(&case.dataset()));
        for_each_learner(&config, &corpus, |stage, learner, sees, _| {
            let mut moved: BTreeMap<String, f64> = BTreeMap::new();
            for epoch in 1..=3 {
                learner.begin_epoch(epoch, &corpus.train);
                let order = cumdf_data::EpochOrder {
                    seed: 1,
                    epoch: u64::from(epoch),
                    batch_size: 16,
                    bucket: 1,
                };
                for batch in corpus.train.epoch(sees.masks(), order) {
                    learner.loss(&batch).total().backward();
                }
            }
            let stores = [Some(learner.store()), learner.scratch()];
            for (name, variable) in stores.into_iter().flatten().flat_map(checkpoint::variables) {
                if variable.requires_grad() {
                    let grad = variable.grad();
                    assert!(grad.defined(), "{case}, {stage}: {name} has no gradient");
                    let norm = grad.norm().double_value(&[]);
                    assert!(norm.is_finite(), "{case}, {stage}: {name}'s gradient is {norm}");
                    moved.insert(name, norm);
                }
            }
            let still: Vec<_> = moved.iter().filter(|(_, norm)| **norm <= 0.0).collect();
            assert!(still.is_empty(), "{case}, {stage}: nothing moves {still:?}");
        });
    }
}

#[test]
fn every_method_can_be_trained_with_the_other_view() {
    let _alone = alone();
    for case in cases() {
        let [complete, masked] = ["complete", "masked"].map(|view| {
            let mut sets = small(case.recipe, 1);
            sets.push(format!("sees={view}"));
            let (config, folder) = (resolve(&sets), tempfile::tempdir().expect("a folder"));
            let last = config.method.stages().pop().expect("a stage");
            assert_eq!(last.sees.masks().is_some(), view == "masked", "{case}");
            let corpus = corpus(&case.dataset());
            let model = trained(&config, &corpus, folder.path());
            rows(&predict(&model, &corpus.test, &View::COMPLETE).answers)
        });
        assert_ne!(complete, masked, "{case}: it makes no difference what training sees");
    }
}

#[test]
fn a_checkpoint_gives_back_the_network_bit_for_bit() {
    let _alone = alone();
    for case in cases() {
        let (config, corpus) = (case.config(1), corpus(&case.dataset()));
        for_each_learner(&config, &corpus, |stage, learner, _, place| {
            let header = Header {
                version: checkpoint::version(),
                method: config.entry.name.into(),
                stage: stage.into(),
                kind: CheckpointKind::Chosen,
                config: config.to_json(),
                identity: json!({}),
                data: pipeline::problem(&corpus),
                metrics: json!({}),
            };
            let variables = checkpoint::variables(learner.store());
            let bytes = checkpoint::to_bytes(&header, &variables).expect("bytes");
            let path = place.dir.join(format!("{stage}.safetensors"));
            fs::write(&path, &bytes).expect("written");
            let loaded = registry::load(&path, Device::Cpu).expect("loaded");
            for (_, inputs) in corpus.test.batches(&evaluate::view(ModalitySet::ALL, 0.4), 8) {
                let [ours, theirs] =
                    [learner.predictor(), loaded.predictor.as_ref()].map(|p| p.predict(&inputs));
                assert!(ours.tensor().equal(theirs.tensor()), "{case}, {stage}");
            }
        });
    }
}

#[test]
fn the_test_split_leaves_the_checkpoint_alone() {
    let _alone = alone();
    for case in cases() {
        let best = |dataset: &Dataset| {
            let folder = tempfile::tempdir().expect("a folder");
            let (config, corpus) = (case.config(2), corpus(dataset));
            let fitted =
                pipeline::train(&config, &corpus, Device::Cpu, &Place::resuming(folder.path()));
            fs::read(fitted.expect("trained").best).expect("a checkpoint")
        };
        let dataset = case.dataset();
        let want = best(&dataset);
        let mut other = case.dataset();
        match &mut other.test.labels {
            Labels::Scores(scores) => scores.iter_mut().for_each(|s| *s = -*s),
            Labels::Classes(rows) => rows.iter_mut().for_each(|row| row.reverse()),
        }
        other.test.features = other.test.features.map(|x| x * 3.0 + 1.0);
        other.test.present = vec!["l".parse().expect("a set"); other.test.present.len()];
        assert!(best(&other) == want, "{case}: the test split reached the checkpoint");
    }
}

#[test]
fn a_killed_run_goes_on_to_the_same_bytes() {
    let _alone = alone();
    for entry in METHODS {
        let folder = tempfile::tempdir().expect("a folder");
        let data = tiny::written(folder.path());
        let sets = small(entry.recipes[0].name, 4);
        let command = |out: &str, more: &[&str]| {
            let mut command =
                program(&["train", "--method", entry.name], &data, &folder.path().join(out));
            command.args(sets.iter().flat_map(|set| ["--set", set])).args(more);
            command
        };
        tiny::succeeds(command("whole", &[]));
        let stages = resolve(&sets).method.stages();
        let mut kills = 0;
        for stage in &stages {
            let before = kills;
            for after in [1, 2] {
                let mut child = command("killed", &["--resume"]).spawn().expect("it starts");
                let metrics = folder.path().join("killed").join(stage.name).join("metrics.jsonl");
                kills += usize::from(kill_once(&mut child, || {
                    fs::read_to_string(&metrics).unwrap_or_default().lines().count() >= after
                }));
            }
            assert!(kills > before, "{}: {} was never interrupted", entry.name, stage.name);
        }
        let output = run(command("killed", &["--resume"]));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        for stage in stages {
            for file in ["best.safetensors", "last.safetensors"] {
                let bytes = ["whole", "killed"].map(|run| {
                    let path = folder.path().join(run).join(stage.name).join(file);
                    fs::read(path).expect("a checkpoint")
                });
                assert!(
                    bytes[0] == bytes[1],
                    "{}, {}: {file} differs after {kills} kills",
                    entry.name,
                    stage.name
                );
            }
            let path = folder.path().join("killed").join(stage.name).join("metrics.jsonl");
            let lines = read_metrics(&path).expect("metrics");
            let epochs: Vec<_> = lines.iter().map(|line| line["epoch"].as_u64()).collect();
            let want: Vec<_> = (1..=lines.len() as u64).map(Some).collect();
            assert_eq!(epochs, want, "{}, {}", entry.name, stage.name);
        }
    }
}

/// Kills the process when `ready`; `false` when it ended before.
fn kill_once(child: &mut Child, ready: impl Fn() -> bool) -> bool {
    for _ in 0..60_000 {
        if child.try_wait().expect("a status").is_some() {
            return false;
        }
        if ready() {
            child.kill().expect("kill -9");
            child.wait().expect("it ends");
            return true;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    panic!("neither ready nor over after two minutes");
}

/// Says that a process has the second half of the cases below.
const SECOND_HALF: &str = "CUMDF_TEST_SECOND_HALF";

/// The longest test: two processes share its cases, as a process has only one generator.
#[test]
fn sixty_four_samples_are_learned_by_heart() {
    let _alone = alone();
    let is_second = env::var_os(SECOND_HALF).is_some();
    let second = (!is_second).then(|| {
        Command::new(env::current_exe().expect("this program"))
            .args(["--exact", "registry::sixty_four_samples_are_learned_by_heart", "--nocapture"])
            .env(SECOND_HALF, "1")
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts")
    });
    let own = cases().into_iter().enumerate().filter(|(i, _)| (i % 2 == 1) == is_second);
    for (_, case) in own {
        let mut dataset = tiny::dataset(case.task.clone(), [64, 64, 10]);
        // Chosen on what it trains on, or the first epochs would be kept.
        dataset.valid = Samples { ids: dataset.valid.ids.clone(), ..tiny::copy(&dataset.train) };
        let config = resolve(&tiny::memorising(case.recipe, 100));
        let folder = tempfile::tempdir().expect("a folder");
        let corpus = corpus(&dataset);
        let model = trained(&config, &corpus, folder.path());
        let answers =
            predict(&model, &corpus.valid, &evaluate::view(ModalitySet::ALL, 0.0)).answers;
        let metric = match case.task {
            Task::Sentiment { .. } => Metric::Mae,
            Task::Emotion { .. } => Metric::Acc,
        };
        let value = metric.value(&case.task, &dataset.train.labels, &answers);
        let good = if metric.lower_is_better() { value < 0.2 } else { value > 0.95 };
        println!("{case}: {metric} {value:.3} on its own 64 samples");
        assert!(good, "{case}: {metric} {value:.3} on its own 64 samples");
    }
    if let Some(second) = second {
        let output = second.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "the second half: {said}");
        print!("{said}");
    }
}

/// The figures that two epochs of every stage come to; a method whose figures move without its
/// `formula` moving would let old results pass for new ones.
#[test]
fn the_formulas_are_those_that_the_versions_stand_for() {
    let _alone = alone();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/formulas.json");
    let mut measured = serde_json::Map::new();
    for case in cases() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = case.config(2);
        let corpus = corpus(&case.dataset());
        trained(&config, &corpus, folder.path());
        let scores: Vec<Value> = config
            .method
            .stages()
            .iter()
            .map(|stage| {
                let path = folder.path().join(stage.name).join("metrics.jsonl");
                read_metrics(&path).expect("metrics")[1]["score"].clone()
            })
            .collect();
        let formula = format!("{}.{}", cumdf_train::FORMULA, config.entry.formula);
        measured.insert(case.to_string(), json!({ "formula": formula, "scores": scores }));
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let text = serde_json::to_string_pretty(&measured).expect("JSON") + "\n";
        fs::write(path, text).expect("written");
    }
    let golden: Value =
        serde_json::from_str(&fs::read_to_string(path).expect("the golden file")).expect("JSON");
    for (case, now) in &measured {
        let then = &golden[case];
        let numbers = |v: &Value| -> Vec<f64> {
            v["scores"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
        };
        let same = numbers(then).len() == numbers(now).len()
            && numbers(then).iter().zip(numbers(now)).all(|(a, b)| (a - b).abs() < 1e-3);
        assert!(
            same && then["formula"] == now["formula"],
            "{case} was {then} and is {now}: when its figures are meant to move, raise its \
             `formula` (or the trainer's FORMULA) and run this test with UPDATE_GOLDEN=1"
        );
    }
}
