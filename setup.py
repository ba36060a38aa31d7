"Packaging: every value lives in `settings.ini`, which nbdev reads too."
import re
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

parser = ConfigParser(delimiters=['='])
parser.read('settings.ini', encoding='utf-8')
cfg = parser['DEFAULT']
lib = cfg['lib_path']

# README links are relative to the repository; away from it they need its address. Code, between fences, stays as it is
parts = Path('README.md').read_text(encoding='utf-8').split('```')
for before, view in (r'(!\[[^\]]*\]\(|src=")', 'raw'), (r'(\]\()', 'blob'):
    parts[::2] = [re.sub(before + r'(?![a-z]+:|#)', rf"\1{cfg['git_url']}/{view}/{cfg['branch']}/", p) for p in parts[::2]]

setup(
    name=cfg['lib_name'], version=cfg['version'], description=cfg['description'], keywords=cfg['keywords'].split(),
    author=cfg['author'], author_email=cfg['author_email'], url=cfg['git_url'],
    license_expression={'apache2': 'Apache-2.0'}[cfg['license']],
    project_urls={'Documentation': cfg['doc_host'] + cfg['doc_baseurl']},
    long_description='```'.join(parts), long_description_content_type='text/markdown',
    classifiers=['Development Status :: 4 - Beta', f"Intended Audience :: {cfg['audience']}", 'Typing :: Typed',
                 'Programming Language :: Python :: 3', 'Topic :: Scientific/Engineering :: Artificial Intelligence'],
    packages=find_packages(include=[lib, f'{lib}.*']), package_data={lib: cfg['package_data'].split()}, zip_safe=False,
    python_requires=f">={cfg['min_python']}", install_requires=cfg['requirements'].split(),
    extras_require={'dev': cfg['dev_requirements'].split()},
    entry_points={'console_scripts': cfg['console_scripts'].split(),
                  'nbdev': [f'{lib}={lib}._modidx:d']})  # lets nbdev turn `names` in prose into links
