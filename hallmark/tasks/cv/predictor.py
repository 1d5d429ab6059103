"""CvPredictor: a CV and a job in, a score with its evidence out; personal data are removed first."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hallmark.families.language.cleaning import normal, tidy, unreadable
from hallmark.families.language.match_curves import Curves
from hallmark.families.language.retriever import Retriever
from hallmark.families.language.screens import Screen, harms
from hallmark.tasks.cv import messages as m
from hallmark.tasks.cv.documents import Unit, units
from hallmark.tasks.cv.matching import SHOWN, Matcher, Part, Reading, Wanted, read_sentences, total
from hallmark.tasks.cv.redaction import Redacted, Redactor, plain
from hallmark.tasks.cv.rewriting import Invented, Rewriter, diff, invented

Guard = tuple[str, Callable[[str], list[str]], Callable[[str], bool]]
RUNNING = 40  # words from which a CV or a job must hold one of English's commonest
GAPS = 10  # suggestions of a kind, at most


@dataclass(frozen=True)
class CvPredictor:
    """A trained retriever with its calibration and everything that keeps it honest.

    Attributes:
        retriever: the model.
        curves: cosines → probabilities.
        redactor: takes personal data out before anything is encoded.
        rewriter: arranges a CV.
        screens: look at what was generated.
        most: skills of a job, at most.
        least: probability from which a line of a job counts as asking for a skill.
        version: of the model.
        digest: sha256 of the hallmark.
    """

    retriever: Retriever
    curves: Curves
    redactor: Redactor
    rewriter: Rewriter
    screens: Sequence[Screen]
    most: int
    least: float
    version: str
    digest: str

    @property
    def matcher(self) -> Matcher:
        """What compares."""
        return Matcher(self.retriever.vectors, self.retriever.known, self.curves, self.most, self.least)

    def predict(self, requests: Sequence[m.CvRequest]) -> list[m.CvResponse]:
        """Answer every request in order."""
        return [self._answer(request) for request in requests]

    def scorer(self, job: str, redact: bool = True) -> Callable[[str], float]:
        """Return what scores CVs against a job and does nothing else; `redact=False` shows what redaction is worth."""

        def read(text: str, headed: bool = True) -> Reading:
            return matcher.read(self.redactor.redact(tidy(text), headed).text if redact else tidy(text))

        matcher = self.matcher
        wanted = matcher.asked(read(job, headed=False))
        return lambda cv: total(matcher.compare(read(cv), wanted))

    def _answer(self, request: m.CvRequest) -> m.CvResponse:
        job = self.redactor.redact(tidy(request.job), headed=False)
        if reason := _unreadable("job", job):
            return self._abstain(reason)
        matcher = self.matcher
        wanted = matcher.asked(matcher.read(job.text))
        if not wanted:
            return self._abstain("the job asks for no skill of the list")
        if request.cv is None:
            decision = self._decision(None, job, None, wanted, (), ())
            empty = matcher.compare(Reading((), self.retriever.known[:0], ()), wanted)
            skills = [self._part(part, job) for part in empty]  # no evidence, so no places
            return self._respond("retrieved", "", None, skills, [], [], None, decision)
        document = tidy(request.cv)
        cv = self.redactor.redact(document)
        if reason := _unreadable("CV", cv):
            return self._abstain(reason)
        reading = matcher.read(cv.text)
        if not reading.units:
            return self._abstain("the CV holds no line that can be read beside headings and single letters")
        parts = matcher.compare(reading, wanted)
        rewritten, made_up = self._rewrite(document, cv.text, reading, parts)
        suggestions = self._suggestions(parts)
        kept, found = self._screened(suggestions)
        if rewritten.text is not None:
            found |= (bad := set(harms(self.screens, _new_lines(document, rewritten.text))))
            if bad:
                rewritten = m.Rewritten(text=None, diff="", refused=["harm"])
        kinds = list(dict.fromkeys(each.kind for each in made_up))
        decision = self._decision(cv, job, total(parts), wanted, kinds, sorted(found))
        by_loss = sorted((part for part in parts if part.coverage < SHOWN), key=lambda p: p.points - p.weight)
        gap = [self.retriever.answers[part.wanted.skill] for part in by_loss]
        told = [self._part(part, cv) for part in parts]
        return self._respond("matched", "", total(parts), told, gap, kept, rewritten, decision)

    def _rewrite(
        self, document: str, redacted: str, reading: Reading, parts: Sequence[Part]
    ) -> tuple[m.Rewritten, list[Invented]]:
        """Let the rewriter write and hold it to the source."""
        skills = self.retriever.answers
        values = self.matcher.relevance(reading, [part.wanted for part in parts]) @ [part.weight for part in parts]
        of_text = {unit.text: float(value) for unit, value in zip(reading.units, values, strict=True)}

        def relevance(line: str) -> float:
            return max((of_text.get(unit.text, 0.0) for unit in units(self.redactor.redact(line).text)), default=0.0)

        text = self.rewriter.rewrite(document, relevance, parts, skills)
        made_up = invented(document, text, *self._guard(redacted, reading))
        if made_up:
            return m.Rewritten(text=None, diff="", refused=list(dict.fromkeys(each.kind for each in made_up))), made_up
        return m.Rewritten(text=text, diff=diff(document, text), refused=[]), []

    def guard(self, document: str) -> Guard:
        """Return what `invented` asks about a tidy CV: a line's skills, and whether the CV shows one."""
        redacted = self.redactor.redact(document).text
        return self._guard(redacted, self.matcher.read(redacted))

    def _guard(self, redacted: str, reading: Reading) -> Guard:
        matcher, skills = self.matcher, self.retriever.answers

        def skills_of(line: str) -> list[str]:
            found = self._read_line(line)
            return [skills[w.skill] for w in matcher.asked(found)] if found else []

        def shows(skill: str) -> bool:
            asked = Wanted(skills.index(skill), 1.0, Unit(0, 0, ""))
            return bool(matcher.relevance(reading, [asked]).max(initial=0.0) >= SHOWN)

        return redacted, skills_of, shows

    def _read_line(self, line: str) -> Reading | None:
        """Read a line as one unit; None if it holds nothing but personal data."""
        found = read_sentences([self.redactor.redact(line).text], self.matcher.vectors)
        return found if found.units else None

    def _suggestions(self, parts: Sequence[Part]) -> list[m.Suggestion]:
        """Say what is missing, the most valuable first, then what is there but not called by its name."""
        found = []
        for part in sorted(parts, key=lambda p: p.points - p.weight):
            skill = self.retriever.answers[part.wanted.skill]
            lost = round(part.weight - part.points, 4)
            if part.coverage < SHOWN:
                text = (
                    f"The job asks for “{skill}” (“{plain(part.wanted.unit.text)}”), and no line shows it. "
                    "If you have done it, say where and with what result; if not, leave it out."
                )
                found.append(m.Suggestion(kind="gap", skill=skill, points=lost, text=text))
            elif part.evidence and skill.lower() not in part.evidence[0][0].text.lower():
                text = f"“{plain(part.evidence[0][0].text)}” shows “{skill}”: call it by that name there."
                found.append(m.Suggestion(kind="name_it", skill=skill, points=lost, text=text))
        return [s for kind in ("gap", "name_it") for s in [s for s in found if s.kind == kind][:GAPS]]

    def _screened(self, suggestions: Sequence[m.Suggestion]) -> tuple[list[m.Suggestion], set[str]]:
        judged = [(suggestion, harms(self.screens, suggestion.text)) for suggestion in suggestions]
        return [s for s, bad in judged if not bad], {kind for _, bad in judged for kind in bad}

    def _part(self, part: Part, cv: Redacted) -> m.SkillPart:
        evidence = [
            m.Evidence(
                start=cv.original(unit.start), end=cv.original(unit.end), text=unit.text, probability=probability
            )
            for unit, probability in part.evidence
        ]
        return m.SkillPart(
            skill=self.retriever.answers[part.wanted.skill],
            asked_by=part.wanted.unit.text,
            probability=round(part.wanted.probability, 4),
            weight=part.weight,
            coverage=part.coverage,
            points=part.points,
            evidence=evidence,
        )

    def _decision(
        self,
        cv: Redacted | None,
        job: Redacted,
        score: float | None,
        wanted: Sequence[Wanted],
        made_up: Sequence[str],
        found: Sequence[str],
    ) -> m.Decision:
        return m.Decision(
            cv_sha256=hashlib.sha256(plain(cv.text).encode()).hexdigest() if cv else "",
            job_sha256=hashlib.sha256(plain(job.text).encode()).hexdigest(),
            redacted=cv.counts() if cv else {},
            score=score,
            parts=len(wanted),
            invented=list(made_up),
            harms=list(found),
        )

    def _abstain(self, reason: str) -> m.CvResponse:
        return self._respond("abstained", reason, None, [], [], [], None, None)

    def _respond(
        self,
        status: str,
        reason: str,
        score: float | None,
        parts: list[m.SkillPart],
        gap: list[str],
        suggestions: list[m.Suggestion],
        rewritten: m.Rewritten | None,
        decision: m.Decision | None,
    ) -> m.CvResponse:
        return m.CvResponse(
            status=status,  # type: ignore[arg-type]  # pydantic checks it
            reason=reason,
            score=score,
            parts=parts,
            gap=gap,
            suggestions=suggestions,
            rewritten=rewritten,
            decision=decision,
            model_version=self.version,
            hallmark_sha256=self.digest,
            disclaimer=m.DISCLAIMER,
        )


def _unreadable(what: str, text: Redacted) -> str:
    left = normal(plain(text.text))
    if not left and text.spans:
        return f"the {what} holds nothing but personal data"
    reason = unreadable(left, m.LONGEST, RUNNING)
    return reason.replace("the text", f"the {what}") if reason else ""


def _new_lines(source: str, rewritten: str) -> str:
    known = set(source.split("\n"))
    return "\n".join(line for line in rewritten.split("\n") if line not in known)
