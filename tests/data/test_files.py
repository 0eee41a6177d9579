"""Files are written whole or not at all, and nothing that is read is executed."""

import os
import stat

import numpy as np
import pytest
import torch

from segdre_plugin import SegDREError
from segdre_plugin.data.files import (
    fingerprint,
    read_arrays,
    read_json,
    read_weights,
    write,
    write_arrays,
    write_json,
)


class TestWrite:
    def test_a_failed_write_leaves_what_was_there(self, tmp_path):
        path = tmp_path / "margins.npz"
        path.write_bytes(b"before")

        def fill(file):
            file.write(b"half of it")
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            write(path, fill)
        assert path.read_bytes() == b"before"
        assert os.listdir(tmp_path) == ["margins.npz"]

    def test_a_failed_first_write_leaves_nothing(self, tmp_path):
        with pytest.raises(TypeError):
            write_json(tmp_path / "a.json", {"value": object()})
        assert os.listdir(tmp_path) == []

    def test_others_may_read_it(self, tmp_path):
        write_json(tmp_path / "a.json", 1)
        assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == 0o644

    def test_a_file_that_is_replaced_keeps_its_mode(self, tmp_path):
        path = tmp_path / "train.py"
        path.write_bytes(b"")
        path.chmod(0o755)
        write(path, lambda file: file.write(b"new"))
        assert path.read_bytes() == b"new"
        assert stat.S_IMODE(path.stat().st_mode) == 0o755


def test_json_round_trip(tmp_path):
    value = {"name": "Zoë", "f1": 0.1, "list": [1, None, True]}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json", "a") == value
    assert "Zoë" in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_arrays_round_trip(tmp_path):
    arrays = {"a": np.arange(3, dtype=np.int32), "b": np.array([-np.inf, 0.5], np.float32), "c": np.ones((2, 0))}
    write_arrays(tmp_path / "a.npz", arrays)
    again = read_arrays(tmp_path / "a.npz")
    assert again.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(again[name], array, strict=True)


class Bomb:
    """A pickle of it writes a file when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def bad_files(folder):
    """Write files that are no whole checkpoint and no whole archive of arrays."""
    torch.save({"weight": Bomb(folder / "bang")}, folder / "pickle.pt")
    np.savez(folder / "pickle.npz", a=np.array([Bomb(folder / "bang")], dtype=object))
    torch.save({"w": torch.ones(1000)}, folder / "whole.pt")
    (folder / "cut.pt").write_bytes((folder / "whole.pt").read_bytes()[:-900])
    np.savez(folder / "whole.npz", w=np.ones(1000))
    (folder / "cut.npz").write_bytes((folder / "whole.npz").read_bytes()[:-900])
    for name in ("text.pt", "text.npz"):
        (folder / name).write_text("no such thing")
    for name in ("empty.pt", "empty.npz"):
        (folder / name).write_bytes(b"")


@pytest.mark.parametrize("name", ["pickle", "cut", "text", "empty", "missing"])
class TestRefuses:
    def test_weights(self, tmp_path, name):
        bad_files(tmp_path)
        with pytest.raises(SegDREError, match=rf"stage base: .*{name}\.pt"):
            read_weights(tmp_path / f"{name}.pt", "stage base")
        assert not (tmp_path / "bang").exists()

    def test_arrays(self, tmp_path, name):
        bad_files(tmp_path)
        with pytest.raises(SegDREError, match=rf"{name}\.npz"):
            read_arrays(tmp_path / f"{name}.npz")
        assert not (tmp_path / "bang").exists()


def test_the_bomb_is_one(tmp_path):
    # negative control: read the careless way, it goes off
    bad_files(tmp_path)
    torch.load(tmp_path / "pickle.pt", weights_only=False)["weight"].close()
    assert (tmp_path / "bang").exists()


@pytest.mark.parametrize("thing", [torch.ones(2), [torch.ones(2)], {"epoch": 3, "model": {"w": torch.ones(2)}}])
def test_what_is_no_state_dict(tmp_path, thing):
    torch.save(thing, tmp_path / "a.pt")
    with pytest.raises(SegDREError, match=r"a\.pt is not a checkpoint of tensors"):
        read_weights(tmp_path / "a.pt", "stage base")


def test_weights_round_trip(tmp_path):
    state = torch.nn.Linear(2, 3).state_dict()
    torch.save(state, tmp_path / "a.pt")
    again = read_weights(tmp_path / "a.pt", "a")
    assert list(again) == list(state)
    assert all(torch.equal(again[name], value) for name, value in state.items())


@pytest.mark.parametrize(("content", "message"), [(None, "cannot read"), (b"{", "not JSON"), (b"\xff", "not JSON")])
def test_json_errors(tmp_path, content, message):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SegDREError, match=rf"settings: .*{message}"):
        read_json(path, "settings")


def test_fingerprint(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert fingerprint(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
