"""Run the notebooks as `nbdev_test` does, and keep what they print and draw.

    python tools/run_nbs.py                     run all notebooks, store their outputs
    python tools/run_nbs.py nbs/01_data.ipynb   run some
    python tools/run_nbs.py --check             store nothing, fail where a stored output is not what comes out now

A cell with `#| eval: false`, or with one of the `tst_flags` of `settings.ini` that `--flags` does not name, is not run
and keeps the output it has. Outputs are compared byte for byte; only the random ids of widgets are overlooked. A notebook
that trains long in float32 names, in its metadata, the processor that it was stored on: another rounds otherwise, training
makes much of that, and so a notebook of another processor must run, but its differences are only reported.
"""
import argparse
import difflib
import hashlib
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from execnb.nbio import read_nb, write_nb
from execnb.shell import CaptureShell
from fastcore.utils import str2bool, working_directory
from nbdev.clean import clean_nb
from nbdev.config import get_config
from nbdev.doclinks import nbglob
from nbdev.frontmatter import FrontmatterProc
from nbdev.process import NBProcessor, extract_directives

ROOT = Path(__file__).resolve().parents[1]
# One thread: sums are added in one order whatever the machine, and parallel notebooks do not fight over the cores
CHILD_ENV = {**os.environ, 'OMP_NUM_THREADS': '1', 'IN_TEST': '1'}

PROCESSOR = 'float32_on'  # the key in a notebook's metadata


def processor() -> str:
    """This machine's processor, as far as rounding may depend on it: PyTorch's kernels are chosen by its model and
    instructions, and cut their sums to its caches"""
    info, caches = Path('/proc/cpuinfo'), Path('/sys/devices/system/cpu/cpu0/cache')
    fields = dict(re.findall(r'^([^\t:]+?)\s*: (.*)$', info.read_text().split('\n\n')[0], re.M)) if info.exists() else {}
    model = [fields[k] for k in ('model name', 'cpu family', 'model') if k in fields] or [platform.processor()]
    return ', '.join([*model, torch.backends.cpu.get_cpu_capability(), *(p.read_text().strip() for p in sorted(caches.glob('index*/size')))])


def idle(cell, flags: set) -> bool:
    "Whether `nbdev_test` leaves `cell` alone"
    if cell.cell_type != 'code' or 'nbdev_export(' in cell.source: return True
    return cell.directives_.get('eval:', [''])[0].lower() == 'false' or bool(flags & cell.directives_.keys())


def execute(fn: Path, flags: set):
    "Notebook `fn` with fresh outputs, cleaned as `nbdev_clean` does; raises what its first failing cell raises"
    nb, cfg = read_nb(fn), get_config()
    front = getattr(NBProcessor(fn, procs=FrontmatterProc, process=True).nb, 'frontmatter_', {})
    if not str2bool(front.get('skip_exec', False)):
        sources = [c.source for c in nb.cells]
        for c in nb.cells:
            c.directives_ = extract_directives(c)
            if not idle(c, flags): c.outputs = []  # a cell that falls silent must not keep its old output
        shell = CaptureShell(fn, mpl_format='png')  # at natural size: small notebooks, and the same on the site and in README.md
        # A picture should not change because matplotlib's version, which it writes into it, does
        shell.run_cell("%config InlineBackend.print_figure_kwargs = {'bbox_inches': 'tight', 'metadata': {'Software': None}}")
        try:
            with working_directory(fn.parent): shell.run_all(nb, exc_stop=True, preproc=lambda c: idle(c, flags))
        except BaseException: sys.exit(shell.prettytb(fname=fn.relative_to(ROOT)))
        for c, source in zip(nb.cells, sources): c.source = source
    if PROCESSOR in nb.metadata: nb.metadata[PROCESSOR] = processor()
    clean_nb(nb, cfg.clear_all, cfg.allowed_metadata_keys.split(), cfg.allowed_cell_metadata_keys.split(), cfg.clean_ids)
    return nb


def execute_apart(fn: Path, out: Path, args) -> str:
    "Run `fn` in a process of its own and write the result to `out`; what went wrong, or nothing"
    cmd = [sys.executable, __file__, str(fn), '--into', str(out), '--flags', args.flags]
    child = subprocess.Popen(cmd, env=CHILD_ENV, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                             errors='replace', start_new_session=True)
    try: _, err = child.communicate(timeout=args.timeout)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)  # the whole group: a notebook may have started workers
        child.communicate()
        return f'stopped after {args.timeout} s (--timeout)'
    return err.strip() or f'exit status {child.returncode}' if child.returncode else ''


