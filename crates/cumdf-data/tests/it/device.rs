//! From samples to batches: what a model and a loss are handed.

use cumdf_data::{
    Corpus, Dataset, EpochOrder, Inputs, Labels, Modality, ModalitySet, MrmsConfig, Split, Task,
    View,
};
use tch::{Device, Kind, Tensor};

use crate::common::{self, DIMS, STEPS, floats, samples, toy};

fn corpus(data: &Dataset) -> Corpus {
    Corpus::prepare(data, 0.0, false, Device::Cpu).expect("the data is valid")
}

fn order(epoch: u64, batch_size: i64, bucket: usize) -> EpochOrder {
    EpochOrder { seed: 1, epoch, batch_size, bucket }
}

fn masks() -> MrmsConfig {
    MrmsConfig { drop_ratios: vec![0.0, 0.3, 0.6], inter: 0.5 }
}

fn set(key: &str) -> ModalitySet {
    key.parse().expect("a set of modalities")
}

/// Row `row` of a batch, cut to its own length, as plain numbers: features, then seen.
fn row(inputs: &Inputs, row: i64) -> (Vec<Vec<f32>>, Vec<f32>) {
    let length = inputs.valid.get(row).sum(Kind::Int64).int64_value(&[]);
    let features =
        inputs.features.iter().map(|x| floats(&x.get(row).narrow(0, 0, length))).collect();
    (features, floats(&inputs.seen.get(row).narrow(1, 0, length)))
}

/// What must hold of any inputs.
fn check(inputs: &Inputs, steps: i64) {
    let b = inputs.len();
    assert_eq!(inputs.valid.size(), [b, steps]);
    assert_eq!(inputs.seen.size(), [b, 3, steps]);
    assert_eq!(inputs.seen.kind(), Kind::Bool);
    assert_eq!(inputs.available().size(), [b, 3]);
    for modality in Modality::ALL {
        let x = &inputs.features[modality.index()];
        assert_eq!(x.size(), [b, steps, DIMS[modality.index()]]);
        assert_eq!(x.isfinite().all().int64_value(&[]), 1);
        let seen = inputs.seen.select(1, modality.index() as i64);
        let hidden =
            x.abs().sum_dim_intlist(-1, false, Kind::Float).masked_select(&seen.logical_not());
        assert!(floats(&hidden).iter().all(|sum| *sum == 0.0), "{modality} shows hidden frames");
        let outside = seen.logical_and(&inputs.valid.logical_not()).any();
        assert_eq!(outside.int64_value(&[]), 0, "{modality} is seen in padding");
    }
    // Padding is trimmed: somebody uses the last step.
    assert_eq!(inputs.valid.select(1, steps - 1).any().int64_value(&[]), 1);
}

#[test]
fn an_epoch_visits_every_sample_once_in_trimmed_batches() {
    let data = toy();
    let corpus = corpus(&data);
    for bucket in [1, 2] {
        let epoch = corpus.train.epoch(Some(&masks()), order(0, 3, bucket));
        assert_eq!(epoch.len(), corpus.train.n_batches(3));
        let mut visited = Vec::new();
        let mut sizes = Vec::new();
        for batch in epoch {
            let longest = batch.rows().iter().map(|row| data.train.lengths[*row]).max().unwrap();
            for inputs in [batch.complete(), batch.shown()] {
                assert_eq!(inputs.len(), batch.len());
                check(&inputs, longest);
            }
            let index: Vec<i64> = Vec::try_from(&batch.index).unwrap();
            assert!(index.iter().map(|row| *row as usize).eq(batch.rows().iter().copied()));
            visited.extend_from_slice(batch.rows());
            sizes.push(batch.len());
        }
        sizes.sort_unstable();
        assert_eq!(sizes, [3, 3, 4], "the last sample joins a batch");
        visited.sort_unstable();
        assert!(visited.into_iter().eq(0..10));
    }
}

#[test]
fn targets_belong_to_their_samples() {
    let data = toy();
    let Labels::Scores(scores) = &data.train.labels else { panic!("the toy has scores") };
    for batch in corpus(&data).train.epoch(Some(&masks()), order(2, 4, 1)) {
        let targets = batch.targets();
        assert_eq!(targets.distribution().size(), [batch.len(), 7]);
        let got = floats(targets.score().unwrap());
        let bins: Vec<i64> = Vec::try_from(targets.distribution().argmax(1, false)).unwrap();
        let expected: Vec<f32> = batch.rows().iter().map(|row| scores[*row]).collect();
        assert_eq!(got, expected);
        assert!(bins.iter().map(|bin| *bin as usize).eq(got.iter().map(|s| data.task.bin(*s))));
    }
}

