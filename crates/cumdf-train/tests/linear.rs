//! The floor `linear` against scikit-learn 1.9.1: `scripts/linear_reference.py`, whose made-up cases
//! are in `tests/golden/linear.safetensors` and whose figures on real packs are written down here.

#![expect(clippy::print_stdout, reason = "a skipped pack is said aloud")]

use std::{collections::BTreeMap, path::Path};

use cumdf_data::{Corpus, Dataset, Labels, ModalitySet, Split, Task, View};
use cumdf_train::{
    answers::Answers,
    evaluate,
    linear::{ConditionModel, Examples, LOGISTIC_STRENGTHS, Linear, LinearFloor, RIDGE_STRENGTHS},
    metrics::Metric,
};
use tch::{Device, Kind, Tensor};

const SENTIMENT: Task = Task::Sentiment { lo: -3, hi: 3 };

fn emotions(names: &[&str]) -> Task {
    Task::Emotion { classes: names.iter().map(|name| (*name).to_owned()).collect() }
}

fn flat(predicted: &Answers) -> Vec<f32> {
    match predicted {
        Answers::Scores(scores) => scores.clone(),
        Answers::Classes(rows) | Answers::Flags(rows) => rows.concat(),
    }
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a.to_kind(Kind::Double) - b).abs().max().double_value(&[])
}

/// Fits one case of the golden file and compares everything it holds.
fn agrees(case: &str, task: &Task, strengths: &[f64], tolerance: f64) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/linear.safetensors");
    let golden: BTreeMap<_, _> =
        Tensor::read_safetensors(file).expect("a golden file").into_iter().collect();
    let get = |name: &str| &golden[&format!("{case}.{name}")];
    let labels = |split: &str| {
        let y = get(&format!("{split}.y"));
        match task {
            Task::Sentiment { .. } => {
                Labels::Scores(Vec::try_from(y.to_kind(Kind::Float)).expect("scores"))
            }
            Task::Emotion { .. } => {
                let rows: Vec<Vec<f64>> = Vec::try_from(y).expect("flags");
                Labels::Classes(
                    rows.iter().map(|row| row.iter().map(|f| *f > 0.5).collect()).collect(),
                )
            }
        }
    };
    let (train, valid) = (labels("train"), labels("valid"));
    let fit = || {
        let train = Examples { features: get("train.x"), labels: &train };
        let valid = Examples { features: get("valid.x"), labels: &valid };
        Linear::fit(task, train, valid, strengths).expect("a model")
    };
    let model = fit();
    assert_eq!(Tensor::from_slice(&[model.strength()]), *get("strength"));
    let predicted = model.predict(get("test.x")).expect("predictions");
    let flat = Tensor::from_slice(&flat(&predicted)).view_as(get("prediction"));
    for (what, ours) in
        [("prediction", &flat), ("weights", model.weights()), ("intercept", model.intercept())]
    {
        let off = largest_difference(ours, get(what));
        assert!(off < tolerance, "{case}: {what} differ from scikit-learn's by {off:.1e}");
    }
    let again = fit().predict(get("test.x")).expect("predictions");
    assert_eq!(predicted, again, "{case}: a second fit differs");
}

#[test]
fn ridge_agrees_with_scikit_learn() {
    agrees("primal", &SENTIMENT, &RIDGE_STRENGTHS, 1e-6);
}

#[test]
fn ridge_of_more_features_than_samples_agrees_with_scikit_learn() {
    agrees("dual", &SENTIMENT, &RIDGE_STRENGTHS, 1e-6);
}

#[test]
fn logistic_regression_with_multi_hot_labels_agrees_with_scikit_learn() {
    agrees("logistic", &emotions(&["a", "b", "c", "d"]), &LOGISTIC_STRENGTHS, 1e-5);
}

