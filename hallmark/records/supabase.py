"""python -m hallmark.records.supabase: write the tables of the records as migrations for Supabase.

The schema is written once, in `migrations/versions`; `supabase/migrations` holds what Alembic makes of it.
"""

import io
from pathlib import Path

DIRECTORY = Path("supabase/migrations")
FILES = {
    "0001": "20261126000000_records.sql",
    "0002": "20261127000000_monitor.sql",
    "0003": "20261127100000_subjects.sql",
}
"""Revision → file, named as Supabase's command line orders them."""
OPENING = """-- Made from hallmark/records/migrations by `python -m hallmark.records.supabase`: change it there.
do $$ begin
  if not exists (select from pg_roles where rolname = 'hallmark_service') then
    create role hallmark_service nologin noinherit;
  end if;
end $$;
grant hallmark_service to postgres;
grant usage on schema public to hallmark_service;
grant usage on schema auth to hallmark_service;
create schema if not exists alembic;

"""


def migrations() -> dict[str, str]:
    """Return the SQL of every revision for PostgreSQL, by the name of its file."""
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    made, before = {}, "base"
    config = Config()
    config.set_main_option("script_location", "hallmark.records:migrations")
    revisions = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    for revision in reversed(revisions):
        config.output_buffer = text = io.StringIO()
        command.upgrade(config, f"{before}:{revision}", sql=True)
        made[FILES[revision]] = (OPENING if before == "base" else "") + text.getvalue().strip() + "\n"
        before = revision
    return made


def main() -> None:
    """Write the files."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    for name, text in migrations().items():
        (DIRECTORY / name).write_text(text, encoding="utf-8")
        print(DIRECTORY / name)


if __name__ == "__main__":
    main()
