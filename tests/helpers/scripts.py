"""Scripts of folders that are no packages, imported as ``python FOLDER/NAME.py`` finds their modules; made-up ones."""

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


def declaring(script, options=frozenset(), attributes=frozenset()):
    """Return a train script, none of it upstream's, that declares what an adapter's original does, and more."""
    lines = ["import argparse", "parser = argparse.ArgumentParser()"]
    lines += [f"parser.add_argument({name!r})" for name in sorted(script.options | options)]
    lines += ["class DocREModel:", "    def encode(self): ...", "    def get_hrt(self): ...", "    def __init__(self):"]
    lines += [f"        self.{name} = None" for name in sorted(script.attributes | attributes)]
    return "\n".join([*lines, "def main(): ...", "if __name__ == '__main__':", "    main()", ""])
