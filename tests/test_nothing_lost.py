"What a kill, a full disk or a damaged file may cost: one clear error, and no finished epoch."
import errno
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import safetensors.torch
import torch

from gan_influence import influence as walking, log, trust as trusting
from gan_influence.all import ALL, FCGAN, GAN, SGD, Normal2D, Run, RunError, flow, influence, retrain, train, trust
from gan_influence.core import flatten
from gan_influence.cli import main

SETUP = ('from gan_influence.all import *; import sys\n'
         'gan = GAN(*FCGAN(), z_dim=10, opt_g=SGD(.02), opt_d=SGD(.02)); data = Normal2D(1000, 50, 50)\n')


def setup():
    return GAN(*FCGAN(), z_dim=10, opt_g=SGD(.02), opt_d=SGD(.02)), Normal2D(1000, 50, 50)


def files(path): return {p.relative_to(path): p.read_bytes() for p in sorted(path.rglob('*')) if p.is_file()}


def same(a, b): return all(torch.equal(p, q) for p, q in zip(flatten(a).values(), flatten(b).values()))


def test_a_killed_training_continues_to_the_same_bits(tmp_path):
    gan, data = setup()
    train(gan, data.train, 40, 20, path=tmp_path/'whole')
    command = [sys.executable, '-c', SETUP + "train(gan, data.train, 40, 20, path=sys.argv[1])", str(tmp_path/'killed')]
    survived = []
    for wait in (.0, .13, .29):
        process = subprocess.Popen(command)
        while process.poll() is None and not (tmp_path/'killed'/'run.json').exists(): time.sleep(.01)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL); process.wait()
        survived.append(Run.open(tmp_path/'killed', gan, data.train).epochs)
    assert survived == sorted(survived) and survived[0] < 40
    subprocess.run(command, check=True)
    killed, whole = (Run.open(tmp_path/n, gan, data.train) for n in ('killed', 'whole'))
    for e in range(41): assert same(killed.state(e), whole.state(e))
    assert killed.history == whole.history


def test_a_full_disk_is_one_line_and_keeps_what_was_finished(tmp_path, monkeypatch):
    gan, data = setup()
    train(gan, data.train, 2, 20, path=tmp_path/'run')
    before = files(tmp_path)
    def full(_): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(RunError, match='No space left on device.*Free some space'): train(gan, data.train, 4, 20, path=tmp_path/'run')
    assert files(tmp_path) == before
    monkeypatch.undo()
    assert same(train(gan, data.train, 4, 20, path=tmp_path/'run').state(), train(gan, data.train, 4, 20).state())


