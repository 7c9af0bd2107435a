-- The advisory lock that an application's transaction holds, shared, on the deliveries of a claim that it settles.
create or replace function fastpubsub.transaction_lock(p_token bigint) returns bigint
language sql immutable
as $$
select hashtextextended('fastpubsub settlement', p_token);
$$;
