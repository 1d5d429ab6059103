"""Templates for synthetic CVs and job ads: occupations, skills and sentences.

The last wording of a skill occurs only in test, so that a model must recognise it by its meaning.
"""

# occupation → skill → wordings, as they stand in job advertisements and CVs
SKILLS: dict[str, dict[str, tuple[str, ...]]] = {
    "nurse": {
        "administer medication": ("give patients their prescribed drugs", "dispense doses on time", "hand out medicines safely"),
        "monitor vital signs": ("check pulse and blood pressure", "take temperatures on rounds", "keep an eye on heart rate and breathing"),
        "dress wounds": ("change bandages", "clean and cover injuries", "look after surgical cuts until they heal"),
        "keep patient records": ("write up case notes", "fill in medical charts", "document care given on the ward"),
        "educate patients": ("explain treatment to families", "teach people how to live with an illness", "advise on care at home"),
        "apply hygiene standards": ("disinfect rooms and instruments", "keep the ward free of infection", "follow hand washing rules"),
        "assist in surgery": ("pass instruments in theatre", "prepare the operating room", "support doctors during operations"),
    },
    "software developer": {
        "debug software": ("track down bugs", "find out why programs crash", "fix faulty code"),
        "design databases": ("model tables and relations", "draw up schemas", "structure how data are stored"),
        "write automated tests": ("cover code with unit tests", "build regression suites", "check every change by machine"),
        "review code": ("read merge requests", "comment on colleagues' changes", "approve what others have programmed"),
        "deploy applications": ("ship releases to servers", "run delivery pipelines", "roll out new versions"),
        "develop web interfaces": ("build pages in the browser", "program the front end", "make forms and views for users"),
        "optimise performance": ("speed up slow queries", "profile hot loops", "make programs use less memory"),
    },
    "accountant": {
        "prepare financial statements": ("draw up the balance sheet", "close the books each month", "report profit and loss"),
        "file tax returns": ("declare value added tax", "submit forms to the revenue office", "settle corporate taxes"),
        "manage invoices": ("send bills and chase payments", "process accounts payable", "match receipts with orders"),
        "audit accounts": ("check ledgers for errors", "verify entries against vouchers", "examine bookkeeping for fraud"),
        "forecast budgets": ("plan next year's spending", "estimate costs and income", "project cash needs"),
        "process payroll": ("pay wages on time", "calculate salaries and deductions", "run the monthly pay slips"),
        "control costs": ("watch spending against plan", "find savings", "cut unnecessary expenses"),
    },
    "teacher": {
        "plan lessons": ("prepare what each class will do", "write schemes of work", "set out goals for every hour of teaching"),
        "assess students": ("mark exams", "grade homework", "judge how far pupils have come"),
        "maintain classroom discipline": ("keep order in class", "deal with disruptive behaviour", "make pupils stick to rules"),
        "support pupils with special needs": ("adapt tasks for dyslexic children", "work with disabled learners", "help those who learn differently"),
        "communicate with parents": ("hold parents' evenings", "write home about progress", "talk with mothers and fathers"),
        "organise school trips": ("take classes to museums", "plan excursions", "arrange outings for pupils"),
        "use digital learning tools": ("teach with tablets", "run online courses", "put exercises on a learning platform"),
    },
    "chef": {
        "cook meals": ("prepare dishes to order", "work the hot line", "make lunch and dinner for guests"),
        "plan menus": ("write the weekly card", "compose seasonal courses", "choose which dishes are served"),
        "control food safety": ("keep fridge temperatures in range", "label and date products", "prevent contamination in the kitchen"),
        "order ingredients": ("buy vegetables and meat", "deal with food suppliers", "keep the larder stocked"),
        "bake pastry": ("make bread and cakes", "prepare doughs", "produce desserts from the oven"),
        "lead a kitchen team": ("run a brigade of cooks", "train kitchen helpers", "assign stations to staff"),
        "calculate food costs": ("price each plate", "work out portions", "keep waste and margins in view"),
    },
    "electrician": {
        "install wiring": ("lay cables in buildings", "fit sockets and switches", "connect new circuits"),
        "read circuit diagrams": ("work from electrical drawings", "follow wiring plans", "understand schematics"),
        "test electrical equipment": ("measure insulation and earth", "check appliances for safety", "inspect devices before use"),
        "repair electric motors": ("rewind coils", "replace worn bearings in drives", "get stalled machines turning again"),
        "follow safety regulations": ("isolate before working", "wear protective gear", "obey rules for high voltage"),
        "mount solar panels": ("install photovoltaic modules", "put collectors on roofs", "set up sun power systems"),
        "program control units": ("set up logic controllers", "parametrise inverters", "write sequences for automated plants"),
    },
    "sales representative": {
        "negotiate contracts": ("agree terms with buyers", "bargain over prices", "settle conditions of a deal"),
        "acquire customers": ("win new clients", "make cold calls", "turn leads into orders"),
        "present products": ("demonstrate goods at fairs", "show customers how things work", "pitch solutions"),
        "analyse markets": ("study competitors", "follow demand and trends", "research what buyers want"),
        "maintain customer relations": ("look after key accounts", "visit clients regularly", "keep buyers happy over years"),
        "handle complaints": ("resolve disputes with customers", "calm dissatisfied callers", "answer claims and returns"),
        "meet sales targets": ("exceed quotas", "hit the yearly numbers", "reach planned turnover"),
    },
    "logistics coordinator": {
        "plan transport routes": ("schedule lorries", "choose the shortest tours", "arrange which vehicle goes where"),
        "manage stock": ("keep inventory accurate", "count goods in the warehouse", "make sure shelves are neither empty nor full"),
        "clear customs": ("prepare import papers", "declare goods at the border", "handle duties on shipments"),
        "track shipments": ("follow parcels on their way", "tell customers where freight is", "watch deliveries in real time"),
        "operate forklifts": ("move pallets", "drive industrial trucks", "lift and stack heavy loads"),
        "select carriers": ("compare hauliers", "tender freight", "choose who transports the goods"),
        "supervise warehouse staff": ("lead a shift of pickers", "allot tasks in the depot", "oversee loading crews"),
    },
}  # fmt: skip
# Skills of every occupation.
GENERAL: dict[str, tuple[str, ...]] = {
    "work in teams": ("collaborate with colleagues", "get on well with others", "join forces across departments"),
    "manage time": ("meet deadlines", "set priorities under pressure", "juggle several tasks a day"),
    "speak foreign languages": ("talk Spanish and French", "translate for visitors", "converse with guests from abroad"),
    "use spreadsheets": ("work with tables and formulas", "evaluate figures on a computer", "keep lists in office software"),
    "train new staff": ("show newcomers the ropes", "mentor apprentices", "bring beginners up to speed"),
    "give presentations": ("speak before groups", "report results to the board", "explain things on stage"),
}  # fmt: skip
# Skills without wordings: distractors that no text shows.
OTHERS = (
    """
tune pianos|shear sheep|fly helicopters|carve wood|brew beer|train horses|dive for salvage|restore paintings|blow glass
forge steel|keep bees|design costumes|conduct orchestras|survey land|drill wells|grow orchids|tailor suits|bind books
guide mountain hikes|operate cranes|mine coal|breed cattle|cut hair|lay bricks|paint houses|repair watches|catch fish
prune fruit trees|interpret radar images|develop photographs|play the violin|judge legal cases|write novels|drive trams
coach athletes|perform magic|extinguish fires|investigate crimes|translate poetry|observe the weather|polish diamonds
""".replace("\n", "|")
    .strip("|")
    .split("|")
)

DEMANDS = (
    "You {}.",
    "We are looking for somebody to {}.",
    "In this role you will {}, among other things.",
    "Your tasks: {}.",
    "The successful applicant can {} without supervision.",
    "Experience is needed: you {} with care.",
    "It is your job to {} every day.",
)
PAIRED = ("You {} and {}.", "Your duties: {}, {}.", "We expect that you {} as well as {}.")
IDLE = (
    "We offer a friendly atmosphere and free fruit.",
    "The contract is permanent.",
    "Our company was founded in 1987 and is growing.",
    "Send your application by e-mail.",
)
DONE = ("- {}", "- Was trusted to {}", "- Had to {} every week", "- {} for up to {n} people")
EMPLOYERS = ("Halden & Co", "Northwind Services", "Blue Harbour Ltd", "Kestrel Group", "Orchard Partners", "Lindgren AG",
             "Meridian Works", "Old Mill Company", "Sunfield Trust", "Castle Street Agency")  # fmt: skip
PLACES = ("Springfield", "Riverton", "Lakeside", "Fairview", "Ashford", "Milton")
STREETS = ("Oak", "Maple", "Station", "Church", "Mill", "Park")
