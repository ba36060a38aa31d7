"""Build README.md and the docs site from the notebooks, on machines without Quarto.

    python tools/site.py            the site in _docs/, then resolve every link in it
    python tools/site.py --readme   README.md, from nbs/index.ipynb
    python tools/site.py --check    write nothing, fail where README.md is not what --readme would write

nbdev prepares the notebooks (it documents what they export and links `names` in prose) and smalldocs, a pure-Python
reader of `_quarto.yml`, lays out the pages. With Quarto at hand, `nbdev_docs` builds the same site from the same files.
"""
import argparse
import base64
import difflib
import os
import posixpath
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from html.parser import HTMLParser
from importlib.metadata import entry_points
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import yaml
from execnb.nbio import read_nb
from nbdev.config import get_config
from nbdev.doclinks import nbglob
from nbdev.processors import FilterDefaults
from nbdev.quarto import refresh_quarto_yml
from nbdev.serve import proc_nbs

ROOT = Path(__file__).resolve().parents[1]
README, PICTURES = ROOT/'README.md', ROOT/'index_files'
LINK = re.compile(r'(\]\(|(?:src|href)=")(?![a-z]+:|[#/])([^)"\s]+)')  # a relative link, in Markdown or HTML


# README.md

def relink(markdown: str, folder: str) -> str:
    "`markdown` of a file in `folder`, with its relative links as seen from the repository root; code is left alone"
    lines, in_code = markdown.splitlines(), False
    for i, line in enumerate(lines):
        if line.lstrip().startswith('```'): in_code = not in_code
        elif not in_code: lines[i] = LINK.sub(lambda m: m[1] + posixpath.normpath(posixpath.join(folder, m[2])), line)
    return '\n'.join(lines)


def code_and_options(source: str) -> tuple:
    "The code of a cell, and its `#| key: value` options"
    lines = source.splitlines()
    options = yaml.safe_load('\n'.join(o[2:].strip() for o in lines if o.startswith('#|') and ':' in o)) or {}
    return '\n'.join(o for o in lines if not o.startswith('#|')).strip(), options


def output_markdown(output: dict, alt: str, pictures: dict) -> str:
    "One stored output as Markdown; a picture, `alt` in words, is added to `pictures`, name to bytes"
    data = {k: ''.join(v) if isinstance(v, list) else v for k, v in output.get('data', {}).items()}
    if 'image/png' in data:
        name = f'figure-{len(pictures) + 1}.png'
        pictures[name] = base64.b64decode(data['image/png'])
        return f'![{alt}]({PICTURES.name}/{name})'
    if 'text/markdown' in data: return data['text/markdown'].strip()
    text = data.get('text/plain') or ''.join(output.get('text', ''))
    return f'```\n{text.rstrip()}\n```' if text else ''


def readme() -> tuple:
    "README.md as the index notebook gives it: its text, and its pictures by name"
    cfg = get_config()
    nb, pictures = read_nb(cfg.nbs_path/cfg.readme_nb), {}
    FilterDefaults()(nb)
    front = nb.frontmatter_
    folder = cfg.nbs_path.relative_to(ROOT).as_posix()
    warning = f'<!-- Written by tools/site.py from {folder}/{cfg.readme_nb}: edit that. -->'
    parts = [f"# {front['title']}", warning, front.get('description', '')]
    for cell in nb.cells[2:]:  # after the front matter and the warning that nbdev puts first
        if cell.cell_type == 'markdown': parts.append(relink(cell.source.strip(), folder))
        if cell.cell_type != 'code': continue
        code, options = code_and_options(cell.source)
        if options.get('include') is False: continue
        if code and options.get('echo') is not False: parts.append(f'```python\n{code}\n```')
        shown = cell.get('outputs', []) if options.get('output') is not False else []
        parts += [output_markdown(o, options.get('fig-alt', ''), pictures) for o in shown]
    return '\n\n'.join(p for p in parts if p) + '\n', pictures


def stored_readme() -> tuple:
    "README.md as it is: its text, and its pictures by name"
    return README.read_text(encoding='utf-8') if README.exists() else '', {p.name: p.read_bytes() for p in PICTURES.glob('*')}


def write_readme():
    "Write README.md and its pictures"
    text, pictures = readme()
    README.write_text(text, encoding='utf-8')
    shutil.rmtree(PICTURES, ignore_errors=True)
    for name, content in pictures.items():
        PICTURES.mkdir(exist_ok=True)
        (PICTURES/name).write_bytes(content)
    print(f'README.md: {len(text.splitlines())} lines, {len(pictures)} picture(s)')


def readme_problems() -> list:
    "What keeps README.md from being what the index notebook gives, and its relative links from leading somewhere"
    (text, pictures), (old_text, old_pictures) = readme(), stored_readme()
    diff = difflib.unified_diff(old_text.splitlines(), text.splitlines(), 'README.md', 'nbs/index.ipynb', lineterm='')
    stale = {n for n in pictures.keys() | old_pictures.keys() if pictures.get(n) != old_pictures.get(n)}
    prose = ''.join(text.split('```')[::2])
    dead = [m[2] for m in LINK.finditer(prose) if not (ROOT/unquote(m[2].partition('#')[0])).exists()]
    return [*diff, *(f'README.md: {PICTURES.name}/{n} is not the stored picture' for n in sorted(stale)),
            *(f'README.md: no such file: {d}' for d in dead)]


# The site

