"""Who somebody is, taken out of a text before any model reads it: contact data, birth, protected traits, names.

Patterns and lists, no model: what they find is the same everywhere and can be read in one file. What they miss is
measured by the evaluation (`names_left`, `contacts_left`).
"""

import bisect
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

EMAIL, URL, PHONE, ADDRESS, BIRTH, TRAIT, NAME = "EMAIL", "URL", "PHONE", "ADDRESS", "BIRTH", "TRAIT", "NAME"
KINDS = (EMAIL, URL, PHONE, ADDRESS, BIRTH, TRAIT, NAME)
PLACEHOLDER = re.compile(rf"\[(?:{'|'.join(KINDS)})\]")

_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
_DATE = (
    r"(?:\d{1,4}[./-]\d{1,2}[./-]\d{1,4}"
    rf"|\d{{1,2}}\.?\s+{_MONTH},?\s+\d{{4}}|{_MONTH}\s+\d{{1,2}},?\s+\d{{4}}|\d{{4}})"
)
_STREET = (
    r"(?:Street|Str|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct|Place|Pl|Way|Square|Sq|Terrace"
    r"|Parkway|Pkwy|Crescent|Close)"
)
_PATTERNS = (
    (EMAIL, re.compile(r"[\w.+%-]+\s?@\s?[\w-]+(?:\.[\w-]+)+")),
    (URL, re.compile(
        r"(?:https?://|www\.)[^\s)\]>*]+"
        r"|\b(?:[\w-]+\.)*(?:linkedin|github|gitlab|facebook|twitter|instagram|behance)\.com(?:/[^\s)\]>*]*)?"
        r"|\b[\w-]+(?:\.[\w-]+)*\.(?:com|org|net|io|dev|me|info)/[^\s)\]>*]*", re.IGNORECASE)),
    (BIRTH, re.compile(
        rf"\b(?:(?:date\s+of\s+birth|birth\s?date|birthday|d\.?\s?o\.?\s?b\.?|born(?:\s+(?:on|in))?)\s*[:–-]?\s*{_DATE}"
        r"|age(?:d)?\s*[:–-]?\s*\d{2}\b|\d{2}[\s-]years?[\s-]old\b)", re.IGNORECASE)),
    (TRAIT, re.compile(
        r"^[\s>*_•-]*(?:gender|sex|nationality|citizenship|marital\s+status|religion|ethnicity|race|children)\b[*_]*\s*[:–-]"
        r"[^\n]*$", re.IGNORECASE | re.MULTILINE)),
    (ADDRESS, re.compile(
        rf"\b\d{{1,5}}[A-Za-z]?,?\s+(?:[A-Z0-9][\w'.-]*\s+){{1,4}}{_STREET}\b\.?"
        r"(?:,?\s+(?:Apt|Apartment|Suite|Unit|No|#)\.?\s*\w+)?(?:,\s*[A-Z][A-Za-z.'-]+(?:\s[A-Z][A-Za-z.'-]+){0,2})?"
        r"(?:,?\s+[A-Z]{2})?(?:,?\s+\d{4,5}(?:-\d{4})?)?"
        r"|\b[A-ZÄÖÜ][a-zäöüß]+(?:straße|strasse|weg|platz|gasse)\s+\d{1,4}[a-z]?(?:,?\s+\d{5}(?:\s+[A-ZÄÖÜ][\w]+)?)?"
        r"|\b(?:P\.?\s?O\.?\s+Box)\s+\d+|(?<=[A-Z]{2}\s)\d{5}(?:-\d{4})?\b")),
    (ADDRESS, re.compile(r"(?<=\baddress:)[^\n|]+|(?<=\baddress:\*\*)[^\n|]+", re.IGNORECASE)),
)  # fmt: skip
_PHONE = re.compile(r"(?<![\w.,$€£])(?:\+|\()?\d[\d\s().–-]{5,20}\d(?![\w%])")
_YEARS = re.compile(r"^[(\s]*(?:\d{1,2}[\s.–-]+)?(?:19|20)\d\d[\s.–-]+(?:\d{1,2}[\s.–-]+)?(?:19|20)\d\d$")
_LABEL = re.compile(
    r"^[\s>*_#-]*(?:(?:full\s+|candidate\s+)?name)\b[*_]*\s*:[\s*_]*(?P<name>[^\s*|,][^\n*|,]*)", re.I | re.M
)
_TITLED = re.compile(r"\b(?:Mr|Mrs|Ms|Miss|Mx|Dr|Prof)\.?\s+(?P<name>[A-Z][\w'-]+(?:\s+[A-Z][\w'-]+)?)")
_WORD = re.compile(r"\b[^\W\d_]\.|[^\W\d_]+(?:['’-][^\W\d_]+)*")
_INSTITUTION = re.compile(
    r"(?:\s+(?-i:[A-Z])[\w'’-]*){0,2}\s+(?:university|college|institute|school|academy|hospital|bank|inc|llc|ltd|corp"
    r"|group|company|foundation|library|airport|center|centre|&)\b",
    re.IGNORECASE,
)
# First names that are also words or places: alone they are left, beside a surname they are not.
_COMMON = frozenset(
    [
        "april",
        "august",
        "austin",
        "banks",
        "booker",
        "brook",
        "charlotte",
        "christian",
        "dallas",
        "dean",
        "diamond",
        "drew",
        "duke",
        "faith",
        "florence",
        "forest",
        "frank",
        "georgia",
        "grace",
        "grant",
        "hope",
        "houston",
        "hunter",
        "iris",
        "jack",
        "jackson",
        "jade",
        "jasmine",
        "jean",
        "jordan",
        "joy",
        "june",
        "king",
        "logan",
        "luz",
        "madison",
        "major",
        "malik",
        "mark",
        "may",
        "melody",
        "mercy",
        "miles",
        "parker",
        "paris",
        "pearl",
        "penny",
        "precious",
        "price",
        "reed",
        "rich",
        "rivers",
        "rose",
        "ruby",
        "sage",
        "santiago",
        "savannah",
        "scott",
        "sidney",
        "sky",
        "stone",
        "summer",
        "tanner",
        "taylor",
        "todd",
        "troy",
        "virginia",
        "washington",
        "will",
        "wood",
        "young",
        "chase",
        "carter",
        "mason",
        "cooper",
        "jin",
        "wei",
        "an",
        "my",
        "do",
        "so",
        "son",
        "min",
        "hana",
        "raj",
    ]
)
# Words of headings, titles and trades: a line that holds one is no name.
_HEADING = frozenset(
    [
        "academic",
        "accountant",
        "accounting",
        "achievements",
        "address",
        "administration",
        "administrator",
        "advanced",
        "agent",
        "analyst",
        "analytics",
        "application",
        "area",
        "assistant",
        "associate",
        "background",
        "bachelor",
        "branch",
        "business",
        "candidate",
        "career",
        "certifications",
        "chef",
        "chief",
        "civil",
        "clerk",
        "company",
        "consultant",
        "contact",
        "coordinator",
        "core",
        "curriculum",
        "customer",
        "data",
        "degree",
        "department",
        "designer",
        "developer",
        "development",
        "director",
        "driver",
        "education",
        "electrical",
        "electrician",
        "email",
        "employment",
        "engineer",
        "engineering",
        "executive",
        "experience",
        "expert",
        "finance",
        "financial",
        "front",
        "full",
        "general",
        "health",
        "highlights",
        "history",
        "hr",
        "human",
        "independent",
        "information",
        "interests",
        "junior",
        "lead",
        "leader",
        "leadership",
        "legal",
        "machine",
        "management",
        "manager",
        "marketing",
        "master",
        "mechanical",
        "medical",
        "national",
        "network",
        "nurse",
        "nursing",
        "objective",
        "officer",
        "online",
        "operations",
        "operator",
        "overview",
        "owner",
        "personal",
        "phone",
        "product",
        "professional",
        "profile",
        "program",
        "project",
        "projects",
        "qualifications",
        "quality",
        "references",
        "relations",
        "relevant",
        "representative",
        "research",
        "researcher",
        "resource",
        "resources",
        "responsibilities",
        "resume",
        "retail",
        "résumé",
        "sales",
        "science",
        "scientist",
        "senior",
        "service",
        "services",
        "skill",
        "skills",
        "social",
        "software",
        "specialist",
        "staff",
        "stack",
        "state",
        "statement",
        "store",
        "summary",
        "supervisor",
        "support",
        "system",
        "systems",
        "teacher",
        "team",
        "technical",
        "technician",
        "technology",
        "training",
        "university",
        "user",
        "vitae",
        "warehouse",
        "web",
        "work",
        "worker",
        "writer",
    ]
)
# Words that begin a sentence and no name.
_STARTS = frozenset(
    [
        "a",
        "an",
        "and",
        "as",
        "at",
        "by",
        "called",
        "for",
        "from",
        "he",
        "her",
        "his",
        "i",
        "in",
        "met",
        "my",
        "new",
        "of",
        "on",
        "or",
        "our",
        "she",
        "south",
        "north",
        "east",
        "west",
        "their",
        "the",
        "they",
        "to",
        "under",
        "we",
        "with",
    ]
)
HEADER_LINES = 4
LONGEST_NAME = 5  # words


