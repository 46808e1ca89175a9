"""A message on its way into a mailbox: its line ends, in any pieces."""

from pop3cli.sync.spool import LineEnds


def test_line_ends_in_any_pieces() -> None:
    text = b"a\r\n\r\r\nb\rc\n\r"
    for size in range(1, len(text) + 1):
        ends = LineEnds()
        pieces = [ends.feed(text[i : i + size]) for i in range(0, len(text), size)]
        assert b"".join([*pieces, ends.finish()]) == b"a\n\r\nb\rc\n\r"
