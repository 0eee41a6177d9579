"""The report's curves: drawn from what ``metrics.json`` holds, and nothing without gold."""

import re

import pytest
from finished import make_run

from segdre_plugin.analysis.report.curves import curve_figures
from segdre_plugin.seg.run_folder import RunFolder


@pytest.mark.slow
def test_curves_say_their_area(tmp_path):
    scores = RunFolder(make_run(tmp_path)).metrics["dev"]
    curve, frequency = curve_figures(scores, "dev")
    for source in ("base", "fused"):
        assert f"{source}, area {100 * scores['curves'][source]['area']:.1f} %" in curve.svg
    texts = re.findall(r">([^<>]+)</text>", frequency.svg)
    for bucket in scores["frequencies"]["fused"]:
        assert texts.count(bucket) == 2
    with_isf = scores | {"curves": scores["curves"] | {"fused_isf": scores["curves"]["fused"]}}
    assert "fused w. ISF, area" in curve_figures(with_isf, "dev")[0].svg
    assert curve_figures({"gold": False}, "dev") == []