@dataclass(frozen=True)
class Redacted:
    """A text without what tells who it is about.

    Attributes:
        text: with placeholders such as `[NAME]`.
        spans: (start, end, kind) of what was taken out, in the original, ascending.
        starts: where each placeholder begins in `text`.
    """

    text: str
    spans: tuple[tuple[int, int, str], ...]
    starts: tuple[int, ...]

    def original(self, place: int) -> int:
        """Find where a place of the redacted text lies in the original; of a placeholder, where the hidden begins."""
        i = bisect.bisect_right(self.starts, place) - 1
        if i < 0:
            return place
        start, end, kind = self.spans[i]
        beyond = place - (self.starts[i] + len(kind) + 2)
        return start if beyond < 0 else end + beyond

    def counts(self) -> dict[str, int]:
        """Count what was taken out, by kind: all that an audit may keep of it."""
        found = Counter(kind for _, _, kind in self.spans)
        return {kind: found[kind] for kind in KINDS if found[kind]}


@dataclass(frozen=True)
class Redactor:
    """Finds personal data.

    Attributes:
        given: first names, lower case.
        family: surnames, lower case.
    """

    given: frozenset[str]
    family: frozenset[str]

    def redact(self, text: str) -> Redacted:
        """Replace personal data; O(characters)."""
        spans = _disjoint([*_contacts(text), *self._names(text)])
        parts, starts, at, length = [], [], 0, 0
        for start, end, kind in spans:
            parts += [text[at:start], f"[{kind}]"]
            length += start - at
            starts.append(length)
            length += len(kind) + 2
            at = end
        return Redacted("".join([*parts, text[at:]]), tuple(spans), tuple(starts))

    def _names(self, text: str) -> Iterator[tuple[int, int, str]]:
        """A name stands at the head, behind a label or a title, or is listed; then its words count everywhere."""
        known: set[str] = set()
        for start, end in [*_header(text), *((m.start("name"), m.end("name")) for m in _LABEL.finditer(text))]:
            yield start, end, NAME
            known |= {word for word in _words(text[start:end]) if len(word) > 2 and word not in _HEADING}
        for titled in _TITLED.finditer(text):
            if titled["name"].split()[0].lower() not in _HEADING:
                yield titled.start(), titled.end(), NAME
        run: list[re.Match[str]] = []
        for word in _WORD.finditer(text):
            near = run and text[run[-1].end() : word.start()] in (" ", "  ")
            if run and (not near or not word[0][0].isupper()):
                yield from self._listed(text, run, known)
                run = []
            if word[0][0].isupper():
                run.append(word)
        yield from self._listed(text, run, known)

    def _listed(self, text: str, run: list[re.Match[str]], known: set[str]) -> Iterator[tuple[int, int, str]]:
        """Look for names in a run of words that begin with capitals."""
        words = [word[0].rstrip(".").lower().replace("’", "'") for word in run]
        i = 0
        while i < len(words):
            j = self._end_of_name(words, i, known)
            if j > i and not _INSTITUTION.match(text, run[j - 1].end()):
                yield run[i].start(), run[j - 1].end(), NAME
            i = max(j, i + 1)

    def _end_of_name(self, words: list[str], i: int, known: set[str]) -> int:
        """Tell where a name ends that begins at `i`; `i` if none does."""
        if words[i] in known:
            return i + 1
        if words[i] in self.given:
            j = i + 1
            while j < min(len(words), i + LONGEST_NAME) and words[j] not in _HEADING and self._goes_on(words[j]):
                j += 1
            return i if j == i + 1 and words[i] in _COMMON else j
        surname = i + 1 < len(words) and words[i + 1] in self.family and words[i + 1] not in _COMMON
        return i + 2 if surname and words[i] not in _HEADING and words[i] not in _STARTS else i

    def _goes_on(self, word: str) -> bool:
        return word in self.family or word in self.given or len(word) == 1


