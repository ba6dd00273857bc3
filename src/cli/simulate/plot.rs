//! A run as a drawing (SVG) or a picture (PNG): load, tasks, and metric with its setpoint, one above the other.
//!
//! The picture is drawn into pixels of our own with embedded-graphics, whose letters are part of it: no font of the
//! system is needed, and the same run gives the same bytes everywhere.

use std::convert::Infallible;

use embedded_graphics::draw_target::DrawTarget;
use embedded_graphics::geometry::{OriginDimensions, Point, Size};
use embedded_graphics::mono_font::MonoTextStyle;
use embedded_graphics::mono_font::iso_8859_1::{FONT_7X13, FONT_9X15_BOLD};
use embedded_graphics::pixelcolor::raw::RawU24;
use embedded_graphics::pixelcolor::{Rgb888, RgbColor, WebColors};
use embedded_graphics::primitives::{Line, Primitive, PrimitiveStyle, Rectangle};
use embedded_graphics::text::{Alignment, Text};
use embedded_graphics::{Drawable, Pixel};

use super::chart::{Row, buckets};

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 150.0;
const LEFT: f64 = 70.0;

/// Points of a line: more are not seen.
const POINTS: usize = 800;

/// One of the three parts of a drawing.
struct Panel {
    /// Where it begins, from above.
    top: f64,
    least: f64,
    most: f64,
    lines: Vec<Curve>,
}

/// A figure over time.
struct Curve {
    name: &'static str,
    /// Red, green and blue.
    color: u32,
    /// Where it goes through, in the drawing's units.
    points: Vec<(f64, f64)>,
}

/// Width and height of a drawing.
const fn size() -> (f64, f64) {
    (WIDTH + LEFT + 20.0, 3.0 * (HEIGHT + 40.0) + 50.0)
}

fn hours(rows: &[Row]) -> f64 {
    rows.last().map_or(0.0, |row| row.seconds / 3600.0)
}

fn panels(rows: &[Row]) -> [Panel; 3] {
    [
        panel(0, rows, &[("load", 0x88_8888, &|row| Some(row.load))]),
        panel(1, rows, &[("tasks", 0x1f_77b4, &|row| Some(row.tasks))]),
        panel(2, rows, &[("metric", 0xd6_2728, &|row| row.value), ("setpoint", 0x2c_a02c, &|row| row.setpoint)]),
    ]
}

type Figure<'a> = (&'static str, u32, &'a dyn Fn(&Row) -> Option<f64>);

fn panel(index: usize, rows: &[Row], figures: &[Figure<'_>]) -> Panel {
    let top = 40.0 + index as f64 * (HEIGHT + 40.0);
    let drawn: Vec<_> = figures.iter().map(|(name, color, of)| (*name, *color, buckets(rows, POINTS, *of))).collect();
    let known = || drawn.iter().flat_map(|(.., values)| values.iter().flatten());
    let (least, most) = (known().fold(0.0_f64, |a, b| a.min(*b)), known().fold(0.0_f64, |a, b| a.max(*b)));
    let span = if least < most { most - least } else { 1.0 };
    let curve = |(name, color, values): (&'static str, u32, Vec<Option<f64>>)| {
        let step = WIDTH / (values.len().max(2) - 1) as f64;
        let points = values.iter().enumerate().filter_map(|(at, value)| Some((at, (*value)?)));
        let place = |(at, value)| (LEFT + at as f64 * step, top + HEIGHT * (1.0 - (value - least) / span));
        Curve { name, color, points: points.map(place).collect() }
    };
    Panel { top, least, most, lines: drawn.into_iter().map(curve).collect() }
}

/// The drawing.
pub(super) fn svg(title: &str, rows: &[Row]) -> String {
    let (width, height) = size();
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"20\" font-size=\"15\">{}</text>\n",
        escape(title)
    );
    for Panel { top, least, most, lines } in panels(rows) {
        out += &format!(
            "<rect x=\"{LEFT}\" y=\"{top}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"none\" stroke=\"#cccccc\"/>\n\
             <text x=\"{0}\" y=\"{1}\" text-anchor=\"end\">{most:.1}</text>\n\
             <text x=\"{0}\" y=\"{2}\" text-anchor=\"end\">{least:.1}</text>\n",
            LEFT - 6.0,
            top + 10.0,
            top + HEIGHT
        );
        for (place, Curve { name, color, points }) in lines.iter().enumerate() {
            out += &format!(
                "<text x=\"{}\" y=\"{}\" fill=\"#{color:06x}\">{name}</text>\n",
                LEFT + 6.0 + 70.0 * place as f64,
                top + 14.0
            );
            let points: Vec<_> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            out += &format!("<polyline fill=\"none\" stroke=\"#{color:06x}\" points=\"{}\"/>\n", points.join(" "));
        }
    }
    out += &format!(
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{:.1} h</text>\n</svg>\n",
        LEFT + WIDTH,
        height - 25.0,
        hours(rows)
    );
    out
}

