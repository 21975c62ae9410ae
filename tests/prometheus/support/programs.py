"""Programs that install a store: what is installed stays so for the life of a process."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import textwrap

BEFORE = """
import os, signal, sys
import prometheus_client as p
import celeriac, celeriac.prometheus
store = celeriac.connect(URL)
def child(work):
    'Runs it in a forked process, which is dead when this returns.'
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0 if sys.exc_info()[0] is None else 1)
    assert os.waitpid(pid, 0)[1] == 0
def living(work):
    'Runs it in a forked process, which stays until the function that is returned is called.'
    ready, said = os.pipe()
    pid = os.fork()
    if pid == 0:
        work()
        os.write(said, b'.')
        while True:
            signal.pause()
    assert os.read(ready, 1) == b'.'
    os.close(ready), os.close(said)
    def end():
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    end.pid = pid
    return end
def value(name, **labels):
    return p.REGISTRY.get_sample_value(name, labels)
def raises(kind, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except kind as error:
        return str(error)
    raise AssertionError(f'{kind.__name__} was expected')
"""


def run(program: str, **environment: str) -> str:
    """Runs it in a process, with BEFORE before it and a store of its own; what it printed."""
    url = f"shm://t-{secrets.token_hex(6)}"
    code = f"URL = {url!r}\n{BEFORE}try:\n{textwrap.indent(textwrap.dedent(program), '    ')}\n"
    code += "finally:\n    store.destroy(force=True)\n"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr
