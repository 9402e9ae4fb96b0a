"""What a run of screening did, in one sentence."""

from dataclasses import dataclass
from pathlib import Path

from rarealert.screening.champion import ScreeningModel
from rarealert.screening.resume import Files, Progress


@dataclass(frozen=True)
class ScreenReport:
    """What a run did; ``resumed`` counts the rows that an earlier, killed run had finished.

    ``cut`` visits were longer than the model reads, ``flagged`` ones have other notes, and
    ``bands`` leaves out those that could not be read.
    """

    out: Path
    refused_file: Path | None
    screened: int
    refused: int
    resumed: int
    flagged: int
    cut: int
    bands: dict[str, int]
    version: str

    def sentence(self) -> str:
        """What a user wants to know at the end."""
        bands = ", ".join(f"{count:,} {band}" for band, count in sorted(self.bands.items()))
        said = f"{self.screened:,} visits screened with version {self.version}"
        said += f" ({bands}) to {self.out}" if bands else f" to {self.out}"
        if self.resumed:
            said += f", {self.resumed:,} of the rows by an earlier run"
        if self.flagged:
            said += f"; {self.flagged:,} to be read with their notes"
        if self.cut:
            said += f"; {self.cut:,} longer than the model reads"
        if self.refused_file:
            said += f"; {self.refused:,} refused, see {self.refused_file}"
        return said + ". Decision support, not a diagnosis."


def report_of(
    files: Files, progress: Progress, resumed: int, model: ScreeningModel
) -> ScreenReport:
    """The report of a run that got to ``progress``."""
    return ScreenReport(
        out=files.out,
        refused_file=files.refused if progress.refused else None,
        screened=progress.screened,
        refused=progress.refused,
        resumed=resumed,
        flagged=progress.flagged,
        cut=progress.cut,
        bands=dict(progress.bands),
        version=model.version,
    )
