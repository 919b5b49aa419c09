"""Jupyter's own judge of kernels, on a session: attached by the provisioner, and by the command of the kernelspec."""

from __future__ import annotations

import unittest
from pathlib import Path

import jupyter_kernel_test
import pytest
from jupyter_client import KernelManager
from jupyter_client.kernelspec import KernelSpecManager

from tests.support.jupyter_hosts import HOSTS, folder_of
from tests.support.mcp_hosts import DEADLINE_S, Place


class Suite(jupyter_kernel_test.KernelTests):  # type: ignore[misc]  # it has no types
    """What a kernel of IPython answers."""

    __test__ = False
    kernel_name = "kernelrepl"
    language_name = "python"
    file_extension = ".py"
    code_hello_world = "print('hello, world')"
    code_stderr = "import sys; print('test', file=sys.stderr)"
    completion_samples = [{"text": "zi", "matches": {"zip"}}]  # noqa: RUF012 - as the suite has it
    complete_code_samples = ["1", "print('hello, world')", "def f(x):\n  return x*2\n\n\n"]  # noqa: RUF012
    incomplete_code_samples = ["print('''hello", "def f(x):\n  x*2"]  # noqa: RUF012
    invalid_code_samples = ["import = 7q"]  # noqa: RUF012
    code_page_something = "zip?"
    code_generate_error = "raise"
    code_execute_result = [{"code": "1+2+3", "result": "6"}]  # noqa: RUF012
    code_display_data = [  # noqa: RUF012
        {"code": "from IPython.display import HTML, display; display(HTML('<b>test</b>'))", "mime": "text/html"}
    ]
    supported_history_operations = ("tail", "range", "search")
    code_history_pattern = "1?2*"
    code_inspect_sample = "zip"
    code_clear_output = "from IPython.display import clear_output; clear_output()"


@pytest.mark.parametrize("how", HOSTS)
def test_it_answers_all_that_plain_ipykernel_does(how: str, tmp_path: Path, environ: dict[str, str]) -> None:
    """Each test of the suite, confined; ipykernel skips its history in one of them at most."""
    specs = KernelSpecManager(kernel_dirs=[folder_of(how, tmp_path)], ensure_native_kernel=False)

    class Attached(Suite):
        @classmethod
        def setUpClass(cls) -> None:
            cls.km = KernelManager(kernel_name=cls.kernel_name, kernel_spec_manager=specs)
            cls.km.start_kernel(env=environ)
            cls.kc = cls.km.client()
            cls.kc.start_channels()
            cls.kc.wait_for_ready(timeout=DEADLINE_S)

        def test_it_is_confined(self) -> None:
            reply, _ = self.execute_helper("import socket; socket.create_connection(('127.0.0.1', 9))")
            assert reply["content"]["ename"] == "PermissionError"

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(Attached).run(result)
    assert "\n".join(text for _, text in (*result.failures, *result.errors)) == ""
    assert (result.testsRun, [reason for _, reason in result.skipped]) == (13, [])
    assert Place(environ).rows("SELECT session_id FROM sessions") == []  # a host without a notebook leaves nothing