def without_ids(text: str) -> str:
    "`text` of a notebook without the random ids of its widgets"
    return re.sub(r'("model_id": ")[0-9a-f]{32}"', r'\1"', text)


def same_text(fn: Path, new: Path) -> bool:
    "Are two notebooks the same, but for ids and for the processor they were stored on?"
    text = lambda p: re.sub(rf'("{PROCESSOR}": )".*?"', r'\1', without_ids(p.read_text(encoding='utf-8')))
    return text(fn) == text(new)


def readable(outputs) -> list:
    "`outputs` of a cell as lines to compare: text as it is, anything else as its type, size and digest"
    lines = []
    for o in outputs:
        data = o.get('data') or {o.get('name', o['output_type']): o.get('text', o.get('traceback', ''))}
        for kind, value in data.items():
            value = ''.join(value) if isinstance(value, list) else str(value)
            lines.append(f"[{o['output_type']}: {kind}]")
            if kind.startswith(('image/', 'application/')):
                lines.append(f'{len(value)} characters, sha256 {hashlib.sha256(value.encode()).hexdigest()[:16]}')
            else: lines += value.splitlines()
    return lines


def stored_elsewhere(fn: Path) -> str:
    "The processor that `fn` was stored on, if that matters and is not this one"
    there = read_nb(fn).metadata.get(PROCESSOR, '')
    return there if there != processor() else ''


def compare(fn: Path, new: Path) -> str:
    "Which cells of `fn` store something other than `new` has, and the difference; empty if none"
    if same_text(fn, new): return ''
    found = []
    for n, (a, b) in enumerate(zip(read_nb(fn).cells, read_nb(new).cells), 1):
        if without_ids(str(a.get('outputs'))) == without_ids(str(b.get('outputs'))): continue
        diff = difflib.unified_diff(readable(a.outputs), readable(b.outputs), 'stored', 'now', lineterm='')
        code = [o for o in a.source.splitlines() if not o.startswith('#|')]
        found.append(f'cell {n} (id {a.id}): {code[0] if code else ""}\n' + '\n'.join('    ' + o for o in diff))
    return '\n'.join(found) or 'its outputs agree but the file is not clean: run nbdev_clean'


def process(fn: Path, args) -> bool:
    "Run one notebook and store or check its outputs; whether all is well"
    start, name = time.time(), fn.relative_to(ROOT)
    with tempfile.TemporaryDirectory() as tmp:
        new = Path(tmp) / fn.name
        if problem := execute_apart(fn, new, args): print(f'FAILED {name}\n{problem}', flush=True)
        elif not (problem := compare(fn, new)): print(f'ok     {name} ({time.time() - start:.0f} s)', flush=True)
        elif args.check and (there := stored_elsewhere(fn)):
            problem = print(f'ran    {name} ({time.time() - start:.0f} s), not as stored on {there}:\n{problem}', flush=True)
        elif args.check: print(f'STALE  {name}\n{problem}', flush=True)
        else:
            fn.write_text(new.read_text(encoding='utf-8'), encoding='utf-8')
            problem = print(f'stored {name} ({time.time() - start:.0f} s)', flush=True)
    return not problem


def main():
    "The command line"
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('notebooks', nargs='*', type=Path, help='all of them if none is named')
    p.add_argument('--check', action='store_true', help='store nothing, fail where an output changed')
    p.add_argument('--flags', default='', help='flags whose cells are run after all, such as "slow cuda"')
    p.add_argument('--timeout', type=int, default=1200, help='seconds a notebook may take')
    p.add_argument('--workers', type=int, default=1, help='notebooks run at once')
    p.add_argument('--into', type=Path, help=argparse.SUPPRESS)  # how this script calls itself for one notebook
    args = p.parse_args()
    files = [f.resolve() for f in args.notebooks]
    os.chdir(ROOT)
    sys.path[0] = str(ROOT)  # in place of tools/, which notebooks have no business with
    if args.into: return write_nb(execute(files[0], set(get_config().tst_flags.split()) - set(args.flags.split())), args.into)
    files = files or sorted((f.resolve() for f in nbglob(as_path=True)), key=lambda f: ('tutorials' not in f.parts, f))  # the longest first, so that workers end together
    with ThreadPoolExecutor(args.workers) as pool: good = list(pool.map(lambda f: process(f, args), files))
    if not all(good):
        sys.exit(f'{good.count(False)} of {len(good)} notebooks need attention'
                 + ('; where an output changed on purpose, run tools/run_nbs.py and commit' if args.check else ''))


if __name__ == '__main__': main()
