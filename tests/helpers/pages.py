"""The code blocks of our pages, to run them."""

import re

from locate import REPOSITORY


class Page:
    """A page in docs/; a comment ``<!-- NAME: ... -->`` stands before each block that is run."""

    def __init__(self, name):
        self.text = (REPOSITORY / "docs" / name).read_text(encoding="utf-8")

    def block(self, name):
        found = re.search(rf"<!-- {name}:.*?-->\n```python\n(.*?)```", self.text, re.S)
        assert found, name
        return found[1]

    def run(self, *names, **namespace):
        """Run blocks one after the other; return their names."""
        for name in names:
            exec(self.block(name), namespace)
        return namespace
