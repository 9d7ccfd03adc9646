"""What mkdocs does here beyond its own: pages keep the places that they have in the repository.

README.md and the examples' READMEs lie outside docs/, and link to pages in it by relative paths, as GitHub needs them.
So the site has the same folders as the repository: README.md is its first page, docs/train.md is docs/train.html, and
files that a page links to (scripts, pictures) are copied to their own places.
"""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
OUTSIDE = ("*.md", "examples/*/*.md", "preprocess/*.md", "tests/benchmarks/*.md")
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    docs = Path(config.docs_dir)

    def placed(path: Path) -> File:
        return File(path.relative_to(ROOT).as_posix(), str(ROOT), config.site_dir, config.use_directory_urls)

    pages = [docs / file.src_uri for file in files.documentation_pages()]
    pages += [path for pattern in OUTSIDE for path in sorted(ROOT.glob(pattern))]
    linked = {
        (page.parent / target).resolve()
        for page in pages
        for target in LINK.findall(page.read_text(encoding="utf-8"))
        if not target.endswith(".md")
    }
    others = sorted(path for path in linked if path.is_file() and path.is_relative_to(ROOT))
    theme = [file for file in files if file.src_dir is None or Path(file.src_dir) != docs]
    return Files([*theme, *map(placed, [*pages, *others])])
