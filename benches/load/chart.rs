//! A plot as SVG: lines over a logarithmic axis.

use std::fmt::Write as _;

/// What is drawn as one line.
pub(crate) struct Line {
    pub(crate) name: &'static str,
    pub(crate) points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 200.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
/// Colours that can be told apart by everybody, on a light ground and on a dark one.
const COLOURS: [&str; 4] = ["#d55e00", "#0072b2", "#009e73", "#999999"];

/// Draws the lines. `title` is what the upright axis has, `across` the other.
pub(crate) fn draw(title: &str, across: &str, lines: &[Line]) -> String {
    let points = || lines.iter().flat_map(|line| &line.points);
    let (first, last) = points().fold((f64::INFINITY, 0.0_f64), |(least, most), (x, _)| (least.min(x.log10()), most.max(x.log10())));
    let highest = step(points().fold(1.0_f64, |most, (_, y)| most.max(*y)) / 4.0) * 4.0;
    let at_x = |x: f64| LEFT + (x.log10() - first) / (last - first).max(1e-9) * (WIDTH - LEFT - RIGHT);
    let at_y = |y: f64| HEIGHT - BOTTOM - y / highest * (HEIGHT - TOP - BOTTOM);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n"
    );
    let mut text = |x: f64, y: f64, anchor: &str, colour: &str, text: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{text}</text>");
    };
    text(LEFT, TOP - 18.0, "start", "#000000", title);
    text(f64::midpoint(LEFT, WIDTH - RIGHT), HEIGHT - 10.0, "middle", "#000000", across);
    let ticks: Vec<f64> = (0..=4).map(|tick| highest / 4.0 * f64::from(tick)).collect();
    for tick in &ticks {
        text(LEFT - 8.0, at_y(*tick) + 4.0, "end", "#444444", &format!("{tick:.0}"));
    }
    for (x, _) in lines.first().map(|line| line.points.as_slice()).unwrap_or_default() {
        text(at_x(*x), HEIGHT - BOTTOM + 18.0, "middle", "#444444", &grouped(*x));
    }
    // Where two lines end at one height their names would lie on one another.
    let mut names: Vec<(f64, &str, &str)> =
        lines.iter().zip(COLOURS).filter_map(|(line, colour)| Some((at_y(line.points.last()?.1), line.name, colour))).collect();
    names.sort_by(|(one, ..), (other, ..)| one.total_cmp(other));
    let mut free = TOP;
    for (y, name, colour) in names {
        let y = y.max(free);
        free = y + 15.0;
        text(WIDTH - RIGHT + 10.0, y + 4.0, "start", colour, name);
    }
    for tick in ticks {
        let (y, right) = (at_y(tick), WIDTH - RIGHT);
        let _ = writeln!(svg, "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\" stroke=\"#dddddd\"/>");
    }
    for (line, colour) in lines.iter().zip(COLOURS) {
        let path: Vec<String> = line.points.iter().map(|(x, y)| format!("{:.1},{:.1}", at_x(*x), at_y(*y))).collect();
        let _ = writeln!(svg, "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>", path.join(" "));
        for (x, y) in &line.points {
            let _ = writeln!(svg, "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>", at_x(*x), at_y(*y));
        }
    }
    svg.push_str("</svg>\n");
    svg
}

/// The next number of one digit and noughts.
fn step(value: f64) -> f64 {
    let unit = 10_f64.powf(value.log10().floor());
    (value / unit).ceil() * unit
}

/// A number with a comma before each three digits.
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
