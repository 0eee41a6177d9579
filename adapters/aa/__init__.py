"""AA (https://github.com/BurgerBurgerBurger/AA): DREEAM's model and script with a graph of mentions and anaphors.

Its reader finds anaphors with spaCy and the model en_core_web_sm, which has to be installed. Inference-stage fusion
does not go with ``--seg``: a pseudo-document's graph is made in the reader.
"""

from dataclasses import replace

from segdre_plugin.adapters import dreeam
from segdre_plugin.backbones.trainer import Recipe

BACKBONE = replace(
    dreeam.BACKBONE,
    name="aa",
    repository="https://github.com/BurgerBurgerBurger/AA",
    batch=(*dreeam.BACKBONE.batch, "graph"),
)

SCRIPT = replace(
    dreeam.SCRIPT,
    patch="",
    versions={"0ca01d07d28179d641d97906bd7c371ad509b728": "971067f (update) and later"},
    options=dreeam.SCRIPT.options - {"--display_name"}
    | {"--attn_heads", "--gcn_layers", "--iters", "--results_path", "--use_graph"},
    attributes=dreeam.SCRIPT.attributes | {"edges", "graph_layers", "use_graph"},
    required=("pandas", "spacy", "en_core_web_sm"),
    commands={"en_core_web_sm": "python -m spacy download en_core_web_sm"},
    fuses=None,
    values={"eval_mode": ("single",)},
    places=dreeam.SCRIPT.places | {"results_path"},
    args={"use_graph": bool, "attn_heads": int, "gcn_layers": int, "iters": int},
    recipe=lambda args: Recipe.of(
        args,
        learning_rate=args.lr_transformer,
        new_layer_lr=args.lr_added,
        new_layers=("extractor", "bilinear", "graph"),
    ),
)
