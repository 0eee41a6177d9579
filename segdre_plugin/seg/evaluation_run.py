"""Evaluation of a finished ``--seg`` run on any split, with its thresholds; nothing is trained and nothing re-tuned.

The run's own folder says with which arguments the models were made, so only the data need to be given. The one thing
that evaluation tunes is inference-stage fusion (:mod:`segdre_plugin.stages.isf`), and only on the run's dev file.
"""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from segdre_plugin.data.files import fingerprint, write_json
from segdre_plugin.data.folders import replacing
from segdre_plugin.errors import SegDREError, raise_all
from segdre_plugin.fusion import FusionResult
from segdre_plugin.salient import saliency
from segdre_plugin.seg.bundle import check_target, offer
from segdre_plugin.seg.options import flag, parse
from segdre_plugin.seg.run_folder import NUMBER, RESULT, RunFolder
from segdre_plugin.seg.score_table import print_scores
from segdre_plugin.seg.script_run import ScriptRun
from segdre_plugin.seg.store import differences, digest, flat
from segdre_plugin.stages.artifacts import METRICS, check_form
from segdre_plugin.stages.branches import Verbaliser
from segdre_plugin.stages.candidates import count_entities, fusible, gold_flags
from segdre_plugin.stages.config import STAGES, SegConfig
from segdre_plugin.stages.isf import PENALTY, add_margins, best_cut, pseudo_features
from segdre_plugin.stages.margins import Margins
from segdre_plugin.stages.pair_types import candidate_cells
from segdre_plugin.stages.scored import ScoredSplit
from segdre_plugin.stages.scoring import score_relations
from segdre_plugin.stages.stage import ChainResult, build_chain, run_chain
from segdre_plugin.stages.strategies import check_labels


