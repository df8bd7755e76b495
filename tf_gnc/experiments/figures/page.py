"""An analysis as one HTML page that needs nothing but itself, and its files."""

import html
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from tf_gnc import _files
from tf_gnc._settings import settings_of
from tf_gnc.callbacks.measures import FULL
from tf_gnc.experiments.compare import page
from tf_gnc.experiments.config import RunConfig
from tf_gnc.experiments.figures.recorded_runs import (
    ABOUT,
    MEASURED,
    RecordedRun,
    read_analysis,
)
from tf_gnc.experiments.figures.registry import DRAWINGS, View, draw_all
from tf_gnc.experiments.figures.style import png, svg
from tf_gnc.experiments.run.directory import Directory

_SHOWN = ("dataset", "model", "method", "seed", "num_workers", "batch_size",
          "epochs", "learning_rate")  # fmt: skip


class AnalysisFiles(Directory):
    """The directory of an analysis of runs, in their own directories.

    What an analysis of the same runs has left is replaced; anything else isn't
    touched.

    Raises:
        FileExistsError: If it holds anything else.
        NotADirectoryError: If it is a file.
    """

    def __init__(
        self, directory: _files.AnyPath, runs: Sequence[_files.AnyPath]
    ) -> None:
        super().__init__(directory)
        self._runs = sorted(str(run.resolve()) for run in runs)
        self._former: list[str] = []
        names = set(self.whole_names()) - {Path(MEASURED).name}
        about = read_analysis(self.directory)
        if about is not None and about["runs"] == self._runs:
            self._former = about["files"]
            return
        if names:
            raise FileExistsError(
                "`out_dir` must be new, empty or that of an analysis of the "
                f"same runs, got out_dir='{directory}', which holds other "
                "files. Choose another name (--out_dir)."
            )

    def write(
        self, figures: Mapping[str, Figure], text: str, command: str
    ) -> list[str]:
        """Writes PNGs and page, and by which command; returns their names."""
        contents = {f"{n}.png": png(f) for n, f in figures.items()}
        contents["index.html"] = text
        names = list(contents)
        about = {"runs": self._runs, "files": names, "command": command}
        self.directory.mkdir(parents=True, exist_ok=True)
        # First, so that the files are known for ours if this is cut short.
        all_names = sorted({*names, *self._former})
        _files.write_json(self.path(ABOUT), {**about, "files": all_names})
        for name, content in contents.items():
            _files.write(self.path(name), content)
        for name in set(self._former) - set(names):
            self.path(name).unlink(missing_ok=True)
        _files.write_json(self.path(ABOUT), about)
        return names


def write_analysis(
    runs: Sequence[RecordedRun],
    files: AnalysisFiles,
    view: View,
    command: str,
    names: Collection[str] | None = None,
) -> tuple[list[str], list[str]]:
    """Draws figures, all or those named, and writes them with their page.

    Returns the names of the files, and those of the figures for which nothing
    was recorded.
    """
    figures = draw_all(runs, view, names)
    text = to_html(runs, figures, command, names)
    wanted = names or missing(runs, figures)
    absent = [name for name in wanted if name not in figures]
    return files.write(figures, text, command), absent


def missing(
    runs: Sequence[RecordedRun],
    figures: Mapping[str, Figure],
    names: Collection[str] | None = None,
) -> dict[str, list[str]]:
    """Returns which runs each figure lacks, among those worth drawing.

    Or among those in `names`.
    """
    found = {}
    for name, drawing in DRAWINGS.items():
        if names is not None and name not in names:
            continue
        lacking = [run.label for run in runs if not drawing.fits(run)]
        if name in figures or not (drawing.asked or drawing.fewest > len(runs)):
            if lacking:
                found[name] = lacking
    return found


def to_html(
    runs: Sequence[RecordedRun],
    figures: Mapping[str, Figure],
    command: str,
    names: Collection[str] | None = None,
) -> str:
    """Returns the page, with the figures in it and the command at its end.

    Also with what is missing, as `missing` says.
    """
    labels = [run.label for run in runs]
    lacking = missing(runs, figures, names)
    parts = [
        "<p>Figures are numbered as in Haruki et al. (2019), "
        "arXiv:1906.10822.</p>",
    ]
    for name, figure in figures.items():
        drawing = DRAWINGS[name]
        parts += [
            f'<h2 id="{name}">{html.escape(drawing.title)}</h2>',
            f'<div class="wide">{svg(figure, drawing.title)}</div>',
            f"<p>{drawing.caption}</p>",
        ]
        if name in lacking:
            parts.append(
                "<p>Not recorded by: "
                f"{html.escape(', '.join(lacking[name]))}.</p>"
            )
    absent = [name for name in lacking if name not in figures]
    if absent:
        parts += ["<h2>Not drawn, since nothing was recorded</h2>", "<ul>"]
        parts += [_how_to_record(name, runs) for name in absent]
        parts.append("</ul>")
    fields = settings_of(RunConfig)
    own = [name for run in runs for name in run.config if name not in fields]
    rows = [
        [name, *(run.config.get(name) for run in runs)]
        for name in (*_SHOWN, *dict.fromkeys(own))
    ] + [["directory", *(run.directory for run in runs)]]
    parts += ["<h2>Runs</h2>", page.html_table(["", *labels], rows)]
    title = f"Analysis of {', '.join(labels)}"
    return page.document(title, parts, command)


def _how_to_record(name: str, runs: Sequence[RecordedRun]) -> str:
    """Returns an item of the list of what is missing."""
    drawing = DRAWINGS[name]
    if not drawing.measures:
        return f"<li>{html.escape(drawing.title)}: no epoch has ended.</li>"
    words = f"<code>tf-gnc train --probe={drawing.measures[0]}</code>"
    full = [m for m in drawing.measures if m in FULL]
    if full:
        directories = " ".join(str(run.directory) for run in runs)
        words += (
            " as it trains, or measure it now: <code>tf-gnc analyze "
            f"{html.escape(directories)} --measure={full[0]}</code>"
        )
    return f"<li>{html.escape(drawing.title)}. Record it with {words}.</li>"
