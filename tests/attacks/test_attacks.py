"""Every attempt on the sandbox fails, for everybody; and the attempts would notice if it did not.

All of tier 1 as an ordinary user, to whom the host's files belong, and a sample of what else there is.
`python -m tests.attacks` does all of it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

import pytest

from kernelrepl.guest.isolation import landlock
from tests.attacks.attempt import HARNESS, THROUGH
from tests.attacks.catalogue import ATTEMPTS, BY_NAME, possible
from tests.attacks.configurations import CONFIGURATIONS, TIER_1, TIER_2, UNCONFINED, Configuration, mutated
from tests.attacks.crew import ROOT, USER, Worker, myself
from tests.attacks.mutations import MUTATIONS, Mutation, denied, verdict
from tests.conftest import this_tier

EVERY = 25
"""Of what differs little from all of tier 1, one in so many is tried, and what is named here."""
AS_ROOT = (
    "read /etc/shadow", "rights of its own", "become root", "change the owner of a file",
    "write to the Python library",
    "a signal", "priority of a process", "a bomb of processes", "map users anew", "restart the machine",
    "make a device", "read a file of another session", "write to the database", "memory of another session",
    "a link in what changes hands", "a daemon that outlives a kill", "escape being killed for memory",
    "settings of the system", "be killed while it starts", "code that begins with the next kernel",
    "code in a grant that Python looks into", "a grant of the installation", "a swap while a workspace changes hands",
    "a swap while a session is removed",
)  # fmt: skip
IN_TIER_2 = (
    "read a file", "stat a file", "change the mode of a file", "read extended attributes", "watch a directory",
    "the command lines of others", "sockets of the host", "a unix socket by path", "a datagram from a pair", "a signal",
    "a signal to everybody", "limits of a process", "trace a process", "read a file of another session",
    "memory of another session", "a program in the workspace", "write to /tmp of the host", "link a file in",
)  # fmt: skip
WITHOUT = {
    "tier 1, no Landlock": {"its own memory as a file": "leaks", "read a file": "holds", "TCP": "holds"},
    "tier 1, no net namespace": {"an abstract unix socket": "holds", "TCP": "holds"},
    "tier 1, no ipc namespace": {"shared memory of System V": "holds"},
    "tier 1, no user namespace": {"read a file": "no kernel"},
    "tier 1, no mount namespace": {"read a file": "no kernel"},
}
"""What one layer less lets through, or does not because another one holds."""
FORGOTTEN = (
    "rule:clone", "rule:ioctl", "mounts:noexec+landlock", "hidden", "capabilities", "death", "attendant",
    "limit:nofile", "deny:userfaultfd", "deny:connect", "scopes",
)  # fmt: skip

ALL_OF_IT = bool(os.environ.get("CI"))
"""What a machine lacks is a reason to skip, except where everything is to be tested."""
needs_tier_1 = pytest.mark.skipif(this_tier().number != 1 and not ALL_OF_IT, reason="tier 1 is not possible here")
needs_tier_2 = pytest.mark.skipif(
    landlock.version() < landlock.FULL_ABI and not ALL_OF_IT, reason="tier 2 is not possible here"
)
needs_root = pytest.mark.skipif(myself() != ROOT, reason="only root can try it as root")


@pytest.fixture(scope="session")
def user() -> Iterator[Worker]:
    """Makes attempts as an ordinary user, in kernels that are forked."""
    with Worker(USER, forked=True) as worker:
        yield worker


@pytest.fixture(scope="session")
def root() -> Iterator[Worker]:
    """Makes attempts as root, in kernels that are interpreters of their own."""
    with Worker(ROOT) as worker:
        yield worker


def names(tier: int, *some: str) -> list[str]:
    """Those that are named, and of the others one in so many, always the same."""
    others = [found.name for found in possible(tier) if found.name not in some]
    assert set(some) <= {found.name for found in possible(tier)}
    return [*some, *others[::EVERY]]


def holds(worker: Worker, name: str, configuration: Configuration) -> None:
    """An attempt comes to exactly what it should."""
    outcome = worker.ask(name, configuration)
    wrong = outcome.wrong(BY_NAME[name], configuration.tier)
    assert not wrong, f"{name} ({configuration.name}, as {worker.who}): {wrong}"


@needs_tier_1
@pytest.mark.parametrize("name", [found.name for found in possible(1)])
def test_it_fails_in_tier_1(user: Worker, name: str) -> None:
    """Each in a session of its own, with the error it should have, and nothing has changed outside."""
    holds(user, name, TIER_1)


@needs_root
@needs_tier_1
@pytest.mark.parametrize("name", names(1, *AS_ROOT))
def test_it_fails_in_tier_1_as_root(root: Worker, name: str) -> None:
    """Where a mistake would cost the whole machine."""
    holds(root, name, TIER_1)


@needs_tier_2
@pytest.mark.parametrize("name", names(2, *IN_TIER_2))
def test_it_fails_in_tier_2(user: Worker, name: str) -> None:
    """On the host's own tree, with nothing but Landlock and the filter."""
    holds(user, name, TIER_2)


