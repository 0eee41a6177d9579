"""What training and evaluation share: the backbone's script with its arguments, the data, and each stage's inputs."""

from __future__ import annotations

import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from segdre_plugin.backbones.backbone import Backbone
from segdre_plugin.backbones.clones.compat import on_host
from segdre_plugin.backbones.clones.stand_ins import ArgparseProxy, ParsedArguments, swapped
from segdre_plugin.backbones.losses import UPSTREAM
from segdre_plugin.backbones.script import Script
from segdre_plugin.backbones.windows import sliding
from segdre_plugin.backbones.workers import ALONE, Workers
from segdre_plugin.data import splits as data
from segdre_plugin.data.splits import Split
from segdre_plugin.errors import SegDREError
from segdre_plugin.seg.arguments import PLACES, check_arguments
from segdre_plugin.seg.checkpoints import load_all
from segdre_plugin.seg.options import Options, flags
from segdre_plugin.seg.reader import Reader
from segdre_plugin.seg.settings import clone_modules, encoder_files
from segdre_plugin.seg.store import Store
from segdre_plugin.stages.config import SegConfig
from segdre_plugin.stages.pair_types import check_types
from segdre_plugin.stages.wrap import unwrap_model, wrap_collate, wrap_model


class ScriptRun:
    """A run of a train script under our control: its globals, its ``main`` and the specs of its model and of itself.

    ``workers`` are the processes that share the run, of which this is one.
    """

    splits: dict[str, Split]
    rel2id_file: Path
    rel2id: dict[str, int]
    rel_info: Path
    relation_names: dict[str, str]
    reader: Reader

    def __init__(
        self,
        names: MutableMapping[str, Any],
        main: Callable[[], Any],
        backbone: Backbone,
        script: Script,
        options: Options,
        workers: Workers = ALONE,
    ) -> None:
        self.names, self.main = names, main
        self.backbone, self.script, self.options = sliding(backbone, options.windows), script, options
        self.config, self.workers = options.config, workers
        self.store = Store(options.directory)
        self.places = PLACES | script.places
        self.args, self.given = peek(names, main, script)
        for name, hint in script.refused.items():
            if getattr(self.args, name):
                raise SegDREError(f"--{name} does not go with --seg", hint)
        check_arguments(self.args, self.backbone, script)

    def load(self, files: Mapping[str, str], skip_unusable: bool) -> None:
        """Read and check the data.

        ``files`` has each split's file name in the script's data folder; where it is empty, there is no such split.
        ``skip_unusable`` accepts documents and entities without pairs or mentions.

        Raises:
            SegDREError: if something is wrong with the data.
        """
        folder = Path(self.args.data_dir)
        self.rel2id_file = Path(self.script.rel2id.format(data_dir=folder))
        self.rel2id = data.load_rel2id(self.rel2id_file, self.args.num_class)
        paths = {name: folder / file for name, file in files.items() if file}
        given = self.options.rel_info
        candidates = [given] if given else [Path("meta/rel_info.json"), folder / "rel_info.json"]
        self.rel_info, self.relation_names = data.load_relation_names(candidates, self.rel2id)
        self.splits = data.load_splits(paths, self.rel2id, skip_unusable)
        for line in check_types(self.splits, self.config.pairs):
            print(f"segdre: {line}", flush=True)
        if self.script.max_sentences:
            most = getattr(self.args, self.script.max_sentences)
            data.check_sentences(self.splits, most, self.script.max_sentences)
        if self.script.max_entities:
            limit = self.script.max_entities
            argument = limit if isinstance(limit, str) else None
            most = getattr(self.args, limit) if isinstance(limit, str) else limit
            data.check_entities(self.splits, most, argument)
        read = self.names[self.script.names.reader]
        self.reader = Reader(read, self.splits, self.backbone, self.script, self.args, skip_unusable, self.rel2id)

    def code_and_encoder(self) -> dict[str, Any]:
        """Return fingerprints of the clone's ``modules`` and of the files of the ``encoder``."""
        script = self.names.get("__file__") if self.script.versions else None
        return {"modules": clone_modules(script), "encoder": encoder_files(self.args)}

    def collate(self) -> Any:
        """Return the script's collate function, wrapped."""
        return wrap_collate(self.names[self.script.names.collate], adapter=self.backbone)

    @contextmanager
    def loaded(self, model: Any, config: SegConfig, stage: str) -> Iterator[Any]:
        """Turn the script's unwrapped model into that of a finished stage, with its checkpoint, inside the context."""
        # no loss is computed: one of the user's own need not be registered
        plain = replace(config, loss=UPSTREAM)
        wrap_model(model, stage=stage, adapter=self.backbone, config=plain, **self.options.speed)
        try:
            load_all(model, self.script.checkpoint_in(self.store.folder(stage)), self.script.checkpoint_key)
            yield model
        finally:
            unwrap_model(model)

    def run_main(self, overrides: Mapping[str, Any], names: Mapping[str, Any]) -> None:
        """Run the script's ``main()`` with other arguments and other names, and its own files unwritten."""
        silent = dict.fromkeys(self.script.silent, _nothing)
        stand_ins = {name: make(self.names[name]) for name, make in self.script.stand_ins.items()}
        with self._data_folder() as folder, on_host():
            parser = ArgparseProxy(folder | dict(overrides))
            ours = {"argparse": parser, self.script.names.reader: self.reader}
            with swapped(self.names, silent | stand_ins | ours | dict(names)):
                self.main()

    @contextmanager
    def _data_folder(self) -> Iterator[dict[str, str]]:
        """Give ``main()`` a folder of links to the data, in which no cached features lie, if it keeps such files."""
        if not self.script.caches:
            yield {}
            return
        source = Path(self.args.data_dir)
        files = [split.path.name for split in self.splits.values()]
        caches = {Path(name.format(file=file, **vars(self.args))) for name in self.script.caches for file in files}
        with tempfile.TemporaryDirectory(prefix="segdre-data-") as folder:
            for path in source.iterdir():
                if path.relative_to(source) not in caches:
                    (Path(folder) / path.name).symlink_to(path.resolve())
            for cache in caches:  # the name of an encoder in it may be a path
                (Path(folder) / cache).parent.mkdir(parents=True, exist_ok=True)
            yield {"data_dir": folder}


def peek(names: MutableMapping[str, Any], main: Callable[[], Any], script: Script) -> tuple[Namespace, frozenset[str]]:
    """Return the script's arguments, and which ones were given; its own parser reads them, then ``main()`` is stopped.

    Raises:
        SegDREError: if ``main`` parses none.
    """
    with swapped(names, {"argparse": ArgparseProxy(stop=True, more=flags())}):
        try:
            main()
        except ParsedArguments as parsed:
            return parsed.arguments, parsed.given
    raise SegDREError(f"{script.file}: main() parsed no arguments", "is it the original script?")


def _nothing(*_: Any, **__: Any) -> None:
    """Stand in for a function that writes files."""
