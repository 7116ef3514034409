//! Tables for people: columns aligned, numbers to the right, two spaces between.
//!
//! Invariant: the width is counted in characters; control characters in names are shown as `?`, so that a topic cannot play with a terminal.

/// Rows under a line of headings.
pub struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table; a heading with a leading `>` makes its column right-aligned.
    pub fn new(headings: &[&'static str]) -> Table {
        Table { headings: headings.to_vec(), rows: Vec::new() }
    }

    /// Adds a row, which has as many cells as there are headings.
    pub fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.headings.len(), "a cell for each heading");
        self.rows.push(cells.into_iter().map(|cell| cell.replace(|c: char| c.is_control(), "?")).collect());
    }

    /// The text, each line with a line break, without spaces at the ends.
    pub fn render(&self) -> String {
        let titles: Vec<String> = self.headings.iter().map(|heading| heading.trim_start_matches('>').to_owned()).collect();
        let mut widths: Vec<usize> = titles.iter().map(|title| title.chars().count()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        for row in std::iter::once(&titles).chain(&self.rows) {
            let mut line = String::new();
            for ((cell, width), heading) in row.iter().zip(&widths).zip(&self.headings) {
                let gap = " ".repeat(width - cell.chars().count());
                let (before, after) = if heading.starts_with('>') { (gap.as_str(), "") } else { ("", gap.as_str()) };
                line.extend([before, cell, after, "  "]);
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_numbers_stand_to_the_right() {
        let mut table = Table::new(&["NAME", ">COUNT", "NOTE"]);
        table.row(vec!["a".into(), "5".into(), "x".into()]);
        table.row(vec!["longer".into(), "123456".into(), String::new()]);
        assert_eq!(table.render(), "NAME     COUNT  NOTE\na            5  x\nlonger  123456\n");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let mut table = Table::new(&["NAME"]);
        table.row(vec!["a\x1b[31mb\n".into()]);
        assert_eq!(table.render(), "NAME\na?[31mb?\n");
    }
}
