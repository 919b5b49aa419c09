"""Long lists and dicts: stored in segments, restored as they were, aliases included."""

from __future__ import annotations

import pytest

from kernelrepl.model import Limits
from tests.conftest import Sessions

pytestmark = pytest.mark.anyio


RECORDS = "records = [{'a': i, 'tags': [i]} for i in range(10_000)]"
FLAT = "flat = [{'a': 1} for n in range(5000)]"


async def stored_chunks(sessions: Sessions) -> set[bytes]:
    """Digests of all chunks."""
    return {digest for (digest,) in await sessions.rows("SELECT digest FROM chunks")}


async def test_one_changed_record_stores_one_segment(sessions: Sessions) -> None:
    """And both versions are right."""
    await sessions.run(RECORDS)
    before = await stored_chunks(sessions)
    execution = await sessions.run("records[5]['a'] = -1")
    assert execution.saved.changed == ("records",)
    assert len(await stored_chunks(sessions) - before) <= 2
    await sessions.run("records.append({'a': 0, 'tags': []})")
    assert len(await stored_chunks(sessions) - before) <= 5
    await sessions.kill()
    assert await sessions.value("records[5]['a'], records[6]['a'], len(records)") == "(-1, 6, 10001)"


@pytest.mark.parametrize(
    ("before", "code", "expression", "expected"),
    [
        (RECORDS, "r = records[5]", "r is records[5]", "True"),
        (RECORDS, "for r in records: pass", "r is records[-1]", "True"),
        (RECORDS + "\nr = records[5]", "r['a'] = -1", "(r is records[5], records[5]['a'])", "(True, -1)"),
        (RECORDS + "\nr = records[5]", "del r; records[5]['a'] = -1", "records[5]['a']", "-1"),
        (RECORDS, "records[5] = records[9000]", "records[5] is records[9000]", "True"),
        (RECORDS, "records[5] = dict(records[5]); r = records[5]", "r is records[5]", "True"),
        (RECORDS, "records[5]['tags'] = list(records[5]['tags']); t = records[5]['tags']", "t is records[5]['tags']",
         "True"),
        (FLAT, "flat[5] = dict(flat[5]); r = flat[5]", "r is flat[5]", "True"),
        (FLAT, "flat[5] = flat[9]", "flat[5] is flat[9], flat[5] is flat[6]", "(True, False)"),
        (FLAT, "flat[5] = flat[4001]", "flat[5] is flat[4001]", "True"),
        ("deep = [{'a': [1]} for n in range(5000)]", "deep[5] = deep[4001]", "deep[5] is deep[4001]", "True"),
        (FLAT, "flat.append(flat[7])", "flat[-1] is flat[7]", "True"),
        (FLAT + "\nr = {'a': 2}", "flat.append(r); s = flat[6]", "r is flat[-1], s is flat[6]", "(True, True)"),
        (FLAT + "\nr = flat[8]", "flat.insert(0, {}); flat.append(r)", "r is flat[-1], r is flat[9]", "(True, True)"),
        (FLAT + "\nr = flat[8]", "flat[8] = {'a': 1}; t = flat[8]", "r is flat[8], t is flat[8]", "(False, True)"),
        (FLAT + "\nlast = []", "flat[8]['a'] = last; flat[9]['a'] = last", "flat[8]['a'] is last, flat[9]['a'] is last",
         "(True, True)"),
        ("d = {n: {'a': 1} for n in range(5000)}", "d[3] = dict(d[3]); x = d[3]; d[4] = d[4999]",
         "x is d[3], d[4] is d[4999], d[4] is d[5]", "(True, True, False)"),
        (RECORDS, "records.append(records)", "records[-1] is records", "True"),
        (RECORDS, "records.reverse()", "[r['a'] for r in records] == list(range(9999, -1, -1))", "True"),
        (RECORDS, "del records[::2]", "len(records), records[0]['a']", "(5000, 1)"),
        (RECORDS, "records.clear()", "records", "[]"),
        (RECORDS + "\nother = list(records)", "other[3]['a'] = -1", "(other[3] is records[3], records[3]['a'])",
         "(True, -1)"),
        ("d = {i: [i] for i in range(10_000)}", "d[77].append(1); d['new'] = d[78]", "(d[77], d['new'] is d[78])",
         "([77, 1], True)"),
        ("d = {i: [i] for i in range(10_000)}", "del d[0]; d[0] = []", "list(d)[-1], list(d)[0]", "(0, 1)"),
        ("import numpy as np\nx = np.zeros(100_000); a = [x[i:] for i in range(5000)]", "x[4999] = 7",
         "(a[0][4999], a[4999][0], np.shares_memory(a[0], x))", "(np.float64(7.0), np.float64(7.0), True)"),
        ("import numpy as np\na = [np.full(9000, i) for i in range(4000)]", "a[3][5] = -1", "(a[3][5], a[3999][0])",
         "(np.int64(-1), np.int64(3999))"),
        ("class P: pass\na = [P() for _ in range(5000)]", "a[7].x = a[8]", "a[7].x is a[8]", "True"),
        ("g = [globals()] * 5000", "y = 5", "g[4999]['y'], g[0] is globals()", "(5, True)"),
    ],
)  # fmt: skip
async def test_what_is_in_segments_comes_back_as_it_was(
    sessions: Sessions, before: str, code: str, expression: str, expected: str
) -> None:
    """Sharing between segments and with other names as well."""
    for cell in (before, "len('read')", code):
        execution = await sessions.run(cell, limits=Limits(None, None))
        assert execution.status == "ok", execution.output.error
        assert execution.not_saved == ()
    await sessions.kill()
    assert await sessions.value(expression) == expected
    assert sessions.metrics.value("missed_changes_total") == 0


