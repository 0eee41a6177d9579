"""Train scripts and commands in processes of their own, which start at once.

They are forked from a process that has imported torch and transformers: that takes longer than what most tests run.
What Python and torch read of their environment as they start (locale, hash seed, threads) is that of the tests.
"""

import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

SEGDRE = ("-c", "import sys; from segdre_plugin.cli import main; sys.exit(main())")  # python's arguments
MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000"}  # several times faster
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([
    "torch",
    "transformers.models.auto.modeling_auto",
    "transformers.models.bert.modeling_bert",
    "transformers.models.bert.tokenization_bert",
    "transformers.models.roberta.modeling_roberta",
    "transformers.models.roberta.tokenization_roberta",
    "scipy.optimize",
    "segdre_plugin.seg.launch",
])  # fmt: skip
OWN = [str(Path(__file__).parent), str(Path(__file__).parents[2] / "docs")]  # pytest's paths, not the script's


def environment():
    return os.environ | MEMORY | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}


def python(arguments, *, cwd=None, paths=(), before="", timeout=500):
    """Run ``python ARGUMENTS`` (a file, or ``-c`` and a program) as ``subprocess.run`` does, outputs as text.

    ``paths`` are folders of modules, as in PYTHONPATH; ``before`` is a program that runs first, as ``sitecustomize``.
    """
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder) / name for name in ("stdout", "stderr")]
        process = start(arguments, outputs, cwd=cwd, paths=paths, before=before)
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(arguments, timeout)
        printed = [path.read_text(encoding="utf-8") for path in outputs]
        return subprocess.CompletedProcess(arguments, process.exitcode, *printed)


def start(arguments, outputs, *, cwd=None, paths=(), before=""):
    """Start a process whose standard output and error go into the two files."""
    given = ([*map(str, arguments)], cwd and str(cwd), [*map(str, paths)], before, [*map(str, outputs)])
    process = CONTEXT.Process(target=_run, args=(environment(), *given))
    with mock.patch.dict(os.environ, environment()):
        forkserver.ensure_running()
    process.start()
    return process


# a program before ``segdre study``: the processes that train start at once, too
FORKED_STUDY = """
import processes
from segdre_plugin.analysis.study import runs
runs.start = processes.Forked.start
"""


@dataclass
class Forked:
    """A process as ``segdre_plugin.seg.processes.start`` makes one, but forked from this one, which imported all."""

    pid: int
    pipe: int
    status: int | None = None

    @classmethod
    def start(cls, command, log, environment):
        log.write_text("")
        reader, pipe = os.pipe()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        # Python drops an exception that comes while it calls what other modules have registered to be called at a fork
        signals = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        pid = os.fork()
        signal.pthread_sigmask(signal.SIG_SETMASK, signals)
        if pid:
            os.close(reader)
            return cls(pid, pipe)
        os.dup2(reader, 0)
        os.close(pipe)
        status = 0
        try:
            _run(environment, command[1:], None, [], "", (log, log))
        except SystemExit as stop:
            status = stop.code
        except BaseException:
            traceback.print_exc()
            status = 1
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.pipe)
        self.wait()

    def poll(self, how=os.WNOHANG):
        if self.status is None:
            pid, status = os.waitpid(self.pid, how)
            self.status = os.waitstatus_to_exitcode(status) if pid else None
        return self.status

    def wait(self):
        return self.poll(0)

    def kill(self):
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


def _run(environ, arguments, cwd, paths, before, outputs):
    for descriptor, path in enumerate(outputs, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    sys.orig_argv = [sys.executable, *arguments]
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(cwd or os.getcwd())
    sys.path[:] = [*paths, *(path for path in sys.path if path not in OWN)]
    exec(before, {})
    if arguments[0] == "-c":
        sys.path.insert(0, "")
        sys.argv = ["-c", *arguments[2:]]
        exec(compile(arguments[1], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.path.insert(0, str(Path(arguments[0]).absolute().parent))
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")


@dataclass
class Together:
    """Processes of one training, as a launcher starts them, but without one: none is ended when another one fails."""

    processes: list[object]
    printed: list[tuple[Path, Path]]

    @classmethod
    def start(cls, commands, folder, *, cwd=None, paths=(), before="", **environ):
        """Start a process for each command; outputs go into a new folder. ``environ``: what the launcher passes on."""
        folder.mkdir()
        common = {"WORLD_SIZE": len(commands), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()} | environ
        made = cls([], [])
        for rank, arguments in enumerate(commands):
            own = {name: str(value) for name, value in (common | {"RANK": rank, "LOCAL_RANK": rank}).items()}
            outputs = (folder / f"{rank}.out", folder / f"{rank}.err")
            program = f"import os; os.environ.update({own!r})\n{before}"
            made.processes.append(start(arguments, outputs, cwd=cwd, paths=paths, before=program))
            made.printed.append(outputs)
        return made

    def join(self, timeout=500):
        """Wait for all; return their exit statuses."""
        deadline = time.monotonic() + timeout
        for process in self.processes:
            process.join(max(0.0, deadline - time.monotonic()))
        alive = [process for process in self.processes if process.is_alive()]
        for process in alive:
            process.kill()
        assert not alive, self.errors()
        return [process.exitcode for process in self.processes]

    def errors(self):
        """What each printed on standard error."""
        return [error.read_text() for _, error in self.printed]

    def outputs(self):
        """What each printed on standard output."""
        return [output.read_text() for output, _ in self.printed]


def free_port():
    """A port on which nothing listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
