"""Writing whole or not at all, and what kills leave behind."""

import errno
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from safetensors import SafetensorError

from spectral_fusion.atomic import atomic_file, atomic_folder, mend, mend_unfinished

KILLED = """
import os, sys
from pathlib import Path
from spectral_fusion import atomic

calls = 0
def count(name):
    real = getattr(os, name)
    def counted(*arguments, **options):
        global calls
        calls += 1
        if calls == int(sys.argv[2]):
            os._exit(9)
        return real(*arguments, **options)
    setattr(os, name, counted)

for name in ("rename", "replace", "mkdir", "rmdir", "unlink", "open", "link"):
    count(name)
path = Path(sys.argv[1])
with atomic.atomic_folder(path) as folder:
    (folder / "new").write_text("new")
os._exit(0)
"""


def hidden(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.name.startswith("."))


def test_a_kill_before_any_call_leaves_the_old_folder_or_the_new_one_after_the_next_start(tmp_path: Path) -> None:
    outcomes = set()
    for number in range(1, 40):
        target = tmp_path / str(number) / "fused"
        target.mkdir(parents=True)
        (target / "old").write_text("old")
        ended = subprocess.run([sys.executable, "-c", KILLED, str(target), str(number)], check=False).returncode
        mend(target.parent)
        assert not hidden(target.parent)
        held = [file.name for file in target.iterdir()]
        assert held in (["old"], ["new"])
        outcomes.add(held[0])
        if ended == 0:
            break
    assert ended == 0
    assert outcomes == {"old", "new"}


LEFT = pytest.mark.skipif(sys.platform == "win32", reason="without locks, what is left may be in use for a day")


@LEFT
def test_the_next_start_cleans_up_what_was_killed_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECTRAL_FUSION_CACHE", str(tmp_path / "cache"))
    left = 0
    for number in range(1, 40, 2):
        target = tmp_path / str(number) / "fused"
        target.mkdir(parents=True)
        (target / "old").write_text("old")
        ended = subprocess.run([sys.executable, "-c", KILLED, str(target), str(number)], check=False).returncode
        left += bool(hidden(target.parent))
        mend_unfinished()
        assert not hidden(target.parent)
        assert [file.name for file in target.iterdir()] in (["old"], ["new"])
        assert not list((tmp_path / "cache").glob("writing/*"))
        if ended == 0:
            break
    assert ended == 0
    assert left > 1


@LEFT
def test_a_verb_says_what_a_killed_one_left_and_cleans_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECTRAL_FUSION_CACHE", str(tmp_path / "cache"))
    target = tmp_path / "models" / "fused"
    target.mkdir(parents=True)
    subprocess.run([sys.executable, "-c", KILLED, str(target), "6"], check=False)
    assert hidden(target.parent)
    command = [sys.executable, "-m", "spectral_fusion", "concepts", "list", "--library", str(tmp_path / "none")]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert f"a process was killed while it wrote {target}; " in told.stderr
    assert not hidden(target.parent)


def test_what_is_still_written_stays_on_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECTRAL_FUSION_CACHE", str(tmp_path / "cache"))
    with atomic_file(tmp_path / "a") as part:
        part.write_text("one")
        assert mend_unfinished() == []
        assert len(list((tmp_path / "cache" / "writing").iterdir())) == 1
    assert (tmp_path / "a").read_text() == "one"
    assert not list((tmp_path / "cache" / "writing").iterdir())


