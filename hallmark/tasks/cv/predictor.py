"""Match a CV with a job: a score with its evidence, after personal data were removed."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hallmark.families.language.cleaning import normalise_line, rejection_reason, tidy
from hallmark.families.language.match_curves import Curves
from hallmark.families.language.retriever import Retriever
from hallmark.families.language.screens import Screen, harms
from hallmark.tasks.cv import messages as m
from hallmark.tasks.cv.documents import Unit, units
from hallmark.tasks.cv.matching import SHOWN, EncodedDocument, Matcher, Part, Wanted, read_sentences, total
from hallmark.tasks.cv.redaction import Redacted, Redactor, plain
from hallmark.tasks.cv.rewriting import Invented, Rewriter, diff, invented

Guard = tuple[str, Callable[[str], list[str]], Callable[[str], bool]]
RUNNING = 40  # words; a CV or a job of this length or more must contain a common English word
GAPS = 10  # maximum number of suggestions of a kind


@dataclass(frozen=True)
class CvPredictor:
    """A trained retriever with its calibration, redaction, rewriting and screens.

    Attributes:
        retriever: the model.
        curves: cosines → probabilities.
        redactor: removes personal data before anything is encoded.
        rewriter: rewrites a CV for a job.
        screens: checks of generated text for harm.
        most: maximum number of skills of a job.
        least: minimum probability at which a line of a job counts as asking for a skill.
        version: version of the model.
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
        """Return the matcher of jobs and CVs."""
        return Matcher(self.retriever.vectors, self.retriever.known, self.curves, self.most, self.least)

    def predict(self, requests: Sequence[m.CvRequest]) -> list[m.CvResponse]:
        """Answer every request in order."""
        return [self._answer(request) for request in requests]

    def scorer(self, job: str, redact: bool = True) -> Callable[[str], float]:
        """Return a function that only scores CVs against a job; `redact=False` measures the effect of redaction."""

        def read(text: str, headed: bool = True) -> EncodedDocument:
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
            empty = matcher.compare(EncodedDocument((), self.retriever.known[:0], ()), wanted)
            skills = [self._part(part, job) for part in empty]  # no evidence, so no offsets
            return self._respond("retrieved", "", None, skills, [], [], None, decision)
        document = tidy(request.cv)
        cv = self.redactor.redact(document)
        if reason := _unreadable("CV", cv):
            return self._abstain(reason)
        reading = matcher.read(cv.text)
        if not reading.units:
            return self._abstain("the CV holds no line that can be read beside headings and single letters")
        parts = matcher.compare(reading, wanted)
        rewritten, inventions = self._rewrite(document, cv.text, reading, parts)
        suggestions = self._suggestions(parts)
        safe_suggestions, harm_kinds = self._screened(suggestions)
        if rewritten.text is not None:
            harm_kinds |= (new_harms := set(harms(self.screens, _new_lines(document, rewritten.text))))
            if new_harms:
                rewritten = m.Rewritten(text=None, diff="", refused=["harm"])
        invented_kinds = list(dict.fromkeys(invention.kind for invention in inventions))
        decision = self._decision(cv, job, total(parts), wanted, invented_kinds, sorted(harm_kinds))
        by_loss = sorted((part for part in parts if part.coverage < SHOWN), key=lambda p: p.points - p.weight)
        gap = [self.retriever.answers[part.wanted.skill] for part in by_loss]
        skill_parts = [self._part(part, cv) for part in parts]
        return self._respond("matched", "", total(parts), skill_parts, gap, safe_suggestions, rewritten, decision)

    def _rewrite(
        self, document: str, redacted: str, reading: EncodedDocument, parts: Sequence[Part]
    ) -> tuple[m.Rewritten, list[Invented]]:
        """Run the rewriter, and check its text against the source."""
        skills = self.retriever.answers
        values = self.matcher.relevance(reading, [part.wanted for part in parts]) @ [part.weight for part in parts]
        value_of = {unit.text: float(value) for unit, value in zip(reading.units, values, strict=True)}

        def relevance(line: str) -> float:
            return max((value_of.get(unit.text, 0.0) for unit in units(self.redactor.redact(line).text)), default=0.0)

        text = self.rewriter.rewrite(document, relevance, parts, skills)
        claims = invented(document, text, *self._guard(redacted, reading))
        if claims:
            return m.Rewritten(text=None, diff="", refused=list(dict.fromkeys(claim.kind for claim in claims))), claims
        return m.Rewritten(text=text, diff=diff(document, text), refused=[]), []

    def guard(self, document: str) -> Guard:
        """Return what `invented` needs to know of a tidy CV: the skills of a line, and whether the CV shows a skill."""
        redacted = self.redactor.redact(document).text
        return self._guard(redacted, self.matcher.read(redacted))

    def _guard(self, redacted: str, reading: EncodedDocument) -> Guard:
        matcher, skills = self.matcher, self.retriever.answers

        def skills_of(line: str) -> list[str]:
            line_reading = self._read_line(line)
            return [skills[w.skill] for w in matcher.asked(line_reading)] if line_reading else []

        def shows(skill: str) -> bool:
            wanted = Wanted(skills.index(skill), 1.0, Unit(0, 0, ""))
            return bool(matcher.relevance(reading, [wanted]).max(initial=0.0) >= SHOWN)

        return redacted, skills_of, shows

    def _read_line(self, line: str) -> EncodedDocument | None:
        """Encode a line as one unit; return None if it holds nothing but personal data."""
        reading = read_sentences([self.redactor.redact(line).text], self.matcher.vectors)
        return reading if reading.units else None

    def _suggestions(self, parts: Sequence[Part]) -> list[m.Suggestion]:
        """Suggest missing skills, the most valuable first, then skills that are shown but not named."""
        suggestions = []
        for part in sorted(parts, key=lambda p: p.points - p.weight):
            skill = self.retriever.answers[part.wanted.skill]
            lost = round(part.weight - part.points, 4)
            if part.coverage < SHOWN:
                text = (
                    f"The job asks for “{skill}” (“{plain(part.wanted.unit.text)}”), and no line shows it. "
                    "If you have done it, say where and with what result; if not, leave it out."
                )
                suggestions.append(m.Suggestion(kind="gap", skill=skill, points=lost, text=text))
            elif part.evidence and skill.lower() not in part.evidence[0][0].text.lower():
                text = f"“{plain(part.evidence[0][0].text)}” shows “{skill}”: call it by that name there."
                suggestions.append(m.Suggestion(kind="name_it", skill=skill, points=lost, text=text))
        return [s for kind in ("gap", "name_it") for s in [s for s in suggestions if s.kind == kind][:GAPS]]

    def _screened(self, suggestions: Sequence[m.Suggestion]) -> tuple[list[m.Suggestion], set[str]]:
        screened = [(suggestion, harms(self.screens, suggestion.text)) for suggestion in suggestions]
        return [s for s, harm in screened if not harm], {kind for _, harm in screened for kind in harm}

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
        invented_kinds: Sequence[str],
        harm_kinds: Sequence[str],
    ) -> m.Decision:
        return m.Decision(
            cv_sha256=hashlib.sha256(plain(cv.text).encode()).hexdigest() if cv else "",
            job_sha256=hashlib.sha256(plain(job.text).encode()).hexdigest(),
            redacted=cv.counts() if cv else {},
            score=score,
            parts=len(wanted),
            invented=list(invented_kinds),
            harms=list(harm_kinds),
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


def _unreadable(document_name: str, text: Redacted) -> str:
    remaining = normalise_line(plain(text.text))
    if not remaining and text.spans:
        return f"the {document_name} holds nothing but personal data"
    reason = rejection_reason(remaining, m.LONGEST, RUNNING)
    return reason.replace("the text", f"the {document_name}") if reason else ""


def _new_lines(source: str, rewritten: str) -> str:
    known = set(source.split("\n"))
    return "\n".join(line for line in rewritten.split("\n") if line not in known)
