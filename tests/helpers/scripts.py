"""Scripts of folders that are no packages, imported as ``python FOLDER/NAME.py`` finds their modules."""

import importlib
import sys

import pytest


def importer(folder):
    """Make a fixture that imports a script of a folder by its name, and leaves none of its modules behind."""

    @pytest.fixture
    def script(monkeypatch):
        monkeypatch.syspath_prepend(folder)
        yield importlib.import_module
        for name in [
            name for name, module in sys.modules.items() if str(folder) in str(getattr(module, "__file__", ""))
        ]:
            del sys.modules[name]

    return script
