"""What is kept between sessions comes back as it was, or not at all."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from vlmbench import cli
from vlmbench.artifacts import FOLDER, Journal, Store, age, default_folder, key_of
from vlmbench.errors import ArtifactError
from vlmbench.run import Run, Scored

RUN = Run(
    "qwen2_4bit-docvqa",
    "embedded",
    {"dataset": "docvqa"},
    {"recipe": "4bit"},
    {"torch": "2"},
    {"a": Scored("c", "why?", ("x",), "\ud800 naïve\u2028", {"anls": 1 / 3}, "a")},
)
KEY = key_of({"cell": RUN.cell})


@pytest.fixture
def store(cache: Path) -> Store:
    return Store(default_folder())


def test_a_run_comes_back_as_it_is_kept(store: Store) -> None:
    assert store.run(KEY) is None
    kept = store.keep(KEY, RUN)
    assert store.run(KEY) == kept
    assert kept == Run.from_json(RUN.to_json())
    assert store.run(key_of({"cell": "other"})) is None
    assert store.troubles == []


def test_the_key_follows_every_part_of_the_identity() -> None:
    identity = {"cell": "a", "subject": {"weights": "1"}, "samples": [["a", "b"]]}
    changed = [{**identity, "cell": "b"}, {**identity, "subject": {"weights": "2"}}]
    changed.append({**identity, "samples": []})
    assert len({key_of(one) for one in [identity, *changed]}) == 4
    assert key_of(dict(reversed(identity.items()))) == key_of(identity)


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "no text"])
def test_a_damaged_run_counts_as_absent_and_is_told(store: Store, damage: str) -> None:
    store.keep(KEY, RUN)
    (entry,) = store.entries()
    content = bytearray(entry.path.read_bytes())
    spoilt = {
        "cut": content[: len(content) // 2],
        "bit": content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
        "empty": b"",
        "no text": b"\xff\xfe" * 40,
    }
    entry.path.write_bytes(spoilt[damage])
    assert store.run(KEY) is None
    (told,) = store.troubles
    assert entry.path.name in told and "answered again" in told
    assert [e.what for e in store.entries()] != [RUN.cell] or damage == "bit"
    assert store.run(KEY) is None and len(store.troubles) == 1
    store.keep(KEY, RUN)
    assert store.run(KEY) is not None


def test_a_journal_gives_back_the_lines_that_were_finished(store: Store) -> None:
    journal = store.journal(KEY)
    assert list(journal.lines()) == []
    lines: list[dict[str, Any]] = [{"answers": {"a": "\ud800\n\u2028"}}, {"answers": {"b": ""}}]
    for line in lines:
        journal.add(line)
    assert list(store.journal(KEY).lines()) == lines
    whole = journal.path.read_bytes()
    for end in range(len(whole)):
        journal.path.write_bytes(whole[:end])
        assert list(journal.lines()) == lines[: len(list(journal.lines()))]
    # Whoever goes on writes behind what a killed process left.
    journal.path.write_bytes(whole[:-20])
    journal.add(lines[1])
    assert list(journal.lines()) == lines
    assert [e.what for e in store.entries()] == ["unfinished"]
    store.keep(KEY, RUN)
    journal.drop(), journal.drop()
    assert [e.what for e in store.entries()] == [RUN.cell]


def _write(folder: str, number: int) -> None:
    store = Store(Path(folder))
    for i in range(50):
        store.journal(KEY).add({"from": number, "number": i, "text": "x" * 9000})
        store.keep(key_of({"run": i}), RUN)


def test_two_processes_may_write_the_same_entries(store: Store) -> None:
    context = get_context("spawn")
    processes = [context.Process(target=_write, args=(str(store.folder), n)) for n in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    lines = [(line["from"], line["number"]) for line in store.journal(KEY).lines()]
    assert sorted(lines) == [(n, i) for n in range(2) for i in range(50)]
    assert all(store.run(key_of({"run": i})) for i in range(50))


def _make(folder: str, log: str) -> None:
    store = Store(Path(folder))
    with store.alone(KEY):
        if not store.checkpoint(KEY):
            with open(log, "a") as told:
                told.write("made\n")
            time.sleep(1)  # as long as another process needs to begin
            store.keep_checkpoint(KEY, "made", written)


def test_of_two_processes_one_makes_and_the_other_finds(store: Store, tmp_path: Path) -> None:
    context, log = get_context("spawn"), tmp_path / "log"
    made = partial(context.Process, target=_make, args=(str(store.folder), str(log)))
    processes = [made() for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert log.read_text() == "made\n"
    assert [entry.what for entry in store.entries()] == ["made"]


def test_where_nothing_can_be_kept_work_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = Store(tmp_path / "file" / "cache")
    assert store.keep(KEY, RUN) == Run.from_json(RUN.to_json())
    store.journal(KEY).add({"answers": {}})
    store.journal(KEY).add({"answers": {}})
    assert store.run(KEY) is None and list(store.journal(KEY).lines()) == []
    store.forget(KEY)
    with store.alone(KEY):
        pass
    assert [trouble.split(" kept in ")[0] for trouble in store.troubles] == [
        "the run of qwen2_4bit-docvqa is not",
        "unfinished answers are not",
        *store.troubles[2:],
    ]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_is_told_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    journal = Journal(Path("/dev/full"), store)
    journal.add({"answers": {}})
    journal.add({"answers": {}})
    (told,) = store.troubles
    assert "No space left on device" in told


def test_the_least_recently_used_go_first(store: Store) -> None:
    keys = [key_of({"run": i}) for i in range(3)]
    for i, key in enumerate(keys):
        store.keep(key, replace(RUN, cell=f"cell{i}"))
        os.utime(next(e.path for e in store.entries() if e.what == f"cell{i}"), (i, i))
    assert store.run(keys[0])
    assert [entry.what for entry in store.entries()] == ["cell1", "cell2", "cell0"]
    assert age(store.entries()[-1]) == "just now" and age(store.entries()[0]).endswith(" d")
    size = store.entries()[0].size
    assert [entry.what for entry in store.trim(2 * size)] == ["cell1"]
    assert len(store.trim(0)) == 2 and store.entries() == []
    assert store.trim(0) == []


def test_what_cannot_be_deleted_is_one_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.keep(KEY, RUN)

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    for delete in (lambda: store.trim(0), lambda: store.forget(KEY)):
        with pytest.raises(ArtifactError, match=r"cannot be deleted: Permission denied.*VLMBENCH"):
            delete()


def test_the_command_line_shows_bounds_and_clears(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    store.keep(KEY, RUN)
    store.journal(key_of({})).add({"answers": {}})
    assert cli.main(["cache"]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == f"{store.folder}: 2 entries, 0.0 MB"
    assert {line.split()[0] for line in lines} == {RUN.cell, "unfinished"}
    assert cli.main(["cache", "--limit", "1"]) == 0
    assert capsys.readouterr().out.startswith("dropped 0 entries")
    assert cli.main(["cache", "--clear"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("dropped 2 entries") and ": 0 entries, 0.0 MB" in shown
    assert cli.main(["cache", "--limit", "nan"]) == 2
    assert "--limit must be a number of megabytes" in capsys.readouterr().err


def test_the_folder_is_the_users_or_the_one_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER, "/somewhere")
    assert default_folder() == Path("/somewhere")
    monkeypatch.delenv(FOLDER)
    assert default_folder().name == "vlmbench" and default_folder().is_absolute()


def test_the_form_of_a_run_file(store: Store) -> None:
    """A line of its hash, then the run's JSON: readable with any tool."""
    store.keep(KEY, RUN)
    digest, _, body = store.entries()[0].path.read_text().partition("\n")
    assert len(digest) == 64 and json.loads(body)["cell"] == RUN.cell


