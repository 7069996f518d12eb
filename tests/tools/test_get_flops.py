"""tools/analysis_tools/get_flops.py: what a config costs, beside the paper."""

import json

import pytest

from runs import run_tool


def test_get_flops_prints_stages_means_and_the_paper(tmp_path):
    done = run_tool(
        'tools/analysis_tools/get_flops.py', 'configs/sparsedit/xl_512.py', '--json',
        tmp_path / 'f.json',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 'the paper: 235 G' in done.stdout and 'parameters 681,327,392' in done.stdout
    report = json.loads((tmp_path / 'f.json').read_text())
    assert report['mean_t']['gmacs'] == pytest.approx(224.79, rel=1e-3)
    assert report['mean_t']['as_authors'] == pytest.approx(235.28, rel=1e-3)
    assert report['mean_t']['as_paper'] == pytest.approx(236.53, abs=5e-3)
    assert [row['grid'] for row in report['stages']] == [[10, 10], [9, 9], [8, 8], [6, 6]]
    assert sum(report['stages'][0]['parts'].values()) == pytest.approx(report['stages'][0]['gmacs'])


def test_as_paper_prints_its_figure_and_its_way_of_counting():
    done = run_tool(
        'tools/analysis_tools/get_flops.py',
        'configs/sparsedit/ablations/xl_256_sdtm1.py',
        '--as',
        'paper',
    )
    assert done.returncode == 0, done.stderr
    assert 'the paper: 68.74 G (Table 4, 1 SDTM' in done.stdout
    assert 'in its way, at 8x8: 69.685 G, 1.0137 of its figure: not reproduced' in done.stdout
