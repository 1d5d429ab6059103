"""Remove personal data by patterns and name lists: contacts, birth date, protected attributes, names.

Patterns and lists, no model: the result is deterministic, and the rules can be reviewed in one file. Evaluation
measures what they miss (`names_left`, `contacts_left`).
"""

import bisect
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hallmark.tasks.cv.documents import FEWEST_LETTERS

EMAIL, URL, PHONE, ADDRESS, BIRTH, TRAIT, NAME = "EMAIL", "URL", "PHONE", "ADDRESS", "BIRTH", "TRAIT", "NAME"
KINDS = (EMAIL, URL, PHONE, ADDRESS, BIRTH, TRAIT, NAME)
PLACEHOLDER = re.compile(rf"\[(?:{'|'.join(KINDS)})\]")

_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
_DAY = r"\d{1,2}(?:st|nd|rd|th)?\.?"
_DATE = (
    r"(?:\d{1,4}[./-]\d{1,2}[./-]\d{1,4}"
    rf"|{_DAY}\s+(?:of\s+)?{_MONTH}\.?,?\s+\d{{4}}|{_MONTH}\.?\s+(?:{_DAY},?\s+)?\d{{4}}|\d{{4}})"
)
_STREET = (
    r"(?i:Street|Str|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Terrace|Parkway|Pkwy|Crescent)\b\.?"
    r"|(?:Court|Ct|Place|Pl|Way|Square|Sq|Close)\b\.?(?=\s*(?:,|\||$))"
)
_GAP = r"[\s:*_|()–-]{0,12}"  # between a label and its value
# All are searched in one line at a time.
_PATTERNS = tuple(
    (kind, re.compile(pattern, re.IGNORECASE if free else 0))
    for kind, free, pattern in (
        (EMAIL, True, r"[\w.+%-]{1,64}\s?(?:@|[(\[]at[)\]])\s?[\w-]+(?:(?:\.|\s?[(\[]dot[)\]]\s?)[\w-]+)+"),
        (URL, True, r"(?:https?://|www\.)[^\s)\]>*]+"
            r"|\b(?:[\w-]{1,40}\.){0,3}(?:linkedin|github|gitlab|facebook|twitter|instagram|behance)\.com(?:/[^\s)\]>*]*)?"
            r"|\b(?!(?:asp|socket|node|next|vue|three|d3)\.)[\w-]{1,40}(?:\.[\w-]{1,40}){0,3}"
            r"\.(?:com|org|net|io|dev|me|info|de|uk|fr|eu)/[^\s)\]>*]*"),
        (BIRTH, True, rf"\b(?:(?:date|year)\s+of\s+birth|birth\s?date|birthday|d\.?\s?o\.?\s?b\b\.?){_GAP}"
            rf"(?:\(?d\.?o\.?b\.?\)?{_GAP})?{_DATE}|\bborn(?:\s+(?:on|in))?{_GAP}{_DATE}"
            r"|(?:^|[,|;(•])[\s*_-]*aged?[*_]*\s*[:|–-]?\s*\d{2}\b(?!\s*(?:days|months|hours))"
            r"|\b\d{2}[\s-](?:years?|yrs?)[\s-]old\b"),
        (TRAIT, True, r"(?:^|[,|;•])[\s>*_-]*(?:gender|sex|nationality|citizenship|(?:marital|civil|family)\s+status"
            r"|religion|ethnicity|race|disability|sexual\s+orientation|pronouns|place\s+of\s+birth|passport(?:\s+no)?)"
            r"\b[*_.]*\s*[:|][^|;]*|\((?:she|he|they)\s?/\s?(?:her|him|them)\)"),
        (ADDRESS, False, rf"\b\d{{1,5}}[A-Za-z]?,?\s+(?:[\w'.-]+\s+){{1,4}}?(?:{_STREET})"
            r"(?:,?\s+(?:Apt|Apartment|Suite|Unit|No|#)\.?\s*\w+)?(?:,\s*[A-Z][A-Za-z.'-]+(?:\s[A-Z][A-Za-z.'-]+){0,2})?"
            r"(?:,?\s+[A-Z]{2})?(?:,?\s+\d{4,5}(?:-\d{4})?)?"),
        (ADDRESS, False, r"\b[A-ZÄÖÜ][\wäöüß-]*(?:straße|strasse|Straße|weg|platz|gasse|\s+Str\.)\s+\d{1,4}[a-z]?"
            r"(?:,?\s+\d{5}(?:\s+[A-ZÄÖÜ]\w+)?)?"
            r"|\b\d{1,4},?\s+(?:rue|avenue|boulevard|place)\s+[^,|]+(?:,\s*\d{5}\s+[A-Z]\w+)?"
            r"|\bP\.?\s?O\.?\s+Box\s+\d+|,\s*[A-Z]{2}\s+\d{5}(?:-\d{4})?\b|\b[A-Z]{1,2}\d[A-Z\d]?\s\d[A-Z]{2}\b"),
        (ADDRESS, True, r"(?<=\baddress)[*_]*\s*:[^|]+"),
    )
)  # fmt: skip
_PHONE = re.compile(r"(?<![\w.,$€£])(?:\+|\()?\d[\d\s()./–-]{5,20}\d(?![\w%])")
_DIALLED = re.compile(r"(?:tel|phone|mobile|cell|fax|call)\w*\.?[\s:*_]*$", re.IGNORECASE)
_NO_PHONE = re.compile(
    r"^[(\s]*(?:(?:\d{1,2}[\s./–-]+)?(?:19|20)\d\d(?:[\s./–-]+|$)(?:\d{1,2}(?:[\s./–-]+|$)){0,2})+$"  # dates
    r"|^\d{1,3}(?:[ .]\d{3})+$|^\d{1,3}(?:\.\d{1,3}){3}$"  # thousands separators, IP addresses
)
_GROUPS = re.compile(r"^\d{2,4}(?:[\s./–-]+\d{2,4}){2,4}$|^\d{3}-\d{4}$")
_LABEL = re.compile(r"^[\s>*_#-]*(?:(?:full\s+|candidate\s+)?name)\b[*_]*\s*:[\s*_]*(?P<name>[^\s*|,][^*|,]*)", re.I)
_REFEREE = re.compile(
    r"(?i:references?|referee|supervisor|contact)\s*:\s*(?P<name>[A-Z][\w'-]+(?:\s+[A-Z][\w'-]+){1,2})"
)
_TITLED = re.compile(
    r"\b(?:Mr|Mrs|Ms|Miss|Mx|Dr|Prof)\.?[ \t]+(?!(?i:excel|word|office|access|project|windows|sql|teams)\b)"
    r"(?P<name>[A-Z][\w'-]+(?:\s+[A-Z][\w'-]+)?)"
)
_WORD = re.compile(r"\b[^\W\d_]\.|[^\W\d_]+(?:['’-][^\W\d_]+)*")
_INSTITUTION = re.compile(
    r"(?:\s+(?-i:[A-Z])[\w'’-]*){0,2}\s+(?:university|college|institute|school|academy|hospital|bank|inc|llc|ltd|corp"
    r"|group|company|foundation|library|airport|center|centre|&)\b",
    re.IGNORECASE,
)
# First names that are also words or places: kept when alone, redacted beside a surname.
_COMMON = frozenset(
    """
april august austin banks booker brook charlotte christian dallas dean diamond drew duke faith florence forest
frank georgia grace grant hope houston hunter iris jack jackson jade jasmine jean jordan joy june king logan
luz madison major malik mark may melody mercy miles parker paris pearl penny precious price reed rich rivers
rose ruby sage santiago savannah scott sidney sky stone summer tanner taylor todd troy virginia washington
will wood young chase carter mason cooper jin wei an my do so son min hana raj
""".split()
)
# Words of headings, titles and occupations: a line that holds one is no name.
_HEADING = frozenset(
    """
academic accountant accounting achievements address administration administrator advanced agent analyst
analytics application area assistant associate background bachelor branch business candidate career
certifications chef chief civil clerk company consultant contact coordinator core curriculum customer data
degree department designer developer development director driver education electrical electrician email
employment engineer engineering executive experience expert finance financial front full general health
highlights history hr human independent information interests junior lead leader leadership legal machine
management manager marketing master mechanical medical national network nurse nursing objective officer online
operations operator overview owner personal phone product professional profile program project projects
qualifications quality references relations relevant representative research researcher resource resources
responsibilities resume retail résumé sales science scientist senior service services skill skills social
software specialist staff stack state statement store summary supervisor support system systems teacher team
technical technician technology training university user vitae warehouse web work worker writer
""".split()
)
# Words that begin sentences but no names.
_STARTS = frozenset(
    """
a an and as at by called for from he her his i in met my new of on or our she south north east west their the
they to under we with
""".split()
)
_PARTICLES = frozenset(
    """
van von der den de la le di da dos del bin al el y
""".split()
)
_SAINTS = frozenset(("san", "santa", "los", "saint"))  # a name after one of them is a place
HEADER_LINES = 4
HEAD = 600  # characters; contact data within this distance confirm that a line above is a name
PIECE = 400  # characters of a line that patterns search at once; bounds their running time
LONGEST_NAME = 5  # words
_BEFORE_NAME = re.compile(
    r"^[\s*_#>|\[-]*(?:\d{1,2}[.)]\s+)?(?:(?i:resume|résumé|cv|curriculum vitae)\s+(?i:of|for)\s+)?[\s*_]*"
)
_BEHIND_NAME = re.compile(r"[|,(\]•·]|\s[–-]\s|\t|\s{3,}")
Span = tuple[int, int, str]


