use super::*;

fn steps(text: &str) -> Vec<Step> {
    Script::parse(text).unwrap().steps
}

fn expected(text: &str) -> Expected {
    let step = steps(&format!("c\n----\n{text}")).remove(0);
    let Action::Run { expected, .. } = step.action else {
        panic!("{step:?} is no command")
    };
    expected
}

#[test]
fn a_file_is_steps_with_what_they_print() {
    let text = "# One\n# and a half\nstart app: python3 app.py\nawait app ready\n\n# Two\ncurl \\\nx\n----\nhello\nexit 56\n\necho\n----\n\n";
    let steps = steps(text);
    let told: Vec<_> = steps
        .iter()
        .map(|s| (s.line, s.heading.join("/"), s.action.to_string()))
        .collect();
    assert_eq!(
        told,
        [
            (
                3,
                "One/and a half".into(),
                "start app: python3 app.py".into()
            ),
            (4, String::new(), "await app ready".into()),
            (7, "Two".into(), "curl \\\nx".into()),
            (13, String::new(), "echo".into()),
        ]
    );
    let Action::Run { expected, .. } = &steps[2].action else {
        panic!("{steps:?}")
    };
    assert!(expected.fits("hello\n", 56));
    assert!(!expected.fits("hello\n", 0), "the exit code counts");
    let Action::Run { expected, .. } = &steps[3].action else {
        panic!("{steps:?}")
    };
    assert!(expected.fits("", 0));
}

#[test]
fn lines_that_fit_no_form_are_refused_with_their_number() {
    for (text, line) in [
        ("", 1),
        ("# only words\n", 1),
        ("\ncurl\n", 2),
        ("curl\n\n----\nx\n", 1),
        ("start app\n", 1),
        ("start 1app: x\n", 1),
        ("start app: \n", 1),
        ("await app\n", 1),
        ("curl\n----\nexit x\n", 3),
        ("curl\n----\na\n{{re:[}}\n", 4),
        ("curl\n----\n{{re:a\n", 3),
    ] {
        assert_eq!(Script::parse(text).unwrap_err().line, line, "{text:?}");
    }
}

#[test]
fn what_varies_is_a_pattern_and_nothing_else_is() {
    for (text, output, fits) in [
        ("a.b\n", "a.b\n", true),
        ("a.b\n", "axb\n", false),
        ("[{{re:\\d+}}] ok\n", "[12] ok\n", true),
        ("[{{re:\\d+}}] ok\n", "[12] ok\nmore\n", false),
        ("[{{re:\\d+}}] ok\n", "before\n[12] ok\n", false),
        ("{{re:.*}}\n", "a\nb\n", false),
        ("{{re:(?s:.*)}}\n", "a\nb\n", true),
        ("a\n{{re:}}\nb\n", "a\n\nb\n", true),
        ("{{re:\\d{2}}}\n", "12\n", true),
        ("{\"n\":{{re:\\d+}}}\n", "{\"n\":1}\n", true),
        ("{{re:a|b}}c\n", "ac\n", true),
    ] {
        assert_eq!(expected(text).fits(output, 0), fits, "{text:?} {output:?}");
    }
}

#[test]
fn a_difference_leaves_out_what_a_pattern_explains() {
    let expected = expected("at {{re:\\d+}}\nsame\nold\nexit 3\n");
    assert_eq!(
        expected.seen_by("at 12\nsame\nnew\n"),
        "at 12\nsame\nold\nexit 3\n"
    );
}

#[test]
fn rewriting_keeps_patterns_that_still_fit_and_everything_but_outputs() {
    let text = "# t\na\n----\nat {{re:\\d+}}\nold\nexit 1\n\nb\n----\nkeep\n";
    let steps = steps(text);
    let Action::Run { expected, .. } = &steps[0].action else {
        panic!("{steps:?}")
    };
    let output = expected.follow("at 12\n\nnew\r\n", 0);
    let new = rewrite(text, &[(expected, output)]);
    assert_eq!(
        new,
        "# t\na\n----\nat {{re:\\d+}}\n{{re:}}\nnew{{re:\\r}}\n\nb\n----\nkeep\n"
    );
}

#[test]
fn output_that_looks_like_an_exit_code_is_told_from_one() {
    let text = told("exit 3\n", 0);
    assert_eq!(text, "exit 3\nexit 0\n");
    assert!(expected(&text).fits("exit 3\n", 0));
    assert!(!expected(&text).fits("", 3));
}
