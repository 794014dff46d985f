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


def test_the_logs_of_a_job_are_those_of_all_its_workers(tmp_path):
    run = RunDirectory(tmp_path)
    for role in ("cpu-0", "cpu-0.0", "cpu-0.1", "cpu-0.1-0", "cpu-1.0"):
        run.logs_of(role).mkdir(parents=True)
        (run.logs_of(role) / "process.log").write_text("ready\n")
    assert {path.parent.name for path in log_files(run, "cpu-0")} == {"cpu-0", "cpu-0.0", "cpu-0.1"}
    assert {path.parent.name for path in log_files(run, "cpu-0.1")} == {"cpu-0.1"}
