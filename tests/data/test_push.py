"""Promises of pushing a dataset: what is sent, to whom it is shown, and what never leaves."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from PIL import Image

from unskew.data import push
from unskew.data.assembly import assemble
from unskew.data.assembly_options import AssemblySettings
from unskew.data.imagefolder import write_imagefolder
from unskew.data.rows import Row
from unskew.errors import UserError

SECRET = "hf_this_is_a_secret"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of three pictures, and a page of those that were screened out; change a copy."""
    folder = tmp_path_factory.mktemp("photos")
    rows = []
    for n in range(3):
        Image.new("RGB", (8, 8), (40 * n, 0, 0)).save(folder / f"{n}.png")
        rows.append(Row(f"{n}", folder / f"{n}.png", "apple", None, {}, "my phone", "unknown"))
    settings = AssemblySettings(out=folder / "data")
    write_imagefolder(assemble(rows, [], settings).folders[0], [])
    (folder / "data" / "screened.html").write_text("rejected: /home/ann/private.jpg")
    return folder / "data"


class Hub:
    """A hub that remembers what it was asked."""

    endpoint = "https://hub.example"
    asked: list[tuple[str, dict[str, Any]]] = []
    private: bool | None = None
    """Of the repository; None where there is none."""
    fails: Exception | None = None

    def repo_info(self, repo: str, **how: Any) -> Any:
        """What it has."""
        if Hub.fails:
            raise Hub.fails
        if Hub.private is None:
            answer = httpx2.Response(404, request=httpx2.Request("GET", "https://hub.example"))
            raise RepositoryNotFoundError("no", response=answer)
        return SimpleNamespace(private=Hub.private, sha="a" * 40)

    def create_repo(self, repo: str, **how: Any) -> None:
        """Make it."""
        Hub.private = how["private"]
        Hub.asked.append(("create", how))

    def upload_folder(self, **how: Any) -> None:
        """Take it."""
        Hub.asked.append(("upload", how))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> type[Hub]:
    Hub.asked, Hub.private, Hub.fails = [], None, None
    monkeypatch.setattr(push, "HfApi", Hub)
    monkeypatch.setattr(push, "get_token", lambda: SECRET)
    return Hub


def words(folder: Path, *more: str) -> list[str]:
    return ["--folder", str(folder), "--repo", "me/mine", *more]


def test_a_dry_run_shows_what_would_be_sent_and_sends_nothing(
    made: Path, hub: type[Hub], capsys: pytest.CaptureFixture[str]
) -> None:
    """The token is not shown; what names files of this machine stays here."""
    assert push.main(words(made, "--dry-run")) == 0
    said = capsys.readouterr().out
    assert "seen by only you" in said and "6 files" in said and not hub.asked
    assert "stays here: manifest.json, screened.html" in said
    assert SECRET not in said


def test_it_is_sent_private_and_without_what_stays_here(made: Path, hub: type[Hub]) -> None:
    """One upload of pictures, metadata, card and Croissant file, on top of what was seen there."""
    assert push.main(words(made)) == 0
    (created, how), (uploaded, sent) = hub.asked
    assert (created, how["private"], how["repo_type"]) == ("create", True, "dataset")
    assert uploaded == "upload" and sent["parent_commit"] == "a" * 40
    assert sent["allow_patterns"] == ["images/*", "metadata.jsonl", "README.md", "croissant.json"]


def test_what_is_private_is_not_put_where_everybody_sees_it(made: Path, hub: type[Hub]) -> None:
    """And made public only where every licence is known."""
    hub.private = False
    with pytest.raises(UserError, match="it is public, but private is asked for"):
        push.main(words(made))
    with pytest.raises(
        UserError, match=r"3 rows have no known licence \(most from 'my phone', 3\)"
    ):
        push.main(words(made, "--private", "false"))
    assert not hub.asked


def test_what_is_wrong_with_the_folder_is_listed(
    made: Path, hub: type[Hub], tmp_path: Path
) -> None:
    """A picture that changed, one that is missing, one that no row has, a name that is none."""
    shutil.copytree(made, tmp_path / "a")
    first, second, _ = sorted((tmp_path / "a" / "images").glob("*.png"))
    Image.new("RGB", (8, 8), "blue").save(first)
    second.rename(second.with_name("stranger.png"))
    with pytest.raises(UserError) as error:
        push.main(["--folder", str(tmp_path / "a"), "--repo", "my/own/one", "--also", "x.txt"])
    for part in (
        "is not what metadata",
        "is missing",
        "stranger.png is in no row",
        "no name at",
        "x.txt",
    ):
        assert part in str(error.value)
    (tmp_path / "a" / "metadata.jsonl").unlink()
    with pytest.raises(UserError, match="no complete dataset"):
        push.main(words(tmp_path / "a"))


def test_failures_are_told_without_the_token(
    made: Path, hub: type[Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody logged in, a token that may not write, no name given."""
    request = httpx2.Request("GET", f"https://hub.example/?signature={SECRET}")
    hub.fails = HfHubHTTPError(SECRET, response=httpx2.Response(403, request=request))
    with pytest.raises(UserError, match="refused the token") as error:
        push.main(words(made))
    assert SECRET not in str(error.value)
    with pytest.raises(UserError, match="repo must be given"):
        push.main(["--folder", str(made)])
    monkeypatch.setattr(push, "get_token", lambda: None)
    with pytest.raises(UserError, match="hf auth login"):
        push.main(words(made))
