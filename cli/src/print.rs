//! What a command shows: lines and aligned tables for people, one JSON object a line for programs.

use std::io::{self, BufWriter, Write};

use serde::Serialize;

use crate::failure::Failure;

/// Rows that are aligned together. A listing of millions is printed while it comes; columns only ever get wider.
const PAGE_ROWS: usize = 200;

/// Where a command's answer goes.
pub(crate) struct Out {
    to: Box<dyn Write>,
    json: bool,
}

impl Out {
    /// Standard output; in JSON or in text.
    pub(crate) fn stdout(json: bool) -> Out {
        Out { to: Box::new(BufWriter::new(io::stdout())), json }
    }

    /// Whether JSON is wanted.
    pub(crate) fn json(&self) -> bool {
        self.json
    }

    /// One line of text.
    pub(crate) fn line(&mut self, text: &str) -> Result<(), Failure> {
        writeln!(self.to, "{}", text.trim_end()).map_err(Failure::Output)
    }

    /// One JSON object on its line.
    pub(crate) fn object(&mut self, object: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.to, object).map_err(|error| Failure::Output(error.into()))?;
        self.to.write_all(b"\n").map_err(Failure::Output)
    }

    /// Writes out what is buffered.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.to.flush().map_err(Failure::Output)
    }
}

/// How a column stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Rows under a head, in columns.
pub(crate) struct Table {
    head: Vec<String>,
    align: Vec<Align>,
    widths: Vec<usize>,
    rows: Vec<Vec<String>>,
    head_shown: bool,
}

impl Table {
    /// A table with these columns.
    pub(crate) fn new(columns: &[(&str, Align)]) -> Table {
        Table {
            head: columns.iter().map(|(name, _)| (*name).to_owned()).collect(),
            align: columns.iter().map(|(_, align)| *align).collect(),
            widths: columns.iter().map(|(name, _)| name.chars().count()).collect(),
            rows: Vec::new(),
            head_shown: false,
        }
    }

    /// Adds a row, one text a column; prints a page when it is full.
    pub(crate) fn row(&mut self, out: &mut Out, cells: Vec<String>) -> Result<(), Failure> {
        for (width, cell) in self.widths.iter_mut().zip(&cells) {
            *width = (*width).max(cell.chars().count());
        }
        self.rows.push(cells);
        if self.rows.len() == PAGE_ROWS { self.print(out) } else { Ok(()) }
    }

    /// Prints what is left. Nothing, not even a head, when there never was a row.
    pub(crate) fn print(&mut self, out: &mut Out) -> Result<(), Failure> {
        if self.rows.is_empty() {
            return Ok(());
        }
        if !self.head_shown {
            self.head_shown = true;
            out.line(&self.aligned(&self.head))?;
        }
        for row in std::mem::take(&mut self.rows) {
            out.line(&self.aligned(&row))?;
        }
        Ok(())
    }

    fn aligned(&self, cells: &[String]) -> String {
        let mut line = String::new();
        for ((cell, width), align) in cells.iter().zip(&self.widths).zip(&self.align) {
            let space = " ".repeat(width.saturating_sub(cell.chars().count()));
            let [before, after] = if *align == Align::Right { [space.as_str(), ""] } else { ["", space.as_str()] };
            line.push_str(&format!("{before}{cell}{after}  "));
        }
        line
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Keeps what is shown, for tests.
    #[derive(Clone, Default)]
    pub(crate) struct Shown(Arc<Mutex<Vec<u8>>>);

    impl Write for Shown {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Shown {
        pub(crate) fn out(&self, json: bool) -> Out {
            Out { to: Box::new(self.clone()), json }
        }
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let shown = Shown::default();
        let mut out = shown.out(false);
        let mut table = Table::new(&[("SIZE", Align::Right), ("KEY", Align::Left)]);
        table.row(&mut out, vec!["1 B".into(), "a".into()]).unwrap();
        table.row(&mut out, vec!["128 KiB".into(), "ä/long".into()]).unwrap();
        table.print(&mut out).unwrap();
        assert_eq!(shown.text(), "   SIZE  KEY\n    1 B  a\n128 KiB  ä/long\n");
    }

    #[test]
    fn an_empty_table_shows_nothing() {
        let shown = Shown::default();
        Table::new(&[("KEY", Align::Left)]).print(&mut shown.out(false)).unwrap();
        assert_eq!(shown.text(), "");
    }
}
