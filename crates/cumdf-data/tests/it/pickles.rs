//! Packs of three projects, as `scripts/packs.py` writes them, imported by the binary.

use std::fs;
use std::path::{Path, PathBuf};

use cumdf_data::import::{self, Options};
use cumdf_data::{Dataset, Labels, Modality, ModalitySet, Split, Task};

use indicatif::ProgressBar;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::cli::run;
use crate::common::floats;

const COUNTS: [usize; 3] = [5, 2, 3];
const STEPS: usize = 6;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fixtures/packs").join(name)
}

/// The formula of `scripts/packs.py`.
fn value(split: Split, modality: usize, sample: usize, step: usize, feature: usize) -> f32 {
    let offset = 512 * (split.index() + 1) + 128 * modality + 16 * sample + 2 * step;
    offset as f32 + 0.5 * feature as f32
}

fn length(sample: usize) -> usize {
    2 + sample % (STEPS - 1)
}

/// Imports a fixture; the data set and what the command printed.
fn import_fixture(name: &str, options: &[&str]) -> (Dataset, String) {
    let folder = tempfile::TempDir::new().unwrap();
    let out = folder.path().join("new.h5");
    let (source, out_text) = (fixture(name), out.to_str().unwrap());
    let args = [&["import", source.to_str().unwrap(), "--out", out_text], options].concat();
    let (code, printed, errors) = run(&args);
    assert_eq!(code, 0, "{errors}");
    (Dataset::open(&out).unwrap(), printed)
}

