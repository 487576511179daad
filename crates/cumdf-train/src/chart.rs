//! Pictures as SVG and PNG: what people would rather look at than read. And line charts.

use std::sync::Once;

use anyhow::{Result, anyhow};
use plotters::{
    coord::Shift,
    prelude::{
        BitMapBackend, ChartBuilder, Color as _, DrawingArea, DrawingBackend, IntoDrawingArea as _,
        PathElement, Polygon, RGBColor, SVGBackend, Text, WHITE,
    },
    series::LineSeries,
    style::{FontStyle, register_font},
};

use crate::metrics::mean_and_spread;

/// Colours that stay apart for most colour-blind eyes (Okabe and Ito), black, and four more for those
/// who have that many curves.
pub const COLOURS: [RGBColor; 12] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(213, 94, 0),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(160, 150, 20), // their yellow, darker: it is drawn on white
    RGBColor(0, 0, 0),
    RGBColor(120, 60, 150),
    RGBColor(150, 150, 150),
    RGBColor(140, 90, 50),
    RGBColor(100, 130, 110),
];
/// Width and height of a panel, in pixels.
const SIZE: (u32, u32) = (760, 420);
/// What of the width names the curves.
const LEGEND: u32 = 190;

/// A place on a curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    /// Where.
    pub x: f64,
    /// The mean there.
    pub mean: f64,
    /// The sample standard deviation there, 0 of a single value.
    pub spread: f64,
}

/// One curve; a band shows its spread.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// What the legend calls it.
    pub name: String,
    /// By rising `x`.
    pub places: Vec<Place>,
}

/// Curves in one frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    /// Above it.
    pub title: String,
    /// Below the horizontal axis.
    pub x: String,
    /// Beside the vertical axis.
    pub y: String,
    /// The curves.
    pub series: Vec<Series>,
}

impl Place {
    /// Mean and spread of one or more values at `x`.
    pub fn over(x: f64, values: &[f64]) -> Self {
        let (mean, spread) = mean_and_spread(values);
        Self { x, mean, spread: spread.unwrap_or(0.0) }
    }
}

/// What can be drawn onto any kind of picture.
pub trait Drawing {
    /// Width and height in pixels.
    fn size(&self) -> (u32, u32);

    /// Draws onto a white ground of that size.
    ///
    /// # Errors
    /// When there is nothing to draw.
    fn draw<B: DrawingBackend>(&self, root: &DrawingArea<B, Shift>) -> Result<()>;
}

/// A drawing as an SVG picture.
///
/// - `about`: where it comes from, for programs to read
///
/// # Errors
/// As [`Drawing::draw`].
pub fn svg(drawing: &impl Drawing, about: &str) -> Result<String> {
    let mut text = String::new();
    onto(drawing, &SVGBackend::with_string(&mut text, drawing.size()).into_drawing_area())?;
    if !about.is_empty()
        && let Some(end) = text.find('>')
    {
        text.insert_str(end + 1, &format!("\n<metadata>{}</metadata>", escape(about)));
    }
    Ok(text)
}

/// The same as a PNG picture.
///
/// # Errors
/// As [`Drawing::draw`].
pub fn png(drawing: &impl Drawing, about: &str) -> Result<Vec<u8>> {
    let (width, height) = drawing.size();
    let mut pixels = vec![0; 3 * width as usize * height as usize]; // red, green, blue
    let root = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
    onto(drawing, &root)?;
    drop(root);
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.add_itxt_chunk("Comment".to_owned(), about.to_owned())?;
    encoder.write_header()?.write_image_data(&pixels)?;
    Ok(file)
}

fn onto<B: DrawingBackend>(drawing: &impl Drawing, root: &DrawingArea<B, Shift>) -> Result<()> {
    static FONT: Once = Once::new();
    FONT.call_once(|| {
        // It fails for what is no font.
        let _ = register_font("sans-serif", FontStyle::Normal, dejavu::sans::regular());
    });
    root.fill(&WHITE).map_err(problem)?;
    drawing.draw(root)?;
    root.present().map_err(problem)
}

/// Text inside an element.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// An error of any kind of picture, which need not live as long as ours.
pub fn problem(err: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("cannot draw: {err}")
}

/// Panels, so many beside each other.
#[derive(Debug, Clone, Copy)]
pub struct Panels<'a> {
    /// Row by row.
    pub panels: &'a [Panel],
    /// How many are in a row.
    pub across: usize,
}

impl Panels<'_> {
    fn grid(&self) -> (usize, usize) {
        let across = self.across.max(1);
        (self.panels.len().div_ceil(across).max(1), across)
    }
}

/// It fails where a panel has no finite value.
impl Drawing for Panels<'_> {
    fn size(&self) -> (u32, u32) {
        let (down, across) = self.grid();
        (SIZE.0 * across as u32, SIZE.1 * down as u32)
    }

    fn draw<B: DrawingBackend>(&self, root: &DrawingArea<B, Shift>) -> Result<()> {
        let areas = root.split_evenly(self.grid());
        self.panels.iter().zip(areas).try_for_each(|(panel, area)| draw(panel, &area))
    }
}

