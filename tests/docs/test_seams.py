"""docs/versions.md and doctor show the table of seams as it is."""

from pathlib import Path

from megatron_nca.frameworks.seams import SEAMS

PAGE = Path(__file__).parents[2] / "docs/versions.md"


def test_the_page_has_every_row_and_no_other():
    table = PAGE.read_text(encoding="utf-8").partition("## What is replaced")[2]
    rows = [line for line in table.splitlines() if line.startswith("| ") and not line.startswith("| stack")]
    assert rows == [f"| {seam.stack} | {seam.versions} | `{seam.module}` | `{seam.symbol}` | {seam.why} |" for seam in SEAMS]


def test_doctor_prints_every_row(capsys):
    from megatron_nca.cli.main import main

    main(["doctor"])
    printed = capsys.readouterr().out
    assert all(f"{seam.module}.{seam.symbol}: {seam.why}" in printed for seam in SEAMS)
