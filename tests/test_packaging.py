"The package as users get it: built from the tracked files, installed without nbdev, used away from the repository."
import ast
import builtins
import os
import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from email.parser import Parser
from importlib import import_module
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
_parser = ConfigParser(delimiters=['='])
_parser.read(ROOT/'settings.ini')
CFG = _parser['DEFAULT']
LIB = CFG['lib_name']
MODULES = sorted(p.stem for p in (ROOT/LIB).glob('*.py') if not p.stem.startswith('_'))
DEV_ONLY = ['nbdev', 'execnb', 'ghapi', 'smalldocs', 'torchmetrics', 'pytest']


def run(*cmd, **kwargs) -> str:
    "The standard output of `cmd`; on failure, a test failure that shows everything"
    done = subprocess.run([str(c) for c in cmd], stdin=subprocess.DEVNULL, capture_output=True, text=True, **kwargs)
    assert done.returncode == 0, f'{cmd}\n{done.stdout}\n{done.stderr}'
    return done.stdout


@pytest.fixture(scope='session')
def wheel(tmp_path_factory) -> Path:
    "A wheel, built from a source archive of a copy of the tracked files: what lies about in a working copy cannot get in"
    copy, out = tmp_path_factory.mktemp('copy'), tmp_path_factory.mktemp('dist')
    for name in run('git', 'ls-files', cwd=ROOT).splitlines():
        (copy/name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT/name, copy/name, follow_symlinks=False)
    run(sys.executable, '-m', 'build', '--no-isolation', '--outdir', out, copy, cwd=out)
    return next(out.glob('*.whl'))


@pytest.fixture(scope='session')
def installed(wheel, tmp_path_factory):
    "Runs a command in an empty folder where the installed wheel is found before the working copy"
    site, elsewhere = tmp_path_factory.mktemp('site'), tmp_path_factory.mktemp('elsewhere')
    run(sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps', '--no-index', '--target', site, wheel)
    env = {**os.environ, 'PYTHONPATH': str(site)}
    return lambda *cmd: run(*(site/'bin'/LIB if c == LIB else c for c in cmd), cwd=elsewhere, env=env)


def test_wheel_holds_the_package_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tracked = run('git', 'ls-files', LIB, cwd=ROOT).split()
    assert sorted(n for n in names if '.dist-info/' not in n) == sorted(tracked)


def test_metadata(wheel):
    z = zipfile.ZipFile(wheel)
    info = next(n.partition('/')[0] for n in z.namelist() if '.dist-info/' in n)
    meta = Parser().parsestr(z.read(f'{info}/METADATA').decode())
    assert (meta['Name'], meta['Version']) == (LIB, CFG['version'])
    assert meta['Requires-Python'] == f">={CFG['min_python']}" and meta['License-Expression'] == 'Apache-2.0'
    assert meta['Summary'] == CFG['description'] and f'# {LIB}' in meta.get_payload()
    needed = [r for r in map(Requirement, meta.get_all('Requires-Dist')) if 'extra' not in str(r.marker)]
    assert set(needed) == set(map(Requirement, CFG['requirements'].split()))
    assert not {r.name for r in needed} & set(DEV_ONLY)
    assert meta.get_all('Provides-Extra') == ['dev']
    assert CFG['console_scripts'].replace('=', ' = ', 1) in z.read(f'{info}/entry_points.txt').decode()
    assert any(n.endswith('LICENSE') for n in z.namelist())


def test_imports_without_development_tools(installed):
    "`None` in `sys.modules` makes an import fail as if the package were not there"
    code = f'''import sys
sys.modules.update(dict.fromkeys({DEV_ONLY!r}))
from {LIB}.all import *
import {LIB}
print({LIB}.__file__, {LIB}.__version__)'''
    file, version = installed(sys.executable, '-c', code).split()
    assert version == CFG['version'] and not Path(file).is_relative_to(ROOT)


def test_console_script(installed):
    assert LIB in installed(LIB, '--help') and 'demo' in installed(LIB, '--help')


def test_version():
    tree = ast.parse((ROOT/LIB/'__init__.py').read_text())
    assert [ast.literal_eval(a.value) for a in tree.body if isinstance(a, ast.Assign)] == [CFG['version']]


@pytest.mark.parametrize('name', MODULES)
def test_exported_names_exist(name):
    module = import_module(f'{LIB}.{name}')
    missing = [n for n in getattr(module, '__all__', []) if not hasattr(module, n)]
    assert not missing


def test_all_is_what_a_user_needs():
    "`from gan_influence.all import *` brings something of every module that users see, and no name of Python's own or of a PyTorch layer"
    gathered = {n: o for n, o in vars(import_module(f'{LIB}.all')).items() if not n.startswith('_')}
    inner = {'all', 'cli', 'twice', 'kinks', 'batch_norm', 'compiled', 'log', 'plan', 'preflight'}
    assert {o.__module__ for o in gathered.values() if hasattr(o, '__module__')} == {f'{LIB}.{n}' for n in set(MODULES) - inner}
    assert not [n for n in gathered if hasattr(builtins, n) or hasattr(nn, n)]
