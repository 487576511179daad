//! What a `.csd` file holds, told without aligning it.

use std::path::Path;

use anyhow::Result;
use indicatif::ProgressBar;

use super::words::is_silence;
use super::{Sequence, Values, align, in_order};
use crate::import::{Fate, Survey, TableSurvey};

/// What one video has.
#[derive(Debug, Default)]
struct Seen {
    table: TableSurvey,
    rows: u64,
    seconds: f64,
    short: u64,
    silence: u64,
}

/// Reads a sequence through, by all cores.
pub(crate) fn survey(path: &Path, bar: &ProgressBar) -> Result<Survey> {
    let sequence = Sequence::open(path)?;
    let layout = format!("CMU-MultimodalSDK sequence `{}`", sequence.root_name());
    let mut survey = Survey::start(path, &layout, bar)?;
    let videos: Vec<&str> = sequence.videos().collect();
    bar.set_length(videos.len() as u64);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut all = Seen::default();
    in_order(
        threads,
        &videos,
        |_, video| see(&sequence, video),
        |_, seen| {
            all.table.add(&seen.table);
            all.rows += seen.rows;
            all.seconds += seen.seconds;
            all.short += seen.short;
            all.silence += seen.silence;
            bar.inc(1);
            Ok(())
        },
    )?;
    let ledger = &mut survey.ledger;
    ledger.count(Fate::Found, "videos", videos.len() as u64);
    ledger.count(Fate::Found, "rows: frames, words or segments", all.rows);
    ledger.count(Fate::Found, "seconds between first start and last end", all.seconds as u64);
    ledger.count(Fate::Noted, "intervals without duration: dropped when aligned", all.short);
    ledger.count(Fate::Noted, "words that are silence (sp)", all.silence);
    for key in sequence.unread_metadata() {
        ledger.one(Fate::Noted, "metadata that cannot be read", key);
    }
    if let Some(kind) = sequence.kind()? {
        let shape = vec![all.rows as usize, kind.dim];
        let (name, dtype) = (sequence.root_name().to_owned(), kind.dtype.to_owned());
        survey.tables.push(TableSurvey { name, dtype, shape, ..all.table });
    }
    for key in ["dataset name", "dimension names", "computational sequence description"] {
        if let Some(value) = sequence.metadata().get(key) {
            let text = value.to_string();
            let shown: String = text.chars().take(200).collect();
            let more = if shown.len() < text.len() { "..." } else { "" };
            survey.remarks.push(format!("Its {key}: {shown}{more}"));
        }
    }
    Ok(survey)
}

fn see(sequence: &Sequence, video: &str) -> Result<Seen> {
    let track = sequence.read(video)?;
    let mut seen = Seen { rows: track.intervals.len() as u64, ..Seen::default() };
    let start = track.intervals.iter().map(|[start, _]| *start).fold(f64::INFINITY, f64::min);
    let end = track.intervals.iter().map(|[_, end]| *end).fold(f64::NEG_INFINITY, f64::max);
    if (end - start).is_finite() {
        seen.seconds = (end - start).max(0.0);
    }
    seen.short = track.intervals.iter().filter(|i| !align::is_proper(**i)).count() as u64;
    match track.values {
        Values::Numbers { values, .. } => seen.table.count(&values),
        Values::Texts(texts) => {
            seen.silence = texts.iter().filter(|text| is_silence(text)).count() as u64;
        }
    }
    Ok(seen)
}