fn refused(name: &str, options: &[&str]) -> String {
    let folder = tempfile::TempDir::new().unwrap();
    let out = folder.path().join("new.h5");
    let (source, out_text) = (fixture(name), out.to_str().unwrap());
    let args = [&["import", source.to_str().unwrap(), "--out", out_text], options].concat();
    let (code, _, errors) = run(&args);
    assert_eq!((code, errors.lines().count()), (1, 1), "{errors}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "something was left behind");
    errors
}

/// Every used frame of a modality is the formula's, and what lies behind is zero.
fn check_stream(
    data: &Dataset,
    modality: Modality,
    dim: usize,
    rows: impl Fn(Split) -> Vec<usize>,
) {
    for split in Split::ALL {
        let samples = data.split(split);
        let x = floats(&samples.features[modality.index()]);
        let steps = x.len() / dim / samples.len();
        for (at, sample) in rows(split).into_iter().enumerate() {
            for step in 0..steps {
                for feature in 0..dim {
                    let found = x[(at * steps + step) * dim + feature];
                    let used = step < length(sample).min(steps);
                    let expected = value(split, modality.index(), sample, step, feature);
                    let expected = if used { expected } else { 0.0 };
                    assert!(
                        found.to_bits() == expected.to_bits() || found.is_nan(),
                        "{split} {modality} {sample} {step} {feature}: {found}, not {expected}"
                    );
                }
            }
        }
    }
}

fn all(split: Split) -> Vec<usize> {
    (0..COUNTS[split.index()]).collect()
}

fn scores(split: Split) -> Labels {
    let score = |i: usize| (-3.0 + 0.8 * i as f64) as f32;
    Labels::Scores((0..COUNTS[split.index()]).map(score).collect())
}

fn nans(data: &Dataset, split: Split, modality: Modality) -> usize {
    floats(&data.split(split).features[modality.index()]).iter().filter(|v| v.is_nan()).count()
}

#[test]
fn an_aligned_pack_of_mmsa() {
    let (data, printed) = import_fixture("mmsa_aligned.pkl", &["--name", "CMU-MOSI"]);
    assert_eq!(data.name, "CMU-MOSI");
    assert_eq!(data.task, Task::Sentiment { lo: -3, hi: 3 });
    let source = data.source.as_deref().unwrap();
    assert!(source.starts_with("MMSA pickle, mmsa_aligned.pkl (sha256 "), "{source}");
    for split in Split::ALL {
        let samples = data.split(split);
        assert_eq!(samples.labels, scores(split));
        let lengths: Vec<_> = all(split).into_iter().map(|i| length(i) as i64).collect();
        assert_eq!(samples.lengths, lengths, "the mask of BERT tells them");
        assert_eq!(samples.ids[1], format!("{split}_video$_$1"));
    }
    for (modality, dim) in Modality::ALL.into_iter().zip([4, 3, 2]) {
        check_stream(&data, modality, dim, all);
    }
    for expected in ["samples", "10  samples", "raw_text, annotations", "of no data set known"] {
        assert!(printed.contains(expected), "{printed}");
    }
}

#[test]
fn an_unaligned_pack_is_refused_or_pooled() {
    let error = refused("mmsa_unaligned.pkl", &[]);
    for expected in ["not aligned", "language 6, audio 9, vision 8", "--pool audio,vision"] {
        assert!(error.contains(expected), "{error}");
    }
    let (data, _) = import_fixture("mmsa_unaligned.pkl", &["--pool", "audio,vision"]);
    for split in Split::ALL {
        let audio = floats(&data.split(split).features[1]);
        for i in all(split) {
            let mean = (0..length(i)).map(|t| value(split, 1, i, t, 2)).sum::<f32>();
            let error = (audio[i * 3 + 2] - mean / length(i) as f32).abs();
            assert!(error < 1e-3, "{split} {i}: off by {error}");
        }
    }
}

#[test]
fn a_pack_of_mult_is_moved_to_step_0() {
    let (data, printed) = import_fixture("mult_mosi.pkl", &[]);
    assert_eq!(data.train.ids[3], "train_video_3.0_3.5");
    for (modality, dim) in Modality::ALL.into_iter().zip([4, 3, 2]) {
        check_stream(&data, modality, dim, all);
    }
    for split in Split::ALL {
        assert_eq!(data.split(split).labels, scores(split));
        assert_eq!(nans(&data, split, Modality::Audio), 1, "-inf is a missing value");
        assert!(floats(&data.split(split).features[1])[0].is_nan());
    }
    for expected in ["3  audio values that are NaN or infinite", "9  samples padded in front"] {
        assert!(printed.contains(expected), "{printed}");
    }
}

#[test]
fn mults_iemocap_has_four_emotions() {
    let (data, printed) = import_fixture("mult_iemocap.pkl", &[]);
    let classes = ["neutral", "happy", "sad", "angry"].map(str::to_owned).to_vec();
    assert_eq!(data.task, Task::Emotion { classes });
    let Labels::Classes(rows) = &data.train.labels else { panic!("no classes") };
    assert_eq!(rows.len(), 4, "the fifth has none of the emotions");
    assert_eq!(rows[0], [true, false, false, false]);
    assert_eq!(rows[1], [false, true, false, true]);
    assert_eq!(data.train.ids[3], "train3");
    assert!(printed.contains("1  sample of none of the classes: train4"), "{printed}");
    let kept = |split| if split == Split::Train { (0..4).collect() } else { all(split) };
    check_stream(&data, Modality::Language, 4, kept);
}

#[test]
fn packs_of_lmf_have_one_vector_for_audio_and_vision() {
    let (data, _) = import_fixture("lmf_mosi.pkl", &[]);
    assert_eq!(data.train.labels, scores(Split::Train));
    let sizes = data.train.features.each_ref().map(|x| x.size()[1]);
    assert_eq!(sizes, [6, 1, 1]);
    for (modality, dim) in Modality::ALL.into_iter().zip([4, 3, 2]) {
        check_stream(&data, modality, dim, all);
    }
    assert_eq!(nans(&data, Split::Test, Modality::Audio), 1);
    assert!(data.train.present.iter().all(|set| *set == ModalitySet::ALL));

    let (data, _) = import_fixture("lmf_iemocap.pkl", &[]);
    let classes = ["happy", "sad", "angry", "neutral"].map(str::to_owned).to_vec();
    assert_eq!(data.task, Task::Emotion { classes });
    let Labels::Classes(rows) = &data.train.labels else { panic!("no classes") };
    let first: Vec<_> = rows.iter().map(|row| row.iter().position(|flag| *flag)).collect();
    assert_eq!(first, [0, 1, 2, 3, 0].map(Some));
}

#[test]
fn inspect_tells_a_pack_without_importing_it() {
    let path = fixture("mult_mosi.pkl");
    let (code, out, errors) = run(&["inspect", path.to_str().unwrap()]);
    assert_eq!(code, 0, "{errors}");
    for expected in [
        "MulT pickle",
        "train/audio",
        "5 x 6 x 3",
        "float64",
        "aligned, by all appearance",
        "5 + 2 + 3 = 10 samples: the counts of no data set known here",
    ] {
        assert!(out.contains(expected), "no {expected:?} in\n{out}");
    }
    let both = [path.to_str().unwrap(), fixture("mmsa_unaligned.pkl").to_str().unwrap()]
        .map(str::to_owned);
    let (code, out, _) = run(&["inspect", "--json", &both[0], &both[1]]);
    assert_eq!(code, 0);
    let surveys: serde_json::Value = serde_json::from_str(&out).unwrap();
    let audio = &surveys[0]["tables"][2];
    assert_eq!((&audio["name"], &audio["infinite"]), (&"train/audio".into(), &1.into()));
    let unaligned = surveys[1]["remarks"].to_string();
    assert!(unaligned.contains("unaligned"), "{unaligned}");
}

#[test]
fn options_of_no_use_are_refused() {
    for (name, options, expected) in [
        ("mult_iemocap.pkl", &["--label-column", "0"][..], "the labels are emotions"),
        ("mult_iemocap.pkl", &["--range", "0,1"], "the labels are emotions"),
        ("mmsa_aligned.pkl", &["--label-column", "3"], "no --label-column 3"),
        ("mmsa_aligned.pkl", &["--folds", "f.json"], "option for CMU-MultimodalSDK's files"),
    ] {
        let error = refused(name, options);
        assert!(error.contains(expected), "{error}");
    }
}

/// 4 GB are more than anything here needs, and less than these files would take.
#[cfg(target_os = "linux")]
#[test]
fn small_files_do_not_take_much_memory() {
    let folder = tempfile::TempDir::new().unwrap();
    let array = |name: &str, rows: usize| {
        let file = hdf5::File::create(folder.path().join(name)).unwrap();
        let builder = file.new_dataset::<f32>().chunk((1 << 16, 1));
        builder.deflate(9).shape((rows, 1)).create("x").unwrap();
    };
    array("empty.h5", 200_000_000);
    let mut manifest = "name = 'x'\ntask = 'sentiment'\n".to_owned();
    for split in Split::ALL {
        manifest += &format!("[{split}]\naudio = 'empty.h5'\nlabel = 'empty.h5'\n");
    }
    let path = folder.path().join("m.toml");
    fs::write(&path, manifest).unwrap();
    let out = folder.path().join("new.h5");
    let command = format!(
        "ulimit -v 4000000; exec {} import {} --out {}",
        env!("CARGO_BIN_EXE_cumdf-data"),
        path.display(),
        out.display()
    );
    let done = std::process::Command::new("sh").args(["-c", &command]).output().unwrap();
    let errors = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(1), "{errors}");
    assert!(errors.contains("200000000 rows; at most"), "{errors}");
}

