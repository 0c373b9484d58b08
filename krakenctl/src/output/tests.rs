use super::*;

fn sample() -> Table {
    let mut table = Table::new(["NAME", "STATE", "+NOTE"]);
    table.row(vec![
        "n1".into(),
        Cell::new("SYNC", Tone::Good),
        "a,\"b\"".into(),
    ]);
    table.row(vec![
        "login".into(),
        Cell::new("", Tone::Plain),
        "\x1b[2J".into(),
    ]);
    table
}

#[test]
fn a_table_has_no_borders_and_no_trailing_blanks() {
    let text = sample().render(false, Paint::default());
    assert_eq!(text, "NAME   STATE\nn1     SYNC\nlogin  -\n");
}

#[test]
fn wide_adds_columns_and_escapes_control_characters() {
    let text = sample().render(true, Paint::default());
    assert!(
        text.contains("NOTE") && text.contains("\\u{1b}[2J"),
        "{text}"
    );
    assert!(!text.contains('\x1b'));
}

#[test]
fn color_is_only_where_it_is_wanted() {
    assert!(
        sample()
            .render(false, Paint { color: true })
            .contains('\x1b')
    );
    assert_eq!(Paint { color: false }.text("x", Tone::Bad), "x");
    assert_eq!(
        Paint { color: true }.text("x", Tone::Bad),
        "\x1b[31mx\x1b[0m"
    );
}

#[test]
fn csv_quotes_what_needs_it() {
    let text = sample().csv();
    assert_eq!(text.lines().next(), Some("name,state,note"));
    assert!(text.contains("n1,SYNC,\"a,\"\"b\"\"\"\r\n"), "{text}");
}

#[test]
fn nothing_can_reorder_or_move_text() {
    assert_eq!(
        printable("a\nb\tc\u{9b}d\u{202e}e ü"),
        "a\\nb\\tc\\u{9b}d\\u{202e}e ü"
    );
}
