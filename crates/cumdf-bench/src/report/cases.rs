//! A picture of cases: what was seen of a sample, what two models made of it, and what decided it.

use anyhow::Result;
use cumdf_data::Modality;
use cumdf_train::chart::{COLOURS, Drawing, problem};
use plotters::{
    coord::Shift,
    prelude::{
        BLACK, Color as _, DrawingArea, DrawingBackend, PathElement, RGBColor, Rectangle, Text,
    },
};
use serde::Serialize;

const WIDTH: i32 = 1080;
const HEIGHT: i32 = 220;
/// Left ends of the three parts of a case.
const STRIPS: i32 = 90;
const SHARES: i32 = 500;
const ANSWERS: i32 = 660;
/// Width of strips, shares and answers.
const WIDTHS: [i32; 3] = [380, 110, 390];
const HIDDEN: RGBColor = RGBColor(205, 205, 205);
const FAINT: RGBColor = RGBColor(150, 150, 150);

/// A sample, as a figure shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Case {
    /// Its data set.
    pub dataset: String,
    /// Its name.
    pub id: String,
    /// Why it was chosen.
    pub why: String,
    /// Its label in words.
    pub truth: String,
    /// Where the label lies among the classes of [`Said::distribution`], from 0; between two of them
    /// for a score. Several emotions have several.
    pub places: Vec<f64>,
    /// Of language, audio and vision: which of its steps were seen; `None` where there is none.
    pub seen: [Option<Vec<bool>>; 3],
    /// What each model made of it.
    pub said: Vec<Said>,
}

/// A model's answer to a sample.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Said {
    /// The model's name.
    pub model: String,
    /// The answer in words.
    pub answer: String,
    /// Where a score lies among the classes, as [`Case::places`]; `None` for emotions.
    pub place: Option<f64>,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// A probability each; `None` from a regressor.
    pub distribution: Option<Vec<f32>>,
    /// Shares of language, audio and vision in it; `None` from a model that attributes nothing.
    pub shares: Option<[f32; 3]>,
}

/// Cases below each other.
#[derive(Debug)]
pub struct Cases<'a>(pub &'a [Case]);

impl Drawing for Cases<'_> {
    fn size(&self) -> (u32, u32) {
        (WIDTH as u32, (HEIGHT * self.0.len().max(1) as i32) as u32)
    }

    fn draw<B: DrawingBackend>(&self, root: &DrawingArea<B, Shift>) -> Result<()> {
        for (case, area) in self.0.iter().zip(root.split_evenly((self.0.len().max(1), 1))) {
            draw(case, &Pen(&area)).map_err(problem)?;
        }
        Ok(())
    }
}

/// What an area is drawn on with.
struct Pen<'a, B: DrawingBackend>(&'a DrawingArea<B, Shift>);

type Drawn<B> =
    Result<(), plotters::drawing::DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;

impl<B: DrawingBackend> Pen<'_, B> {
    fn text(&self, text: &str, at: (i32, i32), size: i32) -> Drawn<B> {
        self.0.draw(&Text::new(text.to_owned(), at, ("sans-serif", size)))
    }

    fn bar(&self, from: (i32, i32), to: (i32, i32), colour: RGBColor) -> Drawn<B> {
        self.0.draw(&Rectangle::new([from, to], colour.filled()))
    }

    fn line(&self, from: (i32, i32), to: (i32, i32), colour: RGBColor, width: u32) -> Drawn<B> {
        self.0.draw(&PathElement::new([from, to], colour.stroke_width(width)))
    }
}

