-- Made from hallmark/records/migrations by `python -m hallmark.records.supabase`: change it there.
do $$ begin
  if not exists (select from pg_roles where rolname = 'hallmark_service') then
    create role hallmark_service nologin noinherit;
  end if;
end $$;
grant hallmark_service to postgres;
grant usage on schema public to hallmark_service;
grant usage on schema auth to hallmark_service;
create schema if not exists alembic;

BEGIN;

CREATE TABLE alembic.alembic_version (
    version_num VARCHAR(32) NOT NULL, 
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);

-- Running upgrade  -> 0001

CREATE TABLE predictions (
    id VARCHAR(36) NOT NULL, 
    owner_id VARCHAR(200) NOT NULL, 
    client_id VARCHAR(200) NOT NULL, 
    task VARCHAR(100) NOT NULL, 
    model_version VARCHAR(32) NOT NULL, 
    hallmark_sha256 VARCHAR(64) NOT NULL, 
    base_sha256 VARCHAR(64) NOT NULL, 
    adapter_sha256 VARCHAR(64) NOT NULL, 
    history_sha256 VARCHAR(64) NOT NULL, 
    status VARCHAR(32) NOT NULL, 
    served_by VARCHAR(16) NOT NULL, 
    reason TEXT NOT NULL, 
    asked_at TIMESTAMP WITH TIME ZONE NOT NULL, 
    latency_ms FLOAT NOT NULL, 
    batch_rows INTEGER NOT NULL, 
    machine_sha256 VARCHAR(64) NOT NULL, 
    request TEXT, 
    response TEXT NOT NULL, 
    PRIMARY KEY (id)
);

CREATE INDEX ix_predictions_owner_id ON predictions (owner_id, asked_at);

CREATE INDEX ix_predictions_client ON predictions (client_id, asked_at);

CREATE INDEX ix_predictions_time ON predictions (asked_at);

CREATE TABLE outcomes (
    id VARCHAR(36) NOT NULL, 
    owner_id VARCHAR(200) NOT NULL, 
    client_id VARCHAR(200) NOT NULL, 
    prediction_id VARCHAR(36) NOT NULL, 
    horizon VARCHAR(32) NOT NULL, 
    value TEXT NOT NULL, 
    observed_at TIMESTAMP WITH TIME ZONE NOT NULL, 
    recorded_at TIMESTAMP WITH TIME ZONE NOT NULL, 
    PRIMARY KEY (id), 
    CONSTRAINT uq_outcomes_prediction_id UNIQUE (prediction_id, horizon)
);

CREATE TABLE machines (
    sha256 VARCHAR(64) NOT NULL, 
    description TEXT NOT NULL, 
    PRIMARY KEY (sha256)
);

CREATE TABLE model_versions (
    hallmark_sha256 VARCHAR(64) NOT NULL, 
    task VARCHAR(100) NOT NULL, 
    version VARCHAR(32) NOT NULL, 
    metrics TEXT NOT NULL, 
    verdicts TEXT NOT NULL, 
    first_served_at TIMESTAMP WITH TIME ZONE NOT NULL, 
    PRIMARY KEY (hallmark_sha256)
);

CREATE TABLE training_jobs (
    id VARCHAR(36) NOT NULL, 
    owner_id VARCHAR(200) NOT NULL, 
    client_id VARCHAR(200) NOT NULL, 
    task VARCHAR(100) NOT NULL, 
    status VARCHAR(32) NOT NULL, 
    reason TEXT NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE NOT NULL, 
    finished_at TIMESTAMP WITH TIME ZONE, 
    PRIMARY KEY (id)
);

CREATE TABLE user_datasets (
    id VARCHAR(36) NOT NULL, 
    owner_id VARCHAR(200) NOT NULL, 
    client_id VARCHAR(200) NOT NULL, 
    name VARCHAR(200) NOT NULL, 
    sha256 VARCHAR(64) NOT NULL, 
    rows INTEGER NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE NOT NULL, 
    PRIMARY KEY (id)
);

CREATE INDEX ix_outcomes_owner_id ON outcomes (owner_id);

CREATE INDEX ix_outcomes_client ON outcomes (client_id);

CREATE INDEX ix_training_jobs_owner_id ON training_jobs (owner_id);

CREATE INDEX ix_training_jobs_client ON training_jobs (client_id);

CREATE INDEX ix_user_datasets_owner_id ON user_datasets (owner_id);

CREATE INDEX ix_user_datasets_client ON user_datasets (client_id);

