"""What one variable and one session may take, and what is said about what did not fit."""

from __future__ import annotations

import pytest

from kernelrepl.model import ExecutionResult, Limits
from tests.conftest import Sessions

pytestmark = pytest.mark.anyio


SMALL = Limits(variable_bytes=100_000, session_bytes=None)
TIGHT = Limits(variable_bytes=None, session_bytes=100_000)
CAP_BYTES = 20_000
"""What a session has besides variables: random state, environment and their framing stay below this."""


def not_saved(execution: ExecutionResult) -> dict[str, str]:
    """Why each name is not saved."""
    return {entry.name: entry.reason for entry in execution.not_saved}


async def failure(sessions: Sessions, code: str) -> str:
    """The message of the NameError that code raises. Fails the test if it raises none."""
    execution = await sessions.run(code)
    assert execution.output.error is not None
    assert execution.output.error.name == "NameError"
    return execution.output.error.message


# One variable


async def test_a_variable_that_is_too_large_costs_only_itself(sessions: Sessions) -> None:
    """It lives on in the kernel and says why it is not saved; the rest of the cell is."""
    execution = await sessions.run("a = 1\nbig = ['x' * 60_000, 'y' * 60_000]\nb = [a]", limits=SMALL)
    assert execution.status == "ok"
    assert execution.committed
    assert execution.saved.created == ("a", "b")
    [entry] = execution.not_saved
    assert (entry.name, entry.type, entry.path) == ("big", "list", "big")
    assert "larger than the limit of 0.1 MB for one variable" in entry.reason
    assert "raise max_variable_bytes" in entry.reason
    assert await sessions.value("len(big)") == "2"
    await sessions.kill()
    assert await sessions.value("a, b") == "(1, [1])"


@pytest.mark.parametrize(
    "expression",
    [
        "'x' * 200_000",
        "b'x' * 200_000",
        "list(range(100_000))",
        "{number: str(number) for number in range(20_000)}",
        "__import__('numpy').zeros(20_000)",
        "__import__('pandas').DataFrame({'a': range(20_000)})",
        "(lambda data: lambda: data)('x' * 200_000)",
        "type('Heavy', (), {'data': 'x' * 200_000})",
        "type('Heavy', (), {'data': 'x' * 200_000})()",
        "10 ** 300_000",
    ],
)
async def test_everything_can_be_too_large(sessions: Sessions, expression: str) -> None:
    """Texts, numbers, containers, arrays, frames, closures, classes and what is made of them."""
    execution = await sessions.run(f"big = {expression}; small = 1", limits=SMALL)
    assert set(not_saved(execution)) == {"big"}
    assert "small" in execution.saved.created
    await sessions.kill()
    assert "was not saved" in await failure(sessions, "big")
    assert await sessions.value("small") == "1"


async def test_a_lost_name_tells_its_story_when_it_is_used(sessions: Sessions) -> None:
    """What it was, when and by which code it was made, and why it was not saved."""
    await sessions.run("n = 1", limits=SMALL)
    made = await sessions.run("n = 2\nbig = 'x' * n * 100_000\nn = 3")
    [(updated_at,)] = await sessions.rows("SELECT updated_at FROM names WHERE name = 'big' AND to_commit IS NULL")
    await sessions.kill()
    message = await failure(sessions, "len(big)")
    assert "name 'big' was not saved: it was a str" in message
    assert updated_at in message
    assert f"by execution {made.execution_count} (`big = 'x' * n * 100_000`)" in message
    assert "larger than the limit" in message
    assert await failure(sessions, "del big") == message
    assert await failure(sessions, "def use(): return big\nuse()") == message


async def test_a_lost_name_never_comes_back_with_an_older_value(sessions: Sessions) -> None:
    """A wrong value would be worse than none, however often the kernel starts."""
    await sessions.run("x = 'old'; y = 1", limits=SMALL)
    execution = await sessions.run("x = 'new' * 100_000")
    assert set(not_saved(execution)) == {"x"}
    for _ in range(2):
        await sessions.kill()
        assert "name 'x' was not saved: it was a str" in await failure(sessions, "x")
        assert await sessions.value("y") == "1"
    assert await sessions.rows("SELECT 1 FROM names WHERE name = 'x' AND root IS NOT NULL AND to_commit IS NULL") == []


async def test_an_object_that_grew_in_place_never_comes_back_shorter(sessions: Sessions) -> None:
    """The same for a name that was never assigned anew."""
    await sessions.run("items = [1]", limits=SMALL)
    execution = await sessions.run("items.extend(range(100_000))")
    assert set(not_saved(execution)) == {"items"}
    await sessions.kill()
    assert "was not saved" in await failure(sessions, "items")


