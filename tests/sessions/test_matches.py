"""Matches of regular expressions come back, as they are found once more."""

from __future__ import annotations

import pytest

from tests.conftest import Sessions

pytestmark = pytest.mark.anyio


MADE = """
import re
text = 'key = value; other = 12'
pattern = re.compile(r'(?P<name>\\w+) = (?P<value>\\w+)|(never)')
found = {
    'match': pattern.match(text), 'search': re.search('o(.)h', text), 'full': re.fullmatch('a*?', 'aaa'),
    'empty': re.match('', text), 'from': re.compile('^|t').search(text, 3, 20), 'behind': re.search('(?<== )v', text),
    'bytes': re.search(rb'(\\d)', b'a1'), 'all': list(pattern.finditer(text)), 'lines': re.search('(?m)^b$', 'a\\nb'),
}
same = found['match']
def look(m):
    return m.group(), m.groups(), m.groupdict(), m.regs, m.endpos, m.lastindex, m.lastgroup, m.re, m.string
looks = {name: [look(m) for m in (ms if type(ms) is list else [ms])] for name, ms in found.items()}
"""


async def test_matches_come_back(sessions: Sessions) -> None:
    """Of each way to make one, with their groups, and as one object where they were one."""
    execution = await sessions.run(MADE)
    assert execution.status == "ok", execution.output.error
    assert not execution.not_saved
    await sessions.kill()
    again = "{name: [look(m) for m in (ms if type(ms) is list else [ms])] for name, ms in found.items()}"
    assert await sessions.value(f"{again} == looks, same is found['match']") == "(True, True)"
    assert await sessions.value("found['from'].pos, same.expand(r'\\2')") == "(3, 'value')"
