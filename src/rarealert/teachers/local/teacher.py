"""A language model of this machine as a teacher, on a budget of cases.

Its risk is the mean of a digit under the model's own probabilities (Liu et al., G-Eval, EMNLP
2023), so it grades cases that one greedy digit would not tell apart.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from rarealert.cases.case import Case
from rarealert.cases.render import RENDERER_VERSION, render
from rarealert.language.base import digest_of, load_base
from rarealert.teachers.answer import Answer, Differential, Flag, Insight
from rarealert.teachers.ask import Tally
from rarealert.teachers.cache import RationaleCache, Usage
from rarealert.teachers.endpoints.prompt import commands_the_model
from rarealert.teachers.endpoints.reply import RANK_WEIGHTS
from rarealert.teachers.local.script import SCRIPT_VERSION
from rarealert.teachers.local.writer import Writer, Written
from rarealert.teachers.panel import LocalSpec
from rarealert.teachers.progress import Board
from rarealert.teachers.teacher import Request, digest, source_digest

Judged = list[tuple[Answer, Usage]] | Exception
"""The judgements of a batch, one a case, or what went wrong with all of it."""

Judging = Callable[
    ["LocalTeacher", Sequence[Sequence[Case]]], Iterator[tuple[Sequence[Case], Judged]]
]
"""Who judges batches: this process, or the machines of a cluster."""

_HIGHEST_DIGIT = 9
_SHARED = 0.5  # of a finding's words must stand in the visit for it to count as said there
_SHORTEST_WORD = 4  # letters; shorter words say nothing about where a finding comes from


@cache
def _code_version() -> str:
    return f"script-{SCRIPT_VERSION}@{source_digest((Path(__file__).parent,))}"


@dataclass(frozen=True)
class LocalTeacher:
    """The model of ``spec``; it can speak of every source."""

    spec: LocalSpec
    sources: frozenset[str] | None = None

    @property
    def id(self) -> str:
        """The name in the panel."""
        return self.spec.id

    @cached_property
    def _weights(self) -> str:
        return digest_of(self.spec.model, f"panel: {self.id}: model")

    @cached_property
    def _writer(self) -> Writer:
        return Writer(load_base(self.spec.model, f"panel: {self.id}: model"))

    def request(self, case: Case) -> Request:
        """The rendered visit, the script and the weights, by digest."""
        return Request(
            teacher=self.id,
            kind="local",
            method=_code_version(),
            input_digest=digest(render(case).encode()),
            renderer=RENDERER_VERSION,
            model=self.spec.model,
            settings={"weights": self._weights},
        )

    def choose(self, cases: Sequence[Case]) -> list[Case]:
        """The cases within the budget: those whose text has the lowest digests.

        The choice knows neither label nor part nor order, and a larger budget only adds to it.
        """
        ordered = sorted(cases, key=lambda case: (digest(render(case).encode()), case.case_id))
        return ordered if self.spec.cases is None else ordered[: self.spec.cases]

    def ask(self, case: Case) -> Answer:
        """The judgement of one visit."""
        return self.ask_many([case])[0][0]

    def ask_many(self, cases: Sequence[Case]) -> list[tuple[Answer, Usage]]:
        """The judgements of a batch of visits, and what each took."""
        started = time.monotonic()
        visits = [render(case) for case in cases]
        written = self._writer.write(visits)
        seconds = (time.monotonic() - started) / len(cases)
        return [
            (
                _answer(case, visit, said),
                Usage(
                    prompt_tokens=said.tokens_read,
                    completion_tokens=said.tokens_written,
                    cost_usd=0.0,
                    seconds=round(seconds, 3),
                    finish_reason="stop",
                ),
            )
            for case, visit, said in zip(cases, visits, written, strict=True)
        ]

    def judge(self, cases: Sequence[Case]) -> Judged:
        """``ask_many``, with what the model raises told and not thrown."""
        try:
            return self.ask_many(cases)
        except (RuntimeError, ValueError) as error:
            return error


def judge_here(
    teacher: LocalTeacher, batches: Sequence[Sequence[Case]]
) -> Iterator[tuple[Sequence[Case], Judged]]:
    """Each batch with its judgements, one after the other in this process."""
    for batch in batches:
        yield batch, teacher.judge(batch)


def ask_local(
    teacher: LocalTeacher,
    cases: Sequence[Case],
    cache: RationaleCache,
    known: set[str],
    *,
    replay_only: bool = False,
    board: Board | None = None,
    judging: Judging = judge_here,
) -> Tally:
    """Put the cases of the teacher's budget to it, in batches of visits of similar length.

    Cases beyond the budget are not asked, which is missing and not a low risk. A batch that raises
    is a failure of its cases.
    """
    tally = Tally()

    def count(outcome: str, usage: Usage | None = None) -> None:
        setattr(tally, outcome, getattr(tally, outcome) + 1)
        if board is not None:
            board.advance(teacher.id, outcome, usage)

    chosen = {case.case_id for case in teacher.choose(cases)}
    open_cases: dict[str, Case] = {}
    for case in cases:
        key = teacher.request(case).key
        if key in known or key in open_cases:
            count("cached")
        elif case.case_id in chosen and not replay_only:
            open_cases[key] = case
        else:
            count("not_asked")
    waiting = sorted(open_cases.values(), key=lambda case: len(render(case)))
    size = teacher.spec.batch_size
    batches = [waiting[start : start + size] for start in range(0, len(waiting), size)]
    for batch, judged in judging(teacher, batches):
        if isinstance(judged, Exception):
            for case in batch:
                cache.fail(teacher.request(case), case.case_id, judged)
                count("failed")
            continue
        for case, (answer, usage) in zip(batch, judged, strict=True):
            request = teacher.request(case)
            cache.add(request, case.case_id, answer, usage)
            known.add(request.key)
            count("answered", usage)
    return tally


def _answer(case: Case, visit: str, said: Written) -> Answer:
    lines = {kind: [text for of, text in said.lines if of == kind] for kind, _ in said.lines}
    mean = sum(digit * chance for digit, chance in enumerate(said.digits)) / _HIGHEST_DIGIT * 100
    mean = min(100.0, max(0.0, mean))
    flags: tuple[Flag, ...] = ("instruction_in_case",) if commands_the_model(case) else ()
    return Answer(
        insights=tuple(
            Insight(name=text or "nothing said", weight=weight, explanation=_origin(text, visit))
            for text, weight in zip(lines["finding"], RANK_WEIGHTS, strict=True)
        ),
        differential=tuple(Differential(name=text) for text in lines["disease"] if text),
        risk=round(mean),
        explanation=lines["sentence"][0] or "The model gave no sentence.",
        expected_risk=mean,
        flags=flags,
    )


def _origin(text: str, visit: str) -> str:
    """Whether the visit says it: a small model writes fluently what is not there."""
    words = [word for word in text.lower().split() if len(word) >= _SHORTEST_WORD]
    known = sum(word.strip(".,;:()") in visit.lower() for word in words)
    if words and known >= _SHARED * len(words):
        return "Words of the visit."
    return "The visit does not say this; the model added it."
