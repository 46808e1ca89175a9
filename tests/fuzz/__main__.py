"""`python -m tests.fuzz server|client [--seconds N]`: coverage-guided fuzzing of an engine, with atheris.

What it finds new joins `tests/fuzz/corpus/`, which the tests play again.
"""

import argparse
import sys
import tempfile
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"


def dictionary() -> str:
    """Words for the fuzzer to build lines of, from the table: each keyword, and each example as a whole line."""
    from pop3core.table import RULES  # not before atheris has instrumented it

    return "".join(f'"{rule.keyword} "\n"{rule.example}\\x0d\\x0a"\n' for rule in RULES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side", choices=("server", "client"))
    parser.add_argument("--seconds", type=int, default=600)
    options = parser.parse_args()
    try:
        import atheris
    except ImportError:
        sys.exit("atheris is missing: pip install atheris")
    with atheris.instrument_imports(include=["pop3core"]):
        from tests.fuzz import harness
        from tests.pop3core.play import transcripts
    folder = CORPUS / options.side
    folder.mkdir(parents=True, exist_ok=True)
    one_input = harness.server_input if options.side == "server" else harness.client_input
    with tempfile.TemporaryDirectory() as name:
        seeds = Path(name)
        words = seeds / "words"
        words.write_text(dictionary())
        (seeds / "dialogues").mkdir()
        for transcript in transcripts():
            for choice in range(9):
                said = b"".join(turn[options.side == "client"] for turn in transcript.turns)
                (seeds / "dialogues" / f"{transcript.name}-{choice}").write_bytes(bytes([choice, 200, 200]) + said)
        limits = [f"-max_total_time={options.seconds}", "-max_len=2048", "-timeout=10", f"-dict={words}"]
        atheris.Setup([sys.argv[0], *limits, str(folder), str(seeds / "dialogues")], one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
