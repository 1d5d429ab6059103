BEGIN;

-- Running upgrade 0001 -> 0002

CREATE TABLE arrivals (
    number BIGSERIAL NOT NULL, 
    kind VARCHAR(16) NOT NULL, 
    id VARCHAR(36) NOT NULL, 
    PRIMARY KEY (number)
);

CREATE TABLE subject_days (
    task VARCHAR(100) NOT NULL, 
    day DATE NOT NULL, 
    hallmark_sha256 VARCHAR(64) NOT NULL, 
    owner_id VARCHAR(200) NOT NULL, 
    figures TEXT NOT NULL, 
    PRIMARY KEY (task, day, hallmark_sha256, owner_id)
);

CREATE TABLE days (
    task VARCHAR(100) NOT NULL, 
    day DATE NOT NULL, 
    figures TEXT NOT NULL, 
    PRIMARY KEY (task, day)
);

CREATE TABLE watch_references (
    task VARCHAR(100) NOT NULL, 
    reference TEXT NOT NULL, 
    frozen_at TIMESTAMP WITH TIME ZONE NOT NULL, 
    PRIMARY KEY (task)
);

CREATE TABLE alarms (
    id VARCHAR(36) NOT NULL, 
    task VARCHAR(100) NOT NULL, 
    kind VARCHAR(32) NOT NULL, 
    figure VARCHAR(200) NOT NULL, 
    severity VARCHAR(16) NOT NULL, 
    day DATE NOT NULL, 
    since DATE NOT NULL, 
    message TEXT NOT NULL, 
    raised_at TIMESTAMP WITH TIME ZONE NOT NULL, 
    told_at TIMESTAMP WITH TIME ZONE, 
    PRIMARY KEY (id)
);

CREATE INDEX ix_alarms_task ON alarms (task, day);

alter table arrivals enable row level security;

alter table arrivals force row level security;

revoke all on arrivals from anon, authenticated, public;

grant select, insert, update, delete on arrivals to hallmark_service;

create policy service_all on arrivals for all to hallmark_service using (true) with check (true);

alter table subject_days enable row level security;

alter table subject_days force row level security;

revoke all on subject_days from anon, authenticated, public;

grant select, insert, update, delete on subject_days to hallmark_service;

create policy service_all on subject_days for all to hallmark_service using (true) with check (true);

alter table days enable row level security;

alter table days force row level security;

revoke all on days from anon, authenticated, public;

grant select, insert, update, delete on days to hallmark_service;

create policy service_all on days for all to hallmark_service using (true) with check (true);

alter table watch_references enable row level security;

alter table watch_references force row level security;

revoke all on watch_references from anon, authenticated, public;

grant select, insert, update, delete on watch_references to hallmark_service;

create policy service_all on watch_references for all to hallmark_service using (true) with check (true);

alter table alarms enable row level security;

alter table alarms force row level security;

revoke all on alarms from anon, authenticated, public;

grant select, insert, update, delete on alarms to hallmark_service;

create policy service_all on alarms for all to hallmark_service using (true) with check (true);

grant usage on sequence arrivals_number_seq to hallmark_service;

create or replace function hallmark.arrive() returns trigger language plpgsql set search_path = '' as $$ begin insert into public.arrivals (kind, id) values (tg_table_name, new.id); return null; end $$;

create trigger predictions_arrive after insert on predictions for each row execute function hallmark.arrive();

create trigger outcomes_arrive after insert on outcomes for each row execute function hallmark.arrive();

insert into arrivals (kind, id) select 'predictions', id from predictions order by asked_at;

insert into arrivals (kind, id) select 'outcomes', id from outcomes order by recorded_at;

UPDATE alembic.alembic_version SET version_num='0002' WHERE alembic.alembic_version.version_num = '0001';

COMMIT;
