//! Text in columns.

/// Rows under a heading, each column as wide as its widest cell, two blanks apart. Lines end without blanks.
pub(crate) fn columns<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = heading.map(|cell| cell.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &[&str]| {
        let padded = cells.iter().zip(widths).map(|(cell, width)| {
            let missing = width - cell.chars().count();
            format!("{cell}{}", " ".repeat(missing))
        });
        let text = padded.collect::<Vec<_>>().join("  ");
        text.trim_end().to_owned()
    };
    let rows = rows.iter().map(|row| {
        let cells: Vec<&str> = row.iter().map(String::as_str).collect();
        line(&cells)
    });
    let heading = [line(&heading)].into_iter();
    heading.chain(rows).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            ["webapp".into(), "→".into(), "8080".into()],
            ["a".into(), "longer".into(), String::new()],
        ];
        assert_eq!(
            columns(["NAME", "TO", "PORT"], &rows),
            "NAME    TO      PORT\nwebapp  →       8080\na       longer"
        );
    }
}
