"""`python -m bench`: measure, and show the figures beside their aims."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from bench import profile, report
from bench.figures import figures
from bench.rounds import FULL, QUICK, measured

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"


@click.command(epilog="Example: python -m bench --quick")
@click.option("--quick", is_flag=True, help="One short round: for a first look, not for a claim.")
@click.option("--json", "as_json", is_flag=True, help="Everything that was measured, as JSON on standard output.")
@click.option("--write", is_flag=True, help="Write the table into docs/performance.md.")
@click.option("--profile", "profiles", is_flag=True, help="Instead, show where the gateway's time goes.")
def main(quick: bool, as_json: bool, write: bool, profiles: bool) -> None:
    """Measure the gateway beside the same load sent straight to its upstream."""
    if profiles:
        click.echo(profile.profiled())
        return
    results = measured(QUICK if quick else FULL, lambda line: click.echo(line, err=True))
    shown = figures(results)
    click.echo(json.dumps(report.as_json(results, shown), indent=2) if as_json else f"\n{report.table(shown)}")
    click.echo(report.doubts(results), err=True)
    if write:
        command = " ".join(["python -m bench", *sys.argv[1:]])
        report.write_into(PAGE, report.markdown(results, shown, command))


if __name__ == "__main__":
    main()
