"""The options of --seg: the paper's defaults, nothing dropped in silence, upstream's arguments untouched."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segdre_plugin import SegConfig, SegDREError
from segdre_plugin.backbones.losses import loss_names
from segdre_plugin.seg.options import ALL_STAGES, build_parser, parse
from segdre_plugin.stages.config import GROUPS
from segdre_plugin.stages.strategies import strategy_names

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
    assert options.new_layer_lr is None
    assert options.fast
    assert (options.skip_unusable, options.bf16, options.buckets) == (False, False, False)
    assert (options.fusion, options.reuse, options.bundle) == ("union", (), None)
    assert (options.select, options.parallel) == ("predicted", False)
    assert (options.config.salient, options.config.salient_k, options.config.train_salient) == ("zip", 1, "gold")
    assert (options.config.loss, options.config.start, options.config.branch_budget) == ("atl", "encoder", 512)


# Option -> what is passed, the field that it changes, and the field's new value. Options with choices are below.
OPTIONS = {
    "--seg-dir": ("out/a b", "directory", Path("out/a b")),
    "--seg-rel-info": ("r.json", "rel_info", Path("r.json")),
    "--seg-parallel": (None, "parallel", True),
    "--seg-reuse": ("other", "reuse", (Path("other"),)),
    "--seg-bundle": ("mine", "bundle", Path("mine")),
    "--seg-identify-epochs": ("2", "identify_epochs", 2.0),
    "--seg-identify-warmup": ("0", "identify_warmup", 0.0),
    "--seg-dense-epochs": ("3", "dense_epochs", 3.0),
    "--seg-sparse-epochs": ("4.5", "sparse_epochs", 4.5),
    "--seg-new-layer-lr": ("1e-3", "new_layer_lr", 1e-3),
    "--seg-check": (None, "check", True),
    "--seg-checkpoint": ("0.5", "checkpoint", 0.5),
    "--seg-windows": ("4", "windows", 4),
    "--seg-fast": (None, "fast", True),
    "--no-seg-fast": (None, "fast", False),
    "--seg-bf16": (None, "bf16", True),
    "--seg-checkpointing": (None, "checkpointing", True),
    "--seg-buckets": (None, "buckets", True),
    "--seg-skip-unusable": (None, "skip_unusable", True),
    "--seg-hidden": ("32", "hidden", 32),
    "--seg-alpha": ("0.5", "alpha", 0.5),
    "--seg-branch-budget": ("64", "branch_budget", 64),
    "--seg-link": (None, "link", True),
    "--seg-share-encoder": (None, "share_encoder", True),
    "--seg-template-from": ("({relation} {tail})", "template_from", "({relation} {tail})"),
    "--seg-template-to": ("{head}: {relation}", "template_to", "{head}: {relation}"),
    "--seg-salient": ("max-mention", "salient", "max-mention"),
    "--seg-salient-k": ("3", "salient_k", 3),
    "--seg-loss": ("hinge-abl", "loss", "hinge-abl"),
    "--seg-pairs": ("PER:LOC", "pairs", ("PER:LOC",)),
}
# Option with choices -> its field, and all of them, the default first.
CHOICES = {
    "--seg-stage": ("stage", ["all", *ALL_STAGES]),
    "--seg-grid": ("grid", ["docred", "redocred"]),
    "--seg-objective": ("objective", ["f1", "ign_f1"]),
    "--seg-fusion": ("fusion", ["union", "average"]),
    "--seg-trainer": ("trainer", ["script", "own"]),
    "--seg-select": ("select", ["predicted", "gold"]),
    "--seg-start": ("start", ["encoder", "base"]),
    "--seg-train-salient": ("train_salient", ["gold", "same"]),
}
GOES_WITH = {("--seg-train-salient", "same"): ["--seg-salient", "random"]}  # refused beside the default
UNCHANGED = {"--seg-fast"}  # says what is the default
ALL = {option for action in build_parser()._actions for option in action.option_strings}


def values(arguments):
    """Parse a line of ours between upstream's words; return every field, those of the method among the others."""
    options, rest = parse([*UPSTREAM[:4], "--seg", *arguments, *UPSTREAM[4:]])
    assert rest == UPSTREAM
    found = vars(options) | vars(options.config)
    del found["config"]
    return found


def changes(arguments, beside=()):
    before, after = values(beside), values([*beside, *arguments])
    return {name: value for name, value in after.items() if value != before[name]}


def test_the_tables_hold_every_option_and_every_field():
    assert OPTIONS.keys() | CHOICES.keys() == ALL - {"--seg"}
    fields = {field for _, field, _ in OPTIONS.values()} | {field for field, _ in CHOICES.values()}
    assert fields == values([]).keys() - {"seg"}


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("option", OPTIONS)
def test_each_option_changes_its_field_and_no_other(option, joined):
    word, field, value = OPTIONS[option]
    arguments = [option] if word is None else [f"{option}={word}"] if joined else [option, word]
    assert changes(arguments) == ({} if option in UNCHANGED else {field: value})
    assert values(arguments)[field] == value
    assert type(values(arguments)[field]) is type(value)


