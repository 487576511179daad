//! The real data packs, where they lie beside the workspace.

use std::path::Path;

use cumdf_data::{Corpus, Dataset, Modality, Split, Task, View};
use tch::Device;

/// Opens a pack and checks it against its README; `None`, said aloud, where there is none.
fn pack(
    file: &str,
    name: &str,
    sizes: [usize; 3],
    steps: [i64; 3],
    dims: [i64; 3],
) -> Option<Dataset> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(file);
    if !path.exists() {
        println!("skipped: {} is not there", path.display());
        return None;
    }
    let data = Dataset::open(path).expect("the pack is valid");
    assert_eq!(data.name, name);
    assert_eq!(Split::ALL.map(|split| data.split(split).len()), sizes);
    assert_eq!(data.train.features.each_ref().map(|x| x.size()[1]), steps);
    assert_eq!(data.dims, dims);
    let corpus = Corpus::prepare(&data, 5.0, true, Device::Cpu).expect("the pack is valid");
    for (_, inputs) in corpus.test.batches(&View::COMPLETE, 256) {
        for x in &inputs.features {
            assert_eq!(x.isfinite().all().int64_value(&[]), 1);
            assert!(x.abs().max().double_value(&[]) <= 5.0);
        }
    }
    Some(data)
}

#[test]
fn mosi() {
    let sizes = [1284, 229, 686];
    let Some(data) = pack("mosi.h5", "CMU-MOSI", sizes, [50, 1, 1], [100, 73, 1]) else { return };
    assert_eq!(data.task, Task::Sentiment { lo: -3, hi: 3 });
    assert_eq!(data.train.available().key(), "la");
}

#[test]
fn mosi_bclstm() {
    let sizes = [1447, 212, 540];
    let name = "CMU-MOSI (bc-LSTM features)";
    let Some(data) = pack("mosi-bclstm.h5", name, sizes, [1, 1, 1], [100, 73, 100]) else { return };
    assert_eq!(data.steps, 1);
}

#[test]
fn mmmo() {
    let sizes = [220, 40, 80];
    let Some(data) = pack("mmmo.h5", "ICT-MMMO", sizes, [20, 20, 20], [300, 74, 36]) else {
        return;
    };
    assert_eq!(data.task, Task::Sentiment { lo: 1, hi: 5 });
    assert_eq!(data.train.available().key(), "av");
    assert_eq!(data.test.available().key(), "lav");
    let corpus = Corpus::prepare(&data, 0.0, false, Device::Cpu).expect("the pack is valid");
    assert_eq!(corpus.available(Split::Test).key(), "av", "language was never trained");
}

#[test]
fn iemocap() {
    let sizes = [3259, 1031, 1241];
    let Some(data) = pack("iemocap.h5", "IEMOCAP (partial)", sizes, [50, 1, 1], [64, 12, 8]) else {
        return;
    };
    let Task::Emotion { classes } = &data.task else { panic!("{:?}", data.task) };
    assert_eq!(classes, &["happy", "sad", "angry", "neutral"]);
    let without = |modality: Modality| {
        let all = Split::ALL.iter().flat_map(|split| &data.split(*split).present);
        all.filter(|set| !set.contains(modality)).count()
    };
    assert_eq!(Modality::ALL.map(without), [43, 4, 0]);
}