def site_class(url: str):
    "The smalldocs site with what nbdev adds to Quarto: pages named by their modules, links between them by full `url`"
    from smalldocs.site import Site, rel  # here, because it needs Python 3.11 and README.md does not

    class NbdevSite(Site):
        def read(self, src):
            page = super().read(src)
            page.out = src.with_name(page.front.get('output-file', page.out.name))  # 00_data.ipynb gives data.html
            return page

        def resolve(self, href, page, record=True):
            if not href.startswith(url): return super().resolve(href, page, record)
            path, _, anchor = href.removeprefix(url).partition('#')  # relative, so that a copy of the site is whole
            return rel(PurePosixPath(path or 'index.html'), page) + (f'#{anchor}' if anchor else '')

    return NbdevSite


def offline_maths(docs: Path) -> str:
    "Copy KaTeX into the site through npm, if that can be; says how maths will render"
    from smalldocs.layout import KATEX
    pages = [p for p in docs.rglob('*.html') if KATEX in p.read_text(encoding='utf-8')]
    if not pages: return 'maths: none on the site'
    folder = docs/'site_libs/katex'
    wanted = re.compile(r'package/dist/(katex\.min\.(?:css|js)|contrib/auto-render\.min\.js|fonts/.*\.woff2)')
    try:
        with tempfile.TemporaryDirectory() as tmp:
            subprocess.run(['npm', 'pack', re.search('katex@[0-9.]+', KATEX)[0]], cwd=tmp, check=True, timeout=60,
                           stdin=subprocess.DEVNULL, capture_output=True)
            with tarfile.open(next(Path(tmp).glob('*.tgz'))) as tar:
                for member in tar:
                    if not (m := wanted.fullmatch(member.name)): continue
                    (folder/m[1]).parent.mkdir(parents=True, exist_ok=True)
                    (folder/m[1]).write_bytes(tar.extractfile(member).read())
    except (OSError, subprocess.SubprocessError, StopIteration, tarfile.TarError):
        return f'maths: {len(pages)} page(s) load KaTeX from the network and show TeX source without it (npm could not fetch it)'
    for p in pages:
        here = os.path.relpath(folder, p.parent)
        p.write_text(p.read_text(encoding='utf-8').replace(KATEX, here), encoding='utf-8')
    return f'maths: renders offline on {len(pages)} page(s)'


def build() -> list:
    "Build the site into the docs folder; what is wrong with it"
    cfg = get_config()
    refresh_quarto_yml()
    # A relative path: nbdev would skip every notebook if a folder above the repository had a name with a leading dot
    cache = proc_nbs(cfg.nbs_path.relative_to(ROOT), n_workers=min(4, os.cpu_count()), force=True)
    from smalldocs.config import load
    site = site_class(f'{cfg.doc_host}{cfg.doc_baseurl}/')(load(cache), quiet=True)
    site.build()
    shutil.rmtree(cfg.doc_path, ignore_errors=True)
    shutil.move(site.out, cfg.doc_path)
    shutil.rmtree(cache)  # a stale one would be taken for fresh
    print(offline_maths(cfg.doc_path))
    pages = list(cfg.doc_path.rglob('*.html'))
    print(f'site: {len(pages)} pages in {cfg.doc_path.relative_to(ROOT)}/')
    # `output-file` is honoured above; broken links are found in the pages themselves
    problems = [w for w in site.warnings if 'output-file' not in w and 'broken link' not in w]
    if len(pages) != len(nbglob()): problems.append(f'{len(nbglob())} notebooks gave {len(pages)} pages')
    return problems + broken_links(cfg.doc_path, f'{cfg.doc_host}{cfg.doc_baseurl}/')


class Page(HTMLParser):
    "What a page offers to link to (`ids`) and what it links to (`links`)"
    def __init__(self, text: str):
        super().__init__()
        self.ids, self.links = {'', 'top'}, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        for key, value in attrs:
            if key in ('id', 'name'): self.ids.add(value)
            if key in ('href', 'src') and value: self.links.append(value)


def broken_links(docs: Path, url: str) -> list:
    "Every link and image of the pages under `docs`, itself published at `url`, that leads nowhere within them"
    pages = {p: Page(p.read_text(encoding='utf-8')) for p in sorted(docs.rglob('*.html'))}
    broken = []
    for p, page in pages.items():
        for link in sorted(set(page.links)):
            own = link.startswith(url)
            parts = urlsplit(link.removeprefix(url) if own else link)
            if parts.scheme or parts.netloc: continue  # elsewhere, or data:
            target = ((docs if own else p.parent)/unquote(parts.path)).resolve() if parts.path or own else p
            if target.is_dir(): target = target/'index.html'
            anchor = unquote(parts.fragment)
            missing = 'file' if not (target.is_relative_to(docs) and target.exists()) else (
                'anchor' if target in pages and anchor not in pages[target].ids else '')
            if missing: broken.append(f'{p.relative_to(docs)}: no {missing} for {link}')
    return broken


def main():
    "The command line"
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--readme', action='store_true', help='write README.md')
    p.add_argument('--check', action='store_true', help='compare README.md')
    args = p.parse_args()
    os.chdir(ROOT)
    sys.path[0] = str(ROOT)
    lib = get_config().lib_path.name
    if not any(e.name == lib for e in entry_points(group='nbdev')):
        sys.exit(f'{lib} is not installed, so names in prose would not become links: pip install -e ".[dev]"')
    if args.readme: return write_readme()
    problems = readme_problems() if args.check else build()
    verdict = 'README.md is out of date: run tools/site.py --readme and commit' if args.check else f'{len(problems)} problem(s)'
    if problems: sys.exit('\n'.join([*problems, verdict]))
    if args.check: print('README.md is in sync')


if __name__ == '__main__': main()
