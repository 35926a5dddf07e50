//! Tables without borders: readable at 80 columns, cuttable with awk.
//!
//! A row may end in a *remark* that runs over the remaining columns, for what has
//! no value to put there: an unreachable agent, an error. Columns are as wide as
//! their content. On a terminal that is too narrow the gaps close first, then the
//! widest columns give way (the last one never does: addresses stand there), and
//! what is still too long is cut with `…`.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::escape::one_line;
use crate::printer::Paint;

/// A table to be built row by row.
#[derive(Debug, Default)]
pub(crate) struct Table {
    header: Vec<&'static str>,
    rows: Vec<Row>,
}

/// One field.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    text: String,
    paint: Paint,
}

#[derive(Debug)]
struct Row {
    cells: Vec<Cell>,
    remark: Option<Cell>,
}

impl Table {
    pub(crate) fn new(header: &[&'static str]) -> Self {
        Self { header: header.to_vec(), rows: Vec::new() }
    }

    /// Adds a row of as many cells as there are columns.
    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.header.len());
        self.rows.push(Row { cells, remark: None });
    }

    /// Adds a row whose first cells are followed by a remark.
    pub(crate) fn remark(&mut self, cells: Vec<Cell>, remark: Cell) {
        debug_assert!(cells.len() < self.header.len());
        self.rows.push(Row { cells, remark: Some(remark) });
    }

    /// The lines, cut at `width` columns where one is given.
    pub(crate) fn render(&self, width: Option<usize>, colour: bool) -> String {
        let limit = width.unwrap_or(usize::MAX);
        let (widths, gap) = fit(self.widths(), limit);
        let layout = Layout { widths: &widths, gap, limit, colour };
        let mut out = String::new();
        let header = self.header.iter().map(|text| Cell::painted(text, Paint::Bold)).collect();
        let header = Row { cells: header, remark: None };
        for row in std::iter::once(&header).chain(&self.rows) {
            layout.row(row, &mut out);
        }
        out
    }

    fn widths(&self) -> Vec<usize> {
        let mut widths: Vec<usize> = self.header.iter().map(|text| text.width()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(&row.cells) {
                *width = (*width).max(cell.text.width());
            }
        }
        widths
    }
}

impl Cell {
    /// Text from anywhere; control characters and line breaks are taken out.
    pub(crate) fn new(text: impl AsRef<str>) -> Self {
        Self::painted(text, Paint::Plain)
    }

    /// The same, coloured.
    pub(crate) fn painted(text: impl AsRef<str>, paint: Paint) -> Self {
        let text = one_line(text.as_ref());
        Self { text: if text.is_empty() { "-".to_owned() } else { text }, paint }
    }
}

/// `text` in at most `width` columns.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut used = 0;
    for c in text.chars() {
        let next = c.width().unwrap_or(0);
        if used + next + 1 > width {
            break;
        }
        used += next;
        out.push(c);
    }
    if width > 0 {
        out.push('…');
    }
    out
}

/// How the rows of one table are laid out.
struct Layout<'a> {
    widths: &'a [usize],
    gap: usize,
    limit: usize,
    colour: bool,
}

impl Layout<'_> {
    fn row(&self, row: &Row, out: &mut String) {
        let start = out.len();
        let mut left = self.limit;
        let count = row.cells.len() + usize::from(row.remark.is_some());
        for (index, cell) in row.cells.iter().chain(&row.remark).enumerate() {
            let is_last = index + 1 == count;
            let column = self.widths.get(index).copied().unwrap_or(0);
            let text = cut(&cell.text, if is_last { left } else { left.min(column) });
            let used = text.width();
            out.push_str(&cell.paint.apply(&text, self.colour));
            left -= used;
            let gap = (column + self.gap).saturating_sub(used);
            if is_last || left <= gap {
                break;
            }
            out.push_str(&" ".repeat(gap));
            left -= gap;
        }
        let length = out.get(start..).unwrap_or_default().trim_end().len();
        out.truncate(start + length);
        out.push('\n');
    }
}

/// Narrows columns until a full row fits, as far as that is sensible.
fn fit(mut widths: Vec<usize>, limit: usize) -> (Vec<usize>, usize) {
    let total =
        |widths: &[usize], gap: usize| widths.iter().sum::<usize>() + gap * widths.len().saturating_sub(1);
    if total(&widths, GAP) <= limit {
        return (widths, GAP);
    }
    while total(&widths, 1) > limit {
        let but_last = widths.len().saturating_sub(1);
        let widest = widths.iter_mut().take(but_last).max();
        match widest {
            Some(width) if *width > NARROWEST => *width -= 1,
            _ => break,
        }
    }
    (widths, 1)
}

/// Blanks between columns.
const GAP: usize = 2;
/// Columns are not made narrower than this.
const NARROWEST: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["NAME", "STATE", "PLAYERS", "ADDRESS"]);
        table.row(vec![
            Cell::new("lobby"),
            Cell::painted("running", Paint::Good),
            Cell::new("3/20"),
            Cell::new("10.0.0.2:25565"),
        ]);
        table.remark(
            vec![Cell::new("mc-2"), Cell::painted("unreachable", Paint::Bad)],
            Cell::new("connection refused\u{1b}[2J\nby it"),
        );
        table.row(vec![Cell::new("日本"), Cell::new("idle"), Cell::new(""), Cell::new("x")]);
        table
    }

    #[test]
    fn columns_line_up_and_remarks_run_over() {
        let expected = "\
NAME   STATE        PLAYERS  ADDRESS
lobby  running      3/20     10.0.0.2:25565
mc-2   unreachable  connection refused by it
日本   idle         -        x
";
        assert_eq!(table().render(None, false), expected);
    }

    #[test]
    fn lines_are_cut_at_the_width() {
        let text = table().render(Some(30), false);
        assert!(text.lines().all(|line| line.width() <= 30), "{text}");
        assert!(
            text.lines().any(|line| line.starts_with("mc-2  unreachable connect") && line.ends_with('…')),
            "{text}"
        );
        for width in 0..60 {
            assert!(table().render(Some(width), false).lines().all(|line| line.width() <= width), "{width}");
        }
    }

    #[test]
    fn the_last_column_is_the_last_to_go() {
        let mut table = Table::new(&["NAME", "VERSION", "ADDRESS"]);
        table.row(vec![Cell::new("lobby"), Cell::new("flying-squid 1.18.2"), Cell::new("127.0.0.1:25565")]);
        assert!(table.render(Some(42), false).contains("lobby flying-squid 1.18.2 127.0.0.1:25565\n"));
        assert!(table.render(Some(35), false).contains("lobby flying-squid… 127.0.0.1:25565\n"));
    }

    #[test]
    fn colour_does_not_move_anything() {
        let coloured = table().render(Some(40), true);
        assert!(coloured.contains("\u{1b}["));
        assert_eq!(crate::ui::escape::clean(&coloured), table().render(Some(40), false));
    }
}
