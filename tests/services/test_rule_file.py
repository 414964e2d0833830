"""A changed rules file is used; an invalid one is reported, and the previous rules stay."""

import json
import os
import threading
from pathlib import Path

import pytest

from services import rule_file
from services.http.errors import sentence
from services.release.locate import check_can_serve
from services.rule_file import RuleFile, first_rules, used_last
from shortlist.config import ConfigError, Settings
from shortlist.http.rule_config import RuleSet, RulesInForce


def text(*excluded: str) -> str:
    return f'[[exclude]]\nname = "e"\nitem_ids = {json.dumps(excluded)}\n'


BAD = '[[exclude]]\nname = "e"\nitem_id = "1"\n'


class Home:
    """A home with a rules file, and a worker that follows it."""

    def __init__(self, folder: Path, **settings):
        self.settings = Settings(home=folder, **settings)
        self.rules = RulesInForce()
        self.file = RuleFile(self.settings, self.rules)

    def write(self, content: str) -> None:
        """Replace the file, with a modification time that differs from the previous one."""
        before = self.settings.rules.stat().st_mtime_ns if self.settings.rules.exists() else 0
        self.settings.rules.write_text(content)
        os.utime(self.settings.rules, ns=(before + 10**9, before + 10**9))

    @property
    def excluded(self) -> list[str]:
        return [item for rule in self.rules.rules.exclude for item in rule.item_ids]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_a_change_is_used_once(home) -> None:
    home.file.begin()
    assert home.excluded == []
    assert not home.file.check()
    home.write(text("1"))
    assert home.file.check()
    assert home.excluded == ["1"]
    assert not home.file.check()
    home.write(text("1", "2"))
    assert home.file.check()
    assert home.excluded == ["1", "2"]
    home.settings.rules.unlink()
    assert home.file.check()
    assert home.excluded == []


def test_soft_rules_that_switch_exploration_off_are_named(tmp_path, caplog) -> None:
    explore = {"kind": "epsilon", "share": 0.1}
    home = Home(tmp_path, explore=explore)
    home.write(text("1"))
    home.file.begin()
    assert "no effect" not in caplog.text
    home.write('[[pin]]\nname = "p"\nitem_id = "1"\nposition = 1\n')
    assert home.file.check()
    assert "SHORTLIST_EXPLORE has no effect" in caplog.text


def test_a_bad_file_keeps_the_rules_and_says_why_in_one_line(home, caplog) -> None:
    home.write(text("1"))
    home.file.begin()
    home.write(BAD)
    assert not home.file.check()
    assert home.excluded == ["1"]
    reason = f"{home.settings.rules}: exclude.0.item_ids: is required; "
    reason += f"{home.settings.rules}: exclude.0.item_id: unknown key"
    assert home.file.refused == reason
    logged = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert logged == [f"rules: {reason}; the rules before it stay in force"]
    assert not home.file.check()  # logged only once
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1
    home.write(text("2"))
    assert home.file.check()
    assert (home.excluded, home.file.refused) == (["2"], None)


def test_rules_that_cannot_be_compiled_are_refused_as_well(home, monkeypatch) -> None:
    def broken(rules: RuleSet) -> None:
        raise KeyError("brand")

    home.file.begin()
    monkeypatch.setattr(home.file, "_prepare", broken)
    home.write(text("1"))
    assert not home.file.check()
    assert home.excluded == []
    assert home.file.refused == "KeyError: 'brand'"


def test_a_worker_that_starts_with_a_bad_file_uses_the_rules_used_last(home, tmp_path) -> None:
    home.write(text("1"))
    home.file.begin()
    home.write(text("2"))
    home.file.check()
    home.write(text("1"))  # again: now the older set is the one used last
    home.file.check()
    home.write(BAD)
    other = Home(tmp_path)
    other.file.begin()
    assert other.excluded == ["1"]
    assert other.file.refused is not None
    assert {path.stem for path in home.settings.accepted_rules.iterdir()} == {
        RuleSet.model_validate({"exclude": [{"name": "e", "item_ids": [item]}]}).id
        for item in ("1", "2")
    }


def test_a_first_start_with_a_bad_file_is_refused(home) -> None:
    home.write(BAD)
    with pytest.raises(ConfigError, match="unknown key; correct the file, or remove it to serve"):
        home.file.begin()
    assert used_last(home.settings.accepted_rules) is None


def test_the_check_before_the_first_worker_reads_the_file(home, monkeypatch) -> None:
    monkeypatch.setattr("services.release.locate.find_release", lambda settings, *, carried: None)
    monkeypatch.setattr("services.release.locate.current_pack_id", lambda packs: "p")
    home.write(BAD)
    with pytest.raises(ConfigError, match="unknown key"):
        check_can_serve(home.settings, carried=home.settings.home)


def test_a_kept_set_that_cannot_be_read_is_passed_over(home) -> None:
    home.write(text("1"))
    home.file.begin()
    (home.settings.accepted_rules / "newer.json").write_text('{"rules of a newer version": []}')
    home.write(BAD)
    rules, why = first_rules(home.settings)
    assert rules.exclude[0].item_ids == ["1"]
    assert why is not None


def test_rules_hold_although_they_cannot_be_kept(home) -> None:
    home.settings.accepted_rules.write_text("a file where the folder should be")
    home.write(text("1"))
    home.file.begin()
    assert home.excluded == ["1"]


def test_the_thread_follows_the_file(home, monkeypatch, caplog) -> None:
    monkeypatch.setattr(rule_file, "CHECK_SECONDS", 0.01)
    prepared = []

    def prepare(rules: RuleSet) -> list[str]:
        prepared.append([item for rule in rules.exclude for item in rule.item_ids])
        return ["e: no item has item_id '3'"] if "3" in prepared[-1] else []

    home.file.begin()
    home.file.start(prepare)
    try:
        home.write(BAD)
        wait_until(lambda: home.file.refused)
        home.write(text("3"))
        wait_until(lambda: home.excluded == ["3"])
    finally:
        home.file.stop()
    assert prepared == [[], ["3"]]
    assert f"rules {home.rules.rules.id}: e: no item has item_id '3'" in caplog.messages


def wait_until(holds) -> None:
    """Wait for the thread; fail after 20 seconds."""
    for _ in range(1_000):
        if holds():
            return
        threading.Event().wait(0.02)
    raise AssertionError("it never held")


@pytest.mark.parametrize(
    ("loc", "told"),
    [
        (["rules", "filter", 0, "keep", 0, "x"], "attribute, equals, any_of"),
        (["rules", "filters"], "filter, include, exclude"),
        (["context", "x"], "surface, device"),
    ],
)
def test_an_unknown_key_of_a_rule_is_told_which_there_are(loc, told) -> None:
    problem = {"type": "extra_forbidden", "loc": loc, "msg": "Extra inputs are not permitted"}
    body = json.dumps({"detail": [problem]}).encode()
    where = ".".join(str(part) for part in loc)
    answer = sentence(body, status=400, scope={"path": "/recommend"})
    assert answer.startswith(f"{where}: unknown key; there are {told}")
