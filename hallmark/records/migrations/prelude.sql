-- Roles and `auth.uid()` as Supabase has them, for a plain PostgreSQL server. Every statement may run again.
do $$ begin
  if not exists (select from pg_roles where rolname = 'anon') then create role anon nologin noinherit; end if;
  if not exists (select from pg_roles where rolname = 'authenticated') then create role authenticated nologin noinherit; end if;
  if not exists (select from pg_roles where rolname = 'hallmark_service') then create role hallmark_service nologin noinherit; end if;
end $$;
create schema if not exists alembic;
create schema if not exists auth;
do $$ begin
  if not exists (select from pg_proc p join pg_namespace n on n.oid = p.pronamespace
                 where n.nspname = 'auth' and p.proname = 'uid') then
    create function auth.uid() returns text language sql stable set search_path = '' as
      $f$ select nullif(pg_catalog.current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub' $f$;
  end if;
end $$;
grant usage on schema auth to authenticated, hallmark_service;
grant usage on schema public to authenticated, hallmark_service;
