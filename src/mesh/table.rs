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

/// Rows with their heading first, as kubectl prints them: three blanks apart, no column narrower than six.
pub(crate) fn spread(rows: &[Vec<String>]) -> String {
    const GAP: usize = 3;
    const NARROWEST: usize = 6;
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let mut widths = vec![NARROWEST; columns];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count() + GAP);
        }
    }
    let lines = rows.iter().map(|row| {
        let mut line = String::new();
        for (n, (cell, width)) in row.iter().zip(&widths).enumerate() {
            line.push_str(cell);
            if n + 1 < row.len() {
                let missing = width.saturating_sub(cell.chars().count());
                line.extend(std::iter::repeat_n(' ', missing));
            }
        }
        line
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubectl_s_columns_are_three_blanks_apart_and_never_narrow() {
        let rows = [["NAME", "A", "AGE"], ["default", "", "5s"]];
        let rows = rows.map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(spread(&rows), "NAME      A     AGE\ndefault         5s");
    }

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