@dataclass(frozen=True)
class Redacted:
    """A text without personal data.

    Attributes:
        text: the text with placeholders such as `[NAME]`.
        spans: (start, end, kind) of the removed passages, offsets in the original, ascending.
        starts: offset of each placeholder in `text`.
    """

    text: str
    spans: tuple[tuple[int, int, str], ...]
    starts: tuple[int, ...]

    def original(self, place: int) -> int:
        """Map an offset in the redacted text to the original; in a placeholder, to the start of the removed passage."""
        i = bisect.bisect_right(self.starts, place) - 1
        if i < 0:
            return place
        start, end, kind = self.spans[i]
        beyond = place - (self.starts[i] + len(kind) + 2)
        return start if beyond < 0 else end + beyond

    def counts(self) -> dict[str, int]:
        """Count the removed passages by kind: the only record of them that an audit may keep."""
        counts = Counter(kind for _, _, kind in self.spans)
        return {kind: counts[kind] for kind in KINDS if counts[kind]}


@dataclass(frozen=True)
class Redactor:
    """Finds and replaces personal data.

    Attributes:
        given: first names, lower case.
        family: surnames, lower case.
    """

    given: frozenset[str]
    family: frozenset[str]

    def redact(self, text: str, headed: bool = True) -> Redacted:
        """Replace personal data; O(characters). `headed`: the text begins with its owner's name, as a CV does."""
        contacts = list(_contacts(text))
        spans = _disjoint([*contacts, *self._names(text, contacts, headed)])
        parts, starts, copied, length = [], [], 0, 0
        for start, end, kind in spans:
            parts += [text[copied:start], f"[{kind}]"]
            length += start - copied
            starts.append(length)
            length += len(kind) + 2
            copied = end
        return Redacted("".join([*parts, text[copied:]]), tuple(spans), tuple(starts))

    def _names(self, text: str, contacts: list[Span], headed: bool) -> Iterator[Span]:
        """Find names in the header, after a label or a title, and in the lists; their words then count everywhere."""
        known: set[str] = set()
        for start, end in self._header(text) if headed else ():
            yield start, end, NAME
            words = {word for word in _words(text[start:end]) if len(word) > 2 and word not in _HEADING | _PARTICLES}
            is_confirmed = words & (self.given | self.family) or any(
                end <= contact_start < end + HEAD for contact_start, _, _ in contacts
            )
            known |= words - _COMMON if is_confirmed else set()
        for offset, piece in _pieces(text):
            if match := _LABEL.match(piece):
                yield offset + match.start("name"), offset + match.end("name"), NAME
                known |= {word for word in _words(match["name"]) if len(word) > 2 and word not in _HEADING}
            if match := _REFEREE.search(piece):
                yield offset + match.start("name"), offset + match.end("name"), NAME
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

    def _listed(self, text: str, run: list[re.Match[str]], known: set[str]) -> Iterator[Span]:
        """Find names in a run of words that begin with capitals."""
        words = [word[0].rstrip(".").lower().replace("’", "'") for word in run]
        i = 0
        while i < len(words):
            j = self._end_of_name(words, i, known)
            if j > i and not _INSTITUTION.match(text, run[j - 1].end()):
                yield run[i].start(), run[j - 1].end(), NAME
            i = max(j, i + 1)

    def _end_of_name(self, words: list[str], i: int, known: set[str]) -> int:
        """Return the end of a name that begins at word `i`; `i` if no name begins there."""
        if words[i] in known:
            return i + 1
        if words[i] in self.given and not (i and words[i - 1] in _SAINTS):
            j = i + 1
            while j < min(len(words), i + LONGEST_NAME) and words[j] not in _HEADING and self._goes_on(words[j]):
                j += 1
            return i if j == i + 1 and words[i] in _COMMON else j
        if i and words[i - 1] in _SAINTS:
            return i
        surname = i + 1 < len(words) and words[i + 1] in self.family and words[i + 1] not in _COMMON
        return i + 2 if surname and words[i] not in _HEADING and words[i] not in _STARTS else i

    def _goes_on(self, word: str) -> bool:
        return word in self.family or word in self.given or len(word) == 1

    def _header(self, text: str) -> Iterator[tuple[int, int]]:
        """Find the first line of the header that begins with two to five words of a name and no heading."""
        line_start = lines_seen = 0
        for line in text.split("\n"):
            prefix = _BEFORE_NAME.match(line)
            first = prefix.end() if prefix else 0
            segment = _BEHIND_NAME.split(line[first : first + PIECE], maxsplit=1)[0]
            if segment.strip(" \t*_#|-:."):
                lines_seen += 1
                words: list[str] = []
                end = 0
                for match in re.finditer(r"\S+", segment):
                    bare = match[0].rstrip("*_#:")
                    if bare.lower().rstrip(".") in _HEADING:
                        break
                    words.append(bare)
                    end = match.start() + len(bare)
                if self._is_name(words):
                    yield line_start + first, line_start + first + end
                    return
            if lines_seen == HEADER_LINES:
                return
            line_start += len(line) + 1

    def _is_name(self, words: list[str]) -> bool:
        if not 2 <= len(words) <= LONGEST_NAME or not all(_WORD.fullmatch(word) for word in words):
            return False
        if all(word.islower() for word in words):
            return words[0] in self.given
        return words[0][0].isupper() and all(word[0].isupper() or word in _PARTICLES for word in words)