#[test]
fn a_model_of_nothing_answers_the_mean() {
    let nothing = Tensor::zeros([4, 0], (Kind::Double, Device::Cpu));
    let fit = |task: &Task, labels: &Labels, strengths: &[f64]| {
        let examples = Examples { features: &nothing, labels };
        let model = Linear::fit(task, examples, examples, strengths).expect("a model");
        flat(&model.predict(&nothing.narrow(0, 0, 1)).expect("predictions"))
    };
    let scores = Labels::Scores(vec![-1.0, 0.0, 1.0, 2.0]);
    assert_eq!(fit(&SENTIMENT, &scores, &RIDGE_STRENGTHS), [0.5]);
    let rows = [[true, false], [true, true], [true, false], [false, true]];
    let flags = Labels::Classes(rows.map(|row| row.to_vec()).to_vec());
    let shares = fit(&emotions(&["a", "b"]), &flags, &LOGISTIC_STRENGTHS);
    assert!(
        (shares[0] - 2.5 / 4.0).abs() < 1e-6 && (shares[1] - 1.5 / 4.0).abs() < 1e-6,
        "{shares:?}"
    );
}

#[test]
fn labels_of_two_kinds_and_an_empty_list_of_strengths_are_refused() {
    let x = Tensor::ones([2, 1], (Kind::Double, Device::Cpu));
    let (scores, flags) = (Labels::Scores(vec![0.0, 1.0]), Labels::Classes(vec![vec![true]; 2]));
    let [scores, flags] = [&scores, &flags].map(|labels| Examples { features: &x, labels });
    assert!(Linear::fit(&SENTIMENT, scores, flags, &RIDGE_STRENGTHS).is_err());
    assert!(Linear::fit(&SENTIMENT, scores, scores, &[]).is_err());
}

/// A pack beside the workspace, or beside the folder of a worktree; `None`, said aloud, where there
/// is none.
fn pack(file: &str, clip: f64) -> Option<Corpus> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let places = ["..", "../.."].map(|up| root.join(up).join("shared/data").join(file));
    let Some(path) = places.iter().find(|path| path.exists()) else {
        println!("skipped: {} is not there", places[0].display());
        return None;
    };
    let data = Dataset::open(path).expect("the pack is valid");
    Some(Corpus::prepare(&data, clip, false, Device::Cpu).expect("the pack is valid"))
}

/// MAE, correlation and F1 of scores; F1 of emotions.
fn figures(task: &Task, labels: &Labels, predicted: &Answers) -> Vec<f64> {
    let metrics = match task {
        Task::Sentiment { .. } => vec![Metric::Mae, Metric::Corr, Metric::F1],
        Task::Emotion { .. } => vec![Metric::F1],
    };
    metrics.iter().map(|metric| metric.value(task, labels, predicted)).collect()
}

/// Condition, strength, figures, first predicted number.
type Row<'a> = (&'a str, f64, &'a [f64], f32);