@pytest.mark.parametrize(
    ("make", "put"),
    [
        ("np.array([*texts, None, 5], dtype=object)", "value[20_000] = '7'"),
        ("np.array([*texts, None, 5], dtype=object).reshape(2, -1).T", "value[20_000, 1] = '7'"),
        ("pd.Series([*texts, None, 5], dtype=object)", "value.iloc[20_000] = None"),
        ("pd.Series([*texts, None], dtype=pd.StringDtype('python'))", "value.iloc[20_000] = '7'"),
        ("pd.Series([*texts, np.nan], dtype=pd.StringDtype('python', na_value=np.nan))", "value.iloc[20_000] = '7'"),
        ("pd.DataFrame({'n': range(50_000), 't': pd.Series(texts, dtype=object)})", "value.loc[20_000, 't'] = '7'"),
        ("pd.Series(range(50_000), index=pd.Index(texts, dtype=object))", "value.iloc[20_000] = 7"),
        ("np.array([*texts, 2 ** 70], dtype=object)", "value[20_000] = ['7']"),
    ],
)
async def test_columns_of_python_texts_are_stored_in_segments(sessions: Sessions, make: str, put: str) -> None:
    """A text that is replaced writes one of them, unless it is replaced by something that may change."""
    before = "import numpy as np, pandas as pd\ntexts = [f'text {n:06}' for n in range(50_000)]\n"
    await sessions.run(
        before + f"value = {make}\nequal = getattr(pd.testing, f'assert_{{type(value).__name__.lower()}}_equal',"
        " np.testing.assert_array_equal)"
    )
    [[chunks]] = await sessions.rows("SELECT COUNT(*) FROM chunks")
    for code, changed in (("len(value)", ()), (put, ("value",)), ("value[5:9]", ())):
        execution = await sessions.run(code)
        assert execution.status == "ok", execution.output.error
        assert execution.saved.changed == changed
    [[more]] = await sessions.rows("SELECT COUNT(*) FROM chunks")
    assert more - chunks <= (9 if put.endswith("['7']") else 3)
    await sessions.kill()
    execution = await sessions.run(f"stored = value; value = {make}\n{put}\nequal(stored, value)")
    assert execution.status == "ok", execution.output.error


@pytest.mark.parametrize("make", ["pd.DataFrame({'n': range(50_000), 'text': texts})", "pa.table({'text': texts})"])
async def test_texts_in_memory_of_pyarrow_are_stored_in_chunks(sessions: Sessions, make: str) -> None:
    """Only those that differ are written again, and a restore has the same texts."""
    pytest.importorskip("pyarrow")
    before = "import pandas as pd, pyarrow as pa; texts = [f'text {n:06}' for n in range(50_000)]\n"
    await sessions.run(before + f"value = {make}")
    [[chunks]] = await sessions.rows("SELECT COUNT(*) FROM chunks")
    execution = await sessions.run("seen = value['text'][7]")
    assert not execution.saved.changed
    await sessions.run("other = " + make.replace("'text': texts", "'text': [*texts[:40_000], *texts[30_000:40_000]]"))
    [[more]] = await sessions.rows("SELECT COUNT(*) FROM chunks")
    assert more - chunks <= 4
    await sessions.kill()
    expression = "[str(text) for text in value['text'].to_numpy()] == texts, str(value['text'][49_999])"
    assert await sessions.value(expression) == "(True, 'text 049999')"
    assert await sessions.value("len(other['text'].unique())") == "40000"
