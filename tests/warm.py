"""A quicker start of Python for tests that run many commands: libraries are imported once, every command is a fork.

Importing torch, transformers and their like takes most of the time of a short command. :func:`python` starts a server
that has imported them and done nothing else: no model, no JVM, no thread, nothing of Pyserini or of this package, so
that the start-up hook runs and all of theirs is imported in the command. The path it returns behaves as
``sys.executable`` does for ``-m module ...``, ``-c program ...`` and ``script ...``, after ``-u`` and ``-W x``; for
anything else, or in another environment than the tests' own, it is ``sys.executable``. What differs: commands of one
server share a hash seed, and end without taking their modules apart. ``PYTHON_EXEC`` in a command's environment, if it
is set to this path, is ``sys.executable`` there: what the command starts is warm, too, as with :func:`torchrun`.

``WARM=0`` in the environment gives every command a Python of its own.
"""

from __future__ import annotations

import atexit
import builtins
import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
from pathlib import Path
from types import ModuleType

LIBRARIES = ("torch.distributed.tensor", "torch._dynamo", "transformers.models.bert.modeling_bert", "datasets", "peft")
LIBRARIES += ("openai", "requests", "sklearn.preprocessing", "nltk.tokenize.destructive", "punkt")
# What may differ from the server's environment: none of LIBRARIES reads it while it is imported.
FREE = {"_", "PATH", "PWD", "OLDPWD", "SHLVL", "COLUMNS", "LINES", "PYTEST_CURRENT_TEST", "JAVA_HOME"}
FREE |= {"DIFFRETRIEVER_NO_PLUGIN", "DIFFRETRIEVER_TRACEBACK", "DIFFRETRIEVER_JAVA", "JVM_PATH"}
# Which Python a command starts (torchrun knows it, too), and what the processes of torchrun are.
FREE |= {"PYTHON_EXEC", "MASTER_ADDR", "MASTER_PORT", "TORCH_NCCL_ASYNC_ERROR_HANDLING", "ROLE_NAME"}
FREE |= {f"{of}{what}" for of in ("", "LOCAL_", "GROUP_", "ROLE_") for what in ("RANK", "WORLD_SIZE")}

ENVIRONMENT = dict(os.environ)  # of the server: that of a test, which it or a library may have changed, is soon another


