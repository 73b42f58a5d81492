"""A Python process that prepares texts, started from this module, so that it does not run the user's program again.

multiprocessing imports a program's main module in every worker: without ``if __name__ == "__main__":`` the program
would start again there. joblib's loky does not, but works only if it is on Python's default path.
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
    """Another process that calls ``setup(*arguments)`` once, and then the function that it returned for each request.

    It ends with this process, however that ends, because the pipe is closed then. Ctrl-C does not reach it.
    """

    def __init__(self, setup: Callable[..., Callable[[Any], Any]], *arguments: Any):
        self._pipe, child_pipe = Pipe()
        with child_pipe:
            # -P: no file in the current directory may replace a module of Python's.
            command = [sys.executable, "-P", "-c", _PROGRAM, str(child_pipe.fileno())]
            null = subprocess.DEVNULL
            self.process = subprocess.Popen(
                command, stdin=null, stdout=null, pass_fds=[child_pipe.fileno()], start_new_session=True
            )
        self._send(sys.path)
        self._send((setup, arguments))

    def wait(self) -> None:
        """Wait for ``setup``, which takes some seconds; raises its error, or that of :meth:`__call__`."""
        self._receive()

    def __call__(self, argument: Any) -> Any:
        """Return the function's result for ``argument``, or raise its error.

        Raises
        ------
        DiffRetrieverError
            When the process has died.
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
        """Kill the process; a thread that waits for a result gets the error that it died."""
        self.process.kill()
        self.process.wait()


def serve(pipe: Connection) -> None:
    """Answer the requests of a :class:`Worker`, in its process."""
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
            response: tuple[Exception | None, Any]
            try:
                response = None, function(argument)
            except Exception as error:
                response = _portable(error), None
            pipe.send(response)
    except (EOFError, OSError):  # the other process has closed the pipe
        pass


def _portable(error: Exception) -> Exception:
    """Return ``error`` in a form that can be pickled, with its traceback unless it is a DiffRetrieverError."""
    if not isinstance(error, DiffRetrieverError):
        error.add_note("In a worker process:\n" + traceback.format_exc())
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
