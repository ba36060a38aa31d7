"""Kill, damage and starve runs, and see that nothing is lost and nothing wrong is read.

    python tests/soak.py                          50 kills of each kind of work, 10,000 damaged or forged files, full and read-only disks
    python tests/soak.py --kills 3 --files 300    what pytest does
"""
import argparse
import json
import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import tempfile
import time
import warnings
from hashlib import sha256
from pathlib import Path

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gan_influence import log
from gan_influence.all import ALL, FCGAN, GAN, R1, Adam, Binomial, Every, Normal2D, Root, Run, RunError, Scores, adaptive_greedy, chance, cleanse, influence, retrain, retrain_many, train
from gan_influence.core import flatten
from gan_influence.run import fingerprint_state
from gan_influence.log import record_hash

GB = 2**30


def gan(): return GAN(*FCGAN(), z_dim=10, opt_g=Adam(.01, (.5, .9)), opt_d=Adam(.01, (.5, .9)), alternating=True, ema=.9, penalty=R1(.1))


def data(n=400): return Normal2D(n, 40, 40)


def opened(path): return Run.open(path, gan(), data().train)


# --- work that is killed; each returns a fingerprint of all its result -----------------------------------------------
def job_train(path): return train(gan(), data().train, 12, 20, path=path, log=Every(7)).key
def job_train_thinned(path): return train(gan(), data().train, 12, 20, path=path, log=Binomial(4)).key
def job_influence(path): return sha256(influence(opened(path), ALL(data().valid), 6, replay=Root()).values.numpy().tobytes()).hexdigest()
def job_retrain(path): return fingerprint_state(retrain(opened(path), without=[1, 2, 3]).state)


def job_retrain_many(path):
    weights = 1 - torch.eye(400, dtype=torch.float64)[:6]
    return ' '.join(fingerprint_state(m.state) for m in retrain_many(opened(path), weights, 4, chunk=3, draw=[0, 0, 0, 1, 1, 2]))


def job_cleanse(path):
    table = cleanse(opened(path), {k: chance(400, seed) for seed, k in enumerate('ab')}, [5, 20], ALL(data().test), epochs=3, draws=2)
    return table.to_json(double_precision=15)


def job_adaptive(path): return str(adaptive_greedy(opened(path), ALL(data().valid), [5, 20, 50], 3).tolist())


JOBS = [job_train, job_train_thinned, job_influence, job_retrain, job_retrain_many, job_cleanse, job_adaptive]


def in_child(job, path, result) -> int:
    "Start a job in a process of its own; it writes what it returns"
    pid = os.fork()
    if pid: return pid
    try:
        log.SAVE_EVERY = 0.
        result.write_text(job(path))
        os._exit(0)
    except BaseException as e:
        print(f'{job.__name__}: {type(e).__name__}: {e}', flush=True)
        os._exit(1)


def start(job, folder) -> Path:
    "The run directory that a job begins with"
    if job not in (job_train, job_train_thinned): train(gan(), data().train, 12, 20, path=folder/'run')
    return folder/'run'


def kill(job, kills: int, seed: int):
    "Kill a job at random moments until it has been killed so often; what it then returns must be what it returns undisturbed"
    dice, killed, begun = random.Random(seed), 0, time.monotonic()
    with tempfile.TemporaryDirectory() as tmp:
        folder = Path(tmp)
        log.SAVE_EVERY = 30.
        (folder/'whole').mkdir()
        clock = time.monotonic()
        expected = job(start(job, folder/'whole'))
        length = time.monotonic() - clock
        while killed < kills:  # one after another, each killed several times on its way
            shutil.rmtree(folder/'killed', ignore_errors=True)
            (folder/'killed').mkdir()
            path, result = start(job, folder/'killed'), folder/'killed'/'result'
            while not result.exists() or not result.read_text():
                pid = in_child(job, path, result)
                deadline = time.monotonic() + dice.uniform(0, length / 2) if killed < kills else float('inf')
                while (done := os.waitpid(pid, os.WNOHANG))[0] == 0 and time.monotonic() < deadline: time.sleep(.001)
                if done[0] == 0:
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                    killed += 1
                else: assert done[1] == 0, f'{job.__name__} failed after {killed} kills'
                if (path/'run.json').exists(): opened(path).state()  # whole at any moment
            assert result.read_text() == expected, f'{job.__name__}: another result after kills'
            left = [p for p in path.rglob('*') if p.is_file() and p.suffix not in ('.part', '.safetensors') and p.name != 'run.json']
            assert not left, left
    print(f'{job.__name__}: {killed} kills, always the same bits ({time.monotonic() - begun:.0f} s)', flush=True)


