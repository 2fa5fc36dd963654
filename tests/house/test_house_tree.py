from __future__ import annotations

from pathlib import Path

import pytest
from house_tree import ROOT, covered, drawn_tree, existing, tracked_files, wanted

EXAMPLE = """
text
<!-- tree -->
```text
README.md             what it is
src/carnac/           the package
  cli.py              few verbs;  lazy imports
  web/                pages to documents
    walk.py           one walk

  __main__.py         python -m carnac
scripts/
```
<!-- /tree -->
"""


def test_a_tree_is_read_back() -> None:
    assert drawn_tree(EXAMPLE) == {
        "README.md": "what it is",
        "src/carnac/": "the package",
        "src/carnac/cli.py": "few verbs;  lazy imports",
        "src/carnac/web/": "pages to documents",
        "src/carnac/web/walk.py": "one walk",
        "src/carnac/__main__.py": "python -m carnac",
        "scripts/": "",
    }


@pytest.mark.parametrize("line", ["      too deep.py  x", " odd.py  x", "two words.py", "README.md  again"])
def test_a_line_that_is_no_tree_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"not a line|drawn twice"):
        drawn_tree(EXAMPLE.replace("scripts/", line))


def test_what_must_be_named() -> None:
    names = [
        "README.md",
        ".gitignore",
        ".ci/run",
        "src/carnac/py.typed",
        "src/carnac/web/__init__.py",
        "src/carnac/web/walk.py",
        "recipes/tiny/data/a.warc.gz",
        "docs/01-web.md",
        "docs/decisions/1.md",
        "tests/web/test_web.py",
    ]
    assert wanted(map(Path, names)) == {
        "README.md",
        ".ci/",
        "src/",
        "src/carnac/web/",
        "src/carnac/web/walk.py",
        "recipes/",
        "recipes/tiny/",
        "recipes/tiny/data/",
        "docs/",
        "docs/01-web.md",
        "tests/",
    }
    assert covered("src/", ["src/carnac/"])
    assert not covered("src/carnac/web/walk", ["src/carnac/web/walk.py"])


def test_the_tree_in_the_readme_is_the_tree() -> None:
    files = tracked_files()
    drawn = drawn_tree((ROOT / "README.md").read_text())
    assert sorted(path for path in wanted(files) if not covered(path, drawn)) == [], "not drawn"
    assert sorted(set(drawn) - existing(files)) == [], "drawn, but not there"
    assert sorted(path for path, phrase in drawn.items() if not phrase) == [], "drawn without a phrase"
