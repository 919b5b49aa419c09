"""Makes attempts, one after the other, as it is told: lines of JSON in, lines of JSON out. The whoever-it-runs-as side.

Started by `crew`, as whoever it is to be.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import traceback
from dataclasses import asdict

from tests.attacks.arena import carry_out
from tests.attacks.attempt import HARNESS, Outcome
from tests.attacks.catalogue import BY_NAME
from tests.attacks.configurations import Configuration


def main() -> None:
    """Answer until the input ends."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        for line in sys.stdin:
            told = json.loads(line)
            told["configuration"]["without"] = tuple(told["configuration"]["without"])
            configuration = Configuration(**told["configuration"])
            attempt = BY_NAME[told["attempt"]]
            try:
                outcome = asyncio.run(carry_out(attempt, configuration))
            except Exception:  # noqa: BLE001 - the next attempt is another one
                outcome = Outcome(attempt.name, f"{HARNESS}: {traceback.format_exc()[-600:]}")
            answers.write(json.dumps(asdict(outcome)) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