# --- damaged and forged files ------------------------------------------------------------------------------------
anything = st.recursive(st.none() | st.booleans() | st.integers() | st.integers(-2, 70) | st.integers(10**18, 10**40) | st.floats() | st.text(max_size=9) | st.sampled_from(['..', '/etc/passwd', '../../x', '0', '-1', '6']),
                        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.sampled_from(['__metadata__', 'sha256', '0']), inner, max_size=3), max_leaves=5)
places = st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=4)
damages = st.one_of(
    st.tuples(st.just('flip'), places, st.integers(1, 255)), st.tuples(st.just('cut'), st.floats(0, 1), st.none()), st.tuples(st.just('insert'), places, st.binary(min_size=1, max_size=40)),
    st.tuples(st.just('swap'), st.integers(0, 9), st.none()), st.tuples(st.just('delete'), st.none(), st.none()), st.tuples(st.just('edit'), places, anything))


def edited(tree, path: list, value):
    "A JSON tree with one place changed: `path` are shares of the way through each level"
    if not isinstance(tree, dict | list) or not tree or not path: return value
    keys = list(tree) if isinstance(tree, dict) else range(len(tree))
    key = keys[int(path[0] * len(keys))]
    tree = tree.copy()
    tree[key] = edited(tree[key], path[1:], value)
    return tree


def damaged(content: bytes, how, others: list) -> bytes | None:
    "A file's content after damage; None if it is gone"
    kind, where, what = how
    if kind == 'delete': return None
    if kind == 'cut': return content[:int(where * len(content))]
    if kind == 'swap': return others[where % len(others)]
    if kind == 'edit':
        try:
            if content[:1] == b'{': return json.dumps(edited(json.loads(content), where, what)).encode()
            size = struct.unpack('<Q', content[:8])[0]
            header = json.dumps(edited(json.loads(content[8:8 + size]), where, what)).encode()
            return struct.pack('<Q', len(header)) + header + content[8 + size:]
        except (ValueError, struct.error): return content[::-1]
    for share in where:
        i = int(share * len(content))
        content = content[:i] + (what + content[i:] if kind == 'insert' else bytes([content[i] ^ what]) + content[i + 1:])
    return content


def sealed(path: Path):
    "Compute every checksum anew, as a stranger can"
    def seal(file, change):
        try:
            words = json.loads(file.read_bytes())
            change(words)
            file.write_text(json.dumps(words))
        except (ValueError, TypeError, KeyError, AttributeError, OSError, RecursionError): pass
    def record(words):
        words.pop('sha256', None)
        for k in words['states'] if isinstance(words.get('states'), dict) else []:
            file = path/'states'/f'step-{k:0>8}.safetensors'
            if file.exists(): words['states'][k] = sha256(file.read_bytes()).hexdigest()
        words['sha256'] = record_hash(words)
    seal(path/'run.json', record)
    def scores(words):
        words['csv'] = sha256((path/'scores.csv').read_bytes()).hexdigest()
        words.pop('sha256', None)
        words['sha256'] = record_hash(words)
    seal(path/'scores.csv.json', scores)
    for file in (path/'unfinished').iterdir():
        content = file.read_bytes()[64:]
        file.write_bytes(sha256(content).hexdigest().encode() + content)


def read_all(path: Path) -> str:
    "All that a reader reads of a run directory, as one fingerprint"
    tiny = GAN(*FCGAN(width_g=3, width_d=3), z_dim=10, opt_d=Adam())
    points = data(12).train
    run = Run.open(path, tiny, points)
    scores = Scores.load(path/'scores.csv', points)
    states = [run.state(e) for e in (0, run.epochs - 1, run.epochs)]
    retrained = retrain(run, without=[0])  # goes on from what is unfinished
    return ' '.join([*map(fingerprint_state, [*states, retrained.state]), fingerprint_state(dict(x=scores.values)), json.dumps(run.history)])


