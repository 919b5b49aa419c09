"""What a session has set in its libraries comes back with it."""

from __future__ import annotations

import pytest

from tests.conftest import Sessions

pytestmark = pytest.mark.anyio


async def test_settings_of_matplotlib_and_pandas_come_back(sessions: Sessions) -> None:
    """Also when they were set by a style; what was put back to its default stays there."""
    await sessions.run("import matplotlib.pyplot as plt, pandas as pd")
    await sessions.run(
        "plt.style.use('ggplot'); plt.rcParams['figure.figsize'] = (3, 4); plt.rcParams['lines.linewidth'] = 9"
    )
    await sessions.run("pd.set_option('display.max_rows', 7); pd.options.display.precision = 3")
    await sessions.run("import matplotlib; matplotlib.rcParams['lines.linewidth'] = 1.5")
    await sessions.kill()
    assert (
        await sessions.value(
            "plt.rcParams['axes.grid'], plt.rcParams['figure.figsize'], plt.rcParams['lines.linewidth'],"
            " pd.get_option('display.max_rows'), pd.options.display.precision"
        )
        == "(True, [3.0, 4.0], 1.5, 7, 3)"
    )
    await sessions.run("pd.reset_option('display.max_rows'); plt.rcdefaults()")
    await sessions.kill()
    assert await sessions.value("pd.get_option('display.max_rows'), plt.rcParams['axes.grid']") == "(60, False)"
    execution = await sessions.run("plt.plot([1, 2])")
    assert execution.output.figures


async def test_extensions_of_ipython_are_loaded_again_or_told(sessions: Sessions) -> None:
    """One whose file is gone is named in the reply that restores the session."""
    await sessions.run("import sys; sys.path.insert(0, '.')")
    source = "def load_ipython_extension(shell): shell.register_magic_function(lambda line: line * 2, 'line', 'twice')"
    await sessions.run(f"open('twice.py', 'w').write({source!r})")
    await sessions.run("%load_ext twice")
    await sessions.kill()
    assert await sessions.value("get_ipython().run_line_magic('twice', 'ab')") == "'abab'"
    await sessions.run("import os; os.remove('twice.py'); import shutil; shutil.rmtree('__pycache__', True)")
    await sessions.kill()
    execution = await sessions.run("1 + 1")
    assert execution.restored is not None
    assert [entry.name for entry in execution.restored.not_restored] == ["the IPython extension twice"]
