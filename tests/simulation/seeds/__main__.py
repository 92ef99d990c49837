"""`make simulate SEEDS=n [FROM=k] [JOBS=j]`: whole lives of a suite, drawn from seeds; each must keep the promises.

Ends with 1 if a promise was broken in any of them, or if a kind of fault never struck in many.
"""

import argparse
import os
import sys

from tests.simulation.seeds.report import Report, prepare, simulate, summary_of

SECONDS_BETWEEN_LINES = 10.0


def main() -> int:
    """Live the lives that are asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.seeds", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many (default: 200)")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first of them (default: 0)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one for each core)")
    arguments = parser.parse_args()
    if arguments.seeds < 1 or arguments.jobs < 1:
        parser.error("at least one seed and one job are needed")
    said_at, told = 0.0, 0

    def on_progress(report: Report, seconds: float) -> None:
        nonlocal said_at, told
        for story in report.stories[told:]:
            print(story, end="\n\n", flush=True)
        told = len(report.stories)
        if seconds - said_at >= SECONDS_BETWEEN_LINES and report.seeds < arguments.seeds:
            said_at = seconds
            per_s = report.seeds / seconds
            failed = f"violations in {report.failed[:10]}" if report.failed else "no violation"
            print(f"{report.seeds} of {arguments.seeds} seeds, {per_s:.1f} per second, {failed}", file=sys.stderr)

    prepare()
    report, seconds = simulate(arguments.first, arguments.seeds, arguments.jobs, on_progress)
    print(summary_of(report, seconds))
    return 1 if report.failed or report.missing() else 0


if __name__ == "__main__":
    sys.exit(main())