def small_run(path: Path):
    "A run directory with one of every kind of file"
    tiny = GAN(*FCGAN(width_g=3, width_d=3), z_dim=10, opt_d=Adam())
    run = train(tiny, data(12).train, 2, 4, path=path)
    influence(run, ALL(data().valid), 1).save(path/'scores.csv')
    log.SAVE_EVERY = 0.
    whole, log.Unfinished.done = log.Unfinished.done, lambda self: None
    retrain(run, without=[0])
    log.SAVE_EVERY, log.Unfinished.done = 30., whole


def fuzz(files: int):
    "Damage or forge one file after another: what is read is either an error of one line or the truth; what is forged with right checksums does no harm"
    said = {}
    with tempfile.TemporaryDirectory() as tmp:
        base, path = Path(tmp)/'base', Path(tmp)/'run'
        small_run(base)
        names = sorted(p.relative_to(base) for p in base.rglob('*') if p.is_file())
        contents = {n: (base/n).read_bytes() for n in names}
        truth = read_all(shutil.copytree(base, path))

        @settings(max_examples=files, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(st.sampled_from(names), damages, st.booleans())
        def once(name, how, forged):
            shutil.rmtree(path)
            shutil.copytree(base, path)
            content = damaged(contents[name], how, list(contents.values()))
            if content is None: (path/name).unlink()
            else: (path/name).write_bytes(content)
            if forged: sealed(path)
            try: outcome = 'the truth' if read_all(path) == truth else 'another'
            except (ValueError, ArithmeticError) as e:
                assert '\n' not in str(e), e
                outcome = type(e).__name__
            # A stranger who computes the checksums anew may say what he likes; damage may not
            assert forged or outcome in ('the truth', 'RunError'), (name, how, outcome)
            assert {p.name for p in Path(tmp).iterdir()} == {'base', 'run'}
            said[outcome] = said.get(outcome, 0) + 1
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            limit = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize() + 2 * GB
            resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
            once()
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(f'{sum(said.values())} damaged or forged files: {said}', flush=True)


# --- disks ---------------------------------------------------------------------------------------------------------
def disks():
    "A disk that is full, then one that is read-only; needs the right to mount"
    with tempfile.TemporaryDirectory() as tmp:
        mount = lambda *how: subprocess.run(['mount', *how, tmp], check=True)
        try: mount('-t', 'tmpfs', '-o', 'size=500k', 'tmpfs')
        except (OSError, subprocess.CalledProcessError): return print('disks: no right to mount, not tried')
        try:
            path = Path(tmp)/'run'
            try: train(gan(), data().train, 40, 20, path=path)
            except RunError as e: assert 'No space left on device' in str(e) and '\n' not in str(e)
            else: raise AssertionError('the disk was not full')
            finished = opened(path).epochs
            assert 0 < finished < 40
            log.SAVE_EVERY = 0.
            with warnings.catch_warnings(record=True) as said: values = influence(opened(path), ALL(data().valid), 1).values
            log.SAVE_EVERY = 30.
            assert len(said) <= 1
            mount('-o', 'remount,size=50m')
            run = train(gan(), data().train, 40, 20, path=path)
            expected = train(gan(), data().train, 40, 20)
            assert all(torch.equal(a, b) for a, b in zip(flatten(run.state()).values(), flatten(expected.state()).values()))
            mount('-o', 'remount,ro')
            run = opened(path)
            assert influence(run, ALL(data().valid), 1).values.shape == values.shape
            retrain(run, without=[0], epochs=1)
            try: train(gan(), data().train, 41, 20, path=path)
            except RunError as e: assert 'Read-only file system' in str(e)
            else: raise AssertionError('the disk was not read-only')
            assert opened(path).epochs == 40
        finally: subprocess.run(['umount', tmp], check=True)
    print(f'disks: full after {finished} epochs, one line, and all 40 after there was space; read-only: read, and refused', flush=True)


if __name__ == '__main__':
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument('--kills', type=int, default=50, help='of each kind of work')
    args.add_argument('--files', type=int, default=10_000, help='to damage or forge')
    args.add_argument('--seed', type=int, default=0, help='of the moments')
    a = args.parse_args()
    torch.set_num_threads(1)
    for job in JOBS: kill(job, a.kills, a.seed)
    fuzz(a.files)
    disks()
    print('nothing was lost')
