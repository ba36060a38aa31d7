"The project's own rules: notebooks, badges, the sidebar, the workflows, and what no file may hold."
import json
import re
import subprocess
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
_parser = ConfigParser(delimiters=['='])
_parser.read(ROOT/'settings.ini')
CFG = _parser['DEFAULT']
TRACKED = subprocess.run(['git', 'ls-files'], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
NOTEBOOKS = [n for n in TRACKED if n.endswith('.ipynb')]
TUTORIALS = [n for n in NOTEBOOKS if '/tutorials/' in n]
COLAB = 'https://colab.research.google.com/'
VIEW = 'application/vnd.jupyter.widget-view+json'

notebooks = pytest.mark.parametrize('name', NOTEBOOKS)


def cells(name: str, kind: str) -> list:
    "The cells of type `kind` of a notebook, sources joined"
    found = [c for c in json.loads((ROOT/name).read_text(encoding='utf-8'))['cells'] if c['cell_type'] == kind]
    return [{**c, 'source': ''.join(c['source'])} for c in found]


def test_there_are_notebooks():
    assert f"{CFG['nbs_path']}/index.ipynb" in NOTEBOOKS and TUTORIALS


@notebooks
def test_stored_outputs_are_clean(name):
    "No errors, no warnings or progress bars (they go to stderr), no widgets that only live in a running notebook"
    bad = [(c['source'], o) for c in cells(name, 'code') for o in c['outputs']
           if o['output_type'] == 'error' or o.get('name') == 'stderr' or VIEW in o.get('data', {})]
    assert not bad


@notebooks
def test_notebook_is_small(name):
    assert (ROOT/name).stat().st_size < 300_000


@notebooks
def test_title_cell_holds_only_the_title(name):
    "nbdev turns the first title cell into the page's title and subtitle, and drops whatever else it holds"
    title = next(c['source'] for c in cells(name, 'markdown'))
    assert re.fullmatch(r'# \S.*(\n+> \S.*)?\s*', title)


@notebooks
def test_notebook_is_on_the_site(name):
    listed = re.findall(r'- (\S+\.ipynb)', (ROOT/CFG['nbs_path']/'sidebar.yml').read_text())
    assert name.removeprefix(f"{CFG['nbs_path']}/") in listed


@pytest.mark.parametrize('name', TUTORIALS)
def test_tutorial_opens_in_colab(name):
    link = f"{COLAB}github/{CFG['user']}/{CFG['repo']}/blob/{CFG['branch']}/{name}"
    badge = f'[![Open in Colab]({COLAB}assets/colab-badge.svg)]({link})'
    assert any(c['source'].strip() == badge for c in cells(name, 'markdown')[:2]), f'wanted, after the title: {badge}'


@pytest.mark.parametrize('stored_on, told', [(None, 'STALE'), ('this one', 'STALE'), ('another', 'ran')])
def test_outputs_are_compared_where_they_can_be(tmp_path, monkeypatch, capsys, stored_on, told):
    "A changed output fails the check, unless its notebook hangs on float32 training and was stored on another processor"
    monkeypatch.syspath_prepend(str(ROOT/'tools'))
    import run_nbs
    monkeypatch.setattr(run_nbs, 'ROOT', tmp_path)
    monkeypatch.setattr(run_nbs, 'processor', lambda: 'this one')
    def notebook(output, on):
        cell = dict(cell_type='code', id='a', execution_count=None, metadata={}, source='1 + 1', outputs=[dict(output_type='stream', name='stdout', text=output)])
        return json.dumps(dict(cells=[cell], metadata={} if on is None else {run_nbs.PROCESSOR: on}, nbformat=4, nbformat_minor=5))
    fn = tmp_path/'nb.ipynb'
    args = type('Args', (), dict(check=True))
    for output, good, word in [('2', True, 'ok'), ('3', told == 'ran', told)]:
        fn.write_text(notebook('2', stored_on))
        monkeypatch.setattr(run_nbs, 'execute_apart', lambda fn, out, args, output=output: out.write_text(notebook(output, stored_on and 'this one')) and '')
        assert run_nbs.process(fn, args) == good and capsys.readouterr().out.startswith(word)
    monkeypatch.setattr(run_nbs, 'execute_apart', lambda *_: 'a cell failed')
    assert not run_nbs.process(fn, args)  # wherever it was stored


def test_workflow_runs_what_the_readme_says():
    blocks = re.findall(r'^```sh\n(.*?)\n```', (ROOT/'README.md').read_text(encoding='utf-8'), re.M | re.S)
    assert f'run: {blocks[1]}\n' in (ROOT/'.github/workflows/test.yml').read_text()


def test_quarto_finds_its_settings():
    link = ROOT/CFG['nbs_path']/'_quarto.yml'
    assert link.is_symlink() and link.resolve() == ROOT/'_quarto.yml'
    assert f"https://github.com/{CFG['user']}/{CFG['repo']}\n" in link.read_text()


def test_nothing_from_one_machine():
    "No path of somebody's machine, no address of a package registry; the words are in pieces so that this file passes"
    words = ['/'+'work/', 'py'+'pi.org', 'pythonhosted'+'.org', 'npmjs'+'.', 'debian'+'.org', 'download.'+'pytorch']
    homes = re.compile(r'/(?:home|root|Users)/\w')
    found = []
    for name in TRACKED:
        if not (ROOT/name).is_file(): continue
        text = (ROOT/name).read_bytes().decode(errors='ignore')
        found += [f'{name}: {w}' for w in words if w in text]
        if name.endswith('.ipynb') and (m := homes.search(text)): found.append(f'{name}: {m[0]}')
    assert not found
