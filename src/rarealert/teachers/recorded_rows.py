"""From a recorded row, whatever its shape, to an answer."""

from pathlib import Path

from rarealert.teachers.answer import Answer
from rarealert.teachers.recorded import Row


def answer_of_row(row: Row, data: Path) -> Answer | None:
    """The answer, ``None`` where the row states nothing usable.

    Free text is read with Orphanet's names: the tables in ``data``, else the installed ones.
    """
    said = row.get("answer")
    if isinstance(said, dict):
        return Answer.model_validate(said)
    from rarealert.teachers.orphanet_readers import load_readers
    from rarealert.teachers.recorded_craftmd import answer_of_trials
    from rarealert.teachers.recorded_medrbench import answer_of_reasoning

    readers = load_readers(data)
    if "diagnoses" in row:
        trials = row["diagnoses"]
        assert isinstance(trials, list)  # parse_row has checked it
        return answer_of_trials(trials, readers.resolve)
    thinking = row.get("thinking")
    return answer_of_reasoning(str(said), thinking if isinstance(thinking, str) else "", readers)
