create table if not exists stock (product text primary key, available integer not null check (available >= 0));
insert into stock values ('teapot', 10) on conflict do nothing;
create table if not exists orders (
    id bigint generated always as identity primary key,
    product text not null,
    quantity integer not null,
    email text not null,
    status text not null default 'placed',
    cents bigint not null default 0
);
-- The messages that `once` has seen; docs/fastapi.md says how long to keep them.
create table if not exists fastpubsub_done (
    subscription_id varchar(128),
    message_id varchar(36),
    done_at timestamptz not null default now(),
    primary key (subscription_id, message_id)
);
