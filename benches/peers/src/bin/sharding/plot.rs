//! The figures, as one SVG.

use plotters::{
    chart::{ChartBuilder, ChartContext, SeriesLabelPosition},
    coord::{
        Shift,
        cartesian::Cartesian2d,
        ranged1d::{AsRangedCoord, ValueFormatter},
        types::RangedCoordf64,
    },
    drawing::DrawingArea,
    prelude::{
        BLACK, Circle, Color, IntoDrawingArea, IntoFont, IntoLogRange, PathElement, RGBColor,
        Ranged, SVGBackend, WHITE,
    },
    series::LineSeries,
};

use crate::{contention, order, reuse, steal::Steal, throughput};

/// Everything that is drawn.
#[derive(Debug)]
pub struct Figures<'a> {
    pub reuse: &'a [reuse::Outcome],
    pub throughput: &'a [throughput::Outcome],
    pub order: &'a [order::Outcome],
    pub contention: &'a [contention::Outcome],
    /// What stands below the title: machine and date.
    pub subtitle: &'a str,
}

/// Okabe and Ito's colours, which those who see red and green alike can tell apart too.
const COLOURS: [RGBColor; 4] =
    [RGBColor(0, 114, 178), RGBColor(213, 94, 0), RGBColor(0, 158, 115), RGBColor(204, 121, 167)];

const SIZE: (u32, u32) = (1300, 1560);
const FONT: &str = "sans-serif";

struct Line {
    name: String,
    points: Vec<(f64, f64)>,
    /// Where there is one for each second, they would hide the line.
    marked: bool,
}

struct Panel<'a> {
    title: &'a str,
    x: &'a str,
    y: &'a str,
    lines: Vec<Line>,
    /// Whether the vertical axis shows all of its height, where it is no logarithm.
    from_zero: bool,
    /// Where no line passes.
    legend: SeriesLabelPosition,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Draws the figures.
///
/// # Errors
/// The drawing library's, which are none of an image in memory.
pub fn draw(figures: &Figures<'_>) -> Result<String, Box<dyn std::error::Error>> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let root = root.titled("corepool: shards, stealing, order", (FONT, 30))?;
        let root = root.titled(figures.subtitle, (FONT, 15))?;
        let areas = root.split_evenly((3, 2));
        let shards = most_shards(figures);
        by_shards(&areas[0], shards, &reused(figures.reuse), |value| format!("{value:.1}"))?;
        by_shards(&areas[1], shards, &open(figures.reuse), |value| format!("{value:.0}"))?;
        by_shards(&areas[2], shards, &rates(figures.throughput), |value| format!("{value:.0}"))?;
        contended(&areas[3], &costs(figures.contention))?;
        by_time(&areas[4], &warm(figures.order))?;
        by_time(&areas[5], &ages(figures.order))?;
        root.present()?;
    }
    Ok(svg)
}

fn most_shards(figures: &Figures<'_>) -> f64 {
    figures.reuse.iter().map(|outcome| outcome.shards).max().unwrap_or(1) as f64
}

/// A line for each way to steal.
fn by_steal<T>(outcomes: &[T], point: impl Fn(&T) -> (Steal, usize, f64)) -> Vec<Line> {
    let line = |steal: Steal| {
        let points = outcomes.iter().map(&point).filter(|point| point.0 == steal);
        Line {
            name: format!("stealing {}", steal.name()),
            points: points.map(|(_, shards, value)| (shards as f64, value)).collect(),
            marked: true,
        }
    };
    Steal::ALL.into_iter().map(line).collect()
}

fn reused(outcomes: &[reuse::Outcome]) -> Panel<'static> {
    Panel {
        title: "Reuse against shards (simulated)",
        x: "shards",
        y: "requests served by a reused connection, %",
        lines: by_steal(outcomes, |outcome| (outcome.steal, outcome.shards, outcome.reuse.0)),
        from_zero: false,
        legend: SeriesLabelPosition::LowerLeft,
    }
}

fn open(outcomes: &[reuse::Outcome]) -> Panel<'static> {
    Panel {
        title: "Open connections against shards (simulated)",
        x: "shards",
        y: "open connections, mean",
        lines: by_steal(outcomes, |outcome| (outcome.steal, outcome.shards, outcome.open)),
        from_zero: true,
        legend: SeriesLabelPosition::UpperLeft,
    }
}

fn rates(outcomes: &[throughput::Outcome]) -> Panel<'static> {
    Panel {
        title: "Throughput against shards (real; above the cores: time slices)",
        x: "shards",
        y: "checkouts and returns, millions a second",
        lines: by_steal(outcomes, |outcome| (outcome.steal, outcome.shards, outcome.rate.0)),
        from_zero: true,
        legend: SeriesLabelPosition::UpperRight,
    }
}

fn costs(outcomes: &[contention::Outcome]) -> Panel<'static> {
    let line = |name: &'static str| {
        let of = outcomes.iter().filter(|outcome| outcome.candidate == name);
        let points = of.map(|outcome| (outcome.threads as f64, outcome.core_ns)).collect();
        Line { name: name.to_owned(), points, marked: true }
    };
    Panel {
        title: "Contention on one hot endpoint (real; above the cores: time slices)",
        x: "threads",
        y: "checkout and return, ns of a core",
        lines: contention::names(outcomes).into_iter().map(line).collect(),
        from_zero: true,
        legend: SeriesLabelPosition::UpperLeft,
    }
}

/// A line for each order, with a point for each second.
fn by_order(outcomes: &[order::Outcome], value: fn(&order::Sample) -> f64) -> Vec<Line> {
    let line = |outcome: &order::Outcome| {
        let points = outcome.samples.iter().map(|sample| (sample.second as f64, value(sample)));
        Line { name: outcome.choice.name(), points: points.collect(), marked: false }
    };
    outcomes.iter().map(line).collect()
}

