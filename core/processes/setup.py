"""A job's `setup` lines with a watch on them: one that fails is reported, and the job goes on; so is one that ends it.

Whether a failure matters only the user knows: the last command of a sourced file often returns 1 for no reason. So the
failing line goes into the log and into the environment of the program, which shows it as a remark on its job.
"""

from collections.abc import Iterable

FAILED = "SLURMINFER_SETUP_FAILED"  # variable of the first line that failed: "exit status 1 of: module load cuda"

# bash runs an ERR trap where `set -e` would end the shell: not for what `if`, `&&` and `||` test; and, by the depth of
# BASH_SOURCE, not inside of sourced files, whose commands are not the user's own lines. BASH_COMMAND may then be the
# last command of a function such as `module`. A DEBUG trap sees the call of the function, whose body does not inherit
# it, and then once more the beginning of the ERR trap itself: so the line is the one before the last.
_WATCH = (
    "slurminfer_setup_failed() {",
    "    local status=$? line=$slurminfer_line_before",
    "    [ ${#BASH_SOURCE[@]} -le $slurminfer_depth ] || return",
    '    echo "slurminfer: a setup line failed with exit status $status: $line" >&2',
    f'    export {FAILED}="${{{FAILED}:-exit status $status of: $line}}"',
    "}",
    # bash calls this with status 0 also where a signal ends it.
    "slurminfer_setup_ended() {",
    "    local status=$1 line=$slurminfer_last",
    r"    [[ $status != 0 || $line =~ ^(exit|\.|source|eval)([[:space:]]|$) ]] || return",
    '    echo "slurminfer: setup ended the job with exit status $status: $line" >&2',
    "}",
    "slurminfer_depth=$((${#BASH_SOURCE[@]} + 1))",
    "slurminfer_note() {",
    "    slurminfer_line_before=$slurminfer_line slurminfer_line=$1",
    # At the end of the shell DEBUG sees this call of ours, or what runs all the lines in local mode.
    """    [[ $1 == slurminfer_* || $1 == 'eval "$setup"' ]] || slurminfer_last=$1""",
    "}",
    "trap 'slurminfer_note \"$BASH_COMMAND\"' DEBUG",
    "trap slurminfer_setup_failed ERR",
    "trap 'slurminfer_setup_ended $?' EXIT",
)
# A trap that the lines have set themselves stays.
_END = ("trap - ERR DEBUG", "[[ $(trap -p EXIT) != *slurminfer_setup_ended* ]] || trap - EXIT")


def watched(lines: Iterable[str]) -> list[str]:
    """The lines of bash with those that report their failures around them; none for none."""
    given = list(lines)
    return [*_WATCH, *given, *_END] if given else []
