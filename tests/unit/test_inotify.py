"""Directories that come and go are heard."""

from pathlib import Path

from agent.slurm.inotify import FolderWatch


def test_directories_that_come_and_go_are_heard(tmp_path: Path) -> None:
    watch = FolderWatch()
    watch.watch(str(tmp_path))
    watch.watch(str(tmp_path / "gone"))
    assert watch.changed() == set()
    (tmp_path / "job").mkdir()
    assert watch.changed() == {str(tmp_path)}
    (tmp_path / "job").rmdir()
    assert watch.changed() == {str(tmp_path)}
    watch.close()


def test_a_folder_that_was_made_anew_is_watched_anew(tmp_path: Path) -> None:
    watch, folder = FolderWatch(), tmp_path / "job_7"
    for _ in range(2):
        folder.mkdir()
        watch.watch(str(folder))
        (folder / "step_0").mkdir()
        assert watch.changed() == {str(folder)}
        (folder / "step_0").rmdir()
        folder.rmdir()
        watch.changed()
    watch.close()