async def test_a_variable_that_shrinks_is_saved_again(sessions: Sessions) -> None:
    """In place, or by another value; then there is nothing more to tell."""
    await sessions.run("items = list(range(100_000)); text = 'x' * 200_000", limits=SMALL)
    execution = await sessions.run("del items[3:]; text = 'x'")
    assert execution.not_saved == ()
    assert set(execution.saved.created + execution.saved.changed) == {"items", "text"}
    await sessions.kill()
    assert await sessions.value("items, text") == "([0, 1, 2], 'x')"


async def test_a_lost_name_that_is_made_again_is_saved(sessions: Sessions) -> None:
    """After a restart too; its story is forgotten."""
    await sessions.run("big = 'x' * 200_000", limits=SMALL)
    await sessions.kill()
    execution = await sessions.run("big = 'small'")
    assert execution.not_saved == ()
    await sessions.kill()
    assert await sessions.value("big") == "'small'"
    await sessions.run("del big")
    assert await failure(sessions, "big") == "name 'big' is not defined"
    await sessions.kill()
    assert await failure(sessions, "big") == "name 'big' is not defined"


async def test_what_is_not_saved_is_said_once(sessions: Sessions) -> None:
    """A later cell that leaves it alone has nothing to say about it; the list of variables has."""
    await sessions.run("big = 'x' * 200_000", limits=SMALL)
    execution = await sessions.run("y = 1")
    assert execution.not_saved == ()
    [big, y] = await sessions.manager.list_variables("s")
    assert (big.name, big.saved, big.type) == ("big", False, "str")
    assert big.reason is not None
    assert "larger than the limit" in big.reason
    assert (y.name, y.saved, y.reason) == ("y", True, None)


async def test_what_uses_a_class_that_is_too_large_is_not_saved_either(sessions: Sessions) -> None:
    """Without its class an instance could not come back; it says so, and nothing else is lost."""
    execution = await sessions.run("class Heavy: data = 'x' * 200_000\nh = Heavy(); other = [1]", limits=SMALL)
    assert set(not_saved(execution)) == {"Heavy", "h"}
    await sessions.kill()
    assert await sessions.value("other") == "[1]"
    assert "was not saved: it was a Heavy" in await failure(sessions, "h")


async def test_views_of_an_array_that_is_too_large_cost_only_themselves(sessions: Sessions) -> None:
    """Small views that share its memory can be kept only with all of it."""
    execution = await sessions.run(
        "import numpy as np\nbig = np.zeros(50_000); first = big[:5]; second = big[3:9]; other = 1", limits=SMALL
    )
    assert execution.committed
    assert "big" in not_saved(execution)
    assert "other" in execution.saved.created
    await sessions.kill()
    assert await sessions.value("other") == "1"
    kept = set(execution.saved.created) & {"first", "second"}
    assert kept | (not_saved(execution).keys() & {"first", "second"}) == {"first", "second"}
    for name in kept:
        assert await sessions.value(f"{name}.sum()") == "np.float64(0.0)"


async def test_aliases_share_one_limit(sessions: Sessions) -> None:
    """Two lists that hold the same large text are two variables, each within its limit, and stay so."""
    execution = await sessions.run("shared = ['x' * 70_000]; left = [shared]; right = [shared]", limits=SMALL)
    assert execution.not_saved == ()
    await sessions.kill()
    assert await sessions.value("left[0] is right[0] is shared, len(shared[0])") == "(True, 70000)"


async def test_without_limits_everything_fits(sessions: Sessions) -> None:
    """None lifts a limit, here and in the store; pieces over one frame arrive in order."""
    execution = await sessions.run(
        "import numpy as np\nbig = np.arange(3_000_000.0); text = 'xyz' * 4_000_000", limits=Limits(None, None)
    )
    assert execution.not_saved == ()
    await sessions.kill()
    assert await sessions.value("big.sum() == 2_999_999 * 1_500_000, text == 'xyz' * 4_000_000") == "(np.True_, True)"


# One session


async def test_of_a_session_that_is_full_the_fewest_names_are_dropped(sessions: Sessions) -> None:
    """The largest new one goes, not all that are new."""
    execution = await sessions.run("a = 'a' * 25_000; b = 'b' * 55_000; c = 'c' * 30_000", limits=TIGHT)
    assert execution.committed
    assert set(not_saved(execution)) == {"b"}
    assert "the session would be larger than its limit of 0.1 MB; delete variables" in not_saved(execution)["b"]
    await sessions.kill()
    assert await sessions.value("len(a), len(c)") == "(25000, 30000)"
    assert "was not saved: it was a str" in await failure(sessions, "b")


async def test_what_was_saved_before_is_not_dropped_for_something_new(sessions: Sessions) -> None:
    """However small the newcomer is beside it."""
    await sessions.run("old = 'o' * 75_000", limits=TIGHT)
    execution = await sessions.run("new = 'n' * 30_000; tiny = 1")
    assert set(not_saved(execution)) == {"new"}
    await sessions.kill()
    assert await sessions.value("len(old), tiny") == "(75000, 1)"