CREATE TABLE audit_log (
    number INTEGER NOT NULL, 
    at TIMESTAMP WITH TIME ZONE NOT NULL, 
    actor VARCHAR(200) NOT NULL, 
    action VARCHAR(64) NOT NULL, 
    object VARCHAR(200) NOT NULL, 
    detail TEXT NOT NULL, 
    previous_sha256 VARCHAR(64) NOT NULL, 
    sha256 VARCHAR(64) NOT NULL, 
    PRIMARY KEY (number)
);

create schema if not exists hallmark;

create or replace function hallmark.subjects() returns text[] language sql stable set search_path = '' as $$ select coalesce(array(select pg_catalog.jsonb_array_elements_text(coalesce(nullif(pg_catalog.current_setting('request.jwt.claims', true), '')::jsonb #> '{app_metadata,subjects}', '[]'::jsonb))), '{}') || coalesce((select auth.uid())::text, '') $$;

create or replace function hallmark.caller() returns text language sql stable set search_path = '' as $$ select nullif(pg_catalog.current_setting('request.jwt.claims', true), '')::jsonb ->> 'client_id' $$;

grant usage on schema hallmark to authenticated, hallmark_service;

alter table predictions enable row level security;

alter table predictions force row level security;

revoke all on predictions from anon, authenticated, public;

grant select, insert on predictions to hallmark_service;

create policy service_reads on predictions for select to hallmark_service using (true);

create policy service_writes on predictions for insert to hallmark_service with check (true);

alter table outcomes enable row level security;

alter table outcomes force row level security;

revoke all on outcomes from anon, authenticated, public;

grant select, insert on outcomes to hallmark_service;

create policy service_reads on outcomes for select to hallmark_service using (true);

create policy service_writes on outcomes for insert to hallmark_service with check (true);

alter table training_jobs enable row level security;

alter table training_jobs force row level security;

revoke all on training_jobs from anon, authenticated, public;

grant select, insert on training_jobs to hallmark_service;

create policy service_reads on training_jobs for select to hallmark_service using (true);

create policy service_writes on training_jobs for insert to hallmark_service with check (true);

alter table user_datasets enable row level security;

alter table user_datasets force row level security;

revoke all on user_datasets from anon, authenticated, public;

grant select, insert on user_datasets to hallmark_service;

create policy service_reads on user_datasets for select to hallmark_service using (true);

create policy service_writes on user_datasets for insert to hallmark_service with check (true);

alter table machines enable row level security;

alter table machines force row level security;

revoke all on machines from anon, authenticated, public;

grant select, insert on machines to hallmark_service;

create policy service_reads on machines for select to hallmark_service using (true);

create policy service_writes on machines for insert to hallmark_service with check (true);

alter table model_versions enable row level security;

alter table model_versions force row level security;

revoke all on model_versions from anon, authenticated, public;

grant select, insert on model_versions to hallmark_service;

create policy service_reads on model_versions for select to hallmark_service using (true);

create policy service_writes on model_versions for insert to hallmark_service with check (true);

alter table audit_log enable row level security;

alter table audit_log force row level security;

revoke all on audit_log from anon, authenticated, public;

grant select, insert on audit_log to hallmark_service;

create policy service_reads on audit_log for select to hallmark_service using (true);

create policy service_writes on audit_log for insert to hallmark_service with check (true);

grant select on predictions to authenticated;

create policy own_rows on predictions for select to authenticated using (owner_id = any ((select hallmark.subjects())::text[]) or client_id = (select hallmark.caller()));

grant select on outcomes to authenticated;

create policy own_rows on outcomes for select to authenticated using (owner_id = any ((select hallmark.subjects())::text[]) or client_id = (select hallmark.caller()));

grant select on training_jobs to authenticated;

create policy own_rows on training_jobs for select to authenticated using (owner_id = any ((select hallmark.subjects())::text[]) or client_id = (select hallmark.caller()));

grant select on user_datasets to authenticated;

create policy own_rows on user_datasets for select to authenticated using (owner_id = any ((select hallmark.subjects())::text[]) or client_id = (select hallmark.caller()));

grant update (request) on predictions to hallmark_service;

create policy service_forgets on predictions for update to hallmark_service using (true) with check (request is null);

grant select on machines to authenticated;

create policy tokens_read on machines for select to authenticated using (true);

grant select on model_versions to authenticated;

create policy tokens_read on model_versions for select to authenticated using (true);

create or replace function hallmark.refuse() returns trigger language plpgsql set search_path = '' as $$ begin raise exception 'the audit log only grows'; end $$;

create trigger audit_log_only_grows before update or delete on audit_log for each row execute function hallmark.refuse();

create trigger audit_log_no_truncate before truncate on audit_log execute function hallmark.refuse();

INSERT INTO alembic.alembic_version (version_num) VALUES ('0001') RETURNING alembic.alembic_version.version_num;

COMMIT;
