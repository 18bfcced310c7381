"""Compares contenders in turn and prints the ratios as Markdown: `python -m bench [GROUP...] [--rounds N] [--quick]`."""

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from statistics import median

from bench.cases import GROUPS, OURS, Case
from bench.generator import Generator, Measured
from tests.servers.process import temporary_folder

ROUNDS = 5
COLUMNS = ("work", "against", "ours ÷ theirs", "goal", "lowest and highest round", "answers/s", "p50 µs", "p99 µs", "CPU µs")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Compare extauth with others that do the same work.")
    parser.add_argument("group", nargs="*", help=f"what to measure: {', '.join(GROUPS)} (default: all)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="times that every contender runs (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="one short round, to see that everything works")
    choices = parser.parse_args()
    if unknown := set(choices.group) - GROUPS.keys():
        parser.error(f"no group {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}")
    rounds, scale = (1, 0.05) if choices.quick else (choices.rounds, 1.0)
    print(f"Python {platform.python_version()}, {os.cpu_count()} processors, {rounds} interleaved rounds, medians.\n")
    print(_row(COLUMNS), _row(["---"] * len(COLUMNS)), sep="\n", flush=True)
    for name in choices.group or GROUPS:
        with temporary_folder() as folder, ExitStack() as stack:
            cases = stack.enter_context(GROUPS[name](Generator(folder, scale), folder))
            for case, runs in zip(cases, _measure(cases, rounds), strict=True):
                print(*_rows(case, runs), sep="\n", flush=True)


def _measure(cases: Sequence[Case], rounds: int) -> list[dict[str, list[Measured]]]:
    """Run all contenders of all cases in turn: whatever else the machine does, it does to all of them."""
    runs: list[dict[str, list[Measured]]] = [{name: [] for name in case.contenders} for case in cases]
    for number in range(rounds):
        for case, results in zip(cases, runs, strict=True):
            for name in _turned(list(case.contenders), number):
                results[name].append(case.contenders[name]())
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    return runs


def _turned(names: list[str], number: int) -> list[str]:
    first = number % len(names)
    return names[first:] + names[:first]


def _rows(case: Case, runs: dict[str, list[Measured]]) -> list[str]:
    rows = [_row([case.name, "", "1", "", "", *_absolute(runs[OURS])])]
    for name, theirs in runs.items():
        if name != OURS:
            ratios = sorted(our.rate / their.rate for our, their in zip(runs[OURS], theirs, strict=True))
            goal = f"≥ {case.goals[name]:.2g}" if name in case.goals else ""
            spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
            rows.append(_row(["", name, f"**{median(ratios):.2f}**", goal, spread, *_absolute(theirs)]))
    return rows


def _absolute(runs: list[Measured]) -> list[str]:
    columns = ([run.rate for run in runs], [run.p50 for run in runs], [run.p99 for run in runs], [run.cpu for run in runs])
    known = [[value for value in column if value is not None] for column in columns]
    return [f"{median(values):.0f}" if values else "" for values in known]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
