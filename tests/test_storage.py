"""Storage of studies: one line of error for what cannot be opened, a journal that survives torn lines."""

import fcntl

import pytest
from optuna.storages import JournalStorage
from optuna.study import StudyDirection

from efficientbert.search.study.storage import JOURNAL, JournalLock, open_storage
from efficientbert.train.cli.errors import InputError


def test_a_folder_holds_a_journal(tmp_path):
    made = open_storage(tmp_path / "new" / "study")
    assert isinstance(made, JournalStorage)
    study_id = made.create_new_study([StudyDirection.MINIMIZE], "a")
    assert (tmp_path / "new" / "study" / JOURNAL).exists()
    assert open_storage(str(tmp_path / "new" / "study")).get_study_name_from_id(study_id) == "a"


@pytest.mark.parametrize("torn", [b'{"op_code": 0, "study_na', b"{"])
def test_a_torn_last_line_is_dropped(tmp_path, torn):
    open_storage(tmp_path).create_new_study([StudyDirection.MINIMIZE], "a")
    with open(tmp_path / JOURNAL, "ab") as journal:
        journal.write(torn)
    storage = open_storage(tmp_path)
    storage.create_new_study([StudyDirection.MINIMIZE], "b")
    assert [study.study_name for study in open_storage(tmp_path).get_all_studies()] == ["a", "b"]
    assert torn + b"\n" not in (tmp_path / JOURNAL).read_bytes()


def test_one_writes_at_a_time(tmp_path):
    (tmp_path / JOURNAL).touch()
    lock = JournalLock(tmp_path / JOURNAL)
    lock.acquire()
    with open(tmp_path / f"{JOURNAL}.lock", "ab") as other:
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock.release()
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_database_is_kept(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    open_storage(url).create_new_study([StudyDirection.MINIMIZE], "a")
    assert [study.study_name for study in open_storage(url).get_all_studies()] == ["a"]


@pytest.mark.parametrize(
    "location, message",
    [
        ("nosuch://host/name", "storage 'nosuch://host/name': cannot be opened"),
        ("nosuch://me:secret@host/name", r"storage 'nosuch://me:\*\*\*@host/name': cannot be opened"),
        ("://", "storage '://…': cannot be opened"),
        ("sqlite:////no/such/folder/study.db", "unable to open database file"),
    ],
)
def test_what_cannot_be_opened_is_told_in_one_line(monkeypatch, location, message):
    monkeypatch.setattr("efficientbert.search.study.storage.time.sleep", lambda seconds: None)
    with pytest.raises(InputError, match=message) as told:
        open_storage(location)
    assert "\n" not in str(told.value)
    assert "secret" not in str(told.value)


def test_a_file_is_no_study_folder(tmp_path):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(InputError, match=r"study folder '.*file': cannot be opened: .*exists"):
        open_storage(tmp_path / "file")


@pytest.mark.parametrize(
    "text", [b"no journal\nat all\n", b"{}\n", b"[1]\n", b"3\n", b"\xff\xfe\n", b'{"op_code": 99}\n']
)
def test_a_broken_journal_is_told_in_one_line(tmp_path, text):
    (tmp_path / JOURNAL).write_bytes(text)
    with pytest.raises(
        InputError, match=rf"study '.*{JOURNAL}': cannot be read: .*choose another --output_dir"
    ) as told:
        open_storage(tmp_path)
    assert "\n" not in str(told.value)
