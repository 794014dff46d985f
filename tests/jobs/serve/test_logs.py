from slurminfer.core.rundir import RunDirectory
from slurminfer.jobs.serve.logs import log_files


def test_a_link_that_leads_nowhere_and_a_folder_are_no_logs(tmp_path):
    run = RunDirectory(tmp_path)
    folder = run.logs_of("cpu-0")
    folder.mkdir(parents=True)
    (folder / "gone.log").symlink_to(tmp_path / "nothing")
    (folder / "folder.log").mkdir()
    (folder / "process.log").write_text("ready\n")
    assert log_files(run, "cpu-0") == [folder / "process.log"]
