"""What to change where sbatch refuses a job. The texts are recorded from Slurm 22.05."""

import pytest

from slurminfer.slurm.refusals import advice_on


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("invalid partition specified: nope; Batch job submission failed: Invalid partition name", "sinfo -s"),
        ("Batch job submission failed: Invalid account or account/partition combination specified", "`account`"),
        ("Batch job submission failed: Invalid qos specification", "qos"),
        ("Invalid generic resource (gres) specification", "gpus_per_node"),
        ("Batch job submission failed: Requested node configuration is not available", "%c %m %G"),
        ("Memory specification can not be satisfied; Batch job submission failed: Requested node "
         "configuration is not available", "`mem`"),
        ("Batch job submission failed: Invalid feature specification", "`constraint`"),
        ("Batch job submission failed: Invalid node name specified", "`nodelist`"),
        ("Batch job submission failed: Requested reservation is invalid", "`reservation`"),
        ("Invalid --time specification", "`time`"),
        ("Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)", "`time`"),
        ("Batch job submission failed: Node count specification invalid", "`nodes`"),
        ("--mem, --mem-per-cpu, and --mem-per-gpu are mutually exclusive.", "only one of"),
        ("Batch job submission failed: Invalid license specification", "`licenses`"),
        ("Batch job submission failed: Unable to contact slurm controller (connect failure)", "SLURM_CONF"),
        ("s_p_parse_file: cannot stat file /nope; ClusterName needs to be specified; Could not establish a "
         "configuration source", "does 'sinfo' answer here? Where there is no Slurm, serve and batch take --local"),
    ],
)  # fmt: skip
def test_the_advice_names_what_to_change(said, advice):
    assert advice in advice_on(said)


def test_of_unknown_words_nothing_is_said():
    assert advice_on("something else") == ""