fn draw<B: DrawingBackend>(panel: &Panel, area: &DrawingArea<B, Shift>) -> Result<()> {
    let places = || panel.series.iter().flat_map(|series| &series.places);
    let (left, right) = bounds(places().map(|p| p.x))
        .ok_or_else(|| anyhow!("{}: there is nothing to draw", panel.title))?;
    let (low, high) = bounds(places().flat_map(|p| [p.mean - p.spread, p.mean + p.spread]))
        .ok_or_else(|| anyhow!("{}: no value is finite", panel.title))?;
    let room = 0.06 * (high - low);
    let (frame, legend) = area.split_horizontally(SIZE.0 - LEGEND);
    let mut chart = ChartBuilder::on(&frame)
        .caption(&panel.title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(56)
        .build_cartesian_2d(left..right, low - room..high + room)
        .map_err(problem)?;
    chart
        .configure_mesh()
        .x_desc(&panel.x)
        .y_desc(&panel.y)
        .light_line_style(WHITE)
        .bold_line_style(RGBColor(225, 225, 225))
        .draw()
        .map_err(problem)?;
    for ((row, series), colour) in (0i32..).zip(&panel.series).zip(COLOURS.iter().cycle()) {
        let edge = |sign: f64| series.places.iter().map(move |p| (p.x, p.mean + sign * p.spread));
        if series.places.iter().any(|p| p.spread > 0.0) {
            let band: Vec<_> = edge(1.0).chain(edge(-1.0).rev()).collect();
            chart.draw_series([Polygon::new(band, colour.mix(0.12))]).map_err(problem)?;
        }
        let line = colour.stroke_width(2);
        chart.draw_series(LineSeries::new(edge(0.0), line).point_size(3)).map_err(problem)?;
        let y = 48 + 22 * row;
        legend.draw(&PathElement::new([(4, y), (24, y)], line)).map_err(problem)?;
        let name = Text::new(series.name.clone(), (30, y - 8), ("sans-serif", 14));
        legend.draw(&name).map_err(problem)?;
    }
    Ok(())
}

/// The smallest and the largest finite value, set a little apart where they are the same.
fn bounds(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let finite = values.filter(|value| value.is_finite());
    let (low, high) = finite.fold(None, |found: Option<(f64, f64)>, value| {
        Some(found.map_or((value, value), |(low, high)| (low.min(value), high.max(value))))
    })?;
    Some(if low < high { (low, high) } else { (low - 0.5, high + 0.5) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel(values: &[f64]) -> Panel {
        let places =
            values.iter().zip(0u32..).map(|(v, x)| Place::over(f64::from(x), &[*v, v + 1.0]));
        let series = Series { name: "{l,a} & <x>".into(), places: places.collect() };
        Panel { title: "Curves".into(), x: "across".into(), y: "up".into(), series: vec![series] }
    }

    fn one(panels: &[Panel]) -> Panels<'_> {
        Panels { panels, across: 1 }
    }

    fn two(panels: &[Panel]) -> Panels<'_> {
        Panels { panels, across: 2 }
    }

    #[test]
    fn a_picture_names_its_axes_and_curves_and_escapes_what_svg_reads() {
        let text = svg(&two(&[panel(&[1.0, 3.0, 2.0]), panel(&[5.0])]), "a<b").expect("drawn");
        assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"));
        for part in [
            "Curves",
            "across",
            "up",
            "{l,a} &amp; &lt;x&gt;",
            "<polyline",
            "<polygon",
            "<metadata>a&lt;b<",
        ] {
            assert!(text.contains(part), "no {part} in {text}");
        }
    }

    #[test]
    fn a_bitmap_has_the_same_size_its_colours_and_its_origin() {
        let file = png(&one(&[panel(&[1.0, 3.0, 2.0])]), "made by a test").expect("drawn");
        let decoder = png::Decoder::new(std::io::Cursor::new(&file));
        let mut reader = decoder.read_info().expect("a PNG");
        let mut pixels = vec![0; reader.output_buffer_size().expect("it is small")];
        reader.next_frame(&mut pixels).expect("whole");
        assert_eq!((reader.info().width, reader.info().height), SIZE);
        let (blue, white) = ([0, 114, 178], [255; 3]);
        let n = |colour: [u8; 3]| pixels.chunks_exact(3).filter(|p| *p == colour).count();
        assert!(n(blue) > 300 && n(white) > 100_000, "{} and {}", n(blue), n(white));
        // The legend's words are there: dark pixels right of the line that names a curve.
        let at = |x: usize, y: usize| &pixels[3 * (y * SIZE.0 as usize + x)..][..3];
        let dark = |x: usize| (35..62).any(|y| at(x, y).iter().all(|c| *c < 90));
        assert!((SIZE.0 as usize - LEGEND as usize + 30..SIZE.0 as usize - 20).any(dark));
        let comment = &reader.info().utf8_text[0];
        assert_eq!(comment.get_text().expect("text"), "made by a test");
    }

    #[test]
    fn nothing_to_draw_is_an_error() {
        for values in [&[][..], &[f64::NAN]] {
            assert!(svg(&one(&[panel(values)]), "").is_err());
            assert!(png(&one(&[panel(values)]), "").is_err());
        }
    }

    #[test]
    fn the_spread_is_that_of_a_sample() {
        let place = Place::over(0.5, &[1.0, 2.0, 3.0]);
        assert_eq!(place, Place { x: 0.5, mean: 2.0, spread: 1.0 });
        assert_eq!(Place::over(0.5, &[4.0]), Place { x: 0.5, mean: 4.0, spread: 0.0 });
    }
}
