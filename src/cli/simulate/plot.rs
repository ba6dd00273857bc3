//! A run as a drawing (SVG): load, tasks, and metric with its setpoint, one above the other.

use super::chart::{Row, buckets};

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 150.0;
const LEFT: f64 = 70.0;

/// Points of a line: more are not seen.
const POINTS: usize = 800;

/// The drawing.
pub(super) fn svg(title: &str, rows: &[Row]) -> String {
    type Line<'a> = (&'a str, &'a str, &'a dyn Fn(&Row) -> Option<f64>);
    let panels: [&[Line<'_>]; 3] = [
        &[("load", "#888888", &|row| Some(row.load))],
        &[("tasks", "#1f77b4", &|row| Some(row.tasks))],
        &[("metric", "#d62728", &|row| row.value), ("setpoint", "#2ca02c", &|row| row.setpoint)],
    ];
    let hours = rows.last().map_or(0.0, |row| row.seconds / 3600.0);
    let (width, height) = (WIDTH + LEFT + 20.0, 3.0 * (HEIGHT + 40.0) + 50.0);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"20\" font-size=\"15\">{}</text>\n",
        escape(title)
    );
    for (index, lines) in panels.iter().enumerate() {
        let top = 40.0 + index as f64 * (HEIGHT + 40.0);
        let drawn: Vec<_> = lines.iter().map(|(name, color, of)| (name, color, buckets(rows, POINTS, *of))).collect();
        let most = drawn.iter().flat_map(|(.., values)| values.iter().flatten()).fold(0.0_f64, |a, b| a.max(*b));
        let least = drawn.iter().flat_map(|(.., values)| values.iter().flatten()).fold(0.0_f64, |a, b| a.min(*b));
        let span = if least < most { most - least } else { 1.0 };
        out += &format!(
            "<rect x=\"{LEFT}\" y=\"{top}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"none\" stroke=\"#cccccc\"/>\n\
             <text x=\"{0}\" y=\"{1}\" text-anchor=\"end\">{most:.1}</text>\n\
             <text x=\"{0}\" y=\"{2}\" text-anchor=\"end\">{least:.1}</text>\n",
            LEFT - 6.0,
            top + 10.0,
            top + HEIGHT
        );
        for (place, (name, color, values)) in drawn.iter().enumerate() {
            out += &format!(
                "<text x=\"{}\" y=\"{}\" fill=\"{color}\">{name}</text>\n",
                LEFT + 6.0 + 70.0 * place as f64,
                top + 14.0
            );
            let step = WIDTH / (values.len().max(2) - 1) as f64;
            let points =
                values.iter().enumerate().filter_map(|(at, value)| Some((at, (*value)?))).map(|(at, value)| {
                    format!("{:.1},{:.1}", LEFT + at as f64 * step, top + HEIGHT * (1.0 - (value - least) / span))
                });
            let points: Vec<_> = points.collect();
            out += &format!("<polyline fill=\"none\" stroke=\"{color}\" points=\"{}\"/>\n", points.join(" "));
        }
    }
    out += &format!(
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{hours:.1} h</text>\n</svg>\n",
        LEFT + WIDTH,
        height - 25.0
    );
    out
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