@functools.cache
def python() -> str:
    """Path of a Python that starts warm; the ``diffretriever`` and the ``torchrun`` beside it do, too."""
    # Not with CUDA: a library that asked for it while it was imported would leave it broken in a forked child.
    if os.environ.get("WARM") == "0" or sys.platform != "linux" or Path("/dev/nvidiactl").exists():
        return sys.executable
    folder = Path(tempfile.mkdtemp(prefix="warm-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    client = shlex.join([sys.executable, "-IS", __file__, str(folder / "socket")])
    beside = {name: Path(sys.executable).with_name(name) for name in ("diffretriever", "torchrun")}
    for name, script in {"python": "", **beside}.items():
        start = f"PYTHON_EXEC={folder}/python exec" if name == "torchrun" else "exec"
        (folder / name).write_text(f'#!/bin/sh\n{start} {client} {script} "$@"\n')
        (folder / name).chmod(0o755)
    command = [sys.executable, __file__, "--serve", str(folder / "socket")]
    server = subprocess.Popen(command, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert server.stdout and server.stdout.readline() == b"ready\n"
    atexit.register(server.communicate)  # the end of its input ends it
    return str(folder / "python")


def torchrun(processes: int = 2) -> list[str]:
    """The start of a command that runs a program in several processes of this machine."""
    return [str(Path(python()).with_name("torchrun")), "--standalone", "--nproc-per-node", str(processes)]


def options(arguments: list[str]) -> int:
    """How many of the arguments of a Python are options that :func:`run` knows, before the program."""
    count = 0
    while arguments[count:] and arguments[count] in ("-u", "-W"):
        count += 1 + (arguments[count] == "-W")
    return count


def ask(address: str, arguments: list[str]) -> None:
    """Let the server run a command, and end as the command ends."""
    fresh = [sys.executable, *arguments]
    program = (arguments[options(arguments) :] or ["-"])[0]
    if program.startswith("-") and program not in ("-m", "-c"):
        os.execv(fresh[0], fresh)
    message = json.dumps([arguments, str(Path.cwd()), dict(os.environ)]).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        socket.send_fds(connection, [len(message).to_bytes(8)], [0, 1, 2])
        connection.sendall(message)
        status = connection.recv(16)
    if status == b"fresh":
        os.execv(fresh[0], fresh)
    code = int(status)
    if code < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no handler
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


def serve(address: str) -> None:
    """Fork a process for every client until standard input ends; returns in the one that is to run ``sys.argv``."""
    del sys.path[0]  # "packaging" is a folder of tests, too
    own = dict(os.environ)
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.freeze()  # a collection in a child would copy every page
    assert threading.active_count() == 1, "a forked child would lack the other threads"
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a process that answers
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        print("ready", flush=True)
        while listener in select.select([listener, sys.stdin], [], [])[0]:
            connection, _ = listener.accept()
            if fork() == 0:
                break
            connection.close()
        else:
            os._exit(0)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with connection:
        answer(connection, own)


def fork() -> int:
    """``os.fork()`` without its warning: the one thread is of a jemalloc, which starts it anew in a child."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def answer(connection: socket.socket, own: dict[str, str]) -> None:
    """Fork the command that a client asks for and report how it ends; returns in the command's process."""
    size, files, *_ = socket.recv_fds(connection, 8, 3)
    with connection.makefile("rb") as stream:
        arguments, folder, environment = json.loads(stream.read(int.from_bytes(size)))
    made = {name: value for name, value in os.environ.items() if name not in own}  # by the libraries
    differ = {name for name, _ in environment.items() ^ own.items() if not name.startswith("TORCHELASTIC_")}
    if differ - FREE - made.keys():
        connection.sendall(b"fresh")
        os._exit(0)
    child = fork()
    if child:
        ended = os.pidfd_open(child)
        if ended not in select.select([ended, connection], [], [])[0]:  # the client was killed
            os.kill(child, signal.SIGKILL)
            os._exit(0)
        connection.sendall(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())
        os._exit(0)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    for name, mode, buffering in (("stdin", "r", -1), ("stdout", "w", -1), ("stderr", "w", 1)):
        old = getattr(sys, name)
        new = open(old.fileno(), mode, buffering, old.encoding, old.errors, closefd=False)  # noqa: SIM115
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(made | environment)
    sys.argv = arguments


def run() -> None:
    """Run ``sys.argv``, the arguments of a Python, in this process as a fresh one would."""
    sys.executable = os.environ.get("PYTHON_EXEC", sys.executable)
    main = sys.modules["__main__"] = sys.modules["__mp_main__"] = ModuleType("__main__")
    vars(main)["__builtins__"] = builtins
    count = options(sys.argv)
    given, sys.argv[:count] = sys.argv[:count], []
    if "-u" in given:
        sys.stdout.reconfigure(write_through=True)  # type: ignore[union-attr]
    sys.warnoptions += [option for option in given if option not in ("-u", "-W")]
    warnings._processoptions(sys.warnoptions)  # type: ignore[attr-defined]  # as the interpreter does
    if sys.argv[0] == "-m":
        sys.path.insert(0, str(Path.cwd()))
        runpy._run_module_as_main(sys.argv.pop(1))  # type: ignore[attr-defined]  # which -m calls, too
    elif sys.argv[0] == "-c":
        sys.path.insert(0, "")
        exec(compile(sys.argv.pop(1), "<string>", "exec"), vars(main))
    else:
        script = Path(sys.argv[0])
        sys.path.insert(0, str(script.resolve().parent))
        main.__file__ = str(script.absolute())
        exec(compile(script.read_bytes(), sys.argv[0], "exec"), vars(main))


def end(error: BaseException | None) -> None:
    """End as Python does, but for taking the modules apart, which would copy most of the server's memory."""
    code = error.code if isinstance(error, SystemExit) else int(error is not None)
    if error is not None and not isinstance(error, SystemExit):
        sys.excepthook(type(error), error, error.__traceback__)
    if not isinstance(code, int | None):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads that are no daemons
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    if isinstance(error, KeyboardInterrupt):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code or 0)


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        serve(sys.argv[2])
        try:
            run()
        except BaseException as error:
            end(error)
        end(None)
    else:
        ask(sys.argv[1], sys.argv[2:])
