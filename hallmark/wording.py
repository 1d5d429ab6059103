"""Wording guard: tells whether a text gives a diagnosis, advice on dosing, or triage, none of which a model may give.

It judges by subject rather than by phrase: a sentence that names a disease or a medicine is withheld, whatever it says
of it; advice on care is recognised by whom it sends where, and by reassurance and urgency. English only. Its recall and
its false alarms on sentences that it was not written for are in docs/limits.md: text that passes is not thereby fit for
clinical use.
"""

import re
from collections.abc import Sequence

_DISEASE = r"""
    \w*diabet\w* | lada | mody | \w*glyc(?:a?e|ae)mi\w* | hyp(?:o|er)s? | hyp(?:o|er)thyroid\w* | thyroid | dka
  | keto(?:acidosis|sis|ne|nes) | acidosis | \w*(?:neuro|nephro|retino|cardio|myo)pathy | \w{2,}itis | thrombosis | fibrosis | (?:carcin|glauc|insulin|lymph|melan|sarc|tracho)oma | an(?:a?e|ae)mi[ac] | hypertension | sepsis | stroke(?=\W+(?:risk|symptom)) | asthma
  | infect(?:ion|ed|ions) | diseases? | syndrome | disorders? | cancer | migraines? | depression | remission
  | (?:heart|panic) (?:attack|failure|disease)s? | necro\w+ | nerve damage | gastroparesis | somogyi | dawn phenomenon | dehydrat(?:ed|ion)
  | insulin[ -]resistan\w+ | gluco\w+ (?:in)?tolerance | (?:blood )?sugars? (?:is|are|was) (?:too )?(?:low|high)
  | (?:low|high) (?:blood )?(?:sugars?|gluco\w+) | type[ -](?:1|2|one|two|i|ii)\b | (?:un)?diagnos\w+ | symptoms?
  | (?:kidney|liver|pancreas|beta[ -]cells?|immune system|autoimmune) | the sugar(?=\W*$) | allerg(?:y|ic|ies)
  | pneumonia | shingles | gout | flu | concussion | fractures? | fibrillation | arrhythmia | adhd | autism | croup
  | (?:mini-?)?strokes?(?=\W*$) | apn(?:o?ea) | tumou?rs? | benign | malignant | viral | bacterial | virus | eczema | epilepsy
  | dementia | alzheimer\w* | parkinson\w* | covid\w* | measles | chickenpox | ulcers? | hernia | pulled muscle
  | (?:hand, )?foot and mouth
  | you (?:have|'ve got|may have|might have|probably have) (?:the flu|a fever|a virus|a cold)
"""
_MEDICINE = r"""
    insulin\w* | bolus\w* | pre-?bolus\w* | basal | metformin | glucophage | ozempic | semaglutide | jardiance | sglt2\w*
  | (?:novo|humalo|apidr|fiasp|lantus|levemir|tresiba|toujeo|basaglar|lyumjev|actrapid|humulin)\w* | sul(?:f|ph)onylurea\w*
  | \w+(?:gliptin|glutide|gliflozin|gliclazide|glipizide|statins?|cillin|pril|sartan|olol|azole|sone|mycin|profen)(?<!april)
  | melatonin | thyroxine | morphine | codeine | opioids? | on the pen | inject(?=\W+for)
  | statins? | glucagon | aspirin | paracetamol | acetaminophen | tylenol | antibiotics? | steroids? | antihistamines?
  | medicines? | medications? | medicate\w* | meds | drugs? | pills? | injections? | injecting | jabs? | inhalers? | prescri\w+
  | (?:gluco\w+|dextrose|fast) (?:tablets?|tabs?|gels?|carbs?) | carb ratio | correction (?:factor|dose|bolus)
  | (?:under|over)-?dos\w+ | dosage\w* | dosing | dos(?:e|es|ed)(?!\W+of\W+(?!\w*(?:insulin|medic)))
  | tablets? | capsules? | (?:insulin|your) pump | (?:long|rapid)-acting | temp(?:orary)? basal | sliding scale | supplements?
  | (?:milligrams?|mcg|micrograms?) | \d\W*(?:mg|iu)\b(?!/) | (?:no|a) correction | your shot
  | (?:\d+(?:[.,]\d+)?|an?|one|two|three|four|five|six|seven|eight|nine|ten|half|extra|another|more|fewer|couple of)
    (?:\W+(?:a|an|and|half|extra|more|less|or))*\W*units?\b(?!\W+of\W+(?!\w*insulin))
"""
_CARE = r"""
    doctors? | gp | physicians? | endocrinologists? | specialists? | p(?:a?e|ae)diatricians? | clinic(?:ian)?s? | hospital\w*
  | emergency | e\.?r\.? | a\s?&\s?e | casualty | ambulance | paramedics? | urgent care | intensive care | acute ward | nurses?
  | midwife | 911 | 112 | 999 | 111 | nhs | (?:diabetes|care|health ?care|medical) (?:team|provider|professional)s? | pharmacist
  | medical (?:help|attention|care|advice|assistance|treatment|review) | professional (?:help|advice) | out-of-hours
  | check-?up | blood test | health professional | the surgery | pharmacy | appointment | same-day
"""
_ADVICE = r"""
    you | your | yourself | should | must | needs? to | ought | had better | recommended | advised | advisable | indicated
  | required | warrant\w* | refer(?:red)? | no need | please | do not | don'?t | if | consider | immediately | at once | now | urgent\w*
  | bother | worth | sensible | necessary | unless | let | calls? for | before
"""
_ACT = r"""
    (?:drive|driving|sleep|exercise|exercising|swim\w*|run|fly|fast|wait|ignore|travel|work|work out|stay (?:at )?home|carry on
  | (?:go|going|return) (?:for|to|back|out|on)|have a|leave (?:it|things)|skip|continue|keep (?:going|an eye)|train|drink|play|walk)
"""


