"""The options of --seg: the paper's defaults, nothing dropped in silence, upstream's arguments untouched."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segdre_plugin import SegConfig, SegDREError
from segdre_plugin.seg.options import ALL_STAGES, build_parser, parse

# the command of ATLOP's own README, in short
UPSTREAM = ["--data_dir", "./dataset/docred", "--transformer_type", "bert", "--train_batch_size=4"]
UPSTREAM += ["--evaluation_steps", "-1", "--learning_rate", "5e-5", "--save_path", "", "--seed", "66"]


def test_defaults_are_the_papers():
    options, rest = parse(["--seg"])
    assert rest == []
    assert options.config == SegConfig(hidden=768, alpha=1.0, link=False)
    assert (options.config.template_from, options.config.template_to) == ("{relation} {tail}", "{head} {relation}")
    assert (options.identify_epochs, options.identify_warmup) == (10, 0.3)
    assert (options.dense_epochs, options.sparse_epochs) == (None, None)
    assert (options.stage, options.grid, options.objective) == ("all", "docred", "f1")
    assert options.directory == Path("seg")
    assert options.rel_info is None
    assert not options.skip_unusable


SET = [
    (["--seg-dir", "out"], lambda o: o.directory == Path("out")),
    (["--seg-dir=out/a b"], lambda o: o.directory == Path("out/a b")),
    (["--seg-alpha", "0.5"], lambda o: o.config.alpha == 0.5),
    (["--seg-link"], lambda o: o.config.link),
    (["--seg-branch-budget", "64"], lambda o: o.config.branch_budget == 64),
    (["--seg-template-from", "({relation} {tail})"], lambda o: o.config.template_from == "({relation} {tail})"),
    (["--seg-template-to", "{head}: {relation}"], lambda o: o.config.template_to == "{head}: {relation}"),
    (["--seg-hidden", "32"], lambda o: o.config.hidden == 32),
    (["--seg-loss", "hinge-abl"], lambda o: o.config.loss == "hinge-abl"),
    (["--seg-grid", "redocred"], lambda o: o.grid == "redocred"),
    (["--seg-objective", "ign_f1"], lambda o: o.objective == "ign_f1"),
    (["--seg-rel-info", "r.json"], lambda o: o.rel_info == Path("r.json")),
    (["--seg-identify-epochs", "2"], lambda o: o.identify_epochs == 2),
    (["--seg-identify-warmup", "0"], lambda o: o.identify_warmup == 0),
    (["--seg-dense-epochs", "3"], lambda o: o.dense_epochs == 3),
    (["--seg-sparse-epochs", "4"], lambda o: o.sparse_epochs == 4),
    (["--seg-skip-unusable"], lambda o: o.skip_unusable),
    *[(["--seg-stage", stage], lambda o, stage=stage: o.stage == stage) for stage in ALL_STAGES],
]


@pytest.mark.parametrize(("arguments", "holds"), SET)
def test_each_option_is_heard(arguments, holds):
    options, rest = parse([*UPSTREAM, "--seg", *arguments])
    assert holds(options)
    assert rest == UPSTREAM
    if arguments != ["--seg-stage", "all"]:
        assert not holds(parse(["--seg"])[0])


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_ours_may_stand_anywhere(data):
    groups = [["--seg"], ["--seg-dir", "out"], ["--seg-alpha=0.25"], ["--seg-link"]]
    theirs = [
        ["--data_dir", "./d"],
        ["--learning_rate=5e-5"],
        ["--evaluation_steps", "-1"],
        ["--do_train"],
        ["--x", ""],
    ]
    order = data.draw(st.permutations(range(len(groups) + len(theirs))))
    places = sorted(i for i in order[: len(theirs)])  # where upstream's stand, in their own order
    mine, others = iter(groups), iter(theirs)
    line = [next(others) if i in places else next(mine) for i in range(len(order))]
    options, rest = parse([word for group in line for word in group])
    assert options.seg
    assert options.directory == Path("out")
    assert options.config == SegConfig(alpha=0.25, link=True)
    assert rest == [word for group in theirs for word in group]


def test_without_seg_all_is_upstreams():
    options, rest = parse(UPSTREAM)
    assert not options.seg
    assert rest == UPSTREAM


BAD = [
    (["--seg", "--seg-x"], "unknown option --seg-x"),
    (["--seg", "--seg-x=1"], "unknown option --seg-x"),
    (["--seg", "--seg-al", "0.5"], "unknown option --seg-al"),  # no abbreviations
    (["--seg-dir", "out"], "--seg-dir without --seg"),
    (["--seg-alpha=0.5"], "--seg-alpha without --seg"),
    (["--seg-link"], "--seg-link without --seg"),
    (["--seg", "--seg-dir"], "--seg-dir: expected one argument"),
    (["--seg", "--seg-stage", "train"], "--seg-stage: invalid choice"),
    (["--seg", "--seg-grid", "cdr"], "--seg-grid: invalid choice"),
    (["--seg", "--seg-alpha", "much"], "--seg-alpha: invalid float value"),
    (["--seg", "--seg-alpha", "1.5"], "alpha is 1.5"),
    (["--seg", "--seg-alpha", "nan"], "alpha is nan"),
    (["--seg", "--seg-branch-budget", "-1"], "branch_budget is -1"),
    (["--seg", "--seg-template-to", "{object}"], "template_to is"),
    (["--seg", "--seg-hidden", "0"], "hidden is 0"),
    (["--seg", "--seg-loss", "afl"], "unknown loss 'afl'"),
    (["--seg", "--seg-identify-epochs", "0"], "--seg-identify-epochs is 0"),
    (["--seg", "--seg-identify-epochs", "nan"], "--seg-identify-epochs is nan"),
    (["--seg", "--seg-dense-epochs", "0.5"], "--seg-dense-epochs is 0.5"),
    (["--seg", "--seg-sparse-epochs", "inf"], "--seg-sparse-epochs is inf"),
    (["--seg", "--seg-identify-warmup", "1.1"], "--seg-identify-warmup is 1.1"),
    (["--seg", "--seg-identify-warmup", "nan"], "--seg-identify-warmup is nan"),
    (["--seg=yes"], "--seg: ignored explicit argument"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_refuses(arguments, message):
    with pytest.raises(SegDREError) as caught:
        parse([*UPSTREAM, *arguments])
    assert message in str(caught.value)


def test_help_names_every_option_with_a_meaning():
    text = build_parser().format_help()
    for action in build_parser()._actions:
        assert action.help
        assert action.option_strings[0] in text
