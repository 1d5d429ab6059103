"""Alembic's environment: migrate over the connection that `migrate` passes, or write SQL for PostgreSQL."""

from alembic import context

from hallmark.records.tables import metadata

if context.is_offline_mode():
    context.configure(dialect_name="postgresql", target_metadata=metadata, version_table_schema="alembic")
    with context.begin_transaction():
        context.run_migrations()
else:
    connection = context.config.attributes["connection"]
    schema = "alembic" if connection.dialect.name == "postgresql" else None
    context.configure(connection=connection, target_metadata=metadata, version_table_schema=schema)
    with context.begin_transaction():
        context.run_migrations()