@pytest.mark.parametrize('damage', ['truncated', 'changed', 'missing', 'another state', 'record truncated', 'record of something else', 'record missing'])
def test_a_damaged_run_is_named_and_never_used(tmp_path, damage):
    gan, data = setup()
    path = tmp_path/'run'
    train(gan, data.train, 3, 20, path=path)
    state, record = path/'states'/'step-00000100.safetensors', path/'run.json'
    content = state.read_bytes()
    if damage == 'truncated': state.write_bytes(content[:len(content) // 2])
    if damage == 'changed': state.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    if damage == 'missing': state.unlink()
    if damage == 'another state': state.write_bytes((path/'states'/'step-00000050.safetensors').read_bytes())
    if damage == 'record truncated': record.write_text(record.read_text()[:100])
    if damage == 'record of something else': record.write_text('[]')
    if damage == 'record missing': record.unlink()
    before = files(path)
    with pytest.raises(RunError, match='run.json' if 'record' in damage else 'step-00000100') as e:
        influence(Run.open(path, gan, data.train), ALL(data.valid), epochs=1)
    assert '\n' not in str(e.value) and files(path) == before


def test_bad_input_leaves_the_run_directory_as_it_was(tmp_path):
    gan, data = setup()
    path = tmp_path/'run'
    run = train(gan, data.train, 2, 20, path=path)
    before, other = files(path), Normal2D(1000, 50, 50, seed=1)
    nan = data.train.clone(); nan[5] = torch.nan
    for what, call in {
            'not the one the run was trained on': lambda: Run.open(path, gan, other.train),
            'not the one': lambda: train(gan, other.train, 2, 20, path=path),
            'does not depend on the generator': lambda: influence(run, lambda G, D: torch.ones(())),
            '2 logged epochs, 3 were asked for': lambda: influence(run, ALL(data.valid), epochs=3),
            'choose bs from 1 to 1000': lambda: train(gan, data.train, 2, 1001, path=path),
            'NaN or infinity, the first at index 5': lambda: train(gan, nan, 2, 20, path=path),
            'from 0 to 999': lambda: retrain(run, without=[1000])}.items():
        with pytest.raises(ValueError, match=what) as e: call()
        assert '\n' not in str(e.value)
    assert files(path) == before


@pytest.mark.parametrize('forged', [
    dict(data='MNIST'), dict(nets=[]), dict(nets='FCGAN'), dict(opt_g=3), dict(gan=dict(loss='mse')), dict(nets=dict(name='os.system', z_dim=10)),
    dict(data=dict(data='2d-normal', train=10**15, valid=5, test=5)), {}])
def test_a_forged_recipe_is_one_line(tmp_path, capsys, forged):
    "Names that are not known, numbers that are too large: said, not executed"
    gan, data = setup()
    recipe = dict(data=data.recipe, nets=dict(name='FCGAN', z_dim=10), opt_g=dict(name='SGD', lr=.02), opt_d=dict(name='SGD', lr=.02), gan={})
    train(gan, data.train, 1, 20, path=tmp_path/'run', recipe={**recipe, **forged} if forged else {})
    assert main(['score', str(tmp_path/'run')]) == 2
    said = capsys.readouterr().err
    assert said.startswith('gan_influence: ') and said.count('\n') == 1


def test_scores_of_an_earlier_state_are_refused(tmp_path, capsys):
    "Trained further after scoring: the old scores are not the new model's"
    path = str(tmp_path/'run')
    np.save(tmp_path/'x.npy', setup()[1].train.numpy())
    trained = ['train', path, '--data', str(tmp_path/'x.npy'), '--bs', '50', '--epochs']
    assert main([*trained, '2']) == main(['score', path, '--epochs', '1']) == main([*trained, '3']) == 0
    assert main(['cleanse', path, '--sizes', '5']) == 2 and 'trained further' in capsys.readouterr().err


def test_kills_and_damage_of_every_kind():
    "A few of what `python tests/soak.py` does many times"
    soak = subprocess.run([sys.executable, os.path.join(os.path.dirname(__file__), 'soak.py'), '--kills', '3', '--files', '300'], capture_output=True, text=True)
    assert soak.returncode == 0 and soak.stdout.endswith('nothing was lost\n'), soak.stdout + soak.stderr


def test_a_planted_link_is_not_followed(tmp_path):
    "A stranger's run directory cannot make the library write or delete outside it"
    gan, data = setup()
    train(gan, data.train, 1, 20, path=tmp_path/'run')
    outside = tmp_path/'outside'
    (tmp_path/'run'/'states').rename(outside)
    before = files(outside)
    (tmp_path/'run'/'states').symlink_to(outside)
    with pytest.raises(RunError, match='states is a link'): train(gan, data.train, 2, 20, path=tmp_path/'run')
    assert files(outside) == before


def test_a_run_stays_where_it_is_when_the_working_directory_changes(tmp_path, monkeypatch):
    gan, data = setup()
    monkeypatch.chdir(tmp_path)
    run = train(gan, data.train, 2, 20, path='run')
    (tmp_path/'elsewhere').mkdir()
    monkeypatch.chdir(tmp_path/'elsewhere')
    influence(run, ALL(data.valid), 1)
    assert run.path == tmp_path/'run' and same(run.state(), train(gan, data.train, 2, 20).state())
    assert not files(tmp_path/'elsewhere')


def test_work_interrupted_at_its_very_end_is_still_finished(tmp_path, monkeypatch):
    gan, data = setup()
    run = train(gan, data.train, 2, 20, path=tmp_path/'run')
    expected = influence(run, ALL(data.valid)).values
    monkeypatch.setattr(log, 'SAVE_EVERY', 0.)
    with monkeypatch.context() as m:
        def stop(self): raise KeyboardInterrupt
        m.setattr(log.Unfinished, 'done', stop)
        with pytest.raises(KeyboardInterrupt): influence(run, ALL(data.valid))
        with pytest.raises(KeyboardInterrupt): retrain(run, without=[1])
    assert torch.equal(influence(run, ALL(data.valid)).values, expected)
    assert same(retrain(run, without=[1]).state, retrain(train(gan, data.train, 2, 20), without=[1]).state)
    assert not (tmp_path/'run'/'unfinished').exists()


def test_a_stopped_walk_goes_on_where_it_stopped(tmp_path, monkeypatch):
    "Of `influence`, and of `flow` by both routes: with the same bits, and no step back twice"
    gan, data = setup()
    run, steps = train(gan, data.train, 2, 20, path=tmp_path/'run'), 0
    metrics = [ALL(data.valid), ALL(data.valid, seed=1, name='other latents')]
    walks = [lambda: influence(run, metrics).values, lambda: torch.stack([(f := flow(run, metrics)).by_epoch, f.open_loop]), lambda: flow(run, metrics).growth]
    expected = [walk() for walk in walks]
    whole = walking.backtrack
    def counted(*args, **kwargs):
        nonlocal steps
        if steps == stop: raise KeyboardInterrupt
        steps += 1
        return whole(*args, **kwargs)
    monkeypatch.setattr(log, 'SAVE_EVERY', 0.)
    monkeypatch.setattr(walking, 'backtrack', counted)
    for walk, there, ways in zip(walks, expected, (1, 2, 2)):
        stop, steps = 7, 0
        with pytest.raises(KeyboardInterrupt): walk()
        stop = None
        assert torch.equal(walk(), there) and steps <= ways * run.steps + 1
        assert not (tmp_path/'run'/'unfinished').exists()


def test_a_stopped_report_keeps_what_removals_said(tmp_path, monkeypatch):
    gan, data = setup()
    run, asked = train(gan, data.train, 3, 20, path=tmp_path/'run'), []
    report = lambda: trust(run, ALL(data.valid), 3, ks=[1, 2, 3], probes=10, variants=2, beyond=True).table
    expected, whole = report(), trusting._against_removals
    def counted(run, metric, scores, probes, epochs, *rest):
        if stop == epochs: raise KeyboardInterrupt
        asked.append(epochs)
        return whole(run, metric, scores, probes, epochs, *rest)
    monkeypatch.setattr(trusting, '_against_removals', counted)
    stop = 3
    with pytest.raises(KeyboardInterrupt): report()
    stop = None
    assert report().equals(expected) and asked == [1, 2, 3]
    assert not (tmp_path/'run'/'unfinished').exists()


def test_a_diverging_retraining_diverges_again(tmp_path, monkeypatch):
    "What is not finite is never kept as a state to go on from"
    monkeypatch.setattr(log, 'SAVE_EVERY', 0.)
    gan, data = setup()
    run = train(gan, data.train, 2, 20, path=tmp_path/'run')
    weights = torch.ones(1000, dtype=torch.float64)
    weights[run.batches[10].idx[0]] = 1e308
    said = []
    for _ in range(2):
        with pytest.raises(ArithmeticError) as e: retrain(run, weights=weights)
        said.append(str(e.value))
    assert said[0] == said[1]


def test_an_overflow_is_noticed_on_the_way_and_never_kept(tmp_path, monkeypatch):
    "Within a hundred steps, not at the end; and a continuation would start from finite numbers"
    monkeypatch.setattr(log, 'SAVE_EVERY', 0)
    run = train(GAN(*FCGAN(), z_dim=10, opt_g=SGD(.05), opt_d=SGD(.05)), Normal2D(60, 20, 20).train, 100, 20, path=tmp_path/'run')
    calls, pull = [], walking.backtrack
    def overflowing(*args, **kwargs):
        adjoints, scores = pull(*args, **kwargs)
        calls.append(1)
        return ([walking.map_tensors(lambda p: p * float('inf'), u) for u in adjoints] if len(calls) == 5 else adjoints), scores
    monkeypatch.setattr(walking, 'backtrack', overflowing)
    with pytest.raises(ArithmeticError, match='beyond all numbers'): influence(run, ALL(Normal2D(60, 20, 20).valid))
    assert 5 < len(calls) <= 105 < run.steps
    [file] = (tmp_path/'run'/'unfinished').iterdir()
    kept = safetensors.torch.load(file.read_bytes()[64:])  # after its checksum
    assert all(p.isfinite().all() for p in kept.values() if p.is_floating_point())