def _any(words: str) -> str:
    return "(?:" + "".join(line.strip() for line in words.splitlines()).replace(" |", "|").replace("| ", "|") + ")"


_SUBJECTS = {
    "diagnosis": rf"\b{_any(_DISEASE)}\b",
    "dosing": rf"\b{_any(_MEDICINE)}(?!\w)",
    "triage": "|".join(
        (
            rf"\b{_any(_ADVICE)}\b.*\b{_any(_CARE)}(?!\w)",
            rf"\b{_any(_CARE)}(?!\w).*\b{_any(_ADVICE)}\b",
            rf"^\W*(?:call|ring|phone|dial|contact|see|visit|consult|seek|go|head|get|take|rush|book|make|tell|ask|speak|talk|refer|"
            rf"keep|bring|drive|let|have)\b.*\b{_any(_CARE)}(?!\w)",
            rf"\b(?:safe|safely|fine|ok|okay|all ?right|well enough|unwise|risky|dangerous)\b (?:for you )?(?:to|if you) (?:\w+ )?{_any(_ACT)}\b",
            rf"\byou (?:can|may|could|are free to) (?:\w+ )?(?:{_any(_ACT)})\b.*\b(?:risk|safe\w*|worr\w+|sugar|as long as|"
            r"normal|problem|high|low)\b",
            rf"\b(?:don'?t|do not|never|avoid) (?:{_any(_ACT)})\b.*\b(?:until|unless|while|with|alone|sugar|level|reading)\w*\b",
            rf"\b{_any(_ACT)}\b.*\b(?:should be (?:avoided|fine|safe)|would be unwise|is (?:unsafe|not safe|safe|perfectly okay|fine))\b",
            r"\b(?:your|these|this|the) (?:\w+ ){0,2}(?:readings?|values?|levels?|gluco\w+|sugars?|results?|numbers?)\b.*\b(?:safe|"
            r"danger\w*|normal|worr\w+|concern\w*|alarm\w*|urgent\w*|seriou\w*|harmless)\b",
            r"\b(?:not|n't|no|without) (?:\w+ )?(?:in any |in |at |any )?(?:danger|risk)\b",
            r"\b(?:nothing|no (?:need|reason|cause)) (?:to|for) (?:worry|panic|alarm|concern|be (?:worried|alarmed|concerned))",
            r"\b(?:life-?threatening|urgency|triage|watchful waiting|self-?care|get help|seek help|act now|out of the woods)\b",
            r"\b(?:get|have) (?:yourself|your \w+|it|that|this|someone look at)\b.*\b(?:checked|seen|looked at|foot|eyes?|wound)\b",
            r"\bsettle\w* on (?:its|their) own\b|\bsooner rather than later\b|\bno (?:action|treatment) is (?:required|needed)\b",
            r"\bno (?:rush|hurry) (?:to|about)\b|\b(?:medical|an) emergency\b|\bcan(?: safely)? wait (?:until|till|for)\b|\bthere'?s no rush\b",
            r"\b(?:leave|left) the (?:child|patient|person|baby)\b.*\balone\b|\bwake you\b.*\bcheck\b|\bdo not delay\b|\bevery minute counts\b|\bsleep it off\b|\bpull over at once\b",
        )
    ),
}
_PATTERNS = {kind: re.compile(pattern) for kind, pattern in _SUBJECTS.items()}
_SENTENCE_END = re.compile(r"[.!?;]+\s|\n+")


def clinical_statements(text: str) -> Sequence[str]:
    """Return which of `diagnosis`, `dosing` and `triage` a text contains; empty if it contains none."""
    sentences = _SENTENCE_END.split(text.lower().replace("\u2019", "'"))
    return [kind for kind, pattern in _PATTERNS.items() if any(pattern.search(sentence) for sentence in sentences)]


def complete_sentences(text: str) -> str:
    """Return a text up to the end of its last complete sentence or line, for text that still grows."""
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    return text[: ends[-1]] if ends else ""