def plain(redacted: str) -> str:
    """Drop placeholders, so that encoded text holds no trace of the removed passages."""
    return " ".join(PLACEHOLDER.sub(" ", redacted).split())


def legible(text: str) -> bool:
    """Return whether a text holds enough letters besides placeholders to be encoded as a unit."""
    return sum(c.isalpha() for c in plain(text)) >= FEWEST_LETTERS


def redactor(names: Mapping[str, list[str]]) -> Redactor:
    """Build a redactor from lists of `given` and `family` names, in any case."""
    return Redactor(*(frozenset(name.lower() for name in names[kind]) for kind in ("given", "family")))


def _words(text: str) -> list[str]:
    return [word[0].rstrip(".").lower().replace("’", "'") for word in _WORD.finditer(text)]


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    """Cut a text into lines, and long lines into pieces at spaces; yield (offset, piece)."""
    line_start = 0
    for line in text.split("\n"):
        start = 0
        while start < len(line):
            end = (
                len(line)
                if len(line) - start <= PIECE
                else line.rfind(" ", start + 1, start + PIECE) + 1 or start + PIECE
            )
            if not line[start:end].isspace():
                yield line_start + start, line[start:end]
            start = end
        line_start += len(line) + 1


def _contacts(text: str) -> Iterator[Span]:
    for offset, piece in _pieces(text):
        for kind, pattern in _PATTERNS:
            for match in pattern.finditer(piece):
                if match[0].strip():
                    yield offset + match.start(), offset + match.end(), kind
        for match in _PHONE.finditer(piece):
            number, digits = match[0].strip(), sum(c.isdigit() for c in match[0])
            likely_phone = number[0] in "+(0" or _DIALLED.search(piece[: match.start()]) or _GROUPS.match(number)
            if 7 <= digits <= 15 and likely_phone and not _NO_PHONE.match(number):
                yield offset + match.start(), offset + match.end(), PHONE


def _disjoint(spans: list[Span]) -> list[Span]:
    """Keep the first and longest of overlapping spans, stretched over all of them."""
    kept: list[Span] = []
    for start, end, kind in sorted(spans, key=lambda s: (s[0], -s[1])):
        if kept and start < kept[-1][1]:
            kept[-1] = (kept[-1][0], max(end, kept[-1][1]), kept[-1][2])
        else:
            kept.append((start, end, kind))
    return kept
