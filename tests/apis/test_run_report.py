"""The run report: what it reads, that it runs and loads nothing, what it refuses."""

import json
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from mmsparsedit.apis.launch import ConfigError
from mmsparsedit.apis.run_history import flat, literal_config, read_history
from mmsparsedit.apis.run_report import report_page, write_report
from mmsparsedit.visualization.svg_chart import (
    HEIGHT,
    MOST_POINTS,
    Line,
    line_chart,
    smoothed,
    thinned,
)

from runs import run_tool

PRUNE = "dict(type='TimestepPruneScheduler', r_min=0.44, r_max=0.75, token_grid=(8, 8))"


def scalars(first, last, loss):
    """Lines as LocalVisBackend writes them: every ten iterations one of training."""
    for step in range(first, last + 1, 10):
        yield dict(loss=loss, mse_stage0=0.3, mse_stage1=0.03, time=0.1, iter=step, step=step)


def work_dir(folder, *starts, prune=PRUNE, extra=''):
    for i, lines in enumerate(starts):
        logs = folder / f'20260101_00000{i}'
        (logs / 'vis_data').mkdir(parents=True)
        text = ''.join(json.dumps(line) + '\n' for line in lines)
        (logs / 'vis_data/scalars.json').write_text(text)
        head = 'System environment:\n    Python: 3.11.7\n    PyTorch: 2.9\n'
        (logs / f'{logs.name}.log').write_text(head + '2026 - INFO - Config:\n')
    (folder / f'{folder.name}.py').write_text(
        f'model = dict(network=dict(type="SparseDiT"), prune={prune})\n'
        f'train_cfg = dict(max_iters=40)\n{extra}'
    )
    metrics = {'cost/gmacs_mean_t': 0.0189, 'digits/frechet': 3.5}
    (folder / 'metrics.json').write_text(json.dumps(dict(metrics=metrics)))
    return folder


def test_a_resumed_start_replaces_what_it_repeats(tmp_path):
    cut = work_dir(tmp_path / 'a', scalars(10, 40, 1.0), scalars(30, 50, 2.0))
    with open(cut / '20260101_000001/vis_data/scalars.json', 'a') as file:
        file.write('{"digits/frechet": 7.5, "time": 3.0, "step": 50}\n{"loss": 0.1, "it')
    history = read_history(cut)
    assert history.training['loss'] == [(10, 1.0), (20, 1.0), (30, 2.0), (40, 2.0), (50, 2.0)]
    assert history.validation == {'digits/frechet': [(50, 7.5)]}
    assert (history.iterations, history.get('train_cfg', 'max_iters')) == (50, 40)
    assert history.environment == {'Python': '3.11.7', 'PyTorch': '2.9'}
    assert history.unread == ['20260101_000001/vis_data/scalars.json: 1 lines are damaged']


def test_the_config_of_a_training_outlives_a_test(tmp_path):
    folder = work_dir(tmp_path / 'a', scalars(10, 20, 1.0))
    (folder / 'last_checkpoint').write_text('/elsewhere/a/iter_36.pth')
    trained, tested = (
        folder / name / 'vis_data' for name in ('20260101_000000', '20260102_000000')
    )
    (folder / 'a.py').rename(trained / 'config.py')
    tested.mkdir(parents=True)
    for path in (folder / 'a.py', tested / 'config.py'):
        path.write_text('train_cfg = None\nmodel = dict()\n')
    history = read_history(folder)
    assert history.get('train_cfg', 'max_iters') == 40
    assert history.get('model', 'network', 'type') == 'SparseDiT'
    assert history.iterations == 36  # the checkpoint's, after the last one logged
    assert '<td>36 of 40</td>' in report_page([history])


def test_a_config_is_read_and_never_run(tmp_path):
    touched = tmp_path / 'touched'
    code = f'open({str(touched)!r}, "w")'
    folder = work_dir(tmp_path / 'a', scalars(10, 20, 1.0), prune=code, extra=f'x = {code}\n')
    page = report_page([read_history(folder)])
    assert not touched.exists()
    assert literal_config(folder.joinpath('a.py').read_text())['x'].startswith('open(')
    assert 'nothing was logged' not in page


