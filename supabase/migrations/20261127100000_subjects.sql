BEGIN;

-- Running upgrade 0002 -> 0003

CREATE TABLE ledgers (
    task VARCHAR(100) NOT NULL, 
    hallmark_sha256 VARCHAR(64) NOT NULL, 
    owner_id VARCHAR(200) NOT NULL, 
    state VARCHAR(16) NOT NULL, 
    reason TEXT NOT NULL, 
    last_day DATE NOT NULL, 
    ledger TEXT NOT NULL, 
    PRIMARY KEY (task, hallmark_sha256, owner_id)
);

CREATE TABLE pseudonyms (
    owner_id VARCHAR(200) NOT NULL, 
    pseudonym VARCHAR(36) NOT NULL, 
    PRIMARY KEY (owner_id)
);

CREATE TABLE erasures (
    owner_sha256 VARCHAR(64) NOT NULL, 
    at TIMESTAMP WITH TIME ZONE NOT NULL, 
    PRIMARY KEY (owner_sha256)
);

alter table ledgers enable row level security;

alter table ledgers force row level security;

revoke all on ledgers from anon, authenticated, public;

grant select, insert, update, delete on ledgers to hallmark_service;

create policy service_all on ledgers for all to hallmark_service using (true) with check (true);

alter table pseudonyms enable row level security;

alter table pseudonyms force row level security;

revoke all on pseudonyms from anon, authenticated, public;

grant select, insert, update, delete on pseudonyms to hallmark_service;

create policy service_all on pseudonyms for all to hallmark_service using (true) with check (true);

alter table erasures enable row level security;

alter table erasures force row level security;

revoke all on erasures from anon, authenticated, public;

grant select, insert, update, delete on erasures to hallmark_service;

create policy service_all on erasures for all to hallmark_service using (true) with check (true);

grant delete on predictions to hallmark_service;

create policy service_erases on predictions for delete to hallmark_service using (true);

grant delete on outcomes to hallmark_service;

create policy service_erases on outcomes for delete to hallmark_service using (true);

grant delete on training_jobs to hallmark_service;

create policy service_erases on training_jobs for delete to hallmark_service using (true);

grant delete on user_datasets to hallmark_service;

create policy service_erases on user_datasets for delete to hallmark_service using (true);

UPDATE alembic.alembic_version SET version_num='0003' WHERE alembic.alembic_version.version_num = '0002';

COMMIT;
