"""The dashboard as it is served: whole, under a policy that lets nothing foreign run.

What it looks like is not tested here: that needs a browser. What the pages may rely on is.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from projections.http import PAGES, create_app
from projections.services import Services
from projections.sqlite_store import SqliteStore
from tests.projections.asking import Caller

SCRIPTS = sorted(path.name for path in PAGES.glob("*.js"))


@pytest.fixture
def client(tmp_path: Path) -> Caller:
    return Caller(create_app(Services(SqliteStore(tmp_path / "rows.sqlite"), "local")))


def test_the_page_and_all_that_it_names_are_served(client: Caller) -> None:
    page = client.get("/")
    assert page.status_code == 200
    named = set(re.findall(r'(?:src|href)="(/[^"]+)"', page.text))
    assert {"/static/main.js", "/static/layout.css", "/static/icon.svg"} <= named
    for path in named:
        assert client.get(path).status_code == 200, path


@pytest.mark.parametrize("script", SCRIPTS)
def test_each_import_of_a_script_is_exported_where_it_is_looked_for(script: str) -> None:
    text = (PAGES / script).read_text()
    for names, source in re.findall(r'import \{([^}]+)\} from "\./([^"]+)"', text):
        exported = set(
            re.findall(
                r"export (?:async )?(?:function|const|class) (\$|\w+)", (PAGES / source).read_text()
            )
        )
        wanted = {name.strip() for name in names.split(",") if name.strip()}
        assert wanted <= exported, f"{script} imports {wanted - exported} from {source}"


@pytest.mark.parametrize("script", SCRIPTS)
def test_each_element_that_a_script_asks_for_is_in_the_page(script: str) -> None:
    ids = set(re.findall(r'\bid="([^"]+)"', (PAGES / "index.html").read_text()))
    asked = set(re.findall(r'\$\("([^"]+)"\)', (PAGES / script).read_text()))
    assert asked <= ids


def test_every_script_is_reached_from_the_page() -> None:
    reached, todo = set(), {"main.js"}
    while todo:
        name = todo.pop()
        reached.add(name)
        text = (PAGES / name).read_text()
        todo |= set(re.findall(r'from "\./([^"]+)"', text)) - reached
    assert sorted(reached) == SCRIPTS


def test_nothing_inline_and_nothing_foreign_may_run(client: Caller) -> None:
    page = client.get("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon\w+=|https?://", page.text)


@pytest.mark.parametrize("script", SCRIPTS)
def test_text_from_the_api_never_becomes_markup(script: str) -> None:
    text = (PAGES / script).read_text()
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert way not in text


@pytest.mark.parametrize("path", ["../http.py", "%2e%2e/http.py", "..%2f..%2fpyproject.toml"])
def test_only_the_pages_folder_is_served(client: Caller, path: str) -> None:
    assert client.get(f"/static/{path}").status_code == 404