def test_tier_2_leaks_only_that_files_are_there() -> None:
    """What is known to get through there is a short list, and it says so."""
    known = [found for found in ATTEMPTS if THROUGH in found.expected(2).split("|")]
    assert {found.name for found in known} == {found.name for found in ATTEMPTS if found.leaks_metadata}
    assert not [found for found in ATTEMPTS if THROUGH in found.expected(1).split("|")]


def test_the_list_is_whole() -> None:
    """No group is lost by a change of the list."""
    found = Counter(attempt.group for attempt in ATTEMPTS)
    least = {
        "files": 37, "proc and sys": 13, "network": 19, "processes": 13, "namespaces": 10, "system": 20,
        "ways around the filter": 5, "execution": 7, "surroundings": 9, "another session": 16, "checkpoints": 10,
        "kernel protocol": 12, "confused deputy": 9, "lifecycle": 9, "beginnings": 3,
        "races": 6, "words": 25,
    }  # fmt: skip
    assert not {group: (found[group], number) for group, number in least.items() if found[group] < number}


@pytest.mark.parametrize("name", [found.name for found in ATTEMPTS if found.control])
def test_without_a_sandbox_it_works(user: Worker, name: str) -> None:
    """So that it is the sandbox that it fails at, and not a mistake in it. Only what does no harm."""
    assert user.ask(name, UNCONFINED).said == THROUGH


@needs_tier_1
@pytest.mark.parametrize(("layer", "name"), [(layer, name) for layer, found in WITHOUT.items() for name in found])
def test_one_layer_less(user: Worker, layer: str, name: str) -> None:
    """What it lets through is known; mostly another layer holds."""
    if "Landlock" in layer and not landlock.version():
        pytest.skip("there is no Landlock here")
    outcome = user.ask(name, CONFIGURATIONS[layer])
    became = "no kernel" if outcome.said.startswith("no kernel") else "leaks" if outcome.leaked else "holds"
    assert became == WITHOUT[layer][name], outcome


@needs_tier_1
@pytest.mark.parametrize(
    "mutation",
    [found for found in (*MUTATIONS, *denied()) if found.name in FORGOTTEN],
    ids=lambda found: f"{found.name}, tier {found.tier}",
)
def test_a_rule_that_is_forgotten_shows(user: Worker, mutation: Mutation) -> None:
    """The same attempts, less one rule: so they do test the rules."""
    if mutation.tier == 2 and landlock.version() < landlock.FULL_ABI:
        pytest.skip("tier 2 is not possible here")
    outcome = user.ask(mutation.attempt, mutated(mutation.name, mutation.tier))
    assert not outcome.said.startswith(HARNESS), outcome
    assert verdict(mutation, outcome, BY_NAME[mutation.attempt]) == mutation.red, outcome