#[test]
fn a_pickle_that_would_run_something_is_refused_by_name() {
    let folder = tempfile::TempDir::new().unwrap();
    let hostile = folder.path().join("hostile.pkl");
    fs::write(&hostile, b"cposix\nsystem\n(S'touch /tmp/cumdf-was-here'\ntR.").unwrap();
    let out = folder.path().join("new.h5");
    let args = ["import", hostile.to_str().unwrap(), "--out", out.to_str().unwrap()];
    let (code, _, errors) = run(&args);
    assert_eq!(code, 1);
    assert!(errors.contains("hostile.pkl: byte 0: refuses posix.system"), "{errors}");
    assert!(!out.exists() && !Path::new("/tmp/cumdf-was-here").exists());
}

#[test]
fn an_existing_file_is_kept_unless_told_otherwise() {
    let folder = tempfile::TempDir::new().unwrap();
    let out = folder.path().join("mine.h5");
    fs::write(&out, "precious").unwrap();
    let source = fixture("lmf_mosi.pkl");
    let args = ["import", source.to_str().unwrap(), "--out", out.to_str().unwrap()];
    let (code, _, errors) = run(&args);
    assert_eq!(code, 1);
    assert!(errors.contains("mine.h5 exists; --force replaces it"), "{errors}");
    assert_eq!(fs::read(&out).unwrap(), b"precious");
    let damaged = folder.path().join("cut.pkl");
    let whole = fs::read(&source).unwrap();
    fs::write(&damaged, &whole[..whole.len() / 2]).unwrap();
    let args = ["import", damaged.to_str().unwrap(), "--out", out.to_str().unwrap(), "--force"];
    assert_eq!(run(&args).0, 1);
    assert_eq!(fs::read(&out).unwrap(), b"precious", "a failed import touches nothing");
    let args = ["import", source.to_str().unwrap(), "--out", out.to_str().unwrap(), "--force"];
    assert_eq!(run(&args).0, 0);
    assert_eq!(Dataset::open(&out).unwrap().train.len(), 5);
}

/// `CUMDF_MUTATIONS` asks for more than the usual few.
fn n_mutations() -> u64 {
    std::env::var("CUMDF_MUTATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(60)
}

#[test]
fn damaged_packs_end_in_an_error_or_a_valid_file() {
    let folder = tempfile::TempDir::new().unwrap();
    let (source, out) = (folder.path().join("damaged.pkl"), folder.path().join("new.h5"));
    for name in ["mmsa_aligned.pkl", "mult_mosi.pkl", "mult_iemocap.pkl", "lmf_iemocap.pkl"] {
        let whole = fs::read(fixture(name)).unwrap();
        for seed in 0..n_mutations() {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut below = |end: usize| (rng.next_u64() % end as u64) as usize;
            let mut bytes = whole.clone();
            for _ in 0..=seed % 3 {
                let at = below(bytes.len());
                bytes[at] = below(256) as u8;
            }
            if seed % 5 == 0 {
                bytes.truncate(below(bytes.len()));
            }
            fs::write(&source, &bytes).unwrap();
            let bar = ProgressBar::hidden();
            let imported = import::import(&source, &Options::default(), &out, &bar);
            assert_eq!(out.exists(), imported.is_ok(), "{name}, seed {seed}");
            if imported.is_ok() {
                Dataset::open(&out).unwrap_or_else(|e| panic!("{name}, seed {seed}: {e:#}"));
                fs::remove_file(&out).unwrap();
            }
            let _ = import::survey(&source, &bar);
        }
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "something was left behind");
}
