-- When a subscription expires that nobody uses after p_used_at. What is noted of its uses is two minutes old at most.
create or replace function fastpubsub.expires_at(p_used_at timestamptz, p_expire_after_seconds integer) returns timestamptz
language sql stable
as $$
select p_used_at + make_interval(secs => p_expire_after_seconds + 120);
$$;
