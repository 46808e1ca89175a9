-- Users and mail of pop3d in PostgreSQL 13 or later; docs/postgres.md explains it.

create table pop3_users (
    name     text primary key,
    password text not null,             -- {SCHEME}secret, as in a users file; `pop3d user add` makes such
    home     text
);

create table pop3_messages (
    id        bigint generated always as identity primary key,
    mailbox   text   not null,          -- the user's name
    -- shown to clients, and never used again, also after a dump was restored
    uid       text   not null default replace(gen_random_uuid()::text, '-', '') check (uid ~ '^[!-~]{1,70}$'),
    content   bytea  not null,          -- as POP3 sends it: CRLF at the end of every line, the last one too
    octets    bigint not null generated always as (octet_length(content)) stored,
    delivered timestamptz not null default now(),
    unique (mailbox, uid)
);

-- uncompressed, so that a piece in the middle of a large message is read alone
alter table pop3_messages alter column content set storage external;

-- a mailbox is listed from this index alone
create index pop3_messages_of on pop3_messages (mailbox, id) include (uid, octets);

-- pop3d needs no more than this (its role is "pop3d" here):
-- grant select on pop3_users to pop3d;             -- and insert, update, delete for whoever runs `pop3d user`
-- grant select, insert, delete on pop3_messages to pop3d;