/// The picture, as the bytes of a PNG file.
pub(super) fn png(title: &str, rows: &[Row]) -> Result<Vec<u8>, png::EncodingError> {
    let (width, height) = size();
    let mut canvas = Canvas::new(width as u32, height as u32);
    let Ok(()) = paint(&mut canvas, title, rows);
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, canvas.width, canvas.height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&canvas.bytes)?;
    writer.finish()?;
    Ok(out)
}

fn paint(canvas: &mut Canvas, title: &str, rows: &[Row]) -> Result<(), Infallible> {
    let (_, height) = size();
    let black = MonoTextStyle::new(&FONT_7X13, Rgb888::BLACK);
    let bold = MonoTextStyle::new(&FONT_9X15_BOLD, Rgb888::BLACK);
    Text::new(title, at(LEFT, 20.0), bold).draw(canvas)?;
    for Panel { top, least, most, lines } in panels(rows) {
        let frame = PrimitiveStyle::with_stroke(Rgb888::CSS_LIGHT_GRAY, 1);
        Rectangle::new(at(LEFT, top), Size::new(WIDTH as u32, HEIGHT as u32)).into_styled(frame).draw(canvas)?;
        for (value, y) in [(most, top + 10.0), (least, top + HEIGHT)] {
            let text = format!("{value:.1}");
            Text::with_alignment(&text, at(LEFT - 6.0, y), black, Alignment::Right).draw(canvas)?;
        }
        for (place, Curve { name, color, points }) in lines.iter().enumerate() {
            let color = Rgb888::from(RawU24::new(*color));
            let (name_at, style) =
                (at(LEFT + 6.0 + 70.0 * place as f64, top + 14.0), PrimitiveStyle::with_stroke(color, 1));
            Text::new(name, name_at, MonoTextStyle::new(&FONT_7X13, color)).draw(canvas)?;
            for pair in points.windows(2) {
                Line::new(at(pair[0].0, pair[0].1), at(pair[1].0, pair[1].1)).into_styled(style).draw(canvas)?;
            }
        }
    }
    let text = format!("{:.1} h", hours(rows));
    Text::with_alignment(&text, at(LEFT + WIDTH, height - 25.0), black, Alignment::Right).draw(canvas)?;
    Ok(())
}

fn at(x: f64, y: f64) -> Point {
    Point::new(x.round() as i32, y.round() as i32)
}

/// Pixels, white at first.
struct Canvas {
    width: u32,
    height: u32,
    /// Red, green and blue of each, row by row.
    bytes: Vec<u8>,
}

impl Canvas {
    fn new(width: u32, height: u32) -> Self {
        Self { width, height, bytes: vec![0xff; width as usize * height as usize * 3] }
    }
}

impl OriginDimensions for Canvas {
    fn size(&self) -> Size {
        Size::new(self.width, self.height)
    }
}

impl DrawTarget for Canvas {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(&mut self, pixels: I) -> Result<(), Infallible> {
        for Pixel(Point { x, y }, color) in pixels {
            let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y)) else { continue };
            // What lies outside is not seen.
            if x < self.width && y < self.height {
                let start = (y as usize * self.width as usize + x as usize) * 3;
                self.bytes[start..start + 3].copy_from_slice(&[color.r(), color.g(), color.b()]);
            }
        }
        Ok(())
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