fn agree_on(file: &str, clip: f64, rows: &[Row<'_>]) {
    let Some(corpus) = pack(file, clip) else { return };
    let floor = LinearFloor::new(&corpus);
    for (key, strength, expected, first) in rows {
        let condition: ModalitySet = key.parse().expect("a condition");
        let model = floor.fit(condition).expect("a model");
        let predicted =
            model.predict(&corpus.test, &evaluate::view(condition, 0.0)).expect("predictions");
        let found = figures(&corpus.task, corpus.labels(Split::Test), &predicted);
        let chosen = model.linear().strength();
        assert!((chosen - strength).abs() < 1e-9, "{file} {key}: strength {chosen}");
        for (ours, reference) in found.iter().zip(*expected) {
            let off = (ours - reference).abs();
            assert!(off < 1e-5, "{file} {key}: {found:.5?}, scikit-learn has {expected:?}");
        }
        let tolerance = if expected.len() == 3 { 1e-4 } else { 1e-3 };
        assert!((flat(&predicted)[0] - first).abs() < tolerance, "{file} {key}: first prediction");
    }
}

#[test]
fn mosi_agrees_with_scikit_learn() {
    let rows: &[Row<'_>] = &[
        ("l", 100.0, &[1.19978, 0.46526, 0.69090], -0.49564),
        ("a", 10000.0, &[1.45796, 0.12444, 0.25404], 0.26566),
        ("la", 10.0, &[1.29838, 0.36143, 0.64031], -0.16163),
        ("lv", 100.0, &[1.19978, 0.46526, 0.69090], -0.49564),
        ("av", 10000.0, &[1.45796, 0.12444, 0.25404], 0.26566),
        ("lav", 10.0, &[1.29838, 0.36143, 0.64031], -0.16163),
    ];
    agree_on("mosi.h5", 5.0, rows);
}

#[test]
fn mosi_with_features_of_bc_lstm_agrees_with_scikit_learn() {
    let rows: &[Row<'_>] = &[
        ("l", 100.0, &[0.99417, 0.57445, 0.76787], 0.71428),
        ("a", 1000.0, &[1.31708, 0.16536, 0.55649], -0.50653),
        ("v", 10000.0, &[1.31763, 0.17854, 0.49738], 0.17121),
        ("la", 100.0, &[0.98850, 0.58524, 0.76985], 0.49958),
        ("lv", 1000.0, &[0.99224, 0.58469, 0.77800], 0.68842),
        ("av", 10000.0, &[1.30628, 0.23625, 0.51993], -0.00740),
        ("lav", 1000.0, &[0.97898, 0.60038, 0.78002], 0.52075),
    ];
    agree_on("mosi-bclstm.h5", 5.0, rows);
}

/// Training has no language: {l,a} is {a}.
#[test]
fn mmmo_agrees_with_scikit_learn() {
    let rows: &[Row<'_>] = &[
        ("a", 100.0, &[1.15470, 0.36684, 0.77931], 3.41229),
        ("v", 1000.0, &[1.31857, 0.19586, 0.61050], 3.29747),
        ("la", 100.0, &[1.15470, 0.36684, 0.77931], 3.41229),
        ("lv", 1000.0, &[1.31857, 0.19586, 0.61050], 3.29747),
        ("av", 100.0, &[1.13605, 0.36589, 0.77931], 3.37425),
        ("lav", 100.0, &[1.13605, 0.36589, 0.77931], 3.37425),
    ];
    agree_on("mmmo.h5", 0.0, rows);
}

#[test]
fn iemocap_agrees_with_scikit_learn() {
    let rows: &[Row<'_>] = &[
        ("l", 1.0, &[0.45772], 0.22234),
        ("a", 10.0, &[0.44223], 0.24970),
        ("v", 100.0, &[0.23194], 0.23592),
        ("la", 10.0, &[0.56485], 0.13229),
        ("lv", 10.0, &[0.46694], 0.21093),
        ("av", 10.0, &[0.46347], 0.23580),
        ("lav", 10.0, &[0.58073], 0.14087),
    ];
    agree_on("iemocap.h5", 5.0, rows);
}

fn predict(model: &ConditionModel, corpus: &Corpus, view: &View) -> Vec<f32> {
    flat(&model.predict(&corpus.test, view).expect("predictions"))
}

#[test]
fn what_a_condition_hides_and_test_frames_that_are_dropped_behave() {
    let Some(corpus) = pack("mmmo.h5", 0.0) else { return };
    let floor = LinearFloor::new(&corpus);
    let audio: ModalitySet = "a".parse().expect("a condition");
    let model = floor.fit(audio).expect("a model");
    let complete = predict(&model, &corpus, &View::COMPLETE);
    assert_eq!(complete, predict(&model, &corpus, &evaluate::view(audio, 0.0)), "it read another");
    let holes = predict(&model, &corpus, &evaluate::view(audio, 0.5));
    assert!(holes != complete && holes.iter().all(|p| p.is_finite()));

    let language: ModalitySet = "l".parse().expect("a condition");
    assert!(corpus.available(Split::Train).intersection(language).is_empty());
    let model = floor.fit(language).expect("a model of nothing");
    let same = predict(&model, &corpus, &evaluate::view(language, 0.0));
    assert_eq!(same, vec![same[0]; same.len()], "language is not in training");
}