async def test_a_name_that_another_name_keeps_alive_is_not_dropped_in_vain(sessions: Sessions) -> None:
    """Of two names of one list, dropping one frees nothing."""
    execution = await sessions.run("a = b = ['x' * 55_000]; c = 'c' * 50_000", limits=TIGHT)
    assert set(not_saved(execution)) == {"c"}
    await sessions.kill()
    assert await sessions.value("a is b, len(a[0])") == "(True, 55000)"


async def test_a_new_name_for_an_old_value_costs_nothing(sessions: Sessions) -> None:
    """It is not what made the session too large."""
    await sessions.run("old = ['o' * 75_000]", limits=TIGHT)
    execution = await sessions.run("alias = old; new = 'n' * 30_000")
    assert set(not_saved(execution)) == {"new"}
    await sessions.kill()
    assert await sessions.value("alias is old, len(old[0])") == "(True, 75000)"


async def test_a_class_that_grew_behind_the_back_of_its_names_costs_its_instances_only(sessions: Sessions) -> None:
    """Nothing names the class any more, so what needs it is dropped; the commit is not refused for it."""
    await sessions.run("class P: pass\np = P(); del P; other = [1]", limits=TIGHT)
    execution = await sessions.run("type(p).data = 'x' * 150_000; new = 2")
    assert execution.committed
    assert set(not_saved(execution)) == {"p"}
    await sessions.kill()
    assert await sessions.value("other, new") == "([1], 2)"
    assert "was not saved: it was a P" in await failure(sessions, "p")


async def test_a_value_that_grew_over_the_limit_never_comes_back_as_it_was(sessions: Sessions) -> None:
    """Dropped is dropped: what is in the store is not what the session had."""
    await sessions.run("a = ['x' * 40_000]; b = ['y' * 40_000]", limits=TIGHT)
    execution = await sessions.run("a.append('z' * 50_000)")
    assert set(not_saved(execution)) == {"a"}
    await sessions.kill()
    assert await sessions.value("len(b)") == "1"
    assert "was not saved: it was a list" in await failure(sessions, "a")


async def test_deleting_makes_room_for_what_was_dropped(sessions: Sessions) -> None:
    """It is saved with the next execution, by itself."""
    await sessions.run("a = 'a' * 60_000; b = 'b' * 50_000", limits=TIGHT)
    execution = await sessions.run("del b")
    assert execution.not_saved == ()
    assert "a" in execution.saved.created + execution.saved.changed
    assert execution.saved.deleted == ("b",)
    await sessions.kill()
    assert await sessions.value("len(a), 'b' in globals()") == "(60000, False)"


async def test_the_size_of_a_session_is_what_it_stores(sessions: Sessions) -> None:
    """Not what it has in its kernel."""
    await sessions.run("a = 'a' * 60_000; b = 'b' * 50_000", limits=TIGHT)
    [view] = await sessions.manager.list_sessions()
    assert 50_000 < view.info.size_bytes < 50_000 + CAP_BYTES
    await sessions.run("del a, b")
    [view] = await sessions.manager.list_sessions()
    assert view.info.size_bytes < CAP_BYTES


async def test_a_session_keeps_the_limits_it_was_made_with(sessions: Sessions) -> None:
    """Another client's settings do not change them."""
    await sessions.run("x = 1", limits=SMALL)
    execution = await sessions.run("big = 'x' * 200_000", limits=Limits(None, None))
    assert set(not_saved(execution)) == {"big"}


# Names of builtins


@pytest.mark.parametrize("name", ["input", "list", "open"])
async def test_a_lost_name_that_hides_a_builtin_is_not_that_builtin(sessions: Sessions, name: str) -> None:
    """Code that means a socket must not silently get Python's own function of that name."""
    execution = await sessions.run(f"import socket\n{name} = socket.socket(socket.AF_UNIX)")
    assert set(not_saved(execution)) == {name}
    assert await sessions.value(f"type({name}).__name__") == "'socket'"
    await sessions.kill()
    message = await failure(sessions, f"done = {name}")
    assert f"name {name!r} was not saved: it was a socket" in message
    assert "a network connection cannot be saved" in message
    assert await failure(sessions, f"def use(): return {name}\nuse()") == message
    assert await sessions.value("'done' in globals()") == "False"


async def test_a_lost_name_that_hides_a_builtin_can_be_made_again(sessions: Sessions) -> None:
    """The remedy is to assign it, and an attribute of the same name is no use of it."""
    await sessions.run("import socket\nlist = socket.socket(socket.AF_UNIX)\nclass Box: list = 7")
    await sessions.kill()
    assert await sessions.value("Box.list") == "7"
    execution = await sessions.run("list = [1, 2]")
    assert execution.status == "ok", execution.output.error
    assert await sessions.value("list") == "[1, 2]"
    await sessions.kill()
    assert await sessions.value("list") == "[1, 2]"
    await sessions.run("del list")
    assert await sessions.value("list('ab')") == "['a', 'b']"
    await sessions.kill()
    assert await sessions.value("list('ab')") == "['a', 'b']"
