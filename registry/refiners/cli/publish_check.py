"""`refiners publish-check`: what to mend before a plugin is uploaded."""

from __future__ import annotations

from pathlib import Path

import click

from refiners.cli.report import json_option, print_json, print_table


@click.command("publish-check")
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@click.option("--offline", is_flag=True, help="Leave out the checks that need the Hub.")
@json_option
def publish_check(path: Path, offline: bool, as_json: bool) -> None:
    """Check a plugin before its upload.

    PATH is the folder of a plugin or its wheel. Compares names and version with the catalog, pins
    and model cards with the Hub, and checks manifest, licences, README, content, requirements,
    conformance report and examples. Runs none of its code. Exits with 1 if a problem blocks the
    upload, and with 0 if there are only warnings.

    \b
    Examples:
      refiners publish-check .
      refiners publish-check dist/refiners_mine-1.0-py3-none-any.whl --json
    """
    from refiners.authoring.publish_check import check_package
    from refiners.hub.client import Hub

    checks = check_package(path, Hub.from_environment(offline or None))
    problems = sum(check.verdict == "problem" for check in checks)
    warnings = sum(check.verdict in ("warning", "not-run") for check in checks)
    if as_json:
        print_json({"path": str(path), "problems": problems, "warnings": warnings,
                    "checks": [check._asdict() for check in checks]})  # fmt: skip
    else:
        title = f"{path}: {problems} problems, {warnings} warnings"
        rows = [(check.check, check.verdict, check.what, check.fix) for check in checks]
        print_table(title, ("check", "verdict", "what", "type"), rows)
    if problems:
        click.get_current_context().exit(1)
