"""Test strings for evaluation: contact data that must be redacted, invented facts that must be rejected."""

import re

MENTIONS = (
    "Reference: {name}, Director of Sales, said that the work was excellent.",
    "Reported to {name} and led a team of five.",
    "Award given by {name} for customer service.",
    "Wrote the thesis with {name} at the university.",
    "Contact {name} for further information.",
)

# line → text of it that redaction must remove
CONTACTS = {
    "jane.doe@example.com": "jane.doe",
    "E-mail: j_doe+jobs@mail.example.co.uk": "j_doe",
    "jane @ example.com": "example",
    "Phone: +1 (555) 010-4477": "4477",
    "Tel 020 7946 0958": "0958",
    "+49 170 1234567": "1234567",
    "555.010.9921": "9921",
    "Mobile: 07700 900123": "900123",
    "https://www.linkedin.com/in/jane-doe-8841": "8841",
    "github.com/jdoe77": "jdoe77",
    "www.janedoe.example": "janedoe",
    "janedoe.io/cv": "janedoe",
    "12 Station Road, Ashford": "Station",
    "Apt 4, 221B Baker Street, London": "221B",
    "742 Evergreen Terrace, Springfield, OR 97403": "Evergreen",
    "Hauptstraße 5, 10115 Berlin": "Hauptstra",
    "Address: The Old Mill, Riverton": "Riverton",
    "P.O. Box 1184": "1184",
    "Date of birth: 12/05/1980": "1980",
    "DOB 1980-05-12": "1980",
    "Born on 12 May 1980": "1980",
    "Born 1980": "1980",
    "Age: 44": "44",
    "44 years old": "44",
    "Nationality: Portuguese": "Portuguese",
    "Gender: female": "female",
    "Marital status: married, two children": "married",
    "Religion: none of your business": "business",
}

INVENTIONS = (
    "Managed a team at Initrode",
    "Senior Engineer, Globex Corporation",
    "Raised turnover by 4173%",
    "Saved 98765 euros",
    "Employed since 1931",
    "Master of Science, Stanfjord",
    "Certified in Zyxware Pro",
    "Promoted in 1938 for good results",
    "fly helicopters and breed cattle",
    "restore paintings in churches",
)


def recombined(cv: str) -> list[str]:
    """Recombine the facts of a CV into false ones: the year of another employment, a year as a number."""
    lines = [line.strip(" *_-•") for line in cv.split("\n")]
    dated = [(line, years) for line in lines if (years := re.findall(r"\b(?:19|20)\d\d\b", line))]
    inventions = []
    for line, years in dated:
        for _, other_years in dated:
            if new_years := [year for year in other_years if year not in years]:
                inventions.append(line.replace(years[0], new_years[0]))
                break
    duties = [line for line in lines if len(line.split()) > 4 and not re.search(r"\d", line)]
    if duties and dated:
        inventions.append(f"{duties[0]} for {dated[0][1][0]} customers")
        inventions.append(f"{duties[0]} at seventeen places")
    return inventions
