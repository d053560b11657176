//! Aligned tables that fit the terminal, and are never shortened in a pipe.

use std::fmt::Write;

use anstyle::Style;

use super::style::{self, printable};

/// A table under construction. Cells may hold text from other nodes: it is made printable here.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<(Style, String)>>,
}

/// How a column is laid out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    title: &'static str,
    align: Align,
    /// May be shortened down to so many characters on a narrow terminal.
    least: Option<usize>,
    /// Is shortened before all others.
    gives_way: bool,
    /// Goes on in the next line where it is too long, and is not cut.
    wraps: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Align {
    Left,
    Right,
}

impl Column {
    /// Text that is never shortened.
    pub(crate) fn text(title: &'static str) -> Self {
        Self { title, align: Align::Left, least: None, gives_way: false, wraps: false }
    }

    /// A number: right-aligned.
    pub(crate) fn number(title: &'static str) -> Self {
        Self { title, align: Align::Right, least: None, gives_way: false, wraps: false }
    }

    /// Text that may be shortened to `least` characters when the terminal is narrow.
    pub(crate) fn elastic(title: &'static str, least: usize) -> Self {
        Self { title, align: Align::Left, least: Some(least), gives_way: false, wraps: false }
    }

    /// Text that takes several lines when the terminal is narrow: all of it is wanted.
    pub(crate) fn wrapped(title: &'static str, least: usize) -> Self {
        Self { wraps: true, ..Self::elastic(title, least) }
    }

    /// Like [`elastic`](Self::elastic), and shortened first: what few people read.
    pub(crate) fn gives_way(title: &'static str, least: usize) -> Self {
        Self { gives_way: true, ..Self::elastic(title, least) }
    }
}

impl Table {
    pub(crate) fn new(columns: impl Into<Vec<Column>>) -> Self {
        Self { columns: columns.into(), rows: Vec::new() }
    }

    /// Adds a row; it has as many cells as there are columns.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = (Style, String)>) {
        self.rows.push(cells.into_iter().map(|(style, text)| (style, printable(&text))).collect());
    }

    /// The table as text, each line behind `indent` blanks and without blanks at its end.
    pub(crate) fn render(&self, width: Option<usize>, indent: usize) -> String {
        let widths = self.widths(width.map(|width| width.saturating_sub(indent)));
        let mut text = String::new();
        if self.columns.iter().any(|column| !column.title.is_empty()) {
            let titles: Vec<_> = self.columns.iter().map(|column| (style::HEADER, column.title.to_owned())).collect();
            self.line(&mut text, &titles, &widths, indent);
        }
        for row in &self.rows {
            self.line(&mut text, row, &widths, indent);
        }
        text.pop();
        text
    }

    fn line(&self, text: &mut String, cells: &[(Style, String)], widths: &[usize], indent: usize) {
        let split = |((column, (_, cell)), width): ((&Column, &(Style, String)), &usize)| {
            if column.wraps { wrap(cell, *width) } else { vec![shorten(cell, *width)] }
        };
        let lines: Vec<Vec<String>> = self.columns.iter().zip(cells).zip(widths).map(split).collect();
        let height = lines.iter().map(Vec::len).max().unwrap_or(0);
        for number in 0..height {
            let mut blanks = indent;
            for (((column, (style, _)), width), lines) in self.columns.iter().zip(cells).zip(widths).zip(&lines) {
                let cell = lines.get(number).map_or("", String::as_str);
                let padding = width.saturating_sub(length(cell));
                let (before, after) = if column.align == Align::Right { (padding, 0) } else { (0, padding) };
                if !cell.is_empty() {
                    // Writing into a `String` cannot fail.
                    let _ = write!(text, "{:1$}{style}{cell}{style:#}", "", blanks + before);
                    blanks = after + GAP;
                } else {
                    blanks += width + GAP;
                }
            }
            text.push('\n');
        }
    }

    /// The width of each column: as wide as its cells, less where it may and the terminal is too narrow.
    fn widths(&self, limit: Option<usize>) -> Vec<usize> {
        let mut widths: Vec<usize> = (0..self.columns.len()).map(|index| self.natural(index)).collect();
        let Some(limit) = limit else { return widths };
        let total = widths.iter().sum::<usize>() + GAP * self.columns.len().saturating_sub(1);
        let mut excess = total.saturating_sub(limit);
        while excess > 0 {
            let widest = (0..widths.len())
                .filter(|&index| self.columns[index].least.is_some_and(|least| widths[index] > least))
                .max_by_key(|&index| (self.columns[index].gives_way, widths[index]));
            let Some(widest) = widest else { break };
            widths[widest] -= 1;
            excess -= 1;
        }
        widths
    }

    fn natural(&self, index: usize) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(index)).map(|(_, text)| length(text));
        cells.max().unwrap_or(0).max(length(self.columns[index].title))
    }
}

/// `text` in at most `width` characters, with an ellipsis where something is missing.
pub(crate) fn shorten(text: &str, width: usize) -> String {
    if length(text) <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// `text` in lines of at most `width` characters, broken at blanks where there are any.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let mut word = word;
        if lines.last().is_some_and(|line| !line.is_empty() && length(line) + 1 + length(word) > width) {
            lines.push(String::new());
        }
        while length(word) > width {
            let at = word.char_indices().nth(width).map_or(word.len(), |(at, _)| at);
            lines.insert(lines.len() - 1, word[..at].to_owned());
            word = &word[at..];
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

fn length(text: &str) -> usize {
    text.chars().count()
}

/// Blanks between columns.
const GAP: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new([Column::text("NAME"), Column::number("LOAD"), Column::elastic("APPLICATIONS", 6)]);
        let plain = |text: &str| (style::PLAIN, text.to_owned());
        table.row([plain("alpha"), plain("7"), plain("calculator, node")]);
        table.row([plain("b"), plain("120"), plain("")]);
        table
    }

    #[test]
    fn columns_line_up_and_numbers_are_right_aligned() {
        let text = anstream::adapter::strip_str(&table().render(None, 0)).to_string();
        assert_eq!(text, "NAME   LOAD  APPLICATIONS\nalpha     7  calculator, node\nb       120");
    }

    #[test]
    fn what_is_wanted_whole_goes_on_in_the_next_line() {
        let mut table = Table::new([Column::text("NAME"), Column::wrapped("ACTIONS", 8), Column::number("N")]);
        let plain = |text: &str| (style::PLAIN, text.to_owned());
        table.row([plain("alpha"), plain("add, subtract, abcdefghijklmnop"), plain("4")]);
        table.row([plain("b"), plain(""), plain("5")]);
        let text = anstream::adapter::strip_str(&table.render(Some(20), 0)).to_string();
        let wanted = "NAME   ACTIONS     N\nalpha  add,        4\n       subtract,\n       abcdefghij\n       klmnop\nb                  5";
        assert_eq!(text, wanted);
        let wide = anstream::adapter::strip_str(&table.render(None, 0)).to_string();
        assert!(wide.contains("add, subtract, abcdefghijklmnop"), "{wide}");
    }

    #[test]
    fn a_narrow_terminal_shortens_only_what_may_be_shortened() {
        let text = anstream::adapter::strip_str(&table().render(Some(22), 0)).to_string();
        assert_eq!(text, "NAME   LOAD  APPLICAT…\nalpha     7  calculat…\nb       120");
        let text = anstream::adapter::strip_str(&table().render(Some(3), 0)).to_string();
        assert!(text.contains("calcu…"), "never below the least width: {text}");
    }
}
