"""Import a clone's modules, which have names like ``model`` and ``utils``, and leave no trace in the interpreter."""

import importlib
import os
import sys
from pathlib import Path
from types import SimpleNamespace


def load(clone, names, folder):
    """Import modules of a clone.

    Args:
        clone: the clone.
        names: their names.
        folder: the working directory meanwhile; holds ``meta/rel2id.json``, which ``prepro`` reads.

    Returns:
        A namespace with the modules.
    """
    before, path, cwd = dict(sys.modules), list(sys.path), Path.cwd()
    bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # the clone stays as it is
    hidden = [name for name in sys.modules if (Path(clone) / f"{name}.py").is_file()]
    try:
        for name in hidden:  # of another clone, or of the tests
            del sys.modules[name]
        sys.path.insert(0, str(clone))
        os.chdir(folder)
        return SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    finally:
        os.chdir(cwd)
        sys.path[:] = path
        sys.dont_write_bytecode = bytecode
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None) or "").startswith(str(clone)):
                del sys.modules[name]
        sys.modules.update({name: before[name] for name in hidden})