@pytest.mark.parametrize("option", CHOICES)
def test_choices_are_taken_and_others_refused(option):
    field, choices = CHOICES[option]
    for choice in choices:
        found = changes([option, choice], GOES_WITH.get((option, choice), ()))
        assert found == ({} if choice == choices[0] else {field: choice})
    for other in ("", "x", choices[0].upper(), choices[0][:-1]):
        with pytest.raises(SegDREError, match=f"{option}: invalid choice"):
            parse(["--seg", option, other])
    (action,) = [action for action in build_parser()._actions if option in action.option_strings]
    assert sorted(action.choices) == sorted(choices)


@pytest.mark.parametrize("option", sorted(ALL - {"--seg"}))
def test_no_option_without_seg_and_none_without_its_value(option):
    word = CHOICES[option][1][-1] if option in CHOICES else OPTIONS[option][0]
    with pytest.raises(SegDREError, match=f"^{option} without --seg"):
        parse([*UPSTREAM, option, *([word] if word is not None else [])])
    if word is not None:
        with pytest.raises(SegDREError, match=f"{option}: expected (at least )?one argument"):
            parse(["--seg", option])


def test_names_of_strategies_and_losses_that_users_register():
    for option, known in (("--seg-salient", strategy_names()), ("--seg-loss", loss_names())):
        field = OPTIONS[option][1]
        assert [values([option, name])[field] for name in known] == list(known)
        with pytest.raises(SegDREError, match="'nobody'"):
            parse(["--seg", option, "nobody"])


def test_runs_to_reuse_add_up():
    assert values(["--seg-reuse", "a", "--seg-reuse=b"])["reuse"] == (Path("a"), Path("b"))
    assert values([])["reuse"] == ()  # not what another line left behind


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
    (["--seg", "--seg-alpha", "1.5"], "--seg-alpha is 1.5"),
    (["--seg", "--seg-alpha", "nan"], "--seg-alpha is nan"),
    (["--seg", "--seg-branch-budget", "-1"], "--seg-branch-budget is -1"),
    (["--seg", "--seg-template-to", "{object}"], "template_to is"),
    (["--seg", "--seg-hidden", "0"], "--seg-hidden is 0"),
    (["--seg", "--seg-loss", "afl"], "unknown loss 'afl'"),
    (["--seg", "--seg-identify-epochs", "0"], "--seg-identify-epochs is 0"),
    (["--seg", "--seg-identify-epochs", "nan"], "--seg-identify-epochs is nan"),
    (["--seg", "--seg-dense-epochs", "0.5"], "--seg-dense-epochs is 0.5"),
    (["--seg", "--seg-sparse-epochs", "inf"], "--seg-sparse-epochs is inf"),
    (["--seg", "--seg-identify-warmup", "1.1"], "--seg-identify-warmup is 1.1"),
    (["--seg", "--seg-identify-warmup", "nan"], "--seg-identify-warmup is nan"),
    (["--seg", "--seg-new-layer-lr", "inf"], "--seg-new-layer-lr is inf"),
    (["--seg", "--seg-new-layer-lr", "-1"], "--seg-new-layer-lr is -1"),
    (["--seg", "--seg-dir", ""], "--seg-dir: expected a path, got ''"),
    (["--seg", "--seg-reuse="], "--seg-reuse: expected a path, got ''"),
    (["--seg=yes"], "--seg: ignored explicit argument"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_refuses(arguments, message):
    with pytest.raises(SegDREError) as caught:
        parse([*UPSTREAM, *arguments])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("--seg-alhpa=1", "did you mean --seg-alpha?"),
        ("--seg-al", "did you mean --seg-alpha?"),
        ("--seg-template", "did you mean --seg-template-from or --seg-template-to?"),
        ("--no-seg-fats", "did you mean --no-seg-fast?"),
        ("--seg-qwertz", "choose from --no-seg-fast, --seg-alpha"),
    ],
)
def test_a_misspelled_option(word, meant):
    with pytest.raises(SegDREError) as caught:
        parse(["--seg", word])
    assert caught.value.hint.startswith(meant)


def test_help_names_every_option_with_a_meaning_in_groups():
    parser = build_parser()
    text = parser.format_help()
    for action in parser._actions:
        assert action.help
        assert action.option_strings[0] in text
        if action.nargs != 0 and not action.choices:
            assert action.metavar in {
                "DIR",
                "FILE",
                "HEAD:TAIL",
                "K",
                "LR",
                "MINUTES",
                "N",
                "NAME",
                "SHARE",
                "TEXT",
                "TOKENS",
            }
    headings = [text.index(f"\n{title}:\n") for title in ("SegDRE", *GROUPS.values())]
    assert headings == sorted(headings)
    grouped = [action for group in parser._action_groups for action in group._group_actions]
    assert len(grouped) == len(parser._actions)
    assert (
        text.index("--seg-alpha") < headings[2] < text.index("--seg-trainer") < headings[3] < text.index("--seg-fast")
    )
