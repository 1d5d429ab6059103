"""Provide lists of names: to redact names in a CV, and groups of names for the fairness audit.

First names are frequent ones of United States birth records, surnames frequent ones of its census; each audited name is
one that those records tie to a group more than to the others. A source may bring longer lists of its own.
"""

# group → first names and surnames: women and men, as four groups of the census call themselves
FIRST: dict[str, tuple[str, ...]] = {
    "A_W": ("Mei", "Priya", "Lakshmi", "Thuy", "Yuki", "Soo-Jin", "Anjali", "Xiu", "Linh", "Hana"),
    "A_M": ("Wei", "Hiroshi", "Arjun", "Minh", "Jin", "Raj", "Kenji", "Sanjay", "Duc", "Vikram"),
    "B_W": ("Lakisha", "Tamika", "Ebony", "Latoya", "Keisha", "Aaliyah", "Shanice", "Imani", "Tanisha", "Precious"),
    "B_M": ("Jamal", "Darnell", "Tyrone", "DeShawn", "Terrell", "Malik", "Rasheed", "Marquis", "Demetrius", "Tremayne"),
    "H_W": (
        "Guadalupe",
        "Rosa",
        "Ximena",
        "Esperanza",
        "Mariana",
        "Alejandra",
        "Luz",
        "Marisol",
        "Yesenia",
        "Graciela",
    ),
    "H_M": ("Carlos", "Jose", "Luis", "Alejandro", "Javier", "Miguel", "Santiago", "Esteban", "Jorge", "Ignacio"),
    "W_W": ("Emily", "Anne", "Jill", "Katelyn", "Claire", "Molly", "Heather", "Abigail", "Megan", "Kristen"),
    "W_M": ("Greg", "Todd", "Brad", "Brett", "Connor", "Scott", "Tanner", "Jake", "Logan", "Hunter"),
}
LAST: dict[str, tuple[str, ...]] = {
    "A": ("Nguyen", "Patel", "Chen", "Wang", "Tran", "Gupta", "Huang", "Tanaka", "Singh", "Vang"),
    "B": ("Washington", "Jefferson", "Booker", "Banks", "Jackson", "Mosley", "Dorsey", "Gaines", "Rivers", "Joseph"),
    "H": (
        "Garcia",
        "Hernandez",
        "Martinez",
        "Rodriguez",
        "Orozco",
        "Velazquez",
        "Zavala",
        "Juarez",
        "Ibarra",
        "Barajas",
    ),
    "W": ("Mueller", "Schmidt", "Becker", "Olson", "Novak", "Schroeder", "Erickson", "Hansen", "Krueger", "Yoder"),
}

MORE_FIRST = """
Aaron Adam Alan Albert Alex Alexander Alice Amanda Amy Andrea Andrew Angela Anna Anthony Arthur Ashley Barbara
Benjamin Betty Beverly Brandon Brenda Brian Bruce Bryan Carl Carol Caroline Catherine Charles Charlotte Cheryl
Christian Christina Christine Christopher Cynthia Daniel David Deborah Denise Dennis Diana Diane Donald Donna
Dorothy Douglas Dylan Edward Elizabeth Emma Eric Ethan Eugene Evelyn Frances Gabriel Gary George Gerald Gloria
Gregory Hannah Harold Heather Helen Henry Howard Isabella Jack Jacob Jacqueline James Janet Janice Jason Jean
Jeffrey Jennifer Jeremy Jessica Joan John Jonathan Jordan Joseph Joshua Joyce Judith Judy Julia Julie Justin
Karen Katherine Kathleen Kathryn Kayla Keith Kelly Kenneth Kevin Kimberly Kyle Larry Laura Lauren Lawrence
Linda Lisa Lori Louis Madison Margaret Maria Marie Marilyn Martha Mary Matthew Megan Melissa Michael Michelle
Mildred Nancy Natalie Nathan Nicholas Nicole Noah Olivia Pamela Patricia Patrick Paul Peter Philip Phillip
Rachel Ralph Randy Raymond Rebecca Richard Robert Roger Ronald Russell Ruth Ryan Samantha Samuel Sandra Sara
Sarah Sharon Shirley Sophia Stephanie Stephen Steven Susan Teresa Theresa Thomas Timothy Tyler Victoria
Vincent Virginia Walter Wayne William Zachary
""".split()
MORE_LAST = """
Adams Allen Alvarez Anderson Bailey Baker Barnes Bennett Brooks Brown Bryant Butler Campbell Carter Castillo
Chavez Clark Collins Cooper Cox Cruz Davis Diaz Edwards Evans Fisher Flores Foster Gomez Gonzales Gonzalez
Gray Green Griffin Gutierrez Hall Hamilton Harris Harrison Hayes Henderson Hill Howard Hughes Jenkins Jimenez
Johnson Jones Jordan Kelly Kennedy Kim King Lee Lewis Long Lopez Marshall Martin McDonald Mendoza Miller
Mitchell Moore Morales Morgan Morris Murphy Murray Myers Nelson Ortiz Owens Parker Perez Perry Peterson
Phillips Powell Price Ramirez Ramos Reed Reyes Reynolds Richardson Rivera Roberts Robinson Rogers Ross Ruiz
Russell Sanchez Sanders Scott Simmons Smith Stewart Sullivan Taylor Thomas Thompson Torres Turner Walker
Wallace Ward Watson West White Williams Wilson Wood Wright Young
""".split()


def audited() -> dict[str, tuple[str, ...]]:
    """Combine 100 whole names per group, group → names."""
    return {
        group: tuple(f"{first} {last}" for first in firsts for last in LAST[group[0]])
        for group, firsts in FIRST.items()
    }


def given_names() -> tuple[str, ...]:
    """List first names of the gazetteer."""
    return tuple(sorted({*MORE_FIRST, *(name for names in FIRST.values() for name in names)}))


def surnames() -> tuple[str, ...]:
    """List surnames of the gazetteer."""
    return tuple(sorted({*MORE_LAST, *(name for names in LAST.values() for name in names)}))