def written(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "config.json").write_text("{}")


def test_a_checkpoint_is_kept_whole(store: Store) -> None:
    assert store.checkpoint("key") is None
    store.keep_checkpoint("key", "qwen2_4bit", written)
    folder = store.checkpoint("key")
    assert folder and (folder / "model.safetensors").read_bytes() == b"weights"
    (entry,) = store.entries()
    assert entry.what == "qwen2_4bit" and entry.size >= len(b"weights{}")
    assert store.seconds("key") == store.seconds("none") == 0.0
    store.keep_checkpoint("key", "qwen2_4bit", written, seconds=2.5)
    assert store.seconds("key") == 2.5
    assert store.checkpoint("key") == folder, "another process may keep the same"
    assert store.troubles == []
    assert len(store.trim(0)) == 1 and store.checkpoint("key") is None


@pytest.mark.parametrize("damage", ["cut", "more", "less", "told", "wild"])
def test_a_damaged_checkpoint_counts_as_absent(store: Store, damage: str) -> None:
    store.keep_checkpoint("key", "qwen2_4bit", written)
    folder = store.checkpoint("key")
    assert folder
    if damage == "cut":
        (folder / "model.safetensors").write_bytes(b"weigh")
    elif damage == "more":
        (folder / "pytorch_model.bin").write_bytes(b"pickle")
    elif damage == "less":
        (folder / "config.json").unlink()
    else:
        told = "[]" if damage == "wild" else '{"files": {}}'
        (folder / "digests.json").write_text(told)
    assert store.checkpoint("key") is None
    assert len(store.troubles) == 1 and store.troubles[0].endswith("made again")
    store.keep_checkpoint("key", "qwen2_4bit", written)
    assert store.checkpoint("key") == folder


def test_half_a_checkpoint_is_none(store: Store) -> None:
    def breaking(folder: Path) -> None:
        written(folder)
        raise OSError("No space left on device")

    store.keep_checkpoint("key", "qwen2_4bit", breaking)
    assert store.checkpoint("key") is None and store.entries() == []
    assert "qwen2_4bit is not kept" in store.troubles[0] and "No space left" in store.troubles[0]