def test_values_of_a_config_are_plain():
    text = "a = dict(b=-1, c=(1, 2.5), d={'e': None}, f=[dict(g=True)])\nh = float('inf')\n"
    config = literal_config(text)
    assert config == {
        'a': {'b': -1, 'c': [1, 2.5], 'd': {'e': None}, 'f': [{'g': True}]},
        'h': "float('inf')",
    }
    assert flat(config)['a.d.e'] is None and flat(config)['a.b'] == -1
    assert literal_config('a = (') == {}


class Loaded(HTMLParser):
    """What a page would fetch, and whether its tags are closed."""

    def __init__(self, text):
        super().__init__()
        self.found, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found += [v for k, v in attributes if k in ('src', 'href', 'action', 'srcset')]
        if tag not in ('meta', 'img'):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found += [v for k, v in attributes if k in ('src', 'href')]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_of_two_runs_is_whole_and_loads_nothing(tmp_path):
    sparse = work_dir(tmp_path / '<b>x', scalars(10, 40, 0.5))
    dense = work_dir(tmp_path / 'dense', scalars(10, 40, 0.25), prune='None')
    (sparse / 'samples').mkdir()
    for step in range(100, 800, 100):
        Image.new('L', (8, 8)).save(sparse / f'samples/iter_{step}.png')
    (sparse / 'samples/iter_900.png').write_bytes(b'no picture')
    write_report([sparse, dense], tmp_path / 'deep/r.html', pictures=3)
    page = (tmp_path / 'deep/r.html').read_text()
    loaded = Loaded(page)
    assert not loaded.open
    assert all(value.startswith(('#', 'data:image/png;base64,')) for value in loaded.found)
    assert sum(value.startswith('data:') for value in loaded.found) == 2
    assert [int(n) for n in re.findall(r'iteration (\d+)<', page)] == [100, 500, 900]
    assert 'samples/iter_900.png: cannot identify' in page
    assert '<b>x' not in page and '&lt;b&gt;x' in page
    assert '6x6, 5x5, 5x5, 4x4' in page and 'dense: 64' in page
    assert '<th>model.prune</th><td>–</td><td>None</td>' in page
    assert '<td>0.5</td><td>0.25</td>' in page  # the loss, side by side
    assert 'default-src &' not in page and "default-src 'none'" in page


def test_charts_place_values_and_average_neighbours():
    chart = line_chart('x', [Line('a', [(0, 0), (10, 5), (20, float('nan')), (30, 10)])])
    xy = [tuple(map(float, spot.split(','))) for spot in
          re.search(r'points="([^"]+)"', chart)[1].split()]  # fmt: skip
    (x0, y0), (x1, y1), (x2, y2) = xy  # the number that is none is left out
    assert x1 - x0 == pytest.approx((x2 - x0) / 3, abs=0.1)
    assert y1 == pytest.approx((y0 + y2) / 2, abs=0.1) and HEIGHT > y0 > y2 > 0
    many = thinned([(i, i % 2) for i in range(10_000)])
    assert len(many) <= MOST_POINTS and many[-1][0] == 9_999
    assert {round(y, 9) for _, y in many} == {0.5}
    assert smoothed([(i, i) for i in range(100)])[-1] == (99, 97)
    assert 'nothing was logged' in line_chart('x', [Line('a', [(0, -1.0)])], log=True)
    assert '<circle' in line_chart('x', [Line('a', [(5, 3.0)])], log=True)


def test_what_is_no_run_is_refused_in_one_line(tmp_path):
    done = run_tool('tools/analysis_tools/report.py', tmp_path / 'none', '--out', tmp_path / 'r')
    assert done.returncode == 2 and 'is no folder: give work dirs' in done.stderr
    assert done.stderr.count('\n') == 1
    with pytest.raises(ConfigError, match='holds neither TIME/vis_data/scalars.json nor'):
        write_report([tmp_path], tmp_path / 'r.html')
    with pytest.raises(ConfigError, match='got 7 work dirs, expected 1 to 6'):
        write_report([tmp_path] * 7, tmp_path / 'r.html')