fn warm(outcomes: &[order::Outcome]) -> Panel<'static> {
    Panel {
        title: "FIFO and LIFO: a burst of 128 every 120 s (simulated)",
        x: "time, s",
        y: "open connections",
        lines: by_order(outcomes, |sample| f64::from(sample.open)),
        from_zero: true,
        legend: SeriesLabelPosition::UpperRight,
    }
}

fn ages(outcomes: &[order::Outcome]) -> Panel<'static> {
    Panel {
        title: "Age of the connection that has rested longest (simulated)",
        x: "time, s",
        y: "oldest idle age, s",
        lines: by_order(outcomes, |sample| sample.oldest_idle_s),
        from_zero: true,
        legend: SeriesLabelPosition::UpperRight,
    }
}

/// Powers of two along the horizontal axis.
fn by_shards(area: &Area<'_>, shards: f64, panel: &Panel<'_>, value: fn(&f64) -> String) -> Drawn {
    let (low, high) = range(&panel.lines);
    // Room for the legend above what begins at zero.
    let (low, high) = if panel.from_zero { (0.0, high * 1.25) } else { (low, high) };
    let mut chart =
        frame(area, panel.title).build_cartesian_2d(-0.2..shards.log2() + 0.2, low..high)?;
    let mut mesh = chart.configure_mesh();
    mesh.x_labels(shards.log2() as usize + 1).y_labels(8).light_line_style(WHITE);
    mesh.x_label_formatter(&|power| format!("{:.0}", power.exp2())).y_label_formatter(&value);
    mesh.x_desc(panel.x).y_desc(panel.y).axis_desc_style((FONT, 16)).label_style((FONT, 14));
    mesh.draw()?;
    lines(&mut chart, panel, |(x, y)| (x.log2(), y))
}

/// Powers of ten along the vertical axis.
fn contended(area: &Area<'_>, panel: &Panel<'_>) -> Drawn {
    let threads = panel.lines.iter().flat_map(|line| &line.points).map(|point| point.0);
    let (low, high) = range(&panel.lines);
    let costs = (low.max(10.0)..high * 4.0).log_scale();
    let mut chart = frame(area, panel.title)
        .build_cartesian_2d(0.5..threads.fold(1.0, f64::max) + 0.5, costs)?;
    let mut mesh = chart.configure_mesh();
    mesh.x_labels(16).y_labels(8).light_line_style(WHITE);
    mesh.x_label_formatter(&|threads| format!("{threads:.0}"));
    mesh.y_label_formatter(&|ns| format!("{ns:.0}"));
    mesh.x_desc(panel.x).y_desc(panel.y).axis_desc_style((FONT, 16)).label_style((FONT, 14));
    mesh.draw()?;
    lines(&mut chart, panel, |point| point)
}

fn by_time(area: &Area<'_>, panel: &Panel<'_>) -> Drawn {
    let end = panel.lines.iter().flat_map(|line| &line.points).map(|point| point.0);
    let (_, high) = range(&panel.lines);
    let mut chart = frame(area, panel.title)
        .build_cartesian_2d(0.0..end.fold(1.0, f64::max), 0.0..high * 1.35)?;
    let mut mesh = chart.configure_mesh();
    mesh.x_labels(7).y_labels(8).light_line_style(WHITE);
    mesh.x_label_formatter(&|second| format!("{second:.0}"));
    mesh.y_label_formatter(&|value| format!("{value:.0}"));
    mesh.x_desc(panel.x).y_desc(panel.y).axis_desc_style((FONT, 16)).label_style((FONT, 14));
    mesh.draw()?;
    lines(&mut chart, panel, |point| point)
}

fn frame<'a, 'b>(area: &'a Area<'b>, title: &str) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
    let mut chart = ChartBuilder::on(area);
    chart.caption(title, (FONT, 18).into_font()).margin(14);
    chart.x_label_area_size(46).y_label_area_size(66);
    chart
}

/// What the vertical axis has to show, with some air.
fn range(lines: &[Line]) -> (f64, f64) {
    let values = || lines.iter().flat_map(|line| &line.points).map(|point| point.1);
    let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
    let air = (0.06 * (high - low)).max(0.01 * high).max(0.1);
    ((low - air).max(0.0), high + air)
}

fn lines<'a, Y>(
    chart: &mut ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, Y>>,
    panel: &Panel<'_>,
    place: fn((f64, f64)) -> (f64, f64),
) -> Drawn
where
    Y: Ranged<ValueType = f64> + ValueFormatter<f64> + AsRangedCoord,
{
    for (below, (line, colour)) in panel.lines.iter().zip(COLOURS).enumerate() {
        let points = || line.points.iter().copied().map(place);
        // What lies below another line shows on both sides of it.
        let width = 2 * (panel.lines.len() - below) as u32;
        chart
            .draw_series(LineSeries::new(points(), colour.stroke_width(width)))?
            .label(&line.name)
            .legend(move |(x, y)| {
                PathElement::new([(x, y), (x + 22, y)], colour.stroke_width(width))
            });
        if line.marked {
            chart.draw_series(
                points().map(|point| Circle::new(point, 2 + width as i32 / 2, colour.filled())),
            )?;
        }
    }
    let mut legend = chart.configure_series_labels();
    legend.position(panel.legend.clone()).margin(10).legend_area_size(30);
    legend.background_style(WHITE.mix(0.85)).border_style(BLACK.mix(0.4)).label_font((FONT, 15));
    legend.draw()?;
    Ok(())
}