#[test]
fn soft_labels_have_the_score_as_mean() {
    let data = toy();
    let soft = Corpus::prepare(&data, 0.0, true, Device::Cpu).unwrap();
    let bins = Tensor::from_slice(&data.task.bin_scores().unwrap());
    for batch in soft.train.complete_batches(4) {
        let distribution = batch.targets().distribution();
        let mean = (distribution * &bins).sum_dim_intlist(1, false, Kind::Float);
        assert_eq!(floats(&mean), floats(batch.targets().score().unwrap()));
        let mass = distribution.sum_dim_intlist(1, false, Kind::Float);
        assert!(mass.equal(&mass.ones_like()));
    }
}

#[test]
fn emotions_share_their_mass() {
    let splits = [samples("train", 10), samples("valid", 5), samples("test", 6)];
    let data = common::emotions(splits).unwrap();
    let corpus = corpus(&data);
    let batch = corpus.train.complete_batches(10).next().unwrap();
    let rows = floats(batch.targets().distribution());
    for (row, target) in batch.rows().iter().zip(rows.chunks(2)) {
        let expected: &[f32] = [&[0.0, 1.0], &[1.0, 0.0], &[0.5, 0.5]][row % 3];
        assert_eq!(target, expected);
    }
    assert!(batch.targets().score().is_none());
}

#[test]
fn neither_order_nor_batch_size_changes_a_sample() {
    let corpus = corpus(&toy());
    let rows_of = |batch_size, bucket| {
        let mut all: Vec<_> = (0..10).map(|_| None).collect();
        for batch in corpus.train.epoch(Some(&masks()), order(5, batch_size, bucket)) {
            let inputs = batch.shown();
            for (place, sample) in batch.rows().iter().enumerate() {
                all[*sample] = Some(row(&inputs, place as i64));
            }
        }
        all
    };
    let expected = rows_of(10, 1);
    for (batch_size, bucket) in [(1, 1), (3, 1), (3, 2), (4, 8)] {
        assert_eq!(rows_of(batch_size, bucket), expected, "{batch_size} by {bucket}");
    }
}

#[test]
fn complete_batches_show_everything_there_is() {
    let data = toy();
    let corpus = corpus(&data);
    let mut visited = 0;
    for batch in corpus.train.complete_batches(4) {
        let (complete, incomplete) = (batch.complete(), batch.shown());
        for (a, b) in complete.features.iter().zip(&incomplete.features) {
            assert!(a.equal(b));
        }
        let all = complete.valid.unsqueeze(1).expand_as(&complete.seen);
        assert!(complete.seen.equal(&all));
        visited += batch.len();
    }
    assert_eq!(visited, 10);
    // By hand: language feature 0 of the training split, standardised.
    let batch = corpus.train.complete_batches(10).next().unwrap();
    let z = batch.complete().features[0].select(2, 0); // [10, 4]
    let x = data.train.features[0].select(2, 0).index_select(0, &batch.index);
    let stats = &corpus.stats;
    let expected = (x - f64::from(stats.mean[0][0])) / f64::from(stats.std[0][0]);
    let valid = batch.complete().valid;
    assert!((z - expected).masked_select(&valid).abs().max().double_value(&[]) < 1e-6);
}

#[test]
fn an_utterance_feature_is_repeated_over_valid_steps() {
    let corpus = corpus(&toy());
    let batch = corpus.train.complete_batches(10).next().unwrap();
    let inputs = batch.complete();
    for sample in 0..10 {
        let (features, _) = row(&inputs, sample);
        let vision = &features[Modality::Vision.index()];
        assert_eq!(vision, &vec![vision[0]; vision.len()]);
        assert_ne!(vision[..1], [0.0]);
    }
    check(&inputs, STEPS);
}

#[test]
fn evaluation_covers_the_split_and_hides_what_the_view_says() {
    let data = toy();
    let corpus = corpus(&data);
    let view = View { condition: set("lv"), drop_ratio: 0.5, seed: 3, ..View::COMPLETE };
    let mut visited = Vec::new();
    let batches = corpus.test.batches(&view, 4);
    assert_eq!(batches.len(), 2);
    let mut lengths = Vec::new();
    for (rows, inputs) in batches {
        let longest = rows.iter().map(|row| data.test.lengths[*row]).max().unwrap();
        check(&inputs, longest);
        assert!(floats(&inputs.available().select(1, 1)).iter().all(|audio| *audio == 0.0));
        assert_eq!(inputs.available().any_dim(1, false).all().int64_value(&[]), 1);
        lengths.extend(rows.iter().map(|row| data.test.lengths[*row]));
        visited.extend(rows);
    }
    assert!(lengths.is_sorted(), "{lengths:?}");
    visited.sort_unstable();
    assert!(visited.into_iter().eq(0..6));
    assert_eq!(corpus.test.ids(), data.test.ids);
}

