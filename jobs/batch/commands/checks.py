"""What is wrong with an output and can be said before there is a ledger: from the command and the input's files."""

import fnmatch
import glob
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ....core.errors import BatchError, UsageError
from ..batch import Batch
from ..inputs.plan import InputFile
from ..outputs.columns import GeneratedColumns, some_of
from ..outputs.form import Form, form_of
from ..outputs.place import Place
from ..outputs.schemas import column_names, has_types


def check_output(batch: Batch, files: Sequence[InputFile]) -> None:
    """Raise UsageError or BatchError for an output that cannot be.

    What is refused here leaves no ledger behind, which would hold the user to the parameters of a mistake.

    Args:
        batch: as the command line says.
        files: of its input.
    """
    options = batch.output
    form = form_of(options.path, options.format, [file.format for file in files])
    Place(options.path, form, batch.ledger).check_apart(files)
    for argument in batch.inputs:
        if _names(argument, options.path, form):
            raise BatchError(
                f"{options.path} would be read as input when the same command is started again: {argument} names it "
                "too; choose another output"
            )
    GeneratedColumns.of(batch.parameters, form).check()
    _check_names(batch, files)


def _check_names(batch: Batch, files: Sequence[InputFile]) -> None:
    """Raise UsageError for the name of a column that no file has, where all files say their columns."""
    asked: Mapping[str, Sequence[str | None]] = {
        "--prompt-column": [batch.parameters.prompt_column],
        "--messages-column": [batch.parameters.messages_column],
        "--columns": batch.output.columns or (),
    }
    wanted = [(option, name) for option, names in asked.items() for name in names if name is not None]
    if not wanted or not all(has_types(file.format) for file in files):
        return
    present: set[str] = set()
    for found in column_names(files):
        present.update(found)
        if all(name in present for _, name in wanted):
            return
    for option, name in wanted:
        if present and name not in present:
            raise UsageError(f"{option} {name}: the input has {some_of(present)}")


def _names(argument: str, output: Path, form: Form) -> bool:
    """Whether an argument for inputs, a glob or a folder, names the output too, once that is there."""
    place = os.path.abspath(argument)
    if os.path.isdir(place):
        is_dataset = os.path.exists(os.path.join(place, "state.json"))  # which lists its files itself
        return not form.is_folder and not is_dataset and output.parent == Path(place)
    if os.path.lexists(place) or not glob.has_magic(argument):
        return False
    if "**" in place:
        return fnmatch.fnmatchcase(str(output), place.replace("**/", "*"))
    return output.match(place)
