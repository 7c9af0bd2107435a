-- How many messages are in the bucket of a subscription with a rate limit: all that one second brings, at least one, if it is full, as it
-- is without p_full_at. One that lacks twice as much is full as well: it had a lower rate before, or the clock was set back.
create or replace function fastpubsub.bucket_messages(
    p_rate_limit double precision,
    p_full_at timestamptz,
    p_now timestamptz
) returns double precision
language sql immutable
as $$
select case when b.lacks > 2 * b.size then b.size else b.size - b.lacks end
from (
    select
        greatest(p_rate_limit, 1) as size,
        p_rate_limit * greatest(coalesce(extract(epoch from p_full_at - p_now), 0)::double precision, 0) as lacks
) as b;
$$;
