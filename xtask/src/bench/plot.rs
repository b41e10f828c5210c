//! Line plots as SVG, with a logarithmic axis for what grows by powers of ten.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

/// The picture's size in pixels.
const SIZE: (u32, u32) = (800, 480);
/// Font sizes.
const CAPTION: u32 = 22;
const LABELS: u32 = 16;
const COLOURS: [RGBColor; 5] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(110, 110, 110),
    RGBColor(204, 121, 167),
];

/// A plot of some series over one axis.
pub(super) struct Plot<'a> {
    pub(super) title: &'a str,
    pub(super) axis: &'a str,
    pub(super) unit: &'a str,
    pub(super) series: &'a [Series],
}

/// A line: where each point stands, its median, and the least and the greatest of its runs.
pub(super) struct Series {
    name: String,
    points: Vec<(f64, f64, [f64; 2])>,
}

impl Series {
    pub(super) fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), points: Vec::new() }
    }

    pub(super) fn add(&mut self, at: f64, median: f64, spread: [f64; 2]) {
        self.points.push((at, median, spread));
    }

    pub(super) fn is_named(&self, name: &str) -> bool {
        self.name == name
    }
}

impl Plot<'_> {
    /// Writes the plot to a file.
    pub(super) fn draw(&self, file: &Path) -> Result<()> {
        self.try_draw(file).map_err(|error| anyhow!("cannot draw {}: {error}", file.display()))
    }

    fn try_draw(&self, file: &Path) -> Result<(), Box<dyn std::error::Error + '_>> {
        let all = || self.series.iter().flat_map(|series| &series.points);
        let first = all().map(|(at, ..)| *at).fold(f64::MAX, f64::min);
        let last = all().map(|(at, ..)| *at).fold(f64::MIN, f64::max);
        let most = all().map(|(_, _, [_, most])| *most).fold(0.0, f64::max);
        let area = SVGBackend::new(file, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(self.title, ("sans-serif", CAPTION))
            .margin(12)
            .margin_right(36)
            .x_label_area_size(48)
            .y_label_area_size(64)
            .build_cartesian_2d((first..last).log_scale(), 0.0..most * 1.1)?;
        chart
            .configure_mesh()
            .x_desc(self.axis)
            .y_desc(self.unit)
            .x_label_formatter(&|number| format!("{number:.0}"))
            .y_label_formatter(&|number| format!("{number:.0}"))
            .label_style(("sans-serif", LABELS))
            .light_line_style(WHITE)
            .draw()?;
        for (series, colour) in self.series.iter().zip(COLOURS.iter().cycle()) {
            let line = series.points.iter().map(|(at, median, _)| (*at, *median));
            chart
                .draw_series(LineSeries::new(line, colour.stroke_width(2)))?
                .label(&series.name)
                .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
            let bars = series.points.iter().map(|(at, _, [least, most])| {
                PathElement::new([(*at, *least), (*at, *most)], colour.stroke_width(1))
            });
            chart.draw_series(bars)?;
            let dots =
                series.points.iter().map(|(at, median, _)| Circle::new((*at, *median), 3, colour.filled()));
            chart.draw_series(dots)?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .label_font(("sans-serif", LABELS))
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .draw()?;
        area.present()?;
        Ok(())
    }
}