def plain(redacted: str) -> str:
    """Drop placeholders: what is encoded holds no trace of what was taken out."""
    return " ".join(PLACEHOLDER.sub(" ", redacted).split())


def redactor(names: Mapping[str, list[str]]) -> Redactor:
    """Build one from lists of `given` and `family` names, in any case."""
    return Redactor(*(frozenset(name.lower() for name in names[kind]) for kind in ("given", "family")))


def _words(text: str) -> list[str]:
    return [word[0].rstrip(".").lower().replace("’", "'") for word in _WORD.finditer(text)]


def _header(text: str) -> Iterator[tuple[int, int]]:
    """Find a line at the head that is two to five capitalised words and no heading."""
    at = seen = 0
    for line in text.split("\n"):
        bare = line.strip(" \t*_#>|-:[]").split("|")[0].split(",")[0].strip(" *_")
        if bare:
            seen += 1
            words = bare.split()
            if (
                2 <= len(words) <= LONGEST_NAME
                and all(_WORD.fullmatch(word) and word[0].isupper() for word in words)
                and not set(_words(bare)) & _HEADING
            ):
                start = at + line.index(bare)
                yield start, start + len(bare)
                return
        if seen == HEADER_LINES:
            return
        at += len(line) + 1


def _contacts(text: str) -> Iterator[tuple[int, int, str]]:
    for kind, pattern in _PATTERNS:
        for found in pattern.finditer(text):
            if found[0].strip():
                yield found.start(), found.end(), kind
    for found in _PHONE.finditer(text):
        digits = sum(c.isdigit() for c in found[0])
        if 7 <= digits <= 15 and not _YEARS.match(found[0].strip()) and "\n" not in found[0]:
            yield found.start(), found.end(), PHONE


def _disjoint(spans: list[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Keep the first and longest of overlapping spans, stretched over all of them."""
    kept: list[tuple[int, int, str]] = []
    for start, end, kind in sorted(spans, key=lambda s: (s[0], -s[1])):
        if kept and start < kept[-1][1]:
            kept[-1] = (kept[-1][0], max(end, kept[-1][1]), kept[-1][2])
        else:
            kept.append((start, end, kind))
    return kept
