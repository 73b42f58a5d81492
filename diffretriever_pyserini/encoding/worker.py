"""A Python process that prepares texts: started from this module, so the program that encodes does not run again in it.

multiprocessing and its like import a program's main module in every worker; one without ``if __name__ == "__main__":``
would start over there. joblib's loky does not, but finds itself only where Python's own path leads to it.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe
from typing import Any

from ..errors import DiffRetrieverError

_PROGRAM = """
import sys
from multiprocessing.connection import Connection
pipe = Connection(int(sys.argv[1]))
sys.path[:] = pipe.recv()
from diffretriever_pyserini.encoding.worker import serve
serve(pipe)
"""


class Worker:
    """Another process that holds what ``setup(*arguments)`` returns, a function, and calls it as often as asked.

    It ends with this process, however that ends: its end of the pipe tells it. Ctrl-C does not reach it.
    """

    def __init__(self, setup: Callable[..., Callable[[Any], Any]], *arguments: Any):
        self._pipe, theirs = Pipe()
        with theirs:
            # -P: no file beside the program is taken for a module of Python's own.
            command = [sys.executable, "-P", "-c", _PROGRAM, str(theirs.fileno())]
            nothing = subprocess.DEVNULL
            self.process = subprocess.Popen(
                command, stdin=nothing, stdout=nothing, pass_fds=[theirs.fileno()], start_new_session=True
            )
        self._send(sys.path)
        self._send((setup, arguments))

    def wait(self) -> None:
        """Wait until it is set up, which takes some seconds. Raises what :meth:`__call__` raises."""
        self._receive()

    def __call__(self, argument: Any) -> Any:
        """What the function returns for ``argument``; it raises here what it raised there.

        Raises
        ------
        DiffRetrieverError
            When the process died.
        """
        self._send(argument)
        return self._receive()

    def _send(self, value: Any) -> None:
        try:
            self._pipe.send(value)
        except OSError as error:
            raise self._died() from error

    def _receive(self) -> Any:
        try:
            error, result = self._pipe.recv()
        except (EOFError, OSError) as broken:
            raise self._died() from broken
        if error is not None:
            raise error
        return result

    def _died(self) -> DiffRetrieverError:
        code = self.process.wait()
        how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        return DiffRetrieverError(
            f"a worker process that prepares texts died ({how}; out of memory?); try fewer --workers, or --workers 0."
        )

    def end(self) -> None:
        """End the process; who waits for an answer hears that it died."""
        self.process.kill()
        self.process.wait()


def serve(pipe: Connection) -> None:
    """The other side of :class:`Worker`."""
    try:
        setup, arguments = pipe.recv()
        try:
            function = setup(*arguments)
        except Exception as error:
            pipe.send((_portable(error), None))
            return
        pipe.send((None, None))
        while True:
            argument = pipe.recv()
            answer: tuple[Exception | None, Any]
            try:
                answer = None, function(argument)
            except Exception as error:
                answer = _portable(error), None
            pipe.send(answer)
    except (EOFError, OSError):  # nobody asks any more
        pass


def _portable(error: Exception) -> Exception:
    """``error`` as it can go through a pipe, with its traceback where it is not one that a person is meant to read."""
    if not isinstance(error, DiffRetrieverError):
        error.add_note("In a worker process:\n" + traceback.format_exc())
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
