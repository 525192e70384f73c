"""Promises of `unskew publish --push`, through huggingface_hub's client and a small hub here."""

from __future__ import annotations

import runpy
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import close_session, constants

from unskew.adapters import WEIGHTS_FILE
from unskew.errors import UserError
from unskew.runs import sha256_file
from unskew.scripts.bundle import bundle_files
from unskew.scripts.publish import main
from unskew.scripts.publish_options import PublishSettings
from unskew.scripts.push import push
from unskew.settings import run_program

pytestmark = pytest.mark.filterwarnings(
    # of the client itself, about how it hands files to its own HTTP library
    "ignore:Use .content=:DeprecationWarning"
)
SMALL = runpy.run_path(str(Path(__file__).parents[1] / "oracles" / "small_hub.py"))
REPO = "jane/tiny-adapter"
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A hub with nothing in it; who asks is logged in, and waits for nothing between tries."""
    found = SMALL["SmallHub"]()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the xet store cannot be had here
    monkeypatch.setenv("HF_TOKEN", SMALL["WRITES"])
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    close_session()  # one made before knows of another environment
    yield found
    close_session()
    found.close()


def asked(hub: Any, **more: Any) -> PublishSettings:
    """Settings of a push to the small hub."""
    return PublishSettings(push=REPO, endpoint=hub.url, **more)


def test_a_push_makes_a_private_repository_with_all_of_the_bundle(
    hub: Any, runs: Any, tmp_path: Path, capsys: Capture
) -> None:
    """One commit with its message; every byte arrives; the revision is printed; no token is."""
    out = tmp_path / "out"
    words = ["--push", REPO, "--endpoint", hub.url, "--commit_message", "Here it is"]
    assert run_program(main, runs.words(out, *words)) == 0
    repo, said = hub.repos[REPO], capsys.readouterr()
    assert repo["private"] is True and repo["commits"] == ["Here it is"]
    assert hub.content(REPO) == {name: (out / name).read_bytes() for name, _ in bundle_files(out)}
    assert f"{hub.url}/{REPO} (private), revision {repo['sha']}: uploaded" in said.out
    assert SMALL["WRITES"] not in said.out + said.err
    for file in (*out.rglob("*.*"), *runs.root.rglob("*.json")):
        assert SMALL["WRITES"].encode() not in file.read_bytes()


def test_a_second_identical_push_changes_nothing(hub: Any, whole_bundle: Path) -> None:
    """No object is sent again and no commit is made; the revision is the one that is there."""
    first = push(whole_bundle, asked(hub))
    sent = len(hub.sent("PUT"))
    second = push(whole_bundle, asked(hub))
    assert (second.revision, second.new) == (first.revision, False)
    assert len(hub.sent("PUT")) == sent and len(hub.repos[REPO]["commits"]) == 1


def test_a_connection_that_breaks_once_is_mended_by_itself(hub: Any, whole_bundle: Path) -> None:
    """The client sends the object again, and the commit holds it."""
    oid = sha256_file(whole_bundle / WEIGHTS_FILE)
    hub.cuts[oid] = 1
    assert push(whole_bundle, asked(hub)).new
    assert hub.sent("PUT").count(oid) == 2
    assert hub.content(REPO)[WEIGHTS_FILE] == (whole_bundle / WEIGHTS_FILE).read_bytes()


def test_an_upload_cut_off_halfway_goes_on(hub: Any, whole_bundle: Path) -> None:
    """No commit is made of a part; the same push again sends what had not arrived, no more."""
    oid = sha256_file(whole_bundle / WEIGHTS_FILE)
    hub.cuts[oid] = 1000
    with pytest.raises(UserError, match="broke off") as broken:
        push(whole_bundle, asked(hub))
    assert "secret-signature" not in str(broken.value)
    assert hub.repos[REPO]["commits"] == []
    arrived = set(hub.objects)
    hub.cuts.clear()
    hub.calls.clear()
    assert push(whole_bundle, asked(hub)).new
    assert oid in hub.sent("PUT") and not arrived & set(hub.sent("PUT"))


@pytest.mark.parametrize("token", [SMALL["READS"], "hf_nobody0123456789abcdef", ""])
def test_a_refused_token_is_told_without_showing_it(
    hub: Any, whole_bundle: Path, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    """One that may only read, one that nobody has, and none: what to do, and nothing is sent."""
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(whole_bundle / "nowhere"))
    with pytest.raises(UserError, match="hf auth login") as refused:
        push(whole_bundle, asked(hub))
    assert not token or token not in str(refused.value)
    assert hub.repos == {} and hub.sent("PUT") == []


def test_an_existing_repository_of_other_work_is_left_alone(hub: Any, whole_bundle: Path) -> None:
    """Its files are no bundle of ours, so nothing is put over them."""
    hub.make(REPO, files={"thesis.tex": b"mine"})
    with pytest.raises(UserError, match=r"thesis\.tex"):
        push(whole_bundle, asked(hub))
    assert hub.content(REPO) == {"thesis.tex": b"mine"}


def test_an_existing_bundle_is_renewed(hub: Any, whole_bundle: Path) -> None:
    """In one commit that also takes away what the new bundle has no more."""
    old = {"bundle.json": b"{}", "checksums.json": b"{}", "samples/pair-9.png": b"old"}
    hub.make(REPO, files=old)
    assert push(whole_bundle, asked(hub)).new
    assert set(hub.content(REPO)) == {name for name, _ in bundle_files(whole_bundle)}
    assert len(hub.repos[REPO]["commits"]) == 1


def test_a_public_repository_is_not_taken_for_a_private_one(hub: Any, whole_bundle: Path) -> None:
    """Private by default; who means it says so."""
    hub.make(REPO, private=False)
    with pytest.raises(UserError, match="public"):
        push(whole_bundle, asked(hub))
    assert not push(whole_bundle, asked(hub, private=False)).private


def test_a_card_that_the_hub_does_not_take_is_told(hub: Any, bundle: Path) -> None:
    """Before any object is sent."""
    (bundle / "README.md").write_text("---\ntitle: nothing else\n---\n", "utf-8")
    with pytest.raises(UserError, match="does not take it"):
        push(bundle, asked(hub))
    assert hub.sent("PUT") == []