#[test]
fn a_modality_that_training_never_had_is_hidden_everywhere() {
    let mut splits = [samples("train", 10), samples("valid", 5), samples("test", 6)];
    splits[0].present = vec![set("av"); 10];
    splits[2].present[0] = set("l");
    let data = Dataset::new("no words", Task::Sentiment { lo: -3, hi: 3 }, splits).unwrap();
    let corpus = corpus(&data);
    assert_eq!(corpus.stats.trained, set("av"));
    assert_eq!(corpus.available(Split::Test), set("av"));
    for (rows, inputs) in corpus.test.batches(&View::COMPLETE, 6) {
        check(&inputs, STEPS);
        let available = floats(&inputs.available());
        for (row, available) in rows.iter().zip(available.chunks(3)) {
            // Sample 0 has words alone, which no model may read: nothing is left of it.
            let expected: &[f32] = if *row == 0 { &[0.0, 0.0, 0.0] } else { &[0.0, 1.0, 1.0] };
            assert_eq!(available, expected, "sample {row}");
        }
    }
}

#[test]
fn non_finite_values_become_the_mean_and_leave_the_host_data_alone() {
    let splits = [samples("train", 10), samples("valid", 5), samples("test", 6)];
    for (value, step) in [(f32::NAN, 0), (f32::INFINITY, 1), (f32::NEG_INFINITY, 2)] {
        let _ = splits[2].features[0].get(3).get(step).fill_(f64::from(value));
    }
    let _ = splits[2].features[1].get(0).get(3).fill_(f64::NAN); // padding of a sample of length 1
    let data = Dataset::new("gaps", Task::Sentiment { lo: -3, hi: 3 }, splits).unwrap();
    assert_eq!(data.repairs.count(Split::Test, Modality::Language), 9);
    assert_eq!(data.repairs.total(), 9);
    let corpus = corpus(&data);
    for (rows, inputs) in corpus.test.batches(&View::COMPLETE, 1) {
        check(&inputs, data.test.lengths[rows[0]]);
        if rows[0] == 3 {
            assert!(floats(&inputs.features[0])[..9].iter().all(|value| *value == 0.0));
        }
    }
    assert!(floats(&data.test.features[0].get(3))[..9].iter().all(|value| value.is_nan()));
}

#[test]
fn other_features_than_the_models_are_refused() {
    let corpus = corpus(&toy());
    let mut other = samples("new", 2);
    other.features[1] = Tensor::zeros([2, STEPS, 5], (Kind::Float, Device::Cpu));
    let error =
        cumdf_data::EvalSet::prepare(&other, Split::Test, STEPS, &corpus.stats, Device::Cpu);
    let message = error.unwrap_err().to_string();
    assert!(message.contains("test/audio has 5 features per step"), "{message}");
}

/// `cargo test --release -p cumdf-data -- --ignored --nocapture` prints the time.
#[test]
#[ignore = "a measurement"]
fn masks_of_an_epoch_of_mosei_are_cheap() {
    let n = 16_326;
    let many = |prefix: &str, n: i64| {
        let mut many = samples(prefix, n);
        many.features = DIMS.map(|dim| Tensor::zeros([n, 20, dim], (Kind::Float, Device::Cpu)));
        many.lengths = vec![20; n as usize];
        many
    };
    let splits = [many("train", n), many("valid", 5), many("test", 6)];
    let data = Dataset::new("large", Task::Sentiment { lo: -3, hi: 3 }, splits).unwrap();
    let corpus = corpus(&data);
    for epoch in 0..3 {
        let start = std::time::Instant::now();
        let batches = corpus.train.epoch(Some(&masks()), order(epoch, 32, 8));
        println!("{} batches ready after {:?}", batches.len(), start.elapsed());
        let start = std::time::Instant::now();
        let seen: i64 = batches.map(|batch| batch.shown().len()).sum();
        println!("{seen} samples gathered in {:?}", start.elapsed());
    }
}

#[test]
fn a_part_of_a_batch_is_what_its_samples_are_in_the_whole() {
    let data = toy();
    let corpus = corpus(&data);
    for batch in corpus.train.epoch(Some(&masks()), order(1, 6, 2)) {
        let part = batch.only(|row| row % 3 != 0);
        let places: Vec<_> =
            (0..batch.rows().len()).filter(|place| batch.rows()[*place] % 3 != 0).collect();
        let Some(part) = part else {
            assert!(places.is_empty());
            continue;
        };
        assert_eq!(part.rows(), places.iter().map(|p| batch.rows()[*p]).collect::<Vec<_>>());
        let (shown, whole) = (part.shown(), batch.shown());
        check(&shown, shown.valid.size()[1]);
        let (labels, all) = (part.targets(), batch.targets());
        for (own, place) in (0..).zip(&places) {
            assert_eq!(row(&shown, own), row(&whole, *place as i64));
            let label = |targets: &cumdf_data::Targets, at| floats(&targets.distribution().get(at));
            assert_eq!(label(labels, own), label(all, *place as i64));
        }
    }
    let batch = corpus.train.epoch(None, order(1, 6, 1)).next().expect("a batch");
    assert!(batch.only(|_| false).is_none());
}