class EvaluationRun(ScriptRun):
    """The evaluation of a finished run on one split.

    Raises:
        SegDREError: if the run is not finished, was made with other settings than those given, or the data are wrong.
    """

    def __init__(self, *how: Any) -> None:
        super().__init__(*how)
        if not self.args.test_file:
            raise SegDREError(
                f"--{self.script.trains} and --test_file are both missing",
                f"train the stages with --{self.script.trains}, or name the file on which to evaluate a finished run",
            )
        if self.args.load_path:
            raise SegDREError(
                "--load_path with --seg: what is evaluated is the run in --seg-dir", "leave --load_path out, or --seg"
            )
        if self.options.stage != "all":
            raise SegDREError(f"--seg-stage {self.options.stage} needs --{self.script.trains}", "add it")
        self.folder = RunFolder(self.store.root)
        self.folder.require_finished(f"train it to the end first, with --{self.script.trains}")
        self._take_settings()
        path = Path(self.args.data_dir) / self.args.test_file
        base = self.folder.settings("base")
        self.name = "dev" if path.is_file() and fingerprint(path) == base["data"]["dev"] else "test"
        skip = self.options.skip_unusable or base["options"]["skip_unusable"]
        self.load({self.name: self.args.test_file, "train": self.args.train_file}, skip)
        self._check_files()
        self.split = self.splits[self.name]
        check_labels(self.config.strategy, self.split.documents, str(self.split.path))
        self.found = ChainResult()
        self.pseudo: Margins | None = None

    def _take_settings(self) -> None:
        """Take the run's arguments and settings; refuse those that were given and differ."""
        arguments = self._run_arguments()
        self.config = self.folder.config
        known, asked = vars(self.config) | self.folder.search, vars(self.options.config) | vars(self.options)
        default = vars(SegConfig()) | vars(parse([])[0])
        ours = [name for name in known if asked[name] != default[name]]
        theirs = self.given & arguments.keys()
        problems = differences(
            {f"--{name}": arguments[name] for name in theirs}, {f"--{name}": vars(self.args)[name] for name in theirs}
        )
        problems += differences({flag(name): known[name] for name in ours}, {flag(name): asked[name] for name in ours})
        raise_all(problems, f"{self.store.root} was made with other settings", "leave these options out")
        self.arguments = arguments
        vars(self.args).update(arguments)

    def _run_arguments(self) -> dict[str, Any]:
        """Return the run's arguments: such as the script has, of the same types; places are not among them.

        Raises:
            SegDREError: if there are others; one that names a file might make the script trust it.
        """
        path, base = self.folder.settings_file("base"), self.folder.settings("base")
        data = dict.fromkeys(("dev", "train", "rel2id"), str)
        check_form(path, base, {"data": data, "options": {"skip_unusable": bool}})
        check_form(self.folder.settings_file("sparse"), self.folder.settings("sparse"), {"options": {"rel_info": str}})
        arguments: dict[str, Any] = base["arguments"]
        known = {name: value for name, value in vars(self.args).items() if name not in self.places}
        hint = f"use the {self.script.file} that the run was made with"
        strange = sorted(arguments.keys() - known)
        raise_all(strange, f"{path}: arguments that {self.script.file} takes from no run", hint)
        forms = {name: NUMBER if type(value) in NUMBER else type(value) for name, value in known.items()}
        given = {name: form for name, form in forms.items() if name in arguments and known[name] is not None}
        check_form(path, arguments, given, "arguments")
        return arguments

    def _check_files(self) -> None:
        base = self.folder.settings("base")
        data, now = base["data"], self.code_and_encoder()
        raise_all(
            differences(flat({name: base.get(name, {}) for name in now}), flat(now)),
            f"{self.store.root} was made with other code or another encoder",
            "restore these files, or pass the folder of the same ones",
        )
        expected = {
            self.splits["train"].path: data["train"],
            self.rel2id_file: data["rel2id"],
            self.rel_info: self.folder.settings("sparse")["options"]["rel_info"],
        }
        raise_all(
            [str(path) for path, known in expected.items() if fingerprint(path) != known],
            f"not the files that {self.store.root} was made with",
            "pass the same ones",
        )

    @property
    def fuses(self) -> bool:
        """Return whether inference-stage fusion is asked for."""
        return self.script.fuses is not None and self.script.fuses(self.args)

    def run(self) -> None:
        """Predict the split with every stage, fuse, evaluate and write."""
        if self.options.bundle:
            check_target(self.options.bundle, self.store.root)
        with self.store.locked():
            tuned = self._load_isf() if self.fuses and self.name != "dev" else None
            own = self.script.names
            names = {own.evaluate: self._predict, own.collate: self.collate()}
            self.run_main(self.arguments | dict(self.script.predicts), names)
            self._finish(tuned)
            if self.options.bundle:
                offer(self.store.root, self.options.bundle)

    def _predict(self, args: Namespace, model: Any, *_: Any, **__: Any) -> Any:
        """Stand in for the script's ``evaluate``: every stage in turn, with its checkpoint, in the one model."""
        how = {
            "collate_fn": self.names[self.script.names.collate],
            "batch_size": args.test_batch_size,
            "device": args.device,
        }
        model_for = partial(self.loaded, model, self.config)
        verbaliser = Verbaliser(self.reader.tokenizer, self.relation_names, self.config)
        stages = build_chain(self.config, self.rel2id, verbaliser, self.args.seed)
        self.found = run_chain(stages.values(), model_for, self.split, label=self.split.path.name, **how)
        if self.fuses:
            base = self.found.tables["base"]
            features, places = pseudo_features(self.split.features, base.take(base.margin > 0))
            with model_for("base"):
                label = f"pseudo-documents: {self.split.path.name}"
                cells = score_relations(model, features, places, label=label, **how)
            self.pseudo = candidate_cells(cells, self.split.documents, self.config.pairs)
        return self.script.scores(0.0, {})

    def _finish(self, tuned: dict[str, Any] | None) -> None:
        """Fuse and evaluate with the run's thresholds, with inference-stage fusion too if asked for, and write."""
        thresholds, salient, tables = self.folder.thresholds, self.found.salient or [], self.found.tables
        known, fusion = self.splits["train"].documents, thresholds.fusion
        scored = ScoredSplit(self.split, tables, salient, self.rel2id, known, fusion)
        predictions = scored.predict(scored.cells(), thresholds)
        rows = scored.rows(predictions, thresholds, self.folder.tau_base_alone)
        report: dict[str, Any] = {
            "salient_k": self.config.salient_k,
            "file": self.split.path.name,
            "evidence": scored.has_evidence,
        }
        if self.pseudo is not None:
            n_entities = count_entities(self.split)
            sums = add_margins(tables["base"], self.pseudo, n_entities)
            with_isf = replace(scored, tables=fusible(tables, n_entities, fusion) | {"base": sums}, fusion="union")
            tuned = tuned or self._tune(with_isf, sums)
            report["isf"] = tuned
            cells, found = with_isf.cells(), FusionResult.of(tuned["thresholds"])
            predictions = with_isf.predict(cells, found)
            if rows["gold"]:
                rows["base_isf"] = scored.evaluate(scored.official(sums.take(sums.margin > tuned["tau"])))
                rows["fused_isf"] = scored.evaluate(predictions)
                rows["curves"] |= {"base_isf": scored.curve(sums), "fused_isf": with_isf.fused_curve(cells, found)}
        rows["salient"] = {}
        if rows["gold"]:
            rows["salient"] = saliency(self.split.documents, salient, self.config.salient_k)
            rows["strategies"] = scored.strategies(self.config, self.args.seed)
        report |= {
            self.name: rows,
            "thresholds": self.folder.metrics["thresholds"],
            "branches_left_out": {self.name: self.found.left_out},
        }
        target = self.folder.evaluation(self.split.path.stem + ("_isf" if self.fuses else ""))
        with replacing(target) as folder:
            write_json(folder / RESULT, predictions)
            write_json(folder / METRICS, report)
        print_scores(report, target)

    def _tune(self, scored: ScoredSplit, sums: Margins) -> dict[str, Any]:
        """Find tau, and the thresholds around it, on dev; keep them for the other splits."""
        gold, _, n_gold = gold_flags(sums, self.split, self.rel2id, [])
        tau = best_cut(sums.margin, gold, n_gold)
        found = scored.search(scored.cells(), **self.folder.search, anchor=(tau, 0.0, 0.0))
        thresholds = asdict(found) | self.folder.search
        tuned = {"tau": tau, "thresholds": thresholds, "penalty": PENALTY, "stages": self._digest()}
        write_json(self.folder.isf_file, tuned)
        return tuned

    def _load_isf(self) -> dict[str, Any]:
        """Return what was tuned on dev: tau and the thresholds.

        Raises:
            SegDREError: if that is not there, or is of other stages.
        """
        hint = "evaluate the run's dev file in the same way first: --test_file DEV.json; tau is tuned there"
        tuned, path = self.folder.isf, self.folder.isf_file
        if tuned is None:
            raise SegDREError(f"{path} not found: no tau for inference-stage fusion", hint)
        if tuned.get("stages") != self._digest():
            raise SegDREError(f"{path} was tuned for other stages than those in {self.folder.path}", hint)
        return tuned

    def _digest(self) -> str:
        """Identify the stages, and what thresholds are searched for."""
        stages = {stage: self.folder.settings(stage) for stage in STAGES}
        return digest({"stages": stages, "search": self.folder.search, "penalty": PENALTY})
