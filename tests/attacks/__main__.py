"""All attempts in all configurations, as a table. `python -m tests.attacks` (see --help)."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from kernelrepl.guest.isolation import landlock
from tests.attacks.as_user import FORKED
from tests.attacks.attempt import HARNESS, NO_KERNEL, THROUGH, Attempt, Outcome
from tests.attacks.catalogue import ATTEMPTS, BY_NAME
from tests.attacks.configurations import REDUCED, TIER_1, TIER_2, UNCONFINED, Configuration, mutated
from tests.attacks.crew import ROOT, USER, Worker, myself
from tests.attacks.mutations import MUTATIONS, Mutation, denied, verdict

T = TypeVar("T")


@dataclass
class Row:
    """One line of the table."""

    title: str
    whole: bool
    """Whether nothing is taken away: then everything must be as it is expected."""
    outcomes: list[Outcome] = field(default_factory=list)
    wrong: dict[str, str] = field(default_factory=dict)
    metadata: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)

    def add(self, attempt: Attempt, tier: int, outcome: Outcome) -> None:
        """Count one."""
        self.outcomes.append(outcome)
        why = outcome.wrong(attempt, tier)
        if why:
            self.wrong[attempt.name] = why
        if outcome.leaked:
            expected = not why and attempt.leaks_metadata
            (self.metadata if expected else self.leaks).append(attempt.name)

    def line(self) -> str:
        """For people."""
        nothing = sum(outcome.said.startswith(NO_KERNEL) for outcome in self.outcomes)
        refused = len(self.outcomes) - nothing - len(self.leaks) - len(self.metadata)
        return (
            f"{self.title:<38} {len(self.outcomes):>8} {refused:>8} {len(self.metadata):>9} {len(self.leaks):>7}"
            f" {nothing:>10}"
        )


def all_of(who: str, jobs: int, work: Iterable[T], act: Callable[[Worker, T], None]) -> None:
    """Do all of it with several workers at once."""
    lock = Lock()
    waiting: Iterator[T] = iter(work)

    def go() -> None:
        with Worker(who) as worker:
            while True:
                with lock:
                    found = next(waiting, None)
                if found is None:
                    return
                act(worker, found)

    with ThreadPoolExecutor(jobs) as pool:
        for running in [pool.submit(go) for _ in range(jobs)]:
            running.result()


def run(who: str, configuration: Configuration, attempts: Sequence[Attempt], jobs: int) -> Row:
    """One configuration."""
    row = Row(f"{configuration.name}, as {who}", configuration in (TIER_1, TIER_2))
    lock = Lock()

    def make(worker: Worker, attempt: Attempt) -> None:
        outcome = worker.ask(attempt.name, configuration)
        with lock:
            row.add(attempt, configuration.tier, outcome)

    all_of(who, jobs, [attempt for attempt in attempts if configuration.tier in attempt.tiers], make)
    return row


def matrix(wanted: str, attempts: Sequence[Attempt], jobs: int) -> list[Row]:
    """All configurations whose title has these words. As root only what takes nothing away."""
    plans = [(USER, TIER_1), *([(ROOT, TIER_1)] if myself() == ROOT else [])]
    if landlock.version() >= landlock.FULL_ABI:
        plans.append((USER, TIER_2))
    plans += [(USER, found) for found in REDUCED]
    rows = []
    print(f"{'':<38} {'attempts':>8} {'refused':>8} {'metadata':>9} {'leaked':>7} {'no kernel':>10}")
    for who, configuration in plans:
        if wanted in f"{configuration.name}, as {who}":
            row = run(who, configuration, attempts, jobs)
            rows.append(row)
            print(row.line(), flush=True)
            for name in sorted(row.wrong if row.whole else row.leaks):
                print(f"    {name}: {row.wrong.get(name, '')[:300]}", flush=True)
    return rows


def controls(jobs: int) -> list[str]:
    """Attempts that fail without a sandbox too."""
    failed: list[str] = []

    def make(worker: Worker, attempt: Attempt) -> None:
        outcome = worker.ask(attempt.name, UNCONFINED)
        if outcome.said != THROUGH:
            failed.append(f"{attempt.name}: {outcome.said}")

    all_of(USER, jobs, [found for found in ATTEMPTS if found.control], make)
    return sorted(failed)


def mutate(jobs: int, wanted: str) -> list[dict[str, Any]]:
    """Each mutation, and what became of its attempt."""
    found: list[dict[str, Any]] = []
    lock = Lock()

    def make(worker: Worker, mutation: Mutation) -> None:
        outcome = worker.ask(mutation.attempt, mutated(mutation.name, mutation.tier))
        red = verdict(mutation, outcome, BY_NAME[mutation.attempt])
        right = red == mutation.red and not outcome.said.startswith(HARNESS)
        with lock:
            found.append({**asdict(mutation), "became": red, "said": outcome.said, "right": right})
            print(
                f"{'   ' if right else '!!!'} {mutation.name:<34} tier {mutation.tier}  {mutation.attempt:<44} {red}"
                f"{'' if right else f', not {mutation.red}: {outcome.said[:200]}'}"
                f"{f' ({mutation.note})' if mutation.note else ''}",
                flush=True,
            )

    every = [found for found in (*MUTATIONS, *denied()) if wanted in found.name and found.attempt in BY_NAME]
    if landlock.version() < landlock.FULL_ABI:
        every = [found for found in every if found.tier == 1]
    all_of(USER, jobs, every, make)
    return found


def main() -> int:
    """Returns 1 if something is not as it should be."""
    parser = argparse.ArgumentParser(prog="python -m tests.attacks", description=__doc__)
    parser.add_argument("--configuration", default="", help="only those whose title has these words")
    parser.add_argument("--only", default="", help="only attempts whose name or group has these words")
    parser.add_argument("--mutations", action="store_true", help="forget one rule after the other instead")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--forked", action="store_true", help="in kernels that are forked from a zygote")
    parser.add_argument("--json", type=Path, help="write all outcomes to this file")
    options = parser.parse_args()
    if options.forked:
        os.environ[FORKED] = "1"
    began = time.monotonic()
    result: dict[str, Any] = {}
    if options.mutations:
        found = mutate(options.jobs, options.only)
        bad = sum(not one["right"] for one in found)
        print(f"{len(found)} mutations, {bad} not as expected")
        result["mutations"] = found
    else:
        attempts = [found for found in ATTEMPTS if options.only in found.name or options.only in found.group]
        rows = matrix(options.configuration, attempts, options.jobs)
        failed = controls(options.jobs) if not options.configuration else []
        print("\n".join(["", *(f"control: {line}" for line in failed)]).rstrip())
        bad = sum(len(row.wrong) for row in rows if row.whole) + len(failed)
        result["configurations"] = [asdict(row) for row in rows]
        result["controls"] = failed
    print(f"{time.monotonic() - began:.0f} s")
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