@pytest.mark.parametrize("text", [b"", b"relative", b"\0", b"/not/there/at/all", b"\xff" * 300])
def test_a_list_that_holds_anything_stops_no_start(
    text: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPECTRAL_FUSION_CACHE", str(tmp_path))
    note = tmp_path / "writing" / "note"
    note.parent.mkdir()
    note.write_bytes(text)
    assert mend_unfinished() == []
    os.utime(note, (0, 0))
    assert mend_unfinished() == []
    assert not note.exists()


def test_a_cache_that_cannot_be_written_stops_no_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("SPECTRAL_FUSION_CACHE", str(tmp_path / "file"))
    with atomic_file(tmp_path / "a") as part:
        part.write_text("one")
    assert (tmp_path / "a").read_text() == "one"


def test_the_next_write_to_a_target_cleans_up_what_its_killed_writers_left(tmp_path: Path) -> None:
    target = tmp_path / "rex"
    (tmp_path / ".rex.abcdefgh.part").mkdir()
    (tmp_path / ".rex.abcdefgh.old").mkdir()
    (tmp_path / ".rex.abcdefgh.old" / "kept").write_text("kept")
    (tmp_path / ".tom.abcdefgh.part").write_text("another target's")
    with pytest.raises(RuntimeError), atomic_folder(target):
        raise RuntimeError
    assert hidden(tmp_path) == [".tom.abcdefgh.part"]
    assert target.is_dir()  # the write was complete once the old folder had been moved away


def test_an_old_folder_whose_successor_is_gone_comes_back(tmp_path: Path) -> None:
    (tmp_path / ".rex.abcdefgh.old").mkdir()
    (tmp_path / ".rex.abcdefgh.old" / "kept").write_text("kept")
    (found,) = mend(tmp_path)
    assert found.outcome == "put back"
    assert (tmp_path / "rex" / "kept").read_text() == "kept"


def test_hidden_files_of_others_are_no_leftovers(tmp_path: Path) -> None:
    for name in (".video.mp4.part", "film.part", ".part", ".rex.abcdefgh.partial"):
        (tmp_path / name).write_text("mine")
    assert mend(tmp_path) == []
    assert len(list(tmp_path.iterdir())) == 4


def test_what_a_living_writer_writes_is_left_alone(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "a") as part:
        part.write_text("one")
        assert mend(tmp_path) == []
        with atomic_file(tmp_path / "a") as other:
            other.write_text("two")
        assert (tmp_path / "a").read_text() == "two"
    assert (tmp_path / "a").read_text() == "one"


def test_an_interrupted_replacement_keeps_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "rex"
    target.mkdir()
    (target / "kept").write_text("kept")
    real = Path.rename

    def interrupted(self: Path, to: Path) -> Path:
        if self.suffix == ".part":
            raise KeyboardInterrupt
        return real(self, to)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), atomic_folder(target):
        pass
    assert (target / "kept").read_text() == "kept"
    assert not hidden(tmp_path)


@pytest.mark.skipif(not hasattr(os, "link"), reason="no hard links")
def test_an_exclusive_file_never_replaces(tmp_path: Path) -> None:
    def write() -> None:
        with atomic_file(tmp_path / "a", exclusive=True) as part:
            part.write_text("mine")
            (tmp_path / "a").write_text("another's")

    with pytest.raises(FileExistsError):
        write()
    assert (tmp_path / "a").read_text() == "another's"
    assert not hidden(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_permissions_are_those_of_any_new_file_and_the_umask_is_never_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = os.umask(0o027)
    try:
        monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("the umask is of the whole process"))
        with atomic_file(tmp_path / "file") as part:
            part.write_text("a")
        with atomic_folder(tmp_path / "folder"):
            pass
    finally:
        monkeypatch.undo()
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o750


def test_a_full_disk_seen_by_the_safetensors_library_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left on device"), atomic_folder(tmp_path / "fused"):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_up_within_a_file_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space") as caught, atomic_file(tmp_path / "a.txt"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(tmp_path / "a.txt")
    assert list(tmp_path.iterdir()) == []


def test_threads_that_write_one_file_leave_one_whole(tmp_path: Path) -> None:
    def write(text: str) -> None:
        for _ in range(20):
            with atomic_file(tmp_path / "a") as part:
                part.write_text(text * 1000)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, "abcd"))
    assert len(set((tmp_path / "a").read_text())) == 1
    assert not hidden(tmp_path)