fn draw<B: DrawingBackend>(case: &Case, pen: &Pen<'_, B>) -> Drawn<B> {
    pen.line((10, 4), (WIDTH - 10, 4), HIDDEN, 1)?;
    let title = format!("{}, {}: {}. Truth: {}", case.dataset, case.id, case.why, case.truth);
    pen.text(&title, (10, 12), 15)?;
    let rows = Modality::ALL.map(|m| 64 + 42 * m.index() as i32);
    for ((modality, seen), y) in Modality::ALL.into_iter().zip(&case.seen).zip(rows) {
        pen.text(modality.name(), (10, y + 2), 14)?;
        strip(seen.as_deref(), y, COLOURS[modality.index()], pen)?;
    }
    pen.text("seen (grey: hidden)", (STRIPS, 42), 12)?;
    if let Some((said, shares)) = case.said.iter().find_map(|said| Some((said, said.shares?))) {
        pen.text(&format!("shares in {}", said.model), (SHARES, 42), 12)?;
        for ((share, y), colour) in shares.into_iter().zip(rows).zip(COLOURS) {
            let length = (share.clamp(0.0, 1.0) * WIDTHS[1] as f32).round() as i32;
            pen.bar((SHARES, y), (SHARES + length.max(1), y + 22), colour)?;
            pen.text(&format!("{:.0} %", 100.0 * share), (SHARES + length + 4, y + 4), 12)?;
        }
    }
    let each = 150 / case.said.len().max(1) as i32;
    for (said, row) in case.said.iter().zip(0..) {
        answer(case, said, 42 + row * (each + 8), each, pen)?;
    }
    Ok(())
}

/// The steps of a modality: coloured where seen.
fn strip<B: DrawingBackend>(
    seen: Option<&[bool]>,
    y: i32,
    colour: RGBColor,
    pen: &Pen<'_, B>,
) -> Drawn<B> {
    let Some(seen) = seen else { return pen.text("not in the data", (STRIPS, y + 4), 12) };
    let n = seen.len().max(1) as i32;
    let edge = |i: i32| STRIPS + WIDTHS[0] * i / n;
    for (seen, i) in seen.iter().zip(0..) {
        let gap = if n <= 100 { 1 } else { 0 };
        let colour = if *seen { colour } else { HIDDEN };
        pen.bar((edge(i), y), ((edge(i + 1) - gap).max(edge(i) + 1), y + 22), colour)?;
    }
    Ok(())
}

/// A distribution as bars over its classes, with the truth's places marked; a score as a mark.
fn answer<B: DrawingBackend>(
    case: &Case,
    said: &Said,
    top: i32,
    height: i32,
    pen: &Pen<'_, B>,
) -> Drawn<B> {
    pen.text(&format!("{}: {}", said.model, said.answer), (ANSWERS, top), 13)?;
    let (ceiling, ground) = (top + 20, top + height - 16);
    let n = said.classes.len().max(1) as i32;
    let middle =
        |place: f64| ANSWERS + ((place + 0.5) * f64::from(WIDTHS[2]) / f64::from(n)).round() as i32;
    pen.line((ANSWERS, ground), (ANSWERS + WIDTHS[2], ground), FAINT, 1)?;
    let half = (WIDTHS[2] / n / 2 - 4).max(2);
    for (i, (name, p)) in said.classes.iter().enumerate().map(|(i, name)| {
        (i, (name, said.distribution.as_ref().and_then(|all| all.get(i)).copied()))
    }) {
        let x = middle(i as f64);
        if let Some(p) = p {
            let rise = (f64::from(p.clamp(0.0, 1.0)) * f64::from(ground - ceiling)).round() as i32;
            pen.bar((x - half, ground - rise), (x + half, ground), RGBColor(165, 190, 215))?;
        }
        pen.text(name, (x - 4 * name.chars().count().min(8) as i32, ground + 2), 12)?;
    }
    for place in &case.places {
        let x = middle(*place);
        pen.line((x, ceiling), (x, ground), BLACK, 1)?;
        pen.text("truth", (x + 3, ceiling - 2), 11)?;
    }
    match said.place {
        Some(place) => {
            let x = middle(place);
            pen.line((x, ground - 14), (x, ground + 1), RGBColor(213, 94, 0), 4)
        }
        None => Ok(()),
    }
}
